//! The table of types: what each kind of column is in Avro, and how its text gets there.

use serde::Serialize;

use super::text::{self, Quoted, TextError};
use crate::relation::{ArrayKind, Kind, NumericLimits};

/// What a kind of column is in Avro: a row of the table of types.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AvroType {
    /// Its schema.
    pub schema: TypeSchema,
    /// How its text gets there.
    pub codec: Codec,
}

/// An Avro type, as it stands in a schema.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum TypeSchema {
    Plain(&'static str),
    Logical {
        #[serde(rename = "type")]
        underlying: &'static str,
        #[serde(rename = "logicalType")]
        logical: &'static str,
    },
    Decimal {
        #[serde(rename = "type")]
        underlying: &'static str,
        #[serde(rename = "logicalType")]
        logical: &'static str,
        precision: u16,
        scale: u16,
    },
    Array {
        #[serde(rename = "type")]
        collection: &'static str,
        items: Box<[TypeSchema; 2]>,
    },
    Map {
        #[serde(rename = "type")]
        collection: &'static str,
        values: Box<[TypeSchema; 2]>,
    },
}

impl TypeSchema {
    /// `["null", T]`
    pub fn or_null(self) -> [TypeSchema; 2] {
        [TypeSchema::Plain("null"), self]
    }
}

/// How a text gets into Avro's binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Decimal {
        precision: u16,
        scale: u16,
    },
    String,
    Uuid,
    Bytes,
    Date,
    TimeOfDay,
    LocalTimestamp,
    Timestamp,
    Hstore,
    /// In a box, so that the others stay small.
    Array(Box<ArrayCodec>),
}

/// How an array's text gets into Avro's binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ArrayCodec {
    element: Codec,
    delimiter: u8,
}

/// The table of types.
pub(super) fn avro_type(kind: &Kind) -> AvroType {
    match kind {
        Kind::Bool => plain("boolean", Codec::Boolean),
        Kind::Int2 | Kind::Int4 => plain("int", Codec::Int),
        Kind::Int8 | Kind::Oid => plain("long", Codec::Long),
        Kind::Float4 => plain("float", Codec::Float),
        Kind::Float8 => plain("double", Codec::Double),
        Kind::Numeric(limits) => numeric(*limits),
        Kind::Bytea => plain("bytes", Codec::Bytes),
        Kind::Uuid => logical("string", "uuid", Codec::Uuid),
        Kind::Date => logical("int", "date", Codec::Date),
        Kind::Time => logical("long", "time-micros", Codec::TimeOfDay),
        Kind::Timestamp => logical("long", "local-timestamp-micros", Codec::LocalTimestamp),
        Kind::TimestampTz => logical("long", "timestamp-micros", Codec::Timestamp),
        // Postgres's text of these two is ISO 8601, for `intervalstyle=iso_8601`.
        Kind::TimeTz | Kind::Interval => plain("string", Codec::String),
        Kind::Hstore => AvroType {
            schema: TypeSchema::Map { collection: "map", values: Box::new(TypeSchema::Plain("string").or_null()) },
            codec: Codec::Hstore,
        },
        Kind::Array(array) => array_of(array),
        Kind::Text => plain("string", Codec::String),
    }
}

/// Any element of an array can be null, whatever the column is declared as.
fn array_of(array: &ArrayKind) -> AvroType {
    let element = avro_type(&array.element);
    AvroType {
        schema: TypeSchema::Array { collection: "array", items: Box::new(element.schema.or_null()) },
        codec: Codec::Array(Box::new(ArrayCodec { element: element.codec, delimiter: array.delimiter })),
    }
}

fn plain(name: &'static str, codec: Codec) -> AvroType {
    AvroType { schema: TypeSchema::Plain(name), codec }
}

fn logical(underlying: &'static str, logical: &'static str, codec: Codec) -> AvroType {
    AvroType { schema: TypeSchema::Logical { underlying, logical }, codec }
}

/// A decimal has at least one digit, and none of them outside of its precision; Postgres knows more than that.
fn numeric(limits: Option<NumericLimits>) -> AvroType {
    let decimal = limits.and_then(|NumericLimits { precision, scale }| {
        let scale = u16::try_from(scale).ok()?;
        ((1..=text::MAX_PRECISION).contains(&precision) && scale <= precision).then_some((precision, scale))
    });
    match decimal {
        Some((precision, scale)) => AvroType {
            schema: TypeSchema::Decimal { underlying: "bytes", logical: "decimal", precision, scale },
            codec: Codec::Decimal { precision, scale },
        },
        None => plain("string", Codec::String),
    }
}

impl Codec {
    /// Appends the Avro binary of a value.
    #[inline]
    pub fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), TextError> {
        match self {
            Codec::Boolean => text::boolean(text, out),
            Codec::Int => text::int(text, out),
            Codec::Long => text::long(text, out),
            Codec::Float => text::float(text, out),
            Codec::Double => text::double(text, out),
            Codec::Decimal { precision, scale } => text::decimal(text, *precision, *scale, out),
            Codec::String => {
                text::string(text, out);
                Ok(())
            }
            Codec::Uuid => text::uuid(text, out),
            Codec::Bytes => text::bytea(text, out),
            Codec::Date => text::date(text, out),
            Codec::TimeOfDay => text::time_of_day(text, out),
            Codec::LocalTimestamp => text::local_timestamp(text, out),
            Codec::Timestamp => text::timestamp(text, out),
            Codec::Hstore => text::hstore(text, out),
            Codec::Array(array) => array.encode(text, out),
        }
    }

    /// The same for a column of the key: as any other, but for what would make two keys of Postgres one. Arrays that
    /// differ in their bounds alone are such, and those that don't begin at 1 are written with them.
    #[inline]
    pub(super) fn encode_key(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), TextError> {
        match self {
            Codec::Array(_) if text.first() == Some(&b'[') => {
                Err(TextError::Unrepresentable("the bounds of an array, which a key may differ in"))
            }
            codec => codec.encode(text, out),
        }
    }
}

impl ArrayCodec {
    /// Apart from [`Codec::encode`], which it would call for each element within.
    #[inline(never)]
    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), TextError> {
        text::array(text, self.delimiter, out, |element, out| self.encode_element(element, out))
    }

    fn encode_element(&self, element: Quoted<'_>, out: &mut Vec<u8>) -> Result<(), TextError> {
        match &self.element {
            Codec::String => {
                element.string(out);
                Ok(())
            }
            codec => element.read(|text| codec.encode(text, out)),
        }
    }
}
