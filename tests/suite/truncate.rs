//! TRUNCATE empties the topic as it empties the table: every key that lives gets a tombstone, at the TRUNCATE's place in
//! the stream, and what is inserted afterwards lives.

use std::collections::BTreeMap;

use crate::support::connector::Connector;
use crate::support::topic::{self, Record, fold, short};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";
/// How much more memory the TRUNCATE of a table may take that is four times as large.
const MEMORY_MARGIN_KIB: usize = 24 * 1024;

/// How many tombstones each key has.
fn tombstones(records: &[Record]) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for record in records.iter().filter(|record| record.value.is_none()) {
        let short = record.short();
        *count.entry(short.split_once(": ").unwrap().0.to_owned()).or_default() += 1;
    }
    count
}

/// The table of `public`, as folding its topic would have it.
fn rows(connector: &Connector, table: &str) -> BTreeMap<String, String> {
    let sql = format!("SELECT string_agg(id || ' ' || v, ',') FROM {table}");
    let rows = connector.database.query(&sql).unwrap_or_default();
    rows.split_terminator(',').map(|row| (row.split_once(' ').unwrap().0.to_owned(), row.to_owned())).collect()
}

/// Waits until all is in the topic, and compares it, folded, with the table.
fn assert_same(connector: &Connector, table: &str) -> Vec<Record> {
    connector.wait_until_caught_up();
    let records = topic::read(&connector.topic(table));
    assert_eq!(fold(&records), rows(connector, table), "{:?}", short(&records[records.len().saturating_sub(20)..]));
    records
}

#[test]
fn a_truncate_is_a_tombstone_for_every_row_and_what_is_inserted_later_lives() {
    let connector = Connector::of(TABLE);
    let daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    connector.database.execute("TRUNCATE t RESTART IDENTITY");
    connector.database.execute("INSERT INTO t VALUES (2, 'c')");
    let mut records = short(&connector.records("t", 5));
    records[2..4].sort();
    assert_eq!(records, ["1: 1 a", "2: 2 b", "1: -", "2: -", "2: 2 c"]);
    assert!(daemon.terminate().success());
}

#[test]
fn what_the_source_transaction_of_a_truncate_wrote_before_dies_and_what_it_writes_after_lives() {
    let connector = Connector::of(TABLE);
    let _daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (1, 'a')");
    connector.records("t", 1);
    connector.database.execute(
        "INSERT INTO t VALUES (2, 'b'), (3, 'c'); TRUNCATE t; INSERT INTO t VALUES (1, 'd'), (3, 'e'); TRUNCATE t;
         INSERT INTO t VALUES (3, 'f'), (4, 'g')",
    );
    let records = assert_same(&connector, "t");
    assert!(tombstones(&records).keys().eq(["1", "2", "3"]), "{:?}", short(&records));
    let commits: Vec<i64> = records[1..].iter().map(|record| record.timestamp).collect();
    assert!(commits.iter().all(|commit| *commit == commits[0]), "{commits:?}");
}

#[test]
fn a_truncate_that_cascades_empties_every_topic_and_no_other() {
    let connector = Connector::of(&format!(
        "{TABLE}; CREATE TABLE child (id int PRIMARY KEY, v text, t_id int REFERENCES t);
         CREATE TABLE other (id int PRIMARY KEY, v text); CREATE TABLE stays (id int PRIMARY KEY, v text)"
    ));
    let _daemon = connector.start_streaming();
    let tables = ["t", "child", "other", "stays"];
    connector.database.execute(
        "INSERT INTO t VALUES (1, 'a'), (2, 'b'); INSERT INTO child VALUES (1, 'a', 1), (2, 'b', 1);
         INSERT INTO other VALUES (1, 'a'), (2, 'b'); INSERT INTO stays VALUES (1, 'a'), (2, 'b')",
    );
    connector.database.execute("TRUNCATE t, other CASCADE; INSERT INTO child VALUES (3, 'c', NULL)");
    connector.wait_until_caught_up();
    let live = tables.map(|table| fold(&topic::read(&connector.topic(table))).into_keys().collect::<Vec<_>>());
    assert_eq!(live, [vec![], vec!["3".to_owned()], vec![], vec!["1".to_owned(), "2".to_owned()]]);
}

#[test]
fn a_truncate_of_a_partitioned_table_empties_its_topic() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (100);
         CREATE TABLE high PARTITION OF t FOR VALUES FROM (100) TO (200)",
    );
    let _daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (1, 'a'), (150, 'b')");
    connector.database.execute("TRUNCATE t; INSERT INTO t VALUES (1, 'c'), (151, 'd')");
    assert_eq!(assert_same(&connector, "t").len(), 6);
}

#[test]
fn a_truncate_of_an_empty_table_writes_nothing_and_rows_flow_on() {
    let connector = Connector::configured(
        &format!("{TABLE}; CREATE TABLE unmapped (id int PRIMARY KEY)"),
        "",
        "[connectors.NAME.tables.\"public.t\"]",
    );
    let _daemon = connector.start_streaming();
    connector.database.execute("TRUNCATE t; TRUNCATE unmapped");
    connector.database.execute("INSERT INTO t VALUES (1, 'a'); DELETE FROM t; INSERT INTO t VALUES (2, 'b')");
    assert_eq!(short(&connector.records("t", 3)), ["1: 1 a", "1: -", "2: 2 b"]);
}

