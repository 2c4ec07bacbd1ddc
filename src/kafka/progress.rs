//! How far the reading of a table is, as it is stored: which stretches of its heaps are in the topic.
//!
//! A table is read by stretches of `ctid`s, in any order and by several readers. A heap's progress is the place before
//! which all rows are in, and the stretches beyond it that are in already, of which there are only as many as chunks can
//! overtake each other.
//! A partitioned table has a heap for each partition, which are begun in the order of their oids: so what is stored
//! stays small, however many there are.
//!
//! Rows at or beyond the block where a heap ended when its reading began need not be read: they came later, by the
//! stream.

use serde::{Deserialize, Serialize};

/// The place of a row in a heap: block and line pointer. Offsets begin at 1; 0 stands for the block's beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ctid(pub u32, pub u16);

impl std::fmt::Display for Ctid {
    /// As Postgres writes a `tid`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({},{})", self.0, self.1)
    }
}

/// The rows from one place up to, but not at, another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stretch {
    /// The first place in it.
    pub from: Ctid,
    /// The first place after it.
    pub to: Ctid,
}

impl Stretch {
    /// Whole blocks, from `from` up to, but not, `to`.
    pub fn of_blocks(from: u32, to: u32) -> Stretch {
        Stretch { from: Ctid(from, 0), to: Ctid(to, 0) }
    }

    /// Whether no place is in it.
    pub fn is_empty(&self) -> bool {
        self.from >= self.to
    }
}

/// How far the reading of one heap is.
///
/// Invariant: `ahead` is sorted, its stretches don't touch each other, and all lie beyond `next`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeapProgress {
    /// `pg_class.oid` of the table or partition.
    pub oid: u32,
    /// `pg_relation_filenode` when the reading began: under another one, the `ctid`s mean nothing.
    pub file_node: u32,
    /// How many blocks it had when the reading began.
    pub blocks: u32,
    /// All rows before it are in.
    pub next: Ctid,
    /// What is in beyond that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ahead: Vec<Stretch>,
}

impl HeapProgress {
    /// A heap of which nothing is in.
    pub fn new(oid: u32, file_node: u32, blocks: u32) -> Self {
        Self { oid, file_node, blocks, next: Ctid::default(), ahead: Vec::new() }
    }

    /// Notes that a stretch is in.
    pub fn add(&mut self, stretch: Stretch) {
        let at = self.ahead.partition_point(|other| other.from < stretch.from);
        self.ahead.insert(at, stretch);
        let mut joined: Vec<Stretch> = Vec::with_capacity(self.ahead.len());
        for stretch in self.ahead.drain(..) {
            if stretch.from <= self.next {
                self.next = self.next.max(stretch.to);
                continue;
            }
            match joined.last_mut() {
                Some(last) if stretch.from <= last.to => last.to = last.to.max(stretch.to),
                _ => joined.push(stretch),
            }
        }
        self.ahead = joined;
    }

    /// What is not in yet, in order.
    pub fn missing(&self) -> Vec<Stretch> {
        let end = Ctid(self.blocks, 0);
        let mut missing = Vec::new();
        let mut from = self.next;
        for stretch in &self.ahead {
            missing.push(Stretch { from, to: stretch.from });
            from = stretch.to;
        }
        missing.push(Stretch { from, to: end });
        missing.retain(|stretch| !stretch.is_empty());
        missing
    }

    /// Whether all of it is in.
    pub fn is_done(&self) -> bool {
        self.next >= Ctid(self.blocks, 0)
    }

    /// Blocks of which all rows are in.
    pub fn blocks_done(&self) -> u32 {
        let ahead: u32 = self.ahead.iter().map(|stretch| stretch.to.0.saturating_sub(stretch.from.0)).sum();
        self.next.0.saturating_add(ahead).min(self.blocks)
    }
}

/// How far the reading of a table is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Heaps with a smaller oid are in, whole.
    pub done_before: u32,
    /// Those that are begun, or done beyond that; by oid.
    pub heaps: Vec<HeapProgress>,
    /// Rows that were written.
    pub rows: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stretches_that_come_out_of_order_are_joined() {
        let mut heap = HeapProgress::new(1, 2, 10);
        heap.add(Stretch::of_blocks(4, 6));
        heap.add(Stretch::of_blocks(6, 7));
        assert_eq!((heap.next, heap.ahead.clone()), (Ctid(0, 0), vec![Stretch::of_blocks(4, 7)]));
        assert_eq!(heap.missing(), [Stretch::of_blocks(0, 4), Stretch::of_blocks(7, 10)]);
        heap.add(Stretch::of_blocks(0, 4));
        assert_eq!((heap.next, heap.ahead.len(), heap.blocks_done()), (Ctid(7, 0), 0, 7));
        heap.add(Stretch::of_blocks(7, 10));
        assert!(heap.is_done() && heap.missing().is_empty());
    }

    #[test]
    fn an_empty_heap_is_done_at_once() {
        assert!(HeapProgress::new(1, 2, 0).is_done());
    }

    proptest! {
        #[test]
        fn what_is_missing_and_what_was_added_make_up_the_heap(mut cuts in prop::collection::btree_set(1_u32..99, 0..20),
            order in any::<u64>(), take in 0_usize..20)
        {
            cuts.extend([0, 99]);
            let bounds: Vec<u32> = cuts.into_iter().collect();
            let mut stretches: Vec<Stretch> = bounds.windows(2).map(|pair| Stretch::of_blocks(pair[0], pair[1])).collect();
            fastrand::Rng::with_seed(order).shuffle(&mut stretches);
            let mut heap = HeapProgress::new(1, 2, 99);
            let (added, left) = stretches.split_at(take.min(stretches.len()));
            for stretch in added {
                heap.add(*stretch);
            }
            let size = |stretches: &[Stretch]| stretches.iter().map(|s| s.to.0 - s.from.0).sum::<u32>();
            prop_assert_eq!(size(&heap.missing()), size(left));
            prop_assert_eq!(heap.is_done(), left.is_empty());
            for gap in heap.missing() {
                prop_assert!(added.iter().all(|s| s.to <= gap.from || s.from >= gap.to));
            }
        }
    }
}
