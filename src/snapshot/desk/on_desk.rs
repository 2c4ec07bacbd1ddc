//! What lies on the desk: what is to be read, what was read, and what waits to be stored. Rules alone, no lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::{Claim, Desk, NOTHING, Report, Survey, Taken};
use crate::kafka::positions::{BackfillProgress, BackfillState, Change, SnapshotProgress};
use crate::kafka::{Batch, Home, TopicId};
use crate::lsn::Lsn;
use crate::postgres::backfills::Progress;
use crate::snapshot::error::SnapshotError;
use crate::snapshot::table::SnapshotTable;
use crate::snapshot::windows::{Closed, WindowId, Windows};
use crate::snapshot::work::{ReadingId, Work};
use crate::snapshot::writers::Waiting;

/// A batch's buffer is cut down to this after a large row had made it grow.
const KEEP_BATCH_BYTES: usize = 8 << 20;
/// The size of a block, for people: hardly anybody compiles Postgres with another one.
const BLOCK_BYTES: u64 = 8192;
/// So many chunks may be with the sink. It gives a chunk back before it commits, so one is enough to keep it busy; with
/// more, the stream's rows would wait for them.
const IN_SINK_MAX: usize = 1;

/// A chunk, read.
#[derive(Debug)]
pub(super) struct Chunk {
    pub taken: Taken,
    /// It may be merged when the stream has come so far.
    pub high: Lsn,
}

#[derive(Debug)]
pub(super) struct OnDesk {
    pub windows: Windows,
    pub works: BTreeMap<ReadingId, Work>,
    /// Being surveyed by a reader.
    pub surveys: BTreeSet<ReadingId>,
    /// Not to be surveyed sooner.
    pub not_before: BTreeMap<ReadingId, Instant>,
    /// Who a survey waits for.
    pub waiting: BTreeMap<ReadingId, Waiting>,
    pub read: VecDeque<Chunk>,
    /// Changes with no chunk of their own.
    pub changes: Vec<Change>,
    pub empty: Vec<Batch>,
    pub in_sink: usize,
    pub failed: Vec<(ReadingId, SnapshotError)>,
    /// First rows that were read whole in this run.
    pub finished: Vec<Report>,
    /// Tables whose topics are swept once they are read.
    pub swept: BTreeSet<TopicId>,
    /// Those of them that are read.
    pub sweeps: BTreeSet<TopicId>,
}

impl OnDesk {
    /// A desk with so many empty batches.
    pub fn new(batches: usize, horizon: u32) -> Self {
        Self {
            windows: Windows::new(horizon),
            works: BTreeMap::new(),
            surveys: BTreeSet::new(),
            not_before: BTreeMap::new(),
            waiting: BTreeMap::new(),
            read: VecDeque::new(),
            changes: Vec::new(),
            empty: std::iter::repeat_with(Batch::default).take(batches).collect(),
            in_sink: 0,
            failed: Vec::new(),
            finished: Vec::new(),
            swept: BTreeSet::new(),
            sweeps: BTreeSet::new(),
        }
    }

