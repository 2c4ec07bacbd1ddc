//! A topic as a consumer has it that keeps the newest value of each key, and reads all of them with the schema of the
//! newest record; and the table beside it. A row is its columns that aren't null, as `name=value`.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use rdkafka::message::Message;

use super::connector::Connector;
use super::topic::{read_raw, schema, word};
use super::wait_for;

/// The live rows of a topic, as far as these columns go.
pub fn rows(topic: &str, columns: &[String]) -> Vec<String> {
    let mut live: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let mut newest = None;
    read_raw(topic, |message| {
        let key = message.key().unwrap().to_vec();
        newest = message.payload().map(<[u8]>::to_vec).or(newest.take());
        match message.payload() {
            Some(value) => live.insert(key, value.to_vec()),
            None => live.remove(&key),
        };
    });
    let Some(newest) = newest else { return Vec::new() };
    let mut schemas = HashMap::new();
    let reader = parsed(&newest, &mut schemas).0.clone();
    let mut rows: Vec<String> = live.values().map(|value| row(value, &reader, columns, &mut schemas)).collect();
    rows.sort();
    rows
}

/// The schema that a value was written with, and its Avro.
fn parsed<'a>(value: &'a [u8], schemas: &'a mut HashMap<u32, Schema>) -> (&'a Schema, &'a [u8]) {
    let (header, datum) = value.split_at(5);
    let id = u32::from_be_bytes(header[1..].try_into().unwrap());
    (schemas.entry(id).or_insert_with(|| Schema::parse_str(&schema(id)).unwrap()), datum)
}

fn row(value: &[u8], reader: &Schema, columns: &[String], schemas: &mut HashMap<u32, Schema>) -> String {
    let (writer, mut datum) = parsed(value, schemas);
    let reader = GenericDatumReader::builder(writer).reader_schema(reader).build().unwrap();
    let fields = match reader.read_value(&mut datum) {
        Ok(Value::Record(fields)) => fields,
        // Until all of them are written anew, the newest schema may not read the others.
        other => return format!("{other:?}"),
    };
    let values =
        fields.into_iter().filter(|(name, _)| columns.contains(name)).map(|(name, value)| (name, word(&value)));
    let mut values: Vec<String> =
        values.filter(|(_, value)| value != "null").map(|(name, value)| format!("{name}={value}")).collect();
    values.sort();
    values.join(" ")
}

/// The columns of a table of `public`.
pub fn columns(connector: &Connector, table: &str) -> Vec<String> {
    let sql = format!(
        "SELECT string_agg(attname::text, ',' ORDER BY attname) FROM pg_attribute \
         WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"
    );
    connector.database.query(&sql).unwrap().split(',').map(str::to_owned).collect()
}

/// The rows of a table of `public`, as [`rows`] has them.
fn table(connector: &Connector, table: &str, columns: &[String]) -> Vec<String> {
    let columns: Vec<String> = columns.iter().map(|name| format!("'{name}=' || {name}::text")).collect();
    let sql = format!("SELECT string_agg(concat_ws(' ', {}), E'\\n') FROM {table}", columns.join(", "));
    let mut rows: Vec<String> = connector.database.query(&sql).unwrap_or_default().lines().map(str::to_owned).collect();
    rows.sort();
    rows
}

/// Waits until the topic is the table, whatever the stream and the readers have still to do.
#[track_caller]
pub fn wait_until_same(connector: &Connector, name: &str) {
    let topic = connector.topic(name);
    let same = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for("the topic to be the table", || {
            let columns = columns(connector, name);
            (rows(&topic, &columns) == table(connector, name, &columns)).then_some(())
        });
    }));
    let columns = columns(connector, name);
    let (topic, table) = (rows(&topic, &columns), table(connector, name, &columns));
    let lacking =
        |of: &[String], rows: &[String]| rows.iter().filter(|row| !of.contains(row)).cloned().collect::<Vec<_>>();
    let differ = (lacking(&table, &topic), lacking(&topic, &table), topic.len(), table.len());
    assert!(same.is_ok(), "in the topic and in the table alone, and how many: {differ:#?}\n{}", connector.logs());
}
