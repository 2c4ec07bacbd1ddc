//! How a row of a relation version is found again in its table, for what of it the WAL doesn't carry.
//!
//! By the columns of the replica identity, and not by those of the record's key, of which the mapping may name fewer:
//! only the former are unique. Under REPLICA IDENTITY FULL nothing has to be found, since the old row has it all.

use super::shape::Shape;
use crate::pgoutput::RelationMessage;
use crate::postgres::catalog::ReplicaIdentity;

/// The rows of a table, as a relation version knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRows {
    /// `pg_class.oid`: the table may go by another name by now.
    pub oid: u32,
    /// It has no rows of its own: its partitions have them.
    pub is_partitioned: bool,
    /// In the table's order: a tuple has a cell for each.
    pub columns: Vec<RowColumn>,
}

/// A column of [`TableRows`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowColumn {
    /// The column's name, as the catalog has it (not quoted).
    pub name: String,
    /// `pg_attribute.atttypid`.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`; -1 for none.
    pub typmod: i32,
    /// Whether it is part of the replica identity: then the WAL carries it always.
    pub in_identity: bool,
    /// Whether it becomes a field of the record.
    pub captured: bool,
}

impl TableRows {
    /// The rows of the version that `relation` announces and `shape` is of. `None` if the WAL carries them whole.
    pub fn new(relation: &RelationMessage<'_>, shape: &Shape, is_partitioned: bool) -> Option<Self> {
        if relation.replica_identity == ReplicaIdentity::Full {
            return None;
        }
        let columns = relation.columns.iter().zip(&shape.columns).map(|(announced, column)| RowColumn {
            name: announced.name.to_owned(),
            type_oid: announced.type_oid,
            typmod: announced.typmod,
            in_identity: announced.in_replica_identity,
            captured: column.captured,
        });
        Some(Self { oid: relation.oid, is_partitioned, columns: columns.collect() })
    }
}
