//! Texts within texts: what stands between double quotes, in an array or an hstore, with a backslash before each quote
//! and each backslash.

use std::cell::RefCell;

use super::{TextError, malformed, put_length};

/// A larger buffer isn't kept: a single value shall not hold its memory for good.
const KEPT_BYTES: usize = 1 << 20;

thread_local! {
    /// Buffers for texts without their backslashes; as many as texts lie within each other.
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// What stands between the quotes; or what needs none.
///
/// Invariant: behind each of the `escapes` backslashes in `raw` that escape something stands what they escape.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a> {
    raw: &'a [u8],
    escapes: usize,
}

impl<'a> Quoted<'a> {
    /// A text without quotes and backslashes.
    pub fn plain(raw: &'a [u8]) -> Self {
        Self { raw, escapes: 0 }
    }

    /// The text whose opening quote stands at `start`, and the place behind its closing quote.
    pub fn at(text: &'a [u8], start: usize) -> Result<(Self, usize), TextError> {
        let first = start + 1;
        let (mut at, mut escapes) = (first, 0);
        while let Some(byte) = text.get(at) {
            match byte {
                b'"' => return Ok((Self { raw: &text[first..at], escapes }, at + 1)),
                b'\\' => {
                    escapes += 1;
                    at += 2;
                }
                _ => at += 1,
            }
        }
        Err(malformed(text, text.len(), "a closing quote"))
    }

    /// The text, if it stands there as it is.
    pub fn as_plain(self) -> Option<&'a [u8]> {
        (self.escapes == 0).then_some(self.raw)
    }

    /// Any text → string.
    pub fn string(self, out: &mut Vec<u8>) {
        put_length(self.raw.len() - self.escapes, out);
        self.unescape(out);
    }

    /// Gives the text without its backslashes.
    pub fn read<R>(self, read: impl FnOnce(&[u8]) -> R) -> R {
        if let Some(text) = self.as_plain() {
            return read(text);
        }
        let mut buffer = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
        self.unescape(&mut buffer);
        let result = read(&buffer);
        if buffer.capacity() <= KEPT_BYTES {
            buffer.clear();
            BUFFERS.with_borrow_mut(|buffers| buffers.push(buffer));
        }
        result
    }

    /// Appends the text without its backslashes.
    fn unescape(self, out: &mut Vec<u8>) {
        let mut rest = self.raw;
        for _ in 0..self.escapes {
            let at = rest.iter().position(|byte| *byte == b'\\').unwrap_or(rest.len());
            out.extend_from_slice(&rest[..at]);
            out.extend(rest.get(at + 1));
            rest = rest.get(at + 2..).unwrap_or_default();
        }
        out.extend_from_slice(rest);
    }
}
