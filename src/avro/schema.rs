//! The schemas of a table's records.
//!
//! The key has the key's columns in the key's order. The value has all captured columns in the table's order: those of
//! the key plain, all others `["null", T]` with default null, so that a column can come and go and the schemas before
//! and after stay compatible in both directions.

use serde::Serialize;

use super::name;
use super::types::{TypeSchema, avro_type};
use crate::relation::{Column, Shape};

/// The schemas of a table's records, as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schemas {
    pub key: String,
    pub value: String,
}

/// A record schema, its attributes in the order in which they are written.
#[derive(Serialize)]
struct Record<'a> {
    #[serde(rename = "type")]
    record: &'static str,
    name: &'static str,
    namespace: &'a str,
    fields: Vec<Field<'a>>,
}

#[derive(Serialize)]
struct Field<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    schema: FieldSchema,
    /// Only where it is nullable; then it is null.
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<()>,
    /// The column's name, where Avro doesn't allow it.
    #[serde(rename = "postgres.name", skip_serializing_if = "Option::is_none")]
    postgres_name: Option<&'a str>,
    /// The column's type, as SQL writes it.
    #[serde(rename = "postgres.type")]
    postgres_type: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum FieldSchema {
    Plain(TypeSchema),
    Nullable([TypeSchema; 2]),
}

impl Schemas {
    /// The schemas of the records of `shape`.
    pub fn new(shape: &Shape, connector: &str) -> Result<Schemas, serde_json::Error> {
        let (namespace, names) = (namespace(shape, connector), names(shape));
        let captured = shape.columns.iter().zip(&names).filter(|(column, _)| column.captured);
        let value = captured.map(|(column, name)| field(column, name)).collect();
        Ok(Schemas { key: key(shape, &namespace, &names)?, value: record("Value", &namespace, value)? })
    }
}

/// The schema of the keys of `shape`, as a plan of it has it: to compare, where nothing is to be encoded.
pub fn key_schema(shape: &Shape, connector: &str) -> Option<String> {
    key(shape, &namespace(shape, connector), &names(shape)).ok()
}

fn namespace(shape: &Shape, connector: &str) -> String {
    name::namespace([connector, &shape.schema, &shape.name])
}

/// The names of the columns' fields. All columns take part, captured or not, so that to exclude one column renames no other.
fn names(shape: &Shape) -> Vec<String> {
    name::fields(&shape.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>())
}

fn key(shape: &Shape, namespace: &str, names: &[String]) -> Result<String, serde_json::Error> {
    let named = |index: &usize| Some((shape.columns.get(*index)?, names.get(*index)?));
    record("Key", namespace, shape.key.iter().filter_map(named).map(|(column, name)| field(column, name)).collect())
}

fn record(name: &'static str, namespace: &str, fields: Vec<Field<'_>>) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Record { record: "record", name, namespace, fields })
}

fn field<'a>(column: &'a Column, name: &'a str) -> Field<'a> {
    let schema = avro_type(&column.pg_type.kind).schema;
    Field {
        name,
        schema: match column.in_key {
            true => FieldSchema::Plain(schema),
            false => FieldSchema::Nullable(schema.or_null()),
        },
        default: (!column.in_key).then_some(()),
        postgres_name: (column.name != name).then_some(&column.name),
        postgres_type: &column.pg_type.name,
    }
}
