//! What a second connector changes: a connector's limit is its walsender, one process that decodes the WAL. Two tables
//! are drained by one connector, and by two with a slot and a table each, in one daemon.

use anyhow::Result;

use crate::Bench;
use crate::daemon::{self, Connector, Daemon};
use crate::drain;
use crate::process;
use crate::report::{Report, Spread, one_digit, thousands, two_digits};
use crate::services::Via;
use crate::source::Source;
use crate::workload::Workload;

/// How many tables, and connectors at most.
const TABLES: u64 = 2;

/// One run.
struct Ran {
    /// Rows a second, from the first that were seen to the last.
    rate: f64,
    /// CPU seconds of the daemon per million rows.
    cpu: f64,
    /// CPU seconds of all walsenders per million rows.
    walsenders: f64,
}

/// Measures both, round after round.
pub fn run(bench: &Bench, report: &mut Report, rows: u64, runs: u64) -> Result<()> {
    let workload = Workload { name: "split", ..Workload::many(TABLES, rows) };
    report.heading(format!("`split`: {} transactions of one row, to two tables in turn", thousands(rows as f64)));
    let mut source = Source::of(&bench.services, &workload, &bench.tag)?;
    let mut together = Vec::new();
    let mut apart = Vec::new();
    for round in 1..=runs {
        together.push(connectors(bench, &format!("one{round}"), &[&workload.tables]));
        let each: Vec<&[String]> = workload.tables.chunks(1).collect();
        apart.push(connectors(bench, &format!("two{round}"), &each));
    }
    let all: Vec<Connector> = together.iter().chain(&apart).flatten().cloned().collect();
    daemon::prepare(bench, &source.database, &all)?;
    source.fill(&workload.fill)?;
    let (mut of_one, mut of_two) = (Vec::new(), Vec::new());
    for (one, two) in together.iter().zip(&apart) {
        of_one.push(drained(bench, &mut source, &workload, one)?);
        of_two.push(drained(bench, &mut source, &workload, two)?);
    }
    let line = |what: &str, ran: &[Ran]| {
        let spread = |figure: fn(&Ran) -> f64| Spread::of(ran.iter().map(figure));
        vec![
            what.to_owned(),
            spread(|ran| ran.rate).shown(thousands),
            spread(|ran| ran.cpu).shown(one_digit),
            spread(|ran| ran.walsenders).shown(one_digit),
        ]
    };
    let head = ["TCP, exactly once", "rows/s", "CPU-s per million rows, daemon", "CPU-s per million rows, walsenders"];
    report.table(&head, &[line("one connector", &of_one), line("two connectors", &of_two)]);
    let ratios = of_two.iter().zip(&of_one).map(|(two, one)| two.rate / one.rate);
    report.line(format!("Two connectors / one: {}.\n", Spread::of(ratios).shown(two_digits)));
    Ok(())
}

/// A connector for each group of tables.
fn connectors(bench: &Bench, what: &str, groups: &[&[String]]) -> Vec<Connector> {
    let named = groups.iter().enumerate().map(|(at, tables)| {
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        Connector::new(format!("split-{}-{what}-{at}", bench.tag), Via::Tcp, &tables)
    });
    named.collect()
}

fn drained(bench: &Bench, source: &mut Source, workload: &Workload, connectors: &[Connector]) -> Result<Ran> {
    let mut daemon = Daemon::start(bench, &source.database, connectors)?;
    let drained = daemon.drain(connectors, workload.changes)?;
    let cpu = daemon.process.usage()?.cpu();
    let mut walsenders = 0.0;
    for connector in connectors {
        let usage = source.walsender(&connector.slot())?.map(process::usage).transpose()?;
        walsenders += usage.map_or(0.0, |usage| usage.cpu());
    }
    daemon.stop()?;
    for connector in connectors {
        source.drop_slot(&connector.slot())?;
    }
    let of = |connector: &Connector| -> Vec<String> {
        connector.tables.iter().map(|table| connector.topic(table)).collect()
    };
    drain::judge(bench, workload, connectors.iter().flat_map(of))?;
    let million = 1e6 / workload.changes as f64;
    Ok(Ran { rate: drained.rate(), cpu: cpu * million, walsenders: walsenders * million })
}
