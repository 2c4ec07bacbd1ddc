//! From a row's commit in Postgres to a consumer of committed records, at a steady rate.
//!
//! Writers and consumer are threads of this process, so both ends are read off one monotonic clock. The writers keep to
//! a timetable; a row's latency begins when its INSERT, a transaction of its own, is sent, and again when it returns.
//! The first contains Postgres's own work; the second may be short of it, since a walsender need not wait for the
//! writer to hear of its commit. The first is the one that is judged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postgres::{Client, NoTls};
use rdkafka::Offset;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;

use crate::Bench;
use crate::daemon::{self, Connector, Daemon};
use crate::process::Usage;
use crate::report::{Report, Target, quantile, thousands, two_digits};
use crate::services::Via;
use crate::source::{INSERT, Source};
use crate::topic;

/// How long the consumer waits for the last rows.
const PATIENCE: Duration = Duration::from_secs(30);

/// A load and how long it lasts.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Rows a second, each a transaction.
    pub rate: u64,
    pub warm_up: Duration,
    pub lasts: Duration,
    /// Among which the rows are dealt out.
    pub connections: u64,
}

impl Load {
    fn rows(&self) -> u64 {
        (self.rate as f64 * (self.warm_up + self.lasts).as_secs_f64()) as u64
    }

    fn first_measured(&self) -> u64 {
        (self.rate as f64 * self.warm_up.as_secs_f64()) as u64
    }

    /// When the row is due, after the beginning. Ids begin at 1.
    fn due(&self, id: u64) -> Duration {
        Duration::from_nanos((id - 1) * 1_000_000_000 / self.rate)
    }
}

/// When a row was where, in nanoseconds after the beginning; by the row's id less one.
struct Times {
    began: Instant,
    sent: Vec<AtomicU64>,
    returned: Vec<AtomicU64>,
}

impl Times {
    fn new(rows: u64) -> Self {
        let zeros = || (0..rows).map(|_| AtomicU64::new(0)).collect();
        Self { began: Instant::now(), sent: zeros(), returned: zeros() }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Measures one load.
pub fn run(bench: &Bench, report: &mut Report, load: Load) -> Result<()> {
    report.heading(format!("Latency at {} rows a second", thousands(load.rate as f64)));
    let tag = format!("{}_{}", bench.tag, load.rate);
    let source = Source::create(&bench.services, "latency", &tag)?;
    let connector = Connector { name: format!("latency-{}", tag.replace('_', "-")), via: Via::Tcp };
    daemon::prepare(bench, &source.database, std::slice::from_ref(&connector))?;
    let mut daemon = Daemon::start(bench, &source.database, std::slice::from_ref(&connector))?;
    daemon.wait_until_streaming(std::slice::from_ref(&connector))?;
    topic::wait_for_topic(&bench.services, &connector.topic())?;

    let times = Arc::new(Times::new(load.rows()));
    let arrived = under_load(bench, &source.database, &connector, load, &times)?;
    let usage = daemon.process.usage()?;
    daemon.stop()?;
    topic::verify(&bench.services, &connector.topic(), load.rows())?;
    tell(report, load, &times, &arrived, usage);
    Ok(())
}

/// Runs consumer and writers; gives back when each row arrived.
fn under_load(
    bench: &Bench,
    database: &str,
    connector: &Connector,
    load: Load,
    times: &Arc<Times>,
) -> Result<Vec<u64>> {
    let fast = [("fetch.wait.max.ms", "10"), ("fetch.min.bytes", "1"), ("socket.nagle.disable", "true")];
    let consumer = topic::consumer(&bench.services, &connector.topic(), Offset::Beginning, &fast)?;
    let consuming = {
        let times = Arc::clone(times);
        std::thread::spawn(move || consume(&consumer, load.rows(), &times))
    };
    let writers: Vec<_> = (0..load.connections)
        .map(|writer| {
            let (times, url) = (Arc::clone(times), bench.services.database(database, Via::Unix));
            std::thread::spawn(move || write(&url, load, writer, &times))
        })
        .collect();
    for writer in writers {
        writer.join().ok().context("a writer panicked")??;
    }
    consuming.join().ok().context("the consumer panicked")?
}

/// Writes every row whose turn is this writer's.
fn write(url: &str, load: Load, writer: u64, times: &Times) -> Result<()> {
    let mut client = Client::connect(url, NoTls)?;
    let insert = client.prepare(INSERT)?;
    let begin = times.began + Duration::from_secs(1);
    for id in (1 + writer..=load.rows()).step_by(load.connections as usize) {
        std::thread::sleep((begin + load.due(id)).saturating_duration_since(Instant::now()));
        let row = usize::try_from(id - 1)?;
        times.sent[row].store(times.now(), Ordering::Relaxed);
        client.execute(&insert, &[&i64::try_from(id)?])?;
        times.returned[row].store(times.now(), Ordering::Relaxed);
    }
    Ok(())
}

fn consume(consumer: &BaseConsumer, rows: u64, times: &Times) -> Result<Vec<u64>> {
    let mut arrived = vec![0; usize::try_from(rows)?];
    let mut missing = rows;
    while missing > 0 {
        let message = consumer.poll(PATIENCE).context("a row did not arrive in time")?;
        let now = times.now();
        let message = match message {
            Err(KafkaError::PartitionEOF(_)) => continue,
            message => message?,
        };
        let id = topic::id_of(message.key().context("a record without a key")?)?;
        let at = arrived.get_mut(usize::try_from(id - 1)?).context("an unknown id")?;
        ensure!(*at == 0, "the id {id} arrived twice");
        *at = now;
        missing -= 1;
    }
    Ok(arrived)
}

fn tell(report: &mut Report, load: Load, times: &Times, arrived: &[u64], usage: Usage) {
    let measured = load.first_measured() as usize..arrived.len();
    let since = |starts: &[AtomicU64]| {
        let latency = |row: usize| arrived[row].saturating_sub(starts[row].load(Ordering::Relaxed)) as f64 / 1e6;
        sorted(measured.clone().map(latency).collect())
    };
    let (sent, returned) = (since(&times.sent), since(&times.returned));
    let line = |what: &str, latencies: &[f64]| {
        let figures = [0.5, 0.95, 0.99, 1.0].map(|share| two_digits(quantile(latencies, share)));
        std::iter::once(what.to_owned()).chain(figures).collect::<Vec<_>>()
    };
    let head = ["milliseconds, until a consumer has the record", "p50", "p95", "p99", "max"];
    report.table(&head, &[line("from sending the transaction", &sent), line("from its return", &returned)]);
    let returned_at = |row: usize| times.returned[row].load(Ordering::Relaxed) as f64 / 1e9;
    let seconds = returned_at(arrived.len() - 1) - returned_at(measured.start);
    report.line(format!(
        "{} rows in {seconds:.1} s ({} a second) after {:?} of warm-up, {} connections, synchronous_commit on. The daemon \
         over TCP: {:.2} CPU-s in all, peak {:.1} MiB, {} context switches.\n",
        thousands(measured.len() as f64),
        thousands(measured.len() as f64 / seconds),
        load.warm_up,
        load.connections,
        usage.cpu(),
        usage.peak_mib,
        thousands((usage.voluntary_switches + usage.involuntary_switches) as f64),
    ));
    report.target("p50 in ms, from sending", quantile(&sent, 0.5), Target::AtMost(10.0));
    report.target("p99 in ms, from sending", quantile(&sent, 0.99), Target::AtMost(40.0));
}

fn sorted(mut figures: Vec<f64>) -> Vec<f64> {
    figures.sort_by(f64::total_cmp);
    figures
}