#[test]
fn a_truncate_within_a_large_transaction_reaches_what_is_not_committed_yet() {
    const BEFORE: usize = 500;
    const WITHIN: usize = 30_000;
    let connector = Connector::of(TABLE);
    let daemon = connector.start_streaming();
    connector.database.execute(&format!("INSERT INTO t SELECT g, 'old' FROM generate_series(1, {BEFORE}) g"));
    connector.database.execute(&format!(
        "INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series({}, {}) g; TRUNCATE t;
         INSERT INTO t SELECT g, 'new' FROM generate_series(1, 3) g",
        BEFORE + 1,
        BEFORE + WITHIN,
    ));
    let records = assert_same(&connector, "t");
    assert_eq!(records.len(), 2 * (BEFORE + WITHIN) + 3);
    assert!(tombstones(&records).values().all(|count| *count == 1));
    assert!(daemon.terminate().success());
}

#[test]
fn a_truncate_while_the_daemon_is_away_is_made_up_for() {
    let connector = Connector::of(TABLE);
    let daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    connector.records("t", 2);
    assert!(daemon.terminate().success());
    connector.database.execute("INSERT INTO t VALUES (3, 'c')");
    connector.database.execute("TRUNCATE t; INSERT INTO t VALUES (4, 'd')");
    connector.database.execute("INSERT INTO t VALUES (5, 'e')");
    let daemon = connector.start_streaming();
    assert_same(&connector, "t");
    let count = topic::read(&connector.topic("t")).len();
    assert!(daemon.terminate().success());
    let _daemon = connector.start_streaming();
    assert_same(&connector, "t");
    connector.records("t", count);
}

#[test]
fn only_keys_that_live_get_a_tombstone_however_many_records_they_have() {
    let connector = Connector::of(TABLE);
    let _daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t SELECT g, 'a' FROM generate_series(1, 100) g");
    for _ in 0..10 {
        connector.database.execute("UPDATE t SET v = v || 'b'");
    }
    connector.database.execute("DELETE FROM t WHERE id > 10");
    // With nothing under way, what is live is known for certain.
    connector.wait_until_caught_up();
    connector.records("t", 100 + 1_000 + 90);
    connector.database.execute("TRUNCATE t");
    assert!(assert_same(&connector, "t").len() == 1_200);
    connector.database.execute("TRUNCATE t");
    assert!(assert_same(&connector, "t").len() == 1_200);
}

#[test]
fn a_truncate_holds_at_least_once_too() {
    let connector =
        Connector::configured(TABLE, "delivery = \"at-least-once\"", "[connectors.NAME.tables.\"public.*\"]");
    let daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t SELECT g, 'v' FROM generate_series(1, 1000) g");
    connector.database.execute("INSERT INTO t VALUES (1001, 'w'); TRUNCATE t; INSERT INTO t VALUES (1, 'x')");
    let records = assert_same(&connector, "t");
    assert_eq!(records.len(), 2 * 1001 + 1);
    assert!(daemon.terminate().success());
}

#[test]
fn a_daemon_that_is_killed_amid_the_tombstones_writes_all_of_them_again() {
    const ROWS: usize = 60_000;
    let connector = Connector::of(TABLE);
    // So short that the transaction may have to be split, wherever it is then.
    connector.reconfigure("[registry]", "[kafka.properties]\n\"transaction.timeout.ms\" = 1000\n[registry]");
    let daemon = connector.start_streaming();
    connector.database.execute(&format!("INSERT INTO t SELECT g, 'a' FROM generate_series(1, {ROWS}) g"));
    connector.wait_until_caught_up();
    connector.database.execute(&format!(
        "INSERT INTO t SELECT g, 'b' FROM generate_series({ROWS} + 1, 2 * {ROWS}) g; TRUNCATE t;
         INSERT INTO t SELECT g, 'c' FROM generate_series(100, {ROWS}) g; DELETE FROM t WHERE id > 1000",
    ));
    daemon.wait_for_log("was truncated");
    daemon.kill();
    let _daemon = connector.start_streaming();
    assert_same(&connector, "t");
}

/// The most memory that a daemon has had that has carried the TRUNCATE of so many rows over.
fn peak_memory_kib(rows: usize) -> usize {
    let connector = Connector::of(TABLE);
    let daemon = connector.start_streaming();
    connector.database.execute(&format!("INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(1, {rows}) g"));
    connector.database.execute("TRUNCATE t");
    connector.wait_until_caught_up();
    daemon.wait_for_log(&format!("tombstones={rows} "));
    daemon.peak_memory_kib()
}

#[test]
fn memory_does_not_grow_with_the_number_of_keys_that_a_truncate_empties() {
    // Both are more than a window of keys.
    let (small, large) = (peak_memory_kib(150_000), peak_memory_kib(600_000));
    assert!(large < small + MEMORY_MARGIN_KIB, "{small} KiB with 150,000 keys, {large} KiB with 600,000");
}
