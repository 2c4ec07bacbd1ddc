//! What the catalog knows and the stream doesn't tell: tables with their keys, types, publications, slots, the server.
//!
//! Each query is a method of [`Control`](super::control::Control) that yields plain facts; what they mean for a
//! connector is decided elsewhere. Each but that for a publication reads all it needs in one statement, so that the
//! parts of an answer are of the same moment. All run on Postgres 14 to 18, without superuser.

mod publication;
mod reading;
mod server;
mod slot;
mod states;
mod tables;
mod toasted;
mod types;

use super::control::ControlError;
use super::sql;
use crate::lsn::Lsn;

pub use publication::{PublicationFacts, PublishedTable, add_tables_sql, create_publication_sql};
pub use reading::{Ended, HeapFacts, Published, SnapshotFacts, Writer};
pub use server::ServerFacts;
pub use slot::{SlotFacts, WalStatus};
pub use states::{ColumnState, TableState};
pub use toasted::{KeyColumn, Moment, Rows, TableNow, facts, facts_sql, rows_sql};

/// The name of a table with its schema. Its `Display` is SQL, quoted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The schema, as it is in the catalog: not quoted.
    pub schema: String,
    /// The name, as it is in the catalog: not quoted.
    pub name: String,
}

impl TableName {
    /// From the names as they are in the catalog.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> TableName {
        TableName { schema: schema.into(), name: name.into() }
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&sql::qualified(&self.schema, &self.name))
    }
}

/// How a table's old rows are identified in the WAL (`pg_class.relreplident`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplicaIdentity {
    /// `d`: the primary key, if there is one.
    Default,
    /// `n`: not at all.
    Nothing,
    /// `f`: by the whole row.
    Full,
    /// `i`: by a unique index.
    Index,
}

impl ReplicaIdentity {
    /// From the letter that the catalog and pgoutput write.
    pub fn from_code(code: u8) -> Option<ReplicaIdentity> {
        match code {
            b'd' => Some(ReplicaIdentity::Default),
            b'n' => Some(ReplicaIdentity::Nothing),
            b'f' => Some(ReplicaIdentity::Full),
            b'i' => Some(ReplicaIdentity::Index),
            _ => None,
        }
    }
}

/// A table as the catalog has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFacts {
    /// `pg_class.oid`.
    pub oid: u32,
    /// The schema's name.
    pub schema: String,
    /// The table's name.
    pub name: String,
    /// `pg_class.relkind`: `r` ordinary, `p` partitioned, `f` foreign.
    pub relkind: char,
    /// `pg_class.relpersistence`: `p` permanent, `u` unlogged, `t` temporary.
    pub persistence: char,
    /// What of an old row the WAL carries.
    pub replica_identity: ReplicaIdentity,
    /// Whether it is a partition of another table.
    pub is_partition: bool,
    /// The topmost table that it is a partition of; `None` if it is none.
    pub partition_root: Option<TableName>,
    /// Columns of the primary key, in the key's order; empty if there is none, or only a deferrable one, which Postgres
    /// does not take for a replica identity.
    pub primary_key: Vec<String>,
    /// Columns of the replica identity index, in the index's order; empty unless REPLICA IDENTITY USING INDEX.
    pub replica_identity_index: Vec<String>,
    /// Live columns in the table's order.
    pub columns: Vec<ColumnFacts>,
}

impl TableFacts {
    /// Its name with its schema.
    pub fn table_name(&self) -> TableName {
        TableName::new(&self.schema, &self.name)
    }
}

/// A column as the catalog has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnFacts {
    /// The column's name.
    pub name: String,
    /// `pg_attribute.atttypid`.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`; -1 for none.
    pub typmod: i32,
    /// `attgenerated` is set: a generated column.
    pub generated: bool,
}

/// A type as the catalog has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeFacts {
    /// `pg_type.oid`.
    pub oid: u32,
    /// The schema's name.
    pub schema: String,
    /// The type's name.
    pub name: String,
    /// `pg_type.typtype`: `b` base, `d` domain, `e` enum, `c` composite, `r` range, `m` multirange, `p` pseudo.
    pub typtype: char,
    /// For a domain: the type below it, and the typmod that the domain was declared with.
    pub base: Option<(u32, i32)>,
    /// For an array, written as `{…}`: the type of its elements. None for `int2vector` and its kin, which are written
    /// otherwise.
    pub element: Option<u32>,
    /// `pg_type.typdelim`: what stands between two values of this type in an array.
    pub delimiter: char,
    /// The extension that it came with.
    pub extension: Option<String>,
}

/// A column of type `"char"`, cast to text.
fn letter(doing: &'static str, text: &str) -> Result<char, ControlError> {
    text.chars().next().ok_or_else(|| not_understood(doing, text))
}

/// A column of type `pg_lsn`, cast to text.
fn lsn(doing: &'static str, text: &str) -> Result<Lsn, ControlError> {
    text.parse().map_err(|_| not_understood(doing, text))
}

fn not_understood(doing: &'static str, value: &str) -> ControlError {
    ControlError::NotUnderstood { doing, value: value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_name_is_written_as_sql() {
        assert_eq!(TableName::new("Shop", "or\"ders").to_string(), r#""Shop"."or""ders""#);
    }
}
