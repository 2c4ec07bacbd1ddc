//! hstore: `"a"=>"1", "b"=>NULL`, as `hstore_out` writes it, the keys in the extension's own order.

use super::quoted::Quoted;
use super::{TextError, malformed, put_length};

/// The branches of `["null", "string"]`, as Avro writes their numbers.
const NULL_BRANCH: u8 = 0;
const VALUE_BRANCH: u8 = 2;

/// The count of entries that ends a map.
const END: u8 = 0;

/// An hstore → map of `["null", "string"]`. Walked twice: a map begins with the count of its entries.
pub fn hstore(text: &[u8], out: &mut Vec<u8>) -> Result<(), TextError> {
    let mut entries = Entries { text, at: 0 };
    let mut count = 0;
    let mut rest = entries.clone();
    while rest.next()?.is_some() {
        count += 1;
    }
    if count > 0 {
        put_length(count, out);
    }
    while let Some((key, value)) = entries.next()? {
        key.string(out);
        match value {
            None => out.push(NULL_BRANCH),
            Some(value) => {
                out.push(VALUE_BRANCH);
                value.string(out);
            }
        }
    }
    out.push(END);
    Ok(())
}

/// What is left of an hstore.
#[derive(Clone)]
struct Entries<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Entries<'a> {
    fn next(&mut self) -> Result<Option<(Quoted<'a>, Option<Quoted<'a>>)>, TextError> {
        if self.at == self.text.len() {
            return Ok(None);
        }
        if self.at > 0 {
            self.literal(b", ", "a comma and a space between an hstore's entries")?;
        }
        let key = self.quoted("an hstore's key in quotes")?;
        self.literal(b"=>", "the arrow behind an hstore's key")?;
        let value = match self.text[self.at..].starts_with(b"NULL") {
            true => {
                self.at += 4;
                None
            }
            false => Some(self.quoted("an hstore's value in quotes, or NULL")?),
        };
        Ok(Some((key, value)))
    }

    fn quoted(&mut self, expected: &'static str) -> Result<Quoted<'a>, TextError> {
        if self.text.get(self.at) != Some(&b'"') {
            return Err(malformed(self.text, self.at, expected));
        }
        let (quoted, end) = Quoted::at(self.text, self.at)?;
        self.at = end;
        Ok(quoted)
    }

    fn literal(&mut self, literal: &[u8], expected: &'static str) -> Result<(), TextError> {
        if !self.text[self.at..].starts_with(literal) {
            return Err(malformed(self.text, self.at, expected));
        }
        self.at += literal.len();
        Ok(())
    }
}
