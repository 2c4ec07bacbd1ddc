//! Random values of each kind come back as they were; random bytes never panic.
//!
//! The texts are made here as Postgres makes them, by other means than those that read them.

use num_bigint::BigInt;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Year (0 is 1 BC), month and day of a day since 1970: `civil_from_days` of the algorithms that `calendar` names.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, doe) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

/// A date, and the end of what it belongs to.
fn date_text(days: i64) -> (String, &'static str) {
    let (year, month, day) = civil(days);
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    (format!("{year:04}-{month:02}-{day:02}"), era)
}

/// A time of day; a fraction has no zeros at its end.
fn time_text(micros: i64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    match fraction {
        0 => text,
        _ => format!("{text}.{}", format!("{fraction:06}").trim_end_matches('0')),
    }
}

fn timestamp_text(micros: i64, zone: &str) -> String {
    let day = 86_400_000_000;
    let (date, era) = date_text(micros.div_euclid(day));
    format!("{date} {}{zone}{era}", time_text(micros.rem_euclid(day)))
}

/// The first and the last day that a date of Postgres can be, in days since 1970.
const DATES: std::ops::RangeInclusive<i64> = -2_440_588..=2_145_042_905;

/// The first timestamp of Postgres, and the last that is not infinite in Avro.
const TIMESTAMPS: std::ops::Range<i64> = -2_440_588 * 86_400_000_000..i64::MAX;

fn any_kind() -> impl Strategy<Value = Kind> {
    let plain = prop::sample::select(vec![
        Kind::Bool,
        Kind::Int2,
        Kind::Int4,
        Kind::Int8,
        Kind::Oid,
        Kind::Float4,
        Kind::Float8,
        Kind::Bytea,
        Kind::Uuid,
        Kind::Date,
        Kind::Time,
        Kind::TimeTz,
        Kind::Timestamp,
        Kind::TimestampTz,
        Kind::Interval,
        Kind::Text,
    ]);
    let limits = (any::<u16>(), any::<i16>()).prop_map(|(precision, scale)| numeric(precision, scale));
    let likely = (1_u16..60, 0_i16..60).prop_map(|(precision, scale)| numeric(precision, scale));
    prop_oneof![4 => plain, 1 => limits, 1 => likely]
}

/// Bytes that are nothing, or nearly something.
fn any_text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..60),
        "[-+0-9:. BCxXnNaAfit\\\\]{0,60}".prop_map(String::into_bytes),
        "[0-9]{4,7}-[0-9]{2}-[0-9]{2}( [0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,7})?([+-][0-9]{2}(:[0-9]{2}){0,2})?)?( BC)?"
            .prop_map(String::into_bytes),
        "-?[0-9]{0,40}(\\.[0-9]{0,40})?".prop_map(String::into_bytes),
    ]
}

/// A cell that owns its text.
#[derive(Clone, Debug)]
enum AnyCell {
    Null,
    Unchanged,
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

impl AnyCell {
    fn any() -> impl Strategy<Value = AnyCell> {
        prop_oneof![
            1 => Just(AnyCell::Null),
            1 => Just(AnyCell::Unchanged),
            6 => any_text().prop_map(AnyCell::Text),
            1 => vec(any::<u8>(), 0..9).prop_map(AnyCell::Binary),
        ]
    }

    fn cell(&self) -> Cell<'_> {
        match self {
            AnyCell::Null => Cell::Null,
            AnyCell::Unchanged => Cell::Unchanged,
            AnyCell::Text(text) => Cell::Text(text),
            AnyCell::Binary(bytes) => Cell::Binary(bytes),
        }
    }
}

