//! What the parts can do alone: librdkafka into Kafka, COPY out of Postgres. The daemon can't be faster than either.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::Bench;
use crate::process::{self, Ended, Watched, log_tail};
use crate::report::{Report, one_digit, thousands};
use crate::services::Via;
use crate::snapshot;
use crate::source::{Source, TABLE};
use crate::topic::{self, Loaded};

const TIMEOUT: Duration = Duration::from_secs(30);
/// As many records as the daemon's `batch_max_bytes`, 4 MiB by default, lets into a Kafka transaction; and fewer.
const RECORDS_A_TRANSACTION: [u64; 3] = [28_000, 10_000, 1_000];

/// Measures both; the records are those that the daemon made of the same rows.
pub fn run(bench: &Bench, report: &mut Report, rows: u64) -> Result<()> {
    report.heading(format!("`limits`: {} rows", thousands(rows as f64)));
    let mut source = Source::create(&bench.services, "limits", &bench.tag)?;
    source.fill_at_once(rows)?;
    source.settle()?;
    let topic = snapshot::topic_of(bench, &mut source, "limits", rows)?;
    let records = topic::load(&bench.services, &topic)?;
    let mut lines = Vec::new();
    for size in RECORDS_A_TRANSACTION {
        lines.push(librdkafka(bench, &records, size)?);
    }
    for via in Via::BOTH {
        lines.push(copy(bench, &source.database, rows, via)?);
    }
    report.table(&["alone", "rows/s", "CPU-s per million rows"], &lines);
    Ok(())
}

/// Transactions of the daemon's records, by its settings.
fn librdkafka(bench: &Bench, records: &Loaded, size: u64) -> Result<Vec<String>> {
    let topic = format!("limits-{}-{size}", bench.tag);
    create_topic(bench, &topic)?;
    let producer = producer(bench, &topic, &[("linger.ms", "1"), ("queue.buffering.max.kbytes", "8192")])?;
    let own = i32::try_from(std::process::id())?;
    let (before, began) = (process::usage(own)?.cpu(), Instant::now());
    let mut rows = 0;
    for (key, value) in records.records() {
        if rows % size == 0 {
            if rows > 0 {
                commit(&producer)?;
            }
            producer.begin_transaction()?;
        }
        send(&producer, &topic, key, value)?;
        rows += 1;
    }
    commit(&producer)?;
    let took = began.elapsed().as_secs_f64();
    let cpu = process::usage(own)?.cpu() - before;
    Ok(vec![
        format!("librdkafka, transactions of {} records", thousands(size as f64)),
        thousands(rows as f64 / took),
        one_digit(cpu * 1e6 / rows as f64),
    ])
}

/// A producer of transactions by the daemon's settings, and more.
pub fn producer(bench: &Bench, transactional_id: &str, more: &[(&str, &str)]) -> Result<BaseProducer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &bench.services.kafka).set("transactional.id", transactional_id);
    config.set("compression.type", "lz4").set("delivery.report.only.error", "true");
    for (name, value) in more {
        config.set(*name, *value);
    }
    let producer: BaseProducer = config.create()?;
    producer.init_transactions(TIMEOUT)?;
    Ok(producer)
}

pub fn create_topic(bench: &Bench, topic: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &bench.services.kafka).create()?;
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    let created = block_on(admin.create_topics([&new], &AdminOptions::new()))?;
    for result in created {
        result.map_err(|(name, code)| anyhow::anyhow!("could not create {name}: {code}"))?;
    }
    Ok(())
}

/// A future of librdkafka's is ready when its own thread says so: parking is all that is needed.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}

pub fn send(producer: &BaseProducer, topic: &str, key: &[u8], value: &[u8]) -> Result<()> {
    let mut record = BaseRecord::to(topic).key(key).payload(value);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// rdkafka's `commit_transaction` takes 100 ms while records are in flight, so none may be.
pub fn commit(producer: &BaseProducer) -> Result<()> {
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::ZERO);
        std::thread::sleep(Duration::from_micros(100));
    }
    producer.commit_transaction(TIMEOUT).context("could not commit")
}

fn copy(bench: &Bench, database: &str, rows: u64, via: Via) -> Result<Vec<String>> {
    let ended = copy_out(bench, database, via)?;
    Ok(vec![
        format!("COPY TO STDOUT, {}", via.shown()),
        thousands(rows as f64 / ended.took.as_secs_f64()),
        one_digit(ended.usage.cpu() * 1e6 / rows as f64),
    ])
}

/// The whole table, by psql into /dev/null. As long as psql's own CPU time is well below the time that passed, the reader
/// is not the limit.
pub fn copy_out(bench: &Bench, database: &str, via: Via) -> Result<Ended> {
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-d", &bench.services.database(database, via), "-o", "/dev/null"]);
    command.args(["-c", &format!("COPY (SELECT * FROM {TABLE}) TO STDOUT")]);
    let log = bench.work.join("copy.log");
    let ended = Watched::spawn(&mut command, &log)?.wait()?;
    ensure!(ended.success, "COPY failed:\n{}", log_tail(&log));
    Ok(ended)
}
