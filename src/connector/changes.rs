//! What a table has become, compared with what its topic was written under: what follows from it for the topic.
//!
//! The rows of the topic agree with a shape; since then, some were written under the versions that were announced. The
//! table is another one now. What must be done is the most that any difference asks for:
//!
//! - **Nothing**, or to note the new shape: old rows mean what they meant, and what the table has more, they have as null.
//! - **Read**: rows may hold values that no event tells of, or hold them under other names or as other types.
//! - **Sweep**: besides, rows may be gone, or have other keys, of which no event tells: all is read, and what is older in
//!   the topic than that gets tombstones.
//!
//! When in doubt, it is read. Pure.

use std::fmt;

use crate::kafka::shapes::{Announced, ShapeColumn, TableShape, differ};

/// What a difference asks for; each is more than the one before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Demand {
    /// It is as it was.
    Nothing,
    /// Nothing, but the shape is another one.
    Note,
    /// To read the heaps from this oid on.
    Read {
        /// Of a partitioned table, those before it need not be read. The greater, the less to read.
        from: std::cmp::Reverse<u32>,
        /// Why.
        reason: Reason,
    },
    /// To read all, and to sweep what is older.
    Sweep(Reason),
}

/// Why a table is read again; `Display` is for people. Of more than one, the last is told: with `snapshot = "never"`, those
/// of missed changes stop the connector.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    ColumnAdded(String),
    ColumnRenamed { was: String, now: String },
    ColumnType(String),
    ColumnRewritten(String),
    ColumnCaptured(String),
    ColumnsInBetween,
    RecordsSkipped,
    LabelRenamed { was: String, now: String },
    Composite,
    PartitionAdded,
    PartitionGone,
    PartitionRewritten,
    PartitionAttachedAgain,
    RowFilter,
    Renamed { was: String },
    KeySchema,
    KeyChanged { was: String, now: String },
    Publication,
    OtherTable,
}

impl Reason {
    /// Whether changes of the table never came down the stream: its topic lacks what it should have, be it that it never
    /// had the table's old rows.
    pub fn is_of_missed_changes(&self) -> bool {
        matches!(self, Reason::Publication | Reason::OtherTable)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::ColumnAdded(name) => {
                write!(f, "column {name:?} was added, and rows of before may have a value in it")
            }
            Reason::ColumnRenamed { was, now } => write!(f, "column {was:?} is called {now:?} now"),
            Reason::ColumnType(name) => write!(f, "column {name:?} has another type"),
            Reason::ColumnRewritten(name) => {
                write!(f, "the table was rewritten, and column {name:?} may have other values")
            }
            Reason::ColumnCaptured(name) => write!(f, "column {name:?} is captured now"),
            Reason::ColumnsInBetween => write!(f, "rows were written under columns that were changed since"),
            Reason::RecordsSkipped => {
                write!(
                    f,
                    "records were left out, for a value that could not be looked up any more, or for want of a key"
                )
            }
            Reason::LabelRenamed { was, now } => write!(f, "the enum's label {was:?} is called {now:?} now"),
            Reason::Composite => write!(f, "a composite type in it was changed"),
            Reason::PartitionAdded => write!(f, "a partition was added or attached"),
            Reason::PartitionGone => write!(f, "a partition was detached or dropped"),
            Reason::PartitionRewritten => write!(f, "a partition was truncated or rewritten"),
            Reason::PartitionAttachedAgain => {
                write!(f, "a partition was detached and attached again, and may have been changed in between")
            }
            Reason::Publication => write!(f, "the publication didn't carry all of its changes for a while"),
            Reason::RowFilter => write!(f, "the publication's row filter was changed"),
            Reason::KeyChanged { was, now } => write!(f, "its key was ({was}) and is ({now})"),
            Reason::KeySchema => write!(f, "its key's schema is another one: a type or a field in it has another name"),
            Reason::OtherTable => write!(f, "it was dropped and created anew"),
            Reason::Renamed { was } => write!(f, "it was called {was}"),
        }
    }
}

