//! Whole rows: their schemas, the order of their keys, and what is not there.

use super::*;

/// Text cells.
fn row<const N: usize>(texts: [&'static str; N]) -> std::array::IntoIter<Cell<'static>, N> {
    texts.map(|text| Cell::Text(text.as_bytes())).into_iter()
}

fn orders() -> Shape {
    let mut columns = vec![
        column("region", Kind::Text),
        column("placed at", Kind::TimestampTz),
        column("id", Kind::Int8),
        column("secret", Kind::Text),
        column("total", numeric(12, 2)),
    ];
    columns[3].captured = false;
    shape(columns, &[2, 0])
}

#[test]
fn the_schemas_are_as_the_contract_says() {
    let plan = Plan::compile(&orders(), "my-shop").unwrap();
    insta::assert_snapshot!(plan.key_schema(), @r#"{"type":"record","name":"Key","namespace":"my_shop.public.orders","fields":[{"name":"id","type":"long","postgres.type":"int8"},{"name":"region","type":"string","postgres.type":"text"}]}"#);
    insta::assert_snapshot!(plan.value_schema(), @r#"{"type":"record","name":"Value","namespace":"my_shop.public.orders","fields":[{"name":"region","type":"string","postgres.type":"text"},{"name":"placed_at","type":["null",{"type":"long","logicalType":"timestamp-micros"}],"default":null,"postgres.name":"placed at","postgres.type":"timestamptz"},{"name":"id","type":"long","postgres.type":"int8"},{"name":"total","type":["null",{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}],"default":null,"postgres.type":"numeric(12,2)"}]}"#);
}

#[test]
fn a_type_without_its_own_avro_type_and_an_override_are_strings() {
    let mut columns = vec![column("id", Kind::Int4), column("n", Kind::Numeric(None)), column("s", numeric(3, 5))];
    columns[0].pg_type.kind = Kind::Text;
    let plan = Plan::compile(&shape(columns, &[0]), "shop").unwrap();
    insta::assert_snapshot!(plan.value_schema(), @r#"{"type":"record","name":"Value","namespace":"shop.public.orders","fields":[{"name":"id","type":"string","postgres.type":"int4"},{"name":"n","type":["null","string"],"default":null,"postgres.type":"numeric"},{"name":"s","type":["null","string"],"default":null,"postgres.type":"numeric(3,5)"}]}"#);
}

#[test]
fn a_row_starts_with_the_header_and_its_fields_stand_in_their_order() {
    let encoder = Plan::compile(&orders(), "shop").unwrap().with_ids(0x0102_0304, 7);
    let cells = row(["eu", "1970-01-01 00:00:00.000001+00", "1", "hidden", "0.05"]);
    let mut out = b"before".to_vec();
    encoder.encode_key(cells.clone(), &mut out).unwrap();
    assert_eq!(out, b"before\x00\x01\x02\x03\x04\x02\x04eu");
    out.clear();
    encoder.encode_value(cells, &mut out).unwrap();
    assert_eq!(out, b"\x00\x00\x00\x00\x07\x04eu\x02\x02\x02\x02\x02\x05");
}

#[test]
fn any_order_of_the_key_is_found() {
    let columns = || vec![column("a", Kind::Text), column("b", Kind::Text), column("c", Kind::Text)];
    for (key, expected) in [
        (&[0, 1, 2][..], "\x02a\x02b\x02c"),
        (&[2, 1, 0], "\x02c\x02b\x02a"),
        (&[1, 0, 2], "\x02b\x02a\x02c"),
        (&[2, 0], "\x02c\x02a"),
        (&[1], "\x02b"),
    ] {
        let mut out = Vec::new();
        encoder(&shape(columns(), key)).encode_key(row(["a", "b", "c"]), &mut out).unwrap();
        assert_eq!(&out[5..], expected.as_bytes());
    }
}

#[test]
fn a_row_of_another_shape_is_an_error() {
    let encoder = encoder(&orders());
    let mut out = Vec::new();
    let short = row(["eu", "1970-01-01 00:00:00+00", "1", "hidden"]);
    let long = row(["eu", "1970-01-01 00:00:00+00", "1", "hidden", "0.05", "more"]);
    let count = |found| Err(EncodeError::ColumnCount { expected: 5, found });
    assert_eq!(encoder.encode_value(short.clone(), &mut out), count(4));
    assert_eq!(encoder.encode_key(short, &mut out), count(4));
    assert_eq!(encoder.encode_value(long.clone(), &mut out), count(6));
    assert_eq!(encoder.encode_key(long, &mut out), count(6));
    assert_eq!(encoder.encode_key(row([]), &mut out), count(0));
    assert_eq!(out, b"");
}

#[test]
fn errors_name_the_column_and_the_remedy() {
    let encoder = encoder(&orders());
    let mut out = Vec::new();
    let at = "1970-01-01 00:00:00+00";
    let error = encoder.encode_value(row(["eu", at, "1", "hidden", "NaN"]), &mut out).unwrap_err();
    insta::assert_snapshot!(error, @r#"column "total" of type numeric(12,2): its Avro type can't hold NaN; remedy: in the table's mapping, columns = { "total" = "string" } to have it as Postgres's text, or unrepresentable = "null" to have null in its place, or exclude_columns = ["total"]"#);
    let null = [Cell::Null, Cell::Text(at.as_bytes()), Cell::Text(b"1"), Cell::Null, Cell::Null];
    let error = encoder.encode_key(null.into_iter(), &mut out).unwrap_err();
    insta::assert_snapshot!(error, @r#"column "region" of type text is part of the key, and null; remedy: ALTER TABLE … ALTER COLUMN … SET NOT NULL, or name other columns as the key in the table's mapping"#);
    assert_eq!(encoder.encode_value(null.into_iter(), &mut out), Err(error));
    let binary = [Cell::Binary(b"eu")];
    assert_eq!(
        encoder.encode_value(binary.into_iter(), &mut out),
        Err(EncodeError::Binary { column: "region".to_owned() })
    );
    assert_eq!(out, b"");
}

#[test]
fn an_unchanged_value_is_taken_from_the_old_row_or_not_made_up() {
    let columns = vec![column("id", Kind::Text), column("a", Kind::Text), column("b", Kind::Text)];
    let encoder = encoder(&shape(columns, &[0]));
    let value = |cells: &mut dyn Iterator<Item = Cell<'static>>| {
        let mut out = Vec::new();
        let cells = cells.collect::<Vec<_>>();
        encoder.encode_value(cells.into_iter(), &mut out).map(|()| out.split_off(5))
    };
    let toast = |column: &str| Err(EncodeError::UnchangedToast { column: column.to_owned() });
    let new = [Cell::Unchanged, Cell::Unchanged, Cell::Text(b"new")].into_iter();
    let old = [Cell::Text(b"id"), Cell::Null, Cell::Text(b"old")].into_iter();
    assert_eq!(value(&mut new.clone()), toast("id"));
    let whole = fill_unchanged(new.clone(), row(["id", "large", "old"]));
    assert_eq!(value(&mut whole.clone()), Ok(b"\x04id\x02\x0alarge\x02\x06new".to_vec()));
    // A null in the old row is what isn't known of it.
    let key = fill_unchanged(new.clone(), old);
    assert_eq!(value(&mut key.clone()), toast("a"));
    let mut out = Vec::new();
    encoder.encode_key(key, &mut out).unwrap();
    assert_eq!(&out[5..], b"\x04id");
    let short = fill_unchanged(new, [Cell::Text(b"id")].into_iter());
    assert_eq!(value(&mut short.clone()), toast("a"));
}

#[test]
fn a_null_in_place_of_a_value_is_counted_once_where_the_row_waits_for_another_value() {
    let mut orders = orders();
    orders.unrepresentable = crate::relation::Unrepresentable::Null;
    orders.columns.push(column("note", Kind::Text));
    orders.columns.push(Column { captured: false, ..column("hidden", Kind::Text) });
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let counted = || {
        let said = recorder.handle().render();
        let count = said.lines().find(|line| line.starts_with("tablecast_unrepresentable_total{"));
        count.and_then(|line| line.rsplit(' ').next()).map_or(0, |count| count.parse().unwrap())
    };
    metrics::with_local_recorder(&recorder, || {
        let encoder = encoder(&orders);
        let cells = |note: Cell<'static>| {
            let first = ["eu", "1970-01-01 00:00:00+00", "1", "hidden", "NaN"].map(|text| Cell::Text(text.as_bytes()));
            first.into_iter().chain([note, Cell::Unchanged])
        };
        let mut out = Vec::new();
        assert!(encoder.encode_value(cells(Cell::Unchanged), &mut out).is_err());
        assert_eq!(counted(), 0);
        encoder.encode_value(cells(Cell::Text(b"note")), &mut out).unwrap();
        assert_eq!(counted(), 1);
        encoder.encode_value(cells(Cell::Null), &mut out).unwrap();
        assert_eq!(counted(), 2);
    });
}
