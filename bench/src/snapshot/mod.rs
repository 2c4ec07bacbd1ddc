//! The first rows of a table, which it held before its connector began: how fast they come beside `COPY` of the same
//! table, what the rows of the stream suffer meanwhile, and what a crash costs.
//!
//! All parts read one table of one database; each connector has a slot and a topic of its own. One snapshot before them
//! is not counted: it makes the broker compile its code, and everybody reads the table out of the same caches.

mod beside;
mod crash;

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::Bench;
use crate::daemon::{Connector, Daemon};
use crate::limits;
use crate::process::{Ended, Usage};
use crate::report::{Report, Spread, Target, one_digit, thousands, two_digits};
use crate::services::Via;
use crate::source::{Source, TABLE};
use crate::stored::Stored;
use crate::topic::{self, Content};

/// What can be measured by itself.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Rows a second, beside COPY
    Speed,
    /// From a row's commit in another table to its consumer, meanwhile
    Latency,
    /// How many rows come twice when the daemon is killed on the way
    Kill,
}

impl Part {
    pub const ALL: &'static [Part] = &[Part::Speed, Part::Latency, Part::Kill];
}

/// Measures these parts.
pub fn run(bench: &Bench, report: &mut Report, rows: u64, runs: usize, parts: &[Part]) -> Result<()> {
    let mut source = Source::create(&bench.services, "snapshot", &bench.tag)?;
    source.fill_at_once(rows)?;
    source.settle()?;
    measure(bench, &mut source, &connector(bench, "warm", Via::Unix), rows)?;
    if parts.contains(&Part::Speed) {
        speed(bench, report, &mut source, rows, runs)?;
    }
    if parts.contains(&Part::Latency) {
        beside::run(bench, report, &mut source, rows)?;
    }
    if parts.contains(&Part::Kill) {
        crash::run(bench, report, &mut source, rows)?;
    }
    Ok(())
}

fn connector(bench: &Bench, name: &str, via: Via) -> Connector {
    Connector { name: format!("snapshot-{}-{name}", bench.tag), via, tables: &[TABLE] }
}

/// How long the rows may take, with all that comes before.
fn limit(rows: u64) -> Duration {
    Duration::from_secs(60) + Duration::from_micros(rows * 100)
}

/// COPY, and right after it a snapshot of the same table.
struct Run {
    via: Via,
    copy: Ended,
    snapshot: Snapshot,
}

struct Snapshot {
    /// From the start of the process to its first committed rows.
    startup: Duration,
    /// From the start of the process until the stored position says that all rows are in.
    took: Duration,
    /// Committed after the first, a second.
    rate: f64,
    usage: Usage,
    content: Content,
}

fn speed(bench: &Bench, report: &mut Report, source: &mut Source, rows: u64, runs: usize) -> Result<()> {
    report.heading(format!(
        "Snapshot: {} rows, `bench/run snapshot --rows {rows} --runs {runs}`",
        thousands(rows as f64)
    ));
    let mut all = Vec::new();
    for run in 1..=runs {
        for via in Via::BOTH {
            let copy = limits::copy_out(bench, &source.database, via)?;
            let connector = connector(bench, &format!("{}{run}", via.short()), via);
            all.push(Run { via, copy, snapshot: measure(bench, source, &connector, rows)? });
            eprintln!("{} is done", connector.name);
        }
    }
    tell(report, &all, rows);
    Ok(())
}

/// Runs a daemon of its own until the snapshot is done and committed, and reads what the topic got.
fn measure(bench: &Bench, source: &mut Source, connector: &Connector, rows: u64) -> Result<Snapshot> {
    let mut daemon = Daemon::start(bench, &source.database, std::slice::from_ref(connector))?;
    let started = daemon.process.started;
    let mut stored = Stored::follow(&bench.services, connector, TABLE)?;
    let first = stored.wait(&mut daemon, started + limit(rows), |progress| progress.done || progress.rows > 0)?;
    let startup = started.elapsed();
    stored.wait(&mut daemon, started + limit(rows), |progress| progress.done)?;
    let took = started.elapsed();
    let usage = daemon.process.usage()?;
    daemon.stop()?;
    let content = topic::verify(&bench.services, &connector.topic(TABLE), rows)?;
    source.drop_slot(&connector.slot())?;
    // Nothing is between the first rows and the last if one transaction holds all.
    let rate = match first.done {
        true => rows as f64 / took.as_secs_f64(),
        false => (rows - first.rows) as f64 / (took - startup).as_secs_f64(),
    };
    Ok(Snapshot { startup, took, rate, usage, content })
}

