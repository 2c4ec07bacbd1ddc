//! The bytes, as `apache_avro` reads them.

mod collections;
mod kinds;
mod page;
mod properties;
mod rows;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;

use super::*;
use crate::pgoutput::Cell;
use crate::postgres::catalog::ReplicaIdentity;
use crate::relation::{Column, Kind, NumericLimits, PgType, Shape, Unrepresentable};

/// A column whose type is called about as its kind is.
fn column(name: &str, kind: Kind) -> Column {
    let type_name = match &kind {
        Kind::Numeric(Some(NumericLimits { precision, scale })) => format!("numeric({precision},{scale})"),
        Kind::Numeric(None) => "numeric".to_owned(),
        Kind::Array(_) => "array".to_owned(),
        kind => format!("{kind:?}").to_lowercase(),
    };
    let pg_type = PgType { oid: 0, typmod: -1, name: type_name, kind };
    Column { name: name.to_owned(), pg_type, captured: true, in_key: false }
}

fn shape(mut columns: Vec<Column>, key: &[usize]) -> Shape {
    for index in key {
        columns[*index].in_key = true;
    }
    Shape {
        oid: 1,
        schema: "public".to_owned(),
        name: "orders".to_owned(),
        replica_identity: ReplicaIdentity::Default,
        columns,
        key: key.to_vec(),
        unrepresentable: Unrepresentable::Error,
    }
}

fn encoder(shape: &Shape) -> Encoder {
    Plan::compile(shape, "shop").unwrap().with_ids(1, 2)
}

fn numeric(precision: u16, scale: i16) -> Kind {
    Kind::Numeric(Some(NumericLimits { precision, scale }))
}

/// Reads a record, and insists on all of its bytes being read.
fn read(schema: &str, id: u8, bytes: &[u8]) -> Vec<(String, Value)> {
    let schema = Schema::parse_str(schema).unwrap();
    let mut rest = bytes.strip_prefix(&[0, 0, 0, 0, id]).unwrap();
    let value = GenericDatumReader::builder(&schema).build().unwrap().read_value(&mut rest).unwrap();
    assert_eq!(rest, b"", "bytes are left over");
    match value {
        Value::Record(fields) => fields,
        other => panic!("no record: {other:?}"),
    }
}

/// What the text becomes as a column of `kind`: once as the key, once as a value of `["null", T]`. An array that has bounds
/// of its own is refused in a key.
fn through_avro(kind: &Kind, text: &[u8]) -> Result<Value, EncodeError> {
    let cells = [Cell::Text(text), Cell::Text(text)];
    let encoder = encoder(&shape(vec![column("k", kind.clone()), column("v", kind.clone())], &[0]));
    let (mut key, mut value) = (Vec::new(), Vec::new());
    encoder.encode_value(cells.into_iter(), &mut value)?;
    let [(_, plain), (_, Value::Union(1, nullable))] = &read(encoder.plan().value_schema(), 2, &value)[..] else {
        panic!("no union")
    };
    // NaN equals nothing, and a map has no order.
    let is_same = |one: &Value, other: &Value| one == other || format!("{one:?}") == format!("{other:?}");
    assert!(is_same(plain, nullable), "{plain:?} {nullable:?}");
    let has_bounds = matches!(kind, Kind::Array(_)) && text.starts_with(b"[");
    match encoder.encode_key(cells.into_iter(), &mut key) {
        Err(EncodeError::Value { .. }) if has_bounds => {}
        encoded => {
            encoded?;
            let key = read(encoder.plan().key_schema(), 1, &key).remove(0).1;
            assert!(is_same(&key, plain), "{key:?} {plain:?}");
        }
    }
    Ok(plain.clone())
}

/// The reason why the text has no value as a column of `kind`.
fn refused(kind: &Kind, text: &[u8]) -> String {
    match through_avro(kind, text) {
        Err(EncodeError::Value { reason, .. }) => reason.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}
