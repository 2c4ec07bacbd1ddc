//! Types of columns: what they are called, and what their text means.
//!
//! Types that are built in have fixed oids and are known from a table. Others are known from the catalog's
//! [`TypeFacts`]. A domain is what lies below it, with the typmod that it was declared with; an array is one of what its
//! elements are. What nobody knows is text.

use std::collections::{BTreeSet, HashMap};

use super::names::{Quoted, qualified};
use crate::pgoutput::RelationMessage;
use crate::postgres::catalog::TypeFacts;

/// What the catalog said about types, by oid.
pub type TypeMap = HashMap<u32, TypeFacts>;

/// Postgres prepends this to a length before it becomes a typmod (`VARHDRSZ`).
const TYPMOD_HEADER: i32 = 4;

/// How many domains may stand one on the other. Postgres has no limit; this one keeps a made-up cycle from hanging us.
const MAX_DOMAIN_DEPTH: usize = 64;

/// The type of a column.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PgType {
    /// `pg_type.oid` of the type that the column was declared with, be it a domain.
    pub oid: u32,
    /// `atttypmod`; -1 for none.
    pub typmod: i32,
    /// The type as SQL writes it: `numeric(12,2)`, `timestamp with time zone`, `shop.mood`.
    pub name: String,
    /// What its text means.
    pub kind: Kind,
}

/// What a value's text means, whatever the type is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is called as Postgres calls it")]
pub enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    /// With the precision and scale that it was declared with.
    Numeric(Option<NumericLimits>),
    Bytea,
    Uuid,
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
    Interval,
    /// The extension's: texts by text.
    Hstore,
    /// Written as `{…}`.
    Array(Box<ArrayKind>),
    /// Anything whose text speaks for itself.
    Text,
}

/// What an array is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArrayKind {
    /// What an element's text means. It is an array itself only where a domain stands in between.
    pub element: Kind,
    /// What stands between two elements: a comma, but for `box`, and for what extensions choose.
    pub delimiter: u8,
}

/// `(precision, scale)` of a numeric type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NumericLimits {
    /// How many digits it has at most: 1 to 1000.
    pub precision: u16,
    /// How many of them stand after the point: -1000 to 1000.
    pub scale: i16,
}

/// What a typmod looks like in a type's name.
#[derive(Clone, Copy)]
enum Modifier {
    /// There is none, or we don't tell.
    None,
    /// A length with a header: `character varying(20)`.
    Length,
    /// A plain number: `bit(3)`.
    Plain,
    /// Digits of seconds, which stand within the name: `timestamp(3) with time zone`.
    Seconds,
    /// Precision and scale.
    Numeric,
}

/// A built-in type.
struct BuiltIn {
    oid: u32,
    name: &'static str,
    kind: Kind,
    modifier: Modifier,
}

const fn built_in(oid: u32, name: &'static str, kind: Kind, modifier: Modifier) -> BuiltIn {
    BuiltIn { oid, name, kind, modifier }
}

