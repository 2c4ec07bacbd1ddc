//! A row's key in words, for messages.

use super::plan::Encoder;
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
}

fn show_text(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}
