//! `docs/types.md` has the table of types as it is in the code.

use std::fmt::Write;

use super::*;
use crate::relation::{ArrayKind, built_in_types};

const BEGIN: &str = "<!-- the table: written by the code -->\n";
const END: &str = "<!-- the table's end -->\n";

/// Set, it has the test write the table instead of comparing it.
const WRITE: &str = "TABLECAST_WRITE_DOCS";

fn what_it_is(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bool => "true or false",
        Kind::Int2 | Kind::Int4 | Kind::Int8 => "the number",
        Kind::Oid => "the number, 0 to 4294967295",
        Kind::Float4 | Kind::Float8 => "the same bits; NaN, ±infinity, −0 and subnormal numbers are themselves",
        Kind::Numeric(Some(NumericLimits { precision, scale })) if *scale < 0 || *scale > *precision as i16 => {
            "Postgres's text: Avro's decimal has no such scale"
        }
        Kind::Numeric(Some(_)) => {
            "the unscaled number, big-endian in two's complement, with the declared precision and scale"
        }
        Kind::Numeric(None) => "Postgres's text, all digits; also `NaN`, `Infinity`, `-Infinity`",
        Kind::Bytea => "the bytes",
        Kind::Uuid => "in lower case, with hyphens",
        Kind::Date => {
            "days since 1970-01-01, before 1582 too by the Gregorian calendar; `-infinity` and `infinity` are the least and the greatest int"
        }
        Kind::Time => "microseconds since midnight; `24:00:00` is 86400000000",
        Kind::TimeTz => "ISO 8601 with the offset that was given: `12:34:56.789+05:30`",
        Kind::Timestamp => {
            "microseconds since 1970-01-01 00:00 on the same clock; `-infinity` and `infinity` are the least and the greatest long"
        }
        Kind::TimestampTz => {
            "microseconds since 1970-01-01 00:00 UTC; `-infinity` and `infinity` are the least and the greatest long"
        }
        Kind::Interval => "ISO 8601, its fields as they are: `P1Y-2M3DT-4H-5M-6.789S`",
        Kind::Hstore => "key by key; an hstore's null is null",
        Kind::Array(_) => "element by element, each as its own type; a null is null, and the bounds are left out",
        Kind::Text => "Postgres's text",
    }
}

/// The rows: what has an Avro type of its own first.
fn rows() -> Vec<(String, Kind)> {
    let array = |element| Kind::Array(Box::new(ArrayKind { element, delimiter: b',' }));
    let numeric =
        [("numeric(12,2)", numeric(12, 2)), ("numeric(3,-2)", numeric(3, -2)), ("numeric(2,5)", numeric(2, 5))];
    let numeric = numeric.map(|(name, kind)| (name.to_owned(), kind));
    let made = [
        ("hstore", Kind::Hstore),
        ("integer[]", array(Kind::Int4)),
        ("numeric(12,2)[]", array(super::numeric(12, 2))),
        ("hstore[]", array(Kind::Hstore)),
    ];
    let made = made.map(|(name, kind)| (name.to_owned(), kind));
    let built_in = built_in_types().map(|(name, kind)| (name.to_owned(), kind));
    let (texts, others): (Vec<_>, Vec<_>) = built_in.partition(|(_, kind)| *kind == Kind::Text);
    others.into_iter().chain(numeric).chain(made).chain(texts).collect()
}

fn table() -> String {
    let mut table = String::from("| Postgres | Avro | what it is |\n| --- | --- | --- |\n");
    for (name, kind) in rows() {
        let schema = serde_json::to_string(&super::super::types::avro_type(&kind).schema).unwrap();
        writeln!(table, "| `{name}` | `{schema}` | {} |", what_it_is(&kind)).unwrap();
    }
    table
}

#[test]
fn the_page_of_types_has_the_table_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/types.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (there, after) = rest.split_once(END).unwrap();
    let table = table();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert!(
        there == table,
        "docs/types.md isn't what the code says: {WRITE}=1 cargo test --lib page_of_types writes it"
    );
}
