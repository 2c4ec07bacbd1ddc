//! The judge: a consumer of its own, which reads committed records only.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::services::Services;

const TIMEOUT: Duration = Duration::from_secs(30);
/// For a consumer that is to have a record as soon as it is committed.
pub const FAST: [(&str, &str); 3] =
    [("fetch.wait.max.ms", "10"), ("fetch.min.bytes", "1"), ("socket.nagle.disable", "true")];
/// Confluent's wire format: a zero byte and the schema's id.
const HEADER: usize = 5;

/// What a topic of one partition holds.
#[derive(Debug, Default)]
pub struct Content {
    pub records: u64,
    /// Of the records' keys and values.
    pub bytes: u64,
    /// Of the ids that were looked for, how many are not there.
    pub missing: u64,
    /// Offsets that no record has. Each transaction leaves one marker in the partition, which takes one; what was
    /// rolled back takes more, for those that read committed records only.
    pub gaps: u64,
}

/// A consumer of partition 0, from `offset` on.
pub fn consumer(services: &Services, topic: &str, offset: Offset, more: &[(&str, &str)]) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &services.kafka).set("group.id", "tablecast-bench");
    config.set("isolation.level", "read_committed").set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true");
    for (name, value) in more {
        config.set(*name, *value);
    }
    let consumer: BaseConsumer = config.create()?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, offset)?;
    consumer.assign(&partitions)?;
    Ok(consumer)
}

/// Reads the topic to its end, and makes sure that it holds the ids 1 to `rows`, each exactly once, and nothing else.
pub fn verify(services: &Services, topic: &str, rows: u64) -> Result<Content> {
    let content = read(services, topic, rows, &[])?;
    ensure!(content.missing == 0, "{topic} lacks {} of the ids", content.missing);
    ensure!(content.records == rows, "{topic} holds {} records, not {rows}", content.records);
    Ok(content)
}

/// How many records lie in the topic, those of transactions that were rolled back too.
pub fn written(services: &Services, topic: &str, rows: u64) -> Result<u64> {
    Ok(read(services, topic, rows, &[("isolation.level", "read_uncommitted")])?.records)
}

/// Reads the topic to its end, and looks for the ids 1 to `rows`. There may be no other.
pub fn read(services: &Services, topic: &str, rows: u64, more: &[(&str, &str)]) -> Result<Content> {
    let consumer = consumer(services, topic, Offset::Beginning, more)?;
    let (low, high) = consumer.fetch_watermarks(topic, 0, TIMEOUT)?;
    ensure!(low == 0, "{topic} begins at {low}, not at 0");
    let mut seen = vec![false; usize::try_from(rows)? + 1];
    let mut content = Content { missing: rows, ..Content::default() };
    while let Some(message) = consumer.poll(TIMEOUT) {
        let message = match message {
            Err(KafkaError::PartitionEOF(_)) => {
                content.gaps = u64::try_from(high)? - content.records;
                return Ok(content);
            }
            message => message?,
        };
        let (key, value) = (message.key().context("a record without a key")?, message.payload());
        let id = id_of(key)?;
        let seen = seen.get_mut(usize::try_from(id)?).filter(|_| id > 0);
        let seen = seen.with_context(|| format!("{topic} holds an unknown id, {id}"))?;
        content.missing -= u64::from(!std::mem::replace(seen, true));
        content.records += 1;
        content.bytes += (key.len() + value.context("a tombstone, where nothing was deleted")?.len()) as u64;
    }
    bail!("{topic} could not be read to its end")
}

/// The id in a record's key: Avro's zigzag number after the header.
pub fn id_of(key: &[u8]) -> Result<u64> {
    let mut number = 0_u64;
    for (at, byte) in key.get(HEADER..).unwrap_or_default().iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(number >> 1);
        }
    }
    bail!("no id in the key {key:02x?}")
}

/// Waits until the topic exists.
pub fn wait_for_topic(services: &Services, topic: &str) -> Result<()> {
    let client = ClientConfig::new().set("bootstrap.servers", &services.kafka).create::<BaseConsumer>()?;
    let deadline = Instant::now() + TIMEOUT;
    while Instant::now() < deadline {
        let metadata = client.fetch_metadata(Some(topic), TIMEOUT)?;
        if metadata.topics().iter().any(|found| found.error().is_none() && !found.partitions().is_empty()) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("there is no topic {topic}")
}