/// VARCHAR and VARBIT: a longer one holds what the shorter one held.
const GROWING: &[u32] = &[1043, 1562];
/// Types below this oid are built in.
const FIRST_OWN_OID: u32 = 16_384;

/// What follows from the table being `now`, where its topic was written under `was`.
pub fn compare(was: &TableShape, now: &TableShape) -> Demand {
    let mut demand = if was.is_same_look(now) && was.announced.is_empty() { Demand::Nothing } else { Demand::Note };
    let mut ask = |more: Demand| demand = std::mem::replace(&mut demand, Demand::Nothing).max(more);
    if was.oid != now.oid {
        return Demand::Sweep(Reason::OtherTable);
    }
    if was.name != now.name {
        ask(Demand::Sweep(Reason::Renamed { was: was.name.clone() }));
    }
    if was.membership != now.membership {
        ask(Demand::Sweep(Reason::Publication));
    }
    if was.row_filter != now.row_filter {
        ask(Demand::Sweep(Reason::RowFilter));
    }
    keys(was, now, &mut ask);
    partitions(was, now, &mut ask);
    columns(was, now, &mut ask);
    types(was, now, &mut ask);
    for announced in &was.announced {
        in_between(was, announced, now, &mut ask);
    }
    demand
}

/// Read it all.
fn read(reason: Reason) -> Demand {
    Demand::Read { from: std::cmp::Reverse(0), reason }
}

/// The key's schema is a part of the records' keys, and with it the names and types of its columns.
fn keys(was: &TableShape, now: &TableShape, ask: &mut impl FnMut(Demand)) {
    let typed = |shape: &TableShape| {
        let of = |name: &String| {
            let column = shape.columns.iter().find(|column| column.name == *name);
            (name.clone(), column.map(|column| (column.number, column.type_oid, column.typmod, column.as_text)))
        };
        shape.key.iter().map(of).collect::<Vec<_>>()
    };
    if typed(was) != typed(now) {
        ask(Demand::Sweep(key_changed(&was.key, &now.key)));
    }
    if differ(was.key_schema, now.key_schema) {
        ask(Demand::Sweep(Reason::KeySchema));
    }
}

fn key_changed(was: &[String], now: &[String]) -> Reason {
    Reason::KeyChanged { was: was.join(", "), now: now.join(", ") }
}

fn partitions(was: &TableShape, now: &TableShape, ask: &mut impl FnMut(Demand)) {
    if !was.partitioned && !now.partitioned {
        return;
    }
    for (oid, node) in &was.heaps {
        match now.heaps.get(oid) {
            None => ask(Demand::Sweep(Reason::PartitionGone)),
            Some(now) if now != node => ask(Demand::Sweep(Reason::PartitionRewritten)),
            Some(_) => {}
        }
    }
    for (oid, links) in &was.links {
        if now.links.get(oid).is_some_and(|now| now != links) {
            ask(Demand::Sweep(Reason::PartitionAttachedAgain));
        }
    }
    // Whether it came with rows, nothing tells. Those from the first new one on are read, which mostly are just these.
    if let Some(first) = now.heaps.keys().find(|oid| !was.heaps.contains_key(oid)) {
        ask(Demand::Read { from: std::cmp::Reverse(*first), reason: Reason::PartitionAdded });
    }
}

