//! A table becomes a topic: what a change of a row becomes, and that folding the topic gives the table.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::connector::Connector;
use crate::support::topic::{self, fold, short};

#[test]
fn inserts_updates_and_deletes_become_records_and_tombstones_in_order() {
    let connector = Connector::of("CREATE TABLE t (id int PRIMARY KEY, v text)");
    let daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (1, 'a'), (2, NULL)");
    connector.database.execute("UPDATE t SET v = 'b' WHERE id = 1");
    connector.database.execute("DELETE FROM t WHERE id = 2");
    let records = connector.records("t", 4);
    assert_eq!(short(&records), ["1: 1 a", "2: 2 null", "1: 1 b", "2: -"]);
    assert!(daemon.terminate().success());
}

#[test]
fn an_update_of_the_key_is_a_tombstone_and_a_row() {
    let connector = Connector::of("CREATE TABLE t (id int PRIMARY KEY, v text)");
    let _daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (1, 'a')");
    connector.database.execute("UPDATE t SET id = 2 WHERE id = 1");
    assert_eq!(short(&connector.records("t", 3)), ["1: 1 a", "1: -", "2: 2 a"]);
}

#[test]
fn a_composite_key_has_the_order_of_the_key_and_the_value_that_of_the_table() {
    let connector = Connector::of("CREATE TABLE t (v text, a text, b int, PRIMARY KEY (b, a))");
    let _daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES ('x', 'one', 1)");
    connector.database.execute("DELETE FROM t");
    assert_eq!(short(&connector.records("t", 2)), ["1 one: x one 1", "1 one: -"]);
}

#[test]
fn replica_identity_full_gives_an_unchanged_toasted_value() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, n int, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
         ALTER TABLE t REPLICA IDENTITY FULL",
    );
    let _daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (1, 1, repeat('x', 10000))");
    connector.database.execute("UPDATE t SET n = 2");
    let records = connector.records("t", 2);
    assert_eq!(records[1].short(), format!("1: 1 2 {}", "x".repeat(10_000)));
}

#[test]
fn excluded_columns_stay_out_and_columns_set_to_string_are_text() {
    let connector = Connector::configured(
        "CREATE TABLE t (id int PRIMARY KEY, secret text, amount numeric(10, 2))",
        "",
        "[connectors.NAME.tables.\"public.t\"]\nexclude_columns = [\"secret\"]\ncolumns = { amount = \"string\" }",
    );
    let _daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (1, 'hush', 2.5)");
    assert_eq!(short(&connector.records("t", 1)), ["1: 1 2.50"]);
}

#[test]
fn a_table_without_a_primary_key_takes_the_key_of_its_mapping() {
    let connector = Connector::configured(
        "CREATE TABLE t (a int NOT NULL, b text); ALTER TABLE t REPLICA IDENTITY FULL",
        "",
        "[connectors.NAME.tables.\"public.t\"]\nkey = [\"a\"]\ntopic = \"NAME.renamed\"",
    );
    let _daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (1, 'x'); UPDATE t SET a = 2; DELETE FROM t");
    let topic = format!("{}.renamed", connector.name());
    let records = crate::support::wait_for("4 records", || Some(topic::read(&topic)).filter(|found| found.len() == 4));
    assert_eq!(short(&records), ["1: 1 x", "1: -", "2: 2 x", "2: -"]);
}

#[test]
fn a_partitioned_table_is_one_topic_and_rows_may_move_between_partitions() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (100);
         CREATE TABLE high PARTITION OF t FOR VALUES FROM (100) TO (200)",
    );
    let _daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (1, 'a'), (150, 'b'); UPDATE t SET id = 101 WHERE id = 1");
    let rows = fold(&connector.records("t", 4));
    assert_eq!(
        rows.into_iter().collect::<Vec<_>>(),
        [("101".to_owned(), "101 a".to_owned()), ("150".to_owned(), "150 b".to_owned())]
    );
}

#[test]
fn the_timestamp_of_a_record_is_the_commit_time_of_its_source_transaction() {
    let connector = Connector::of("CREATE TABLE t (id int PRIMARY KEY)");
    let _daemon = connector.start_streaming();
    let now = || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let before = now();
    connector.database.execute("INSERT INTO t VALUES (1)");
    let after = now();
    let timestamp = connector.records("t", 1)[0].timestamp;
    assert!((before..=after).contains(&timestamp), "{before} {timestamp} {after}");
}

#[test]
fn a_change_of_shape_in_the_stream_gives_a_new_version_of_the_value() {
    let connector = Connector::of("CREATE TABLE t (id int PRIMARY KEY, v text)");
    let _daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (1, 'a')");
    connector.database.execute("ALTER TABLE t ADD n int; INSERT INTO t VALUES (2, 'b', 7)");
    assert_eq!(short(&connector.records("t", 2)), ["1: 1 a", "2: 2 b 7"]);
}

#[test]
fn at_least_once_delivers_the_same_records_without_transactions() {
    let connector = Connector::configured(
        "CREATE TABLE t (id int PRIMARY KEY, v text)",
        "delivery = \"at-least-once\"",
        "[connectors.NAME.tables.\"public.*\"]",
    );
    let daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 1000) g");
    assert_eq!(connector.records("t", 1000)[999].short(), "1000: 1000 v1000");
    assert!(daemon.terminate().success());
    connector.start_streaming();
    connector.records("t", 1000);
}
