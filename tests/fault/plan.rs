//! What a writer does next, decided before it is done: so what must come out of it is known.

use fastrand::Rng;

use super::ledger::{Entry, Place};
use super::tables::{COUNTER_ROWS, COUNTERS, Change, Statement, TABLES};

/// Rows that one writer may have in one table: enough for a transaction of 5,000.
const ROWS_PER_WRITER: i64 = 6_000;
const NUMBERS_PER_WRITER: i64 = 1_000_000;

/// One transaction.
#[derive(Debug)]
pub struct Transaction {
    pub steps: Vec<Step>,
    pub end: End,
}

#[derive(Debug)]
pub enum Step {
    Do(Statement),
    /// In a savepoint that is released: a subtransaction that counts.
    Nested(Statement),
    /// In a savepoint that is rolled back: nothing of it may be seen.
    Undone(Statement),
    /// Counters go up by one each, in ascending order: nobody waits in a circle.
    Count(Vec<i64>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Commit,
    Rollback,
}

/// The rows of one writer, nobody else's, and the plans for them.
#[derive(Clone)]
pub struct Planner {
    rng: Rng,
    live: Vec<Vec<i64>>,
    dead: Vec<Vec<i64>>,
    version: i64,
}

impl Planner {
    pub fn new(writer: i64, rng: Rng) -> Self {
        let first = (writer + 1) * NUMBERS_PER_WRITER;
        let numbers: Vec<i64> = (first..first + ROWS_PER_WRITER).collect();
        Self { rng, live: vec![Vec::new(); COUNTERS], dead: vec![numbers; COUNTERS], version: 0 }
    }

    /// The next transaction. What the planner knows afterwards holds only if it is committed.
    pub fn next(&mut self) -> Transaction {
        let mut steps = Vec::new();
        let mut rows = self.size();
        while rows > 0 {
            let share = if rows > 1 && self.rng.bool() { self.rng.usize(1..rows) } else { rows };
            steps.push(self.step(share));
            rows -= share;
        }
        if self.rng.u8(..100) < 30 {
            let at = self.rng.usize(..=steps.len());
            let ids = (1..=COUNTER_ROWS).filter(|_| self.rng.bool()).collect();
            steps.insert(at, Step::Count(ids));
        }
        let end = if self.rng.u8(..100) < 6 { End::Rollback } else { End::Commit };
        Transaction { steps, end }
    }

    /// Only what has been undone is forgotten: versions and luck go on, so that nothing is ever done twice.
    pub fn forget(&mut self, before: Self) {
        self.live = before.live;
        self.dead = before.dead;
    }

    pub fn pause_ms(&mut self) -> u64 {
        self.rng.u64(5..60)
    }

    /// Mostly small, now and then 5,000 rows.
    fn size(&mut self) -> usize {
        match self.rng.u8(..100) {
            0..=59 => self.rng.usize(1..=5),
            60..=84 => self.rng.usize(10..=100),
            85..=96 => self.rng.usize(100..=1_000),
            _ => 5_000,
        }
    }

    fn step(&mut self, rows: usize) -> Step {
        if self.rng.u8(..100) < 8 {
            let before = self.clone();
            let statement = self.statement(rows);
            self.forget(before);
            return Step::Undone(statement);
        }
        let nested = self.rng.u8(..100) < 8;
        let statement = self.statement(rows);
        if nested { Step::Nested(statement) } else { Step::Do(statement) }
    }

    fn statement(&mut self, rows: usize) -> Statement {
        let table = self.rng.usize(..COUNTERS);
        let rows = rows.min(TABLES[table].most_rows);
        let change = match self.rng.u8(..100) {
            0..=34 => Change::Insert,
            35..=69 => Change::Update,
            70..=84 => Change::Delete,
            _ => Change::Rekey,
        };
        // Where too few rows are alive or dead for it, the other side has more; if that too is short, all it has.
        let (live, dead) = (self.live[table].len(), self.dead[table].len());
        let change = match change {
            Change::Insert if dead < rows => Change::Delete,
            Change::Update | Change::Delete if live < rows => Change::Insert,
            Change::Rekey if live.min(dead) < rows => {
                if live > dead {
                    Change::Update
                } else {
                    Change::Insert
                }
            }
            change => change,
        };
        self.version += 1;
        self.apply(table, change, rows)
    }

    fn apply(&mut self, table: usize, change: Change, rows: usize) -> Statement {
        let version = self.version;
        let (live, dead) = (&mut self.live[table], &mut self.dead[table]);
        let (rows, becoming) = match change {
            Change::Insert => (move_some(&mut self.rng, dead, live, rows), Vec::new()),
            Change::Delete => (move_some(&mut self.rng, live, dead, rows), Vec::new()),
            Change::Update => (some(&mut self.rng, live, rows), Vec::new()),
            Change::Rekey => {
                let old = take(&mut self.rng, live, rows);
                let new = move_some(&mut self.rng, dead, live, old.len());
                dead.extend(&old);
                (old, new)
            }
        };
        Statement { table, change, rows, becoming, version }
    }
}

fn take(rng: &mut Rng, from: &mut Vec<i64>, count: usize) -> Vec<i64> {
    (0..count.min(from.len())).map(|_| from.swap_remove(rng.usize(..from.len()))).collect()
}

fn move_some(rng: &mut Rng, from: &mut Vec<i64>, to: &mut Vec<i64>, count: usize) -> Vec<i64> {
    let moved = take(rng, from, count);
    to.extend(&moved);
    moved
}

fn some(rng: &mut Rng, of: &mut Vec<i64>, count: usize) -> Vec<i64> {
    let chosen = take(rng, of, count);
    of.extend(&chosen);
    chosen
}

/// The records that the statement must become, in order for each key.
pub fn records(statement: &Statement, tx: u64) -> Vec<(Place, Entry)> {
    let table = statement.table;
    let row = |n: i64| (Place::new(table, TABLES[table].key_text(n)), Entry { tx, version: Some(statement.version) });
    let tombstone = |n: i64| (Place::new(table, TABLES[table].key_text(n)), Entry { tx, version: None });
    let rows = statement.rows.iter().copied();
    match statement.change {
        Change::Insert | Change::Update => rows.map(row).collect(),
        Change::Delete => rows.map(tombstone).collect(),
        Change::Rekey => rows.map(tombstone).chain(statement.becoming.iter().copied().map(row)).collect(),
    }
}
