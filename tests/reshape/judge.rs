//! Whether a topic is its table: the rows, by their numbers; the keys; and each column of each row, which Postgres is
//! asked for, once read with the schema that the record was written with and once with the table's newest.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::{Decimal, Schema};
use rdkafka::message::Message;

use super::check::{holds, holds_array, literal};
use super::ddl::quoted;
use super::kinds::{Kind, Kinds};
use super::session::Session;
use super::support::connector::Connector;
use super::support::topic::{read_raw, schema};
use super::table::{Column, ROW, Table};

/// Rows that one query asks for.
const ROWS_AT_ONCE: usize = 40;
/// Of a record that is wrong.
const SHOWN: usize = 1_500;

/// A record, with the columns' names: as an Avro schema may not have them, it tells them beside.
type Fields = Vec<(String, Value)>;

/// A schema, and the columns that its fields are.
pub struct Parsed {
    schema: Schema,
    /// With decimals as the bytes that they are: the library resolves no decimal whose bytes are fewer than its precision
    /// may need.
    plain: Schema,
    columns: Vec<String>,
}

impl Parsed {
    fn new(text: &str) -> Self {
        let mut json: serde_json::Value = serde_json::from_str(text).unwrap();
        let column = |field: &serde_json::Value| {
            field.get("postgres.name").unwrap_or(&field["name"]).as_str().unwrap().to_owned()
        };
        let columns = json["fields"].as_array().unwrap().iter().map(column).collect();
        without_decimals(&mut json);
        Self { schema: Schema::parse_str(text).unwrap(), plain: Schema::parse(&json).unwrap(), columns }
    }
}

fn without_decimals(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Array(items) => items.iter_mut().for_each(without_decimals),
        serde_json::Value::Object(object) => {
            if object.get("logicalType").is_some_and(|logical| logical == "decimal") {
                object.retain(|attribute, _| attribute == "type");
            }
            object.values_mut().for_each(without_decimals);
        }
        _ => {}
    }
}

/// Schemas by their ids.
#[derive(Default)]
pub struct Schemas(HashMap<u32, Parsed>);

impl Schemas {
    /// What was written, as its schema has it, or as the newest one has it.
    fn read(&mut self, bytes: &[u8], newest: Option<&Parsed>) -> Result<Fields, String> {
        let (header, mut datum) = bytes.split_at(5);
        assert_eq!(header[0], 0, "Confluent's magic byte");
        let id = u32::from_be_bytes(header[1..].try_into().unwrap());
        let writer = self.0.entry(id).or_insert_with(|| Parsed::new(&schema(id)));
        let (reader, columns) = match newest {
            Some(newest) => {
                let reader = GenericDatumReader::builder(&writer.plain).reader_schema(&newest.plain);
                (reader.build(), &newest.columns)
            }
            None => (GenericDatumReader::builder(&writer.schema).build(), &writer.columns),
        };
        let read = reader.and_then(|reader| reader.read_value(&mut datum)).map_err(|error| error.to_string())?;
        let Value::Record(fields) = read else { return Err("no record".to_owned()) };
        assert!(datum.is_empty(), "bytes after the record");
        Ok(columns.iter().cloned().zip(fields.into_iter().map(|(_, value)| value)).collect())
    }
}

/// What is live in a topic: by key, as the bytes are.
pub struct Topic {
    live: HashMap<Vec<u8>, Vec<u8>>,
    pub records: usize,
}

impl Topic {
    pub fn read(name: &str) -> Self {
        let mut topic = Self { live: HashMap::new(), records: 0 };
        read_raw(name, |message| {
            let key = message.key().expect("a record has a key").to_vec();
            topic.records += 1;
            match message.payload() {
                Some(value) => topic.live.insert(key, value.to_vec()),
                None => topic.live.remove(&key),
            };
        });
        topic
    }
}

