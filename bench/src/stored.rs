//! The stored position, as docs/delivery.md describes it: what the daemon has committed of a table's first rows.
//!
//! It is written in the same Kafka transaction as the rows, so a consumer of committed records sees both at once. And
//! unlike `/status`, it is there while no daemon is.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::Offset;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use serde_json::Value;

use crate::daemon::{Connector, Daemon};
use crate::services::Services;
use crate::topic;

const TOPIC: &str = "_tablecast_positions";
/// A look waits so long for news, then the daemon is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How often the daemon is asked whether it has failed: seldom, since its CPU is measured.
const ASK: Duration = Duration::from_secs(1);

/// How far the first rows of some tables are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// So many are committed; of a table that is done they aren't told any more.
    pub rows: u64,
    pub done: bool,
}

/// Follows the stored position of one connector, as to some tables.
pub struct Stored {
    consumer: BaseConsumer,
    connector: Connector,
    tables: Vec<String>,
    seen: Progress,
}

impl Stored {
    /// Begins to follow; waits for the topic, which the first daemon makes.
    pub fn follow(services: &Services, connector: &Connector, tables: &[&str]) -> Result<Self> {
        topic::wait_for_topic(services, TOPIC)?;
        let consumer = topic::consumer(services, TOPIC, Offset::Beginning, &topic::FAST)?;
        let tables = tables.iter().map(|table| format!("public.{table}")).collect();
        Ok(Self { consumer, connector: connector.clone(), tables, seen: Progress::default() })
    }

    /// What is stored now, as far as it has come here within a moment.
    pub fn look(&mut self) -> Result<Progress> {
        match self.consumer.poll(LOOK) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(message) => {
                let message = message?;
                if message.key() == Some(self.connector.name.as_bytes()) {
                    let value = message.payload().context("the stored position was deleted")?;
                    self.seen = progress(&serde_json::from_slice(value)?, &self.tables);
                }
            }
        }
        Ok(self.seen)
    }

    /// What is stored once nobody writes any more.
    pub fn settled(&mut self) -> Result<Progress> {
        let mut before = self.look()?;
        loop {
            let now = self.look()?;
            if now == before {
                return Ok(now);
            }
            before = now;
        }
    }

    /// Waits until it is so, while the daemon works.
    pub fn wait(&mut self, daemon: &mut Daemon, limit: Instant, is_so: impl Fn(Progress) -> bool) -> Result<Progress> {
        let mut asked = Instant::now();
        loop {
            let progress = self.look()?;
            if is_so(progress) {
                return Ok(progress);
            }
            ensure!(!daemon.process.has_ended(), "the daemon has ended:\n{}", daemon.log_tail());
            let now = Instant::now();
            ensure!(now < limit, "{progress:?}, and no more came in time:\n{}", daemon.log_tail());
            if now - asked > ASK {
                asked = now;
                // It tells whether the connector has failed.
                daemon.status(&self.connector)?;
            }
        }
    }
}

/// What the position's record says of the tables together.
fn progress(stored: &Value, tables: &[String]) -> Progress {
    let snapshots = tables.iter().map(|table| &stored["tables"][table]["snapshot"]);
    Progress {
        rows: snapshots.clone().map(|snapshot| snapshot["reading"]["rows"].as_u64().unwrap_or(0)).sum(),
        done: snapshots.clone().all(|snapshot| snapshot == "done"),
    }
}
