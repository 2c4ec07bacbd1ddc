//! What is in Kafka, as an independent `read_committed` consumer sees it: the topics, and how far the connector says
//! that it is.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::decode::Decoder;
use super::history::{Histories, Rows, Seen};
use super::support::connector::variable;
use super::support::topic::{consumer, read_raw};
use super::tables::Table;

const POSITIONS: &str = "_tablecast_positions";
const POLL: Duration = Duration::from_millis(20);

/// A topic from its beginning to its end.
pub struct Topic {
    pub histories: Histories,
    /// The last value of each key.
    pub folded: Rows,
    pub records: usize,
}

/// Reads a topic whose values have these columns.
pub fn read(topic: &str, columns: &[&str]) -> Topic {
    let mut decoder = Decoder::new(variable("TABLECAST_REGISTRY"));
    let mut read = Topic { histories: Histories::new(), folded: Rows::new(), records: 0 };
    read_raw(topic, |message| {
        let key = decoder.decode(message.key().expect("a record has a key"));
        let key: Vec<_> = key.into_iter().map(|(_, text)| text.expect("no column of a key is null")).collect();
        let key = key.join("/");
        let mut version = None;
        match message.payload().map(|payload| decoder.decode(payload)) {
            None => drop(read.folded.remove(&key)),
            Some(value) => {
                let names: Vec<_> = value.iter().map(|(name, _)| name.as_str()).collect();
                assert_eq!(names, columns, "the fields of a value in {topic}");
                version =
                    value.iter().find(|(name, _)| name == "version").and_then(|(_, text)| text.as_ref()?.parse().ok());
                assert!(version.is_some(), "a value has a version: {value:?}");
                read.folded.insert(key.clone(), value.into_iter().map(|(_, text)| text).collect());
            }
        }
        let seen = Seen { partition: message.partition(), offset: message.offset(), version };
        read.histories.entry(key).or_default().push(seen);
        read.records += 1;
    });
    read
}

/// Follows what a connector stores of how far it is.
pub struct Stored {
    consumer: BaseConsumer,
    connector: String,
    last: Option<serde_json::Value>,
}

impl Stored {
    /// Of a connector that has stored nothing yet. The topic has to be there.
    pub fn of(connector: &str, from: i64) -> Self {
        let consumer = consumer("read_committed");
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(POSITIONS, 0, Offset::Offset(from)).unwrap();
        consumer.assign(&assignment).unwrap();
        Self { consumer, connector: connector.to_owned(), last: None }
    }

    /// Whether all first rows of so many tables are in, and no backfill is under way.
    pub fn is_done(&mut self, tables: usize) -> bool {
        self.read();
        let Some(last) = &self.last else { return false };
        let is_done = |table: &serde_json::Value| table["snapshot"] == "done";
        let stored = last["tables"].as_object().unwrap();
        stored.len() == tables && stored.values().all(is_done) && last["backfills"].is_null()
    }

    /// A table of which a part has been read, be it once more, as far as is known.
    pub fn half_read(&self, tables: &[Table]) -> Option<usize> {
        let last = self.last.as_ref()?;
        let is_begun = |reading: &serde_json::Value| reading["heaps"].as_array().is_some_and(|heaps| !heaps.is_empty());
        let mut backfills = last["backfills"].as_object().into_iter().flat_map(|backfills| backfills.values());
        let again = backfills.find(|backfill| is_begun(&backfill["state"]["reading"]));
        tables.iter().position(|table| {
            let name = format!("public.{}", table.name);
            let is_again = again.is_some_and(|backfill| backfill["table"] == name);
            is_again || is_begun(&last["tables"][&name]["snapshot"]["reading"])
        })
    }

    pub fn last(&self) -> String {
        self.last.as_ref().map_or("nothing".to_owned(), |last| last.to_string())
    }

    fn read(&mut self) {
        loop {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) if message.key() == Some(self.connector.as_bytes()) => {
                    self.last = message.payload().map(|payload| serde_json::from_slice(payload).unwrap());
                }
                Some(Ok(_)) => {}
                // The end is told only once.
                Some(Err(KafkaError::PartitionEOF(_))) | None => return,
                Some(Err(error)) => panic!("{error}"),
            }
        }
    }
}

/// Where the stored positions end; 0 if there are none yet.
pub fn end_of_positions() -> i64 {
    let ends = consumer("read_committed").fetch_watermarks(POSITIONS, 0, Duration::from_secs(2));
    ends.map_or(0, |(_, end)| end)
}

/// Leaves nothing behind: a broker with thousands of topics is slow.
pub async fn delete(topics: &[String]) {
    use rdkafka::admin::{AdminClient, AdminOptions};
    use rdkafka::client::DefaultClientContext;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", variable("TABLECAST_KAFKA")).create().unwrap();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    admin.delete_topics(&names, &AdminOptions::new()).await.unwrap();
}
