//! The Relation message that the stream would send for a table as the catalog has it now.
//!
//! For what is asked before the stream says anything: `check`, `schema`, and the refusal of tables that can't be
//! captured. The stream's own message decides in the end.

use crate::pgoutput::{RelationColumn, RelationMessage};
use crate::postgres::catalog::{ColumnFacts, ReplicaIdentity, TableFacts};

/// The message for `table`. `published` are the columns that the publication carries; `None`: all but the generated
/// ones, which no publication carries before Postgres 18, nor there unless asked to.
pub fn relation_of<'a>(table: &'a TableFacts, published: Option<&[String]>) -> RelationMessage<'a> {
    let is_published = |column: &&ColumnFacts| match published {
        Some(published) => published.contains(&column.name),
        None => !column.generated,
    };
    let identity = |column: &String| match table.replica_identity {
        ReplicaIdentity::Default => table.primary_key.contains(column),
        ReplicaIdentity::Index => table.replica_identity_index.contains(column),
        ReplicaIdentity::Full => true,
        ReplicaIdentity::Nothing => false,
    };
    let columns = table.columns.iter().filter(is_published).map(|column| RelationColumn {
        in_replica_identity: identity(&column.name),
        name: &column.name,
        type_oid: column.type_oid,
        typmod: column.typmod,
    });
    RelationMessage {
        oid: table.oid,
        schema: &table.schema,
        name: &table.name,
        replica_identity: table.replica_identity,
        columns: columns.collect(),
    }
}
