//! What the rows of a topic were written under, as it is stored: a record for each table beside the connector's position,
//! in the same topic and the same Kafka transaction, but written only when it changes.
//!
//! A shape is the table as the catalog had it when all the topic's rows agreed with it; `announced` has the versions under
//! which rows were written since, as the stream (or a chunk) told of them. All of it together says which values a record
//! in the topic may have, and under which names: what the table has become since is compared with it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::relation::Shape;

/// The table that a topic's rows agree with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableShape {
    /// `pg_class.oid`.
    pub oid: u32,
    /// As SQL writes it: the schemas in the registry are named by it.
    pub name: String,
    /// How many columns it had ever had.
    pub natts: i16,
    /// The columns that are captured, in the table's order.
    pub columns: Vec<ShapeColumn>,
    /// Columns that are dropped, or not captured any more, and that old records may still have.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub former: BTreeSet<String>,
    /// The columns of the records' key, in the key's order.
    pub key: Vec<String>,
    /// The [fingerprint] of the key's schema: it has the names of types, and names that depend on the other columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_schema: Option<u64>,
    /// Whether it is partitioned.
    pub partitioned: bool,
    /// The file node of its heap, or those of its partitions, by oid.
    pub heaps: BTreeMap<u32, u32>,
    /// What makes each of its partitions one: a partition that was detached and attached again has another.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<u32, String>,
    /// The labels of the enums in it, by `pg_enum.oid`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<u32, String>,
    /// The attributes of the composite types in it, by the type's oid.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub composites: BTreeMap<u32, String>,
    /// What put it into the publication.
    pub membership: String,
    /// The publication's row filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_filter: Option<String>,
    /// Other versions under which rows were written since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub announced: Vec<Announced>,
}

/// A captured column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShapeColumn {
    /// `pg_attribute.attnum`.
    pub number: i16,
    /// Its name.
    pub name: String,
    /// `pg_attribute.atttypid`.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`.
    pub typmod: i32,
    /// Whether the configuration has it written as text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_text: bool,
    /// Whether rows of before it was added have a value all the same. Says nothing once all rows agree with the shape.
    #[serde(skip)]
    pub has_missing: bool,
    /// Who last changed the column. Nothing, where it was stored by a version that didn't ask.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// A version of a table that rows were written under.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// The captured columns: name, type and typmod.
    pub columns: Vec<(String, u32, i32)>,
    /// The columns of the records' key, in the key's order.
    pub key: Vec<String>,
    /// The [fingerprint] of the key's schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_schema: Option<u64>,
    /// How often it was announced.
    #[serde(default)]
    pub times: u32,
    /// No version, but that records were left out for want of a value or a key: other rows than they say agree with the topic.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
}

/// Tells schemas apart, today and in a later version: FNV-1a of its text, which is stored.
pub fn fingerprint(schema: &str) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    schema.bytes().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// Whether the keys are of different schemas, as far as both are known.
pub fn differ(one: Option<u64>, other: Option<u64>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}

impl Announced {
    /// The version that rows of this shape are written under, with keys of this schema.
    pub fn of(shape: &Shape, key_schema: &str) -> Announced {
        let captured = shape.columns.iter().filter(|column| column.captured);
        let columns = captured.map(|column| (column.name.clone(), column.pg_type.oid, column.pg_type.typmod));
        let key_schema = Some(fingerprint(key_schema));
        Announced { columns: columns.collect(), key: shape.key_columns(), key_schema, ..Announced::default() }
    }

    /// Says that records were left out.
    pub fn skipped() -> Announced {
        Announced { skipped: true, ..Announced::default() }
    }
}

impl TableShape {
    /// Notes a version that rows are written under from now on; tells whether that says anything new. One that was
    /// announced before is counted: whoever has compared what was known then has not compared the rows to come.
    pub fn announce(&mut self, announced: &Announced) -> bool {
        if self.announced.is_empty() && self.agrees_with(announced) {
            return false;
        }
        let same = |known: &&mut Announced| Announced { times: announced.times, ..(**known).clone() } == *announced;
        match self.announced.iter_mut().find(same) {
            Some(known) => known.times += 1,
            None => self.announced.push(announced.clone()),
        }
        true
    }

