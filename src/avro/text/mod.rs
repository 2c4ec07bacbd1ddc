//! From Postgres's text to Avro binary, one function a type.
//!
//! Each function reads the text of one value, as the type's output function writes it under the settings that both
//! connections make (`datestyle=ISO`, `bytea_output=hex`, `extra_float_digits=3`, …), and appends the Avro binary to
//! a buffer. None allocates but by growing that buffer (or one that a thread keeps, see `quoted`), and none panics, whatever the bytes: what isn't of the
//! expected form is a [`TextError`] that says what was expected, what stands there, and at which byte. It never says
//! more of the value than that one byte, for errors are logged and values may be secret.
//!
//! On an error the buffer may hold part of the value; the caller cuts it back.

mod array;
mod bytes;
mod decimal;
mod hstore;
mod number;
mod quoted;
mod time;

use std::fmt;

pub(super) use array::array;
pub(super) use bytes::{boolean, bytea, string, uuid};
pub(super) use decimal::{MAX_PRECISION, decimal};
pub(super) use hstore::hstore;
pub(super) use number::{double, float, int, long};
pub(super) use quoted::Quoted;
pub(super) use time::{date, local_timestamp, time_of_day, timestamp};

/// Why a text has no Avro value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The text is not of the type's form.
    #[error("expected {expected}, found {} at byte {offset}", Found(*.found))]
    Malformed {
        /// What should stand there.
        expected: &'static str,
        /// The byte that does; `None` at the end of the text.
        found: Option<u8>,
        /// How many bytes of the text stand before it.
        offset: usize,
    },
    /// The value is right, but the Avro type can't hold it.
    #[error("its Avro type can't hold {0}")]
    Unrepresentable(&'static str),
}

/// A byte, for a message.
struct Found(Option<u8>);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("the end"),
            Some(byte) if byte.is_ascii_graphic() || byte == b' ' => write!(f, "{:?}", char::from(byte)),
            Some(byte) => write!(f, "0x{byte:02X}"),
        }
    }
}

/// The error that `expected` doesn't stand at `offset` of `text`.
#[cold]
fn malformed(text: &[u8], offset: usize, expected: &'static str) -> TextError {
    TextError::Malformed { expected, found: text.get(offset).copied(), offset }
}

/// Appends an int or a long: zig-zag, then seven bits a byte, the lowest first.
#[inline]
pub(super) fn put_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    if rest < 0x80 {
        return out.push(rest as u8);
    }
    let mut bytes = [0; 10];
    let mut used = 0;
    for byte in &mut bytes {
        used += 1;
        *byte = rest as u8 | 0x80;
        rest >>= 7;
        if rest == 0 {
            *byte &= 0x7F;
            break;
        }
    }
    out.extend_from_slice(&bytes[..used]);
}

/// Appends the length of a string or of bytes.
#[inline]
fn put_length(length: usize, out: &mut Vec<u8>) {
    // No slice is longer than isize::MAX, so nothing is cut off.
    put_long(length as i64, out);
}
