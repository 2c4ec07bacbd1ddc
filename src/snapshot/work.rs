//! What is to be read of one table, and what of it is done.
//!
//! A table is first *surveyed*: its heaps are listed (one, or one for each partition), each with its file node and its
//! size. What an earlier run has read of a heap counts if the file node is still the same: a rewrite (VACUUM FULL,
//! CLUSTER, pg_repack, some ALTERs, TRUNCATE) moves every row and leaves no trace in the stream, so the heap starts
//! over. Then readers take stretches, and give them back, or they are merged.
//!
//! A stretch is as long as the last ones let expect: about a chunk's bytes of records. One that turns out too large is
//! given back in halves, down to a single row.
//!
//! Pure: values and rules, no connection, no clock.

use crate::kafka::TopicId;
use crate::kafka::progress::{Ctid, HeapProgress, Reading, Stretch};
use crate::postgres::catalog::{HeapFacts, TableName};

/// A stretch is no longer than this, however little is expected of it.
const BLOCKS_MAX: u32 = 4096;
/// The first stretch of a table has so many for each MiB of a chunk.
const BLOCKS_FIRST: usize = 32;
/// A page has at most so many line pointers, whatever its size (32 KiB at most).
const OFFSETS_MAX: u16 = 1 << 13;

/// Names a reading of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReadingId {
    /// The first rows of a table: by its topic, of which each table has one.
    Initial(TopicId),
    /// A backfill: by its request's id.
    Backfill(i64),
}

/// A stretch that a reader has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// What it is a part of.
    pub reading: ReadingId,
    /// The table that it is a part of.
    pub table: TopicId,
    /// The heap's oid.
    pub heap: u32,
    /// The heap's name.
    pub name: TableName,
    /// The file node under which the stretch means something.
    pub file_node: u32,
    /// What to read.
    pub stretch: Stretch,
    /// Of these rows only: a condition in SQL.
    pub filter: Option<String>,
}

#[derive(Debug)]
struct Heap {
    facts: HeapFacts,
    progress: HeapProgress,
    /// What no reader has taken yet; the last is the next.
    todo: Vec<Stretch>,
}

/// What is to be read of a table.
#[derive(Debug)]
pub struct Work {
    reading: ReadingId,
    table: TopicId,
    filter: Option<String>,
    /// As it was stored, until the survey.
    stored: Reading,
    /// In the order of their oids; `None` before the survey.
    heaps: Option<Vec<Heap>>,
    /// Records of so many bytes are a chunk.
    chunk_bytes: usize,
    blocks_a_chunk: u32,
    rows: u64,
    /// Taken by a reader, and neither merged nor given back.
    taken: usize,
}

impl Work {
    /// The work that is left of a reading.
    pub fn new(
        reading: ReadingId,
        table: TopicId,
        filter: Option<String>,
        stored: Reading,
        chunk_bytes: usize,
    ) -> Self {
        let rows = stored.rows;
        let first = (BLOCKS_FIRST * chunk_bytes) >> 20;
        let blocks_a_chunk = u32::try_from(first).unwrap_or(BLOCKS_MAX).clamp(1, BLOCKS_MAX);
        Self { reading, table, filter, stored, heaps: None, chunk_bytes, blocks_a_chunk, rows, taken: 0 }
    }

    /// The table.
    pub fn table(&self) -> TopicId {
        self.table
    }

    /// Whether the heaps have still to be listed.
    pub fn needs_survey(&self) -> bool {
        self.heaps.is_none()
    }

    /// Whether something of it has been read already, by this run or an earlier one.
    pub fn is_begun(&self) -> bool {
        self.stored != Reading::default() || self.heaps.is_some()
    }

    /// Lets the heaps be listed again.
    pub fn survey_again(&mut self) {
        if self.heaps.is_some() {
            self.stored = self.reading();
            self.heaps = None;
        }
    }

