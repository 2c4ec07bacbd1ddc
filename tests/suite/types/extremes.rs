//! What lies at the edge: arrays within arrays, values that no Avro type holds, labels that change, columns that are
//! generated.

use apache_avro::types::Value;

use crate::support::connector::Connector;
use crate::support::postgres::Database;
use crate::support::tablecast;
use crate::support::topic::{Record, short};
use crate::support::wait_for;

/// The value of a field, without the union around it.
fn field<'r>(record: &'r Record, name: &str) -> &'r Value {
    match record.value.as_ref().unwrap().iter().find(|(field, _)| field == name).unwrap() {
        (_, Value::Union(_, value)) => value,
        (_, value) => value,
    }
}

#[test]
fn domains_over_arrays_and_arrays_of_such_domains_are_arrays() {
    let connector = Connector::of(
        r#"CREATE DOMAIN cents AS numeric(12, 2); CREATE DOMAIN prices AS cents[]; CREATE DOMAIN tags AS text[];
           CREATE TABLE t (id int PRIMARY KEY, p prices, l tags[]);
           INSERT INTO t VALUES (1, '{1.5,NULL}', '{"{a,\"b \\\"c\\\"\"}",NULL,"{}"}')"#,
    );
    let daemon = connector.start_streaming();
    daemon.wait_for_log("snapshot done");
    let record = &connector.records("t", 1)[0];
    let shown = |name| format!("{:?}", field(record, name)).replace("Union(1, ", "(").replace("Union(0, Null)", "null");
    assert!(shown("p").starts_with("Array([(Decimal(") && shown("p").ends_with(", null])"), "{}", shown("p"));
    assert_eq!(shown("l"), r#"Array([(Array([(String("a")), (String("b \"c\""))])), null, (Array([]))])"#);
}

#[test]
fn a_value_that_its_avro_type_cannot_hold_stops_the_connector_with_the_place_and_the_settings() {
    let connector = Connector::of("CREATE TABLE t (id int PRIMARY KEY, a int[], n numeric(5, 2), at timestamp)");
    let daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (7, '{{1,2},{3,4}}', 1, now())");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    for words in [
        "table public.t, key (id = 7): column \"a\" of type integer[]",
        "an array of more than one dimension",
        "columns = { \"a\" = \"string\" }",
        "unrepresentable = \"null\"",
    ] {
        assert!(log.contains(words), "no {words:?} in {log}");
    }
    connector.records("t", 0);
    // The remedy is one, and nothing was skipped.
    connector.reconfigure("\"public.*\"]", "\"public.*\"]\ncolumns = { a = \"string\" }");
    let _daemon = connector.start_streaming();
    assert_eq!(field(&connector.records("t", 1)[0], "a"), &Value::String("{{1,2},{3,4}}".to_owned()));
}

#[test]
fn unrepresentable_values_become_null_where_that_is_asked_for_and_are_counted_and_told() {
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let shop = tablecast::Connector::with_settings(
        "CREATE TABLE t (id numeric(4, 1) PRIMARY KEY, a int[], n numeric(5, 2), at timestamp);
         INSERT INTO t VALUES (1, '{{1}}', 'NaN', '294276-12-31')",
        &format!("unrepresentable = \"null\"\n[http]\nlisten = \"{listen}\"\n"),
    );
    let daemon = shop.start();
    shop.database.execute("INSERT INTO t VALUES (2, '{NULL}', 'NaN', NULL), (3, '{1}', 2, '2024-01-01')");
    let rows = shop.view("t", 3);
    let shown = |row: usize, name: &str| rows[row]["value"][name].to_string();
    let row = |id: &str| rows.iter().position(|row| row["key"]["id"].as_str() == Some(id)).unwrap();
    assert_eq!([shown(row("1.0"), "a"), shown(row("1.0"), "n"), shown(row("1.0"), "at")], ["null"; 3]);
    assert_eq!([shown(row("2.0"), "a"), shown(row("2.0"), "n")], ["[null]", "null"]);
    assert_eq!([shown(row("3.0"), "a"), shown(row("3.0"), "n")], ["[1]", "\"2.00\""]);
    let series = format!("tablecast_unrepresentable_total{{connector=\"{}\",table=\"public.t\"}}", shop.name);
    wait_for("the count of nulls", || {
        let metrics =
            std::process::Command::new("curl").args(["-sf", &format!("http://{listen}/metrics")]).output().unwrap();
        let metrics = String::from_utf8(metrics.stdout).unwrap();
        let line = metrics.lines().find(|line| line.starts_with(&series))?.to_owned();
        // What a chunk reads again is counted again.
        (line.rsplit(' ').next()?.parse::<u64>().ok()? >= 4).then_some(())
    });
    let log = daemon.log();
    assert_eq!(log.matches("column=\"n\"").count(), 1, "{log}");
    // In a key there is no null: another row might have the same one.
    shop.database.execute("INSERT INTO t VALUES ('NaN', NULL, NULL, NULL)");
    wait_for("the connector to fail", || {
        let log = daemon.log();
        (log.contains("column \"id\" of type numeric(4,1)") && log.contains("can't hold NaN")).then_some(())
    });
}

