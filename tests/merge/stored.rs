//! How far a connector says that it is, by what it stores in Kafka.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::support::topic::consumer;

const POSITIONS: &str = "_tablecast_positions";
const POLL: Duration = Duration::from_millis(20);

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

    /// Whether all rows of these tables of `public` are in, and no backfill is under way.
    pub fn is_done(&mut self, tables: &[&str]) -> bool {
        self.read();
        let Some(last) = &self.last else { return false };
        let is_done = |table: &&str| last["tables"][format!("public.{table}")]["snapshot"] == "done";
        tables.iter().all(is_done) && last["backfills"].is_null()
    }

    /// A table of which a part has been read, be it once more, as far as is known.
    pub fn half_read(&self, tables: &[&str]) -> Option<usize> {
        let last = self.last.as_ref()?;
        let is_begun = |reading: &serde_json::Value| reading["heaps"].as_array().is_some_and(|heaps| !heaps.is_empty());
        let mut backfills = last["backfills"].as_object().into_iter().flat_map(|backfills| backfills.values());
        let again = backfills.find(|backfill| is_begun(&backfill["state"]["reading"]));
        tables.iter().position(|table| {
            let name = format!("public.{table}");
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
