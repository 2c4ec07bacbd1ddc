//! From a row's commit in Postgres to a consumer of committed records, at a steady rate.
//!
//! Writers and consumer are threads of this process, so both ends are read off one monotonic clock. The writers keep to
//! a timetable; a row's latency begins when its INSERT, a transaction of its own, is sent, and again when it returns.
//! The first contains Postgres's own work; the second may be short of it, since a walsender need not wait for the
//! writer to hear of its commit. The first is the one that is judged.

mod alone;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postgres::{Client, NoTls};
use rdkafka::Offset;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;

use crate::Bench;
use crate::contender::{Contender, DEBEZIUM, Family, TABLECAST_TCP};
use crate::daemon::{self, Connector, Daemon};
use crate::debezium::{self, Debezium, Format, Tuned, Worker};
use crate::process::{Processors, Usage};
use crate::report::{Latency, Report, Target, quantile, thousands, two_digits};
use crate::services::Via;
use crate::source::{Source, TABLE, insert, insert_zero};
use crate::topic;

/// How long the consumer waits for the next row.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the consumer looks whether it has all.
const LOOK: Duration = Duration::from_millis(100);
/// From the beginning of the clock to the first row.
const LEAD: Duration = Duration::from_secs(1);
/// The writers have not ended, so nobody knows how many rows there will be.
const UNKNOWN: u64 = u64::MAX;

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

/// When a row was where, in nanoseconds after the beginning; by the row's id less one. Zero: never.
pub struct Times {
    began: Instant,
    sent: Vec<AtomicU64>,
    returned: Vec<AtomicU64>,
}

impl Times {
    pub fn new(load: Load) -> Self {
        let zeros = || (0..load.rows()).map(|_| AtomicU64::new(0)).collect();
        Self { began: Instant::now(), sent: zeros(), returned: zeros() }
    }

    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// When the row was sent, if it was.
    pub fn sent(&self, row: usize) -> Option<u64> {
        self.sent.get(row).map(|sent| sent.load(Ordering::Relaxed)).filter(|sent| *sent > 0)
    }
}

/// Where the rows go, and where they come out.
#[derive(Clone, Copy)]
pub struct Route<'a> {
    pub database: &'a str,
    pub table: &'a str,
    pub topic: &'a str,
}

/// Measures one load.
pub fn run(bench: &Bench, report: &mut Report, load: Load, family: Family) -> Result<()> {
    match family {
        Family::Limits => of_librdkafka(bench, report, load),
        Family::Tablecast => of_tablecast(bench, report, load),
        Family::Debezium => of_debezium(bench, report, load),
    }
}

fn of_librdkafka(bench: &Bench, report: &mut Report, load: Load) -> Result<()> {
    report.heading(format!("Latency at {} rows a second: librdkafka alone", thousands(load.rate as f64)));
    let (times, before) = (Times::new(load), Processors::now());
    let arrived = alone::run(bench, load, &times)?;
    tell(report, load, &times, &arrived, Contender::Librdkafka);
    tell_stolen(report, before);
    Ok(())
}

fn of_tablecast(bench: &Bench, report: &mut Report, load: Load) -> Result<()> {
    report.heading(format!("Latency at {} rows a second: tablecast, TCP", thousands(load.rate as f64)));
    let tag = format!("{}_{}", bench.tag, load.rate);
    let source = Source::create(&bench.services, "latency", &tag)?;
    let name = format!("latency-{}", tag.replace('_', "-"));
    let connector = Connector::new(name, Via::Tcp, &[TABLE]);
    daemon::prepare(bench, &source.database, std::slice::from_ref(&connector))?;
    let mut daemon = Daemon::start(bench, &source.database, std::slice::from_ref(&connector))?;
    daemon.wait_until_streaming(std::slice::from_ref(&connector))?;

    let (times, topic) = (Times::new(load), connector.topic(TABLE));
    let route = Route { database: &source.database, table: TABLE, topic: &topic };
    let before = Processors::now();
    let (arrived, ()) = under_load(bench, route, load, &times, |_| Ok(()))?;
    let usage = daemon.process.usage()?;
    daemon.stop()?;
    topic::verify(&bench.services, &topic, load.rows())?;
    let (p50, p99) = tell(report, load, &times, &arrived, TABLECAST_TCP);
    tell_usage(report, usage);
    tell_stolen(report, before);
    let at = format!("latency at {} rows a second", thousands(load.rate as f64));
    if load.rate < 10_000 {
        report.target(&format!("{at}: p50 in ms, from sending"), p50, Target::AtMost(5.0));
        report.target(&format!("{at}: p99 in ms, from sending"), p99, Target::AtMost(15.0));
    } else {
        report.target(&format!("{at}: p99 in ms, from sending"), p99, Target::AtMost(40.0));
    }
    report.target(&format!("{at}: peak memory of the daemon in MiB"), usage.peak_mib, Target::AtMost(48.0));
    Ok(())
}

