//! Each kind of column: ordinary values, extremes, infinities, the empty text, null, and what is refused.

use num_bigint::BigInt;

use super::*;

fn string(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn check<const N: usize>(kind: &Kind, cases: [(&str, Value); N]) {
    for (text, expected) in cases {
        assert_eq!(through_avro(kind, text.as_bytes()), Ok(expected), "{text}");
    }
}

fn check_refused<const N: usize>(kind: &Kind, cases: [(&str, &str); N]) {
    for (text, expected) in cases {
        assert_eq!(refused(kind, text.as_bytes()), expected, "{text}");
    }
}

/// The unscaled value of a decimal.
fn unscaled(text: &str, precision: u16, scale: i16) -> String {
    match through_avro(&numeric(precision, scale), text.as_bytes()).unwrap() {
        Value::Decimal(decimal) => BigInt::from(decimal).to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_kind_takes_null() {
    let kinds = [
        Kind::Bool,
        Kind::Int2,
        Kind::Int4,
        Kind::Int8,
        Kind::Oid,
        Kind::Float4,
        Kind::Float8,
        Kind::Numeric(None),
        numeric(12, 2),
        Kind::Bytea,
        Kind::Uuid,
        Kind::Date,
        Kind::Time,
        Kind::TimeTz,
        Kind::Timestamp,
        Kind::TimestampTz,
        Kind::Interval,
        Kind::Text,
    ];
    for kind in kinds {
        let encoder = encoder(&shape(vec![column("k", Kind::Text), column("v", kind.clone())], &[0]));
        let mut out = Vec::new();
        encoder.encode_value([Cell::Text(b"a"), Cell::Null].into_iter(), &mut out).unwrap();
        let fields = read(encoder.plan().value_schema(), 2, &out);
        assert_eq!(fields[1].1, Value::Union(0, Box::new(Value::Null)), "{kind:?}");
    }
}

#[test]
fn booleans() {
    check(&Kind::Bool, [("t", Value::Boolean(true)), ("f", Value::Boolean(false))]);
    check_refused(
        &Kind::Bool,
        [
            ("", "expected t or f, found the end at byte 0"),
            ("x", "expected t or f, found 'x' at byte 0"),
            ("true", "expected the end of a boolean, found 'r' at byte 1"),
        ],
    );
}

#[test]
fn integers() {
    for kind in [Kind::Int2, Kind::Int4] {
        check(&kind, [("0", Value::Int(0)), ("-1", Value::Int(-1)), ("32767", Value::Int(32_767))]);
    }
    check(&Kind::Int4, [("2147483647", Value::Int(i32::MAX)), ("-2147483648", Value::Int(i32::MIN))]);
    check_refused(
        &Kind::Int4,
        [
            ("2147483648", "expected an integer of 32 bits, found '2' at byte 0"),
            ("", "expected a digit, found the end at byte 0"),
            ("-", "expected a digit, found the end at byte 1"),
            ("-1x", "expected a digit, found 'x' at byte 2"),
            ("1\n", "expected a digit, found 0x0A at byte 1"),
        ],
    );
}

#[test]
fn longs_and_oids() {
    for kind in [Kind::Int8, Kind::Oid] {
        check(&kind, [("0", Value::Long(0)), ("4294967295", Value::Long(4_294_967_295))]);
    }
    check(
        &Kind::Int8,
        [
            ("9223372036854775807", Value::Long(i64::MAX)),
            ("-9223372036854775808", Value::Long(i64::MIN)),
            ("-999999999999999999", Value::Long(-999_999_999_999_999_999)),
        ],
    );
    check_refused(
        &Kind::Int8,
        [
            ("9223372036854775808", "expected an integer of 64 bits, found the end at byte 19"),
            ("-9223372036854775809", "expected an integer of 64 bits, found '9' at byte 19"),
            ("123456789012345678x", "expected a digit, found 'x' at byte 18"),
        ],
    );
}

#[test]
fn floats() {
    check(
        &Kind::Float4,
        [
            ("0.1", Value::Float(0.1)),
            ("3.4028235e+38", Value::Float(f32::MAX)),
            ("1e-45", Value::Float(f32::from_bits(1))),
            ("Infinity", Value::Float(f32::INFINITY)),
            ("-Infinity", Value::Float(f32::NEG_INFINITY)),
        ],
    );
    check(
        &Kind::Float8,
        [
            ("1.7976931348623157e+308", Value::Double(f64::MAX)),
            ("5e-324", Value::Double(f64::from_bits(1))),
            ("-Infinity", Value::Double(f64::NEG_INFINITY)),
        ],
    );
    let bits = |text: &[u8]| match through_avro(&Kind::Float8, text).unwrap() {
        Value::Double(value) => value.to_bits(),
        other => panic!("{other:?}"),
    };
    assert_eq!(bits(b"-0"), (-0.0_f64).to_bits());
    assert!(f64::from_bits(bits(b"NaN")).is_nan());
    assert_eq!(refused(&Kind::Float8, b""), "expected a floating-point number, found the end at byte 0");
    assert_eq!(refused(&Kind::Float4, b"\xFF"), "expected a floating-point number, found 0xFF at byte 0");
}

#[test]
fn numerics_with_a_precision() {
    for (text, value) in
        [("0.00", "0"), ("1.28", "128"), ("-1.28", "-128"), ("9999999999.99", "999999999999"), ("7", "700")]
    {
        assert_eq!(unscaled(text, 12, 2), value);
    }
    let nines = |count| "9".repeat(count);
    for digits in [18, 19, 36, 38, 39, 77, 1000] {
        for sign in ["", "-"] {
            let text = format!("{sign}{}", nines(digits));
            assert_eq!(unscaled(&text, digits as u16, 0), text);
        }
    }
    assert_eq!(unscaled(&format!("-0.{}1", "0".repeat(998)), 1000, 999), "-1");
    assert_eq!(unscaled(&format!("{}.5", nines(60)), 100, 40), format!("{}5{}", nines(60), "0".repeat(39)));
    assert_eq!(unscaled("-0.5", 3, 3), "-500");
}

#[test]
fn numerics_that_a_decimal_cannot_hold() {
    check_refused(
        &numeric(12, 2),
        [
            ("NaN", "its Avro type can't hold NaN"),
            ("Infinity", "its Avro type can't hold infinity"),
            ("-Infinity", "its Avro type can't hold infinity"),
            ("10000000000.00", "its Avro type can't hold a number with more digits than its precision"),
            ("0.001", "its Avro type can't hold a number with more digits after the point than its scale"),
            ("", "expected a digit, found the end at byte 0"),
            ("-", "expected a digit, found the end at byte 1"),
            ("1.", "expected a digit, found the end at byte 2"),
            (".5", "expected a digit, found '.' at byte 0"),
            ("1e5", "expected a digit, or the decimal point, found 'e' at byte 1"),
            ("1.5x", "expected a digit, found 'x' at byte 3"),
        ],
    );
    assert_eq!(unscaled("0.010", 12, 2), "1");
}

#[test]
fn numerics_that_avro_cannot_declare_are_strings() {
    for kind in [Kind::Numeric(None), numeric(3, -2), numeric(2, 3), numeric(0, 0), numeric(1001, 0)] {
        check(&kind, [("NaN", string("NaN")), ("1.50", string("1.50")), ("-Infinity", string("-Infinity"))]);
    }
}

#[test]
fn texts_json_enums_and_whatever_is_text() {
    let long = "ä".repeat(100_000);
    check(
        &Kind::Text,
        [
            ("", string("")),
            ("a\0b", string("a\0b")),
            ("naïve 🦀", string("naïve 🦀")),
            (r#"{"a": [1, null]}"#, string(r#"{"a": [1, null]}"#)),
            ("{1,NULL}", string("{1,NULL}")),
            (&long, string(&long)),
        ],
    );
}

#[test]
fn byteas() {
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    check(
        &Kind::Bytea,
        [(r"\x", bytes(b"")), (r"\x00ff", bytes(b"\0\xFF")), (r"\xDEADbeef", bytes(b"\xDE\xAD\xBE\xEF"))],
    );
    check_refused(
        &Kind::Bytea,
        [
            ("", "expected \\x and hexadecimal digits, found the end at byte 0"),
            (r"\000", "expected \\x and hexadecimal digits, found '0' at byte 1"),
            (r"\x0", "expected an even number of hexadecimal digits, found the end at byte 3"),
            (r"\x00g0", "expected a hexadecimal digit, found 'g' at byte 4"),
        ],
    );
}

#[test]
fn uuids() {
    let text = "b1e7c9a0-0000-4fff-8000-ffffffffffff";
    assert_eq!(format!("{:?}", through_avro(&Kind::Uuid, text.as_bytes()).unwrap()), format!("Uuid({text})"));
    check_refused(
        &Kind::Uuid,
        [
            ("", "expected a uuid of 36 characters, found the end at byte 0"),
            ("b1e7c9a0-0000-4fff-8000-fffffffffff", "expected a uuid of 36 characters, found the end at byte 35"),
            ("b1e7c9a0-0000-4fff-8000-ffffffffffff0", "expected a uuid of 36 characters, found '0' at byte 36"),
            ("b1e7c9a0+0000", "expected a uuid's hexadecimal digit or hyphen, found '+' at byte 8"),
            ("g", "expected a uuid's hexadecimal digit or hyphen, found 'g' at byte 0"),
        ],
    );
}

#[test]
fn dates() {
    check(
        &Kind::Date,
        [
            ("1970-01-01", Value::Date(0)),
            ("2000-02-29", Value::Date(11_016)),
            ("1969-12-31", Value::Date(-1)),
            ("0001-01-01", Value::Date(-719_162)),
            ("0001-12-31 BC", Value::Date(-719_163)),
            ("0001-02-29 BC", Value::Date(-719_469)),
            ("4714-11-24 BC", Value::Date(-2_440_588)),
            ("10000-01-01", Value::Date(2_932_897)),
            ("5874897-12-31", Value::Date(2_145_042_905)),
            ("infinity", Value::Date(i32::MAX)),
            ("-infinity", Value::Date(i32::MIN)),
        ],
    );
    check_refused(
        &Kind::Date,
        [
            ("", "expected a year of four digits or more, found the end at byte 0"),
            ("999-01-01", "expected a year of four digits or more, found '-' at byte 3"),
            ("0000-01-01", "expected a year of four digits or more, found '-' at byte 4"),
            ("2023-02-29", "expected a day of the month, found '2' at byte 8"),
            ("2023-00-01", "expected a month from 01 to 12, found '0' at byte 5"),
            ("2023-13-01", "expected a month from 01 to 12, found '1' at byte 5"),
            ("2023-01-00", "expected a day of the month, found '0' at byte 8"),
            ("2023-01-1", "expected a day of the month, found '1' at byte 8"),
            ("2023-01-01 AD", "expected BC, found 'A' at byte 11"),
            ("2023-01-01x", "expected the end, found 'x' at byte 10"),
            ("9999999-01-01", "its Avro type can't hold a date so far from 1970"),
            ("Infinity", "expected a year of four digits or more, found 'I' at byte 0"),
        ],
    );
}

#[test]
fn times_of_day() {
    check(
        &Kind::Time,
        [
            ("00:00:00", Value::TimeMicros(0)),
            ("12:34:56.7", Value::TimeMicros(45_296_700_000)),
            ("23:59:59.999999", Value::TimeMicros(86_399_999_999)),
            ("24:00:00", Value::TimeMicros(86_400_000_000)),
        ],
    );
    check_refused(
        &Kind::Time,
        [
            ("", "expected an hour, found the end at byte 0"),
            ("24:00:01", "expected a time up to 24:00:00, found '2' at byte 0"),
            ("12:60:00", "expected a minute, found '6' at byte 3"),
            ("12:00", "expected a colon after the minute, found the end at byte 5"),
            ("12:00:00.", "expected a digit of the second's fraction, found the end at byte 9"),
            ("12:00:00.1234567", "expected the end, found '7' at byte 15"),
        ],
    );
}

#[test]
fn timestamps_without_time_zone() {
    check(
        &Kind::Timestamp,
        [
            ("1970-01-01 00:00:00", Value::LocalTimestampMicros(0)),
            ("1969-12-31 23:59:59.999999", Value::LocalTimestampMicros(-1)),
            ("2024-02-29 12:34:56.789", Value::LocalTimestampMicros(1_709_210_096_789_000)),
            ("4714-11-24 00:00:00 BC", Value::LocalTimestampMicros(-2_440_588 * 86_400_000_000)),
            ("294247-01-10 04:00:54.775806", Value::LocalTimestampMicros(i64::MAX - 1)),
            ("infinity", Value::LocalTimestampMicros(i64::MAX)),
            ("-infinity", Value::LocalTimestampMicros(i64::MIN)),
        ],
    );
    check_refused(
        &Kind::Timestamp,
        [
            ("294247-01-10 04:00:54.775807", "its Avro type can't hold a timestamp after 294247-01-10"),
            ("294276-12-31 23:59:59.999999", "its Avro type can't hold a timestamp after 294247-01-10"),
            ("2024-02-29", "expected a space before the time, found the end at byte 10"),
            ("2024-02-29T00:00:00", "expected a space before the time, found 'T' at byte 10"),
            ("2024-02-29 24:00:00", "expected an hour, found '2' at byte 11"),
            ("2024-02-30 00:00:00", "expected a day of the month, found '3' at byte 8"),
            ("2024-02-29 00:00:00+00", "expected the end, found '+' at byte 19"),
        ],
    );
}

#[test]
fn timestamps_with_time_zone() {
    let micros = Value::TimestampMicros;
    check(
        &Kind::TimestampTz,
        [
            ("1970-01-01 00:00:00+00", micros(0)),
            ("1970-01-01 05:30:00+05:30", micros(0)),
            ("1969-12-31 16:07:02.000001-07:52:58", micros(1)),
            ("0044-03-15 12:00:00+00 BC", micros(-63_517_780_800_000_000)),
            ("infinity", micros(i64::MAX)),
            ("-infinity", micros(i64::MIN)),
        ],
    );
    check_refused(
        &Kind::TimestampTz,
        [
            ("1970-01-01 00:00:00", "expected the sign of an offset from UTC, found the end at byte 19"),
            ("1970-01-01 00:00:00+5", "expected an offset's hours, found '5' at byte 20"),
            ("1970-01-01 00:00:00+05:", "expected an offset's minutes or seconds, found the end at byte 23"),
            ("1970-01-01 00:00:00+00 BCE", "expected the end, found 'E' at byte 25"),
        ],
    );
}

#[test]
fn times_with_zone_and_intervals_are_postgres_text() {
    check(&Kind::TimeTz, [("12:34:56.789+02", string("12:34:56.789+02"))]);
    check(&Kind::Interval, [("P1Y2M3DT4H5M6.7S", string("P1Y2M3DT4H5M6.7S")), ("PT0S", string("PT0S"))]);
}
