//! What lies on the desk: what is to be read, what was read, and what waits to be stored. Rules alone, no lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Claim, Desk, NOTHING, Report, Taken};
use crate::kafka::positions::{BackfillProgress, BackfillState, Change, SnapshotProgress};
use crate::kafka::{Batch, Home};
use crate::lsn::Lsn;
use crate::postgres::backfills::Progress;
use crate::snapshot::error::SnapshotError;
use crate::snapshot::windows::{Closed, Windows};
use crate::snapshot::work::{ReadingId, Work};

/// A batch's buffer is cut down to this after a large row had made it grow.
const KEEP_BATCH_BYTES: usize = 8 << 20;
/// The size of a block, for people: hardly anybody compiles Postgres with another one.
const BLOCK_BYTES: u64 = 8192;
/// So many chunks may be with the sink.
const IN_SINK_MAX: usize = 2;

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
    pub read: VecDeque<Chunk>,
    /// Changes with no chunk of their own.
    pub changes: Vec<Change>,
    pub empty: Vec<Batch>,
    pub in_sink: usize,
    pub failed: Vec<(ReadingId, SnapshotError)>,
    /// First rows that were read whole in this run.
    pub finished: Vec<Report>,
}

impl OnDesk {
    /// A desk with so many empty batches.
    pub fn new(batches: usize, horizon: u32) -> Self {
        Self {
            windows: Windows::new(horizon),
            works: BTreeMap::new(),
            surveys: BTreeSet::new(),
            not_before: BTreeMap::new(),
            read: VecDeque::new(),
            changes: Vec::new(),
            empty: std::iter::repeat_with(Batch::default).take(batches).collect(),
            in_sink: 0,
            failed: Vec::new(),
            finished: Vec::new(),
        }
    }

    /// What a reader may do now, if anything.
    pub fn claim(&mut self, desk: &Desk, now: Instant) -> Option<Claim> {
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
    pub fn conclude(&mut self, desk: &Desk, reading: ReadingId) {
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

    /// Takes a batch back.
    pub fn recycle(&mut self, mut batch: Batch) {
        batch.clear(KEEP_BATCH_BYTES);
        self.empty.push(batch);
    }
}

pub(super) fn report(desk: &Desk, reading: ReadingId, work: &Work) -> Report {
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
