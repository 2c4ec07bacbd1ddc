//! The keys that live in a topic: found by reading it, in bounded memory.
//!
//! [`live`] gives every key whose newest record, when it is called, is not a tombstone. It may give a key more than once,
//! and a dead one now and then, but it leaves no live one out:
//!
//! - Below the last stable offset a `read_committed` reader sees just what counts. From there on lie records of
//!   transactions that are still open, such as the one that asks; `read_uncommitted` shows them, and nobody can tell yet
//!   which of them will be aborted. So a tombstone there proves nothing, and every key there counts as live.
//! - Both ends are fixed before the first key is given. What is written meanwhile, as tombstones for these very keys are,
//!   is not read.
//! - Keys gather in a window, each with whether its newest record so far is a row; when the window is full, those that are
//!   rows are given, and it is emptied. The newest record of a live key falls into some window, as the last of that key,
//!   and is a row: the key is given when that window ends.
//!
//! [`older_than`] gives the live keys that have no record from given places on. Here one key too many would be a row lost:
//! so nobody may be writing to the topic, and it is waited until all that was written is known to be committed or not. The
//! keys from those places on are remembered by their hashes, drawn anew for each search: two keys in 2^64 that share one
//! leave a dead key alive, and never kill a live one. Where there are more than memory takes, the topic is read once more
//! for each share of the hashes.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Instant;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Connection, Context};
use super::error::KafkaFault;
use super::reader::{self, POLL, STALL_TIMEOUT, TopicConsumer, bounds, partitions, raise};

/// How much memory a window takes.
const WINDOW_BYTES: usize = 8 << 20;
/// What a key in a window takes beside its bytes.
const ENTRY_BYTES: usize = 64;
/// Keys are given in portions of about this size.
const PORTION_BYTES: usize = 64 << 10;
/// So many hashes of keys are remembered at a time: 128 MiB, where a topic has so many keys. The fewer, the more often it is
/// read.
const HASHES_MAX: usize = 16 << 20;
/// After so many records it is told how far the reading is.
const TELL_EVERY: u64 = 4096;

/// What [`live`] tells while it reads.
#[derive(Debug)]
pub enum Found {
    /// So many records have been read.
    Records(u64),
    /// These keys live.
    Keys(Vec<Box<[u8]>>),
}

/// Gives the keys that live in the topic now, until `tell` returns false. Blocks.
pub fn live(connection: &Connection, topic: &str, tell: &mut dyn FnMut(Found) -> bool) -> Result<(), KafkaFault> {
    let committed = consumer(connection, topic, "read_committed")?;
    let all = consumer(connection, topic, "read_uncommitted")?;
    let (mut stable, mut open) = (Vec::new(), Vec::new());
    for partition in partitions(&committed, topic)? {
        let (start, stable_end) = bounds(&committed, topic, partition)?;
        // Asked for last: it is the end of all that had arrived when this function was called, and of the stable part.
        let (_, end) = bounds(&all, topic, partition)?;
        stable.push(Range { partition, start, end: stable_end });
        open.push(Range { partition, start: stable_end, end });
    }
    let mut search = Search { window: Window::new(WINDOW_BYTES), records: 0, tell };
    let listens = read(&committed, topic, stable, |record| search.take(record, |_, is_row| Some(is_row)))?
        && read(&all, topic, open, |record| search.take(record, |_, _| Some(true)))?;
    if listens {
        search.end_window();
    }
    Ok(())
}

/// Gives the keys that live in the topic and have no record at or after `ends`, by partition, until `tell` returns false.
/// Nobody may be writing to the topic. Blocks.
pub fn older_than(
    connection: &Connection,
    topic: &str,
    ends: &[i64],
    tell: &mut dyn FnMut(Found) -> bool,
) -> Result<(), KafkaFault> {
    reader::wait_until_settled(connection, topic)?;
    let consumer = consumer(connection, topic, "read_committed")?;
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for partition in partitions(&consumer, topic)? {
        let (start, end) = bounds(&consumer, topic, partition)?;
        // A partition that was added since has nothing older.
        let between = usize::try_from(partition).ok().and_then(|at| ends.get(at)).copied().unwrap_or(start);
        let between = between.clamp(start, end);
        old.push(Range { partition, start, end: between });
        new.push(Range { partition, start: between, end });
    }
    let hasher = RandomState::new();
    let mut search = Search { window: Window::new(WINDOW_BYTES), records: 0, tell };
    let mut share = Some(Share::all());
    while let Some(mut now) = share {
        let hashed =
            |record: Option<(Option<&[u8]>, bool)>| record.and_then(|(key, _)| key).map(|key| hasher.hash_one(key));
        let listens = read(&consumer, topic, new.clone(), |record| {
            if let Some(hash) = hashed(record) {
                now.note(hash, HASHES_MAX);
            }
            search.take(record, |_, _| None)
        })?;
        now.settle();
        let is_older = |key: &[u8], is_row| now.is_missing(hasher.hash_one(key)).then_some(is_row);
        if !listens || !read(&consumer, topic, old.clone(), |record| search.take(record, is_older))? {
            return Ok(());
        }
        if !search.end_window() {
            return Ok(());
        }
        share = now.next();
    }
    Ok(())
}