    /// Takes the heaps as they are now, in any order, and goes on with what is stored of them.
    pub fn surveyed(&mut self, mut found: Vec<HeapFacts>) {
        found.sort_by_key(|facts| facts.oid);
        let Reading { done_before, heaps: stored, .. } = std::mem::take(&mut self.stored);
        let heap = |facts: HeapFacts| {
            let same = |progress: &&HeapProgress| progress.oid == facts.oid && progress.file_node == facts.file_node;
            let progress = match stored.iter().find(same) {
                Some(progress) => progress.clone(),
                None if facts.oid < done_before => HeapProgress::new(facts.oid, facts.file_node, 0),
                None => HeapProgress::new(facts.oid, facts.file_node, facts.blocks),
            };
            Heap::new(facts, progress)
        };
        self.heaps = Some(found.into_iter().map(heap).collect());
    }

    /// The next stretch, or `None` if all are taken.
    pub fn take(&mut self) -> Option<Job> {
        let heap = self.heaps.as_mut()?.iter_mut().find(|heap| !heap.todo.is_empty())?;
        let gap = heap.todo.pop()?;
        let end = Ctid(gap.from.0.saturating_add(self.blocks_a_chunk), 0);
        let stretch = Stretch { from: gap.from, to: gap.to.min(end) };
        if stretch.to < gap.to {
            heap.todo.push(Stretch { from: stretch.to, to: gap.to });
        }
        self.taken += 1;
        Some(Job {
            reading: self.reading,
            table: self.table,
            heap: heap.facts.oid,
            name: heap.facts.name.clone(),
            file_node: heap.facts.file_node,
            stretch,
            filter: self.filter.clone(),
        })
    }

    /// Takes back a stretch that couldn't be read, or not be merged.
    pub fn give_back(&mut self, job: &Job) {
        self.taken -= 1;
        if let Some(heap) = self.heap(job) {
            heap.todo.push(job.stretch);
        }
    }

    /// Takes back a stretch that is too large for one chunk. There is nothing to halve in a single row.
    pub fn give_back_halved(&mut self, job: &Job) {
        self.taken -= 1;
        let blocks = job.stretch.to.0.saturating_sub(job.stretch.from.0);
        self.blocks_a_chunk = (blocks / 2).max(1);
        if let Some(heap) = self.heap(job) {
            let (first, second) = halves(job.stretch);
            heap.todo.extend(second);
            heap.todo.push(first);
        }
    }

    /// A heap turned out to be another one than it was: it starts over.
    pub fn rewritten(&mut self, job: &Job, file_node: u32, blocks: u32) {
        self.taken -= 1;
        if let Some(heap) = self.heap(job) {
            let facts = HeapFacts { file_node, blocks, ..heap.facts.clone() };
            *heap = Heap::new(facts, HeapProgress::new(job.heap, file_node, blocks));
        }
    }

    /// What was read of a stretch goes into the topic: tells whether it counts. It doesn't if the heap has started over.
    pub fn merged(&mut self, job: &Job, rows: u64, bytes: usize) -> bool {
        self.taken -= 1;
        let blocks = job.stretch.to.0.saturating_sub(job.stretch.from.0);
        let fitting = u64::from(blocks) * self.chunk_bytes as u64 / bytes.max(1) as u64;
        if blocks > 0 {
            // No more than twice what is known to fit.
            let longest = blocks.saturating_mul(2).max(self.blocks_a_chunk).min(BLOCKS_MAX);
            self.blocks_a_chunk = u32::try_from(fitting).unwrap_or(u32::MAX).clamp(1, longest);
        }
        let Some(heap) = self.heap(job) else { return false };
        heap.progress.add(job.stretch);
        self.rows += rows;
        true
    }

    /// The heap of a job, unless it has started over meanwhile.
    fn heap(&mut self, job: &Job) -> Option<&mut Heap> {
        let heaps = self.heaps.as_mut()?;
        heaps.iter_mut().find(|heap| heap.facts.oid == job.heap && heap.facts.file_node == job.file_node)
    }

    /// Whether all of it is in.
    pub fn is_done(&self) -> bool {
        self.heaps.as_ref().is_some_and(|heaps| heaps.iter().all(|heap| heap.progress.is_done()))
    }

