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

/// 1 where a uuid has a hyphen, 0 where it has a digit.
const UUID_HYPHENS: [u8; UUID_LENGTH] = {
    let mut hyphens = [0; UUID_LENGTH];
    (hyphens[8], hyphens[13], hyphens[18], hyphens[23]) = (1, 1, 1, 1);
    hyphens
};

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
    let Ok(uuid) = <&[u8; UUID_LENGTH]>::try_from(text) else { return Err(no_uuid(text)) };
    // No branch for each character: the compiler looks at sixteen of them at once.
    let fit = uuid.iter().zip(&UUID_HYPHENS).fold(1, |fit, (byte, hyphen)| fit & fits_uuid(*byte, *hyphen));
    if fit == 0 {
        return Err(no_uuid(text));
    }
    string(text, out);
    Ok(())
}

/// 1 if the character may stand where a uuid has a hyphen (1) or a digit (0).
#[inline]
fn fits_uuid(byte: u8, hyphen: u8) -> u8 {
    let is_digit = u8::from(byte.wrapping_sub(b'0') < 10) | u8::from((byte | 0x20).wrapping_sub(b'a') < 6);
    (is_digit & (1 ^ hyphen)) | (u8::from(byte == b'-') & hyphen)
}

#[cold]
fn no_uuid(text: &[u8]) -> TextError {
    match text.iter().zip(&UUID_HYPHENS).position(|(byte, hyphen)| fits_uuid(*byte, *hyphen) == 0) {
        Some(offset) => malformed(text, offset, "a uuid's hexadecimal digit or hyphen"),
        None => malformed(text, text.len().min(UUID_LENGTH), "a uuid of 36 characters"),
    }
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