fn tell(report: &mut Report, runs: &[Run], rows: u64) {
    let of = |via| runs.iter().filter(move |run: &&Run| run.via == via);
    let per_second = |took: Duration| rows as f64 / took.as_secs_f64();
    let million = 1e6 / rows as f64;
    let mut lines = Vec::new();
    for via in Via::BOTH {
        let spread = |figure: &dyn Fn(&Run) -> f64| Spread::of(of(via).map(figure));
        let copy = spread(&|run| per_second(run.copy.took)).shown(thousands);
        let cpu = spread(&|run| run.copy.usage.cpu() * million).shown(one_digit);
        lines.push(vec![format!("COPY by psql, {}", via.shown()), copy.clone(), copy, cpu, "".into()]);
        lines.push(vec![
            format!("tablecast, {}", via.shown()),
            spread(&|run| run.snapshot.rate).shown(thousands),
            spread(&|run| per_second(run.snapshot.took)).shown(thousands),
            spread(&|run| run.snapshot.usage.cpu() * million).shown(one_digit),
            spread(&|run| run.snapshot.usage.peak_mib).shown(one_digit),
        ]);
    }
    report.table(&["reader", "rows/s", "with startup", "CPU-s per million rows", "peak MiB"], &lines);
    details(report, runs);
    for via in Via::BOTH {
        let ratio = |rate: &dyn Fn(&Run) -> f64| Spread::of(of(via).map(|run| rate(run) / per_second(run.copy.took)));
        let whole = ratio(&|run| per_second(run.snapshot.took));
        let what = format!(
            "{}, daemon with startup / COPY just before, {} (without startup {})",
            via.shown(),
            whole.shown(two_digits),
            ratio(&|run| run.snapshot.rate).shown(two_digits)
        );
        report.target(&what, whole.median, Target::AtLeast(0.35));
    }
    let peak = Spread::of(runs.iter().map(|run| run.snapshot.usage.peak_mib));
    report.target("Peak memory of the daemon in MiB, the worst", peak.max, Target::AtMost(96.0));
}

/// What explains the figures.
fn details(report: &mut Report, runs: &[Run]) {
    let head = [
        "run",
        "COPY s",
        "of it psql's CPU-s",
        "startup s",
        "snapshot s",
        "CPU-s user + system",
        "context switches, voluntary / not",
        "Kafka transactions",
        "bytes a record",
    ];
    let line = |Run { via, copy, snapshot: Snapshot { startup, took, usage, content, .. } }: &Run| {
        let switches = [usage.voluntary_switches, usage.involuntary_switches].map(|count| thousands(count as f64));
        vec![
            via.shown().to_owned(),
            two_digits(copy.took.as_secs_f64()),
            two_digits(copy.usage.cpu()),
            two_digits(startup.as_secs_f64()),
            two_digits(took.as_secs_f64()),
            format!("{:.2} + {:.2}", usage.user, usage.system),
            switches.join(" / "),
            content.gaps.to_string(),
            format!("{:.0}", content.bytes as f64 / content.records as f64),
        ]
    };
    report.table(&head, &runs.iter().map(line).collect::<Vec<_>>());
    report.line(
        "With startup is from the start of the process (slot, publication, topics and schemas are made first) until the \
         stored position says that the snapshot is done; rows/s is from the first committed rows to the last. Every \
         topic was read afterwards by a consumer of committed records: it held each row once, and nothing else.\n",
    );
}