    /// Whether a reader has a part of it.
    pub fn is_taken(&self) -> bool {
        self.taken > 0
    }

    /// Rows that were written, by earlier runs too.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Blocks that are in, and all blocks; `None` before the survey.
    pub fn blocks(&self) -> Option<(u64, u64)> {
        let heaps = self.heaps.as_ref()?;
        let sum = |each: fn(&Heap) -> u32| heaps.iter().map(|heap| u64::from(each(heap))).sum();
        Some((sum(|heap| heap.progress.blocks_done()), sum(|heap| heap.progress.blocks)))
    }

    /// How many rows there are in all, if the statistics tell and all rows are wanted.
    pub fn rows_estimated(&self) -> Option<u64> {
        let rows: u64 = self.heaps.as_ref()?.iter().map(|heap| heap.facts.rows).sum();
        Some(rows).filter(|rows| *rows > 0 && self.filter.is_none())
    }

    /// What is to be stored of it.
    pub fn reading(&self) -> Reading {
        let Some(heaps) = &self.heaps else { return Reading { rows: self.rows, ..self.stored.clone() } };
        let undone = heaps.iter().position(|heap| !heap.progress.is_done()).unwrap_or(heaps.len());
        let done_before = match (heaps.get(undone), heaps.last()) {
            (Some(heap), _) => heap.facts.oid,
            (None, Some(last)) => last.facts.oid.saturating_add(1),
            (None, None) => 0,
        };
        let is_begun = |heap: &&Heap| heap.progress.next > Ctid::default() || !heap.progress.ahead.is_empty();
        let begun = heaps[undone..].iter().filter(is_begun).map(|heap| heap.progress.clone());
        Reading { done_before, heaps: begun.collect(), rows: self.rows }
    }
}

impl Heap {
    fn new(facts: HeapFacts, progress: HeapProgress) -> Self {
        let mut todo = progress.missing();
        todo.reverse();
        Self { facts, progress, todo }
    }
}

fn halves(stretch: Stretch) -> (Stretch, Option<Stretch>) {
    let Stretch { from, to } = stretch;
    let blocks = to.0.saturating_sub(from.0);
    let middle = match blocks {
        2.. => Ctid(from.0 + blocks / 2, 0),
        1 if to.1 == 0 => match from.1 {
            // The greatest part of a page's line pointers is never there.
            offset if offset < OFFSETS_MAX - 1 => Ctid(from.0, middle(offset, OFFSETS_MAX)),
            _ => return (stretch, None),
        },
        1 => Ctid(to.0, 0),
        _ if to.1 - from.1 > 1 => Ctid(from.0, middle(from.1, to.1)),
        _ => return (stretch, None),
    };
    (Stretch { from, to: middle }, Some(Stretch { from: middle, to }))
}

