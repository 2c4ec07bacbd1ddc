//! The desk: where the readers of tables and the stream meet.
//!
//! Readers take stretches of tables from it, with an open window and an empty batch, and hand in chunks. The stream
//! tells it of what it writes, and takes the chunks that may be merged at its position. One lock guards all of it;
//! whoever holds it does no I/O.
//!
//! What is in memory is bounded by the batches that exist: a reader without an empty one waits, and that is how
//! back-pressure reaches COPY. At most `IN_SINK_MAX` of them are with the sink, so that the stream's own rows don't
//! queue behind them.

mod on_desk;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use on_desk::{Chunk, OnDesk, report};

use super::error::SnapshotError;
use super::table::SnapshotTable;
use super::windows::{Unknown, Verdict, WindowId};
use super::work::{Job, ReadingId, Work};
use super::writers::Waiting;
use crate::kafka::positions::Change;
use crate::kafka::progress::Reading;
use crate::kafka::{Batch, Home, Record, TopicId};
use crate::lsn::Lsn;
use crate::postgres::backfills::Progress;
use crate::postgres::catalog::HeapFacts;

/// So many batches exist beyond one for each reader.
const SPARE_BATCHES: usize = 2;
/// No position: a place that the WAL never comes to.
const NOTHING: u64 = u64::MAX;

/// What a reader is to do.
#[derive(Debug)]
pub enum Claim {
    /// List the heaps of a table.
    Survey(Survey),
    /// Read a stretch.
    Chunk(Box<Taken>),
    /// Nothing more, ever.
    Closed,
}

/// A table whose heaps are to be listed.
#[derive(Debug)]
pub struct Survey {
    /// What for.
    pub reading: ReadingId,
    /// The table.
    pub table: TopicId,
    /// Something of it has been read already.
    pub is_begun: bool,
    /// Who is waited for since the last time.
    pub waiting: Option<Waiting>,
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
    /// By their topics' places.
    tables: Vec<SnapshotTable>,
    /// Records of so many bytes are a chunk; none has more than twice that, but for a single row.
    pub chunk_bytes: usize,
    inner: Mutex<OnDesk>,
    /// A reader may find something to do.
    changed: Condvar,
    /// Where the stream has to be for the next merge; [`NOTHING`] if there is none to come.
    due_at: AtomicU64,
    /// Something is to be read, or on its way.
    active: AtomicBool,
    /// The run is to end when the stream has come here; [`NOTHING`] if it isn't.
    anew_at: AtomicU64,
    /// The first rows of a table can't be read.
    failing: AtomicBool,
    closed: watch::Sender<bool>,
}

impl Desk {
    /// A desk for `readers` readers. `horizon` is the newest transaction id that may have come down an earlier stream.
    pub fn new(tables: Vec<SnapshotTable>, readers: usize, chunk_bytes: usize, horizon: u32) -> Arc<Self> {
        let inner = OnDesk::new(readers + SPARE_BATCHES, horizon);
        Arc::new(Self {
            tables,
            chunk_bytes,
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            due_at: AtomicU64::new(NOTHING),
            anew_at: AtomicU64::new(NOTHING),
            active: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            closed: watch::Sender::new(false),
        })
    }

    fn inner(&self) -> MutexGuard<'_, OnDesk> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a change: whoever waits looks again, and what is looked at without the lock is brought up to date.
    fn done(&self, inner: MutexGuard<'_, OnDesk>) {
        self.due_at.store(inner.due_at().min(self.anew_at.load(Ordering::Acquire)), Ordering::Release);
        let active = !inner.works.is_empty() || !inner.changes.is_empty() || !inner.sweeps.is_empty();
        self.active.store(active, Ordering::Release);
        drop(inner);
        self.changed.notify_all();
    }

    /// A table that may be read, by the place of its topic.
    pub fn table(&self, topic: TopicId) -> &SnapshotTable {
        &self.tables[topic.0 as usize]
    }

    /// The topic of a table that may be read, by the name as SQL writes it.
    pub fn topic_of(&self, name: &str) -> Option<TopicId> {
        self.tables.iter().position(|table| table.sql_name == name).map(|place| TopicId(place as u32))
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
        inner.remove(reading);
        self.done(inner);
    }

    /// Stores a change with the next position.
    pub fn change(&self, change: Change) {
        let mut inner = self.inner();
        inner.changes.push(change);
        self.done(inner);
    }

    /// Lets the run end between two source transactions, once the stream has come so far.
    pub fn start_anew_at(&self, position: Lsn) {
        let inner = self.inner();
        self.anew_at.fetch_min(position.0, Ordering::AcqRel);
        self.done(inner);
    }

