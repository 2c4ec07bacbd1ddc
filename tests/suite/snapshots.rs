//! The first rows of tables: what a table held before is in its topic, beside what changes meanwhile.

use std::collections::BTreeMap;

use crate::support::connector::{Connector, Daemon};
use crate::support::topic::{self, Record, short};
use crate::support::wait_for;

const T: &str = "[connectors.NAME.tables.\"public.t\"]";

/// The table's rows as the topic's records would show them, by key.
fn rows(connector: &Connector, table: &str, columns: &str) -> BTreeMap<String, String> {
    let sql = format!("SELECT coalesce(string_agg(concat_ws(' ', {columns}), E'\\x01'), '') FROM {table}");
    let all = connector.database.query(&sql).unwrap();
    let row = |row: &str| (row.split(' ').next().unwrap().to_owned(), row.to_owned());
    all.split('\x01').filter(|row| !row.is_empty()).map(row).collect()
}

/// The topic, folded.
fn fold(records: &[Record]) -> BTreeMap<String, String> {
    let mut view = BTreeMap::new();
    for record in records {
        let line = record.short();
        let (key, value) = line.split_once(": ").unwrap();
        match &record.value {
            Some(_) => view.insert(key.to_owned(), value.to_owned()),
            None => view.remove(key),
        };
    }
    view
}

/// Waits until the topic, folded, is the table.
fn wait_until_equal(connector: &Connector, table: &str, columns: &str) -> Vec<Record> {
    let mut records = Vec::new();
    let equal = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for("topic = table", || {
            records = topic::read(&connector.topic(table));
            (fold(&records) == rows(connector, table, columns)).then_some(())
        });
    }));
    assert!(equal.is_ok(), "topic: {:#?}\ntable: {:#?}", fold(&records), rows(connector, table, columns));
    records
}

fn wait_for_snapshot(daemon: &Daemon, tables: usize) {
    daemon.wait_for_log_times("snapshot done", tables);
}

#[test]
fn a_table_that_holds_rows_already_is_in_its_topic_and_so_is_what_changes_meanwhile() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, b text); INSERT INTO t SELECT i, 'row' || i FROM generate_series(1, 5000) i",
    );
    let daemon = connector.start();
    for id in 1..50 {
        connector.database.execute(&format!(
            "UPDATE t SET b = 'new' WHERE id = {id}; DELETE FROM t WHERE id = {0}; UPDATE t SET id = -{0} WHERE id = {1}",
            id + 100,
            id + 200
        ));
    }
    wait_for_snapshot(&daemon, 1);
    connector.wait_until_caught_up();
    wait_until_equal(&connector, "t", "id, b");
    assert!(daemon.terminate().success());
}

#[test]
fn what_a_snapshot_shows_is_what_the_stream_would_have_shown() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, b text, n int); INSERT INTO t VALUES
         (1, NULL, 1), (2, '', NULL), (3, E'tab\\there', 3), (4, E'line\\nfeed', 4), (5, E'back\\\\slash \\\\N', 5), (6, '\\N', 6)",
    );
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 1);
    let snapshot = connector.records("t", 6);
    connector.database.execute("UPDATE t SET n = n");
    let all = connector.records("t", 12);
    assert_eq!(short(&snapshot), short(&all[6..]));
}

#[test]
fn tables_of_all_sizes_and_names_are_read() {
    let connector = Connector::configured(
        "CREATE TABLE empty (id int PRIMARY KEY);
         CREATE TABLE one (id int PRIMARY KEY); INSERT INTO one VALUES (1);
         CREATE TABLE dead (id int PRIMARY KEY, b text);
         INSERT INTO dead SELECT i, repeat('x', 500) FROM generate_series(1, 5000) i; DELETE FROM dead WHERE id % 1000 <> 0;
         CREATE TABLE \"Se lect\" (id int PRIMARY KEY, \"Ord\"\"er\" text); INSERT INTO \"Se lect\" VALUES (1, 'x');
         CREATE TABLE parts (id int, b text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
         CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id);
         CREATE TABLE parts_2a PARTITION OF parts_2 FOR VALUES FROM (100) TO (150);
         CREATE TABLE parts_3 PARTITION OF parts DEFAULT;
         INSERT INTO parts SELECT i, 'p' FROM generate_series(0, 149) i; INSERT INTO parts VALUES (500, 'd')",
        "topic = \"{connector}.{schema}.{table}\"",
        "[connectors.NAME.tables.\"public.*\"]\n[connectors.NAME.tables.'public.\"Se lect\"']\ntopic = \"NAME.public.quoted\"",
    );
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 5);
    connector.records("empty", 0);
    connector.records("one", 1);
    assert_eq!(short(&connector.records("quoted", 1)), ["1: 1 x"]);
    connector.records("dead", 5);
    assert_eq!(fold(&connector.records("parts", 151)), rows(&connector, "parts", "id, b"));
}

