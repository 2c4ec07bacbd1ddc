//! COPY's text format: lines into cells.
//!
//! Columns are parted by tabs, `\N` is null, and a backslash stands before what would be mistaken for either (the
//! manual, "COPY", "Text Format"). A value without a backslash is used where it lies; one with is written out into a
//! buffer that is used again for every row. So a row costs no allocation.

use memchr::{memchr, memchr2_iter};

use crate::pgoutput::Cell;

/// Where a cell's text is.
#[derive(Clone, Copy, Debug)]
enum Place {
    Null,
    /// From, and up to, in the line.
    Line(u32, u32),
    /// The same in the buffer.
    Buffer(u32, u32),
}

/// The cells of one line; used again for the next one.
#[derive(Debug, Default)]
pub struct Line {
    places: Vec<Place>,
    buffer: Vec<u8>,
}

impl Line {
    /// Takes a line apart, with or without the line feed at its end.
    pub fn parse(&mut self, line: &[u8]) {
        self.places.clear();
        self.buffer.clear();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut start = 0;
        let mut plain = true;
        // A backslash never stands before a tab as such: that is written `\t`.
        for at in memchr2_iter(b'\t', b'\\', line) {
            if line[at] == b'\\' {
                plain = false;
                continue;
            }
            self.push(line, start, at, plain);
            start = at + 1;
            plain = true;
        }
        self.push(line, start, line.len(), plain);
    }

    fn push(&mut self, line: &[u8], from: usize, to: usize, plain: bool) {
        // A line is a message of the protocol, of at most 1 GB.
        self.places.push(match &line[from..to] {
            _ if plain => Place::Line(from as u32, to as u32),
            b"\\N" => Place::Null,
            text => {
                let start = self.buffer.len() as u32;
                unescape(text, &mut self.buffer);
                Place::Buffer(start, self.buffer.len() as u32)
            }
        });
    }

    /// The cells of the line that was taken apart last, which has to be given again. A table without columns has one
    /// empty line a row; `columns` tells.
    pub fn cells<'a>(&'a self, line: &'a [u8], columns: usize) -> impl Iterator<Item = Cell<'a>> + Clone {
        self.places.iter().take(if columns == 0 { 0 } else { usize::MAX }).map(move |place| match *place {
            Place::Null => Cell::Null,
            Place::Line(from, to) => Cell::Text(&line[from as usize..to as usize]),
            Place::Buffer(from, to) => Cell::Text(&self.buffer[from as usize..to as usize]),
        })
    }
}

/// Postgres writes the letters below for the control characters that have one, and any other character as it is.
fn unescape(mut text: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = memchr(b'\\', text) {
        out.extend_from_slice(&text[..at]);
        let Some(escaped) = text.get(at + 1) else {
            text = &text[at..];
            break;
        };
        out.push(match escaped {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            other => *other,
        });
        text = &text[at + 2..];
    }
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(line: &[u8]) -> Vec<Option<Vec<u8>>> {
        let mut row = Line::default();
        row.parse(line);
        let cells = row.cells(line, 1).map(|cell| match cell {
            Cell::Text(text) => Some(text.to_vec()),
            _ => None,
        });
        cells.collect()
    }

    fn text(text: &str) -> Option<Vec<u8>> {
        Some(text.as_bytes().to_vec())
    }

    #[test]
    fn a_line_is_parted_by_tabs() {
        assert_eq!(parsed(b"1\tann\t\n"), [text("1"), text("ann"), text("")]);
        assert_eq!(parsed(b"\n"), [text("")]);
    }

    #[test]
    fn null_is_told_from_what_looks_like_it() {
        assert_eq!(parsed(b"\\N\tN\t\\\\N\t\n"), [None, text("N"), text("\\N"), text("")]);
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(parsed(b"a\\tb\\nc\\\\d\\re\\bf\\vg\\f\tx\n"), [text("a\tb\nc\\d\re\x08f\x0bg\x0c"), text("x")]);
    }

    /// What Postgres does (`CopyAttributeOutText`).
    fn escape(value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for byte in value {
            match byte {
                8 => out.extend(b"\\b"),
                12 => out.extend(b"\\f"),
                b'\n' => out.extend(b"\\n"),
                b'\r' => out.extend(b"\\r"),
                b'\t' => out.extend(b"\\t"),
                11 => out.extend(b"\\v"),
                b'\\' => out.extend(b"\\\\"),
                other => out.push(*other),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn any_row_comes_back(row in prop::collection::vec(prop::option::of(
            prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\\\t\n\rN".to_vec())], 0..12)), 1..6))
        {
            let cells = row.iter().map(|cell| cell.as_deref().map_or(b"\\N".to_vec(), escape)).collect::<Vec<_>>();
            let mut line = cells.join(&b'\t');
            line.push(b'\n');
            prop_assert_eq!(parsed(&line), row);
        }
    }
}
