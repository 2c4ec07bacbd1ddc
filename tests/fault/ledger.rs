//! What the source has committed, and so what the topics must hold: written by the load, read by the checker.

use std::collections::HashMap;

use super::tables::{COUNTERS, TABLES};

/// A key of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub table: usize,
    pub key: String,
}

/// A record that must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub tx: u64,
    /// Of the row; none for a tombstone.
    pub version: Option<i64>,
}

/// Committed transactions only.
#[derive(Default)]
pub struct Ledger {
    /// The records of each key in commit order.
    places: HashMap<Place, Vec<Entry>>,
    transactions: u64,
    row_changes: u64,
    records: [u64; TABLES.len()],
}

impl Place {
    pub fn new(table: usize, key: String) -> Self {
        Self { table, key }
    }
}

impl Ledger {
    /// Adds a transaction that is known to be committed. The entries of one key come in the order of the statements,
    /// and a writer reports its transactions in their order. Only counters have several writers, which may report out
    /// of order: their versions say who was first.
    pub fn committed(&mut self, row_changes: usize, records: Vec<(Place, Entry)>) {
        self.transactions += 1;
        self.row_changes += row_changes as u64;
        for (place, entry) in records {
            self.records[place.table] += 1;
            let counted = place.table == COUNTERS;
            let entries = self.places.entry(place).or_default();
            let at =
                if counted { entries.partition_point(|other| other.version < entry.version) } else { entries.len() };
            entries.insert(at, entry);
        }
    }

    pub fn places(&self) -> &HashMap<Place, Vec<Entry>> {
        &self.places
    }

    pub fn transactions(&self) -> u64 {
        self.transactions
    }

    pub fn row_changes(&self) -> u64 {
        self.row_changes
    }

    /// How many records there must be of each table: one a row change, and one more for a changed key.
    pub fn records(&self) -> [u64; TABLES.len()] {
        self.records
    }
}