/// The schema that a table's records get now.
fn newest(connector: &Connector, name: &str) -> Result<Parsed, String> {
    let table = format!("public.{name}");
    let output = connector.command().args(["schema", connector.name(), &table, "--json"]).output().unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("no newest schema: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(Parsed::new(&shown["value"]["schema"].to_string()))
}

/// A table, and what it takes to compare it. `session` has the settings under which tablecast reads.
pub struct Case<'c> {
    pub connector: &'c Connector,
    pub session: &'c Session,
    pub kinds: &'c Kinds,
    pub name: &'c str,
    pub table: &'c Table,
}

impl Case<'_> {
    /// All that is wrong.
    pub fn complaints(&self, topic: &Topic, schemas: &mut Schemas) -> Vec<String> {
        let newest = match newest(self.connector, self.name) {
            Ok(newest) => newest,
            Err(error) => return vec![error],
        };
        let mut complaints = Vec::new();
        let mut records: BTreeMap<i64, (String, String)> = BTreeMap::new();
        for (key, value) in &topic.live {
            match self.conditions(key, value, &newest, schemas) {
                Ok((row, checks, shown)) => {
                    if let Some((_, other)) = records.insert(row, (checks, shown.clone())) {
                        complaints.push(format!("row {row} is there twice: {other} and {shown}"));
                    }
                }
                Err(error) => complaints.push(error),
            }
        }
        let sql = format!("SELECT {ROW} FROM {}", self.table.sql);
        let rows: BTreeSet<i64> =
            self.session.rows(&sql).into_iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect();
        complaints
            .extend(rows.iter().filter(|row| !records.contains_key(row)).map(|row| format!("row {row} is missing")));
        let gone = records.iter().filter(|(row, _)| !rows.contains(row));
        complaints.extend(gone.map(|(row, (_, shown))| format!("there is no row {row}: {shown}")));
        records.retain(|row, _| rows.contains(row));
        let records: Vec<_> = records.into_iter().collect();
        for records in records.chunks(ROWS_AT_ONCE) {
            complaints.extend(self.differing(records));
        }
        complaints.into_iter().map(|complaint| format!("{}: {complaint}", self.name)).collect()
    }

    /// The row of a record, the SQL that gives the names of the columns in which they differ, and the record for people.
    fn conditions(
        &self,
        key: &[u8],
        value: &[u8],
        newest: &Parsed,
        schemas: &mut Schemas,
    ) -> Result<(i64, String, String), String> {
        let key = schemas.read(key, None)?;
        let written = schemas.read(value, None)?;
        let shown: String = format!("{key:?} {written:?}").chars().take(SHOWN).collect();
        let as_newest =
            schemas.read(value, Some(newest)).map_err(|error| format!("with the newest schema: {error}: {shown}"))?;
        let names: Vec<_> = key.iter().map(|(name, _)| name.clone()).collect();
        if names != self.table.key {
            return Err(format!("the key is {:?}: {shown}", self.table.key));
        }
        let Some(Value::Long(row)) = field(&written, ROW).map(unwrapped) else {
            return Err(format!("no number: {shown}"));
        };
        let mut checks = Vec::new();
        for column in self.table.written() {
            let kind = self.kinds.of(&column.kind);
            let mut check = |what: &str, value: &Value| {
                let named = literal(&format!("{} {what}", column.name));
                checks.push(format!("CASE WHEN ({}) IS NOT TRUE THEN {named} END", condition(&kind, &column, value)));
            };
            let null = Value::Null;
            let (by_writer, by_newest) = (field(&written, &column.name), field(&as_newest, &column.name));
            check("as it was written", by_writer.unwrap_or(&null));
            let Some(by_newest) = by_newest else { return Err(format!("{} is not in the newest schema", column.name)) };
            let by_newest = as_decimals(&kind, by_newest);
            if format!("{by_writer:?}") != format!("{:?}", Some(&by_newest)) {
                check("by the newest schema", &by_newest);
            }
            if let Some(value) = field(&key, &column.name) {
                check("in the key", value);
            }
        }
        let select = format!(
            "SELECT {ROW}, array_to_string(ARRAY[{}]::text[], ', ') FROM {} WHERE {ROW} = {row}",
            checks.join(", "),
            self.table.sql
        );
        Ok((*row, select, shown))
    }

    /// Asks Postgres for the rows of these records.
    fn differing(&self, records: &[(i64, (String, String))]) -> Vec<String> {
        let selects: Vec<_> = records.iter().map(|(_, (select, _))| select.as_str()).collect();
        let shown = |row: i64| {
            let record = records.iter().find(|(number, _)| *number == row).map_or("", |(_, (_, shown))| shown);
            let table = self.session.one(&format!("SELECT t::text FROM {} t WHERE {ROW} = {row}", self.table.sql));
            let table: String = table.unwrap_or_default().chars().take(SHOWN).collect();
            format!("the row is {table}, the record {record}")
        };
        match self.session.try_rows(&selects.join(" UNION ALL ")) {
            Ok(rows) => {
                let wrong = rows.into_iter().filter_map(|row| {
                    let (number, wrong) = (row[0].as_ref()?.parse().ok()?, row[1].clone()?);
                    (!wrong.is_empty()).then(|| format!("row {number}: {wrong}: {}", shown(number)))
                });
                wrong.collect()
            }
            // One of them isn't even a value of the type.
            Err(_) if records.len() > 1 => {
                let (first, second) = records.split_at(records.len() / 2);
                [self.differing(first), self.differing(second)].concat()
            }
            Err(error) => vec![format!("row {}: {error}: {}", records[0].0, shown(records[0].0))],
        }
    }
}

