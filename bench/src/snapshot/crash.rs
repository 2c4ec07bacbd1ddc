//! What a crash costs a snapshot: the daemon is killed again and again on the way, and the records are counted.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{connector, limit};
use crate::Bench;
use crate::daemon::Daemon;
use crate::report::{Report, Target, thousands, two_digits};
use crate::services::Via;
use crate::source::{Source, TABLE};
use crate::stored::Stored;
use crate::topic;

const KILLS: u64 = 5;
/// A kill is late by at most this, by chance: a commit has just been seen when one is due, and a transaction that has
/// just begun is the least that can be lost.
const LATE_MS: u64 = 60;

struct Kill {
    /// Committed when the daemon was dead.
    rows: u64,
    /// From the start of the next one until it had committed more.
    back_after: Duration,
}

pub fn run(bench: &Bench, report: &mut Report, source: &mut Source, rows: u64) -> Result<()> {
    report.heading(format!(
        "Snapshot of {} rows, the daemon killed {KILLS} times on the way, `bench/run snapshot --rows {rows} --part kill`",
        thousands(rows as f64)
    ));
    let connector = connector(bench, "kill", Via::Tcp);
    let connectors = std::slice::from_ref(&connector);
    let until = Instant::now() + (KILLS as u32 + 1) * limit(rows);
    let mut daemon = Daemon::start(bench, &source.database, connectors)?;
    let mut stored = Stored::follow(&bench.services, &connector, &[TABLE])?;
    let mut kills = Vec::new();
    for kill in 1..=KILLS {
        let due = rows * kill / (KILLS + 1);
        stored.wait(&mut daemon, until, |progress| progress.done || progress.rows >= due)?;
        std::thread::sleep(Duration::from_millis(fastrand::u64(..=LATE_MS)));
        daemon.kill();
        let dead = stored.settled()?;
        daemon = Daemon::start(bench, &source.database, connectors)?;
        if dead.done {
            break;
        }
        stored.wait(&mut daemon, until, |progress| progress.done || progress.rows > dead.rows)?;
        kills.push(Kill { rows: dead.rows, back_after: daemon.process.started.elapsed() });
    }
    stored.wait(&mut daemon, until, |progress| progress.done)?;
    daemon.stop()?;
    source.drop_slot(&connector.slot())?;

    let topic = connector.topic(TABLE);
    let content = topic::read(&bench.services, &topic, &topic::Expected::rows(rows), &[])?;
    ensure!(content.missing == 0, "{topic} lacks {} of the table's keys", content.missing);
    let rolled_back = topic::written(&bench.services, &topic, rows)? - content.records;
    tell(report, &kills, rows, content.records, rolled_back);
    Ok(())
}

fn tell(report: &mut Report, kills: &[Kill], rows: u64, committed: u64, rolled_back: u64) {
    let share = |rows_of: u64| format!("{:.1} %", rows_of as f64 * 100.0 / rows as f64);
    let line =
        |kill: &Kill| vec![thousands(kill.rows as f64), share(kill.rows), two_digits(kill.back_after.as_secs_f64())];
    let head = ["rows committed when the daemon was dead", "of all", "from its next start to more, s"];
    report.table(&head, &kills.iter().map(line).collect::<Vec<_>>());
    report.line(format!(
        "At the end a consumer of committed records found every key of the table, and {} records for {} rows. The topic \
         also has {} records ({}) of transactions that were rolled back, which such a consumer doesn't see.\n",
        thousands(committed as f64),
        thousands(rows as f64),
        thousands(rolled_back as f64),
        share(rolled_back),
    ));
    report.target("Kills before the snapshot was done", kills.len() as f64, Target::AtLeast(KILLS as f64));
    report.target("Committed records / rows of the table", committed as f64 / rows as f64, Target::AtMost(1.05));
}