/// The hashes of the keys that were seen, of a share of all hashes.
struct Share {
    from: u64,
    to: u64,
    /// In order once it is settled: a third of what a set of them takes.
    seen: Vec<u64>,
}

impl Share {
    fn all() -> Self {
        Self { from: 0, to: u64::MAX, seen: Vec::new() }
    }

    /// Notes a hash. Where there are too many, the share becomes smaller, until half of the room is free.
    fn note(&mut self, hash: u64, max: usize) {
        if !(self.from..=self.to).contains(&hash) {
            return;
        }
        self.seen.push(hash);
        if self.seen.len() < max {
            return;
        }
        self.settle();
        while self.seen.len() > max / 2 && self.from < self.to {
            self.to = self.from + (self.to - self.from) / 2;
            let kept = self.seen.partition_point(|hash| *hash <= self.to);
            self.seen.truncate(kept);
        }
    }

    /// Puts them in order, each once.
    fn settle(&mut self) {
        self.seen.sort_unstable();
        self.seen.dedup();
    }

    /// Whether it is of this share, and was not seen. The share is settled.
    fn is_missing(&self, hash: u64) -> bool {
        (self.from..=self.to).contains(&hash) && self.seen.binary_search(&hash).is_err()
    }

    /// The share that follows.
    fn next(self) -> Option<Self> {
        let from = self.to.checked_add(1)?;
        Some(Self { from, to: u64::MAX, seen: Vec::new() })
    }
}

fn consumer(connection: &Connection, topic: &str, isolation: &str) -> Result<TopicConsumer, KafkaFault> {
    let mut config = reader::config(connection, isolation);
    // A partition's beginning may move on while it is read; nothing may be left out for that.
    config.set("auto.offset.reset", "earliest");
    // One answer of a broker, as it comes, compressed: of one partition, and of all.
    config.set("fetch.message.max.bytes", "262144");
    config.set("fetch.max.bytes", "2097152");
    reader::make(config, topic)
}

/// The records of a partition from `start` on and before `end`.
#[derive(Clone)]
struct Range {
    partition: i32,
    start: i64,
    end: i64,
}

/// Gives the records of the ranges, each with its key and whether it is a row, and now and then `None` where nothing
/// comes. False if `each` has returned false: nobody listens any more.
fn read(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    mut unfinished: Vec<Range>,
    mut each: impl FnMut(Option<(Option<&[u8]>, bool)>) -> bool,
) -> Result<bool, KafkaFault> {
    let doing = || format!("reading topic {topic:?} for its keys");
    unfinished.retain(|range| range.start < range.end);
    let mut assignment = TopicPartitionList::new();
    for range in &unfinished {
        let added = assignment.add_partition_offset(topic, range.partition, Offset::Offset(range.start));
        added.map_err(KafkaFault::call(doing()))?;
    }
    consumer.assign(&assignment).map_err(KafkaFault::call(doing()))?;
    let mut moved = Instant::now();
    while !unfinished.is_empty() {
        match consumer.poll(POLL) {
            None if moved.elapsed() > STALL_TIMEOUT => {
                let last = consumer.context().last_error.in_words();
                return Err(KafkaFault::Stalled { doing: doing(), seconds: STALL_TIMEOUT.as_secs(), last });
            }
            None => {
                if !each(None) {
                    return Ok(false);
                }
            }
            Some(Ok(message)) => {
                let (partition, offset) = (message.partition(), message.offset());
                let Some(at) = unfinished.iter().position(|range| range.partition == partition) else { continue };
                let end = unfinished[at].end;
                if offset + 1 >= end {
                    unfinished.swap_remove(at);
                }
                if offset < end && !each(Some((message.key(), message.payload().is_some()))) {
                    return Ok(false);
                }
                // Only now: whoever listens may have taken its time.
                moved = Instant::now();
            }
            // The last places before the end may hold no record, but the mark of a transaction's end.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                unfinished.retain(|range| range.partition != partition);
            }
            Some(Err(error)) => raise(topic, error)?,
        }
    }
    // It would go on fetching what nobody asks for.
    consumer.unassign().map_err(KafkaFault::call(doing()))?;
    Ok(true)
}

struct Search<T> {
    window: Window,
    records: u64,
    tell: T,
}

impl<T: FnMut(Found) -> bool> Search<T> {
    /// Takes a record, or the news that none came. `lives` says whether a key does by its newest record, given whether that
    /// is a row; `None`: it doesn't count.
    fn take(&mut self, record: Option<(Option<&[u8]>, bool)>, lives: impl FnOnce(&[u8], bool) -> Option<bool>) -> bool {
        match record {
            None => (self.tell)(Found::Records(self.records)),
            Some((key, is_row)) => self.note(key.and_then(|key| Some((key, lives(key, is_row)?)))),
        }
    }