fn columns(was: &TableShape, now: &TableShape, ask: &mut impl FnMut(Demand)) {
    let is_rewritten = was.heaps != now.heaps;
    // A rewrite alone is VACUUM FULL. One that gave a column other values has changed its row of the catalog, too, be it
    // that the type stayed.
    let has_moved = was.heaps.iter().any(|(oid, node)| now.heaps.get(oid).is_some_and(|now| now != node));
    let known = |column: &ShapeColumn| was.columns.iter().find(|known| known.number == column.number);
    let mut added = 0;
    for column in &now.columns {
        let name = || column.name.clone();
        if let Some(known) = known(column).filter(|known| has_moved && !known.version.is_empty())
            && known.version != column.version
        {
            let reason = Reason::ColumnRewritten(name());
            ask(if now.key.contains(&column.name) { Demand::Sweep(reason) } else { read(reason) });
        }
        match known(column) {
            Some(known) if known.name != column.name => {
                ask(read(Reason::ColumnRenamed { was: known.name.clone(), now: name() }));
            }
            Some(known) if known.type_oid != column.type_oid || known.as_text != column.as_text => {
                ask(read(Reason::ColumnType(name())));
            }
            Some(known) if known.typmod != column.typmod => {
                let is_longer = column.typmod == -1 || (known.typmod != -1 && column.typmod > known.typmod);
                if is_rewritten || !is_longer || !GROWING.contains(&column.type_oid) {
                    ask(read(Reason::ColumnType(name())));
                }
            }
            Some(_) => {}
            None if column.number <= was.natts => ask(read(Reason::ColumnCaptured(name()))),
            None => {
                added += 1;
                // Old records may have a former column's value under the name. A rewrite gives old rows the value that they
                // lacked, and forgets that they did.
                let has_been =
                    was.former.contains(&column.name) || was.columns.iter().any(|was| was.name == column.name);
                if column.has_missing || is_rewritten || has_been {
                    ask(read(Reason::ColumnAdded(name())));
                }
            }
        }
    }
    // Some were added and dropped again, or are not captured: rows may have been written under any names.
    if i32::from(now.natts) - i32::from(was.natts) != added && !was.announced.is_empty() {
        ask(read(Reason::ColumnsInBetween));
    }
}

/// Where a column of the key has a type that isn't built in, what was made of the type may be another text of the key.
fn types(was: &TableShape, now: &TableShape, ask: &mut impl FnMut(Demand)) {
    let is_in_key = |column: &ShapeColumn| column.type_oid >= FIRST_OWN_OID && now.key.contains(&column.name);
    let may_be_key = now.columns.iter().any(is_in_key);
    let demand = |reason| if may_be_key { Demand::Sweep(reason) } else { read(reason) };
    for (oid, label) in &was.labels {
        if let Some(renamed) = now.labels.get(oid).filter(|now| *now != label) {
            ask(demand(Reason::LabelRenamed { was: label.clone(), now: renamed.clone() }));
        }
    }
    let is_other = |(oid, fields): (&u32, &String)| now.composites.get(oid).is_some_and(|now| now != fields);
    if was.composites.iter().any(is_other) {
        ask(demand(Reason::Composite));
    }
}

/// Rows were written under `announced`, which mostly came after `was`: they agree with `now` if each of their columns is
/// one of its columns, or one that `was` had too and is dropped now. A column that `was` had already and they lack, they
/// lack a value in: they are older than `was`.
fn in_between(was: &TableShape, announced: &Announced, now: &TableShape, ask: &mut impl FnMut(Demand)) {
    if announced.skipped {
        return ask(read(Reason::RecordsSkipped));
    }
    if announced.key != now.key {
        ask(Demand::Sweep(key_changed(&announced.key, &now.key)));
    }
    if differ(announced.key_schema, now.key_schema) {
        ask(Demand::Sweep(Reason::KeySchema));
    }
    let is_same = |column: &ShapeColumn, (name, type_oid, typmod): &(String, u32, i32)| {
        column.name == *name && column.type_oid == *type_oid && column.typmod == *typmod
    };
    let agrees = |written: &(String, u32, i32)| {
        let was_it = was.columns.iter().find(|column| column.name == written.0);
        let is_dropped = was_it.is_some_and(|was| now.columns.iter().all(|now| now.number != was.number));
        let has_name = now.columns.iter().any(|column| column.name == written.0);
        let has_grown = now.columns.iter().any(|column| {
            column.name == written.0 && column.type_oid == written.1 && GROWING.contains(&written.1) && !is_dropped
        });
        now.columns.iter().any(|column| is_same(column, written)) || has_grown || (is_dropped && !has_name)
    };
    let lacks = |column: &ShapeColumn| {
        was.columns.iter().any(|was| was.number == column.number)
            && announced.columns.iter().all(|(name, ..)| *name != column.name)
    };
    if !announced.columns.iter().all(agrees) || now.columns.iter().any(lacks) {
        ask(read(Reason::ColumnsInBetween));
    }
}

#[cfg(test)]
mod tests;
