//! Tables named as in SQL: `public.users`, `"Public"."Weird.Name"`, `users`, `public.*`.
//!
//! As in SQL, what isn't quoted is folded to lower case, and `""` inside quotes is one quote.

use super::meant::{BadName, TablePattern};

/// Postgres cuts longer names off (`NAMEDATALEN - 1` bytes), so none can match.
pub(super) const MAX_NAME_BYTES: usize = 63;

/// The schema of a table that is named without one.
const DEFAULT_SCHEMA: &str = "public";

/// Reads a table's name or a schema's pattern.
pub(super) fn table_pattern(text: &str) -> Result<TablePattern, BadName> {
    let (first, rest) = part(text)?;
    let pattern = match (first, rest.strip_prefix('.')) {
        (Part::Star, _) => return Err(bad("names no schema", "write `public.*` for all tables of a schema")),
        (Part::Name(name), None) if rest.is_empty() => TablePattern::Table { schema: DEFAULT_SCHEMA.to_owned(), name },
        (Part::Name(schema), Some(after)) => match part(after)? {
            (Part::Star, "") => TablePattern::Schema { schema },
            (Part::Name(name), "") => TablePattern::Table { schema, name },
            _ => return Err(bad("is more than a schema and a table", QUOTE)),
        },
        (Part::Name(_), None) => return Err(bad("is not a table's name as SQL writes it", QUOTE)),
    };
    Ok(pattern)
}

const QUOTE: &str =
    "quote each part that is more than letters, digits and underscores: '\"Weird.Schema\".\"my-table\"'";

enum Part {
    Name(String),
    Star,
}

fn bad(problem: &str, remedy: &str) -> BadName {
    BadName { problem: problem.to_owned(), remedy: remedy.to_owned() }
}

/// The first part of a dotted name, and what follows it.
fn part(text: &str) -> Result<(Part, &str), BadName> {
    if let Some(rest) = text.strip_prefix('*') {
        return Ok((Part::Star, rest));
    }
    let (name, rest) = match text.strip_prefix('"') {
        Some(quoted) => quoted_name(quoted)?,
        None => bare_name(text)?,
    };
    if name.len() > MAX_NAME_BYTES {
        return Err(bad("is longer than Postgres's names can be", "write at most 63 bytes for each part"));
    }
    Ok((Part::Name(name), rest))
}

fn quoted_name(text: &str) -> Result<(String, &str), BadName> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"').ok_or_else(|| bad("has a quote that nothing closes", QUOTE))?;
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None if name.is_empty() => return Err(bad("has an empty part", QUOTE)),
            None => return Ok((name, after)),
        }
    }
}

fn bare_name(text: &str) -> Result<(String, &str), BadName> {
    let is_inner =
        |character: char| character.is_ascii_alphanumeric() || "_$".contains(character) || !character.is_ascii();
    let end = text.find(|character| !is_inner(character)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit() || first == '$') {
        return Err(bad("is not a table's name as SQL writes it", QUOTE));
    }
    // Postgres folds ASCII alone in a database of UTF-8.
    Ok((name.to_ascii_lowercase(), rest))
}

/// A name as SQL reads it back: in quotes, unless it would be folded to itself.
pub(super) fn quoted(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if name.bytes().all(is_plain) && !name.starts_with(|first: char| first.is_ascii_digit()) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(schema: &str, name: &str) -> Result<TablePattern, BadName> {
        Ok(TablePattern::Table { schema: schema.to_owned(), name: name.to_owned() })
    }

    #[test]
    fn names_are_read_as_sql_reads_them() {
        assert_eq!(table_pattern("public.users"), table("public", "users"));
        assert_eq!(table_pattern("Public.Users"), table("public", "users"));
        assert_eq!(table_pattern("users"), table("public", "users"));
        assert_eq!(table_pattern(r#""Public"."Weird.Name""#), table("Public", "Weird.Name"));
        assert_eq!(table_pattern(r#"a."say ""hi""""#), table("a", r#"say "hi""#));
        assert_eq!(table_pattern("größe.Ähre$1"), table("größe", "Ähre$1"));
        assert_eq!(table_pattern(r#"public."*""#), table("public", "*"));
    }

    #[test]
    fn a_star_takes_a_schema() {
        let schema = |schema: &str| Ok(TablePattern::Schema { schema: schema.to_owned() });
        assert_eq!(table_pattern("public.*"), schema("public"));
        assert_eq!(table_pattern(r#""Public".*"#), schema("Public"));
    }

    #[test]
    fn names_are_written_as_sql_reads_them_back() {
        for text in ["public.users", r#""Public"."Weird.Name""#, r#"a."say ""hi""""#, r#""1a"."*""#, r#""A".*"#] {
            assert_eq!(table_pattern(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_sql_would_refuse_is_refused() {
        for text in
            ["", ".", "a.", ".a", "a.b.c", "*", "*.*", "*.a", "a.*.b", "my-table", "a b", "1a", "\"", "\"\"", "a.\"b"]
        {
            assert!(table_pattern(text).is_err(), "{text}");
        }
        assert!(table_pattern(&"a".repeat(64)).is_err());
    }
}
