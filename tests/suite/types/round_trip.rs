//! Each value of each type comes out of the topic as Postgres has it; the stream and the snapshot write the same bytes.

use std::collections::{BTreeMap, HashMap};

use super::cases::{BEYOND, CASES, Case, SETUP};
use super::check::{SESSION, array_literal, holds, holds_array, literal};
use crate::support::connector::{Connector, Daemon};
use crate::support::postgres::Database;
use crate::support::{topic, wait_for};

/// Postgres takes 32 columns in an index; one of them is `id`.
const COLUMNS_OF_A_KEY: usize = 31;

/// A record as it is.
struct Raw {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

/// Settings that a server, a database or a role may have, and on which the text of values would depend.
fn unusual_settings(database: &str) -> String {
    [
        "search_path = shop, public",
        "datestyle = 'SQL, DMY'",
        "intervalstyle = postgres_verbose",
        "timezone = 'Asia/Kathmandu'",
        "extra_float_digits = 0",
        "bytea_output = escape",
        "quote_all_identifiers = on",
    ]
    .map(|setting| format!("ALTER DATABASE {database} SET {setting};"))
    .concat()
}

fn value_of(case: &Case, row: usize) -> &'static str {
    case.values[row % case.values.len()]
}

fn rows_of<'c>(cases: impl IntoIterator<Item = &'c Case>) -> usize {
    cases.into_iter().map(|case| case.values.len()).max().unwrap()
}

fn delimiter(case: &Case) -> &'static str {
    match case.name {
        "box" => ";",
        "geo" => ":",
        _ => ",",
    }
}

/// A table with a column for each case, a row for each of their values, and one of nulls.
fn scalars(table: &str, cases: &[Case]) -> String {
    let columns = cases.iter().map(|case| format!(", {} {}", case.name, case.sql)).collect::<String>();
    let mut sql = format!("CREATE TABLE {table} (id int PRIMARY KEY{columns});");
    for row in 0..rows_of(cases) {
        let values = cases.iter().map(|case| format!(", {}", literal(value_of(case, row)))).collect::<String>();
        sql.push_str(&format!("INSERT INTO {table} VALUES ({row}{values});"));
    }
    sql + &format!("INSERT INTO {table} (id) VALUES (-1); ALTER TABLE {table} REPLICA IDENTITY FULL;")
}

/// A table with an array of each case: an empty one, one with all values and a null, one with other bounds, null.
fn arrays(table: &str, cases: &[Case]) -> String {
    let columns = cases.iter().map(|case| format!(", {} {}[]", case.name, case.sql)).collect::<String>();
    let row = |id: i32, array: &dyn Fn(&Case) -> String| {
        let values = cases.iter().map(|case| format!(", {}", array(case))).collect::<String>();
        format!("INSERT INTO {table} VALUES ({id}{values});")
    };
    let all = |case: &Case| {
        let values = case.values.iter().copied().map(Some).chain([None]).collect::<Vec<_>>();
        array_literal("", &values, delimiter(case))
    };
    let moved = |case: &Case| array_literal("[-3:-2]=", &[None, Some(case.values[0])], delimiter(case));
    format!("CREATE TABLE {table} (id int PRIMARY KEY{columns});")
        + &row(1, &|_| "'{}'".to_owned())
        + &row(2, &all)
        + &row(3, &moved)
        + &row(4, &|_| "NULL".to_owned())
        + &format!("ALTER TABLE {table} REPLICA IDENTITY FULL;")
}

/// A table whose key has all the cases; `n` is no part of it.
fn keys(table: &str, cases: &[&Case]) -> String {
    let columns = cases.iter().map(|case| format!(", {} {}", case.name, case.sql)).collect::<String>();
    let names = cases.iter().map(|case| format!(", {}", case.name)).collect::<String>();
    let mut sql = format!("CREATE TABLE {table} (id int{columns}, n int, PRIMARY KEY (id{names}));");
    for row in 0..rows_of(cases.iter().copied()) {
        let values = cases.iter().map(|case| format!(", {}", literal(value_of(case, row)))).collect::<String>();
        sql.push_str(&format!("INSERT INTO {table} VALUES ({row}{values}, 1);"));
    }
    sql
}

fn raw(topic: &str) -> Vec<Raw> {
    use rdkafka::message::Message;
    let mut records = Vec::new();
    topic::read_raw(topic, |message| {
        let value = message.payload().map(<[u8]>::to_vec);
        records.push(Raw { key: message.key().unwrap().to_vec(), value });
    });
    records
}

fn wait_for_records(topic: &str, count: usize) -> Vec<Raw> {
    wait_for(&format!("{count} records in {topic}"), || Some(raw(topic)).filter(|records| records.len() == count))
}

/// The rows of a topic to which each of them was written twice, which must have been with the same bytes.
fn twice_the_same(topic: &str, rows: usize) -> Vec<Raw> {
    let mut records = wait_for_records(topic, 2 * rows);
    let streamed = records.split_off(rows);
    let by_key = |records: &[Raw]| {
        records.iter().map(|record| (record.key.clone(), record.value.clone().unwrap())).collect::<BTreeMap<_, _>>()
    };
    let (read, streamed) = (by_key(&records), by_key(&streamed));
    assert_eq!(read.len(), rows);
    for (key, value) in &read {
        assert!(streamed.get(key) == Some(value), "{topic}: {value:?} came down the stream as {:?}", streamed.get(key));
    }
    records
}