/// The built-in types that tables are made of, by oid (`pg_type.dat`), with their names as `format_type` has them.
/// A built-in type that isn't here is looked up like any other, and is text.
const BUILT_IN: &[BuiltIn] = &[
    built_in(16, "boolean", Kind::Bool, Modifier::None),
    built_in(17, "bytea", Kind::Bytea, Modifier::None),
    built_in(18, "\"char\"", Kind::Text, Modifier::None),
    built_in(19, "name", Kind::Text, Modifier::None),
    built_in(20, "bigint", Kind::Int8, Modifier::None),
    built_in(21, "smallint", Kind::Int2, Modifier::None),
    built_in(22, "int2vector", Kind::Text, Modifier::None),
    built_in(23, "integer", Kind::Int4, Modifier::None),
    built_in(24, "regproc", Kind::Text, Modifier::None),
    built_in(25, "text", Kind::Text, Modifier::None),
    built_in(26, "oid", Kind::Oid, Modifier::None),
    built_in(27, "tid", Kind::Text, Modifier::None),
    built_in(28, "xid", Kind::Text, Modifier::None),
    built_in(29, "cid", Kind::Text, Modifier::None),
    built_in(30, "oidvector", Kind::Text, Modifier::None),
    built_in(114, "json", Kind::Text, Modifier::None),
    built_in(142, "xml", Kind::Text, Modifier::None),
    built_in(600, "point", Kind::Text, Modifier::None),
    built_in(601, "lseg", Kind::Text, Modifier::None),
    built_in(602, "path", Kind::Text, Modifier::None),
    built_in(603, "box", Kind::Text, Modifier::None),
    built_in(604, "polygon", Kind::Text, Modifier::None),
    built_in(628, "line", Kind::Text, Modifier::None),
    built_in(650, "cidr", Kind::Text, Modifier::None),
    built_in(700, "real", Kind::Float4, Modifier::None),
    built_in(701, "double precision", Kind::Float8, Modifier::None),
    built_in(718, "circle", Kind::Text, Modifier::None),
    built_in(774, "macaddr8", Kind::Text, Modifier::None),
    built_in(790, "money", Kind::Text, Modifier::None),
    built_in(829, "macaddr", Kind::Text, Modifier::None),
    built_in(869, "inet", Kind::Text, Modifier::None),
    built_in(1033, "aclitem", Kind::Text, Modifier::None),
    built_in(1042, "character", Kind::Text, Modifier::Length),
    built_in(1043, "character varying", Kind::Text, Modifier::Length),
    built_in(1082, "date", Kind::Date, Modifier::None),
    built_in(1083, "time without time zone", Kind::Time, Modifier::Seconds),
    built_in(1114, "timestamp without time zone", Kind::Timestamp, Modifier::Seconds),
    built_in(1184, "timestamp with time zone", Kind::TimestampTz, Modifier::Seconds),
    built_in(1186, "interval", Kind::Interval, Modifier::None),
    built_in(1266, "time with time zone", Kind::TimeTz, Modifier::Seconds),
    built_in(1560, "bit", Kind::Text, Modifier::Plain),
    built_in(1562, "bit varying", Kind::Text, Modifier::Plain),
    built_in(1700, "numeric", Kind::Numeric(None), Modifier::Numeric),
    built_in(1790, "refcursor", Kind::Text, Modifier::None),
    built_in(2202, "regprocedure", Kind::Text, Modifier::None),
    built_in(2203, "regoper", Kind::Text, Modifier::None),
    built_in(2204, "regoperator", Kind::Text, Modifier::None),
    built_in(2205, "regclass", Kind::Text, Modifier::None),
    built_in(2206, "regtype", Kind::Text, Modifier::None),
    built_in(2950, "uuid", Kind::Uuid, Modifier::None),
    built_in(2970, "txid_snapshot", Kind::Text, Modifier::None),
    built_in(3220, "pg_lsn", Kind::Text, Modifier::None),
    built_in(3614, "tsvector", Kind::Text, Modifier::None),
    built_in(3615, "tsquery", Kind::Text, Modifier::None),
    built_in(3734, "regconfig", Kind::Text, Modifier::None),
    built_in(3769, "regdictionary", Kind::Text, Modifier::None),
    built_in(3802, "jsonb", Kind::Text, Modifier::None),
    built_in(3904, "int4range", Kind::Text, Modifier::None),
    built_in(3906, "numrange", Kind::Text, Modifier::None),
    built_in(3908, "tsrange", Kind::Text, Modifier::None),
    built_in(3910, "tstzrange", Kind::Text, Modifier::None),
    built_in(3912, "daterange", Kind::Text, Modifier::None),
    built_in(3926, "int8range", Kind::Text, Modifier::None),
    built_in(4072, "jsonpath", Kind::Text, Modifier::None),
    built_in(4089, "regnamespace", Kind::Text, Modifier::None),
    built_in(4096, "regrole", Kind::Text, Modifier::None),
    built_in(4191, "regcollation", Kind::Text, Modifier::None),
    built_in(4451, "int4multirange", Kind::Text, Modifier::None),
    built_in(4532, "nummultirange", Kind::Text, Modifier::None),
    built_in(4533, "tsmultirange", Kind::Text, Modifier::None),
    built_in(4534, "tstzmultirange", Kind::Text, Modifier::None),
    built_in(4535, "datemultirange", Kind::Text, Modifier::None),
    built_in(4536, "int8multirange", Kind::Text, Modifier::None),
    built_in(5038, "pg_snapshot", Kind::Text, Modifier::None),
    built_in(5069, "xid8", Kind::Text, Modifier::None),
];

