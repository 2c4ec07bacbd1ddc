//! The types of columns, those of the suite's test of types and arrays of them, and random values of each, which know
//! its extremes.

use std::collections::HashMap;

use fastrand::Rng;

use super::cases::{BEYOND, CASES, Case};
use super::check::{array_literal, literal};
use super::session::Session;

/// Half of all columns are of one of these.
const COMMON: &[&str] =
    &["boolean", "int2", "int4", "int8", "text", "varchar", "numeric_12_2", "timestamptz", "jsonb", "uuid", "mood"];
/// The enum, whose labels change.
pub const ENUM: &str = "mood";
/// The composite, whose attributes change.
pub const COMPOSITE: &str = "pair";
/// Pieces of 32 characters in a value that is stored out of line.
const PIECES: std::ops::Range<u32> = 80..140;

/// A type of columns.
#[derive(Clone)]
pub struct Kind {
    pub case: &'static Case,
    pub array: bool,
}

impl Kind {
    /// As SQL writes it.
    pub fn sql(&self) -> String {
        format!("{}{}", self.case.sql, if self.array { "[]" } else { "" })
    }

    /// Whether it is a decimal in Avro, or made of such.
    pub fn is_decimal(&self) -> bool {
        self.case.name.starts_with("numeric_") || ["cents", "price"].contains(&self.case.name)
    }

    /// Whether it can be in a key. An array's bounds are refused there.
    pub fn in_key(&self) -> bool {
        self.case.in_key && !self.array
    }

    /// Whether it can be stored out of line, by a value of [`Kinds::large`].
    fn can_be_large(&self) -> bool {
        !self.array && ["text", "bytea", "jsonb"].contains(&self.case.name)
    }
}

/// All types, by the name that Postgres shows.
pub struct Kinds {
    by_format: HashMap<String, Kind>,
}

/// What is in the catalog of the types that change.
pub struct Changing {
    pub labels: Vec<String>,
    pub attributes: usize,
}

impl Kinds {
    /// Asks Postgres how it calls them.
    pub fn learn(session: &Session) -> Self {
        let kinds: Vec<_> = CASES
            .iter()
            .flat_map(|case| [false, true].map(|array| Kind { case, array }))
            .chain(only_beyond())
            .collect();
        let columns: Vec<_> = kinds.iter().enumerate().map(|(at, kind)| format!("c{at} {}", kind.sql())).collect();
        session.must(&format!("CREATE TEMP TABLE kinds ({})", columns.join(", ")));
        let names = session.rows(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'kinds'::regclass AND attnum > 0
             ORDER BY attnum",
        );
        session.must("DROP TABLE kinds");
        let names = names.into_iter().map(|row| row[0].clone().unwrap());
        Self { by_format: names.zip(kinds).collect() }
    }

    /// The type of this name.
    pub fn of(&self, format: &str) -> Kind {
        self.by_format.get(format).unwrap_or_else(|| panic!("no such type here: {format}")).clone()
    }

    /// Any type.
    pub fn any(&self, rng: &mut Rng) -> Kind {
        let case = match rng.bool() {
            true => named(COMMON[rng.usize(..COMMON.len())]),
            false => &CASES[rng.usize(..CASES.len())],
        };
        Kind { case, array: rng.u8(..6) == 0 }
    }
}

fn only_beyond() -> impl Iterator<Item = Kind> {
    let beyond = BEYOND.iter().filter(|beyond| CASES.iter().all(|case| case.sql != beyond.sql));
    beyond.flat_map(|case| [false, true].map(|array| Kind { case, array }))
}

/// The case of this name.
pub fn named(name: &str) -> &'static Case {
    CASES.iter().find(|case| case.name == name).unwrap()
}

fn delimiter(case: &Case) -> &'static str {
    match case.name {
        "box" => ";",
        "geo" => ":",
        _ => ",",
    }
}