/// Its producer doesn't linger, and it asks its queue every 20 ms.
fn of_debezium(bench: &Bench, report: &mut Report, load: Load) -> Result<()> {
    report.heading(format!("Latency at {} rows a second: Debezium, TCP", thousands(load.rate as f64)));
    let tag = format!("{}_{}_dbz", bench.tag, load.rate);
    let mut source = Source::create(&bench.services, "latency", &tag)?;
    source.execute(&insert_zero(TABLE))?;
    let name = format!("latency-{}", tag.replace('_', "-"));
    let (tuned, tables) = (Tuned::Latency, vec![TABLE.to_owned()]);
    let connector = Debezium { name, exactly_once: true, format: Format::Avro, tuned, tables };
    debezium::prepare(bench, &source.database, std::slice::from_ref(&connector))?;
    let worker = Worker::start(bench, &connector)?;
    worker.resume(&connector)?;
    // Rows that came while it started would stand in a queue.
    crate::wait_until(PATIENCE, || Ok(source.walsender(&connector.slot())?.is_some()))?;

    let (times, topic) = (Times::new(load), connector.topic(TABLE));
    let route = Route { database: &source.database, table: TABLE, topic: &topic };
    let before = Processors::now();
    let (arrived, ()) = under_load(bench, route, load, &times, |_| Ok(()))?;
    let usage = worker.process.usage()?;
    worker.finish(&connector)?;
    source.drop_slot(&connector.slot())?;
    tell(report, load, &times, &arrived, DEBEZIUM);
    tell_usage(report, usage);
    tell_stolen(report, before);
    if load.rate < 10_000 {
        beside_debezium(report, load.rate);
    }
    Ok(())
}

/// Milliseconds are the machine's: 5 and 15 were set where Debezium took 17 and 32.
fn beside_debezium(report: &mut Report, rate: u64) {
    let of = |contender| report.latencies.iter().find(|latency| latency.contender == contender && latency.rate == rate);
    let (Some(ours), Some(theirs)) = (of(TABLECAST_TCP), of(DEBEZIUM)) else { return };
    let (p50, p99) = (ours.p50 / theirs.p50, ours.p99 / theirs.p99);
    let at = format!("latency at {} rows a second, {} / {}", thousands(rate as f64), ours.who, theirs.who);
    report.target(&format!("{at}: p50"), p50, Target::AtMost(0.29));
    report.target(&format!("{at}: p99"), p99, Target::AtMost(0.47));
}

/// Runs consumer and writers, and meanwhile something else, which may stop the writers before the load's end. Gives back
/// when each row arrived; each that was written has, once.
pub fn under_load<T>(
    bench: &Bench,
    route: Route<'_>,
    load: Load,
    times: &Times,
    meanwhile: impl FnOnce(&AtomicBool) -> Result<T>,
) -> Result<(Vec<u64>, T)> {
    topic::wait_for_topic(&bench.services, route.topic)?;
    let consumer = topic::consumer(&bench.services, route.topic, Offset::Beginning, &topic::FAST)?;
    let url = bench.services.database(route.database, Via::Unix);
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(UNKNOWN));
    std::thread::scope(|scope| {
        let consuming = scope.spawn(|| consume(&consumer, load.rows(), &written, times));
        let start = |writer| {
            let (url, stop) = (&url, &stop);
            scope.spawn(move || write(url, &insert(route.table), load, writer, times, stop))
        };
        let writers: Vec<_> = (0..load.connections).map(start).collect();
        let happened = meanwhile(&stop);
        if happened.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        let wrote: Vec<Result<u64>> = writers
            .into_iter()
            .map(|writer| writer.join().ok().context("a writer panicked").and_then(|wrote| wrote))
            .collect();
        let rows: Result<u64> = wrote.into_iter().sum();
        // After a failure the consumer need not wait for anything.
        written.store(*rows.as_ref().unwrap_or(&0), Ordering::Relaxed);
        let arrived = consuming.join().ok().context("the consumer panicked").and_then(|arrived| arrived);
        // What failed first is the reason.
        let happened = happened?;
        rows?;
        Ok((arrived?, happened))
    })
}