    /// The shape that old rows agree with too, which were written under `was`.
    #[must_use]
    pub fn after(mut self, was: &TableShape) -> TableShape {
        let names = was.columns.iter().map(|column| &column.name);
        let names =
            names.chain(was.announced.iter().flat_map(|announced| announced.columns.iter().map(|(name, ..)| name)));
        let is_gone = |name: &&String| self.columns.iter().all(|column| column.name != **name);
        let gone = names.chain(&was.former).filter(is_gone).cloned().collect();
        self.former = gone;
        self
    }

    fn agrees_with(&self, announced: &Announced) -> bool {
        let columns = self.columns.iter().map(|column| (&column.name, column.type_oid, column.typmod));
        self.key == announced.key
            && !differ(self.key_schema, announced.key_schema)
            && columns.eq(announced.columns.iter().map(|(name, oid, typmod)| (name, *oid, *typmod)))
    }

    /// Whether both are the same look at the catalog.
    pub fn is_same_look(&self, other: &TableShape) -> bool {
        let bare = |shape: &TableShape| {
            let columns = shape.columns.iter().map(|column| ShapeColumn { has_missing: false, ..column.clone() });
            TableShape { columns: columns.collect(), announced: Vec::new(), former: BTreeSet::new(), ..shape.clone() }
        };
        bare(self) == bare(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> TableShape {
        let column = ShapeColumn { number: 1, name: "id".into(), type_oid: 23, typmod: -1, ..ShapeColumn::default() };
        TableShape { columns: vec![column], key: vec!["id".into()], ..TableShape::default() }
    }

    fn announced(name: &str) -> Announced {
        Announced { columns: vec![(name.into(), 23, -1)], key: vec![name.into()], ..Announced::default() }
    }

    #[test]
    fn what_agrees_with_the_shape_says_nothing_until_another_version_was_announced() {
        let mut shape = shape();
        assert!(!shape.announce(&announced("id")) && shape.announced.is_empty());
        assert!(shape.announce(&announced("no")));
        assert!(shape.announce(&announced("id")));
        assert_eq!(shape.announced.len(), 2);
    }

    #[test]
    fn a_key_of_another_schema_is_another_version() {
        let mut shape = TableShape { key_schema: Some(fingerprint("a")), ..shape() };
        assert!(!shape.announce(&announced("id")), "of a former version");
        assert!(!shape.announce(&Announced { key_schema: Some(fingerprint("a")), ..announced("id") }));
        assert!(shape.announce(&Announced { key_schema: Some(fingerprint("b")), ..announced("id") }));
        assert_eq!(fingerprint("a"), 0xaf63_dc4c_8601_ec8c, "it is stored: it must stay the same");
    }

    #[test]
    fn a_version_that_is_announced_again_is_counted() {
        let mut shape = shape();
        shape.announce(&announced("no"));
        let then = shape.announced.clone();
        assert!(shape.announce(&announced("no")) && shape.announced.len() == 1);
        assert_ne!(shape.announced, then);
    }

    #[test]
    fn columns_that_old_records_may_still_have_are_not_forgotten() {
        let mut was = TableShape { former: ["a".to_owned()].into(), ..shape() };
        was.announce(&announced("b"));
        let now = TableShape { columns: Vec::new(), ..shape() }.after(&was);
        assert!(now.former.iter().eq(["a", "b", "id"]), "{now:?}");
        assert!(shape().after(&was).former.iter().eq(["a", "b"]));
        assert!(now.is_same_look(&TableShape { former: BTreeSet::new(), ..now.clone() }));
    }

    #[test]
    fn is_stored_as_json_without_what_is_empty() {
        let json = serde_json::to_string(&shape()).unwrap();
        assert!(!json.contains("announced") && !json.contains("as_text"), "{json}");
        assert_eq!(serde_json::from_str::<TableShape>(&json).unwrap(), shape());
    }
}
