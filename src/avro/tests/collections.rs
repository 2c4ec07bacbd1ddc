//! Arrays and hstores: what stands in them, what is refused, and that whatever Postgres quotes comes back.

use std::collections::HashMap;

use num_bigint::BigInt;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::relation::ArrayKind;

fn array_of(element: Kind) -> Kind {
    Kind::Array(Box::new(ArrayKind { element, delimiter: b',' }))
}

/// The items of an array; `None` is null.
fn items(kind: &Kind, text: &str) -> Vec<Option<Value>> {
    match through_avro(kind, text.as_bytes()) {
        Ok(Value::Array(items)) => items.into_iter().map(unwrapped).collect(),
        other => panic!("{text}: {other:?}"),
    }
}

/// The entries of a map; `None` is null.
fn entries(text: &str) -> HashMap<String, Option<Value>> {
    match through_avro(&Kind::Hstore, text.as_bytes()) {
        Ok(Value::Map(entries)) => entries.into_iter().map(|(key, value)| (key, unwrapped(value))).collect(),
        other => panic!("{text}: {other:?}"),
    }
}

fn unwrapped(value: Value) -> Option<Value> {
    match value {
        Value::Union(0, _) => None,
        Value::Union(1, value) => Some(*value),
        other => panic!("no union: {other:?}"),
    }
}

fn string(text: &str) -> Option<Value> {
    Some(Value::String(text.to_owned()))
}

fn int(value: i32) -> Option<Value> {
    Some(Value::Int(value))
}

#[test]
fn arrays_of_what_needs_no_quotes() {
    let ints = array_of(Kind::Int4);
    assert_eq!(items(&ints, "{}"), []);
    assert_eq!(items(&ints, "{1}"), [int(1)]);
    assert_eq!(items(&ints, "{1,NULL,-3}"), [int(1), None, int(-3)]);
    assert_eq!(items(&ints, "[0:2]={1,2,3}"), [int(1), int(2), int(3)]);
    assert_eq!(items(&ints, "[-5:-5]={7}"), [int(7)]);
    let booleans = array_of(Kind::Bool);
    assert_eq!(items(&booleans, "{t,f}"), [Some(Value::Boolean(true)), Some(Value::Boolean(false))]);
    let many = format!("{{{}}}", vec!["5"; 1000].join(","));
    assert_eq!(items(&ints, &many), vec![int(5); 1000]);
}