/// Between the two, nearer to the first: rows are few on a page where halving gets so far.
fn middle(from: u16, to: u16) -> u16 {
    from + ((to - from) / 8).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK_BYTES: usize = 2 << 20;
    const ID: ReadingId = ReadingId::Initial(TopicId(0));

    fn facts(oid: u32, file_node: u32, blocks: u32) -> HeapFacts {
        HeapFacts { oid, name: TableName::new("public", format!("t{oid}")), file_node, blocks, rows: 0 }
    }

    fn work(stored: Reading, heaps: &[HeapFacts]) -> Work {
        let mut work = Work::new(ID, TopicId(0), None, stored, CHUNK_BYTES);
        work.surveyed(heaps.to_vec());
        work
    }

    /// Reads all, each stretch with so many bytes; gives the stretches.
    fn read_all(work: &mut Work, bytes: usize) -> Vec<(u32, Stretch)> {
        let mut read = Vec::new();
        while let Some(job) = work.take() {
            read.push((job.heap, job.stretch));
            assert!(work.merged(&job, 1, bytes));
        }
        read
    }

    #[test]
    fn every_block_is_read_once() {
        let mut work = work(Reading::default(), &[facts(2, 9, 100), facts(1, 8, 0)]);
        assert!(!work.is_done());
        let read = read_all(&mut work, CHUNK_BYTES);
        assert_eq!(read, [(2, Stretch::of_blocks(0, 64)), (2, Stretch::of_blocks(64, 100))]);
        assert!(work.is_done() && !work.is_taken());
        assert_eq!(work.blocks(), Some((100, 100)));
        assert_eq!(work.reading(), Reading { done_before: 3, heaps: Vec::new(), rows: 2 });
    }

    #[test]
    fn a_table_without_blocks_is_done_after_the_survey() {
        assert!(work(Reading::default(), &[facts(1, 8, 0)]).is_done());
        assert!(work(Reading::default(), &[]).is_done());
    }

    #[test]
    fn the_next_run_goes_on_where_the_last_one_stopped() {
        let mut first = work(Reading::default(), &[facts(1, 8, 64), facts(2, 9, 200)]);
        let jobs: Vec<Job> = std::iter::from_fn(|| first.take()).take(3).collect();
        first.merged(&jobs[0], 5, CHUNK_BYTES);
        first.merged(&jobs[2], 5, CHUNK_BYTES);
        let stored = first.reading();
        assert_eq!((stored.done_before, stored.heaps.len(), stored.rows), (2, 1, 10));
        // Meanwhile the heaps have grown: what is beyond the former end came by the stream.
        let mut second = work(stored, &[facts(1, 8, 70), facts(2, 9, 300)]);
        let read = read_all(&mut second, CHUNK_BYTES);
        assert_eq!(
            read,
            [(2, Stretch::of_blocks(0, 64)), (2, Stretch::of_blocks(128, 192)), (2, Stretch::of_blocks(192, 200))]
        );
    }

    #[test]
    fn a_heap_with_another_file_node_starts_over() {
        let mut first = work(Reading::default(), &[facts(1, 8, 100)]);
        let job = first.take().unwrap();
        first.merged(&job, 5, CHUNK_BYTES);
        let mut second = work(first.reading(), &[facts(1, 80, 50)]);
        assert_eq!(second.take().unwrap().stretch, Stretch::of_blocks(0, 50));

        let (late, noticed) = (first.take().unwrap(), Job { file_node: 8, ..job });
        first.taken += 1;
        first.rewritten(&noticed, 80, 50);
        assert!(!first.merged(&late, 5, 10), "it was read of the former heap");
        let again = first.take().unwrap();
        assert_eq!((again.file_node, again.stretch), (80, Stretch::of_blocks(0, 50)));
        assert!(!first.is_done());
    }

    #[test]
    fn what_is_given_back_is_taken_again() {
        let mut work = work(Reading::default(), &[facts(1, 8, 100)]);
        let job = work.take().unwrap();
        work.give_back(&job);
        assert!(!work.is_taken());
        assert_eq!(work.take().unwrap().stretch, job.stretch);
    }

    #[test]
    fn too_large_a_stretch_is_halved_down_to_a_single_row() {
        let mut work = work(Reading::default(), &[facts(1, 8, 2)]);
        let mut job = work.take().unwrap();
        let mut halvings = 0;
        while job.stretch != (Stretch { from: Ctid(0, 0), to: Ctid(0, 1) }) {
            work.give_back_halved(&job);
            job = work.take().unwrap();
            halvings += 1;
        }
        assert!(halvings < 60);
        work.give_back_halved(&job);
        assert_eq!(work.take().unwrap().stretch, job.stretch);
        assert!(work.merged(&job, 1, CHUNK_BYTES * 20));
        read_all(&mut work, CHUNK_BYTES);
        assert!(work.is_done());
    }

    #[test]
    fn stretches_grow_while_little_comes_of_them() {
        let mut work = work(Reading::default(), &[facts(1, 8, 100_000)]);
        let longest = read_all(&mut work, 10).iter().map(|(_, stretch)| stretch.to.0 - stretch.from.0).max();
        assert_eq!(longest, Some(BLOCKS_MAX));
    }
}