#[test]
fn column_lists_row_filters_and_excluded_columns_hold_for_the_first_rows_too() {
    let connector = Connector::configured(
        "CREATE TABLE t (id int PRIMARY KEY, b text, secret text, paid bool NOT NULL, g int GENERATED ALWAYS AS (id * 2) STORED);
         ALTER TABLE t REPLICA IDENTITY FULL;
         INSERT INTO t SELECT i, 'b', 's', i % 2 = 0 FROM generate_series(1, 10) i",
        "",
        &format!("{T}\nexclude_columns = [\"b\"]"),
    );
    let publication = format!("tablecast_{}", connector.name());
    connector.database.execute(&format!("CREATE PUBLICATION {publication} FOR TABLE t WHERE (paid)"));
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 1);
    assert_eq!(short(&connector.records("t", 5))[0], "2: 2 s true");
}

#[test]
fn a_daemon_that_is_killed_goes_on_at_the_chunk() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, b text);
         INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 60000) i",
    );
    connector.reconfigure("database_url", "snapshot_chunk_bytes = \"16KiB\"\ndatabase_url");
    let mut records = 0;
    for _ in 0..3 {
        let before = records;
        let daemon = connector.start_streaming();
        wait_for("another chunk", || {
            records = topic::read(&connector.topic("t")).len();
            (records > before).then_some(())
        });
        daemon.kill();
    }
    assert!(topic::read(&connector.topic("t")).len() < 60_000, "it was killed on the way");
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 1);
    let records = topic::read(&connector.topic("t"));
    assert_eq!(fold(&records).len(), 60_000);
    assert_eq!(records.len(), 60_000, "what was committed is not read again");
}

#[test]
fn a_rewrite_of_the_table_loses_no_row() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, b text);
         INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 60000) i; DELETE FROM t WHERE id % 3 = 0",
    );
    let daemon = connector.start_streaming();
    for command in [
        "VACUUM FULL t",
        "CLUSTER t USING t_pkey",
        "ALTER TABLE t ALTER b TYPE varchar(1000), ADD c float DEFAULT random()",
    ] {
        let before = topic::read(&connector.topic("t")).len();
        wait_for("another chunk", || {
            (topic::read(&connector.topic("t")).len() > before || daemon.log().contains("snapshot done")).then_some(())
        });
        connector.database.execute(command);
    }
    wait_for_snapshot(&daemon, 1);
    assert!(daemon.log().contains("was rewritten"), "{}", daemon.log());
    connector.wait_until_caught_up();
    assert_eq!(fold(&topic::read(&connector.topic("t"))).len(), 40_000);
}

#[test]
fn a_table_that_is_added_to_the_configuration_gets_its_own_snapshot_and_the_publication_follows() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);
               CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1), (2)";
    let connector = Connector::configured(sql, "", T);
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 1);
    assert!(daemon.terminate().success());
    connector.configure("", &format!("{T}\n[connectors.NAME.tables.\"public.u\"]"));
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 1);
    connector.database.execute("INSERT INTO t VALUES (3); INSERT INTO u VALUES (3)");
    connector.records("u", 3);
    assert_eq!(short(&connector.records("t", 2)), ["1: 1", "3: 3"]);
}

#[test]
fn no_snapshot_is_taken_where_none_is_asked_for() {
    let connector = Connector::configured(
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1)",
        "snapshot = \"never\"",
        &format!("{T}\n[connectors.NAME.tables.\"public.u\"]\nsnapshot = \"initial\""),
    );
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 1);
    connector.database.execute("INSERT INTO t VALUES (2)");
    assert_eq!(short(&connector.records("t", 1)), ["2: 2"]);
    connector.records("u", 1);
}

#[test]
fn a_long_row_is_a_chunk_of_its_own() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, b text);
         INSERT INTO t SELECT i, repeat('y', 700000) FROM generate_series(1, 40) i",
    );
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 1);
    connector.records("t", 40);
}