    /// What a reader may do now, if anything.
    pub fn claim(&mut self, now: Instant) -> Option<Claim> {
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
            let waiting = self.waiting.remove(&reading);
            return Some(Claim::Survey(Survey { reading, table, is_begun, waiting }));
        }
        if self.empty.is_empty() {
            return None;
        }
        let not_before = &self.not_before;
        let is_due = |reading: &ReadingId| not_before.get(reading).is_none_or(|at| *at <= now);
        let mut works = self.works.iter_mut().filter(|(reading, _)| is_due(reading));
        let job = works.find_map(|(_, work)| work.take())?;
        self.not_before.remove(&job.reading);
        let window = self.windows.open(job.table);
        let batch = self.empty.pop()?;
        Some(Claim::Chunk(Box::new(Taken { job, window, batch })))
    }

    /// Where the stream has to be for the next merge.
    pub fn due_at(&self) -> u64 {
        match (self.in_sink < IN_SINK_MAX, self.changes.is_empty()) {
            (false, _) => NOTHING,
            (true, false) => 0,
            (true, true) => self.read.iter().map(|chunk| chunk.high.0).min().unwrap_or(NOTHING),
        }
    }

    /// What may be merged at the position, if anything.
    pub fn take_merge(&mut self, desk: &Arc<Desk>, position: Lsn) -> Option<Batch> {
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
            let bytes = batch.weight();
            match closed {
                Closed::Truncated => {
                    work.give_back(&job);
                    self.recycle(batch);
                    continue;
                }
                Closed::Noted(keys) if keys.is_empty() => {}
                Closed::Noted(keys) => {
                    batch.drop_records(|key| keys.contains(key));
                }
                Closed::Left(keys) => {
                    batch.drop_records(|key| !keys.contains(key));
                }
                Closed::Crowded => {
                    work.give_back_halved(&job);
                    self.recycle(batch);
                    continue;
                }
            }
            if !work.merged(&job, batch.len() as u64, bytes) {
                self.recycle(batch);
                continue;
            }
            batch.changes.append(&mut self.changes);
            batch.changes.push(progress(desk, job.reading, work, &self.swept));
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
    pub fn conclude(&mut self, desk: &Desk, reading: ReadingId) {
        if let Some(work) = self.works.get(&reading).filter(|work| work.is_done()) {
            let change = progress(desk, reading, work, &self.swept);
            self.changes.push(change);
            self.end_if_done(desk, reading);
        }
    }

    fn end_if_done(&mut self, desk: &Desk, reading: ReadingId) {
        let Some(work) = self.works.get(&reading).filter(|work| work.is_done()) else { return };
        if let ReadingId::Initial(table) = reading {
            self.finished.push(report(desk, reading, work));
            if self.swept.contains(&table) {
                self.sweeps.insert(table);
            }
        }
        self.remove(reading);
    }

    /// A chunk is read.
    pub fn hand_in(&mut self, chunk: Chunk) {
        let window = chunk.taken.window;
        self.read.push_back(chunk);
        if self.windows.is_long(window) {
            self.narrow(window);
        }
    }

    /// The stream wrote a record with this key.
    pub fn note(&mut self, table: TopicId, key: &[u8]) {
        if self.windows.note(table, key) {
            let read = self.read.iter().map(|chunk| chunk.taken.window);
            let long: Vec<WindowId> = read.filter(|window| self.windows.is_long(*window)).collect();
            for window in long {
                self.narrow(window);
            }
        }
    }

    /// From now on only the keys of the chunk matter to its window: what else the stream changes, however long it takes to
    /// come to the chunk, needs no room.
    fn narrow(&mut self, window: WindowId) {
        if let Some(chunk) = self.read.iter().find(|chunk| chunk.taken.window == window) {
            self.windows.narrow(window, chunk.taken.batch.records().map(|record| record.key));
        }
    }

    /// Takes a reading from the desk.
    pub fn remove(&mut self, reading: ReadingId) {
        self.works.remove(&reading);
        self.surveys.remove(&reading);
        self.not_before.remove(&reading);
        self.waiting.remove(&reading);
    }

    /// A survey has to be made again.
    pub fn survey_later(&mut self, reading: ReadingId, waiting: Option<Waiting>, at: Instant) {
        self.surveys.remove(&reading);
        if self.works.contains_key(&reading) {
            self.not_before.insert(reading, at);
            self.waiting.extend(waiting.map(|waiting| (reading, waiting)));
        }
    }

    /// Takes a batch back.
    pub fn recycle(&mut self, mut batch: Batch) {
        batch.clear(KEEP_BATCH_BYTES);
        self.empty.push(batch);
    }
}

pub(super) fn report(desk: &Desk, reading: ReadingId, work: &Work) -> Report {
    Report {
        reading,
        table: desk.table(work.table()).sql_name.clone(),
        progress: Progress {
            rows_written: work.rows(),
            bytes_read: work.blocks().map_or(0, |(done, _)| done * BLOCK_BYTES),
            bytes_total: work.blocks().map(|(_, all)| all * BLOCK_BYTES),
            rows_estimated: work.rows_estimated(),
        },
    }
}

/// What is to be stored of a reading. One that a sweep follows isn't done before that.
fn progress(desk: &Desk, reading: ReadingId, work: &Work, swept: &BTreeSet<TopicId>) -> Change {
    let SnapshotTable { sql_name: table, oid, .. } = desk.table(work.table()).clone();
    match reading {
        ReadingId::Initial(topic) if work.is_done() && !swept.contains(&topic) => {
            Change::Snapshot { table, progress: SnapshotProgress::Done }
        }
        ReadingId::Initial(_) => Change::Snapshot { table, progress: SnapshotProgress::Reading(work.reading()) },
        ReadingId::Backfill(id) => {
            let state = match work.is_done() {
                true => BackfillState::Done { rows: work.rows() },
                false => BackfillState::Reading(work.reading()),
            };
            Change::Backfill { id, progress: Some(BackfillProgress { table, oid, state }) }
        }
    }
}
