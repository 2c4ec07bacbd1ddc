//! Values as they are shown: the extremes of each type.

use super::words::{self, Unit};
use super::*;

/// What a field of this type shows for these bytes.
fn shown(schema: &str, datum: &[u8]) -> String {
    let schema = format!(r#"{{"type": "record", "name": "Value", "fields": [{{"name": "z", "type": {schema}}}]}}"#);
    let decoded = WriterSchema::parse(&schema).unwrap().read(datum).unwrap();
    let json = serde_json::to_string(&decoded).unwrap();
    json.strip_prefix("{\"z\":").and_then(|rest| rest.strip_suffix('}')).unwrap().to_owned()
}

/// The same by way of the encoder, from Postgres's text.
fn encoded(value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    crate::avro::text::put_long(value, &mut out);
    out
}

#[test]
fn the_header_names_the_schema() {
    assert_eq!(schema_id(&[0, 0, 0, 1, 2, 9, 9]), Some((258, &[9, 9][..])));
    assert_eq!(schema_id(&[1, 0, 0, 0, 7, 9]), None);
    assert_eq!(schema_id(b"\0\0\0"), None);
}

#[test]
fn decimals_are_exact() {
    for (unscaled, scale, text) in [
        (&[][..], 0, "0"),
        (&[0], 2, "0.00"),
        (&[0x04, 0xE2], 2, "12.50"),
        (&[0xFF], 2, "-0.01"),
        (&[0x80], 0, "-128"),
        (&[0, 0x80], 1, "12.8"),
        (&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF], 0, "-1"),
        (&[0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], 0, "2361183241434822606847"),
        (&[0x80, 0, 0, 0, 0, 0, 0, 0, 0], 20, "-23.61183241434822606848"),
        (&[0x01, 0, 0, 0, 0], 12, "0.004294967296"),
    ] {
        assert_eq!(words::decimal(unscaled, scale), text);
    }
}

