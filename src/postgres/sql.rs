//! Names and strings as SQL.
//!
//! Every name is quoted, needed or not: so keywords, upper case, blanks and quotes need no rule of their own, and the
//! result can't be anything but a name. The same holds for strings.

/// The identifier, in double quotes.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The name of a table, type or function with its schema.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_ident(schema), quote_ident(name))
}

/// The string as a literal. One with a backslash is written in the `E''` form, which means the same whatever
/// `standard_conforming_strings` is.
pub fn quote_literal(text: &str) -> String {
    let text = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", text.replace('\\', "\\\\")) } else { format!("'{text}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_quoted_whatever_it_contains() {
        for (name, quoted) in [
            ("users", r#""users""#),
            ("Users", r#""Users""#),
            ("select", r#""select""#),
            ("a b", r#""a b""#),
            (r#"a"b"#, r#""a""b""#),
            (r#"""#, r#""""""#),
            (r"a\b'c", r#""a\b'c""#),
            ("naïve", r#""naïve""#),
            ("", r#""""#),
        ] {
            assert_eq!(quote_ident(name), quoted);
        }
    }

    #[test]
    fn a_qualified_name_is_quoted_part_by_part() {
        assert_eq!(qualified("public", "a.b"), r#""public"."a.b""#);
    }

    #[test]
    fn a_literal_is_closed_only_at_its_end() {
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal(r"a\'b"), r"E'a\\''b'");
        assert_eq!(quote_literal(""), "''");
    }
}