fn field<'f>(fields: &'f Fields, name: &str) -> Option<&'f Value> {
    fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
}

fn unwrapped(value: &Value) -> &Value {
    match value {
        Value::Union(_, value) => unwrapped(value),
        value => value,
    }
}

/// The bytes of a decimal are one again.
fn as_decimals(kind: &Kind, value: &Value) -> Value {
    match value {
        Value::Union(at, value) => Value::Union(*at, Box::new(as_decimals(kind, value))),
        Value::Array(items) => Value::Array(items.iter().map(|item| as_decimals(kind, item)).collect()),
        Value::Bytes(bytes) if kind.is_decimal() => Value::Decimal(Decimal::from(bytes)),
        value => value.clone(),
    }
}

/// The condition that the column has this value.
fn condition(kind: &Kind, column: &Column, value: &Value) -> String {
    let name = quoted(&column.name);
    match (kind.array, unwrapped(value)) {
        (false, Value::Array(_)) => "false".to_owned(),
        (false, value) => holds(kind.case, value, &name),
        (true, value @ (Value::Array(_) | Value::Null)) => holds_array(kind.case, value, &name),
        (true, _) => "false".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds::named;
    use super::*;

    fn condition_of(name: &str, array: bool, value: &Value) -> String {
        let column = Column {
            name: "c".to_owned(),
            kind: String::new(),
            not_null: false,
            has_default: false,
            generated: false,
            indexed: false,
        };
        condition(&Kind { case: named(name), array }, &column, value)
    }

    #[test]
    fn a_value_of_another_form_than_the_columns_is_never_right() {
        assert_eq!(condition_of("int4", false, &Value::Array(Vec::new())), "false");
        assert_eq!(condition_of("int4", true, &Value::Int(1)), "false");
        let null = Value::Union(0, Box::new(Value::Null));
        assert_eq!(condition_of("int4", true, &null), "\"c\" IS NULL");
        assert_eq!(
            condition_of("text", false, &Value::String("it's".to_owned())),
            "pg_catalog.format('%s', \"c\") = 'it''s'"
        );
    }

    #[test]
    fn a_field_that_avro_calls_otherwise_is_the_column_that_it_tells() {
        let parsed = Parsed::new(
            r#"{"type": "record", "name": "Value", "fields": [{"name": "a_b", "type": "int", "postgres.name": "a-b"},
                {"name": "c", "type": "int"}]}"#,
        );
        assert_eq!(parsed.columns, ["a-b", "c"]);
    }
}
