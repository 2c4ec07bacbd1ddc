//! Texts that are copied, and those that stand for bytes or a single bit.

use super::{TextError, malformed, put_length};

/// Marks a byte that is no hexadecimal digit in [`HEX`].
const NO_DIGIT: u8 = 0xFF;

/// The value of each byte as a hexadecimal digit.
const HEX: [u8; 256] = {
    let mut table = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value] as usize] = value as u8;
        table[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    table
};

/// How many characters a uuid has.
const UUID_LENGTH: usize = 36;

/// Where a uuid has its hyphens.
const UUID_HYPHENS: [usize; 4] = [8, 13, 18, 23];

#[inline]
fn hex(byte: u8) -> u8 {
    HEX[usize::from(byte)]
}

/// `t` or `f` → boolean.
#[inline]
pub fn boolean(text: &[u8], out: &mut Vec<u8>) -> Result<(), TextError> {
    match text {
        b"t" => out.push(1),
        b"f" => out.push(0),
        [b't' | b'f', ..] => return Err(malformed(text, 1, "the end of a boolean")),
        _ => return Err(malformed(text, 0, "t or f")),
    }
    Ok(())
}

/// Any text → string. The server has said that it is UTF-8 (`client_encoding`); it isn't checked again.
#[inline]
pub fn string(text: &[u8], out: &mut Vec<u8>) {
    put_length(text.len(), out);
    out.extend_from_slice(text);
}

/// `b1e7c9a0-…` → string. Checked, for a reader with the logical type would fail on any other text.
#[inline]
pub fn uuid(text: &[u8], out: &mut Vec<u8>) -> Result<(), TextError> {
    let fits = |(index, byte): (usize, &u8)| match UUID_HYPHENS.contains(&index) {
        true => *byte == b'-',
        false => hex(*byte) != NO_DIGIT,
    };
    if let Some(offset) = text.iter().take(UUID_LENGTH).enumerate().position(|at| !fits(at)) {
        return Err(malformed(text, offset, "a uuid's hexadecimal digit or hyphen"));
    }
    if text.len() != UUID_LENGTH {
        return Err(malformed(text, text.len().min(UUID_LENGTH), "a uuid of 36 characters"));
    }
    string(text, out);
    Ok(())
}

/// `\x00ff…` → bytes.
#[inline]
pub fn bytea(text: &[u8], out: &mut Vec<u8>) -> Result<(), TextError> {
    let Some(digits) = text.strip_prefix(br"\x") else {
        return Err(malformed(text, usize::from(text.starts_with(br"\")), r"\x and hexadecimal digits"));
    };
    let (pairs, rest) = digits.as_chunks::<2>();
    put_length(pairs.len(), out);
    let start = out.len();
    let mut seen = 0;
    out.extend(pairs.iter().map(|&[high, low]| {
        let (high, low) = (hex(high), hex(low));
        seen |= high | low;
        high << 4 | low & 0x0F
    }));
    // A digit's value has only its low four bits; NO_DIGIT has all.
    if seen == NO_DIGIT {
        out.truncate(start);
        let offset = digits.iter().position(|byte| hex(*byte) == NO_DIGIT).unwrap_or_default();
        return Err(malformed(text, 2 + offset, "a hexadecimal digit"));
    }
    match rest {
        [] => Ok(()),
        _ => Err(malformed(text, text.len(), "an even number of hexadecimal digits")),
    }
}