/// A random value of the type in SQL; not NULL.
pub fn value(rng: &mut Rng, kind: &Kind, changing: &Changing) -> String {
    if kind.can_be_large() && rng.u8(..8) == 0 {
        return large(rng, kind);
    }
    if !kind.array {
        return literal(&text(rng, kind.case, changing));
    }
    let elements: Vec<_> =
        (0..rng.usize(..4)).map(|_| (rng.u8(..5) > 0).then(|| text(rng, kind.case, changing))).collect();
    let elements: Vec<_> = elements.iter().map(Option::as_deref).collect();
    let bounds = if elements.len() == 2 && rng.bool() { "[-3:-2]=" } else { "" };
    array_literal(bounds, &elements, delimiter(kind.case))
}

/// A text that Postgres reads as a value.
fn text(rng: &mut Rng, case: &Case, changing: &Changing) -> String {
    if case.name == ENUM {
        return changing.labels[rng.usize(..changing.labels.len())].clone();
    }
    if case.name == COMPOSITE {
        return composite(rng, changing.attributes);
    }
    if let Some(random) = random(rng, case.name) {
        return random;
    }
    let beyond = BEYOND.iter().find(|beyond| beyond.sql == case.sql).map_or(&[][..], |beyond| beyond.values);
    let at = rng.usize(..case.values.len() + beyond.len());
    case.values.get(at).unwrap_or_else(|| &beyond[at - case.values.len()]).to_string()
}

/// Between the extremes, so that rows differ.
fn random(rng: &mut Rng, name: &str) -> Option<String> {
    if rng.u8(..3) == 0 {
        return None;
    }
    Some(match name {
        "int2" => rng.i16(..).to_string(),
        "int4" => rng.i32(..).to_string(),
        "int8" => rng.i64(..).to_string(),
        "float8" => f64::from(rng.i32(..)).to_string(),
        "numeric" | "numeric_12_2" => format!("{}.{:02}", rng.i32(..), rng.u8(..100)),
        "text" | "varchar" | "citext" => format!("w{}", rng.u16(..)),
        "uuid" => format!("{:08x}-0000-4000-8000-000000000000", rng.u32(..)),
        "jsonb" => format!("{{\"n\": {}}}", rng.u16(..)),
        "timestamptz" => {
            format!("20{:02}-01-01 00:00:{:02}.{:06}+00", rng.u8(10..99), rng.u8(..60), rng.u32(..1_000_000))
        }
        _ => return None,
    })
}

/// A row with so many attributes.
fn composite(rng: &mut Rng, attributes: usize) -> String {
    let mut fields = vec![rng.u8(..).to_string(), "\"a \"\"b\"\"\"".to_owned()];
    fields.resize(attributes.max(1), if rng.bool() { String::new() } else { "7".to_owned() });
    format!("({})", fields.join(","))
}

/// So large that it is stored out of line.
fn large(rng: &mut Rng, kind: &Kind) -> String {
    let (pieces, seed) = (rng.u32(PIECES), rng.u32(..));
    let hex = format!("(SELECT string_agg(md5({seed} || ':' || i), '') FROM generate_series(1, {pieces}) i)");
    match kind.case.name {
        "bytea" => format!("decode({hex} || {hex}, 'hex')"),
        "jsonb" => format!("to_jsonb({hex})"),
        _ => hex,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_type_come_with_its_extremes_and_those_beyond_what_most_readers_know() {
        let mut rng = Rng::with_seed(1);
        let changing = Changing { labels: vec!["only".to_owned()], attributes: 3 };
        let mut seen = |name: &str, array| -> Vec<String> {
            let kind = Kind { case: named(name), array };
            (0..500).map(|_| value(&mut rng, &kind, &changing)).collect()
        };
        let dates = seen("date", false);
        assert!(["'infinity'", "'1582-10-15'"].iter().all(|date| dates.iter().any(|seen| seen == date)));
        let numbers = seen("int8", false);
        assert!(numbers.iter().any(|seen| seen == "'-9223372036854775808'"));
        assert!(seen(ENUM, false).iter().all(|label| label == "'only'"));
        assert!(seen(COMPOSITE, false).iter().all(|row| row.matches(',').count() == 2));
        let arrays = seen("text", true);
        assert!(arrays.iter().any(|array| array == "'{}'") && arrays.iter().any(|array| array.contains("NULL")));
        assert!(seen("text", false).iter().any(|text| text.contains("string_agg")));
    }
}
