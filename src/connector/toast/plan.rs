//! What is to be asked for: records that are alike are looked up together, by a unique index of the table as it is now.
//!
//! Pure. Says of each group of records how its rows are found, or that they are gone, or can't be known.

use std::collections::HashMap;
use std::sync::Arc;

use crate::connector::assembler::AssembleError;
use crate::kafka::{Batch, Kept, Pending, RelationVersion};
use crate::pgoutput::Cell;
use crate::postgres::catalog::{KeyColumn, Rows, TableNow, rows_sql};
use crate::relation::RowColumn;

/// Records of one relation version that lack the same columns, and can be found by the same.
pub(super) struct Group {
    pub(super) version: Arc<RelationVersion>,
    columns: Vec<Has>,
}

/// What a record has of a column.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Has {
    /// Nothing: it is looked up.
    Nothing,
    /// A value of the replica identity. Under one that is FULL in name only, one of its columns may have none.
    Identity,
    /// What doesn't matter.
    Other,
}

fn has<'a>(kept: Kept<'a>, version: &'a RelationVersion) -> impl Iterator<Item = Has> {
    kept.zip(&version.rows.columns).map(|(cell, column)| match cell {
        _ if is_lacking(cell, column) => Has::Nothing,
        Cell::Text(_) if column.in_identity => Has::Identity,
        _ => Has::Other,
    })
}

pub(super) fn is_lacking(cell: Cell<'_>, column: &RowColumn) -> bool {
    cell == Cell::Unchanged && column.captured
}

/// The groups, and of which each record is.
pub(super) fn groups(batch: &Batch, pendings: &[Pending]) -> (Vec<Group>, Vec<usize>) {
    let mut groups: Vec<Group> = Vec::new();
    let of = pendings.iter().map(|pending| {
        let version = &pending.version;
        let is_of = |group: &Group| {
            Arc::ptr_eq(&group.version, version) && group.columns.iter().copied().eq(has(batch.kept(pending), version))
        };
        groups.iter().position(is_of).unwrap_or_else(|| {
            let columns = has(batch.kept(pending), version).collect();
            groups.push(Group { version: Arc::clone(version), columns });
            groups.len() - 1
        })
    });
    let of = of.collect();
    (groups, of)
}

/// What can be done for a group.
pub(super) enum Plan<'t> {
    Gone,
    Unknown,
    /// By these columns, which have these places.
    Read(&'t TableNow, &'t [KeyColumn], Vec<usize>),
}

#[derive(Clone, Copy)]
pub(super) enum Verdict {
    /// The table is gone, and all its rows.
    Gone,
    /// The values can't be had.
    Unknown,
    Read,
}

impl Plan<'_> {
    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Plan::Gone => Verdict::Gone,
            Plan::Unknown => Verdict::Unknown,
            Plan::Read(..) => Verdict::Read,
        }
    }
}

impl Group {
    /// The columns of which the records have this, with their places.
    fn that_have(&self, what: Has) -> impl Iterator<Item = (usize, &RowColumn)> {
        let columns = self.version.rows.columns.iter().enumerate();
        columns.zip(&self.columns).filter(move |(_, has)| **has == what).map(|(column, _)| column)
    }

    pub(super) fn plan<'t>(&self, known: &'t HashMap<u32, Option<TableNow>>) -> Result<Plan<'t>, AssembleError> {
        let rows = &self.version.rows;
        let Some(Some(table)) = known.get(&rows.oid) else { return Ok(Plan::Gone) };
        let is_same = |column: &RowColumn| {
            table.column(&column.name).is_some_and(|(type_oid, typmod)| {
                type_oid == column.type_oid && column.typmod.is_none_or(|was| was == typmod)
            })
        };
        if !self.that_have(Has::Nothing).all(|(_, column)| is_same(column)) {
            return Ok(Plan::Unknown);
        }
        let find = |name: &str| self.that_have(Has::Identity).find(|(_, column)| column.name == name);
        let Some(key) = table.unique_key(|name| find(name).is_some()) else {
            let columns = rows.columns.iter().filter(|column| column.in_identity && !rows.is_full);
            return match table.has_identity(columns.map(|column| column.name.as_str())) {
                true => Err(AssembleError::NoUniqueIndex { table: self.version.table.clone() }),
                false => Ok(Plan::Unknown),
            };
        };
        let is_readable =
            |column: &KeyColumn| find(&column.name).is_some_and(|(_, was)| was.type_oid == column.type_oid);
        if !key.iter().all(is_readable) {
            return Ok(Plan::Unknown);
        }
        Ok(Plan::Read(table, key, key.iter().filter_map(|column| Some(find(&column.name)?.0)).collect()))
    }
}

pub(super) fn sql(
    batch: &Batch,
    pendings: &[Pending],
    groups: &[Group],
    group_of: &[usize],
    oids: &[u32],
    plans: &[Plan<'_>],
) -> Result<String, AssembleError> {
    let mut rows = Vec::new();
    let mut cursors = vec![None; groups.len()];
    for (place, (group, plan)) in groups.iter().zip(plans).enumerate() {
        if let Plan::Read(table, key, _) = plan {
            let RelationVersion { rows: version, .. } = &*group.version;
            let columns = group.that_have(Has::Nothing).map(|(_, column)| column.name.as_str()).collect();
            cursors[place] = Some(rows.len());
            rows.push(Rows { table, is_partitioned: version.is_partitioned, columns, key, values: Vec::new() });
        }
    }
    let mut order = Vec::with_capacity(pendings.len());
    for (pending, &group) in pendings.iter().zip(group_of) {
        let (Plan::Read(_, _, places), Some(cursor)) = (&plans[group], cursors[group]) else { continue };
        order.push(cursor);
        for place in places {
            let value = match batch.kept(pending).nth(*place) {
                Some(Cell::Text(text)) => std::str::from_utf8(text).ok(),
                _ => None,
            };
            let value = value.ok_or(AssembleError::OutOfOrder("an update that doesn't name its row"))?;
            rows[cursor].values.push(value);
        }
    }
    Ok(rows_sql(oids, &rows, &order))
}
