//! Reading topics back: committed records only, up to the end, or on and on.
//!
//! Two ends have to be told apart. The *last stable offset* is where `read_committed` readers stop: before the first
//! record of a transaction that is still open. The *high watermark* is where the log ends. [`wait_until_settled`] waits
//! until the first has reached what the second was, so that reading to the end afterwards misses nothing that was
//! committed before.

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Connection, Context};
use super::error::KafkaFault;

/// How long a request for metadata may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long nothing may come before the end of the topic.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one poll may wait.
pub(super) const POLL: Duration = Duration::from_millis(100);
/// A topic that was created a moment ago may not be known to every broker yet, nor have a leader.
const NEW_TOPIC_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before asking again whether a transaction has been settled.
const SETTLE_PAUSE: Duration = Duration::from_millis(50);
/// How long the end of a command waits for librdkafka to take leave of the brokers.
pub const FAREWELLS_LIMIT: Duration = Duration::from_secs(2);
/// How long another producer's transaction may stay open before the reading is given up.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits until no transaction is open that began before the call. The topic may be new. Blocks.
pub fn wait_until_settled(connection: &Connection, topic: &str) -> Result<(), KafkaFault> {
    let all = consumer(connection, topic, "read_uncommitted")?;
    let partitions = of_new(|| partitions(&all, topic))?;
    let high = partitions.iter().map(|partition| of_new(|| end(&all, topic, *partition)));
    let high = high.collect::<Result<Vec<_>, _>>()?;
    let committed = consumer(connection, topic, "read_committed")?;
    let started = Instant::now();
    for (partition, high) in partitions.iter().zip(high) {
        while end(&committed, topic, *partition)? < high {
            if started.elapsed() > SETTLE_TIMEOUT {
                return Err(KafkaFault::Stalled {
                    doing: format!("waiting for a transaction on topic {topic:?} that another producer left open"),
                    seconds: SETTLE_TIMEOUT.as_secs(),
                    last: "it ends when that producer comes back, or times out; one that hangs for ever, \
                           `kafka-transactions.sh find-hanging` shows"
                        .to_owned(),
                });
            }
            std::thread::sleep(SETTLE_PAUSE);
        }
    }
    Ok(())
}

/// A consumer whose end nobody waits for: librdkafka takes leave of the brokers in its own time, tenths of a second, and a
/// start makes several.
pub(super) struct TopicConsumer(Arc<BaseConsumer<Context>>);