/// Writes every row whose turn is this writer's; tells how many those were.
fn write(url: &str, insert: &str, load: Load, writer: u64, times: &Times, stop: &AtomicBool) -> Result<u64> {
    let mut client = Client::connect(url, NoTls)?;
    let insert = client.prepare(insert)?;
    let begin = times.began + LEAD;
    let mut rows = 0;
    for id in (1 + writer..=load.rows()).step_by(load.connections as usize) {
        std::thread::sleep((begin + load.due(id)).saturating_duration_since(Instant::now()));
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let row = usize::try_from(id - 1)?;
        times.sent[row].store(times.now(), Ordering::Relaxed);
        client.execute(&insert, &[&i64::try_from(id)?])?;
        times.returned[row].store(times.now(), Ordering::Relaxed);
        rows += 1;
    }
    Ok(rows)
}

/// Takes as many rows as were written; zero stands for a row that did not arrive.
fn consume(consumer: &BaseConsumer, most: u64, written: &AtomicU64, times: &Times) -> Result<Vec<u64>> {
    let mut arrived = vec![0; usize::try_from(most)?];
    let (mut rows, mut last) = (0, Instant::now());
    while rows < written.load(Ordering::Relaxed).min(most) {
        let message = consumer.poll(LOOK);
        let now = times.now();
        let message = match message {
            None | Some(Err(KafkaError::PartitionEOF(_))) => {
                ensure!(last.elapsed() < PATIENCE, "{rows} rows arrived, and no more in time");
                continue;
            }
            Some(message) => message?,
        };
        let id = topic::id_of(message.key().context("a record without a key")?)?;
        if id == 0 {
            continue;
        }
        let at = arrived.get_mut(usize::try_from(id - 1)?).context("an unknown id")?;
        ensure!(*at == 0, "the id {id} arrived twice");
        *at = now;
        (rows, last) = (rows + 1, Instant::now());
    }
    Ok(arrived)
}

/// How long rows were on their way, in milliseconds, sorted.
pub struct Latencies {
    /// From sending the transaction: what is judged.
    pub sent: Vec<f64>,
    returned: Vec<f64>,
}

impl Latencies {
    /// Of these rows, which were all written.
    pub fn of(times: &Times, arrived: &[u64], rows: impl Iterator<Item = usize> + Clone) -> Self {
        let since = |starts: &[AtomicU64]| {
            let latency = |row: usize| arrived[row].saturating_sub(starts[row].load(Ordering::Relaxed)) as f64 / 1e6;
            sorted(rows.clone().map(latency).collect())
        };
        Self { sent: since(&times.sent), returned: since(&times.returned) }
    }

    pub fn table(&self, report: &mut Report) {
        let line = |what: &str, latencies: &[f64]| {
            let figures = [0.5, 0.95, 0.99, 1.0].map(|share| two_digits(quantile(latencies, share)));
            std::iter::once(what.to_owned()).chain(figures).collect::<Vec<_>>()
        };
        let lines = [line("from sending the transaction", &self.sent), line("from its return", &self.returned)];
        report.table(&["milliseconds, until a consumer has the record", "p50", "p95", "p99", "max"], &lines);
    }
}

/// Tells what was measured, and gives back the median and the 99th percentile, from sending.
fn tell(report: &mut Report, load: Load, times: &Times, arrived: &[u64], contender: Contender) -> (f64, f64) {
    let measured = load.first_measured() as usize..arrived.len();
    let latencies = Latencies::of(times, arrived, measured.clone());
    latencies.table(report);
    let returned_at = |row: usize| times.returned[row].load(Ordering::Relaxed) as f64 / 1e9;
    let seconds = returned_at(arrived.len() - 1) - returned_at(measured.start);
    report.line(format!(
        "{} rows in {seconds:.1} s ({} a second) after {:?} of warm-up, {} connections, synchronous_commit on.\n",
        thousands(measured.len() as f64),
        thousands(measured.len() as f64 / seconds),
        load.warm_up,
        load.connections,
    ));
    let (p50, p99) = (quantile(&latencies.sent, 0.5), quantile(&latencies.sent, 0.99));
    report.latencies.push(Latency { who: contender.shown(), contender, rate: load.rate, p50, p99 });
    (p50, p99)
}

fn tell_usage(report: &mut Report, usage: Usage) {
    report.line(format!(
        "The process: {:.2} CPU-s in all, peak {:.1} MiB, {} context switches.\n",
        usage.cpu(),
        usage.peak_mib,
        thousands((usage.voluntary_switches + usage.involuntary_switches) as f64),
    ));
}

/// On a machine that shares its processors, others decide over a latency too.
fn tell_stolen(report: &mut Report, before: Processors) {
    let stolen = 100.0 * Processors::now().stolen_since(before);
    report.line(format!("The host gave {stolen:.0} % of the processors' time to others meanwhile.\n"));
}

fn sorted(mut figures: Vec<f64>) -> Vec<f64> {
    figures.sort_by(f64::total_cmp);
    figures
}