/// The built-in types by name, for their page in the docs.
#[cfg(test)]
pub(crate) fn built_in_types() -> impl Iterator<Item = (&'static str, Kind)> {
    BUILT_IN.iter().map(|entry| (if entry.oid == 1042 { "character(n)" } else { entry.name }, entry.kind.clone()))
}

/// The one built-in type that has another delimiter than a comma: it stands within its values.
const BOX: u32 = 603;

fn find_built_in(oid: u32) -> Option<&'static BuiltIn> {
    let index = BUILT_IN.binary_search_by_key(&oid, |entry| entry.oid).ok()?;
    BUILT_IN.get(index)
}

/// Types that must be looked up in the catalog before `relation` can become a shape: the types of its columns that
/// are not built in, and whatever lies below those, that `known` lacks.
///
/// The types below a type show only once that type is known, so ask again after each look-up, until nothing is left
/// or the catalog has nothing to add (a type can be gone by now; it then counts as text).
pub fn needed_types(relation: &RelationMessage<'_>, known: &TypeMap) -> BTreeSet<u32> {
    let mut needed = BTreeSet::new();
    for column in relation.columns.iter() {
        let mut oid = column.type_oid;
        for _ in 0..MAX_DOMAIN_DEPTH {
            if find_built_in(oid).is_some() {
                break;
            }
            let Some(facts) = known.get(&oid) else {
                needed.insert(oid);
                break;
            };
            match facts.base.map(|(base, _)| base).or(facts.element) {
                Some(below) => oid = below,
                None => break,
            }
        }
    }
    needed
}

impl PgType {
    /// The type with this oid and typmod.
    pub fn resolve(oid: u32, typmod: i32, types: &TypeMap) -> PgType {
        PgType { oid, typmod, name: type_name(oid, typmod, types), kind: Kind::resolve(oid, typmod, types) }
    }
}

impl Kind {
    /// What the text of the type means: goes down through domains to what they are made of.
    fn resolve(oid: u32, typmod: i32, types: &TypeMap) -> Kind {
        Self::resolve_within(oid, typmod, types, MAX_DOMAIN_DEPTH)
    }

    fn resolve_within(mut oid: u32, mut typmod: i32, types: &TypeMap, depth: usize) -> Kind {
        for rest in (0..depth).rev() {
            if let Some(entry) = find_built_in(oid) {
                return match &entry.kind {
                    Kind::Numeric(_) => Kind::Numeric(NumericLimits::of_typmod(typmod)),
                    kind => kind.clone(),
                };
            }
            let Some(facts) = types.get(&oid) else { return Kind::Text };
            match (facts.base, array_element(facts, types)) {
                // A column's own typmod is -1 where its type is a domain: the one that counts is the domain's.
                (Some((base, declared)), _) => (oid, typmod) = (base, declared),
                // An array's typmod is that of its elements.
                (None, Some((element, delimiter))) => {
                    let element = Self::resolve_within(element, typmod, types, rest);
                    return Kind::Array(Box::new(ArrayKind { element, delimiter }));
                }
                (None, None) if is_hstore(facts) => return Kind::Hstore,
                (None, None) => return Kind::Text,
            }
        }
        Kind::Text
    }
}

