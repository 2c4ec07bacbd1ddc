//! The batch: encoded records on their way to Kafka, in one reused buffer.
//!
//! Keys and values lie one after the other in `bytes`; a [`Record`] holds their lengths. A batch ends at a
//! [`Position`], and says whether that position lies between two source transactions: only there may a Kafka
//! transaction end. Buffers travel in a circle (encoder → sink → encoder), so that a record costs no allocation.
//!
//! A record whose value isn't known yet has its place and its key in the batch (`pending`). The sink takes no batch that
//! holds one.

mod pending;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use pending::{Kept, Pending, Provenance, RelationVersion, Rest, Waiting};

use pending::Pendings;

use super::positions::Change;
use crate::avro::{EncodeError, Encoder};
use crate::pgoutput::Cell;
use crate::position::Position;

/// The topics of a connector; a [`TopicId`] is a place in it.
pub type TopicNames = Arc<Vec<Arc<str>>>;

/// Which topic a record goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u32);

/// Where a batch goes back to once it is written, where that isn't the encoder of the stream.
pub trait Home: Send + Sync + std::fmt::Debug {
    /// Takes the batch back, emptied.
    fn take_back(&self, batch: Batch);
}

/// The topic of a record that was dropped from its batch.
const NO_TOPIC: TopicId = TopicId(u32::MAX);
/// A record weighs so many bytes at least: its entry here and librdkafka's message take more than that, and the key of a
/// tombstone may take ten.
const RECORD_BYTES_MIN: usize = 100;
/// The value's length that stands for a tombstone.
const TOMBSTONE: u32 = u32::MAX;
/// The value's length that stands for one that is still to be looked up.
const PENDING: u32 = u32::MAX - 1;

/// One record, its bytes in the batch's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    topic: TopicId,
    key_bytes: u32,
    value_bytes: u32,
    timestamp: i64,
}

/// A record as the sink sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it goes.
    pub topic: TopicId,
    /// The encoded key.
    pub key: &'a [u8],
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Commit time of the source transaction, in milliseconds since 1970-01-01 UTC.
    pub timestamp: i64,
}

/// Encoded records of consecutive source changes, and the position that follows them.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// How many of them were dropped.
    dropped: usize,
    /// Those that lack a value.
    pendings: Pendings,
    /// The names that the records' [`TopicId`]s stand for.
    pub topics: TopicNames,
    /// All before it is in once this batch and those before it are.
    pub end: Position,
    /// Whether `end` lies between two source transactions: a Kafka transaction may end here.
    pub at_boundary: bool,
    /// Commit time of the last whole source transaction, in milliseconds since 1970-01-01 UTC.
    pub commit_time: Option<i64>,
    /// Source transactions that end in this batch.
    pub transactions: u64,
    /// What of the stored position changes besides, once the records are in.
    pub changes: Vec<Change>,
    /// Where it goes once it is written; `None`: back to the encoder of the stream.
    pub home: Option<Arc<dyn Home>>,
}

impl Batch {
    /// Empties the batch and keeps its buffers, unless one large value has blown them up.
    pub fn clear(&mut self, keep_bytes: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(keep_bytes);
        self.entries.clear();
        self.dropped = 0;
        self.pendings.clear();
        self.end = Position::default();
        self.at_boundary = false;
        self.commit_time = None;
        self.transactions = 0;
        self.changes.clear();
        self.home = None;
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.entries.len() - self.dropped
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes of keys and values it holds.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// How much it counts against the bounds on memory, in bytes.
    pub fn weight(&self) -> usize {
        self.bytes.len().max(self.entries.len() * RECORD_BYTES_MIN) + self.pendings.weight()
    }

    /// Begins a record: encode the key into it, then its value, or a tombstone, ends it. A writer that is dropped before
    /// that leaves no trace.
    pub fn record(&mut self, topic: TopicId, timestamp: i64) -> RecordWriter<'_> {
        let start = self.bytes.len();
        RecordWriter { batch: self, topic, timestamp, start, done: false }
    }

