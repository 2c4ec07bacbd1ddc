//! Random changes of rows.

use fastrand::Rng;

use super::ddl::quoted;
use super::kinds::{Changing, Kinds, value};
use super::table::{Column, ROW, Table};

/// The numbers of rows are spread over as many, so that they fall into all partitions.
pub const NUMBERS: u64 = 10_007;
const STRIDE: u64 = 7_919;

/// Makes statements; counts the rows that there were.
pub struct Writer {
    rows: u64,
}

impl Writer {
    pub fn new() -> Self {
        Self { rows: 0 }
    }

    /// A number that no row had before.
    fn number(&mut self) -> u64 {
        self.rows += 1;
        self.rows * STRIDE % NUMBERS
    }

    /// A change of some rows of the table.
    pub fn change(&mut self, rng: &mut Rng, table: &Table, kinds: &Kinds, changing: &Changing) -> String {
        match rng.u8(..100) {
            0..=34 => {
                let count = if rng.u8(..8) == 0 { rng.usize(9..=40) } else { rng.usize(1..=8) };
                self.insert(rng, table, kinds, changing, count)
            }
            35..=64 => update(rng, table, kinds, changing),
            65..=72 => self.rekey(rng, table, kinds, changing),
            73..=84 => format!("DELETE FROM {} WHERE {}", table.sql, some(rng, table, 6)),
            85..=95 => format!("UPDATE {} SET {ROW} = {ROW} WHERE {}", table.sql, some(rng, table, 12)),
            96 => format!("TRUNCATE {} RESTART IDENTITY CASCADE", table.sql),
            _ => {
                let delete = format!("DELETE FROM {} WHERE {}", table.sql, some(rng, table, 3));
                format!("{delete}; {}", self.insert(rng, table, kinds, changing, 2))
            }
        }
    }

    /// So many new rows.
    pub fn insert(&mut self, rng: &mut Rng, table: &Table, kinds: &Kinds, changing: &Changing, count: usize) -> String {
        let columns = table.written();
        let names: Vec<_> = columns.iter().map(|column| quoted(&column.name)).collect();
        let mut row = || {
            let cell = |column: &Column| match column.name == ROW {
                true => self.number().to_string(),
                false => cell(rng, column, kinds, changing),
            };
            format!("({})", columns.iter().map(cell).collect::<Vec<_>>().join(", "))
        };
        let rows: Vec<_> = (0..count).map(|_| row()).collect();
        let (names, rows) = (names.join(", "), rows.join(", "));
        format!("INSERT INTO {} ({names}) VALUES {rows} ON CONFLICT DO NOTHING", table.sql)
    }

    /// One row gets another key.
    fn rekey(&mut self, rng: &mut Rng, table: &Table, kinds: &Kinds, changing: &Changing) -> String {
        let key = |column: &&Column| table.key.contains(&column.name);
        let columns = table.written();
        let set = columns.iter().filter(key).map(|column| {
            let value = match column.name == ROW {
                true => self.number().to_string(),
                false => value(rng, &kinds.of(&column.kind), changing),
            };
            format!("{} = {value}", quoted(&column.name))
        });
        let set = set.collect::<Vec<_>>().join(", ");
        format!("UPDATE {} SET {set} WHERE {}", table.sql, some(rng, table, 1))
    }
}

fn update(rng: &mut Rng, table: &Table, kinds: &Kinds, changing: &Changing) -> String {
    let mut columns = table.others();
    columns.retain(|column| !table.key.contains(&column.name));
    rng.shuffle(&mut columns);
    columns.truncate(rng.usize(1..=3));
    let set: Vec<_> = columns
        .iter()
        .map(|column| format!("{} = {}", quoted(&column.name), cell(rng, column, kinds, changing)))
        .collect();
    let set = if set.is_empty() { format!("{ROW} = {ROW}") } else { set.join(", ") };
    format!("UPDATE {} SET {set} WHERE {}", table.sql, some(rng, table, 8))
}

/// A cell: a value, DEFAULT or NULL.
fn cell(rng: &mut Rng, column: &Column, kinds: &Kinds, changing: &Changing) -> String {
    match rng.u8(..10) {
        0 if column.has_default => "DEFAULT".to_owned(),
        1 | 2 if !column.not_null => "NULL".to_owned(),
        _ => value(rng, &kinds.of(&column.kind), changing),
    }
}

/// A condition that some rows meet.
fn some(rng: &mut Rng, table: &Table, most: usize) -> String {
    let (from, count) = (rng.u64(..NUMBERS), rng.usize(1..=most));
    let Table { sql, .. } = table;
    format!("{ROW} IN (SELECT {ROW} FROM {sql} ORDER BY ({ROW} + {from}) % {NUMBERS} LIMIT {count})")
}