    fn note(&mut self, key: Option<(&[u8], bool)>) -> bool {
        self.records += 1;
        if let Some((key, lives)) = key {
            self.window.note(key, lives);
        }
        if self.window.is_full() && !self.end_window() {
            return false;
        }
        !self.records.is_multiple_of(TELL_EVERY) || (self.tell)(Found::Records(self.records))
    }

    /// Gives the window's live keys, and empties it; false if nobody listens any more.
    fn end_window(&mut self) -> bool {
        let (mut portion, mut bytes) = (Vec::new(), 0);
        for key in self.window.take_live() {
            bytes += key.len() + ENTRY_BYTES;
            portion.push(key);
            if bytes >= PORTION_BYTES {
                bytes = 0;
                if !(self.tell)(Found::Keys(std::mem::take(&mut portion))) {
                    return false;
                }
            }
        }
        portion.is_empty() || (self.tell)(Found::Keys(portion))
    }
}

/// Keys, each with whether it lives by its newest record so far.
struct Window {
    keys: HashMap<Box<[u8]>, bool>,
    bytes: usize,
    max_bytes: usize,
}

impl Window {
    fn new(max_bytes: usize) -> Self {
        Self { keys: HashMap::new(), bytes: 0, max_bytes }
    }

    fn note(&mut self, key: &[u8], lives: bool) {
        if let Some(known) = self.keys.get_mut(key) {
            *known = lives;
        } else {
            self.keys.insert(key.into(), lives);
            self.bytes += key.len() + ENTRY_BYTES;
        }
    }

    fn is_full(&self) -> bool {
        self.bytes >= self.max_bytes
    }

    fn take_live(&mut self) -> impl Iterator<Item = Box<[u8]>> {
        self.bytes = 0;
        self.keys.drain().filter_map(|(key, lives)| lives.then_some(key))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The keys that a search in windows of so many keys gives for these records, and in how many portions.
    fn found(records: &[(u8, bool)], window_keys: usize) -> (Vec<u8>, usize) {
        let (mut keys, mut portions) = (Vec::new(), 0);
        let mut search = Search {
            window: Window::new(window_keys * (1 + ENTRY_BYTES)),
            records: 0,
            tell: |found| {
                if let Found::Keys(portion) = found {
                    keys.extend(portion.iter().map(|key| key[0]));
                    portions += 1;
                }
                true
            },
        };
        for (key, lives) in records {
            assert!(search.note(Some((&[*key], *lives))));
        }
        assert!(search.end_window());
        (keys, portions)
    }

    #[test]
    fn a_key_is_given_once_a_window_and_not_at_all_if_its_newest_record_is_a_tombstone() {
        assert_eq!(found(&[(1, true), (1, true), (2, true), (2, false), (3, false)], 10).0, [1]);
        assert_eq!(found(&[(1, true), (1, false), (1, true)], 10).0, [1]);
    }

    #[test]
    fn many_keys_come_in_portions() {
        let records: Vec<_> = (0..=255).map(|key| (key, true)).collect();
        assert_eq!(found(&records, 1_000).1, 1);
        assert_eq!(found(&records, 16).1, 16);
    }

    #[test]
    fn a_search_that_nobody_listens_to_ends() {
        let mut search = Search { window: Window::new(1), records: 0, tell: |_| false };
        assert!(!search.note(Some((b"k", true))));
    }

    #[test]
    fn shares_of_the_hashes_are_as_large_as_memory_takes_and_leave_none_out() {
        let hashes: Vec<u64> = (0..1000).map(|_| fastrand::u64(..)).chain([0, u64::MAX]).collect();
        let (mut share, mut shares, mut missing) = (Some(Share::all()), 0, 0);
        while let Some(mut now) = share {
            shares += 1;
            // Twice, as a key that was written twice.
            hashes[..500].iter().chain(&hashes[..500]).for_each(|hash| now.note(*hash, 100));
            assert!(now.seen.len() <= 100);
            now.settle();
            missing += hashes[500..].iter().filter(|hash| now.is_missing(**hash)).count();
            assert!(hashes[..500].iter().all(|hash| !now.is_missing(*hash)));
            share = now.next();
        }
        assert!((5..=40).contains(&shares), "{shares}");
        assert_eq!(missing, 502);
    }

    proptest! {
        #[test]
        fn every_live_key_is_given_whatever_the_window(
            records in prop::collection::vec((0..20_u8, any::<bool>()), 0..200),
            window_keys in 1..30_usize,
        ) {
            let newest: HashMap<u8, bool> = records.iter().copied().collect();
            let live: BTreeSet<u8> = newest.iter().filter(|(_, lives)| **lives).map(|(key, _)| *key).collect();
            let given: BTreeSet<u8> = found(&records, window_keys).0.into_iter().collect();
            prop_assert!(given.is_superset(&live), "{given:?} lacks some of {live:?}");
            if window_keys > 20 {
                prop_assert_eq!(given, live);
            }
        }
    }
}