    /// Appends a row; on an error nothing is appended.
    ///
    /// # Errors
    ///
    /// If its key or its value can't be encoded.
    #[inline]
    pub fn row<'a>(
        &mut self,
        topic: TopicId,
        timestamp: i64,
        encoder: &Encoder,
        cells: impl Iterator<Item = Cell<'a>> + Clone,
    ) -> Result<(), EncodeError> {
        let mut writer = self.record(topic, timestamp);
        encoder.encode_key(cells.clone(), writer.bytes())?;
        writer.value(|bytes| encoder.encode_value(cells, bytes))
    }

    /// Appends a tombstone for a key that is already encoded.
    pub fn tombstone(&mut self, topic: TopicId, timestamp: i64, key: &[u8]) {
        let mut writer = self.record(topic, timestamp);
        writer.bytes().extend_from_slice(key);
        writer.tombstone();
    }

    /// The records in order. One that lacks a value shows an empty one.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.records_since(Mark::default())
    }

    /// The records that came after `mark`, in order.
    pub fn records_since(&self, mark: Mark) -> impl Iterator<Item = Record<'_>> {
        let mut rest = &self.bytes[mark.bytes..];
        let all = self.entries[mark.entries..].iter().map(move |entry| {
            let (key, after_key) = rest.split_at(entry.key_bytes as usize);
            let (value, after_value) = after_key.split_at(entry.value_len());
            rest = after_value;
            let value = (entry.value_bytes != TOMBSTONE).then_some(value);
            Record { topic: entry.topic, key, value, timestamp: entry.timestamp }
        });
        all.filter(|record| record.topic != NO_TOPIC)
    }

    /// Drops the records whose key is one of these; tells how many those were.
    pub fn drop_records(&mut self, is_dropped: impl Fn(&[u8]) -> bool) -> usize {
        let mut start = 0;
        let mut dropped = 0;
        for entry in &mut self.entries {
            let key = start..start + entry.key_bytes as usize;
            start = key.end + entry.value_len();
            if entry.topic != NO_TOPIC && is_dropped(&self.bytes[key]) {
                entry.topic = NO_TOPIC;
                dropped += 1;
            }
        }
        self.dropped += dropped;
        dropped
    }

    /// Where the records end now; [`truncate`](Self::truncate) comes back to it.
    pub fn mark(&self) -> Mark {
        Mark { bytes: self.bytes.len(), entries: self.entries.len() }
    }

    /// Moves the records that came after `mark` to the end of `rest`.
    pub fn move_after(&mut self, mark: Mark, rest: &mut Batch) {
        self.pendings.copy_after(mark.entries, &mut rest.pendings, rest.entries.len());
        rest.bytes.extend_from_slice(&self.bytes[mark.bytes..]);
        rest.entries.extend_from_slice(&self.entries[mark.entries..]);
        self.truncate(mark);
    }

    /// Drops the records that came after `mark`.
    pub fn truncate(&mut self, mark: Mark) {
        self.pendings.truncate(mark.entries);
        self.bytes.truncate(mark.bytes);
        self.entries.truncate(mark.entries);
    }
}

/// A place between two records of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    bytes: usize,
    entries: usize,
}

/// A record that is being written: first its key, then its value or none.
pub struct RecordWriter<'a> {
    batch: &'a mut Batch,
    topic: TopicId,
    timestamp: i64,
    start: usize,
    done: bool,
}

impl RecordWriter<'_> {
    /// Where the key's bytes are to be appended.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.batch.bytes
    }

    /// What of the key has been written.
    pub fn key(&self) -> &[u8] {
        &self.batch.bytes[self.start..]
    }

    /// Ends the record as a tombstone.
    pub fn tombstone(mut self) {
        let key_bytes = self.written();
        self.push(key_bytes, TOMBSTONE);
    }

    /// Ends the record as one whose value is still to be looked up.
    fn pending(mut self) {
        let key_bytes = self.written();
        self.push(key_bytes, PENDING);
    }

    /// Ends the key, lets `encode` append the value, and ends the record.
    pub fn value<E>(mut self, encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let key_bytes = self.written();
        encode(&mut self.batch.bytes)?;
        let value_bytes = self.written() - key_bytes;
        self.push(key_bytes, value_bytes);
        Ok(())
    }

    // Postgres bounds a row to 1.6 TB in theory, but a message of the replication protocol to 1 GB.
    fn written(&self) -> u32 {
        (self.batch.bytes.len() - self.start) as u32
    }

    fn push(&mut self, key_bytes: u32, value_bytes: u32) {
        self.batch.entries.push(Entry { topic: self.topic, key_bytes, value_bytes, timestamp: self.timestamp });
        self.done = true;
    }
}

impl Drop for RecordWriter<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.batch.bytes.truncate(self.start);
        }
    }
}