proptest! {
    #[test]
    fn integers_come_back(value: i64) {
        prop_assert_eq!(through_avro(&Kind::Int8, value.to_string().as_bytes()), Ok(Value::Long(value)));
        let value = value as i32;
        prop_assert_eq!(through_avro(&Kind::Int4, value.to_string().as_bytes()), Ok(Value::Int(value)));
    }

    #[test]
    fn small_integers_come_back(value in -70_000_i64..70_000) {
        prop_assert_eq!(through_avro(&Kind::Int8, value.to_string().as_bytes()), Ok(Value::Long(value)));
    }

    #[test]
    fn floats_come_back_to_the_bit(bits: u64) {
        let double = f64::from_bits(bits);
        match through_avro(&Kind::Float8, format!("{double:e}").as_bytes()) {
            Ok(Value::Double(value)) => prop_assert!(value.to_bits() == bits || (value.is_nan() && double.is_nan())),
            other => prop_assert!(!double.is_finite(), "{other:?}"),
        }
        let float = f32::from_bits(bits as u32);
        match through_avro(&Kind::Float4, format!("{float:e}").as_bytes()) {
            Ok(Value::Float(value)) => {
                prop_assert!(value.to_bits() == float.to_bits() || (value.is_nan() && float.is_nan()));
            }
            other => prop_assert!(!float.is_finite(), "{other:?}"),
        }
    }

    #[test]
    fn decimals_come_back(negative: bool, digits in "[0-9]{1,60}|[0-9]{61,1000}", point: prop::sample::Index) {
        let scale = point.index(digits.len());
        let (integer, fraction) = digits.split_at(digits.len() - scale);
        let point = if fraction.is_empty() { "" } else { "." };
        let text = format!("{}{integer}{point}{fraction}", if negative { "-" } else { "" });
        let expected: BigInt = format!("{}{digits}", if negative { "-" } else { "" }).parse().unwrap();
        match through_avro(&numeric(digits.len() as u16, scale as i16), text.as_bytes()) {
            Ok(Value::Decimal(decimal)) => {
                let bytes = Vec::<u8>::try_from(&decimal).unwrap();
                prop_assert_eq!(&bytes, &expected.to_signed_bytes_be(), "not as short as can be");
                prop_assert_eq!(BigInt::from(decimal), expected);
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn texts_come_back(text: String) {
        for kind in [Kind::Text, Kind::Interval, Kind::TimeTz, Kind::Numeric(None)] {
            prop_assert_eq!(through_avro(&kind, text.as_bytes()), Ok(Value::String(text.clone())));
        }
    }

    #[test]
    fn bytes_come_back(bytes: Vec<u8>) {
        let text = bytes.iter().fold(String::from("\\x"), |text, byte| text + &format!("{byte:02x}"));
        prop_assert_eq!(through_avro(&Kind::Bytea, text.as_bytes()), Ok(Value::Bytes(bytes)));
    }

    #[test]
    fn uuids_come_back(bits: u128) {
        let uuid = apache_avro::Uuid::from_u128(bits);
        prop_assert_eq!(through_avro(&Kind::Uuid, uuid.to_string().as_bytes()), Ok(Value::Uuid(uuid)));
    }

    #[test]
    fn dates_come_back(days in prop_oneof![DATES, -800_000_i64..100_000]) {
        let (date, era) = date_text(days);
        let expected = Value::Date(i32::try_from(days).unwrap());
        prop_assert_eq!(through_avro(&Kind::Date, format!("{date}{era}").as_bytes()), Ok(expected));
    }

    #[test]
    fn times_come_back(micros in 0_i64..=86_400_000_000) {
        prop_assert_eq!(through_avro(&Kind::Time, time_text(micros).as_bytes()), Ok(Value::TimeMicros(micros)));
    }

    #[test]
    fn timestamps_come_back(micros in TIMESTAMPS, offset in -57_599_i64..=57_599) {
        let text = timestamp_text(micros, "");
        prop_assert_eq!(through_avro(&Kind::Timestamp, text.as_bytes()), Ok(Value::LocalTimestampMicros(micros)));
        let text = timestamp_text(micros, "+00");
        prop_assert_eq!(through_avro(&Kind::TimestampTz, text.as_bytes()), Ok(Value::TimestampMicros(micros)));
        let micros = micros / 2;
        let (sign, east) = if offset < 0 { ('-', -offset) } else { ('+', offset) };
        let zone = format!("{sign}{:02}:{:02}:{:02}", east / 3600, east / 60 % 60, east % 60);
        let text = timestamp_text(micros + offset * 1_000_000, &zone);
        prop_assert_eq!(through_avro(&Kind::TimestampTz, text.as_bytes()), Ok(Value::TimestampMicros(micros)));
    }

    #[test]
    fn whatever_is_encoded_can_be_read_and_the_rest_is_refused(kind in any_kind(), text in any_text()) {
        // Text is copied, and Postgres promises that it is UTF-8.
        let text = String::from_utf8_lossy(&text).into_owned();
        let _ = through_avro(&kind, text.as_bytes());
    }

    #[test]
    fn no_row_panics_and_a_failed_one_leaves_nothing(
        columns in vec((any_kind(), any::<bool>()), 1..6),
        key in any::<prop::sample::Index>(),
        cells in vec(AnyCell::any(), 0..7),
        old in vec(AnyCell::any(), 0..7),
    ) {
        let key = key.index(columns.len());
        let mut columns = columns
            .into_iter()
            .enumerate()
            .map(|(index, (kind, captured))| Column { captured, ..column(&format!("c{index}"), kind) })
            .collect::<Vec<_>>();
        columns[key].captured = true;
        let encoder = encoder(&shape(columns, &[key]));
        let new = cells.iter().map(AnyCell::cell);
        let old = old.iter().map(AnyCell::cell);
        let filled = fill_unchanged(new.clone(), old);
        for fails in [
            |encoder: &Encoder, cells: &[Cell<'_>], out: &mut Vec<u8>| encoder.encode_key(cells.iter().copied(), out),
            |encoder: &Encoder, cells: &[Cell<'_>], out: &mut Vec<u8>| encoder.encode_value(cells.iter().copied(), out),
        ] {
            for cells in [new.clone().collect::<Vec<_>>(), filled.clone().collect::<Vec<_>>()] {
                let mut out = b"before".to_vec();
                match fails(&encoder, &cells, &mut out) {
                    Ok(()) => prop_assert!(out.starts_with(b"before\0\0\0\0")),
                    Err(_) => prop_assert_eq!(out, b"before"),
                }
            }
        }
    }
}