/// The element's type and the delimiter, if the type is an array and both are known. The elements of an array are never
/// arrays, but for a domain in between.
fn array_element(facts: &TypeFacts, types: &TypeMap) -> Option<(u32, u8)> {
    let element = facts.element?;
    if find_built_in(element).is_some() {
        return Some((element, if element == BOX { b';' } else { b',' }));
    }
    let below = types.get(&element).filter(|below| below.element.is_none())?;
    Some((element, u8::try_from(below.delimiter).ok()?))
}

/// The extension may lie in any schema, and anybody may call a type of his own `hstore`.
fn is_hstore(facts: &TypeFacts) -> bool {
    facts.name == "hstore" && facts.extension.as_deref() == Some("hstore")
}

impl NumericLimits {
    /// As `numeric_typmod_precision` and `numeric_typmod_scale` read it: the scale is a signed number of 11 bits.
    fn of_typmod(typmod: i32) -> Option<NumericLimits> {
        let bits = typmod.checked_sub(TYPMOD_HEADER).filter(|bits| *bits >= 0)?;
        let precision = u16::try_from((bits >> 16) & 0xFFFF).ok()?;
        let scale = i16::try_from(((bits & 0x7FF) ^ 1024) - 1024).ok()?;
        Some(NumericLimits { precision, scale })
    }
}

/// The type as SQL writes it. Schemas but `pg_catalog` and `public` are told, so that the name doesn't depend on
/// anybody's search path.
fn type_name(oid: u32, typmod: i32, types: &TypeMap) -> String {
    if let Some(entry) = find_built_in(oid) {
        return built_in_name(entry, typmod);
    }
    let Some(facts) = types.get(&oid) else {
        return format!("type with oid {oid}");
    };
    match array_element(facts, types) {
        Some((element, _)) => format!("{}[]", type_name(element, typmod, types)),
        _ if facts.schema == "pg_catalog" || facts.schema == "public" => Quoted(&facts.name).to_string(),
        _ => qualified(&facts.schema, &facts.name),
    }
}

fn built_in_name(entry: &BuiltIn, typmod: i32) -> String {
    let name = entry.name;
    match entry.modifier {
        Modifier::Length if typmod > TYPMOD_HEADER => format!("{name}({})", typmod - TYPMOD_HEADER),
        // format_type calls it by its internal name where it has no length, for `character` would mean one letter.
        Modifier::Length if entry.oid == 1042 => "bpchar".to_owned(),
        Modifier::Plain if typmod >= 0 => format!("{name}({typmod})"),
        Modifier::Seconds if typmod >= 0 => match name.split_once(' ') {
            Some((first, rest)) => format!("{first}({typmod}) {rest}"),
            None => format!("{name}({typmod})"),
        },
        Modifier::Numeric => match NumericLimits::of_typmod(typmod) {
            Some(NumericLimits { precision, scale }) => format!("{name}({precision},{scale})"),
            None => name.to_owned(),
        },
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_the_search_finds() {
        assert!(BUILT_IN.is_sorted_by_key(|entry| entry.oid));
    }

    #[test]
    fn types_are_called_as_format_type_calls_them() {
        for (oid, typmod, name) in [
            (23, -1, "integer"),
            (1700, -1, "numeric"),
            (1700, 786_438, "numeric(12,2)"),
            (1700, 329_729, "numeric(5,-3)"),
            (1043, 24, "character varying(20)"),
            (1043, -1, "character varying"),
            (1042, 5, "character(1)"),
            (1042, -1, "bpchar"),
            (1184, 3, "timestamp(3) with time zone"),
            (1114, -1, "timestamp without time zone"),
            (1083, 0, "time(0) without time zone"),
            (1560, 3, "bit(3)"),
            (99_999, -1, "type with oid 99999"),
        ] {
            assert_eq!(PgType::resolve(oid, typmod, &TypeMap::new()).name, name);
        }
    }
}
