//! The desk: where the readers of tables and the stream meet.
//!
//! Readers take stretches of tables from it, with an open window and an empty batch, and hand in chunks. The stream
//! tells it of what it writes, and takes the chunks that may be merged at its position. One lock guards all of it;
//! whoever holds it does no I/O.
//!
//! What is in memory is bounded by the batches that exist: a reader without an empty one waits, and that is how
//! back-pressure reaches COPY. At most [`IN_SINK_MAX`] of them are with the sink, so that the stream's own rows don't
//! queue behind them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::error::SnapshotError;
use super::windows::{Closed, Verdict, WindowId, Windows};
use super::work::{HeapFacts, Job, ReadingId, Work};
use crate::kafka::positions::{BackfillProgress, BackfillState, Change, SnapshotProgress};
use crate::kafka::progress::Reading;
use crate::kafka::{Batch, Home, Record, TopicId};
use crate::lsn::Lsn;
use crate::postgres::backfills::Progress;

/// A batch's buffer is cut down to this after a large row had made it grow.
const KEEP_BATCH_BYTES: usize = 8 << 20;
/// So many batches exist beyond one for each reader.
const SPARE_BATCHES: usize = 2;
/// The size of a block, for people: hardly anybody compiles Postgres with another one.
const BLOCK_BYTES: u64 = 8192;
/// So many chunks may be with the sink.
const IN_SINK_MAX: usize = 2;

/// What the desk knows of a table; its place in the list is its [`TopicId`].
#[derive(Clone, Debug)]
pub struct DeskTable {
    /// The name as SQL writes it.
    pub name: String,
    /// `pg_class.oid`.
    pub oid: u32,
}

/// What a reader is to do.
#[derive(Debug)]
pub enum Claim {
    /// List the heaps of the table.
    Survey {
        /// What for.
        reading: ReadingId,
        /// The table.
        table: TopicId,
        /// Something of it has been read already.
        is_begun: bool,
    },
    /// Read a stretch.
    Chunk(Box<Taken>),
    /// Nothing more, ever.
    Closed,
}

/// A stretch to read, its window, and where the records go.
#[derive(Debug)]
pub struct Taken {
    /// What to read.
    pub job: Job,
    /// Opened before this was handed out.
    pub window: WindowId,
    /// Empty.
    pub batch: Batch,
}

/// A chunk, read.
#[derive(Debug)]
struct Chunk {
    taken: Taken,
    /// It may be merged when the stream has come so far.
    high: Lsn,
}

/// What a reading has come to, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which.
    pub reading: ReadingId,
    /// The table's name as SQL writes it.
    pub table: String,
    /// How far it is.
    pub progress: Progress,
}

/// Where the readers and the stream meet.
#[derive(Debug)]
pub struct Desk {
    tables: Vec<DeskTable>,
    /// Records of so many bytes are a chunk; none has more than twice that, but for a single row.
    pub chunk_bytes: usize,
    inner: Mutex<Inner>,
    /// A reader may find something to do.
    changed: Condvar,
    /// A chunk, or a change alone, waits to be merged.
    waiting: AtomicBool,
    /// Something is to be read, or on its way.
    active: AtomicBool,
    /// The first rows of a table can't be read.
    failing: AtomicBool,
    closed: watch::Sender<bool>,
}

#[derive(Debug)]
struct Inner {
    windows: Windows,
    works: BTreeMap<ReadingId, Work>,
    /// Being surveyed by a reader.
    surveys: BTreeSet<ReadingId>,
    /// Not to be surveyed sooner.
    not_before: BTreeMap<ReadingId, Instant>,
    read: VecDeque<Chunk>,
    /// Changes with no chunk of their own.
    changes: Vec<Change>,
    empty: Vec<Batch>,
    in_sink: usize,
    failed: Vec<(ReadingId, SnapshotError)>,
    /// First rows that were read whole in this run.
    finished: Vec<Report>,
}

