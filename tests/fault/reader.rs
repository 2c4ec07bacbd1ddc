//! Independent `read_committed` consumers: one that reads on through the whole run, and one that reads to the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::checker::{Rows, Seen};
use super::decode::{Columns, Decoder};
use super::ledger::Place;
use super::tables::TABLES;

const POLL: Duration = Duration::from_millis(100);
/// How long Kafka may take to say where a partition ends, just restarted or not.
const END_WITHIN: Duration = Duration::from_secs(60);

/// Where the services are that a consumer needs.
#[derive(Clone)]
pub struct Addresses {
    pub kafka: String,
    pub registry: String,
}

/// The topic of a table.
pub fn topic(table: usize) -> String {
    format!("public.{}", TABLES[table].name)
}

/// All partitions as (table, partition).
pub fn partitions() -> impl Iterator<Item = (usize, i32)> {
    let partitions = |(table, of): (usize, &'static super::tables::Table)| (0..of.partitions).map(move |p| (table, p));
    TABLES.iter().enumerate().flat_map(partitions)
}

fn consumer(kafka: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka).set("group.id", "fault").set("isolation.level", "read_committed");
    config.set("enable.auto.commit", "false").set("enable.partition.eof", "true").set("fetch.wait.max.ms", "50");
    config.set("reconnect.backoff.max.ms", "500").set("allow.auto.create.topics", "false");
    // An offset that is gone is a finding, not a reason to start over.
    config.set("auto.offset.reset", "error").set("check.crcs", "true");
    config.create().unwrap()
}

fn assign(consumer: &BaseConsumer, at: impl Iterator<Item = ((usize, i32), i64)>) {
    let mut list = TopicPartitionList::new();
    for ((table, partition), offset) in at {
        list.add_partition_offset(&topic(table), partition, Offset::Offset(offset)).unwrap();
    }
    consumer.assign(&list).unwrap();
}

/// Reads on and on, and keeps what it has seen.
pub struct SteadyReader {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    faults: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl SteadyReader {
    pub fn start(addresses: &Addresses) -> Self {
        let shared = Arc::<Shared>::default();
        let (shared_there, addresses) = (Arc::clone(&shared), addresses.clone());
        let thread = std::thread::spawn(move || read_steadily(&shared_there, &addresses));
        Self { shared, thread: Some(thread) }
    }

    pub fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        assert!(self.thread.as_ref().is_some_and(|thread| !thread.is_finished()), "the steady reader has died");
        self.shared.seen.lock().unwrap()
    }

    /// What Kafka told it that it must not tell a consumer, such as that an offset is gone.
    pub fn faults(&self) -> Vec<String> {
        self.shared.faults.lock().unwrap().clone()
    }
}

impl Drop for SteadyReader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has said why it died.
            let _ = thread.join();
        }
    }
}

fn read_steadily(shared: &Shared, addresses: &Addresses) {
    let mut decoder = Decoder::new(addresses.registry.clone());
    let consumer = consumer(&addresses.kafka);
    assign(&consumer, partitions().map(|at| (at, 0)));
    while !shared.stop.load(Ordering::Relaxed) {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                let (seen, _) = decode(&mut decoder, &message);
                shared.seen.lock().unwrap().push(seen);
            }
            Some(Err(fault)) if !passes(&fault) => shared.faults.lock().unwrap().push(fault.to_string()),
            Some(Err(_)) | None => {}
        }
    }
}

/// A broker that is being restarted, and the end of a partition, are no news.
fn passes(fault: &KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve};
    let codes = [AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve];
    matches!(fault, KafkaError::PartitionEOF(_)) || fault.rdkafka_error_code().is_some_and(|code| codes.contains(&code))
}

fn decode(decoder: &mut Decoder, message: &BorrowedMessage<'_>) -> (Seen, Option<Columns>) {
    let table = (0..TABLES.len()).find(|table| topic(*table) == message.topic()).unwrap();
    let key = decoder.decode(message.key().expect("a record has a key"));
    let key: Vec<_> = key.into_iter().map(|(_, text)| text.expect("no column of a key is null")).collect();
    let columns = message.payload().map(|payload| decoder.decode(payload));
    let number = |columns: &Columns, name: &str| {
        let (_, text) = columns.iter().find(|(column, _)| column == name).unwrap();
        text.as_ref().unwrap().parse::<i64>().unwrap()
    };
    let row = columns.as_ref().map(|columns| (number(columns, "tx") as u64, number(columns, "version")));
    let place = Place::new(table, key.join("/"));
    (Seen { partition: message.partition(), offset: message.offset(), place, row }, columns)
}

/// How many records a partition shows, and where the last of them is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    records: usize,
    next: i64,
}

pub type Tallies = BTreeMap<(usize, i32), Tally>;

pub fn tallies(seen: &[Seen]) -> Tallies {
    let mut tallies: Tallies = partitions().map(|at| (at, Tally::default())).collect();
    for record in seen {
        let tally = tallies.get_mut(&(record.place.table, record.partition)).unwrap();
        *tally = Tally { records: tally.records + 1, next: record.offset + 1 };
    }
    tallies
}

/// Reads each partition to where it ends for `read_committed` at that moment.
pub struct EndReader {
    consumer: BaseConsumer,
    tallies: Tallies,
}

impl EndReader {
    pub fn new(addresses: &Addresses) -> Self {
        Self { consumer: consumer(&addresses.kafka), tallies: tallies(&[]) }
    }

    /// Reads from where it stopped the last time, and tells how much there is in all.
    pub fn advance(&mut self) -> Tallies {
        self.read(|_| {});
        self.tallies.clone()
    }

    /// Whether a position has ever been stored: from then on the daemon streams.
    pub fn has_position(&self) -> bool {
        let ends = self.consumer.fetch_watermarks("_tablecast_positions", 0, POLL);
        // Without the topic it is an error.
        ends.is_ok_and(|(_, end)| end > 0)
    }

    fn read(&mut self, mut each: impl FnMut(&BorrowedMessage<'_>)) {
        for (&at, tally) in &mut self.tallies {
            assign(&self.consumer, std::iter::once((at, tally.next)));
            let deadline = Instant::now() + END_WITHIN;
            loop {
                assert!(Instant::now() < deadline, "{} {}: no end within {END_WITHIN:?}", topic(at.0), at.1);
                match self.consumer.poll(POLL) {
                    Some(Ok(message)) => {
                        *tally = Tally { records: tally.records + 1, next: message.offset() + 1 };
                        each(&message);
                    }
                    Some(Err(KafkaError::PartitionEOF(_))) => break,
                    Some(Err(fault)) => assert!(passes(&fault), "{fault}"),
                    None => {}
                }
            }
        }
    }
}

/// All topics from the beginning, as somebody sees them who comes later: every record, and the last value of each key.
pub fn read_all(addresses: &Addresses) -> (Vec<Seen>, Vec<Rows>) {
    let mut decoder = Decoder::new(addresses.registry.clone());
    let mut seen = Vec::new();
    let mut folded = vec![Rows::new(); TABLES.len()];
    EndReader::new(addresses).read(|message| {
        let (record, columns) = decode(&mut decoder, message);
        let rows = &mut folded[record.place.table];
        match columns {
            None => drop(rows.remove(&record.place.key)),
            Some(columns) => {
                let names: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
                assert_eq!(names, TABLES[record.place.table].columns(), "the fields of a value");
                rows.insert(record.place.key.clone(), columns.into_iter().map(|(_, text)| text).collect());
            }
        }
        seen.push(record);
    });
    (seen, folded)
}
