//! Which columns make the key, and in which order.
//!
//! The columns that the mapping names, else the primary key where the replica identity carries it (DEFAULT, or FULL),
//! else the replica identity index. A delete must be able to name its key, so the key lies within the columns that
//! the Relation message flags: those, and no others, are in the old row that the WAL carries.
//!
//! The message tells the set of the replica identity's columns, the catalog their order. With one column there is
//! nothing to order, and the message alone decides: so renaming such a column can't stop a stream that is behind.

use super::error::ShapeProblem;
use super::shape::{ShapeOptions, unknown_column};
use crate::pgoutput::RelationMessage;
use crate::postgres::catalog::{ReplicaIdentity, TableFacts};

/// The places of the key's columns, in the key's order.
pub(super) fn resolve(
    relation: &RelationMessage<'_>,
    sql_name: &str,
    table: &TableFacts,
    options: &ShapeOptions<'_>,
) -> Result<Vec<usize>, ShapeProblem> {
    if relation.replica_identity == ReplicaIdentity::Nothing {
        return Err(ShapeProblem::IdentityNothing { table: sql_name.to_owned() });
    }
    let key = match options.key {
        Some(names) => of_mapping(relation, sql_name, names)?,
        None => of_identity(relation, sql_name, table)?,
    };
    let names = relation.columns.iter().map(|column| column.name).collect::<Vec<_>>();
    let excluded = key.iter().filter_map(|index| names.get(*index)).find(|name| is_in(options.exclude_columns, name));
    match excluded {
        Some(name) => Err(ShapeProblem::KeyExcluded { column: (*name).to_owned() }),
        None => Ok(key),
    }
}

/// The places of columns that are taken for the key whatever the replica identity carries; `None` if one isn't there.
pub(super) fn taken(relation: &RelationMessage<'_>, names: &[String]) -> Option<Vec<usize>> {
    places(relation, names).filter(|places| !places.is_empty())
}

fn is_in(names: &[String], name: &str) -> bool {
    names.iter().any(|other| other == name)
}

fn place(relation: &RelationMessage<'_>, name: &str) -> Option<usize> {
    relation.columns.iter().position(|column| column.name == name)
}

/// The key that the mapping names.
fn of_mapping(relation: &RelationMessage<'_>, sql_name: &str, names: &[String]) -> Result<Vec<usize>, ShapeProblem> {
    if names.is_empty() {
        return Err(ShapeProblem::KeyEmpty);
    }
    let mut key = Vec::with_capacity(names.len());
    for name in names {
        let index = place(relation, name).ok_or_else(|| unknown_column("key", name, relation))?;
        if key.contains(&index) {
            return Err(ShapeProblem::KeyTwice { column: name.clone() });
        }
        key.push(index);
    }
    let flagged = flagged(relation);
    let uncovered = names.iter().filter(|name| !flagged.contains(&name.as_str())).cloned().collect::<Vec<_>>();
    match uncovered.is_empty() {
        true => Ok(key),
        false => Err(ShapeProblem::KeyNotInIdentity { table: sql_name.to_owned(), columns: uncovered }),
    }
}

/// The columns that the message says are in the replica identity; under FULL, all.
fn flagged<'a>(relation: &RelationMessage<'a>) -> Vec<&'a str> {
    let full = relation.replica_identity == ReplicaIdentity::Full;
    relation.columns.iter().filter(|column| full || column.in_replica_identity).map(|column| column.name).collect()
}

/// The key that the replica identity gives.
fn of_identity(relation: &RelationMessage<'_>, sql_name: &str, table: &TableFacts) -> Result<Vec<usize>, ShapeProblem> {
    let columns = match relation.replica_identity {
        ReplicaIdentity::Index => &table.replica_identity_index,
        _ => &table.primary_key,
    };
    refuse_unpublished(relation, sql_name, table, columns)?;
    let flagged = flagged(relation);
    let missing = |problem: fn(String) -> ShapeProblem| match flagged.is_empty() {
        true => Err(problem(sql_name.to_owned())),
        false => Ok(()),
    };
    match relation.replica_identity {
        ReplicaIdentity::Default => {
            missing(|table| ShapeProblem::NoPrimaryKey { table })?;
            in_order(relation, &flagged, &table.primary_key)
        }
        ReplicaIdentity::Index => {
            missing(|table| ShapeProblem::IdentityIndexGone { table })?;
            in_order(relation, &flagged, &table.replica_identity_index)
        }
        ReplicaIdentity::Full if table.primary_key.is_empty() => {
            Err(ShapeProblem::FullWithoutKey { table: sql_name.to_owned() })
        }
        // All columns are flagged, so all that can be checked is that the primary key's are there.
        ReplicaIdentity::Full => places(relation, &table.primary_key).ok_or_else(|| changed(&flagged, table)),
        ReplicaIdentity::Nothing => Err(ShapeProblem::IdentityNothing { table: sql_name.to_owned() }),
    }
}

/// A generated column that isn't published is in no message: what is left of the key would be the same for rows that
/// differ.
fn refuse_unpublished(
    relation: &RelationMessage<'_>,
    sql_name: &str,
    table: &TableFacts,
    key: &[String],
) -> Result<(), ShapeProblem> {
    let is_generated = |name: &str| table.columns.iter().any(|column| column.generated && column.name == name);
    match key.iter().find(|name| place(relation, name).is_none() && is_generated(name)) {
        Some(column) => Err(ShapeProblem::KeyGenerated { table: sql_name.to_owned(), column: column.clone() }),
        None => Ok(()),
    }
}

/// The flagged columns, in the order that the catalog gives them, if it speaks of the same columns.
fn in_order(relation: &RelationMessage<'_>, flagged: &[&str], catalog: &[String]) -> Result<Vec<usize>, ShapeProblem> {
    let same = catalog.len() == flagged.len() && catalog.iter().all(|name| flagged.contains(&name.as_str()));
    let key = match flagged {
        [only] => place(relation, only).map(|index| vec![index]),
        _ if same => places(relation, catalog),
        _ => None,
    };
    key.ok_or_else(|| ShapeProblem::KeyChanged { stream: owned(flagged), catalog: catalog.to_vec() })
}

fn places(relation: &RelationMessage<'_>, names: &[String]) -> Option<Vec<usize>> {
    names.iter().map(|name| place(relation, name)).collect()
}

fn changed(flagged: &[&str], table: &TableFacts) -> ShapeProblem {
    ShapeProblem::KeyChanged { stream: owned(flagged), catalog: table.primary_key.clone() }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
