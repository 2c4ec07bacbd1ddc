//! An update that leaves a TOASTed value as it was doesn't carry it: the value is looked up in the table, and is neither
//! lost nor made up, whatever happened to the row meanwhile.

use std::collections::BTreeMap;

use apache_avro::types::Value;

use crate::support::connector::Connector;
use crate::support::topic::{self, Record, short};

/// Values of `big` are always TOASTed, and never compressed.
pub const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, n int, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL";
/// How much more memory large values may take than small ones: a few of them at a time.
const MEMORY_MARGIN_KIB: usize = 64 * 1024;

/// A large value that is told from others by its first letters.
pub fn big(word: &str) -> String {
    format!("{word}{}", "x".repeat(10_000))
}

/// The same in SQL.
pub fn sql_big(word: &str) -> String {
    format!("'{word}' || repeat('x', 10000)")
}

/// In short, with large values cut down to their first letters.
pub fn shorter(records: &[Record]) -> Vec<String> {
    short(records).into_iter().map(|record| record.replace(&"x".repeat(10_000), "…")).collect()
}

/// The topic of `t`, folded, is what Postgres says of the table: its columns as text, in the table's order.
pub fn assert_same(connector: &Connector) -> Vec<Record> {
    connector.wait_until_caught_up();
    let records = topic::read(&connector.topic("t"));
    let mut folded = BTreeMap::new();
    for record in &records {
        let key: Vec<String> = record.key.iter().map(|(_, value)| text(value)).collect();
        match &record.value {
            Some(value) => folded.insert(key, value.iter().map(|(_, value)| text(value)).collect::<Vec<_>>()),
            None => folded.remove(&key),
        };
    }
    let rows: Vec<Vec<String>> = folded.into_values().collect();
    let json = "SELECT json_agg((SELECT json_agg(coalesce(value, 'null') ORDER BY place) \
                FROM json_each_text(row_to_json(t)) WITH ORDINALITY AS c(key, value, place))) FROM t";
    let json = connector.database.query(json).unwrap_or_else(|| "[]".to_owned());
    let mut expected: Vec<Vec<String>> = serde_json::from_str(&json).unwrap();
    let mut rows_sorted = rows;
    rows_sorted.sort();
    expected.sort();
    assert!(rows_sorted == expected, "the topic is not the table: {:?}", shorter(&records));
    records
}