    /// Whether the run is to end where the stream is.
    pub fn is_to_start_anew(&self, position: Lsn) -> bool {
        self.anew_at.load(Ordering::Acquire) <= position.0
    }

    /// Says that what is older in the topic than the reading of its table has to go when that is done.
    pub fn sweep_after(&self, table: TopicId) {
        self.inner().swept.insert(table);
    }

    /// A table that has been read to its end, and whose topic is to be swept now: all chunks are with the sink.
    pub fn take_sweep(&self) -> Option<TopicId> {
        if !self.is_active() {
            return None;
        }
        let inner = self.inner();
        // What is still to be stored of its reading would come after the word that it is done.
        if inner.changes.is_empty() { inner.sweeps.iter().next().copied() } else { None }
    }

    /// The topic is swept.
    pub fn swept(&self, table: TopicId) {
        let mut inner = self.inner();
        inner.sweeps.remove(&table);
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
            if let Some(claim) = inner.claim(now) {
                return claim;
            }
            let wait = inner.not_before.values().map(|at| at.saturating_duration_since(now)).min();
            let wait = wait.unwrap_or(Duration::MAX).clamp(Duration::from_millis(1), Duration::from_secs(1));
            inner = self.changed.wait_timeout(inner, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The heaps of a table.
    pub fn surveyed(&self, reading: ReadingId, heaps: Vec<HeapFacts>) {
        let mut inner = self.inner();
        inner.surveys.remove(&reading);
        if let Some(work) = inner.works.get_mut(&reading) {
            work.surveyed(heaps);
        }
        inner.conclude(self, reading);
        self.done(inner);
    }

    /// The table is gone: its first rows are no longer read, and a backfill has failed.
    pub fn gone(&self, reading: ReadingId, error: SnapshotError) {
        match reading {
            ReadingId::Initial(_) => self.remove(reading),
            ReadingId::Backfill(_) => self.fail(reading, None, error),
        }
    }

    /// The heaps of a table can't be listed now.
    pub fn survey_later(&self, reading: ReadingId, waiting: Option<Waiting>, wait: Duration) {
        let mut inner = self.inner();
        inner.survey_later(reading, waiting, Instant::now() + wait);
        self.done(inner);
    }

    /// Every snapshot from now on sees all transactions before `xmin`.
    pub fn all_see(&self, xmin: u32) {
        self.inner().windows.all_see(xmin);
    }

    /// Whether a snapshot will do for the chunk of this window.
    pub fn judge(&self, window: WindowId, heap: u32, in_progress: &[u32], next: u32) -> Verdict {
        self.inner().windows.judge(window, heap, in_progress, next)
    }

    /// Who of them holds a writer's lock on the heap has been asked since.
    pub fn clear(&self, heap: u32, unknown: &Unknown, writers: &[u32]) {
        self.inner().windows.clear(heap, unknown, writers);
    }

    /// A chunk is read; it may be merged when the stream has come to `high`.
    pub fn hand_in(&self, taken: Taken, high: Lsn) {
        let mut inner = self.inner();
        inner.hand_in(Chunk { taken, high });
        self.done(inner);
    }

    /// A stretch couldn't be read now.
    pub fn give_back(&self, taken: Taken) {
        self.drop_chunk(taken, |work, job| work.give_back(job));
    }

    /// A stretch can't be read for a while; nor can others of its table.
    pub fn give_back_for(&self, taken: Taken, wait: Duration) {
        let mut inner = self.inner();
        inner.not_before.insert(taken.job.reading, Instant::now() + wait);
        drop(inner);
        self.give_back(taken);
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
        inner.remove(reading);
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

    /// A reader is gone, and what it had taken with it.
    pub fn panicked(&self) {
        let mut inner = self.inner();
        inner.failed.push((ReadingId::Initial(TopicId(0)), SnapshotError::Panicked));
        self.failing.store(true, Ordering::Release);
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
            inner.note(record.topic, record.key);
        }
    }

    /// The stream emptied the table.
    pub fn truncated(&self, table: TopicId) {
        self.inner().windows.truncated(table);
    }

    /// Whether something may be merged where the stream is. Costs next to nothing.
    pub fn is_due(&self, position: Lsn) -> bool {
        self.due_at.load(Ordering::Acquire) <= position.0
    }

    /// Whether something may be merged when the stream has come further. Costs next to nothing.
    pub fn is_waiting(&self, position: Lsn) -> bool {
        (position.0 + 1..NOTHING).contains(&self.due_at.load(Ordering::Acquire))
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