impl Deref for TopicConsumer {
    type Target = BaseConsumer<Context>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for TopicConsumer {
    fn drop(&mut self) {
        let consumer = Arc::clone(&self.0);
        let counted = Farewell::count();
        let farewell = move || {
            // Whoever drops it last waits for the brokers: that must be this thread.
            while Arc::strong_count(&consumer) > 1 {
                std::thread::yield_now();
            }
            drop(consumer);
            drop(counted);
        };
        // If there can't be another thread, it is the caller's that waits.
        let _ = std::thread::Builder::new().name("kafka-farewell".to_owned()).spawn(farewell);
    }
}

/// How many consumers take leave just now, and who waits for them.
static FAREWELLS: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// A consumer that takes leave.
struct Farewell;

impl Farewell {
    fn count() -> Self {
        *FAREWELLS.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Farewell
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        *FAREWELLS.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        FAREWELLS.1.notify_all();
    }
}

/// Waits until no consumer is taking leave any more, but not for long: a process that ends amid it tears down what
/// librdkafka's threads still use. False if some still are.
pub fn wait_for_farewells(limit: Duration) -> bool {
    let count = FAREWELLS.0.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = FAREWELLS.1.wait_timeout_while(count, limit, |count| *count > 0);
    !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
}

fn consumer(connection: &Connection, topic: &str, isolation: &str) -> Result<TopicConsumer, KafkaFault> {
    make(config(connection, isolation), topic)
}

pub(super) fn make(config: ClientConfig, topic: &str) -> Result<TopicConsumer, KafkaFault> {
    let consumer = config.create_with_context(Context::default());
    consumer.map(Arc::new).map(TopicConsumer).map_err(KafkaFault::call(format!("reading topic {topic:?}")))
}

pub(super) fn config(connection: &Connection, isolation: &str) -> ClientConfig {
    connection.reader_config(&[
        ("group.id", "tablecast-reader"),
        ("enable.auto.commit", "false"),
        ("enable.partition.eof", "true"),
        ("isolation.level", isolation),
        ("fetch.wait.max.ms", "50"),
        // What is read is small, and a start waits for it: half a second of pause after "no leader yet" is too much.
        ("fetch.error.backoff.ms", "20"),
        ("reconnect.backoff.ms", "20"),
        ("queued.max.messages.kbytes", "4096"),
        // A full queue is empty again in milliseconds; librdkafka would look at it a second later.
        ("fetch.queue.backoff.ms", "5"),
    ])
}

/// Asks again as long as it is only that the topic was created a moment ago.
fn of_new<T>(mut ask: impl FnMut() -> Result<T, KafkaFault>) -> Result<T, KafkaFault> {
    let started = Instant::now();
    loop {
        match ask() {
            Err(fault) if fault.is_new_topic() && started.elapsed() < NEW_TOPIC_TIMEOUT => {
                std::thread::sleep(SETTLE_PAUSE);
            }
            answer => return answer,
        }
    }
}

pub(super) fn partitions(consumer: &BaseConsumer<Context>, topic: &str) -> Result<Vec<i32>, KafkaFault> {
    let doing = format!("reading topic {topic:?}");
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT).map_err(KafkaFault::call(doing.clone()));
    let metadata = metadata.map_err(|fault| consumer.context().last_error.or(&doing, fault))?;
    let mut partitions = Vec::new();
    for found in metadata.topics() {
        if let Some(error) = found.error() {
            let code = RDKafkaErrorCode::from(error);
            return Err(KafkaFault::Reported { doing, code, reason: code.to_string() });
        }
        partitions.extend(found.partitions().iter().map(|partition| partition.id()));
    }
    Ok(partitions)
}

/// Where the topic's partitions end now, by partition: what is written later lies at or after that. Blocks.
pub fn ends(connection: &Connection, topic: &str) -> Result<Vec<i64>, KafkaFault> {
    let consumer = consumer(connection, topic, "read_uncommitted")?;
    let mut ends = Vec::new();
    for partition in of_new(|| partitions(&consumer, topic))? {
        let at = usize::try_from(partition).unwrap_or_default();
        ends.resize(ends.len().max(at + 1), 0);
        ends[at] = end(&consumer, topic, partition)?;
    }
    Ok(ends)
}

/// Where the partition ends for this consumer, by its isolation level.
fn end(consumer: &BaseConsumer<Context>, topic: &str, partition: i32) -> Result<i64, KafkaFault> {
    Ok(bounds(consumer, topic, partition)?.1)
}

/// Where the partition begins, and where it ends for this consumer, by its isolation level.
pub(super) fn bounds(consumer: &BaseConsumer<Context>, topic: &str, partition: i32) -> Result<(i64, i64), KafkaFault> {
    let watermarks = consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT);
    watermarks.map_err(KafkaFault::call(format!("asking for the end of topic {topic:?}")))
}

/// A `read_committed` reader of one topic, all partitions, from the beginning.
pub struct Reader {
    consumer: TopicConsumer,
    topic: String,
    /// Partitions whose end has not been seen yet.
    unfinished: Vec<i32>,
}

impl Reader {
    /// A reader that stands at the beginning of the topic. Blocks while Kafka is asked for the partitions.
    pub fn new(connection: &Connection, topic: &str) -> Result<Self, KafkaFault> {
        Self::open(connection, topic, |_, _| Ok(Offset::Beginning))
    }

    /// A reader that stands where the topic ends now. Blocks while Kafka is asked for the ends.
    pub fn at_end(connection: &Connection, topic: &str) -> Result<Self, KafkaFault> {
        // Asked for here, not left to `Offset::End`: that would be resolved some time later.
        Self::open(connection, topic, |consumer, partition| end(consumer, topic, partition).map(Offset::Offset))
    }

