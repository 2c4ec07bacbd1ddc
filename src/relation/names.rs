//! Names as SQL writes them, for messages that can be pasted and for type names as `format_type` gives them.

use std::fmt::{self, Display};

/// Words that Postgres's `quote_ident` quotes though their letters need no quotes, as far as tables and columns are
/// likely to have them. A word missing here makes a remedy that must be quoted by hand, no more.
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "constraint",
    "create",
    "default",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "from",
    "grant",
    "group",
    "having",
    "in",
    "into",
    "leading",
    "left",
    "like",
    "limit",
    "not",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "primary",
    "references",
    "right",
    "select",
    "table",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "when",
    "where",
    "window",
    "with",
];

/// A name, quoted where SQL needs it.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0;
        let plain = name.bytes().enumerate().all(|(index, byte)| match byte {
            b'a'..=b'z' | b'_' => true,
            b'0'..=b'9' => index > 0,
            _ => false,
        });
        if plain && !name.is_empty() && !RESERVED.contains(&name) {
            f.write_str(name)
        } else {
            write!(f, "\"{}\"", name.replace('"', "\"\""))
        }
    }
}

/// A table's or a type's name with its schema, for messages: quoted where SQL needs it.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", Quoted(schema), Quoted(name))
}

/// Names, quoted and separated by commas, as in `PRIMARY KEY (a, b)`.
pub(super) fn list<S: AsRef<str>>(names: &[S]) -> String {
    names.iter().map(|name| Quoted(name.as_ref()).to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_sql_needs_it() {
        for (name, quoted) in
            [("id", "id"), ("a_1", "a_1"), ("1a", "\"1a\""), ("Id", "\"Id\""), ("order", "\"order\""), ("", "\"\"")]
        {
            assert_eq!(Quoted(name).to_string(), quoted);
        }
        assert_eq!(qualified("public", "say \"hi\""), "public.\"say \"\"hi\"\"\"");
    }
}