#[test]
fn a_decimal_of_a_thousand_digits_comes_back_as_it_went() {
    for text in ["9".repeat(1000), format!("-{}.{}", "12345".repeat(120), "00001".repeat(80)), "-1".to_owned()] {
        let mut out = Vec::new();
        let scale = text.split_once('.').map_or(0, |(_, fraction)| fraction.len()) as u16;
        crate::avro::text::decimal(text.as_bytes(), 1000, scale, &mut out).unwrap();
        let schema = format!(r#"{{"type": "bytes", "logicalType": "decimal", "precision": 1000, "scale": {scale}}}"#);
        assert_eq!(shown(&schema, &out), format!("\"{text}\""));
    }
}

#[test]
fn dates_are_written_as_postgres_reads_them() {
    for (days, text) in [
        (i32::MIN, "-infinity"),
        (i32::MAX, "infinity"),
        (0, "1970-01-01"),
        (19_782, "2024-02-29"),
        (-719_528, "0001-01-01 BC"),
        (-719162, "0001-01-01"),
        (-735_160, "0044-03-15 BC"),
        (2_932_897, "10000-01-01"),
        (2_145_042_905, "5874897-12-31"),
    ] {
        assert_eq!(words::date(days), text);
    }
}

#[test]
fn times_have_the_digits_that_they_need() {
    assert_eq!(words::time_of_day(0, Unit::Micros), "00:00:00");
    assert_eq!(words::time_of_day(86_400_000_000, Unit::Micros), "24:00:00");
    assert_eq!(words::time_of_day(43_200_000_001, Unit::Micros), "12:00:00.000001");
    assert_eq!(words::time_of_day(43_200_500, Unit::Millis), "12:00:00.5");
}

#[test]
fn timestamps_are_written_as_postgres_reads_them() {
    for (micros, text) in [
        (i64::MIN, "-infinity"),
        (i64::MAX, "infinity"),
        (0, "1970-01-01T00:00:00"),
        (-1, "1969-12-31T23:59:59.999999"),
        (1_704_110_400_000_001, "2024-01-01T12:00:00.000001"),
        (-62_167_219_200_000_000, "0001-01-01T00:00:00 BC"),
        (253_402_300_800_000_000, "10000-01-01T00:00:00"),
        (i64::MAX - 1, "294247-01-10T04:00:54.775806"),
    ] {
        assert_eq!(words::local_timestamp(micros, Unit::Micros), text);
    }
    assert_eq!(words::timestamp(1_500_000, Unit::Micros), "1970-01-01T00:00:01.5Z");
    assert_eq!(words::timestamp(-62_167_219_200_000_000, Unit::Micros), "0001-01-01T00:00:00Z BC");
    assert_eq!(words::timestamp(1, Unit::Nanos), "1970-01-01T00:00:00.000000001Z");
}

#[test]
fn logical_types_are_shown_as_such_and_unions_as_what_they_hold() {
    let nullable_date = r#"["null", {"type": "int", "logicalType": "date"}]"#;
    assert_eq!(shown(nullable_date, &[0]), "null");
    assert_eq!(shown(nullable_date, &[2, 0]), "\"1970-01-01\"");
    let nullable_decimal = r#"["null", {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}]"#;
    assert_eq!(shown(nullable_decimal, &[2, 4, 0x04, 0xE2]), "\"12.50\"");
    let uuid = "b1e7c9a0-0000-4000-8000-0000000000ff";
    let datum: Vec<u8> = [&[72], uuid.as_bytes()].concat();
    assert_eq!(shown(r#"{"type": "string", "logicalType": "uuid"}"#, &datum), format!("\"{uuid}\""));
    let timestamp = r#"{"type": "long", "logicalType": "timestamp-micros"}"#;
    assert_eq!(shown(timestamp, &encoded(i64::MIN)), "\"-infinity\"");
    assert_eq!(shown(r#"{"type": "long", "logicalType": "time-micros"}"#, &encoded(1)), "\"00:00:00.000001\"");
    assert_eq!(shown(r#"["null", "bytes"]"#, &[2, 4, 0x00, 0xFF]), r#""\\x00ff""#);
}

#[test]
fn numbers_keep_all_their_digits() {
    assert_eq!(shown("\"long\"", &encoded(i64::MIN)), "-9223372036854775808");
    assert_eq!(shown("\"float\"", &0.1_f32.to_le_bytes()), "0.1");
    assert_eq!(shown("\"double\"", &5e-324_f64.to_le_bytes()), "5e-324");
    for (value, text) in
        [(f64::NAN, "NaN"), (f64::INFINITY, "Infinity"), (f64::NEG_INFINITY, "-Infinity"), (-0.0, "-0")]
    {
        assert_eq!(shown("\"double\"", &value.to_le_bytes()), format!("\"{text}\""));
    }
}

#[test]
fn arrays_maps_and_fields_are_shown_in_order() {
    assert_eq!(shown(r#"{"type": "array", "items": ["null", "int"]}"#, &[4, 2, 2, 0, 0]), "[1,null]");
    let datum = [4, 2, b'b', 2, 2, 2, b'a', 0, 0];
    assert_eq!(shown(r#"{"type": "map", "values": ["null", "int"]}"#, &datum), r#"{"a":null,"b":1}"#);
    let schema =
        r#"{"type": "record", "name": "R", "fields": [{"name": "b", "type": "int"}, {"name": "a", "type": "int"}]}"#;
    assert_eq!(shown(schema, &[2, 4]), r#"{"b":1,"a":2}"#);
}

#[test]
fn bytes_that_do_not_follow_the_schema_are_an_error() {
    let schema = WriterSchema::parse("\"int\"").unwrap();
    assert!(schema.read(&[]).is_err());
    assert!(matches!(schema.read(&[2, 2]), Err(ReadError::Rest(1))));
    assert!(WriterSchema::parse("{}").is_err());
}
