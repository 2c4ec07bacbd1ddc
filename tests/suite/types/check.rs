//! Whether an Avro value is a column's, by Postgres's own judgement: the value is made an SQL expression again, by
//! other means than those of tablecast, and Postgres writes both as text.

use apache_avro::types::Value;
use num_bigint::BigInt;

use super::cases::Case;

/// The settings under which tablecast reads, so that the texts can be compared.
pub const SESSION: &str = "SET datestyle = ISO; SET intervalstyle = iso_8601; SET timezone = UTC; \
    SET extra_float_digits = 3; SET bytea_output = hex; SET lc_monetary = 'C'; SET search_path = ''";

/// The condition that the expression `column` is this value.
pub fn holds(case: &Case, value: &Value, column: &str) -> String {
    match value {
        Value::Union(_, value) => holds(case, value, column),
        // A composite of nulls alone would count as null too.
        Value::Null => format!("pg_catalog.num_nulls({column}) = 1"),
        Value::String(text) => format!("pg_catalog.format('%s', {column}) = {}", literal(text)),
        value => {
            let (value, sql) = (expression(value, case.scale), case.sql);
            format!("pg_catalog.format('%s', {column}) = pg_catalog.format('%s', ({value})::{sql})")
        }
    }
}

/// The condition that the array `column` has these elements.
pub fn holds_array(case: &Case, value: &Value, column: &str) -> String {
    let items = match value {
        Value::Union(_, value) => return holds_array(case, value, column),
        Value::Null => return format!("{column} IS NULL"),
        Value::Array(items) => items,
        other => panic!("{column} is no array: {other:?}"),
    };
    let element = |(at, item)| holds(case, item, &format!("{column}[array_lower({column}, 1) + {at}]"));
    let count = format!("cardinality({column}) = {}", items.len());
    std::iter::once(count).chain(items.iter().enumerate().map(element)).collect::<Vec<_>>().join(" AND ")
}

fn expression(value: &Value, scale: usize) -> String {
    match value {
        Value::Boolean(value) => value.to_string(),
        Value::Int(value) => format!("'{value}'"),
        Value::Long(value) => format!("'{value}'"),
        Value::Float(value) => format!("'{value}'"),
        Value::Double(value) => format!("'{value}'"),
        Value::Bytes(bytes) => {
            format!("'\\x{}'", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
        Value::Decimal(decimal) => format!("'{}'", point(&BigInt::from(decimal.clone()), scale)),
        Value::Uuid(uuid) => format!("'{uuid}'"),
        Value::Date(i32::MAX) | Value::TimestampMicros(i64::MAX) | Value::LocalTimestampMicros(i64::MAX) => {
            "'infinity'".to_owned()
        }
        Value::Date(i32::MIN) | Value::TimestampMicros(i64::MIN) | Value::LocalTimestampMicros(i64::MIN) => {
            "'-infinity'".to_owned()
        }
        Value::Date(days) => format!("'1970-01-01'::date + {days}"),
        Value::TimeMicros(86_400_000_000) => "'24:00:00'".to_owned(),
        Value::TimeMicros(micros) => format!("'00:00'::time + {}", since(*micros)),
        Value::LocalTimestampMicros(micros) => format!("'1970-01-01'::timestamp + {}", since(*micros)),
        Value::TimestampMicros(micros) => format!("'1970-01-01 00:00+00'::timestamptz + {}", since(*micros)),
        Value::Map(entries) => {
            let texts = |texts: Vec<String>| format!("ARRAY[{}]::text[]", texts.join(", "));
            let keys = texts(entries.keys().map(|key| literal(key)).collect());
            let values = texts(entries.values().map(text_or_null).collect());
            format!("public.hstore({keys}, {values})")
        }
        other => panic!("no value of a row: {other:?}"),
    }
}

/// In several units, for no one of them reaches so far.
fn since(micros: i64) -> String {
    const DAY: i64 = 86_400_000_000;
    const SECOND: i64 = 1_000_000;
    let (days, of_day) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
    format!("'{days} days {} seconds {} microseconds'::interval", of_day / SECOND, of_day % SECOND)
}

fn text_or_null(value: &Value) -> String {
    match value {
        Value::Union(_, value) => text_or_null(value),
        Value::Null => "NULL".to_owned(),
        Value::String(text) => literal(text),
        other => panic!("no text: {other:?}"),
    }
}

/// The number with a point before its last `scale` digits.
fn point(unscaled: &BigInt, scale: usize) -> String {
    let text = unscaled.to_string();
    let (sign, digits) = text.strip_prefix('-').map_or(("", &*text), |digits| ("-", digits));
    let digits = format!("{}{digits}", "0".repeat((scale + 1).saturating_sub(digits.len())));
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// A text as SQL writes it.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// An array as SQL reads it, each element in quotes.
pub fn array_literal(bounds: &str, elements: &[Option<&str>], delimiter: &str) -> String {
    let element = |element: &Option<&str>| match element {
        Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        None => "NULL".to_owned(),
    };
    let elements = elements.iter().map(element).collect::<Vec<_>>();
    literal(&format!("{bounds}{{{}}}", elements.join(delimiter)))
}