fn text(value: &Value) -> String {
    match value {
        Value::Union(_, inner) => text(inner),
        Value::Null => "null".to_owned(),
        Value::Int(value) => value.to_string(),
        Value::Long(value) => value.to_string(),
        Value::String(value) => value.clone(),
        Value::Uuid(value) => value.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn an_unchanged_toasted_value_is_looked_up() {
    let connector = Connector::of(TABLE);
    let daemon = connector.start_streaming();
    connector.database.execute(&format!("INSERT INTO t VALUES (1, 1, {}), (2, 1, 'small')", sql_big("a")));
    connector.database.execute("UPDATE t SET n = 2");
    let records = connector.records("t", 4);
    assert_eq!(records[2].short(), format!("1: 1 2 {}", big("a")));
    assert_eq!(records[3].short(), "2: 2 2 small");
    assert!(daemon.terminate().success());
}

#[test]
fn the_records_of_a_source_transaction_keep_their_order() {
    let connector = Connector::of(TABLE);
    let _daemon = connector.start_streaming();
    connector.database.execute(&format!("INSERT INTO t VALUES (1, 1, {}), (2, 1, {})", sql_big("a"), sql_big("b")));
    connector.records("t", 2);
    connector.database.execute(&format!(
        "UPDATE t SET n = 2 WHERE id = 1; INSERT INTO t VALUES (3, 1, 'c'); UPDATE t SET n = 3 WHERE id = 2;
         DELETE FROM t WHERE id = 3; UPDATE t SET n = 4, big = {} WHERE id = 1; UPDATE t SET n = 5 WHERE id = 1",
        sql_big("d")
    ));
    assert_eq!(
        shorter(&assert_same(&connector)[2..]),
        ["1: 1 2 d…", "3: 3 1 c", "2: 2 3 b…", "3: -", "1: 1 4 d…", "1: 1 5 d…"]
    );
}

#[test]
fn a_row_that_gets_another_key_keeps_its_value() {
    let connector = Connector::of(TABLE);
    let _daemon = connector.start_streaming();
    connector.database.execute(&format!("INSERT INTO t VALUES (1, 1, {}), (2, 2, {})", sql_big("a"), sql_big("b")));
    connector.database.execute("UPDATE t SET id = 5 WHERE id = 1");
    connector.records("t", 4);
    // There and back again, and two rows that take each other's place.
    connector.database.execute("UPDATE t SET id = 6 WHERE id = 5; UPDATE t SET id = 5 WHERE id = 6");
    connector.database.execute(
        "UPDATE t SET id = 9 WHERE id = 5; UPDATE t SET id = 5 WHERE id = 2; UPDATE t SET id = 2 WHERE id = 9",
    );
    let records = assert_same(&connector);
    assert_eq!(shorter(&records[2..4]), ["1: -", "5: 5 1 a…"]);
}

#[test]
fn what_happened_to_rows_while_the_daemon_was_away_leaves_the_topic_as_the_table() {
    let connector = Connector::of(TABLE);
    let daemon = connector.start_streaming();
    connector
        .database
        .execute(&format!("INSERT INTO t SELECT g, 0, {} || g FROM generate_series(1, 12) g", sql_big("a")));
    connector.records("t", 12);
    assert!(daemon.terminate().success());
    connector.database.execute("UPDATE t SET n = 1");
    connector.database.execute("DELETE FROM t WHERE id = 1");
    connector.database.execute("UPDATE t SET id = 102 WHERE id = 2");
    connector.database.execute("UPDATE t SET id = 103 WHERE id = 3; UPDATE t SET id = 3 WHERE id = 103");
    connector.database.execute(&format!("DELETE FROM t WHERE id = 4; INSERT INTO t VALUES (4, 7, {})", sql_big("new")));
    connector.database.execute("DELETE FROM t WHERE id = 5; INSERT INTO t VALUES (5, 7, NULL)");
    connector.database.execute(&format!("UPDATE t SET big = {} WHERE id = 6", sql_big("later")));
    connector.database.execute("UPDATE t SET big = NULL WHERE id = 7");
    connector.database.execute("UPDATE t SET id = id + 1000 WHERE id IN (8, 9); UPDATE t SET id = 8 WHERE id = 1009");
    connector.database.execute("UPDATE t SET n = 2 WHERE id <> 5");
    let _daemon = connector.start_streaming();
    let records = assert_same(&connector);
    // Nothing was made up for what is gone: of the row that was deleted only its tombstone came.
    let first: Vec<_> = shorter(&records[12..]).into_iter().filter(|record| record.starts_with("1: ")).collect();
    assert_eq!(first, ["1: -"]);
}

#[test]
fn a_truncate_behind_an_update_empties_the_topic() {
    let connector = Connector::of(TABLE);
    let daemon = connector.start_streaming();
    connector.database.execute(&format!("INSERT INTO t SELECT g, 0, {} FROM generate_series(1, 3) g", sql_big("a")));
    connector.database.execute("UPDATE t SET n = 1; TRUNCATE t");
    assert_same(&connector);
    assert!(daemon.terminate().success());
    connector.database.execute(&format!("INSERT INTO t SELECT g, 0, {} FROM generate_series(1, 3) g", sql_big("b")));
    connector.database.execute("UPDATE t SET n = 1");
    connector.database.execute(&format!("TRUNCATE t; INSERT INTO t VALUES (2, 0, {})", sql_big("c")));
    connector.database.execute("UPDATE t SET n = 5");
    let _daemon = connector.start_streaming();
    assert_same(&connector);
}

#[test]
fn keys_of_any_type_and_content_find_their_rows() {
    let keys = [
        ("text", vec!["it''s", "back\\slash", "\"quoted\"", "tab\there", "", " ", "NULL", "{a,b}", "ünï", "$1", "--"]),
        ("varchar(20)", vec!["a''b"]),
        ("char(5)", vec!["ab", "a\\"]),
        ("\"char\"", vec!["a", "''"]),
        ("name", vec!["n''n"]),
        ("uuid", vec!["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
        ("numeric(10,2)", vec!["1.50", "-3"]),
        ("bigint", vec!["-9223372036854775808"]),
        ("double precision", vec!["0.1", "1e300"]),
        ("boolean", vec!["true"]),
        ("date", vec!["2024-02-29", "0044-03-15 BC"]),
        ("timestamp", vec!["2024-01-02 03:04:05.678901"]),
        ("timestamptz", vec!["2024-01-02 03:04:05.678901+02"]),
        ("time", vec!["23:59:59.999999"]),
        ("interval", vec!["1 year -2 days 03:04:05.6"]),
        ("bytea", vec!["\\x00ff5c27"]),
        ("inet", vec!["10.0.0.1/8"]),
        ("bit(5)", vec!["10101"]),
        ("int[]", vec!["{1,2,NULL}"]),
        ("int4range", vec!["[1,5)"]),
        ("jsonb", vec!["{\"a\": \"it''s\"}"]),
        ("\"Mood\"", vec!["so ''so''"]),
        ("positive", vec!["7"]),
        ("citext", vec!["MiXed"]),
    ];
    let mut sql = "CREATE EXTENSION citext; CREATE TYPE \"Mood\" AS ENUM ('so ''so''', 'sad');
                   CREATE DOMAIN positive AS int CHECK (VALUE > 0);"
        .to_owned();
    for (place, (pg_type, _)) in keys.iter().enumerate() {
        sql.push_str(&format!(
            "CREATE TABLE \"k{place}\" (\"the \"\"key\" {pg_type} PRIMARY KEY, n int, \"Big One\" text);
             ALTER TABLE k{place} ALTER \"Big One\" SET STORAGE EXTERNAL;"
        ));
    }
    let connector = Connector::of(&sql);
    let _daemon = connector.start_streaming();
    for (place, (_, values)) in keys.iter().enumerate() {
        for value in values {
            connector.database.execute(&format!("INSERT INTO k{place} VALUES ('{value}', 1, {})", sql_big("a")));
        }
        connector.database.execute(&format!("UPDATE k{place} SET n = 2"));
    }
    connector.wait_until_caught_up();
    for (place, (pg_type, values)) in keys.iter().enumerate() {
        let records = topic::read(&connector.topic(&format!("k{place}")));
        assert_eq!(records.len(), 2 * values.len(), "{pg_type}: {:?}", shorter(&records));
        for record in &records[values.len()..] {
            assert!(record.short().ends_with(&format!(" 2 {}", big("a"))), "{pg_type}: {}", record.short());
        }
    }
}

#[test]
fn a_composite_key_and_a_key_of_the_mapping_find_the_row() {
    let connector = Connector::configured(
        "CREATE TABLE t (big text, a text, b int, n int, PRIMARY KEY (b, a)); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
         CREATE TABLE mapped (a int NOT NULL, b int NOT NULL, n int, big text);
         ALTER TABLE mapped ALTER big SET STORAGE EXTERNAL;
         CREATE UNIQUE INDEX by_both ON mapped (b, a); ALTER TABLE mapped REPLICA IDENTITY USING INDEX by_both",
        "",
        "[connectors.NAME.tables.\"public.t\"]\n[connectors.NAME.tables.\"public.mapped\"]\nkey = [\"a\"]",
    );
    let _daemon = connector.start_streaming();
    connector.database.execute(&format!(
        "INSERT INTO t SELECT {} || a || b, a, b, 0 FROM unnest('{{x,y}}'::text[]) a, generate_series(1, 3) b;
         INSERT INTO mapped VALUES (1, 2, 0, {}), (2, 1, 0, {}), (2, 3, 0, {})",
        sql_big("v"),
        sql_big("one"),
        sql_big("two"),
        sql_big("three"),
    ));
    connector.database.execute("UPDATE t SET n = 1; UPDATE mapped SET n = 1");
    assert_same(&connector);
    let mapped = shorter(&connector.records("mapped", 6)[3..]);
    assert_eq!(mapped, ["1: 1 2 1 one…", "2: 2 1 1 two…", "2: 2 3 1 three…"]);
}

#[test]
fn a_partitioned_table_is_looked_up_as_a_whole_and_a_table_without_those_that_inherit_from_it() {
    let connector = Connector::configured(
        "CREATE TABLE t (id int, n int, big text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
         ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
         CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id);
         CREATE TABLE lowest PARTITION OF low FOR VALUES FROM (0) TO (50);
         CREATE TABLE high PARTITION OF t FOR VALUES FROM (100) TO (200);
         CREATE TABLE parent (id int PRIMARY KEY, n int, big text); ALTER TABLE parent ALTER big SET STORAGE EXTERNAL;
         CREATE TABLE child () INHERITS (parent)",
        "",
        "[connectors.NAME.tables.\"public.t\"]\n[connectors.NAME.tables.\"public.parent\"]",
    );
    let daemon = connector.start_streaming();
    connector.database.execute(&format!(
        "INSERT INTO t SELECT g, 0, {0} || g FROM unnest('{{1,2,150}}'::int[]) g;
         INSERT INTO child VALUES (1, 0, {1}); INSERT INTO parent VALUES (1, 0, {0})",
        sql_big("p"),
        sql_big("child"),
    ));
    connector.database.execute("UPDATE t SET n = 1; UPDATE ONLY parent SET n = 1");
    assert_same(&connector);
    assert_eq!(shorter(&connector.records("parent", 2)[1..]), ["1: 1 1 p…"]);
    assert!(daemon.terminate().success());
    // Moved to another partition after the update, as the daemon will see it.
    connector.database.execute("UPDATE t SET n = 2; UPDATE t SET id = 101 WHERE id = 1; UPDATE t SET n = 3");
    let _daemon = connector.start_streaming();
    assert_same(&connector);
}

#[test]
fn updates_of_many_tables_that_take_turns_are_looked_up() {
    let columns = "(id int PRIMARY KEY, n int, big text, doc text)";
    let external = |table: &str| {
        format!(
            "ALTER TABLE {table} ALTER big SET STORAGE EXTERNAL; ALTER TABLE {table} ALTER doc SET STORAGE EXTERNAL;"
        )
    };
    let connector = Connector::of(&format!(
        "CREATE TABLE t {columns}; CREATE TABLE u {columns}; {} {}",
        external("t"),
        external("u")
    ));
    let _daemon = connector.start_streaming();
    for table in ["t", "u"] {
        let (big, doc) = (sql_big("b"), sql_big("d"));
        let rows = format!("INSERT INTO {table} SELECT g, 0, {big} || g, {doc} || g FROM generate_series(1, 50) g");
        connector.database.execute(&rows);
    }
    let turns: String = (1..=50)
        .map(|id| {
            let large = sql_big("new");
            format!(
                "UPDATE t SET n = 1 WHERE id = {id}; UPDATE u SET n = 1, doc = {large} WHERE id = {id};
                 UPDATE t SET n = 2, big = {large} WHERE id = {id}; UPDATE u SET n = 2, big = NULL WHERE id = {id};"
            )
        })
        .collect();
    connector.database.execute(&turns);
    assert_same(&connector);
    let records = connector.records("u", 150);
    assert!(records[50..].iter().all(|record| record.short().contains("new")), "{:?}", shorter(&records[50..]));
}

#[test]
fn replica_identity_full_needs_no_look_up() {
    let connector = Connector::of(&format!("{TABLE}; ALTER TABLE t REPLICA IDENTITY FULL"));
    let daemon = connector.start_streaming();
    connector.database.execute(&format!("INSERT INTO t VALUES (1, 1, {})", sql_big("a")));
    connector.database.execute("UPDATE t SET n = 2");
    connector.database.execute(&format!("UPDATE t SET n = 3, big = {}", sql_big("b")));
    assert!(daemon.terminate().success());
    connector.database.execute("UPDATE t SET n = 4; DELETE FROM t");
    // The value is in the WAL, though it isn't in the table any more.
    let _daemon = connector.start_streaming();
    let records = assert_same(&connector);
    assert_eq!(shorter(&records[1..]), ["1: 1 2 a…", "1: 1 3 b…", "1: 1 4 b…", "1: -"]);
}

#[test]
fn columns_that_are_not_captured_are_not_looked_up() {
    let connector = Connector::configured(
        &format!("{TABLE}; CREATE ROLE NAME_reader LOGIN REPLICATION")
            .replace("; CREATE ROLE NAME_reader LOGIN REPLICATION", ""),
        "",
        "[connectors.NAME.tables.\"public.t\"]\nexclude_columns = [\"big\"]",
    );
    let daemon = connector.start_streaming();
    connector.database.execute(&format!("INSERT INTO t VALUES (1, 1, {})", sql_big("a")));
    assert!(!connector.records("t", 1).is_empty());
    assert!(daemon.terminate().success());
    connector.database.execute("UPDATE t SET n = 2; DELETE FROM t");
    let _daemon = connector.start_streaming();
    connector.wait_until_caught_up();
    assert_eq!(short(&connector.records("t", 3)), ["1: 1 1", "1: 1 2", "1: -"]);
}

#[test]
fn a_column_that_was_changed_meanwhile_is_never_made_up_and_rows_flow_on() {
    for change in [
        "ALTER TABLE t DROP COLUMN big",
        "ALTER TABLE t RENAME COLUMN big TO other",
        "ALTER TABLE t ALTER COLUMN big TYPE bytea USING big::bytea",
    ] {
        let connector = Connector::of(TABLE);
        let daemon = connector.start_streaming();
        connector.database.execute(&format!("INSERT INTO t VALUES (1, 1, {}), (2, 1, 'b')", sql_big("a")));
        connector.records("t", 2);
        assert!(daemon.terminate().success());
        connector.database.execute("UPDATE t SET n = 2");
        connector.database.execute(change);
        let daemon = connector.start_streaming();
        connector.wait_until_caught_up();
        daemon.wait_for_log("can't be looked up any more");
        let records = shorter(&topic::read(&connector.topic("t")));
        assert_eq!(records[2], "2: 2 2 b", "{change}: {records:?}");
        assert!(records[3..].iter().all(|record| !record.contains("null")), "{change}: {records:?}");
    }
}

#[test]
fn a_table_that_gets_or_loses_a_key_behind_an_update_makes_no_error() {
    let connector = Connector::of(TABLE);
    let daemon = connector.start_streaming();
    connector.database.execute(&format!("INSERT INTO t VALUES (1, 1, {})", sql_big("a")));
    connector.database.execute("UPDATE t SET n = 2");
    connector.records("t", 2);
    // What the daemon knows of the table is what it was before.
    connector.database.execute("UPDATE t SET n = 3; ALTER TABLE t ADD CONSTRAINT n UNIQUE (n)");
    assert_eq!(shorter(&connector.records("t", 3)[2..]), ["1: 1 3 a…"]);
    connector.database.execute("UPDATE t SET n = 4; ALTER TABLE t DROP CONSTRAINT t_pkey");
    daemon.wait_for_log("can't be looked up any more");
    connector.records("t", 3);
}

#[test]
fn a_table_that_is_dropped_behind_an_update_makes_no_error() {
    let connector = Connector::of(&format!("{TABLE}; CREATE TABLE other (id int PRIMARY KEY, v text)"));
    let _daemon = connector.start_streaming();
    connector.database.execute(&format!("INSERT INTO t VALUES (1, 1, {})", sql_big("a")));
    connector.records("t", 1);
    connector.database.execute("UPDATE t SET n = 2; INSERT INTO other VALUES (1, 'x'); DROP TABLE t");
    assert_eq!(short(&connector.records("other", 1)), ["1: 1 x"]);
    connector.records("t", 1);
}

#[test]
fn a_value_of_a_column_that_the_same_source_transaction_made_is_looked_up() {
    let connector = Connector::of("CREATE TABLE t (id int PRIMARY KEY, n int)");
    let _daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (1, 1)");
    connector.records("t", 1);
    connector.database.execute(&format!(
        "ALTER TABLE t ADD big text; ALTER TABLE t ALTER big SET STORAGE EXTERNAL; UPDATE t SET big = {}; UPDATE t SET n = 2",
        sql_big("a")
    ));
    assert_eq!(shorter(&connector.records("t", 3)[1..]), ["1: 1 1 a…", "1: 1 2 a…"]);
}

#[test]
fn row_level_security_that_would_hide_rows_stops_the_connector_with_the_remedy() {
    let connector = Connector::of(TABLE);
    let role = format!("{}_login", connector.name());
    let daemon = connector.start_streaming();
    connector.database.execute(&format!("INSERT INTO t VALUES (1, 1, {})", sql_big("a")));
    connector.records("t", 1);
    assert!(daemon.terminate().success());
    connector.database.execute(&format!(
        "CREATE ROLE {role} LOGIN REPLICATION; GRANT SELECT ON t TO {role}; ALTER TABLE t ENABLE ROW LEVEL SECURITY"
    ));
    connector.reconfigure("postgres://postgres@", &format!("postgres://{role}@"));
    connector.database.execute("UPDATE t SET n = 2");
    let daemon = connector.start();
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("row-level security") && log.contains("BYPASSRLS"), "{log}");
    connector.database.execute(&format!("ALTER ROLE {role} BYPASSRLS"));
    let daemon = connector.start_streaming();
    assert_eq!(shorter(&connector.records("t", 2)[1..]), ["1: 1 2 a…"]);
    assert!(daemon.terminate().success());
    connector.database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn a_daemon_that_is_killed_amid_look_ups_brings_each_update_once() {
    const ROWS: usize = 3_000;
    let connector = Connector::of(TABLE);
    let daemon = connector.start_streaming();
    connector
        .database
        .execute(&format!("INSERT INTO t SELECT g, 0, {} || g FROM generate_series(1, {ROWS}) g", sql_big("a")));
    connector.wait_until_caught_up();
    connector.database.execute("UPDATE t SET n = 1");
    daemon.kill();
    for n in 2..5 {
        let daemon = connector.start_streaming();
        connector.database.execute(&format!("UPDATE t SET n = {n} WHERE id <= 500"));
        daemon.kill();
    }
    let _daemon = connector.start_streaming();
    assert_eq!(assert_same(&connector).len(), 2 * ROWS + 3 * 500);
}

/// The most memory that a daemon has had that has brought so many updates of rows with values of so many bytes.
fn peak_memory_kib(rows: usize, bytes: usize) -> usize {
    let connector = Connector::of(TABLE);
    let daemon = connector.start_streaming();
    connector
        .database
        .execute(&format!("INSERT INTO t SELECT g, 0, repeat('x', {bytes}) FROM generate_series(1, {rows}) g"));
    connector.database.execute("UPDATE t SET n = 1");
    connector.wait_until_caught_up();
    daemon.peak_memory_kib()
}

#[test]
fn memory_does_not_grow_with_the_number_of_large_values_that_are_looked_up() {
    // The most that a topic takes by default is 1 MiB.
    let (few, many) = (peak_memory_kib(10, 1_000_000), peak_memory_kib(200, 1_000_000));
    assert!(many < few + MEMORY_MARGIN_KIB, "{few} KiB with 10 values, {many} KiB with 200");
}
