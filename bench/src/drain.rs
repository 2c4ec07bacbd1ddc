//! A backlog in the slot, drained into Kafka, against `pg_recvlogical` reading the same backlog into /dev/null.
//!
//! Every reader has a slot of its own, made before the rows: identical backlogs. The runs alternate, so that a machine
//! that is disturbed disturbs both. After each run of the daemon the topic is read: each row once, nothing else.

use anyhow::Result;

use crate::Bench;
use crate::daemon::{self, Connector, Drained};
use crate::process::Ended;
use crate::recvlogical;
use crate::report::{Report, Spread, Target, one_digit, thousands, two_digits};
use crate::services::Via;
use crate::source::{Backlog, Source, TABLE};

/// How the rows were written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    RowByRow,
    AtOnce,
}

/// One reader after the other over the same backlog.
struct Pair {
    via: Via,
    recvlogical: Ended,
    daemon: Drained,
}

/// One-row transactions.
pub fn row_by_row(bench: &Bench, report: &mut Report, rows: u64, runs: usize) -> Result<()> {
    report.heading(format!("Drain: {} transactions of one row", thousands(rows as f64)));
    let pairs = measure(bench, report, "drain", Shape::RowByRow, rows, runs)?;
    let of = |via| pairs.iter().filter(move |pair: &&Pair| pair.via == via);
    let ratio =
        |via| Spread::of(of(via).map(|pair| pair.daemon.rate / (rows as f64 / pair.recvlogical.took.as_secs_f64())));
    for (via, target) in [(Via::Tcp, 1.3), (Via::Unix, 0.7)] {
        let spread = ratio(via);
        let what = format!("{}, daemon / pg_recvlogical in the same run, {}", via.shown(), spread.shown(two_digits));
        report.target(&what, spread.median, Target::AtLeast(target));
    }
    let cpu = Spread::of(pairs.iter().map(|pair| pair.daemon.usage.cpu() * 1e6 / rows as f64));
    report.target("CPU seconds of the daemon per million rows, the worst", cpu.max, Target::AtMost(6.0));
    memory_target(report, &pairs);
    Ok(())
}

/// One transaction that holds all.
pub fn at_once(bench: &Bench, report: &mut Report, rows: u64, runs: usize) -> Result<()> {
    report.heading(format!("Big: one transaction of {} rows", thousands(rows as f64)));
    report.line("One Kafka transaction holds it, so nothing is committed before the end: rates are from the start.\n");
    let pairs = measure(bench, report, "big", Shape::AtOnce, rows, runs)?;
    memory_target(report, &pairs);
    Ok(())
}

fn memory_target(report: &mut Report, pairs: &[Pair]) {
    let peak = Spread::of(pairs.iter().map(|pair| pair.daemon.usage.peak_mib));
    report.target("Peak memory of the daemon in MiB, the worst", peak.max, Target::AtMost(64.0));
}

fn measure(bench: &Bench, report: &mut Report, name: &str, shape: Shape, rows: u64, runs: usize) -> Result<Vec<Pair>> {
    let mut source = Source::create(&bench.services, name, &bench.tag)?;
    let connectors: Vec<Connector> = (1..=runs)
        .flat_map(|run| {
            let named = |via: Via| format!("{name}-{}-{}{run}", bench.tag, via.short());
            Via::BOTH.map(|via| Connector { name: named(via), via, tables: &[TABLE] })
        })
        .collect();
    daemon::prepare(bench, &source.database, &connectors)?;
    let copy = |connector: &Connector| format!("{}_copy", connector.slot());
    for connector in &connectors {
        source.copy_slot(&connector.slot(), &copy(connector))?;
    }
    let backlog = match shape {
        Shape::RowByRow => source.fill_row_by_row(rows)?,
        Shape::AtOnce => source.fill_at_once(rows)?,
    };
    let mut pairs = Vec::new();
    for connector in &connectors {
        pairs.push(pair(bench, &mut source, connector, &copy(connector), &backlog, rows)?);
        eprintln!("{} is done", connector.name);
    }
    table(report, &pairs, shape, rows);
    details(report, &pairs, rows, &backlog);
    Ok(pairs)
}

fn pair(
    bench: &Bench,
    source: &mut Source,
    connector: &Connector,
    copy: &str,
    backlog: &Backlog,
    rows: u64,
) -> Result<Pair> {
    let recvlogical = recvlogical::run(bench, source, connector, copy, backlog, connector.via)?;
    let daemon = daemon::drain(bench, source, connector, rows)?;
    source.drop_slot(&connector.slot())?;
    Ok(Pair { via: connector.via, recvlogical, daemon })
}

fn table(report: &mut Report, pairs: &[Pair], shape: Shape, rows: u64) {
    let head = ["reader", "rows/s", "with startup", "CPU-s per million rows", "peak MiB"];
    let per_second = |took: std::time::Duration| rows as f64 / took.as_secs_f64();
    let mut lines = Vec::new();
    for via in Via::BOTH {
        let of: Vec<&Pair> = pairs.iter().filter(|pair| pair.via == via).collect();
        let spread = |figure: &dyn Fn(&Pair) -> f64| Spread::of(of.iter().map(|pair| figure(pair)));
        let million = 1e6 / rows as f64;
        let overall = spread(&|pair| per_second(pair.recvlogical.took)).shown(thousands);
        let cpu = spread(&|pair| pair.recvlogical.usage.cpu() * million).shown(one_digit);
        lines.push(vec![format!("pg_recvlogical, {}", via.shown()), overall.clone(), overall, cpu, "".into()]);
        let steady = match shape {
            Shape::RowByRow => spread(&|pair| pair.daemon.rate),
            Shape::AtOnce => spread(&|pair| per_second(pair.daemon.took)),
        };
        lines.push(vec![
            format!("tablecast, {}", via.shown()),
            steady.shown(thousands),
            spread(&|pair| per_second(pair.daemon.took)).shown(thousands),
            spread(&|pair| pair.daemon.usage.cpu() * million).shown(one_digit),
            spread(&|pair| pair.daemon.usage.peak_mib).shown(one_digit),
        ]);
    }
    report.table(&head, &lines);
}

/// What explains the figures.
fn details(report: &mut Report, pairs: &[Pair], rows: u64, backlog: &Backlog) {
    let head = [
        "run",
        "startup s",
        "CPU-s user + system",
        "walsender CPU-s",
        "context switches, voluntary / not",
        "Kafka transactions",
        "a second",
        "bytes a record",
    ];
    let lines: Vec<Vec<String>> = pairs
        .iter()
        .map(|Pair { via, daemon, .. }| {
            let (usage, content) = (&daemon.usage, &daemon.content);
            let seconds = (daemon.took - daemon.startup).as_secs_f64();
            vec![
                via.shown().to_owned(),
                format!("{:.2}", daemon.startup.as_secs_f64()),
                format!("{:.2} + {:.2}", usage.user, usage.system),
                two_digits(daemon.walsender_cpu),
                format!(
                    "{} / {}",
                    thousands(usage.voluntary_switches as f64),
                    thousands(usage.involuntary_switches as f64)
                ),
                content.gaps.to_string(),
                if content.gaps > 1 { one_digit(content.gaps as f64 / seconds) } else { "".into() },
                format!("{:.0}", content.bytes as f64 / content.records as f64),
            ]
        })
        .collect();
    report.table(&head, &lines);
    report.line(format!(
        "The backlog: {:.0} MiB of WAL. Every topic was read afterwards by a consumer of committed records: it held each \
         of the {} rows once, and nothing else.\n",
        backlog.wal_mib, thousands(rows as f64)
    ));
}
