//! A backlog in the slots, drained into Kafka by one contender after the other, and read by `pg_recvlogical`.
//!
//! Every run has a slot of its own, made before the changes: identical backlogs. After each run every topic is read: it
//! holds what the table holds, each change once, and nothing else.

use std::time::Instant;

use anyhow::Result;

use crate::Bench;
use crate::contender::{Contender, Entry, Outcome, rounds};
use crate::daemon::{self, Connector, Daemon, POLL};
use crate::debezium::{self, Debezium, Tuned};
use crate::process::{self, Ended};
use crate::recvlogical;
use crate::report::{Report, one_digit, thousands, two_digits};
use crate::source::{Backlog, Source};
use crate::topic::{self, Content, Expected};
use crate::workload::Workload;

/// A run that is to come.
enum Reader {
    Recvlogical { contender: Contender, slot: String },
    Tablecast { contender: Contender, connector: Connector },
    Debezium { contender: Contender, connector: Debezium },
}

/// Measures these contenders, with as many runs of each.
pub fn run(bench: &Bench, report: &mut Report, workload: &Workload, entries: &[Entry]) -> Result<()> {
    let readers: Vec<Reader> =
        rounds(entries).map(|(round, contender)| reader(bench, workload, contender, round)).collect();
    if readers.is_empty() {
        return Ok(());
    }
    report.heading(format!("`{}`: {}", workload.name, workload.title));
    let mut source = Source::of(&bench.services, workload, &bench.tag)?;
    prepare(bench, &mut source, &readers)?;
    let began = Instant::now();
    let backlog = source.fill(&workload.fill)?;
    eprintln!("the backlog of {} took {:.0} s", workload.name, began.elapsed().as_secs_f64());
    for reader in &readers {
        let outcome = match reader {
            Reader::Recvlogical { contender, slot } => {
                let Contender::Recvlogical(via) = *contender else { continue };
                let ended: Ended = recvlogical::run(bench, &mut source, slot, &backlog, via)?;
                Outcome::of_program(*contender, workload.changes, &ended)
            }
            Reader::Tablecast { contender, connector } => {
                tablecast(bench, &mut source, workload, *contender, connector)?
            }
            Reader::Debezium { contender, connector } => debezium(bench, &mut source, workload, *contender, connector)?,
        };
        eprintln!("{}: {} rows/s", outcome.contender.shown(), thousands(outcome.rate));
        report.figures.add(workload.name, outcome);
    }
    tell(report, workload, &backlog);
    Ok(())
}

fn reader(bench: &Bench, workload: &Workload, contender: Contender, round: usize) -> Reader {
    let name = format!("{}-{}-{}{round}", workload.name, bench.tag, contender.short());
    let tables = workload.tables.clone();
    match contender {
        Contender::Tablecast(via, delivery) => {
            Reader::Tablecast { contender, connector: Connector { name, via, delivery, tables } }
        }
        Contender::Debezium { exactly_once, format } => Reader::Debezium {
            contender,
            connector: Debezium { name, exactly_once, format, tuned: Tuned::Throughput, tables },
        },
        Contender::Recvlogical(_) | Contender::Copy(_) | Contender::Librdkafka => {
            Reader::Recvlogical { contender, slot: name.replace('-', "_") }
        }
    }
}

/// Slots, topics and schemas.
fn prepare(bench: &Bench, source: &mut Source, readers: &[Reader]) -> Result<()> {
    let (mut connectors, mut of_debezium) = (Vec::new(), Vec::new());
    for reader in readers {
        match reader {
            Reader::Recvlogical { slot, .. } => source.create_slot(slot)?,
            Reader::Tablecast { connector, .. } => connectors.push(connector.clone()),
            Reader::Debezium { connector, .. } => of_debezium.push(connector.clone()),
        }
    }
    if !connectors.is_empty() {
        daemon::prepare(bench, &source.database, &connectors)?;
    }
    debezium::prepare(bench, &source.database, &of_debezium)
}

/// Each topic has what its table has.
pub fn judge(
    bench: &Bench,
    workload: &Workload,
    topics: impl Iterator<Item = String>,
) -> Result<(Vec<Content>, Option<u64>)> {
    let expected = Expected { records: workload.records_a_table(), live: workload.live.clone(), zero: true };
    let topics: Vec<String> = topics.collect();
    let contents: Result<Vec<Content>> =
        topics.iter().map(|topic| topic::verify_is(&bench.services, topic, &expected)).collect();
    Ok((contents?, topics.iter().map(|topic| topic::stored_bytes(topic)).sum()))
}

