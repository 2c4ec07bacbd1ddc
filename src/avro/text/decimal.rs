//! numeric(p,s): the unscaled value, big-endian, in two's complement, in as few bytes as hold it.
//!
//! Up to 38 digits fit into an i128, which is nearly every column there is. The rest is done in limbs on the stack:
//! Postgres declares at most 1000 digits.

use super::{TextError, malformed, put_length};

/// Most digits of a numeric type that was declared with a precision (`NUMERIC_MAX_PRECISION`).
pub const MAX_PRECISION: u16 = 1000;

/// So many digits fit into an i128, whichever they are: 10^38 < 2^127.
const SMALL_DIGITS: usize = 38;

/// So many digits fit into a u64, whichever they are.
const CHUNK: usize = 18;

/// So many digits fit into a limb of 32 bits, whichever they are.
const LIMB_DIGITS: usize = 9;

/// 10^1000 < 2^3322 takes 104 limbs; one more leaves room for the sign.
const LIMBS: usize = 105;

/// The digits of a number, to be read one part after the other.
struct Digits<'a> {
    integer: &'a [u8],
    fraction: &'a [u8],
    /// Zeros that the scale asks for after `fraction`.
    padding: usize,
}

/// A numeric(precision, scale) → bytes of a decimal(precision, scale).
///
/// `precision` is at most [`MAX_PRECISION`], `scale` at most `precision`.
#[inline]
pub fn decimal(text: &[u8], precision: u16, scale: u16, out: &mut Vec<u8>) -> Result<(), TextError> {
    let negative = text.first() == Some(&b'-');
    let digits = split(text, usize::from(negative), usize::from(scale))?;
    if digits.integer.len() > usize::from(precision.saturating_sub(scale)) {
        return Err(TextError::Unrepresentable("a number with more digits than its precision"));
    }
    if digits.integer.len() + usize::from(scale) <= SMALL_DIGITS {
        put_small(negative, &digits, out);
    } else {
        put_large(negative, &digits, out);
    }
    Ok(())
}

/// Takes the text apart, and checks it: what comes out are digits, without leading zeros, and with no more than
/// `scale` of them after the point.
#[inline]
fn split(text: &[u8], start: usize, scale: usize) -> Result<Digits<'_>, TextError> {
    let body = text.get(start..).unwrap_or_default();
    let integer_length = run_of_digits(body);
    if integer_length == 0 {
        return Err(no_number(text, start));
    }
    let (integer, rest) = body.split_at(integer_length);
    let fraction = match rest {
        [] => rest,
        [b'.', fraction @ ..] => fraction,
        _ => return Err(malformed(text, start + integer_length, "a digit, or the decimal point")),
    };
    let fraction_length = run_of_digits(fraction);
    if fraction_length != fraction.len() || (fraction_length == 0 && !rest.is_empty()) {
        return Err(malformed(text, start + integer_length + 1 + fraction_length, "a digit"));
    }
    let (fraction, beyond) = fraction.split_at(fraction_length.min(scale));
    if beyond.iter().any(|digit| *digit != b'0') {
        return Err(TextError::Unrepresentable("a number with more digits after the point than its scale"));
    }
    let zeros = integer.iter().take_while(|digit| **digit == b'0').count();
    Ok(Digits { integer: &integer[zeros..], fraction, padding: scale - fraction.len() })
}

#[inline]
fn run_of_digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

#[cold]
fn no_number(text: &[u8], start: usize) -> TextError {
    match text {
        b"NaN" => TextError::Unrepresentable("NaN"),
        b"Infinity" | b"-Infinity" => TextError::Unrepresentable("infinity"),
        _ => malformed(text, start, "a digit"),
    }
}

/// The value of at most [`CHUNK`] digits.
#[inline]
fn chunk_value(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit & 0x0F))
}

#[inline]
fn put_small(negative: bool, digits: &Digits<'_>, out: &mut Vec<u8>) {
    // The digits are at most 38 in all, so nothing overflows.
    let mut value: i128 = 0;
    for chunk in digits.integer.chunks(CHUNK).chain(digits.fraction.chunks(CHUNK)) {
        value = value * i128::from(10_u64.pow(chunk.len() as u32)) + i128::from(chunk_value(chunk));
    }
    if digits.padding > 0 {
        value *= 10_i128.pow(digits.padding as u32);
    }
    let value = if negative { -value } else { value };
    // All leading bits that equal the sign but one can go, in whole bytes.
    let same = if value < 0 { value.leading_ones() } else { value.leading_zeros() };
    let length = (128 - same as usize) / 8 + 1;
    put_length(length, out);
    out.extend_from_slice(&value.to_be_bytes()[16 - length..]);
}

/// A number of up to [`LIMBS`] limbs, the lowest first; those from `used` on are 0.
struct Limbs {
    limbs: [u32; LIMBS],
    used: usize,
}

impl Limbs {
    fn multiply_and_add(&mut self, factor: u32, summand: u32) {
        let mut carry = u64::from(summand);
        for limb in &mut self.limbs[..self.used] {
            let product = u64::from(*limb) * u64::from(factor) + carry;
            *limb = product as u32;
            carry = product >> 32;
        }
        if carry > 0
            && let Some(limb) = self.limbs.get_mut(self.used)
        {
            *limb = carry as u32;
            self.used += 1;
        }
    }

    /// Two's complement: all bits turned, and one added.
    fn negate(&mut self) {
        let mut carry = true;
        for limb in &mut self.limbs {
            (*limb, carry) = (!*limb).overflowing_add(u32::from(carry));
        }
    }
}

#[cold]
fn put_large(negative: bool, digits: &Digits<'_>, out: &mut Vec<u8>) {
    let mut number = Limbs { limbs: [0; LIMBS], used: 0 };
    for chunk in digits.integer.chunks(LIMB_DIGITS).chain(digits.fraction.chunks(LIMB_DIGITS)) {
        number.multiply_and_add(10_u32.pow(chunk.len() as u32), chunk_value(chunk) as u32);
    }
    let mut padding = digits.padding;
    while padding > 0 {
        let step = padding.min(LIMB_DIGITS);
        number.multiply_and_add(10_u32.pow(step as u32), 0);
        padding -= step;
    }
    if negative {
        number.negate();
    }
    // One limb more than used holds the sign, and where the number is the negative of 0, zeros.
    let top = number.used.min(LIMBS - 1);
    let bytes = number.limbs[..=top].iter().rev().flat_map(|limb| limb.to_be_bytes());
    let sign = if number.limbs[top] >> 31 == 1 { 0xFF } else { 0 };
    let mut same = bytes.clone().take_while(|byte| *byte == sign).count();
    let next_has_sign = bytes.clone().nth(same).is_some_and(|byte| (byte ^ sign) & 0x80 == 0);
    if !next_has_sign {
        same -= 1;
    }
    put_length((top + 1) * 4 - same, out);
    out.extend(bytes.skip(same));
}
