//! The table of types: what each kind of column is in Avro, and how its text gets there.

use serde::Serialize;

use super::text::{self, TextError};
use crate::relation::{Kind, NumericLimits};

/// What a kind of column is in Avro: a row of the table of types.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AvroType {
    /// Its schema.
    pub schema: TypeSchema,
    /// How its text gets there.
    pub codec: Codec,
}

/// An Avro type, as it stands in a schema.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
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
}

/// How a text gets into Avro's binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Decimal { precision: u16, scale: u16 },
    String,
    Uuid,
    Bytes,
    Date,
    TimeOfDay,
    LocalTimestamp,
    Timestamp,
}

/// The table of types.
pub(super) fn avro_type(kind: Kind) -> AvroType {
    match kind {
        Kind::Bool => plain("boolean", Codec::Boolean),
        Kind::Int2 | Kind::Int4 => plain("int", Codec::Int),
        Kind::Int8 | Kind::Oid => plain("long", Codec::Long),
        Kind::Float4 => plain("float", Codec::Float),
        Kind::Float8 => plain("double", Codec::Double),
        Kind::Numeric(limits) => numeric(limits),
        Kind::Bytea => plain("bytes", Codec::Bytes),
        Kind::Uuid => logical("string", "uuid", Codec::Uuid),
        Kind::Date => logical("int", "date", Codec::Date),
        Kind::Time => logical("long", "time-micros", Codec::TimeOfDay),
        Kind::Timestamp => logical("long", "local-timestamp-micros", Codec::LocalTimestamp),
        Kind::TimestampTz => logical("long", "timestamp-micros", Codec::Timestamp),
        // Postgres's text of these two is ISO 8601, for `intervalstyle=iso_8601`.
        Kind::TimeTz | Kind::Interval => plain("string", Codec::String),
        Kind::Text => plain("string", Codec::String),
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
    pub fn encode(self, text: &[u8], out: &mut Vec<u8>) -> Result<(), TextError> {
        match self {
            Codec::Boolean => text::boolean(text, out),
            Codec::Int => text::int(text, out),
            Codec::Long => text::long(text, out),
            Codec::Float => text::float(text, out),
            Codec::Double => text::double(text, out),
            Codec::Decimal { precision, scale } => text::decimal(text, precision, scale, out),
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
        }
    }
}
