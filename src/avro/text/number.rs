//! Integers and floats.

use std::str::FromStr;

use super::{TextError, malformed, put_long};

/// So many digits fit into an i64, whichever they are.
const SAFE_DIGITS: usize = 18;

/// An int2 or int4 → int.
#[inline]
pub fn int(text: &[u8], out: &mut Vec<u8>) -> Result<(), TextError> {
    let value = parse(text)?;
    match i32::try_from(value) {
        Ok(_) => put_long(value, out),
        Err(_) => return Err(malformed(text, 0, "an integer of 32 bits")),
    }
    Ok(())
}

/// An int8 or oid → long.
#[inline]
pub fn long(text: &[u8], out: &mut Vec<u8>) -> Result<(), TextError> {
    put_long(parse(text)?, out);
    Ok(())
}

/// A decimal integer, with a minus or without.
#[inline]
fn parse(text: &[u8]) -> Result<i64, TextError> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > SAFE_DIGITS {
        return parse_long(text, negative, digits);
    }
    let mut value = 0;
    for (index, byte) in digits.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(malformed(text, index + usize::from(negative), "a digit"));
        }
        value = value * 10 + i64::from(digit);
    }
    Ok(if negative { -value } else { value })
}

/// The same for digits that may be too many. It counts down from 0, for the least i64 has no positive counterpart.
#[cold]
fn parse_long(text: &[u8], negative: bool, digits: &[u8]) -> Result<i64, TextError> {
    let first = usize::from(negative);
    if digits.is_empty() {
        return Err(malformed(text, first, "a digit"));
    }
    let mut value: i64 = 0;
    for (index, byte) in digits.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(malformed(text, first + index, "a digit"));
        }
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_sub(i64::from(digit)))
            .ok_or_else(|| malformed(text, first + index, "an integer of 64 bits"))?;
    }
    match negative {
        true => Ok(value),
        false => value.checked_neg().ok_or_else(|| malformed(text, text.len(), "an integer of 64 bits")),
    }
}

/// A float4 → float.
#[inline]
pub fn float(text: &[u8], out: &mut Vec<u8>) -> Result<(), TextError> {
    out.extend_from_slice(&parse_float::<f32>(text)?.to_le_bytes());
    Ok(())
}

/// A float8 → double.
#[inline]
pub fn double(text: &[u8], out: &mut Vec<u8>) -> Result<(), TextError> {
    out.extend_from_slice(&parse_float::<f64>(text)?.to_le_bytes());
    Ok(())
}

/// Postgres writes floats with as many digits as it takes to read the same bits again, and std reads them exactly;
/// it also knows `Infinity`, `-Infinity` and `NaN`.
fn parse_float<F: FromStr>(text: &[u8]) -> Result<F, TextError> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| malformed(text, 0, "a floating-point number"))
}