fn tablecast(
    bench: &Bench,
    source: &mut Source,
    workload: &Workload,
    contender: Contender,
    connector: &Connector,
) -> Result<Outcome> {
    let changes = workload.changes;
    let mut daemon = Daemon::start(bench, &source.database, std::slice::from_ref(connector))?;
    let started = daemon.process.started;
    let drained = daemon.drain(std::slice::from_ref(connector), changes)?;
    let usage = daemon.process.usage()?;
    let walsender = source.walsender(&connector.slot())?.map(process::usage).transpose()?;
    daemon.stop()?;
    source.drop_slot(&connector.slot())?;
    let (contents, stored) = judge(bench, workload, workload.tables.iter().map(|table| connector.topic(table)))?;
    let whole_rate = changes as f64 / (drained.last - started).as_secs_f64();
    let outcome = Outcome {
        contender,
        // Nothing is between the first and the last if one Kafka transaction holds all.
        rate: if workload.at_once || drained.seen == changes { whole_rate } else { drained.rate() },
        warm_rate: None,
        whole_rate,
        startup: Some(drained.first - started),
        cpu: usage.cpu() * 1e6 / changes as f64,
        peak_mib: Some(usage.peak_mib),
        usage,
        walsender_cpu: walsender.map(|usage| usage.cpu()),
        payload: None,
        stored: None,
        transactions: None,
    };
    Ok(outcome.with_contents(&contents, stored))
}

fn debezium(
    bench: &Bench,
    source: &mut Source,
    workload: &Workload,
    contender: Contender,
    connector: &Debezium,
) -> Result<Outcome> {
    let ran = debezium::run(bench, connector, workload.records_a_table(), *workload.live.end())?;
    let walsender = source.walsender(&connector.slot())?.map(process::usage).transpose()?;
    let outcome = of_debezium(contender, ran, connector)?;
    source.drop_slot(&connector.slot())?;
    let (contents, stored) = judge(bench, workload, workload.tables.iter().map(|table| connector.topic(table)))?;
    Ok(Outcome { walsender_cpu: walsender.map(|usage| usage.cpu()), ..outcome.with_contents(&contents, stored) })
}

/// Ends the worker, and tells what its run was.
pub fn of_debezium(contender: Contender, ran: debezium::Ran, connector: &Debezium) -> Result<Outcome> {
    let debezium::Ran { worker, first, half, last } = ran;
    let (usage, started) = (worker.process.usage()?, worker.process.started);
    worker.finish(connector)?;
    let rate = |from: debezium::Progress| {
        (last.records - from.records) as f64 / (last.at - from.at).as_secs_f64().max(POLL.as_secs_f64())
    };
    let million = 1e6 / (last.records - first.records) as f64;
    Ok(Outcome {
        contender,
        rate: rate(first),
        warm_rate: Some(rate(half)),
        whole_rate: last.records as f64 / (last.at - started).as_secs_f64(),
        startup: Some(first.at - started),
        cpu: (last.cpu - first.cpu) * million,
        peak_mib: Some(usage.peak_mib),
        usage,
        walsender_cpu: None,
        payload: None,
        stored: None,
        transactions: None,
    })
}

fn tell(report: &mut Report, workload: &Workload, backlog: &Backlog) {
    report.contenders(workload.name);
    details(report, workload);
    let (changes, tables) = (thousands(workload.changes as f64), workload.tables.len());
    let each = if tables == 1 { "The topic" } else { "Each of the topics" };
    report.line(format!(
        "The backlog: {:.0} MiB of WAL, {changes} changes. {each} was read afterwards by a consumer of committed records: it \
         held what the table holds, each change once, and nothing else.\n",
        backlog.wal_mib
    ));
    if workload.at_once {
        report.line(
            "tablecast puts the transaction into one Kafka transaction, so nothing is committed before the end: its rate is \
             from the start of the process. Debezium commits parts of it on the way.\n",
        );
    }
}

/// What explains the figures of tablecast.
fn details(report: &mut Report, workload: &Workload) {
    let head = [
        "run of tablecast",
        "startup s",
        "CPU-s user + system",
        "walsender CPU-s",
        "context switches, voluntary / not",
        "Kafka transactions",
    ];
    let runs: Vec<&Outcome> = report
        .figures
        .of(workload.name)
        .filter(|outcome| matches!(outcome.contender, Contender::Tablecast(..)))
        .collect();
    let line = |outcome: &&Outcome| {
        let usage = &outcome.usage;
        let switches = [usage.voluntary_switches, usage.involuntary_switches].map(|count| thousands(count as f64));
        vec![
            outcome.contender.shown(),
            outcome.startup.map_or(String::new(), |startup| two_digits(startup.as_secs_f64())),
            format!("{:.2} + {:.2}", usage.user, usage.system),
            outcome.walsender_cpu.map_or(String::new(), one_digit),
            switches.join(" / "),
            outcome.transactions.map_or(String::new(), |count| count.to_string()),
        ]
    };
    let lines: Vec<_> = runs.iter().map(line).collect();
    if !lines.is_empty() {
        report.table(&head, &lines);
    }
}