    fn open(
        connection: &Connection,
        topic: &str,
        start: impl Fn(&BaseConsumer<Context>, i32) -> Result<Offset, KafkaFault>,
    ) -> Result<Self, KafkaFault> {
        let doing = || format!("reading topic {topic:?}");
        let consumer = consumer(connection, topic, "read_committed")?;
        let unfinished = partitions(&consumer, topic)?;
        let mut assignment = TopicPartitionList::new();
        for partition in &unfinished {
            let offset = start(&consumer, *partition)?;
            assignment.add_partition_offset(topic, *partition, offset).map_err(KafkaFault::call(doing()))?;
        }
        consumer.assign(&assignment).map_err(KafkaFault::call(doing()))?;
        Ok(Self { consumer, topic: topic.to_owned(), unfinished })
    }

    /// Gives each committed record until every partition's end has been seen once, or `each` returns false.
    pub fn read_to_end(&mut self, mut each: impl FnMut(&BorrowedMessage<'_>) -> bool) -> Result<(), KafkaFault> {
        let mut moved = Instant::now();
        while !self.unfinished.is_empty() {
            match self.consumer.poll(POLL) {
                None if moved.elapsed() > STALL_TIMEOUT => {
                    return Err(KafkaFault::Stalled {
                        doing: format!("reading topic {:?} to its end", self.topic),
                        seconds: STALL_TIMEOUT.as_secs(),
                        last: self.consumer.context().last_error.in_words(),
                    });
                }
                None => {}
                Some(Ok(message)) => {
                    moved = Instant::now();
                    if !each(&message) {
                        return Ok(());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.unfinished.retain(|unfinished| *unfinished != partition);
                }
                Some(Err(error)) => raise(&self.topic, error)?,
            }
        }
        Ok(())
    }

    /// Gives the next record as it comes, or `None` after a moment without any.
    pub fn next_record(&mut self) -> Result<Option<BorrowedMessage<'_>>, KafkaFault> {
        match self.consumer.poll(POLL) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => Ok(None),
            Some(Ok(message)) => Ok(Some(message)),
            Some(Err(error)) => raise(&self.topic, error).map(|()| None),
        }
    }
}

/// The first of the topics in which a `read_committed` reader finds a record. Topics may be new. Blocks.
pub fn first_with_records<'t>(connection: &Connection, topics: &[&'t str]) -> Result<Option<&'t str>, KafkaFault> {
    let Some(first) = topics.first() else { return Ok(None) };
    let all = consumer(connection, first, "read_uncommitted")?;
    for topic in topics {
        if !has_no_offsets(&all, topic)? && !is_empty(connection, topic)? {
            return Ok(Some(topic));
        }
    }
    Ok(None)
}

/// Whether nobody has written to the topic, or all of it was deleted.
fn has_no_offsets(all: &BaseConsumer<Context>, topic: &str) -> Result<bool, KafkaFault> {
    for partition in of_new(|| partitions(all, topic))? {
        let (start, end) = of_new(|| bounds(all, topic, partition))?;
        if start < end {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Offsets may be taken by what was aborted, and by the marks that end transactions.
fn is_empty(connection: &Connection, topic: &str) -> Result<bool, KafkaFault> {
    wait_until_settled(connection, topic)?;
    let mut empty = true;
    Reader::new(connection, topic)?.read_to_end(|_| {
        empty = false;
        false
    })?;
    Ok(empty)
}

/// What passes by itself is librdkafka's business; the rest is an error.
pub(super) fn raise(topic: &str, error: KafkaError) -> Result<(), KafkaFault> {
    let fault = KafkaFault::Call { doing: format!("reading topic {topic:?}"), source: error };
    if fault.is_transient() { Ok(()) } else { Err(fault) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_waits_for_the_consumers_that_take_leave_but_not_for_ever() {
        // No broker is there: none is needed to make a consumer, nor to take leave of.
        let consumer = make(ClientConfig::new().set("group.id", "none").clone(), "t").ok().unwrap();
        let held = Arc::clone(&consumer.0);
        drop(consumer);
        assert!(!wait_for_farewells(Duration::from_millis(20)));
        drop(held);
        assert!(wait_for_farewells(Duration::from_secs(60)));
    }
}
