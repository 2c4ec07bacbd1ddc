//! The judge: a consumer of its own, which reads committed records only.

use std::ops::RangeInclusive;
use std::path::PathBuf;
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
#[derive(Clone, Copy, Debug, Default)]
pub struct Content {
    /// Tombstones too.
    pub records: u64,
    /// Of the records' keys and values.
    pub bytes: u64,
    /// Of the ids that were looked for, how many are not there.
    pub missing: u64,
    /// Offsets that no record has. Each transaction leaves one marker in the partition, which takes one; what was
    /// rolled back takes more, for those that read committed records only.
    pub gaps: u64,
}

/// What a topic of one partition is to hold.
#[derive(Clone, Debug)]
pub struct Expected {
    pub records: u64,
    /// The ids of which the newest record is no tombstone, beside `zero`.
    pub live: RangeInclusive<u64>,
    /// Whether row 0 is there as well, in a record that isn't counted.
    pub zero: bool,
}

impl Expected {
    /// The ids 1 to `rows`, each once.
    pub fn rows(rows: u64) -> Self {
        Self { records: rows, live: 1..=rows, zero: false }
    }
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
    verify_is(services, topic, &Expected::rows(rows))
}

/// Reads the topic to its end, and makes sure that it holds what is expected, and nothing else.
pub fn verify_is(services: &Services, topic: &str, expected: &Expected) -> Result<Content> {
    let content = read(services, topic, expected, &[])?;
    ensure!(content.missing == 0, "{topic} lacks {} of the ids, or has them yet", content.missing);
    ensure!(content.records == expected.records, "{topic} holds {} records: {expected:?}", content.records);
    Ok(content)
}

/// How many records lie in the topic, those of transactions that were rolled back too.
pub fn written(services: &Services, topic: &str, rows: u64) -> Result<u64> {
    Ok(read(services, topic, &Expected::rows(rows), &[("isolation.level", "read_uncommitted")])?.records)
}

/// Reads the topic to its end, and looks for the ids that it is to hold. There may be no others.
pub fn read(services: &Services, topic: &str, expected: &Expected, more: &[(&str, &str)]) -> Result<Content> {
    let mut live = vec![false; usize::try_from(*expected.live.end())? + 1];
    let (mut content, mut zeros) = (Content::default(), 0);
    let high = each(services, topic, more, |key, value| {
        let id = id_of(key)?;
        if id == 0 && expected.zero {
            zeros += 1;
            return Ok(());
        }
        let live = live.get_mut(usize::try_from(id)?).filter(|_| id > 0);
        *live.with_context(|| format!("{topic} holds an unknown id, {id}"))? = value.is_some();
        content.records += 1;
        content.bytes += (key.len() + value.map_or(0, <[u8]>::len)) as u64;
        Ok(())
    })?;
    ensure!(zeros == u64::from(expected.zero), "{topic} holds row 0 {zeros} times");
    let wrong = (1..).zip(&live[1..]).filter(|(id, live)| expected.live.contains(id) != **live);
    content.missing = wrong.count() as u64;
    content.gaps = high - content.records - zeros;
    Ok(content)
}

/// The records of a topic, one after the other.
pub struct Loaded {
    bytes: Vec<u8>,
    /// Where each key ends, and each value.
    ends: Vec<(usize, usize)>,
}

impl Loaded {
    /// Keys and values.
    pub fn records(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        starts.zip(&self.ends).map(|(start, (key, end))| (&self.bytes[start..*key], &self.bytes[*key..*end]))
    }
}

/// Takes a topic without tombstones into memory.
pub fn load(services: &Services, topic: &str) -> Result<Loaded> {
    let mut loaded = Loaded { bytes: Vec::new(), ends: Vec::new() };
    each(services, topic, &[], |key, value| {
        loaded.bytes.extend_from_slice(key);
        let key = loaded.bytes.len();
        loaded.bytes.extend_from_slice(value.context("a tombstone")?);
        loaded.ends.push((key, loaded.bytes.len()));
        Ok(())
    })?;
    Ok(loaded)
}

/// Hands over each record up to the topic's end; gives the offset back where that is.
fn each(
    services: &Services,
    topic: &str,
    more: &[(&str, &str)],
    mut take: impl FnMut(&[u8], Option<&[u8]>) -> Result<()>,
) -> Result<u64> {
    let consumer = consumer(services, topic, Offset::Beginning, more)?;
    let (low, high) = consumer.fetch_watermarks(topic, 0, TIMEOUT)?;
    ensure!(low == 0, "{topic} begins at {low}, not at 0");
    while let Some(message) = consumer.poll(TIMEOUT) {
        match message {
            Err(KafkaError::PartitionEOF(_)) => return Ok(u64::try_from(high)?),
            message => {
                let message = message?;
                take(message.key().context("a record without a key")?, message.payload())?;
            }
        }
    }
    bail!("{topic} could not be read to its end")
}

/// Follows a topic from outside, at little cost: how many offsets are taken, and whether an id is at its end.
pub struct Watched {
    consumer: BaseConsumer,
    topic: String,
}

impl Watched {
    /// Its consumer is assigned nothing, so it fetches nothing.
    pub fn new(services: &Services, topic: &str) -> Result<Self> {
        let consumer = ClientConfig::new().set("bootstrap.servers", &services.kafka).create()?;
        Ok(Self { consumer, topic: topic.to_owned() })
    }

    /// How many offsets are taken: about as many as there are records. None while there is no topic.
    pub fn offsets(&self) -> u64 {
        let marks = self.consumer.fetch_watermarks(&self.topic, 0, TIMEOUT);
        marks.map_or(0, |(_, high)| u64::try_from(high).unwrap_or(0))
    }

    /// Whether one of the last committed records has this id.
    pub fn ends_with(&self, services: &Services, id: u64) -> Result<bool> {
        // A transaction's marker takes an offset as well.
        let consumer = consumer(services, &self.topic, Offset::OffsetTail(5), &FAST)?;
        while let Some(message) = consumer.poll(TIMEOUT) {
            match message {
                Err(KafkaError::PartitionEOF(_)) => return Ok(false),
                message => {
                    if id_of(message?.key().context("a record without a key")?)? == id {
                        return Ok(true);
                    }
                }
            }
        }
        bail!("the end of {} could not be read", self.topic)
    }
}

/// What the topic takes of the broker's disk, as far as its folder can be seen: compressed, with all of Kafka's own.
pub fn stored_bytes(topic: &str) -> Option<u64> {
    let folder = PathBuf::from(std::env::var_os("BENCH_KAFKA_DATA")?).join(format!("{topic}-0"));
    let files = std::fs::read_dir(folder).ok()?.flatten();
    let segments = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "log"));
    Some(segments.filter_map(|file| Some(file.metadata().ok()?.len())).sum())
}

/// The id in a record's key: Avro's zigzag number after the header; or, in JSON, the number in it.
pub fn id_of(key: &[u8]) -> Result<u64> {
    if key.first() == Some(&b'{') {
        let digits = key.iter().filter(|byte| byte.is_ascii_digit());
        return Ok(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')));
    }
    let mut number = 0_u64;
    for (at, byte) in key.get(HEADER..).unwrap_or_default().iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(number >> 1);
        }
    }
    bail!("no id in the key {key:02x?}")
}

/// The key that [`id_of`] reads the id from, as the daemon writes it.
pub fn key_of(id: u64) -> Vec<u8> {
    let mut key = vec![0; HEADER];
    let mut left = id << 1;
    while left >= 0x80 {
        key.push((left & 0x7F) as u8 | 0x80);
        left >>= 7;
    }
    key.push(left as u8);
    key
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
