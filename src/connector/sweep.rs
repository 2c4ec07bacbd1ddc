//! The sweep: after a table was read again, what is older in its topic than that reading gets tombstones.
//!
//! Rows may have left the table, or have got other keys, and no change says which: a partition was detached, the key was
//! changed, the table was created anew. When the reading begins, the ends of the topic's partitions are taken, and stored
//! with it ([`renewal`](super::renewal)). When it is done, every key that has no record from there on gets a tombstone,
//! between two source transactions. It is right because
//!
//! - **no live row is swept**: a row that the table has was either written by the stream since the reading began, or lies
//!   where it lay then; and all that lay there was read and written by a chunk, or left out for what the stream wrote
//!   (`snapshot/mod.rs`). So there is a record of its key from those ends on;
//! - **no dead one is left**: what is written from those ends on are rows that were in the table, under keys that it has
//!   (the reading begins only when the stream has brought all of before: [`watch`](super::watch)), and a row that went
//!   since has its tombstone from the stream. What is left are the keys without such a record: those of rows that are gone.
//!   A record that was left out, for a value that could not be looked up or for want of a key, breaks this: then there is no sweep after this
//!   reading, but after the one that follows from it, which goes on with it ([`renewal`](super::renewal));
//! - all that was handed to Kafka has arrived and is committed before the topic is read, so nothing of it is missed.
//!
//! No consumer sees the table empty meanwhile: new rows come first, old keys go last. A crash amid the tombstones has all
//! of them written again, which harms nobody.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::assembler::Truncated;
use super::fault::Fault;
use super::intake::Intake;
use super::truncate::Reading;
use crate::kafka::positions::{Change, SnapshotProgress};
use crate::kafka::{TopicId, keys};

impl Intake {
    /// Sweeps the topic of a table whose reading is done.
    pub(super) fn sweep(&mut self, topic: TopicId) -> Result<(), Fault> {
        let table = self.desk.table(topic).sql_name.clone();
        let Some(ends) = self.state.sweep_of(&table) else { return Ok(()) };
        if !self.batch.is_empty() {
            self.hand_over()?;
        }
        self.settle()?;
        let shape = self.state.shape(&table);
        if shape.is_some_and(|shape| shape.announced.iter().any(|announced| announced.skipped)) {
            let connector = self.state.snapshot().connector;
            tracing::info!(connector, table, "records were left out: the sweep waits for the reading that follows");
            return Ok(());
        }
        let name = Arc::clone(&self.batch.topics[topic.0 as usize]);
        let connector = self.state.snapshot().connector;
        tracing::info!(connector, table, topic = %name, "the table is read; what is older goes");
        let began = Instant::now();
        let reading = Reading::start(self.sink.connection().clone(), name, move |connection, topic, tell| {
            keys::older_than(connection, topic, &ends, tell)
        })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let swept = Truncated { table: table.clone(), topic, timestamp };
        let tombstones = self.bury(&swept, &reading)?;
        self.batch.changes.push(Change::Snapshot { table: table.clone(), progress: SnapshotProgress::Done });
        self.hand_over()?;
        tracing::info!(connector, table, tombstones, took = ?began.elapsed(), "the topic is swept");
        Ok(())
    }
}
