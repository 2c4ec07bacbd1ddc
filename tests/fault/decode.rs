//! Confluent's wire format and Avro, read without any of tablecast's code: the writer's schema comes from the registry
//! by the id in front of the value, and `apache_avro` reads by it.

use std::collections::HashMap;
use std::process::Command;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;

/// Knows the schemas that it has met.
pub struct Decoder {
    registry: String,
    readers: HashMap<u32, GenericDatumReader<'static>>,
}

/// Names and texts of a record's fields.
pub type Columns = Vec<(String, Option<String>)>;

impl Decoder {
    pub fn new(registry: String) -> Self {
        Self { registry, readers: HashMap::new() }
    }

    pub fn decode(&mut self, bytes: &[u8]) -> Columns {
        assert!(bytes.len() >= 5 && bytes[0] == 0, "not in Confluent's wire format: {bytes:?}");
        let id = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
        let reader = self.readers.entry(id).or_insert_with(|| fetch(&self.registry, id));
        let mut rest = &bytes[5..];
        let value = reader.read_value(&mut rest).unwrap();
        assert!(rest.is_empty(), "{} bytes follow the value {value:?}", rest.len());
        match value {
            Value::Record(fields) => fields.into_iter().map(|(name, value)| (name, text(value))).collect(),
            other => panic!("not a record: {other:?}"),
        }
    }
}

fn fetch(registry: &str, id: u32) -> GenericDatumReader<'static> {
    let url = format!("{registry}/schemas/ids/{id}");
    let answer = Command::new("curl").args(["-sS", "--fail", "--max-time", "20", &url]).output().unwrap();
    assert!(answer.status.success(), "{url}: {}", String::from_utf8_lossy(&answer.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    let schema = Schema::parse_str(answer["schema"].as_str().unwrap()).unwrap();
    // A reader borrows its schema; there are ten of them, and they last as long as the test.
    GenericDatumReader::builder(Box::leak(Box::new(schema))).build().unwrap()
}

/// As Postgres would write it.
fn text(value: Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Union(_, value) => return text(*value),
        Value::Int(number) => number.to_string(),
        Value::Long(number) | Value::TimestampMicros(number) => number.to_string(),
        Value::String(text) => text,
        Value::Uuid(uuid) => uuid.to_string(),
        Value::Decimal(decimal) => two_decimals(&Vec::<u8>::try_from(decimal).unwrap()),
        other => panic!("no table under load has a column of this kind: {other:?}"),
    })
}

/// A numeric(…,2) of its unscaled value: big-endian, two's complement.
fn two_decimals(bytes: &[u8]) -> String {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let unscaled = bytes.iter().fold(if negative { -1 } else { 0 }, |all: i128, byte| all << 8 | i128::from(*byte));
    let sign = if negative { "-" } else { "" };
    format!("{sign}{}.{:02}", unscaled.unsigned_abs() / 100, unscaled.unsigned_abs() % 100)
}

#[cfg(test)]
mod tests {
    use super::two_decimals;

    #[test]
    fn a_decimal_is_written_as_postgres_writes_it() {
        let numbers = [(1234_i128, "12.34"), (-1234, "-12.34"), (-5, "-0.05"), (0, "0.00"), (-499_999, "-4999.99")];
        for (unscaled, text) in numbers {
            assert_eq!(two_decimals(&unscaled.to_be_bytes()), text);
        }
        assert_eq!(two_decimals(&[0xff]), "-0.01");
    }
}