#[test]
fn an_array_may_be_the_key() {
    let connector =
        Connector::of("CREATE TABLE t (id text[] PRIMARY KEY, v int); INSERT INTO t VALUES ('{a,NULL}', 1)");
    let daemon = connector.start_streaming();
    daemon.wait_for_log("snapshot done");
    connector.database.execute("UPDATE t SET v = 2; UPDATE t SET id = '{}'; DELETE FROM t");
    let records = connector.records("t", 5);
    let first = &records[0].key;
    assert!(format!("{first:?}").contains(r#"Array([Union(1, String("a")), Union(0, Null)])"#), "{first:?}");
    assert!(records[1].key == *first && records[2].key == *first && records[2].value.is_none());
    assert!(format!("{:?}", records[3].key).contains("Array([])") && records[4].key == records[3].key);
}

#[test]
fn labels_of_an_enum_may_be_added_and_renamed_amid_the_stream() {
    let connector = Connector::of("CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE t (id mood PRIMARY KEY, a mood[])");
    let _daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES ('sad', '{sad}')");
    connector.database.execute("ALTER TYPE mood ADD VALUE 'happy'");
    connector.database.execute("INSERT INTO t VALUES ('happy', '{happy,NULL}')");
    connector
        .database
        .execute("ALTER TYPE mood RENAME VALUE 'happy' TO 'glad'; UPDATE t SET a = '{glad}' WHERE id = 'glad'");
    let keys = connector.records("t", 3).iter().map(|record| record.short()).collect::<Vec<_>>();
    let begins = ["sad: sad", "happy: happy", "glad: glad"];
    assert!(keys.iter().zip(begins).all(|(key, begin)| key.starts_with(begin)), "{keys:?}");
}

#[test]
fn a_generated_column_is_in_no_record_or_in_all_as_the_publication_says() {
    let is_18 = |connector: &Connector| {
        connector.database.query("SELECT current_setting('server_version_num')::int >= 180000").as_deref() == Some("t")
    };
    let table = "CREATE TABLE t (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, v int);
                 INSERT INTO t VALUES (1, DEFAULT, 5)";
    let connector = Connector::of(table);
    let daemon = connector.start_streaming();
    daemon.wait_for_log("snapshot done");
    connector.database.execute("INSERT INTO t VALUES (2, DEFAULT, 6)");
    assert_eq!(short(&connector.records("t", 2)), ["1: 1 5", "2: 2 6"]);
    let said = |arguments: &[&str]| {
        let output = connector.command().args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let checked = said(&["check"]);
    assert!(checked.contains("generated columns are in no record") && checked.contains("twice"), "{checked}");
    assert!(!said(&["schema", connector.name()]).contains("twice"));
    if !is_18(&connector) {
        return;
    }
    let connector = Connector::of(table);
    let name = connector.name();
    connector.database.execute(&format!(
        "CREATE PUBLICATION tablecast_{name} FOR TABLE t WITH (publish_generated_columns = stored, \
         publish_via_partition_root = true)"
    ));
    let daemon = connector.start_streaming();
    daemon.wait_for_log("snapshot done");
    connector.database.execute("INSERT INTO t VALUES (2, DEFAULT, 6)");
    assert_eq!(short(&connector.records("t", 2)), ["1: 1 2 5", "2: 2 4 6"]);
    let output = connector.command().args(["schema", name]).output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("twice"));
    let output = connector.command().args(["check"]).output().unwrap();
    assert!(!String::from_utf8(output.stdout).unwrap().contains("generated columns"));
}

#[test]
fn the_page_of_types_names_every_type_that_this_postgres_has() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/types.md")).unwrap();
    let database = Database::create();
    // What is left out, nobody can write into a table: statistics and the like, kept by Postgres for itself.
    let names = database.query(
        "SELECT string_agg(format_type(oid, -1), ';') FROM pg_type
         WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm') AND typoutput <> 'array_out'::regproc
           AND typname !~ '^(pg_node_tree|pg_ndistinct|pg_dependencies|pg_mcv_list|gtsvector|pg_brin_.*)$'",
    );
    for name in names.unwrap().split(';') {
        let name = match name {
            "bpchar" => "character(n)",
            name => name.trim_matches('"'),
        };
        assert!(
            page.contains(&format!("| `{name}` |")) || page.contains(&format!("| `\"{name}\"` |")),
            "{name} is missing"
        );
    }
}
