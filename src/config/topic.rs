//! Topics' names: a template with `{connector}`, `{schema}` and `{table}` to be filled in.
//!
//! Kafka takes letters, digits, `.`, `_` and `-`. Any other byte of a schema's or a table's name (in UTF-8) becomes
//! `_xHH`, two lower case hexadecimal digits, and an underscore that would read as the start of such a group becomes
//! `_x5f`. So a name can always be read back, and two names never become one.

use super::meant::TopicTemplate;

/// Kafka's own limit.
pub(super) const MAX_TOPIC_BYTES: usize = 249;

const PLACEHOLDERS: [&str; 3] = ["connector", "schema", "table"];

/// What is wrong with a template, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadTemplate {
    pub problem: String,
    pub remedy: String,
}

impl TopicTemplate {
    /// Reads a template.
    pub(super) fn parse(text: &str) -> Result<TopicTemplate, BadTemplate> {
        let bad = |problem: String, remedy: &str| BadTemplate { problem, remedy: remedy.to_owned() };
        for piece in pieces(text) {
            match piece {
                Piece::Placeholder(name) if PLACEHOLDERS.contains(&name) => {}
                Piece::Placeholder(name) => {
                    let problem = format!("`{{{name}}}` is not a placeholder");
                    return Err(bad(problem, "there are `{connector}`, `{schema}` and `{table}`"));
                }
                Piece::Literal(literal) => {
                    if let Some(character) = literal.chars().find(|character| !is_valid(*character)) {
                        let problem = format!("{character:?} cannot stand in a topic's name");
                        return Err(bad(problem, "use letters, digits, `.`, `_` and `-`"));
                    }
                }
            }
        }
        if text.is_empty() {
            return Err(bad("is empty".to_owned(), "write a name, or leave it out for the default"));
        }
        Ok(TopicTemplate(text.to_owned()))
    }

    /// `{connector}.{schema}.{table}`.
    pub(super) fn standard() -> TopicTemplate {
        TopicTemplate("{connector}.{schema}.{table}".to_owned())
    }

    /// Whether the table's name is in the topic's name.
    pub(super) fn names_the_table(&self) -> bool {
        pieces(&self.0).any(|piece| matches!(piece, Piece::Placeholder("table")))
    }

    /// The topic of a table. What Kafka cannot have in a name is escaped as `_xHH`.
    pub fn render(&self, connector: &str, schema: &str, table: &str) -> String {
        let mut topic = String::with_capacity(self.0.len() + schema.len() + table.len());
        for piece in pieces(&self.0) {
            match piece {
                Piece::Placeholder("connector") => escape(connector, &mut topic),
                Piece::Placeholder("schema") => escape(schema, &mut topic),
                Piece::Placeholder("table") => escape(table, &mut topic),
                Piece::Placeholder(other) | Piece::Literal(other) => topic.push_str(other),
            }
        }
        topic
    }
}

/// Why Kafka, or tablecast, won't have a topic of this name.
pub(super) fn objection(topic: &str) -> Option<&'static str> {
    if topic.len() > MAX_TOPIC_BYTES {
        Some("which is longer than the 249 bytes that Kafka takes")
    } else if topic == "." || topic == ".." {
        Some("which Kafka does not take")
    } else if topic.starts_with("__") || topic.starts_with("_tablecast_") {
        Some("which is kept for Kafka's and tablecast's own topics")
    } else {
        None
    }
}

/// What two topics must not share: Kafka refuses one that differs from another by `.` and `_` alone, since both are
/// the same in the names of its metrics.
pub(super) fn collision_key(topic: &str) -> String {
    topic.replace('.', "_")
}

enum Piece<'t> {
    Literal(&'t str),
    Placeholder(&'t str),
}

/// Splits a template. A brace that opens or closes nothing is a literal.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some((name, after)) = rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            rest = after;
            return Some(Piece::Placeholder(name));
        }
        // Past the first character, so that a lone brace cannot hold the loop up.
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let end = rest[first..].find('{').map_or(rest.len(), |found| found + first);
        let (literal, after) = rest.split_at(end);
        rest = after;
        Some(Piece::Literal(literal))
    })
}

fn is_valid(character: char) -> bool {
    character.is_ascii_alphanumeric() || "._-".contains(character)
}

fn escape(name: &str, topic: &mut String) {
    for (index, character) in name.char_indices() {
        if is_valid(character) && !reads_as_escape(&name[index..]) {
            topic.push(character);
            continue;
        }
        let mut buffer = [0; 4];
        for byte in character.encode_utf8(&mut buffer).bytes() {
            topic.push_str(&format!("_x{byte:02x}"));
        }
    }
}

fn reads_as_escape(text: &str) -> bool {
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    matches!(text.as_bytes(), [b'_', b'x', high, low, ..] if is_hex(high) && is_hex(low))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn render(template: &str, schema: &str, table: &str) -> String {
        TopicTemplate::parse(template).unwrap().render("shop", schema, table)
    }

    #[test]
    fn placeholders_are_filled_in() {
        assert_eq!(render("{connector}.{schema}.{table}", "public", "users"), "shop.public.users");
        assert_eq!(render("cdc-{table}", "public", "users"), "cdc-users");
        assert_eq!(render("users", "public", "users"), "users");
    }

    #[test]
    fn what_kafka_cannot_take_is_escaped() {
        assert_eq!(render("{table}", "public", "my table"), "my_x20table");
        assert_eq!(render("{table}", "public", "Größe"), "Gr_xc3_xb6_xc3_x9fe");
        assert_eq!(render("{table}", "public", "my_x20table"), "my_x5fx20table");
        assert_eq!(render("{table}", "public", "{schema}"), "_x7bschema_x7d");
        assert_eq!(render("{table}", "public", "_xmas_x"), "_xmas_x");
    }

    #[test]
    fn templates_that_cannot_be_a_name_are_refused() {
        for text in ["", "{db}", "{", "}", "a{table", "a b", "{{table}}", "größe", "a/b"] {
            assert!(TopicTemplate::parse(text).is_err(), "{text}");
        }
    }

    fn unescape(topic: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = topic;
        while let Some(first) = rest.chars().next() {
            if reads_as_escape(rest) {
                bytes.push(u8::from_str_radix(&rest[2..4], 16).unwrap());
                rest = &rest[4..];
            } else {
                bytes.push(u8::try_from(first).unwrap());
                rest = &rest[1..];
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    proptest! {
        #[test]
        fn every_name_becomes_a_valid_one_that_can_be_read_back(name in "(_x[0-9a-f]{0,3}|\\PC|_){0,20}") {
            let topic = render("{table}", "public", &name);
            prop_assert!(topic.chars().all(is_valid));
            prop_assert_eq!(unescape(&topic), name);
        }
    }
}
