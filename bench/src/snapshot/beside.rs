//! What the rows of the stream suffer from a snapshot: rows come steadily into one table while another one is read for
//! the first time, by the same connector.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::limit;
use crate::Bench;
use crate::daemon::{self, Connector, Daemon};
use crate::latency::{self, Latencies, Load, Route, Times};
use crate::report::{Report, Target, one_digit, quantile, thousands};
use crate::services::Via;
use crate::source::{BESIDE, Source, TABLE};
use crate::stored::Stored;
use crate::topic;

/// Rows a second.
const RATE: u64 = 1_000;

pub fn run(bench: &Bench, report: &mut Report, source: &mut Source, rows: u64) -> Result<()> {
    report.heading(format!(
        "Latency at {} rows a second during a snapshot, `bench/run snapshot --rows {rows} --part latency`",
        thousands(RATE as f64)
    ));
    // The table that the stream's rows go to is captured already, the one that is read is new to the connector.
    let name = format!("snapshot-{}-beside", bench.tag);
    let connector = Connector::new(name, Via::Tcp, &[BESIDE]);
    daemon::prepare(bench, &source.database, std::slice::from_ref(&connector))?;
    let connector = Connector::new(connector.name, Via::Tcp, &[BESIDE, TABLE]);

    // The snapshot's end is the load's.
    let load = Load { rate: RATE, warm_up: Duration::ZERO, lasts: limit(rows), connections: 4 };
    let times = Times::new(load);
    let topic = connector.topic(BESIDE);
    let route = Route { database: &source.database, table: BESIDE, topic: &topic };
    let (arrived, (daemon, read)) = latency::under_load(bench, route, load, &times, |stop| {
        crate::wait_until(limit(0), || Ok(times.sent(0).is_some()))?;
        let mut daemon = Daemon::start(bench, &source.database, std::slice::from_ref(&connector))?;
        let until = daemon.process.started + limit(rows);
        let mut stored = Stored::follow(&bench.services, &connector, &[TABLE])?;
        let first = stored.wait(&mut daemon, until, |progress| progress.done || progress.rows > 0)?;
        ensure!(!first.done, "the table is too small: its first rows are all of them");
        let began = times.now();
        stored.wait(&mut daemon, until, |progress| progress.done)?;
        let read = began..times.now();
        stop.store(true, Ordering::Relaxed);
        Ok((daemon, (read, rows - first.rows)))
    })?;
    let usage = daemon.process.usage()?;
    daemon.stop()?;
    topic::verify(&bench.services, &connector.topic(TABLE), rows)?;
    source.drop_slot(&connector.slot())?;

    let (read, read_rows) = read;
    let measured: Vec<usize> =
        (0..arrived.len()).filter(|row| times.sent(*row).is_some_and(|sent| read.contains(&sent))).collect();
    ensure!(!measured.is_empty(), "no row came while the table was read");
    let latencies = Latencies::of(&times, &arrived, measured.iter().copied());
    latencies.table(report);
    let seconds = (read.end - read.start) as f64 / 1e9;
    report.line(format!(
        "{} rows that were sent while {} rows of the other table were committed, in {seconds:.1} s: {} a second beside \
         {} a second of the snapshot. {} connections, synchronous_commit on. The daemon over TCP: {} CPU-s in all, peak \
         {} MiB. Each row of both tables arrived once.\n",
        thousands(measured.len() as f64),
        thousands(read_rows as f64),
        thousands(measured.len() as f64 / seconds),
        thousands(read_rows as f64 / seconds),
        load.connections,
        one_digit(usage.cpu()),
        one_digit(usage.peak_mib),
    ));
    report.target("p99 in ms, from sending", quantile(&latencies.sent, 0.99), Target::AtMost(250.0));
    Ok(())
}
