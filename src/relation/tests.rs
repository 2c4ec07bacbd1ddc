//! What shapes follow from, and what is refused with which remedy.

use super::*;
use crate::pgoutput::{RelationColumn, RelationMessage};
use crate::postgres::catalog::{ColumnFacts, ReplicaIdentity, TableFacts, TypeFacts};

/// `name`, type, typmod, and whether the replica identity has it.
type Spec<'a> = (&'a str, u32, i32, bool);

const ORDERS: &[Spec<'static>] = &[("region", 25, -1, true), ("id", 20, -1, true), ("total", 1700, 786_438, false)];

fn message(replica_identity: ReplicaIdentity, columns: &[Spec<'static>]) -> RelationMessage<'static> {
    let columns = columns.iter().map(|&(name, type_oid, typmod, in_replica_identity)| RelationColumn {
        in_replica_identity,
        name,
        type_oid,
        typmod,
    });
    RelationMessage { oid: 16_400, schema: "public", name: "orders", replica_identity, columns: columns.collect() }
}

fn facts(relation: &RelationMessage<'_>, primary_key: &[&str], index: &[&str]) -> TableFacts {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    TableFacts {
        oid: relation.oid,
        schema: relation.schema.to_owned(),
        name: relation.name.to_owned(),
        relkind: 'r',
        persistence: 'p',
        replica_identity: relation.replica_identity,
        is_partition: false,
        partition_root: None,
        primary_key: owned(primary_key),
        replica_identity_index: owned(index),
        columns: relation
            .columns
            .iter()
            .map(|column| ColumnFacts {
                name: column.name.to_owned(),
                type_oid: column.type_oid,
                typmod: column.typmod,
                generated: false,
            })
            .collect(),
    }
}

fn shape(relation: &RelationMessage<'_>, table: &TableFacts, options: ShapeOptions<'_>) -> Result<Shape, ShapeError> {
    Shape::new(relation, table, &TypeMap::new(), &options)
}

fn problem(relation: &RelationMessage<'_>, primary_key: &[&str], options: ShapeOptions<'_>) -> String {
    shape(relation, &facts(relation, primary_key, &[]), options).unwrap_err().to_string()
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn kind(oid: u32, typmod: i32, types: &TypeMap) -> Kind {
    PgType::resolve(oid, typmod, types).kind
}

fn type_facts(oid: u32, typtype: char, base: Option<(u32, i32)>, element: Option<u32>) -> (u32, TypeFacts) {
    let (schema, name) = ("shop".to_owned(), format!("t{oid}"));
    (oid, TypeFacts { oid, schema, name, typtype, base, element, delimiter: ',', extension: None })
}

#[test]
fn the_key_has_the_order_of_the_primary_key_and_the_columns_that_of_the_table() {
    let relation = message(ReplicaIdentity::Default, ORDERS);
    let shape = shape(&relation, &facts(&relation, &["id", "region"], &[]), ShapeOptions::default()).unwrap();
    assert_eq!(shape.key, [1, 0]);
    let columns =
        shape.columns.iter().map(|column| (column.name.as_str(), column.pg_type.name.as_str(), column.in_key));
    let expected = [("region", "text", true), ("id", "bigint", true), ("total", "numeric(12,2)", false)];
    assert!(columns.eq(expected));
}

#[test]
fn a_full_identity_takes_the_primary_key() {
    let relation = message(ReplicaIdentity::Full, ORDERS);
    let shape = shape(&relation, &facts(&relation, &["id"], &[]), ShapeOptions::default()).unwrap();
    assert_eq!(shape.key, [1]);
}

#[test]
fn an_identity_index_takes_its_own_columns_and_not_the_primary_key() {
    let relation = message(ReplicaIdentity::Index, ORDERS);
    let facts = facts(&relation, &["total"], &["id", "region"]);
    assert_eq!(shape(&relation, &facts, ShapeOptions::default()).unwrap().key, [1, 0]);
}

#[test]
fn the_mapping_may_name_any_columns_that_the_identity_covers() {
    let (total, id) = (strings(&["total", "id"]), strings(&["id"]));
    let full = message(ReplicaIdentity::Full, ORDERS);
    let options = ShapeOptions { key: Some(&total), ..Default::default() };
    assert_eq!(shape(&full, &facts(&full, &[], &[]), options).unwrap().key, [2, 1]);
    let default = message(ReplicaIdentity::Default, ORDERS);
    let options = ShapeOptions { key: Some(&id), ..Default::default() };
    assert_eq!(shape(&default, &facts(&default, &["id", "region"], &[]), options).unwrap().key, [1]);
}

#[test]
fn a_single_flagged_column_is_the_key_whatever_the_catalog_calls_it_by_now() {
    let relation = message(ReplicaIdentity::Default, &[("id", 20, -1, true), ("note", 25, -1, false)]);
    let shape = shape(&relation, &facts(&relation, &["uid"], &[]), ShapeOptions::default()).unwrap();
    assert_eq!(shape.key, [0]);
}

#[test]
fn tables_that_cannot_name_their_key_on_delete_are_refused_with_the_remedy() {
    let nothing = message(ReplicaIdentity::Nothing, ORDERS);
    insta::assert_snapshot!(problem(&nothing, &["id"], ShapeOptions::default()), @"table public.orders: its replica identity is NOTHING, so a delete can't name its key; remedy: ALTER TABLE public.orders REPLICA IDENTITY DEFAULT (with a primary key), USING INDEX … or FULL");
    let keyless = message(ReplicaIdentity::Default, &[("id", 20, -1, false)]);
    insta::assert_snapshot!(problem(&keyless, &[], ShapeOptions::default()), @"table public.orders: it has no primary key that its replica identity carries (a deferrable one doesn't count), so a delete can't name its key; remedy: ALTER TABLE public.orders ADD PRIMARY KEY (…), or ALTER TABLE public.orders REPLICA IDENTITY USING INDEX … with a unique index over columns that are NOT NULL");
    let dropped = message(ReplicaIdentity::Index, &[("id", 20, -1, false)]);
    insta::assert_snapshot!(problem(&dropped, &[], ShapeOptions::default()), @"table public.orders: the index of its replica identity is gone, so a delete can't name its key; remedy: ALTER TABLE public.orders REPLICA IDENTITY DEFAULT (with a primary key), USING INDEX … or FULL");
    let full = message(ReplicaIdentity::Full, ORDERS);
    insta::assert_snapshot!(problem(&full, &[], ShapeOptions::default()), @r#"table public.orders: its replica identity is FULL, but it has no primary key to take as the record's key; remedy: name the columns that identify a row in the table's mapping, key = ["…"], or ALTER TABLE public.orders ADD PRIMARY KEY (…)"#);
    let total = strings(&["id", "total"]);
    let options = ShapeOptions { key: Some(&total), ..Default::default() };
    insta::assert_snapshot!(problem(&message(ReplicaIdentity::Default, ORDERS), &["id", "region"], options), @"table public.orders: the mapping's key has columns that the replica identity doesn't carry (total), so a delete can't name its key; remedy: ALTER TABLE public.orders REPLICA IDENTITY FULL, or USING INDEX … with a unique index over them");
}

#[test]
fn a_key_that_the_catalog_contradicts_is_refused() {
    let relation = message(ReplicaIdentity::Default, ORDERS);
    insta::assert_snapshot!(problem(&relation, &["id", "total"], ShapeOptions::default()), @r#"table public.orders: the primary key or replica identity index changed while the stream was behind: the stream says (region, id), the catalog says (id, total), and the order of the columns can't be known; remedy: name them in the table's mapping, key = ["…"]"#);
    let full = message(ReplicaIdentity::Full, ORDERS);
    assert!(problem(&full, &["uid"], ShapeOptions::default()).contains("changed while the stream was behind"));
}

#[test]
fn settings_that_name_no_column_or_hide_the_key_are_refused() {
    let relation = message(ReplicaIdentity::Default, ORDERS);
    let (typo, region, none) = (strings(&["totl"]), strings(&["region"]), strings(&[]));
    let of = |options| shape(&relation, &facts(&relation, &["id", "region"], &[]), options).unwrap_err().problem;
    let unknown = |setting| ShapeProblem::UnknownColumn {
        setting,
        column: "totl".to_owned(),
        existing: strings(&["region", "id", "total"]),
    };
    assert_eq!(of(ShapeOptions { key: Some(&typo), ..Default::default() }), unknown("key"));
    assert_eq!(of(ShapeOptions { exclude_columns: &typo, ..Default::default() }), unknown("exclude_columns"));
    assert_eq!(of(ShapeOptions { string_columns: &typo, ..Default::default() }), unknown("columns"));
    assert_eq!(of(ShapeOptions { key: Some(&none), ..Default::default() }), ShapeProblem::KeyEmpty);
    let excluded = ShapeProblem::KeyExcluded { column: "region".to_owned() };
    assert_eq!(of(ShapeOptions { exclude_columns: &region, ..Default::default() }), excluded);
    let twice = strings(&["id", "id"]);
    let problem = ShapeProblem::KeyTwice { column: "id".to_owned() };
    assert_eq!(of(ShapeOptions { key: Some(&twice), ..Default::default() }), problem);
}

#[test]
fn a_column_that_the_stream_does_not_know_yet_may_be_excluded() {
    let old = message(ReplicaIdentity::Default, &[("id", 20, -1, true)]);
    let new = message(ReplicaIdentity::Default, &[("id", 20, -1, true), ("secret", 25, -1, false)]);
    let secret = strings(&["secret"]);
    let options = ShapeOptions { exclude_columns: &secret, ..Default::default() };
    assert_eq!(shape(&old, &facts(&new, &["id"], &[]), options).unwrap().columns.len(), 1);
}

#[test]
fn excluded_columns_stay_in_the_shape_and_overridden_ones_become_text() {
    let relation =
        message(ReplicaIdentity::Default, &[("id", 20, -1, true), ("a", 17, -1, false), ("b", 23, -1, false)]);
    let (exclude, string) = (strings(&["a"]), strings(&["b", "id"]));
    let options = ShapeOptions { exclude_columns: &exclude, string_columns: &string, ..Default::default() };
    let shape = shape(&relation, &facts(&relation, &["id"], &[]), options).unwrap();
    let columns =
        shape.columns.iter().map(|column| (column.captured, column.pg_type.kind.clone(), column.pg_type.name.as_str()));
    let expected = [(true, Kind::Text, "bigint"), (false, Kind::Bytea, "bytea"), (true, Kind::Text, "integer")];
    assert!(columns.eq(expected));
}

#[test]
fn an_unchanged_relation_message_makes_no_new_version() {
    let relation = message(ReplicaIdentity::Default, ORDERS);
    let facts = facts(&relation, &["id", "region"], &[]);
    let first = shape(&relation, &facts, ShapeOptions::default()).unwrap();
    assert_eq!(first, shape(&relation, &facts, ShapeOptions::default()).unwrap());
    let mut changed = ORDERS.to_vec();
    changed[2].2 = 786_437;
    let changed = message(ReplicaIdentity::Default, &changed);
    assert_ne!(first, shape(&changed, &facts, ShapeOptions::default()).unwrap());
}

#[test]
fn a_generated_column_of_the_key_that_is_not_published_is_refused() {
    for identity in [ReplicaIdentity::Default, ReplicaIdentity::Full] {
        let relation = message(identity, &[("id", 20, -1, true), ("total", 1700, 786_438, false)]);
        let mut facts = facts(&relation, &["id", "twice"], &[]);
        let twice = ColumnFacts { name: "twice".to_owned(), type_oid: 20, typmod: -1, generated: true };
        facts.columns.push(twice);
        let problem = shape(&relation, &facts, ShapeOptions::default()).unwrap_err().to_string();
        assert!(problem.contains("the column \"twice\" of its key is generated"), "{problem}");
    }
    let published = message(ReplicaIdentity::Default, &[("id", 20, -1, true), ("twice", 20, -1, true)]);
    let mut facts = facts(&published, &["id", "twice"], &[]);
    facts.columns[1].generated = true;
    assert_eq!(shape(&published, &facts, ShapeOptions::default()).unwrap().key, [0, 1]);
}

#[test]
fn a_domain_is_its_base_type_with_the_typmod_it_was_declared_with() {
    let types = TypeMap::from([
        type_facts(20_001, 'd', Some((1700, 786_438)), None),
        type_facts(20_002, 'd', Some((20_001, -1)), None),
        type_facts(20_003, 'd', Some((20_004, -1)), None),
        type_facts(20_004, 'e', None, None),
    ]);
    let money = Kind::Numeric(Some(NumericLimits { precision: 12, scale: 2 }));
    assert_eq!(kind(20_001, -1, &types), money);
    assert_eq!(kind(20_002, -1, &types), money);
    assert_eq!(PgType::resolve(20_002, -1, &types).name, "shop.t20002");
    assert_eq!(kind(20_003, -1, &types), Kind::Text);
}

#[test]
fn what_is_not_known_is_text_and_a_cycle_ends() {
    let types = TypeMap::from([
        type_facts(20_001, 'd', Some((20_002, -1)), Some(20_001)),
        type_facts(20_002, 'd', Some((20_001, -1)), None),
        type_facts(20_003, 'b', None, Some(20_006)),
        type_facts(20_004, 'b', None, Some(20_005)),
        type_facts(20_005, 'b', None, Some(20_004)),
    ]);
    for oid in [20_001, 20_003, 20_004, 99_999] {
        assert_eq!(kind(oid, -1, &types), Kind::Text);
    }
    assert_eq!(PgType::resolve(20_003, -1, &types).name, "shop.t20003");
    assert_eq!(PgType::resolve(20_004, -1, &types).name, "shop.t20004");
}

#[test]
fn an_array_has_the_kind_and_the_delimiter_of_its_elements() {
    let (_, box_like) = type_facts(20_005, 'b', None, None);
    let (_, hstore) = type_facts(20_007, 'b', None, None);
    let hstore = TypeFacts { name: "hstore".to_owned(), extension: Some("hstore".to_owned()), ..hstore };
    let types = TypeMap::from([
        type_facts(20_001, 'b', None, Some(1700)),
        // A domain over an array with a typmod, and an array of that domain.
        type_facts(20_002, 'd', Some((20_001, 786_438)), None),
        type_facts(20_003, 'b', None, Some(20_002)),
        type_facts(20_004, 'b', None, Some(20_005)),
        (20_005, TypeFacts { delimiter: ':', ..box_like }),
        type_facts(20_006, 'b', None, Some(603)),
        (20_007, hstore.clone()),
        type_facts(20_008, 'b', None, Some(20_007)),
        (20_009, TypeFacts { oid: 20_009, extension: None, ..hstore }),
    ]);
    let array = |element, delimiter| Kind::Array(Box::new(ArrayKind { element, delimiter }));
    let money = Kind::Numeric(Some(NumericLimits { precision: 12, scale: 2 }));
    let moneys = array(money, b',');
    assert_eq!(kind(20_001, 786_438, &types), moneys);
    assert_eq!(kind(20_001, -1, &types), array(Kind::Numeric(None), b','));
    assert_eq!(kind(20_002, -1, &types), moneys);
    assert_eq!(kind(20_003, -1, &types), array(moneys, b','));
    assert_eq!(kind(20_004, -1, &types), array(Kind::Text, b':'));
    assert_eq!(kind(20_006, -1, &types), array(Kind::Text, b';'));
    assert_eq!(kind(20_008, -1, &types), array(Kind::Hstore, b','));
    assert_eq!(kind(20_009, -1, &types), Kind::Text);
    assert_eq!(PgType::resolve(20_001, 786_438, &types).name, "numeric(12,2)[]");
    assert_eq!(PgType::resolve(20_003, -1, &types).name, "shop.t20002[]");
}

#[test]
fn types_are_asked_for_until_what_lies_below_them_is_known() {
    let relation = message(ReplicaIdentity::Default, &[("id", 23, -1, true), ("price", 20_002, -1, false)]);
    let mut known = TypeMap::new();
    assert!(needed_types(&relation, &known).into_iter().eq([20_002]));
    known.extend([type_facts(20_002, 'd', Some((20_001, -1)), None)]);
    assert!(needed_types(&relation, &known).into_iter().eq([20_001]));
    known.extend([type_facts(20_001, 'd', Some((1700, 786_438)), None)]);
    assert!(needed_types(&relation, &known).is_empty());
}
