//! The open Kafka transaction: what it holds, when it is due, and whether it has stated its position.
//!
//! Pure: the clock is an argument.

use std::time::{Duration, Instant};

use super::batch::Batch;
use super::positions::Change;
use super::sink::Committed;
use crate::position::Position;

/// How long a small Kafka transaction takes what comes, although it could be committed. librdkafka waits 1 ms after the
/// first record before it asks the broker to add the partitions; until the answer is there it sends none, so what comes
/// before it asks is as soon there as if it had come first.
const TAKES_MORE: Duration = Duration::from_micros(800);
/// Small is one that begins with so few bytes. With more of them, handing them over takes that time by itself.
const SMALL: usize = 64 << 10;

/// When a Kafka transaction ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// At the next boundary once it holds so many bytes.
    pub(super) bytes: u64,
    /// At the next boundary once it is so old.
    pub(super) age: Duration,
    /// Within a source transaction, once it is so old.
    pub(super) split_after: Duration,
}

/// What was handed to librdkafka and is not yet committed.
#[derive(Debug)]
pub(super) struct Open {
    since: Instant,
    /// How long after the commit before its first record was sent, if there was one.
    pub(super) begun_after: Option<Duration>,
    /// Until then it waits for more, if nothing more is there.
    takes_until: Instant,
    /// The position that it states already, with its time.
    stated: Option<(Position, Option<i64>)>,
    pub(super) end: Position,
    pub(super) at_boundary: bool,
    pub(super) commit_time: Option<i64>,
    pub(super) changes: Vec<Change>,
    pub(super) held: Committed,
    /// It holds rows of the stream.
    streamed: bool,
    /// It holds a chunk of a table.
    read: bool,
}

impl Open {
    /// One that was begun at `since`, and whose first record is sent at `now`.
    pub(super) fn new(since: Instant, now: Instant, begun_after: Option<Duration>) -> Self {
        Self {
            since,
            begun_after,
            takes_until: now,
            stated: None,
            end: Position::default(),
            at_boundary: false,
            commit_time: None,
            changes: Vec::new(),
            held: Committed::default(),
            streamed: false,
            read: false,
        }
    }

    /// Whether to state the position of the transaction's first batch before its rows, so that the partition of the one is
    /// added together with those of the others. Only where the batch is small and could be the last, too: from then on the
    /// positions topic has an open transaction, which other connectors' starts have to wait for.
    pub(super) fn is_to_be_stated_first(batch: &Batch) -> bool {
        batch.at_boundary && batch.byte_len() <= SMALL && batch.changes.is_empty()
    }

    /// The position of the first batch is stated.
    pub(super) fn stated(&mut self, batch: &Batch) {
        self.stated = Some((batch.end, batch.commit_time));
        self.takes_until += TAKES_MORE;
    }

    /// Whether the position that is true at its end is still to be stated. What is stored beside it is stated with it.
    pub(super) fn lacks_position(&self) -> bool {
        !self.changes.is_empty() || self.stated != Some((self.end, self.commit_time))
    }

    /// Whether it takes this batch, too. One that has stated a position isn't held open by a large source transaction.
    pub(super) fn takes(&self, batch: &Batch) -> bool {
        batch.at_boundary || !self.at_boundary || self.stated.is_none()
    }

    /// The batch's records have been handed over: takes what else it holds.
    pub(super) fn add(&mut self, batch: &mut Batch) {
        self.end = batch.end;
        self.at_boundary = batch.at_boundary;
        self.commit_time = batch.commit_time.or(self.commit_time);
        self.held.records += batch.len() as u64;
        self.held.bytes += batch.byte_len() as u64;
        self.held.transactions += batch.transactions;
        self.changes.append(&mut batch.changes);
        self.streamed |= batch.home.is_none() && !batch.is_empty();
        self.read |= batch.home.is_some();
    }

