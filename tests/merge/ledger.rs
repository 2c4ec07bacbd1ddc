//! What the source has committed: every version of every row, each of which is written only once.

use std::collections::HashMap;

/// A row's place: its table's, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub table: usize,
    pub number: i64,
}

/// A version that was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub row: Row,
    /// By a transaction that began when the slot was there: so the stream brings it.
    pub streamed: bool,
}

/// By version.
#[derive(Debug, Default)]
pub struct Ledger {
    written: HashMap<i64, Written>,
    pub transactions: usize,
}

impl Ledger {
    /// A row that its table had at first.
    pub fn first(&mut self, row: Row, version: i64) {
        self.written.insert(version, Written { row, streamed: false });
    }

    /// A transaction is committed that wrote these.
    pub fn committed(&mut self, versions: Vec<(i64, Row)>, streamed: bool) {
        self.transactions += 1;
        self.written.extend(versions.into_iter().map(|(version, row)| (version, Written { row, streamed })));
    }

    pub fn get(&self, version: i64) -> Option<Written> {
        self.written.get(&version).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (i64, Written)> {
        self.written.iter().map(|(version, written)| (*version, *written))
    }

    /// In the order in which they were committed.
    pub fn versions_of(&self, row: Row) -> Vec<i64> {
        let mut versions: Vec<_> =
            self.iter().filter(|(_, written)| written.row == row).map(|(version, _)| version).collect();
        versions.sort_unstable();
        versions
    }
}
