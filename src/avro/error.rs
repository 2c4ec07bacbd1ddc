//! Why a shape has no plan, and why a row has no record.

use super::text::TextError;

/// A shape can't be compiled. Definite.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The schema couldn't be written as JSON.
    #[error("the schema of the {record} can't be written: {source}")]
    Write {
        /// `key` or `value`, or both.
        record: &'static str,
        /// What went wrong.
        source: serde_json::Error,
    },
    /// The schema isn't one that Avro takes.
    #[error("the schema of the {record} is not valid Avro: {source}")]
    Invalid {
        /// `key` or `value`.
        record: &'static str,
        /// What is wrong with it.
        source: Box<apache_avro::Error>,
    },
}

/// A row can't be encoded. Definite, but for [`UnchangedToast`](EncodeError::UnchangedToast), for which the value has
/// to be looked up in the table. The caller knows the table and the key, and adds them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A value that has no place in the column's Avro type.
    #[error(
        "column {column:?} of type {pg_type}: {reason}; remedy: in the table's mapping, \
         columns = {{ {column:?} = \"string\" }} to have it as Postgres's text, or exclude_columns = [{column:?}]"
    )]
    Value {
        /// The column's name in the table.
        column: String,
        /// Its type, as SQL writes it.
        pg_type: String,
        /// What is wrong with the value.
        reason: TextError,
    },
    /// A value that the column's Avro type can't hold, in a column that could be null instead.
    #[error(
        "column {column:?} of type {pg_type}: its Avro type can't hold {what}; remedy: in the table's mapping, \
         columns = {{ {column:?} = \"string\" }} to have it as Postgres's text, or unrepresentable = \"null\" to have null \
         in its place, or exclude_columns = [{column:?}]"
    )]
    Unrepresentable {
        /// The column's name in the table.
        column: String,
        /// Its type, as SQL writes it.
        pg_type: String,
        /// What the value is.
        what: &'static str,
    },
    /// A column of the key is null.
    #[error(
        "column {column:?} of type {pg_type} is part of the key, and null; remedy: ALTER TABLE … ALTER COLUMN … SET \
         NOT NULL, or name other columns as the key in the table's mapping"
    )]
    NullKey {
        /// The column's name in the table.
        column: String,
        /// Its type, as SQL writes it.
        pg_type: String,
    },
    /// A TOASTed value that the update left as it was: it isn't in the WAL.
    #[error("column {column:?} is TOASTed and was not changed: its value has to be looked up in the table")]
    UnchangedToast {
        /// The column's name in the table.
        column: String,
    },
    /// A value in binary, which nobody asked for.
    #[error("column {column:?} came in binary, where text was asked for")]
    Binary {
        /// The column's name in the table.
        column: String,
    },
    /// The row is not of the shape.
    #[error("the row has {found} columns, the table's shape has {expected}")]
    ColumnCount {
        /// How many columns the shape has.
        expected: usize,
        /// How many cells the row has.
        found: usize,
    },
}