/// Asks Postgres whether the records are its rows: the names of the columns for which they aren't.
fn judge<'c>(
    database: &Database,
    table: &str,
    cases: &[&'c Case],
    records: &[Raw],
    in_key: bool,
    condition: impl Fn(&'c Case, &apache_avro::types::Value, &str) -> String,
) {
    let mut schemas = HashMap::new();
    for record in records {
        let fields = topic::decode(if in_key { &record.key } else { record.value.as_ref().unwrap() }, &mut schemas);
        let field = |name: &str| &fields.iter().find(|(field, _)| field == name).unwrap().1;
        let apache_avro::types::Value::Int(id) = field("id") else { panic!("no id: {fields:?}") };
        let term = |case: &&'c Case| {
            let condition = condition(case, field(case.name), &format!("\"{}\"", case.name));
            format!("CASE WHEN ({condition}) IS NOT TRUE THEN '{}' END", case.name)
        };
        let terms = cases.iter().map(term).collect::<Vec<_>>().join(", ");
        let wrong = database
            .query(&format!("SELECT array_to_string(ARRAY[{terms}], ', ') FROM public.{table} WHERE id = {id}"))
            .unwrap();
        assert_eq!(wrong, "", "row {id} of {table}: {fields:#?}");
    }
}

/// Tables of all cases, each of whose rows is in its topic twice: by a snapshot, and then by the stream.
pub struct Tables {
    connector: Connector,
    cases: &'static [Case],
    /// Of each table of keys.
    of_keys: Vec<Vec<&'static Case>>,
    _daemon: Daemon,
}

impl Tables {
    pub fn streamed(cases: &'static [Case]) -> Self {
        let of_keys = cases.iter().filter(|case| case.in_key).collect::<Vec<_>>();
        let of_keys = of_keys.chunks(COLUMNS_OF_A_KEY).map(<[_]>::to_vec).collect::<Vec<_>>();
        let database = Database::create();
        database.execute(SETUP);
        // A label that was added can only be used in a later transaction.
        let mut sql = scalars("scalars", cases) + &arrays("arrays", cases);
        for (at, cases) in of_keys.iter().enumerate() {
            sql.push_str(&keys(&format!("keys_{at}"), cases));
        }
        database.execute(&sql);
        let connector = Connector::on(database, "", "[connectors.NAME.tables.\"public.*\"]");
        connector.database.execute(&unusual_settings(&connector.database.name));
        let daemon = connector.start_streaming();
        daemon.wait_for_log_times("snapshot done", 2 + of_keys.len());
        connector.database.execute("UPDATE scalars SET id = id; UPDATE arrays SET id = id");
        for at in 0..of_keys.len() {
            connector.database.execute(&format!("UPDATE keys_{at} SET n = n"));
        }
        Self { connector, cases, of_keys, _daemon: daemon }
    }

    /// The topics, once they have all of their records, and how many those are: the scalars', the arrays', the keys'.
    pub fn topics(&self) -> Vec<(String, u64)> {
        let of_keys = self.of_keys.iter().enumerate().map(|(at, cases)| (format!("keys_{at}"), rows_of_keys(cases)));
        let tables = [("scalars".to_owned(), rows_of(self.cases) + 1), ("arrays".to_owned(), 4)];
        let topic = |(table, rows): (String, usize)| {
            let topic = self.connector.topic(&table);
            wait_for_records(&topic, 2 * rows);
            (topic, 2 * rows as u64)
        };
        tables.into_iter().chain(of_keys).map(topic).collect()
    }
}

/// The schema that a record was written with is the one that `tablecast schema` shows.
fn same_as_the_command_shows(connector: &Connector, table: &str, record: &Raw) {
    let output = connector.command().args(["schema", connector.name(), table, "--json"]).output().unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let id = u32::from_be_bytes(record.value.as_ref().unwrap()[1..5].try_into().unwrap());
    let written: serde_json::Value = serde_json::from_str(&topic::schema(id)).unwrap();
    assert_eq!(shown["value"]["schema"], written);
}

fn rows_of_keys(cases: &[&'static Case]) -> usize {
    rows_of(cases.iter().copied())
}

fn round_trip(cases: &'static [Case]) {
    let tables = Tables::streamed(cases);
    let Tables { connector, of_keys, .. } = &tables;
    let database = &connector.database;
    database.execute(SESSION);
    let all = cases.iter().collect::<Vec<_>>();
    let records = twice_the_same(&connector.topic("scalars"), rows_of(cases) + 1);
    judge(database, "scalars", &all, &records, false, holds);
    same_as_the_command_shows(connector, "scalars", &records[0]);
    let records = twice_the_same(&connector.topic("arrays"), 4);
    judge(database, "arrays", &all, &records, false, holds_array);
    for (at, cases) in of_keys.iter().enumerate() {
        let (table, rows) = (format!("keys_{at}"), rows_of_keys(cases));
        let records = twice_the_same(&connector.topic(&table), rows);
        judge(database, &table, cases, &records, true, holds);
        judge(database, &table, cases, &records, false, holds);
        // A delete names the same keys.
        database.execute(&format!("DELETE FROM public.{table}"));
        let mut tombstones = wait_for_records(&connector.topic(&table), 3 * rows).split_off(2 * rows);
        assert!(tombstones.iter().all(|record| record.value.is_none()));
        let mut written = records;
        written.sort_by(|a, b| a.key.cmp(&b.key));
        tombstones.sort_by(|a, b| a.key.cmp(&b.key));
        assert!(written.iter().zip(&tombstones).all(|(record, tombstone)| record.key == tombstone.key), "{table}");
    }
}

#[test]
fn each_value_of_each_type_is_the_same_by_stream_and_snapshot_and_as_postgres_has_it() {
    round_trip(CASES);
}

#[test]
fn dates_and_times_beyond_what_most_readers_know_are_as_postgres_has_them() {
    round_trip(BEYOND);
}
