//! How a row of a relation version is found again in its table, for what of it the WAL doesn't carry.
//!
//! By the columns of the replica identity, and not by those of the record's key, of which the mapping may name fewer:
//! only the former are unique. Under REPLICA IDENTITY FULL, which mostly has nothing to be found, by any of the row's
//! columns: the stream tells the identity of the table that it publishes, and the WAL follows that of the partition.

use super::shape::Shape;
use super::types::Kind;
use crate::pgoutput::RelationMessage;
use crate::postgres::catalog::ReplicaIdentity;

/// The rows of a table, as a relation version knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRows {
    /// `pg_class.oid`: the table may go by another name by now.
    pub oid: u32,
    /// It has no rows of its own: its partitions have them.
    pub is_partitioned: bool,
    /// Its replica identity is FULL.
    pub is_full: bool,
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
    /// `pg_attribute.atttypmod`, where a value under another one would not fit the record: `None` of most types.
    pub typmod: Option<i32>,
    /// Whether it is part of the replica identity: then the WAL carries it, if the row's partition has that identity too.
    pub in_identity: bool,
    /// Whether it becomes a field of the record.
    pub captured: bool,
}

impl TableRows {
    /// The rows of the version that `relation` announces and `shape` is of.
    pub fn new(relation: &RelationMessage<'_>, shape: &Shape, is_partitioned: bool) -> Self {
        let is_full = relation.replica_identity == ReplicaIdentity::Full;
        let columns = relation.columns.iter().zip(&shape.columns).map(|(announced, column)| RowColumn {
            name: announced.name.to_owned(),
            type_oid: announced.type_oid,
            typmod: depends_on_typmod(&column.pg_type.kind).then_some(announced.typmod),
            in_identity: is_full || announced.in_replica_identity,
            captured: column.captured,
        });
        Self { oid: relation.oid, is_partitioned, is_full, columns: columns.collect() }
    }
}

/// Whether the typmod makes another Avro type, or another text for the same number.
fn depends_on_typmod(kind: &Kind) -> bool {
    match kind {
        Kind::Numeric(_) => true,
        Kind::Array(array) => depends_on_typmod(&array.element),
        _ => false,
    }
}