#[test]
fn arrays_of_texts_with_all_that_has_to_be_quoted() {
    let texts = array_of(Kind::Text);
    let cases = [
        (r#"{a,b c}"#, vec![string("a"), string("b c")]),
        (r#"{"",NULL,"NULL","null"}"#, vec![string(""), None, string("NULL"), string("null")]),
        (
            r#"{"a,b","{x}","q\"q","b\\b","\\\"\\"}"#,
            vec![string("a,b"), string("{x}"), string("q\"q"), string("b\\b"), string("\\\"\\")],
        ),
        (r#"{naïve,🦀," "}"#, vec![string("naïve"), string("🦀"), string(" ")]),
    ];
    for (text, expected) in cases {
        assert_eq!(items(&texts, text), expected, "{text}");
    }
    let boxes = Kind::Array(Box::new(ArrayKind { element: Kind::Text, delimiter: b';' }));
    assert_eq!(items(&boxes, "{(1,1),(0,0);NULL;(3,3),(2,2)}"), [string("(1,1),(0,0)"), None, string("(3,3),(2,2)")]);
}

#[test]
fn arrays_of_what_has_an_avro_type_of_its_own() {
    let at = array_of(Kind::Timestamp);
    assert_eq!(
        items(&at, r#"{"1970-01-01 00:00:00.000001",infinity}"#),
        [Some(Value::LocalTimestampMicros(1)), Some(Value::LocalTimestampMicros(i64::MAX))]
    );
    let bytes = array_of(Kind::Bytea);
    assert_eq!(
        items(&bytes, r#"{"\\x00ff","\\x",NULL}"#),
        [Some(Value::Bytes(vec![0, 255])), Some(Value::Bytes(vec![])), None]
    );
    match &items(&array_of(numeric(12, 2)), "{1.50}")[..] {
        [Some(Value::Decimal(decimal))] => assert_eq!(BigInt::from(decimal.clone()), BigInt::from(150)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_array_may_lie_in_an_array_where_a_domain_stands_between() {
    let nested = array_of(array_of(Kind::Text));
    let inner = |items: &[&str]| {
        let items = items.iter().map(|item| Value::Union(1, Box::new(Value::String((*item).to_owned()))));
        Some(Value::Array(items.collect()))
    };
    assert_eq!(
        items(&nested, r#"{"{a,b}",NULL,"{\"x \\\"y\\\"\",z}","{}"}"#),
        [inner(&["a", "b"]), None, inner(&["x \"y\"", "z"]), inner(&[])]
    );
    let maps = items(&array_of(Kind::Hstore), r#"{"\"a\"=>\"1\"",""}"#);
    let one = HashMap::from([("a".to_owned(), Value::Union(1, Box::new(Value::String("1".to_owned()))))]);
    assert_eq!(maps, [Some(Value::Map(one)), Some(Value::Map(HashMap::new()))]);
}

#[test]
fn arrays_that_are_refused() {
    let ints = array_of(Kind::Int4);
    let dimensions = "its Avro type can't hold an array of more than one dimension";
    for (text, expected) in [
        ("{{1,2},{3,4}}", dimensions),
        ("[1:1][0:1]={{1,2}}", dimensions),
        ("", "expected the brace that opens an array, found the end at byte 0"),
        ("1", "expected the brace that opens an array, found '1' at byte 0"),
        ("{", "expected an array's element, found the end at byte 1"),
        ("{1", "expected an array's delimiter or closing brace, found the end at byte 2"),
        ("{1}x", "expected the end of an array, found 'x' at byte 3"),
        ("{1,}", "expected an array's element, found '}' at byte 3"),
        ("{,1}", "expected an array's element, found ',' at byte 1"),
        ("{1 2}", "expected a digit, found ' ' at byte 1"),
        (r#"{1"2"}"#, "expected an array's delimiter or closing brace, found '\"' at byte 2"),
        (r#"{"1}"#, "expected a closing quote, found the end at byte 4"),
        (r#"{"1\"#, "expected a closing quote, found the end at byte 4"),
        ("[0:1]", "expected an array's bounds and an equals sign, found the end at byte 5"),
        ("[0:1={1,2}", "expected an array's bounds and an equals sign, found '=' at byte 4"),
        ("[0:1]=1", "expected the brace that opens an array, found '1' at byte 6"),
        ("{2147483648}", "expected an integer of 32 bits, found '2' at byte 0"),
    ] {
        assert_eq!(refused(&ints, text.as_bytes()), expected, "{text}");
    }
    assert_eq!(refused(&array_of(numeric(3, 1)), b"{1.0,NaN}"), "its Avro type can't hold NaN");
}

#[test]
fn hstores() {
    assert_eq!(entries(""), HashMap::new());
    let expected = [("a", string("1")), ("", string("")), ("n", None), ("q\"\\", string("NULL"))];
    assert_eq!(
        entries(r#""a"=>"1", ""=>"", "n"=>NULL, "q\"\\"=>"NULL""#),
        expected.map(|(key, value)| (key.to_owned(), value)).into()
    );
    for (text, expected) in [
        ("a", "expected an hstore's key in quotes, found 'a' at byte 0"),
        (r#""a""#, "expected the arrow behind an hstore's key, found the end at byte 3"),
        (r#""a"=>"#, "expected an hstore's value in quotes, or NULL, found the end at byte 5"),
        (r#""a"=>"b"#, "expected a closing quote, found the end at byte 7"),
        (r#""a"=>NULL,"b"=>NULL"#, "expected a comma and a space between an hstore's entries, found ',' at byte 9"),
        (r#""a"=>NULL, "#, "expected an hstore's key in quotes, found the end at byte 11"),
    ] {
        assert_eq!(refused(&Kind::Hstore, text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn the_schemas_of_arrays_and_maps_have_nullable_items() {
    let columns =
        vec![column("k", array_of(Kind::Int4)), column("v", array_of(numeric(3, 1))), column("h", Kind::Hstore)];
    let plan = Plan::compile(&shape(columns, &[0]), "shop").unwrap();
    let schema: serde_json::Value = serde_json::from_str(plan.value_schema()).unwrap();
    let types: Vec<String> = (0..3).map(|at| schema["fields"][at]["type"].to_string()).collect();
    insta::assert_snapshot!(types.join("\n"), @r#"
    {"items":["null","int"],"type":"array"}
    ["null",{"items":["null",{"logicalType":"decimal","precision":3,"scale":1,"type":"bytes"}],"type":"array"}]
    ["null",{"type":"map","values":["null","string"]}]
    "#);
}

#[test]
fn what_an_avro_type_cannot_hold_becomes_null_where_that_is_asked_for_but_not_in_a_key() {
    let columns = || vec![column("k", numeric(3, 1)), column("a", array_of(Kind::Int4)), column("b", numeric(3, 1))];
    let of = |unrepresentable| encoder(&Shape { unrepresentable, ..shape(columns(), &[0]) });
    let cells = |key: &'static str, array: &'static str, number: &'static str| {
        [key, array, number].map(|text| Cell::Text(text.as_bytes())).into_iter()
    };
    let mut out = Vec::new();
    let error = of(Unrepresentable::Error).encode_value(cells("1.0", "{{1}}", "NaN"), &mut out).unwrap_err();
    insta::assert_snapshot!(error, @r#"column "a" of type array: its Avro type can't hold an array of more than one dimension; remedy: in the table's mapping, columns = { "a" = "string" } to have it as Postgres's text, or unrepresentable = "null" to have null in its place, or exclude_columns = ["a"]"#);
    let nulls = of(Unrepresentable::Null);
    nulls.encode_value(cells("1.0", "{{1}}", "NaN"), &mut out).unwrap();
    assert_eq!(out, b"\0\0\0\0\x02\x02\x0A\0\0");
    out.clear();
    nulls.encode_value(cells("1.0", "{1}", "2.0"), &mut out).unwrap();
    assert_eq!(out, b"\0\0\0\0\x02\x02\x0A\x02\x02\x02\x02\0\x02\x02\x14");
    out.clear();
    let error = nulls.encode_key(cells("NaN", "{}", "1"), &mut out).unwrap_err();
    insta::assert_snapshot!(error, @r#"column "k" of type numeric(3,1): its Avro type can't hold NaN; remedy: in the table's mapping, columns = { "k" = "string" } to have it as Postgres's text, or exclude_columns = ["k"]"#);
    assert_eq!(nulls.encode_value(cells("NaN", "{}", "1"), &mut out), Err(error));
    // What isn't of the type's form isn't a value at all.
    assert!(nulls.encode_value(cells("1.0", "{", "1"), &mut out).is_err());
    assert_eq!(out, b"");
}

#[test]
fn an_array_in_a_key_keeps_rows_apart_that_differ_in_its_bounds_alone() {
    let encoder = encoder(&shape(vec![column("k", array_of(Kind::Int4))], &[0]));
    let key = |text: &'static str| encoder.encode_key([Cell::Text(text.as_bytes())].into_iter(), &mut Vec::new());
    assert!(key("{1,2}").is_ok());
    assert!(key("[0:1]={1,2}").unwrap_err().to_string().contains("bounds"));
}

/// As `array_out` quotes.
fn quoted_for_array(text: &str) -> String {
    let is_special = |c: char| matches!(c, '"' | '\\' | '{' | '}' | ',') || c == ' ' || ('\t'..='\r').contains(&c);
    let needs_quotes = text.is_empty() || text.eq_ignore_ascii_case("null") || text.contains(is_special);
    if needs_quotes { quoted(text) } else { text.to_owned() }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

fn array_text(items: &[Option<String>]) -> String {
    let items = items.iter().map(|item| item.as_deref().map_or("NULL".to_owned(), quoted_for_array));
    format!("{{{}}}", items.collect::<Vec<_>>().join(","))
}

/// Texts of which much has to be quoted.
fn any_element() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c\"\\\\{},; \t]{0,8}",
        "\\PC{0,8}",
        prop::sample::select(vec!["NULL", "null", "Null", "", "\\", "\"", "[0:1]={1,2}"]).prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn arrays_of_texts_come_back(elements in vec(option::of(any_element()), 0..9)) {
        let expected = elements.iter().map(|element| element.clone().map(Value::String)).collect::<Vec<_>>();
        prop_assert_eq!(items(&array_of(Kind::Text), &array_text(&elements)), expected);
    }

    #[test]
    fn arrays_in_arrays_come_back(lists in vec(option::of(vec(option::of(any_element()), 0..5)), 0..5)) {
        let texts = lists.iter().map(|list| list.as_deref().map(array_text)).collect::<Vec<_>>();
        let boxed = |item: &Option<String>| match item {
            None => Value::Union(0, Box::new(Value::Null)),
            Some(item) => Value::Union(1, Box::new(Value::String(item.clone()))),
        };
        let expected = lists.iter().map(|list| Some(Value::Array(list.as_ref()?.iter().map(boxed).collect())));
        let found = items(&array_of(array_of(Kind::Text)), &array_text(&texts));
        prop_assert_eq!(found, expected.collect::<Vec<_>>());
    }

    #[test]
    fn arrays_of_byteas_come_back(elements in vec(vec(any::<u8>(), 0..9), 0..9)) {
        let hex = |bytes: &Vec<u8>| Some(format!("\\x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()));
        let text = array_text(&elements.iter().map(hex).collect::<Vec<_>>());
        let expected = elements.into_iter().map(|bytes| Some(Value::Bytes(bytes))).collect::<Vec<_>>();
        prop_assert_eq!(items(&array_of(Kind::Bytea), &text), expected);
    }

    #[test]
    fn hstores_come_back(map in prop::collection::hash_map(any_element(), option::of(any_element()), 0..9)) {
        let entry = |(key, value): (&String, &Option<String>)| {
            format!("{}=>{}", quoted(key), value.as_deref().map_or("NULL".to_owned(), quoted))
        };
        let text = map.iter().map(entry).collect::<Vec<_>>().join(", ");
        let expected = map.into_iter().map(|(key, value)| (key, value.map(Value::String)));
        prop_assert_eq!(entries(&text), expected.collect::<HashMap<_, _>>());
    }

    #[test]
    fn no_garbage_panics(text in prop_oneof!["[-0-9:\\[\\]={},\"\\\\a ]{0,20}", "[\"=>, NULa\\\\]{0,20}", "\\PC{0,20}"]) {
        for element in [Kind::Text, Kind::Int4, Kind::Bytea, Kind::Hstore, array_of(Kind::Text)] {
            let _ = through_avro(&array_of(element), text.as_bytes());
        }
        let _ = through_avro(&Kind::Hstore, text.as_bytes());
    }
}
