//! A row's key in words, for messages.

use super::plan::Encoder;
use super::read::{WriterSchema, schema_id};
use crate::pgoutput::Cell;

/// At most so many characters of a value are shown.
const SHOWN_CHARACTERS: usize = 100;

impl Encoder {
    /// The key of a row in words: `(id = 7)`.
    pub fn show_key<'a>(&self, cells: impl Iterator<Item = Cell<'a>> + Clone) -> String {
        let shown = self.plan().key_columns().map(|(index, column)| match cells.clone().nth(index) {
            Some(Cell::Text(text)) => format!("{column} = {}", show_text(text)),
            Some(Cell::Null) => format!("{column} = null"),
            _ => format!("{column} = ?"),
        });
        format!("({})", shown.collect::<Vec<_>>().join(", "))
    }

    /// A key that it has written, as JSON: `{"id":7}`.
    pub(super) fn show_written_key(&self, key: &[u8]) -> Option<String> {
        let schema = WriterSchema::parse(self.plan().key_schema()).ok()?;
        let (_, datum) = schema_id(key)?;
        let json = serde_json::to_string(&schema.read(datum).ok()?).ok()?;
        Some(show_text(json.as_bytes()))
    }
}

fn show_text(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}
