//! One version of a table's shape.

use super::error::{ShapeError, ShapeProblem};
use super::key;
use super::names::qualified;
use super::types::{Kind, PgType, TypeMap};
use crate::pgoutput::RelationMessage;
use crate::postgres::catalog::{ReplicaIdentity, TableFacts};

/// One version of a table's shape: what the rows that follow a Relation message mean.
///
/// Invariants: `key` is not empty, names each column at most once, and all its columns are captured, `in_key` and
/// covered by the replica identity; no other column is `in_key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `pg_class.oid`.
    pub oid: u32,
    /// The table's schema, as the catalog has it (not quoted).
    pub schema: String,
    /// The table's name, as the catalog has it (not quoted).
    pub name: String,
    /// What of an old row the WAL carries.
    pub replica_identity: ReplicaIdentity,
    /// In the table's order, captured or not: a tuple has a cell for each.
    pub columns: Vec<Column>,
    /// Places in `columns`, in the key's order.
    pub key: Vec<usize>,
    /// What becomes of a value that its Avro type can't hold.
    pub unrepresentable: Unrepresentable,
}

/// What becomes of a value that its column's Avro type can't hold, as NaN in a decimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unrepresentable {
    /// It stops the connector.
    #[default]
    Error,
    /// Null is written in its place. Not in a key: another row may have the same one.
    Null,
}

/// A column of a [`Shape`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The column's name, as the catalog has it (not quoted).
    pub name: String,
    /// Its type. Where the mapping asks for text, its kind is [`Kind::Text`], whatever the type.
    pub pg_type: PgType,
    /// Whether it becomes a field of the record.
    pub captured: bool,
    /// Whether it is part of the record's key.
    pub in_key: bool,
}

/// What a table's mapping says about its shape.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShapeOptions<'a> {
    /// Columns of the key, in the key's order; `None`: as the replica identity says.
    pub key: Option<&'a [String]>,
    /// Columns that are not captured.
    pub exclude_columns: &'a [String],
    /// Columns that are captured as Postgres's text, whatever their type.
    pub string_columns: &'a [String],
    /// What becomes of a value that its Avro type can't hold.
    pub unrepresentable: Unrepresentable,
}

impl Shape {
    /// The shape that `relation` announces.
    ///
    /// `table` is what the catalog knows of the same table, now; `types` has what [`needed_types`](super::needed_types)
    /// asked for.
    pub fn new(
        relation: &RelationMessage<'_>,
        table: &TableFacts,
        types: &TypeMap,
        options: &ShapeOptions<'_>,
    ) -> Result<Shape, ShapeError> {
        let schema = if relation.schema.is_empty() { "pg_catalog" } else { relation.schema };
        let name = qualified(schema, relation.name);
        build(relation, schema, &name, table, types, options).map_err(|problem| ShapeError { table: name, problem })
    }

    /// The shape that `relation` announces amid a change of the key, when its own key can't be known, or there is none:
    /// with the first of these keys whose columns it has. Rows that are written under such a shape are to be written
    /// again: its key may name several rows, or none.
    pub fn provisional(
        relation: &RelationMessage<'_>,
        table: &TableFacts,
        types: &TypeMap,
        options: &ShapeOptions<'_>,
        keys: &[&[String]],
    ) -> Option<Shape> {
        let schema = if relation.schema.is_empty() { "pg_catalog" } else { relation.schema };
        check_names("exclude_columns", options.exclude_columns, relation, table).ok()?;
        let key = keys.iter().find_map(|names| key::taken(relation, names))?;
        Some(with_key(relation, schema, types, options, key))
    }

    /// The names of the key's columns, in the key's order.
    pub fn key_columns(&self) -> Vec<String> {
        self.key.iter().filter_map(|&index| Some(self.columns.get(index)?.name.clone())).collect()
    }

    /// The table's name as SQL writes it, for messages.
    pub fn sql_name(&self) -> String {
        qualified(&self.schema, &self.name)
    }
}

fn build(
    relation: &RelationMessage<'_>,
    schema: &str,
    sql_name: &str,
    table: &TableFacts,
    types: &TypeMap,
    options: &ShapeOptions<'_>,
) -> Result<Shape, ShapeProblem> {
    check_names("exclude_columns", options.exclude_columns, relation, table)?;
    check_names("columns", options.string_columns, relation, table)?;
    let key = key::resolve(relation, sql_name, table, options)?;
    Ok(with_key(relation, schema, types, options, key))
}

fn with_key(
    relation: &RelationMessage<'_>,
    schema: &str,
    types: &TypeMap,
    options: &ShapeOptions<'_>,
    key: Vec<usize>,
) -> Shape {
    let columns = relation.columns.iter().enumerate().map(|(index, column)| {
        let mut pg_type = PgType::resolve(column.type_oid, column.typmod, types);
        if options.string_columns.iter().any(|name| name == column.name) {
            pg_type.kind = Kind::Text;
        }
        let captured = !options.exclude_columns.iter().any(|name| name == column.name);
        Column { name: column.name.to_owned(), pg_type, captured, in_key: key.contains(&index) }
    });
    Shape {
        oid: relation.oid,
        schema: schema.to_owned(),
        name: relation.name.to_owned(),
        replica_identity: relation.replica_identity,
        columns: columns.collect(),
        key,
        unrepresentable: options.unrepresentable,
    }
}

/// A misspelt setting must not pass: `exclude_columns` would leak what it was to hide.
///
/// A column that only the catalog knows is one that the stream, being behind, doesn't know yet. To refuse it would
/// force the setting out, and let the column through once the stream gets there.
fn check_names(
    setting: &'static str,
    names: &[String],
    relation: &RelationMessage<'_>,
    table: &TableFacts,
) -> Result<(), ShapeProblem> {
    let known = |name: &String| {
        relation.columns.iter().any(|column| column.name == name)
            || table.columns.iter().any(|column| column.name == *name)
    };
    match names.iter().find(|name| !known(name)) {
        None => Ok(()),
        Some(column) => Err(unknown_column(setting, column, relation)),
    }
}

/// The problem that `setting` names a column which `relation` doesn't have.
pub(super) fn unknown_column(setting: &'static str, column: &str, relation: &RelationMessage<'_>) -> ShapeProblem {
    let existing = relation.columns.iter().map(|column| column.name.to_owned()).collect();
    ShapeProblem::UnknownColumn { setting, column: column.to_owned(), existing }
}
