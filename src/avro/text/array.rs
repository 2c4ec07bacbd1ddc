//! Arrays: `{1,NULL,"a \"b\""}` as `array_out` writes them, and their elements one by one.
//!
//! An Avro array begins with the count of its items, so the text is walked twice: once to count, which also finds
//! whatever isn't of the form, and once to encode. One block of items, rather than several of a known count, is what
//! other writers make too: an array in a key has the same bytes as theirs.
//!
//! An array of more than one dimension has no place in a list: the type doesn't say how many it has. Bounds other than 1
//! (`[0:2]={…}`) are left out; a key can't do without them ([`Codec::encode_key`](super::super::types::Codec::encode_key)).

use super::quoted::Quoted;
use super::{TextError, malformed, put_length};

/// The branches of `["null", T]`, as Avro writes their numbers.
const NULL_BRANCH: u8 = 0;
const VALUE_BRANCH: u8 = 2;

/// The count of items that ends an array.
const END: u8 = 0;

/// An array → array of `["null", T]`; `encode` appends the T of an element's text.
pub fn array(
    text: &[u8],
    delimiter: u8,
    out: &mut Vec<u8>,
    mut encode: impl FnMut(Quoted<'_>, &mut Vec<u8>) -> Result<(), TextError>,
) -> Result<(), TextError> {
    let mut elements = Elements::new(text, delimiter)?;
    let mut count = 0;
    let mut rest = elements.clone();
    while rest.next()?.is_some() {
        count += 1;
    }
    if count > 0 {
        put_length(count, out);
    }
    while let Some(element) = elements.next()? {
        match element {
            None => out.push(NULL_BRANCH),
            Some(text) => {
                out.push(VALUE_BRANCH);
                encode(text, out)?;
            }
        }
    }
    out.push(END);
    Ok(())
}

/// What is left of an array of one dimension.
#[derive(Clone)]
struct Elements<'a> {
    text: &'a [u8],
    /// Behind what opened the array or the last element.
    at: usize,
    delimiter: u8,
    is_first: bool,
}

impl<'a> Elements<'a> {
    fn new(text: &'a [u8], delimiter: u8) -> Result<Self, TextError> {
        let at = after_bounds(text)?;
        match text.get(at) {
            Some(b'{') => Ok(Self { text, at: at + 1, delimiter, is_first: true }),
            _ => Err(malformed(text, at, "the brace that opens an array")),
        }
    }

    /// The next element, `None` within for null; `None` at the end of the array, which must be that of the text.
    fn next(&mut self) -> Result<Option<Option<Quoted<'a>>>, TextError> {
        let is_first = std::mem::take(&mut self.is_first);
        match self.text.get(self.at) {
            Some(b'}') if self.at + 1 == self.text.len() => return Ok(None),
            Some(b'}') => return Err(malformed(self.text, self.at + 1, "the end of an array")),
            _ if is_first => {}
            Some(byte) if *byte == self.delimiter => self.at += 1,
            _ => return Err(malformed(self.text, self.at, "an array's delimiter or closing brace")),
        }
        match self.text.get(self.at) {
            Some(b'{') => Err(TextError::Unrepresentable("an array of more than one dimension")),
            Some(b'"') => {
                let (quoted, end) = Quoted::at(self.text, self.at)?;
                self.at = end;
                Ok(Some(Some(quoted)))
            }
            _ => self.bare().map(Some),
        }
    }

    /// An element that needs no quotes. NULL in quotes is a text, without them it is none.
    fn bare(&mut self) -> Result<Option<Quoted<'a>>, TextError> {
        let rest = &self.text[self.at..];
        let is_end = |byte: &u8| *byte == self.delimiter || matches!(byte, b'}' | b'{' | b'"' | b'\\');
        let length = rest.iter().position(is_end).unwrap_or(rest.len());
        if length == 0 {
            return Err(malformed(self.text, self.at, "an array's element"));
        }
        self.at += length;
        let bare = &rest[..length];
        Ok((bare != b"NULL").then_some(Quoted::plain(bare)))
    }
}

/// Where the array begins behind `[0:2]=`, which stands there if its bounds aren't 1.
fn after_bounds(text: &[u8]) -> Result<usize, TextError> {
    if text.first() != Some(&b'[') {
        return Ok(0);
    }
    let is_bound = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'[' | b':' | b'-' | b'+' | b']');
    let end = text.iter().position(|byte| !is_bound(byte)).unwrap_or(text.len());
    if text.get(end) != Some(&b'=') || text[end - 1] != b']' {
        return Err(malformed(text, end, "an array's bounds and an equals sign"));
    }
    match text[1..end].contains(&b'[') {
        true => Err(TextError::Unrepresentable("an array of more than one dimension")),
        false => Ok(end + 1),
    }
}
