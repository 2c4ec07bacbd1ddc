//! The first rows of a table, which it held before its connector began: how fast they come beside `COPY` of the same
//! table, what the rows of the stream suffer meanwhile, and what a crash costs.
//!
//! All parts read one table of one database; each connector has a slot and a topic of its own. One snapshot before them
//! is not counted: it makes the broker compile its code, and everybody reads the table out of the same caches.

mod beside;
mod crash;

use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::Bench;
use crate::contender::{Contender, Entry, Family, Outcome, TABLECAST_UNIX, rounds};
use crate::daemon::{Connector, Daemon};
use crate::debezium::{self, Debezium, Tuned};
use crate::drain;
use crate::limits;
use crate::report::{Report, thousands};
use crate::services::Via;
use crate::source::{Source, TABLE, insert_zero};
use crate::stored::Stored;
use crate::topic::{self, Expected};
use crate::verdicts;

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

/// The workload's name.
pub const NAME: &str = "snapshot";

/// Measures these parts.
pub fn run(bench: &Bench, report: &mut Report, rows: u64, entries: &[Entry], parts: &[Part]) -> Result<()> {
    let mut source = Source::create(&bench.services, NAME, &bench.tag)?;
    let runs: Vec<(usize, Contender)> = rounds(entries).collect();
    let of_debezium = prepare_debezium(bench, &mut source, &runs)?;
    source.fill_at_once(rows)?;
    source.settle()?;
    measure(bench, &mut source, TABLECAST_UNIX, &connector(bench, "warm", Via::Unix), rows)?;
    if parts.contains(&Part::Speed) && !runs.is_empty() {
        speed(bench, report, &mut source, rows, &runs, of_debezium)?;
    }
    if entries.iter().all(|entry| entry.contender.family() != Family::Tablecast) {
        return Ok(());
    }
    if parts.contains(&Part::Latency) {
        beside::run(bench, report, &mut source, rows)?;
    }
    if parts.contains(&Part::Kill) {
        crash::run(bench, report, &mut source, rows)?;
    }
    Ok(())
}

/// Its topics and schemas, by way of a row 0 that is gone afterwards.
fn prepare_debezium(bench: &Bench, source: &mut Source, runs: &[(usize, Contender)]) -> Result<Vec<Debezium>> {
    let of_debezium = |(round, contender): &(usize, Contender)| match *contender {
        Contender::Debezium { exactly_once, format } => Some(Debezium {
            name: format!("snapshot-{}-{}{round}", bench.tag, contender.short()),
            exactly_once,
            format,
            tuned: Tuned::Throughput,
            tables: vec![TABLE.to_owned()],
        }),
        _ => None,
    };
    let connectors: Vec<Debezium> = runs.iter().filter_map(of_debezium).collect();
    source.execute(&insert_zero(TABLE))?;
    debezium::prepare(bench, &source.database, &connectors)?;
    debezium::forget(bench, source, &connectors)?;
    source.execute(&format!("TRUNCATE {TABLE}"))?;
    Ok(connectors)
}

fn connector(bench: &Bench, name: &str, via: Via) -> Connector {
    Connector::new(format!("snapshot-{}-{name}", bench.tag), via, &[TABLE])
}

/// How long the rows may take, with all that comes before.
fn limit(rows: u64) -> Duration {
    Duration::from_secs(60) + Duration::from_micros(rows * 100)
}

fn speed(
    bench: &Bench,
    report: &mut Report,
    source: &mut Source,
    rows: u64,
    runs: &[(usize, Contender)],
    of_debezium: Vec<Debezium>,
) -> Result<()> {
    report.heading(format!("`snapshot`: the first {} rows of a table", thousands(rows as f64)));
    let mut of_debezium = of_debezium.into_iter();
    for (round, contender) in runs {
        let outcome = match *contender {
            Contender::Copy(via) => {
                Outcome::of_program(*contender, rows, &limits::copy_out(bench, &source.database, via)?)
            }
            Contender::Tablecast(via, _) => {
                let connector = connector(bench, &format!("{}{round}", via.short()), via);
                measure(bench, source, *contender, &connector, rows)?
            }
            Contender::Debezium { .. } => {
                let connector = of_debezium.next().context("a run that was not prepared")?;
                measure_debezium(bench, source, *contender, &connector, rows)?
            }
            Contender::Recvlogical(_) | Contender::Librdkafka => continue,
        };
        eprintln!("{}: {} rows/s", outcome.contender.shown(), thousands(outcome.rate));
        report.figures.add(NAME, outcome);
    }
    report.contenders(NAME);
    report.line(
        "With startup is from the start of the process until the stored position says that the snapshot is done (slot, \
         publication, topics and schemas are made first; Debezium has its topics and schemas already); rows/s is from the \
         first committed rows to the last. Every topic was read afterwards by a consumer of committed records: it held each \
         row once, and nothing else. Debezium's snapshot is not exactly once.\n",
    );
    verdicts::of(report, NAME);
    Ok(())
}

/// Runs a daemon of its own until the snapshot is done and committed, and reads what the topic got.
fn measure(
    bench: &Bench,
    source: &mut Source,
    contender: Contender,
    connector: &Connector,
    rows: u64,
) -> Result<Outcome> {
    let mut daemon = Daemon::start(bench, &source.database, std::slice::from_ref(connector))?;
    let started = daemon.process.started;
    let mut stored = Stored::follow(&bench.services, connector, &[TABLE])?;
    let first = stored.wait(&mut daemon, started + limit(rows), |progress| progress.done || progress.rows > 0)?;
    let startup = started.elapsed();
    stored.wait(&mut daemon, started + limit(rows), |progress| progress.done)?;
    let took = started.elapsed();
    let usage = daemon.process.usage()?;
    daemon.stop()?;
    let topic = connector.topic(TABLE);
    let content = topic::verify(&bench.services, &topic, rows)?;
    source.drop_slot(&connector.slot())?;
    let whole_rate = rows as f64 / took.as_secs_f64();
    // Nothing is between the first rows and the last if one transaction holds all.
    let rate = match first.done {
        true => whole_rate,
        false => (rows - first.rows) as f64 / (took - startup).as_secs_f64(),
    };
    let outcome = Outcome {
        contender,
        rate,
        warm_rate: None,
        whole_rate,
        startup: Some(startup),
        cpu: usage.cpu() * 1e6 / rows as f64,
        peak_mib: Some(usage.peak_mib),
        usage,
        walsender_cpu: None,
        payload: None,
        stored: None,
        transactions: None,
    };
    Ok(outcome.with_contents(&[content], topic::stored_bytes(&topic)))
}

fn measure_debezium(
    bench: &Bench,
    source: &mut Source,
    contender: Contender,
    connector: &Debezium,
    rows: u64,
) -> Result<Outcome> {
    let ran = debezium::run(bench, connector, rows, rows)?;
    let outcome = drain::of_debezium(contender, ran, connector)?;
    source.drop_slot(&connector.slot())?;
    let topic = connector.topic(TABLE);
    let content = topic::verify_is(&bench.services, &topic, &Expected { zero: true, ..Expected::rows(rows) })?;
    Ok(outcome.with_contents(&[content], topic::stored_bytes(&topic)))
}

/// A topic that holds the first rows of the table, as the daemon encodes them.
pub fn topic_of(bench: &Bench, source: &mut Source, name: &str, rows: u64) -> Result<String> {
    let connector = connector(bench, name, Via::Unix);
    measure(bench, source, TABLECAST_UNIX, &connector, rows)?;
    Ok(connector.topic(TABLE))
}