impl Desk {
    /// A desk for `readers` readers. `horizon` is the newest transaction id that may have come down an earlier stream.
    pub fn new(tables: Vec<DeskTable>, readers: usize, chunk_bytes: usize, horizon: u32) -> Arc<Self> {
        let inner = Inner {
            windows: Windows::new(horizon),
            works: BTreeMap::new(),
            surveys: BTreeSet::new(),
            not_before: BTreeMap::new(),
            read: VecDeque::new(),
            changes: Vec::new(),
            empty: std::iter::repeat_with(Batch::default).take(readers + SPARE_BATCHES).collect(),
            in_sink: 0,
            failed: Vec::new(),
            finished: Vec::new(),
        };
        Arc::new(Self {
            tables,
            chunk_bytes,
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            waiting: AtomicBool::new(false),
            active: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            closed: watch::Sender::new(false),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a change: whoever waits looks again, and what is looked at without the lock is brought up to date.
    fn done(&self, inner: MutexGuard<'_, Inner>) {
        self.waiting.store(!inner.read.is_empty() || !inner.changes.is_empty(), Ordering::Release);
        self.active.store(!inner.works.is_empty() || !inner.changes.is_empty(), Ordering::Release);
        drop(inner);
        self.changed.notify_all();
    }

    /// The name of a table.
    pub fn name_of(&self, table: TopicId) -> &str {
        self.tables.get(table.0 as usize).map_or("", |table| &table.name)
    }

    /// The place of a table.
    pub fn place_of(&self, name: &str) -> Option<TopicId> {
        self.tables.iter().position(|table| table.name == name).map(|place| TopicId(place as u32))
    }

    // What is to be read.

    /// Adds something to be read, as far as it isn't yet.
    pub fn add(&self, reading: ReadingId, table: TopicId, filter: Option<String>, stored: Reading) {
        let mut inner = self.inner();
        inner.works.insert(reading, Work::new(reading, table, filter, stored, self.chunk_bytes));
        self.done(inner);
    }

    /// Takes something from what is to be read; what of it is under way comes to nothing.
    pub fn remove(&self, reading: ReadingId) {
        let mut inner = self.inner();
        inner.works.remove(&reading);
        self.done(inner);
    }

    /// Stores a change with the next position.
    pub fn change(&self, change: Change) {
        let mut inner = self.inner();
        inner.changes.push(change);
        self.done(inner);
    }

    /// Why the first rows of a table can't be read, if they can't. Costs next to nothing while all is well.
    pub fn take_failure(&self) -> Option<SnapshotError> {
        if !self.failing.load(Ordering::Acquire) {
            return None;
        }
        let mut inner = self.inner();
        let at = inner.failed.iter().position(|(reading, _)| matches!(reading, ReadingId::Initial(_)))?;
        Some(inner.failed.swap_remove(at).1)
    }

    /// The backfills that have failed since this was asked last.
    pub fn take_failed_backfills(&self) -> Vec<(i64, SnapshotError)> {
        let mut inner = self.inner();
        let (backfills, others) = std::mem::take(&mut inner.failed)
            .into_iter()
            .partition(|(reading, _)| matches!(reading, ReadingId::Backfill(_)));
        inner.failed = others;
        let id = |(reading, error)| match reading {
            ReadingId::Backfill(id) => Some((id, error)),
            ReadingId::Initial(_) => None,
        };
        Vec::into_iter(backfills).filter_map(id).collect()
    }

    /// What all readings have come to.
    pub fn reports(&self) -> Vec<Report> {
        self.inner().works.iter().map(|(reading, work)| report(self, *reading, work)).collect()
    }

    /// The tables whose first rows this run has read to their end.
    pub fn finished(&self) -> Vec<Report> {
        self.inner().finished.clone()
    }

    /// Whether something is to be read, or on its way.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    // The readers.

    /// What is to be done next; waits for it.
    pub fn claim(&self) -> Claim {
        let mut inner = self.inner();
        loop {
            if self.is_closed() {
                return Claim::Closed;
            }
            let now = Instant::now();
            if let Some(claim) = inner.claim(self, now) {
                return claim;
            }
            let wait = inner.not_before.values().map(|at| at.saturating_duration_since(now)).min();
            let wait = wait.unwrap_or(Duration::MAX).clamp(Duration::from_millis(1), Duration::from_secs(1));
            inner = self.changed.wait_timeout(inner, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The heaps of a table; none if the table is gone, which ends its reading.
    pub fn surveyed(&self, reading: ReadingId, heaps: Option<Vec<HeapFacts>>) {
        let mut inner = self.inner();
        inner.surveys.remove(&reading);
        match heaps {
            Some(heaps) => {
                if let Some(work) = inner.works.get_mut(&reading) {
                    work.surveyed(heaps);
                }
                inner.conclude(self, reading);
            }
            None => {
                inner.works.remove(&reading);
            }
        }
        self.done(inner);
    }

    /// The heaps of a table can't be listed now.
    pub fn survey_later(&self, reading: ReadingId, wait: Duration) {
        let mut inner = self.inner();
        inner.surveys.remove(&reading);
        inner.not_before.insert(reading, Instant::now() + wait);
        self.done(inner);
    }

    /// Whether a snapshot will do for the chunk of this window.
    pub fn judge(&self, window: WindowId, in_progress: &[u32], next: u32) -> Verdict {
        self.inner().windows.judge(window, in_progress, next)
    }

    /// A chunk is read; it may be merged when the stream has come to `high`.
    pub fn hand_in(&self, taken: Taken, high: Lsn) {
        let mut inner = self.inner();
        inner.read.push_back(Chunk { taken, high });
        self.done(inner);
    }

    /// A stretch couldn't be read now.
    pub fn give_back(&self, taken: Taken) {
        self.drop_chunk(taken, |work, job| work.give_back(job));
    }

    /// A stretch is too large for one chunk.
    pub fn give_back_halved(&self, taken: Taken) {
        self.drop_chunk(taken, |work, job| work.give_back_halved(job));
    }

    /// A heap is another one than it was: it starts over.
    pub fn rewritten(&self, taken: Taken, file_node: u32, blocks: u32) {
        self.drop_chunk(taken, |work, job| work.rewritten(job, file_node, blocks));
    }

    /// A heap is not to be found: the table's heaps are listed again.
    pub fn survey_again(&self, taken: Taken) {
        self.drop_chunk(taken, |work, job| {
            work.give_back(job);
            work.survey_again();
        });
    }

    /// A reading has failed for good.
    pub fn fail(&self, reading: ReadingId, taken: Option<Taken>, error: SnapshotError) {
        let mut inner = self.inner();
        inner.works.remove(&reading);
        inner.surveys.remove(&reading);
        if matches!(reading, ReadingId::Initial(_)) {
            self.failing.store(true, Ordering::Release);
        }
        inner.failed.push((reading, error));
        if let Some(taken) = taken {
            inner.windows.close(taken.window);
            inner.recycle(taken.batch);
        }
        self.done(inner);
    }

    fn drop_chunk(&self, taken: Taken, each: impl FnOnce(&mut Work, &Job)) {
        let mut inner = self.inner();
        inner.windows.close(taken.window);
        if let Some(work) = inner.works.get_mut(&taken.job.reading) {
            each(work, &taken.job);
        }
        inner.recycle(taken.batch);
        // The last heap may have become an empty one: no chunk would tell.
        inner.conclude(self, taken.job.reading);
        self.done(inner);
    }

    /// Lets every reader end.
    pub fn close(&self) {
        let inner = self.inner();
        self.closed.send_replace(true);
        self.done(inner);
    }

    /// Whether the readers are to end.
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits until the readers are to end.
    pub async fn closed(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Whether there is, or may soon be, something to claim.
    pub fn has_work(&self) -> bool {
        !self.inner().works.is_empty()
    }

    // The stream.

    /// A source transaction begins that is not in Kafka yet, nor any part of it. Tells whether its keys are to be noted.
    pub fn begin(&self, xid: u32) -> bool {
        self.inner().windows.begin(xid)
    }

    /// Whether the keys of a transaction that is in Kafka in part are to be noted from here on.
    pub fn is_noting(&self) -> bool {
        self.inner().windows.is_any_open()
    }

    /// The stream wrote these records.
    pub fn note<'a>(&self, records: impl Iterator<Item = Record<'a>>) {
        let mut inner = self.inner();
        for record in records {
            inner.windows.note(record.topic, record.key);
        }
    }

    /// The stream emptied the table.
    pub fn truncated(&self, table: TopicId) {
        self.inner().windows.truncated(table);
    }

    /// Whether a chunk or a change waits to be merged. Costs next to nothing.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// How far the stream has to come for what waits.
    pub fn awaited(&self) -> Option<Lsn> {
        self.inner().read.iter().map(|chunk| chunk.high).min()
    }

    /// What may be merged where the stream is: all before `position` is in, nothing after it is. The batch has to be
    /// handed to the sink right after what came before `position`.
    pub fn take_merge(self: &Arc<Self>, position: Lsn) -> Option<Batch> {
        let mut inner = self.inner();
        let batch = inner.take_merge(self, position);
        self.done(inner);
        batch
    }
}

impl Home for Desk {
    fn take_back(&self, batch: Batch) {
        let mut inner = self.inner();
        inner.in_sink -= 1;
        inner.recycle(batch);
        self.done(inner);
    }
}

impl Inner {
    fn claim(&mut self, desk: &Desk, now: Instant) -> Option<Claim> {
        let surveys = &self.surveys;
        let is_due = |reading: &ReadingId| self.not_before.get(reading).is_none_or(|at| *at <= now);
        // Not while a stretch is out: it would be taken twice.
        let survey = self.works.iter().find(|(reading, work)| {
            work.needs_survey() && !work.is_taken() && !surveys.contains(reading) && is_due(reading)
        });
        if let Some((&reading, work)) = survey {
            let (table, is_begun) = (work.table(), work.is_begun());
            self.surveys.insert(reading);
            self.not_before.remove(&reading);
            return Some(Claim::Survey { reading, table, is_begun });
        }
        if self.empty.is_empty() {
            return None;
        }
        let job = self.works.values_mut().find_map(Work::take)?;
        let window = self.windows.open(job.table);
        let batch = self.empty.pop()?;
        desk.active.store(true, Ordering::Release);
        Some(Claim::Chunk(Box::new(Taken { job, window, batch })))
    }

    fn take_merge(&mut self, desk: &Arc<Desk>, position: Lsn) -> Option<Batch> {
        if self.in_sink >= IN_SINK_MAX {
            return None;
        }
        while let Some(at) = self.read.iter().position(|chunk| chunk.high <= position) {
            let Taken { job, window, mut batch } = self.read.remove(at)?.taken;
            let closed = self.windows.close(window);
            let Some(work) = self.works.get_mut(&job.reading) else {
                self.recycle(batch);
                continue;
            };
            let bytes = batch.byte_len();
            match closed {
                Closed::Spoiled => {
                    work.give_back_halved(&job);
                    self.recycle(batch);
                    continue;
                }
                Closed::Noted(keys) if keys.is_empty() => {}
                Closed::Noted(keys) => {
                    batch.drop_records(|key| keys.contains(key));
                }
            }
            if !work.merged(&job, batch.len() as u64, bytes) {
                self.recycle(batch);
                continue;
            }
            batch.changes.append(&mut self.changes);
            batch.changes.push(progress(desk, job.reading, work));
            self.end_if_done(desk, job.reading);
            batch.home = Some(Arc::clone(desk) as Arc<dyn Home>);
            self.in_sink += 1;
            return Some(batch);
        }
        if self.changes.is_empty() {
            return None;
        }
        let mut batch = self.empty.pop()?;
        batch.changes.append(&mut self.changes);
        batch.home = Some(Arc::clone(desk) as Arc<dyn Home>);
        self.in_sink += 1;
        Some(batch)
    }

    /// A reading of which nothing is left ends without a chunk.
    fn conclude(&mut self, desk: &Desk, reading: ReadingId) {
        if let Some(work) = self.works.get(&reading).filter(|work| work.is_done()) {
            let change = progress(desk, reading, work);
            self.changes.push(change);
            self.end_if_done(desk, reading);
        }
    }

    fn end_if_done(&mut self, desk: &Desk, reading: ReadingId) {
        let Some(work) = self.works.get(&reading).filter(|work| work.is_done()) else { return };
        if matches!(reading, ReadingId::Initial(_)) {
            self.finished.push(report(desk, reading, work));
        }
        self.works.remove(&reading);
    }

    fn recycle(&mut self, mut batch: Batch) {
        batch.clear(KEEP_BATCH_BYTES);
        self.empty.push(batch);
    }
}

fn report(desk: &Desk, reading: ReadingId, work: &Work) -> Report {
    Report {
        reading,
        table: desk.name_of(work.table()).to_owned(),
        progress: Progress {
            rows_written: work.rows(),
            bytes_read: work.blocks().map_or(0, |(done, _)| done * BLOCK_BYTES),
            bytes_total: work.blocks().map(|(_, all)| all * BLOCK_BYTES),
            rows_estimated: work.rows_estimated(),
        },
    }
}

/// What is to be stored of a reading.
fn progress(desk: &Desk, reading: ReadingId, work: &Work) -> Change {
    let table = desk.name_of(work.table()).to_owned();
    match reading {
        ReadingId::Initial(_) if work.is_done() => Change::Snapshot { table, progress: SnapshotProgress::Done },
        ReadingId::Initial(_) => Change::Snapshot { table, progress: SnapshotProgress::Reading(work.reading()) },
        ReadingId::Backfill(id) => {
            let state = match work.is_done() {
                true => BackfillState::Done { rows: work.rows() },
                false => BackfillState::Reading(work.reading()),
            };
            let oid = desk.tables.get(work.table().0 as usize).map_or(0, |table| table.oid);
            Change::Backfill { id, progress: Some(BackfillProgress { table, oid, state }) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::catalog::TableName;

    const TABLE: TopicId = TopicId(0);
    const INITIAL: ReadingId = ReadingId::Initial(TABLE);

    fn desk(blocks: u32) -> Arc<Desk> {
        let desk = Desk::new(vec![DeskTable { name: "public.t".into(), oid: 1 }], 1, 2 << 20, 10);
        desk.add(INITIAL, TABLE, None, Reading::default());
        let Claim::Survey { reading, .. } = desk.claim() else { panic!("a survey comes first") };
        desk.surveyed(
            reading,
            Some(vec![HeapFacts { oid: 1, name: TableName::new("public", "t"), file_node: 2, blocks, rows: 0 }]),
        );
        desk
    }

    fn claim(desk: &Desk) -> Taken {
        match desk.claim() {
            Claim::Chunk(taken) => *taken,
            other => panic!("{other:?}"),
        }
    }

    fn put(batch: &mut Batch, key: &[u8]) {
        let mut writer = batch.record(TABLE, 0);
        writer.bytes().extend_from_slice(key);
        writer.value(|_| Ok::<(), ()>(())).unwrap();
    }

    fn keys(batch: &Batch) -> Vec<&[u8]> {
        batch.records().map(|record| record.key).collect()
    }

    #[test]
    fn a_chunk_is_merged_when_the_stream_has_come_to_its_snapshot_and_without_what_the_stream_changed() {
        let desk = desk(10);
        let mut taken = claim(&desk);
        assert!(desk.begin(11));
        let mut streamed = Batch::default();
        put(&mut streamed, b"b");
        desk.note(streamed.records());
        for key in [b"a", b"b", b"c"] {
            put(&mut taken.batch, key);
        }
        desk.hand_in(taken, Lsn(100));
        assert_eq!(desk.awaited(), Some(Lsn(100)));
        assert!(desk.take_merge(Lsn(99)).is_none());
        let batch = desk.take_merge(Lsn(100)).unwrap();
        assert_eq!(keys(&batch), [b"a", b"c"]);
        assert_eq!(batch.changes, [Change::Snapshot { table: "public.t".into(), progress: SnapshotProgress::Done }]);
        assert!(!desk.is_active() && !desk.is_waiting());
        desk.take_back(batch);
    }

    #[test]
    fn a_chunk_whose_table_was_truncated_is_read_again() {
        let desk = desk(10);
        let taken = claim(&desk);
        let stretch = taken.job.stretch;
        desk.truncated(TABLE);
        desk.hand_in(taken, Lsn(100));
        assert!(desk.take_merge(Lsn(100)).is_none());
        let again = claim(&desk);
        assert_eq!(again.job.stretch.from, stretch.from);
        assert!(again.job.stretch.to < stretch.to, "and smaller");
    }

    #[test]
    fn an_empty_table_is_done_without_a_chunk() {
        let desk = desk(0);
        let batch = desk.take_merge(Lsn(0)).unwrap();
        assert_eq!(batch.changes, [Change::Snapshot { table: "public.t".into(), progress: SnapshotProgress::Done }]);
        assert!(batch.is_empty() && !desk.is_active());
    }

    #[test]
    fn no_more_chunks_are_with_the_sink_than_may_be() {
        let desk = desk(10_000);
        for _ in 0..3 {
            let taken = claim(&desk);
            desk.hand_in(taken, Lsn(1));
        }
        let first = desk.take_merge(Lsn(1)).unwrap();
        desk.take_merge(Lsn(1)).unwrap();
        assert!(desk.take_merge(Lsn(1)).is_none());
        desk.take_back(first);
        assert!(desk.take_merge(Lsn(1)).is_some());
    }

    #[test]
    fn a_reading_ends_whose_last_heap_was_rewritten_and_is_empty() {
        let desk = desk(10);
        let taken = claim(&desk);
        desk.rewritten(taken, 3, 0);
        let batch = desk.take_merge(Lsn(0)).unwrap();
        assert_eq!(batch.changes, [Change::Snapshot { table: "public.t".into(), progress: SnapshotProgress::Done }]);
        assert!(batch.is_empty() && !desk.is_active());
    }

    #[test]
    fn a_reading_that_was_removed_comes_to_nothing() {
        let desk = desk(10);
        let taken = claim(&desk);
        desk.remove(INITIAL);
        desk.hand_in(taken, Lsn(1));
        assert!(desk.take_merge(Lsn(1)).is_none());
        desk.close();
        assert!(matches!(desk.claim(), Claim::Closed));
    }
}
