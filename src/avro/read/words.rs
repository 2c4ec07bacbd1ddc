//! Values as texts that Postgres reads.

use std::fmt::Write;

use crate::calendar::civil_from_days;

/// So many digits fit into a limb of 32 bits, whichever they are.
const LIMB_DIGITS: usize = 9;
const LIMB_BASE: u64 = 1_000_000_000;

/// What a time is counted in.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    Millis,
    Micros,
    Nanos,
}

impl Unit {
    fn digits(self) -> usize {
        match self {
            Unit::Millis => 3,
            Unit::Micros => 6,
            Unit::Nanos => 9,
        }
    }

    fn per_second(self) -> i64 {
        match self {
            Unit::Millis => 1_000,
            Unit::Micros => 1_000_000,
            Unit::Nanos => 1_000_000_000,
        }
    }
}

/// `\x00ff`
pub fn bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("\\x");
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The number that `bytes` hold in two's complement, big-endian, with `scale` digits after the point.
pub fn decimal(bytes: &[u8], scale: usize) -> String {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let mut digits = magnitude(bytes, negative);
    if digits.len() <= scale {
        digits.insert_str(0, &"0".repeat(scale + 1 - digits.len()));
    }
    if scale > 0 {
        digits.insert(digits.len() - scale, '.');
    }
    if negative { format!("-{digits}") } else { digits }
}

/// The digits of the number without its sign, and without zeros before them, but for 0 itself.
fn magnitude(bytes: &[u8], negative: bool) -> String {
    let mut limbs = limbs(bytes, negative);
    let mut chunks = Vec::new();
    while limbs.iter().any(|limb| *limb != 0) {
        let mut rest = 0;
        for limb in &mut limbs {
            let value = rest << 32 | u64::from(*limb);
            // The quotient fits: the rest before it was less than the divisor.
            *limb = (value / LIMB_BASE) as u32;
            rest = value % LIMB_BASE;
        }
        chunks.push(rest);
    }
    let mut text = chunks.pop().unwrap_or_default().to_string();
    for chunk in chunks.iter().rev() {
        let _ = write!(text, "{chunk:0LIMB_DIGITS$}");
    }
    text
}

/// The number without its sign, the highest limb first.
fn limbs(bytes: &[u8], negative: bool) -> Vec<u32> {
    let sign = if negative { 0xFF } else { 0 };
    let padding = (4 - bytes.len() % 4) % 4;
    let padded: Vec<u8> = std::iter::repeat_n(sign, padding).chain(bytes.iter().copied()).collect();
    let mut limbs: Vec<u32> = padded.as_chunks::<4>().0.iter().map(|limb| u32::from_be_bytes(*limb)).collect();
    if negative {
        let mut carry = true;
        for limb in limbs.iter_mut().rev() {
            (*limb, carry) = (!*limb).overflowing_add(u32::from(carry));
        }
    }
    limbs
}

/// The text of a float that JSON has no number for, or none that keeps its sign.
pub fn odd_float(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value.is_infinite() {
        Some(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else if value == 0.0 && value.is_sign_negative() {
        Some("-0")
    } else {
        None
    }
}

/// Days since 1970-01-01; the least and the greatest are infinite.
pub fn date(days: i32) -> String {
    match days {
        i32::MIN => "-infinity".to_owned(),
        i32::MAX => "infinity".to_owned(),
        days => {
            let (date, era) = civil(i64::from(days));
            date + era
        }
    }
}

/// Since midnight.
pub fn time_of_day(at: i64, unit: Unit) -> String {
    let seconds = at.div_euclid(unit.per_second());
    let fraction = at.rem_euclid(unit.per_second());
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let mut text = format!("{hour:02}:{minute:02}:{second:02}");
    if fraction != 0 {
        let digits = format!("{fraction:0width$}", width = unit.digits());
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text
}

/// Since 1970-01-01 00:00:00 UTC; the least and the greatest are infinite.
pub fn timestamp(at: i64, unit: Unit) -> String {
    moment(at, unit, "Z")
}

/// Since 1970-01-01 00:00:00 on the same clock; the least and the greatest are infinite.
pub fn local_timestamp(at: i64, unit: Unit) -> String {
    moment(at, unit, "")
}

fn moment(at: i64, unit: Unit, zone: &str) -> String {
    match at {
        i64::MIN => "-infinity".to_owned(),
        i64::MAX => "infinity".to_owned(),
        at => {
            let day = 86_400 * unit.per_second();
            let (date, era) = civil(at.div_euclid(day));
            format!("{date}T{}{zone}{era}", time_of_day(at.rem_euclid(day), unit))
        }
    }
}

/// The date, and what has to stand at the very end if it is one before Christ.
fn civil(days: i64) -> (String, &'static str) {
    let (year, month, day) = civil_from_days(days);
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    (format!("{year:04}-{month:02}-{day:02}"), era)
}
