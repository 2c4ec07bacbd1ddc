//! From Confluent's wire format back to values, rendered as JSON for people.
//!
//! What a value looks like is what Postgres reads: a decimal, a date or a timestamp of a record is a text that a cast
//! to the column's type gives the column's value for. Nothing goes through a float that wasn't one, a union is what it
//! holds, and fields stand in the schema's order.
//!
//! A record is decoded with the schema that it was written with, by `apache_avro`; this is no part of the flow of rows
//! and takes its time.

mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

/// Confluent's magic byte and the schema's id.
const HEADER: usize = 5;

/// The id of the schema that a record's key or value was written with, and what follows; `None` if it isn't in
/// Confluent's wire format.
pub fn schema_id(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (header, datum) = bytes.split_at_checked(HEADER)?;
    match header {
        [0, a, b, c, d] => Some((u32::from_be_bytes([*a, *b, *c, *d]), datum)),
        _ => None,
    }
}

/// A schema isn't Avro, or bytes don't follow it.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// apache_avro refuses.
    #[error(transparent)]
    Avro(#[from] Box<apache_avro::Error>),
    /// The value ends before the bytes do.
    #[error("{0} bytes follow the value")]
    Rest(usize),
}

/// The schema that records were written with.
#[derive(Clone, Debug)]
pub struct WriterSchema(Arc<Schema>);

impl WriterSchema {
    /// From the registry's JSON.
    pub fn parse(json: &str) -> Result<WriterSchema, ReadError> {
        Ok(WriterSchema(Arc::new(Schema::parse_str(json).map_err(Box::new)?)))
    }

    /// Decodes what follows the header.
    pub fn read(&self, mut datum: &[u8]) -> Result<Decoded, ReadError> {
        let reader = GenericDatumReader::builder(&self.0).build().map_err(Box::new)?;
        let value = reader.read_value(&mut datum).map_err(Box::new)?;
        if datum.is_empty() { Ok(Decoded { schema: self.clone(), value }) } else { Err(ReadError::Rest(datum.len())) }
    }
}

/// A decoded key or value; `Serialize` writes it for people.
#[derive(Clone, Debug)]
pub struct Decoded {
    schema: WriterSchema,
    value: Value,
}

impl Serialize for Decoded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Node { schema: Some(&self.schema.0), value: &self.value }.serialize(serializer)
    }
}

/// A value within a record. The schema tells what the value doesn't: a decimal's scale.
#[derive(Clone, Copy)]
struct Node<'a> {
    /// `None` below a type that is only referred to by its name.
    schema: Option<&'a Schema>,
    value: &'a Value,
}

impl<'a> Node<'a> {
    fn branch(self, index: u32, value: &'a Value) -> Node<'a> {
        let schema = match self.schema {
            Some(Schema::Union(union)) => union.variants().get(index as usize),
            _ => None,
        };
        Node { schema, value }
    }

    fn item(self, value: &'a Value) -> Node<'a> {
        let schema = match self.schema {
            Some(Schema::Array(array)) => Some(&*array.items),
            Some(Schema::Map(map)) => Some(&*map.types),
            _ => None,
        };
        Node { schema, value }
    }

    fn field(self, index: usize, value: &'a Value) -> Node<'a> {
        let schema = match self.schema {
            Some(Schema::Record(record)) => record.fields.get(index).map(|field| &field.schema),
            _ => None,
        };
        Node { schema, value }
    }

    /// The text of what is a text in JSON.
    fn words(self) -> Option<String> {
        Some(match self.value {
            Value::Bytes(bytes) | Value::Fixed(_, bytes) => words::bytes(bytes),
            Value::Decimal(decimal) => {
                let bytes = Vec::try_from(decimal).unwrap_or_default();
                match self.schema {
                    Some(Schema::Decimal(schema)) => words::decimal(&bytes, schema.scale),
                    _ => words::bytes(&bytes),
                }
            }
            Value::BigDecimal(decimal) => decimal.to_string(),
            Value::Uuid(uuid) => uuid.to_string(),
            Value::Date(days) => words::date(*days),
            Value::TimeMillis(millis) => words::time_of_day(i64::from(*millis), words::Unit::Millis),
            Value::TimeMicros(micros) => words::time_of_day(*micros, words::Unit::Micros),
            Value::TimestampMillis(at) => words::timestamp(*at, words::Unit::Millis),
            Value::TimestampMicros(at) => words::timestamp(*at, words::Unit::Micros),
            Value::TimestampNanos(at) => words::timestamp(*at, words::Unit::Nanos),
            Value::LocalTimestampMillis(at) => words::local_timestamp(*at, words::Unit::Millis),
            Value::LocalTimestampMicros(at) => words::local_timestamp(*at, words::Unit::Micros),
            Value::LocalTimestampNanos(at) => words::local_timestamp(*at, words::Unit::Nanos),
            Value::Duration(duration) => {
                let (months, days, millis) = (duration.months(), duration.days(), duration.millis());
                let (months, days, millis) = (u32::from(months), u32::from(days), u32::from(millis));
                format!("P{months}M{days}DT{}.{:03}S", millis / 1_000, millis % 1_000)
            }
            Value::Float(value) => words::odd_float(f64::from(*value))?.to_owned(),
            Value::Double(value) => words::odd_float(*value)?.to_owned(),
            _ => return None,
        })
    }
}

impl Serialize for Node<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Boolean(value) => serializer.serialize_bool(*value),
            Value::Int(value) => serializer.serialize_i32(*value),
            Value::Long(value) => serializer.serialize_i64(*value),
            Value::String(text) | Value::Enum(_, text) => serializer.serialize_str(text),
            Value::Union(index, value) => self.branch(*index, value).serialize(serializer),
            Value::Array(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(&self.item(item)))?;
                list.end()
            }
            Value::Map(entries) => {
                let sorted: BTreeMap<_, _> = entries.iter().collect();
                serializer.collect_map(sorted.into_iter().map(|(key, value)| (key, self.item(value))))
            }
            Value::Record(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    map.serialize_entry(name, &self.field(index, value))?;
                }
                map.end()
            }
            other => match (self.words(), other) {
                (Some(text), _) => serializer.serialize_str(&text),
                (None, Value::Float(value)) => serializer.serialize_f32(*value),
                (None, Value::Double(value)) => serializer.serialize_f64(*value),
                (None, _) => serializer.serialize_unit(),
            },
        }
    }
}