    /// How long it may be waited for more before it is due, if that is all that it waits for.
    pub(super) fn takes_for(&self, now: Instant) -> Option<Duration> {
        self.at_boundary.then(|| self.takes_until.saturating_duration_since(now))
    }

    /// Whether to commit now; `more` says whether other batches may be waiting.
    pub(super) fn is_due(&self, more: bool, now: Instant, limits: &Limits) -> bool {
        let age = now.saturating_duration_since(self.since);
        if !self.at_boundary {
            return age >= limits.split_after;
        }
        let is_full = self.held.bytes >= limits.bytes || age >= limits.age;
        // Rows of the stream don't wait for one chunk after the other.
        is_full || (self.streamed && self.read) || (!more && now >= self.takes_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;

    const LIMITS: Limits =
        Limits { bytes: 1 << 20, age: Duration::from_millis(100), split_after: Duration::from_secs(200) };

    fn batch(end: u64, at_boundary: bool) -> Batch {
        let mut batch = Batch::default();
        (batch.end, batch.at_boundary, batch.commit_time) = (Position::between(Lsn(end)), at_boundary, Some(7));
        batch
    }

    fn open_with(mut first: Batch, now: Instant) -> Open {
        let mut open = Open::new(now, now, None);
        if Open::is_to_be_stated_first(&first) {
            open.stated(&first);
        }
        open.add(&mut first);
        open
    }

    #[test]
    fn a_position_that_was_stated_first_is_stated_again_if_more_came() {
        let mut open = open_with(batch(10, true), Instant::now());
        assert!(!open.lacks_position());
        open.add(&mut batch(20, true));
        assert!(open.lacks_position());

        let mut open = open_with(batch(10, true), Instant::now());
        let mut later = batch(10, true);
        later.commit_time = Some(8);
        open.add(&mut later);
        assert!(open.lacks_position(), "the same place, and a later time");
    }

    #[test]
    fn what_is_stored_beside_the_position_is_stated_at_the_end() {
        let forgotten = Change::Backfill { id: 1, progress: None };
        let mut with_changes = batch(10, true);
        with_changes.changes.push(forgotten.clone());
        assert!(open_with(with_changes, Instant::now()).lacks_position());

        let mut open = open_with(batch(10, true), Instant::now());
        open.changes.push(forgotten);
        assert!(open.lacks_position());
    }

    #[test]
    fn within_a_source_transaction_nothing_is_stated_first_and_one_that_was_is_not_held_open() {
        let open = open_with(batch(10, false), Instant::now());
        assert!(open.lacks_position());
        assert!(open.takes(&batch(20, false)) && open.takes(&batch(20, true)));

        let open = open_with(batch(10, true), Instant::now());
        assert!(open.takes(&batch(20, true)));
        assert!(!open.takes(&batch(20, false)));
    }

    #[test]
    fn a_small_transaction_takes_more_for_a_moment_and_one_that_stated_nothing_does_not() {
        let now = Instant::now();
        let open = open_with(batch(10, true), now);
        assert_eq!(open.takes_for(now), Some(TAKES_MORE));
        assert!(!open.is_due(false, now, &LIMITS));
        assert!(open.is_due(false, now + TAKES_MORE, &LIMITS));
        assert!(!open.is_due(true, now + TAKES_MORE, &LIMITS));
        assert!(open.is_due(true, now + LIMITS.age, &LIMITS));

        let mut unstated = Open::new(now, now, None);
        unstated.add(&mut batch(10, true));
        assert!(unstated.is_due(false, now, &LIMITS));
    }

    #[test]
    fn within_a_source_transaction_it_is_due_only_when_it_has_to_be_split() {
        let now = Instant::now();
        let open = open_with(batch(10, false), now);
        assert_eq!(open.takes_for(now), None);
        assert!(!open.is_due(false, now + LIMITS.age, &LIMITS));
        assert!(open.is_due(false, now + LIMITS.split_after, &LIMITS));
    }
}
