//! Changes of a table's shape: the topic equals the table afterwards, be it that the stream tells nothing of what the
//! change did to the rows.

use crate::continuity::assert_refused;
use crate::support::connector::{Connector, Daemon, variable};
use crate::support::topic;
use crate::support::view::wait_until_same;
use crate::support::wait_for;
use rdkafka::message::Message;

const TABLE: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b int);
     CREATE TABLE t (id int PRIMARY KEY, v text, w varchar(10), m mood, n int, p pair);
     INSERT INTO t SELECT g, 'v' || g, 'w' || g, 'sad', g, ROW(g, g)::pair FROM generate_series(1, 50) g";
/// So that a change is seen soon, be it that the stream doesn't tell.
pub const SETTINGS: &str = "catalog_interval = \"500ms\"";
pub const ALL: &str = "[connectors.NAME.tables.\"public.*\"]";

/// A connector whose topic has the table's rows.
pub fn connector(sql: &str) -> Connector {
    Connector::configured(sql, SETTINGS, ALL)
}

/// Starts it, and waits until the topic is the table.
pub fn start(connector: &Connector) -> Daemon {
    let daemon = connector.start_streaming();
    wait_until_same(connector, "t");
    daemon
}

/// Does it between two rows, in one transaction with rows around it, and while the daemon is away, undoing it in between;
/// each time the topic has to become the table.
fn assert_followed(change: &str, undo: &str) {
    let connector = connector(TABLE);
    let touch = |id: i32| format!("INSERT INTO t (id, m) VALUES ({id}, 'ok'); DELETE FROM t WHERE id = {id} - 100");
    let daemon = start(&connector);
    connector.database.execute(&touch(101));
    connector.database.execute(change);
    wait_until_same(&connector, "t");
    connector.database.execute(&touch(102));
    wait_until_same(&connector, "t");
    connector.database.execute(undo);
    wait_until_same(&connector, "t");

    connector.database.execute(&format!("BEGIN; {}; {change}; {}; COMMIT", touch(103), touch(104)));
    wait_until_same(&connector, "t");
    connector.database.execute(undo);
    wait_until_same(&connector, "t");
    assert!(daemon.terminate().success());

    connector.database.execute(&touch(105));
    connector.database.execute(change);
    connector.database.execute(&touch(106));
    let _daemon = connector.start_streaming();
    wait_until_same(&connector, "t");
}

#[test]
fn a_column_that_is_added_with_a_default_has_it_in_old_rows_too() {
    assert_followed("ALTER TABLE t ADD COLUMN x int DEFAULT 7", "ALTER TABLE t DROP COLUMN x");
}

#[test]
fn a_column_that_is_added_with_a_volatile_default_has_each_rows_own() {
    assert_followed("ALTER TABLE t ADD COLUMN x text DEFAULT md5(random()::text)", "ALTER TABLE t DROP COLUMN x");
}

#[test]
fn a_column_that_is_renamed_takes_its_values_along() {
    assert_followed("ALTER TABLE t RENAME v TO x", "ALTER TABLE t RENAME x TO v");
}

#[test]
fn a_column_that_gets_another_type_has_its_values_as_that() {
    assert_followed(
        "ALTER TABLE t ALTER n TYPE bigint USING n * 10000000000::bigint",
        "ALTER TABLE t ALTER n TYPE int USING n / 10000000000::bigint",
    );
}

#[test]
fn a_column_that_keeps_its_type_and_gets_other_values_has_them() {
    assert_followed(
        "ALTER TABLE t ALTER v TYPE text USING upper(v)",
        "ALTER TABLE t ALTER n TYPE int USING n + 1000, ALTER id TYPE int USING id + 1000",
    );
}

#[test]
fn a_column_that_is_dropped_and_added_again_has_nothing_of_before() {
    assert_followed("ALTER TABLE t DROP COLUMN v; ALTER TABLE t ADD COLUMN v text", "UPDATE t SET v = 'again'");
}

#[test]
fn two_columns_that_swap_their_names_swap_their_values() {
    assert_followed(
        "ALTER TABLE t RENAME v TO x; ALTER TABLE t RENAME w TO v; ALTER TABLE t RENAME x TO w",
        "UPDATE t SET n = 1 WHERE id = 10",
    );
}

#[test]
fn an_enums_label_that_is_renamed_is_so_in_old_rows_too() {
    assert_followed("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'", "ALTER TYPE mood RENAME VALUE 'blue' TO 'sad'");
}

#[test]
fn a_composite_type_that_gets_another_attribute_has_it_in_old_rows_too() {
    assert_followed("ALTER TYPE pair ADD ATTRIBUTE c int", "ALTER TYPE pair DROP ATTRIBUTE c");
}

#[test]
fn a_table_that_is_rewritten_with_a_new_column_is_read_again() {
    assert_followed(
        "ALTER TABLE t ADD COLUMN x int DEFAULT 7; ALTER TABLE t ALTER n TYPE int USING n + 1",
        "ALTER TABLE t DROP x",
    );
}

/// What the stored position says that the table's topic was written under.
fn stored_shape(connector: &Connector) -> serde_json::Value {
    let key = format!("{}/public.t", connector.name());
    let mut shape = serde_json::Value::Null;
    topic::read_raw("_tablecast_positions", |message| {
        if message.key() == Some(key.as_bytes()) {
            shape = serde_json::from_slice(message.payload().unwrap()).unwrap();
        }
    });
    shape
}

#[test]
fn a_change_that_old_rows_agree_with_is_noted_and_reads_nothing_again() {
    let connector = connector(TABLE);
    let daemon = start(&connector);
    let count = topic::read(&connector.topic("t")).len();
    let before = stored_shape(&connector);
    for change in [
        "ALTER TABLE t ADD COLUMN x int; INSERT INTO t (id, x) VALUES (101, 1)",
        "ALTER TABLE t ALTER x SET DEFAULT 5; INSERT INTO t (id) VALUES (102)",
        "ALTER TABLE t DROP COLUMN n; INSERT INTO t (id) VALUES (103)",
        "ALTER TYPE mood ADD VALUE 'fine'",
        "ALTER TABLE t ALTER w TYPE varchar(20); INSERT INTO t (id) VALUES (104)",
    ] {
        connector.database.execute(change);
    }
    connector.database.execute("INSERT INTO t (id, m) VALUES (105, 'fine')");
    wait_until_same(&connector, "t");
    let noted = |what: &str, is_noted: &dyn Fn(&serde_json::Value) -> bool| {
        wait_for(what, || is_noted(&stored_shape(&connector)).then_some(()));
    };
    noted("all of it to be noted", &|shape| {
        let w = shape["columns"].as_array().unwrap().iter().find(|column| column["name"] == "w").unwrap();
        shape["natts"] == 7 && shape["columns"].as_array().unwrap().len() == 6 && w["typmod"] == 24
    });
    connector.database.execute("VACUUM FULL t");
    noted("the rewrite to be noted", &|shape| shape["heaps"] != before["heaps"]);
    assert_eq!(topic::read(&connector.topic("t")).len(), count + 5);
    assert!(!daemon.log().contains("is read again"), "{}", daemon.log());
}

#[test]
fn a_column_that_was_added_and_renamed_before_anybody_looked_is_read() {
    let connector = connector(TABLE);
    let daemon = start(&connector);
    connector.database.execute("ALTER TABLE t ADD COLUMN x int");
    connector.database.execute("INSERT INTO t (id, x) VALUES (101, 5)");
    connector.database.execute("ALTER TABLE t RENAME x TO y");
    wait_until_same(&connector, "t");
    assert!(daemon.terminate().success());
    connector.database.execute("ALTER TABLE t ADD COLUMN z int; INSERT INTO t (id, z) VALUES (102, 5)");
    connector.database.execute("ALTER TABLE t RENAME z TO a; INSERT INTO t (id, a) VALUES (103, 5)");
    let _daemon = connector.start_streaming();
    wait_until_same(&connector, "t");
}

#[test]
fn a_crash_amid_a_second_reading_goes_on_with_it() {
    let connector = Connector::configured(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 20000) g",
        &format!("{SETTINGS}\nsnapshot_chunk_bytes = \"64KiB\"\nsnapshot_readers = 1"),
        ALL,
    );
    let daemon = start(&connector);
    connector.database.execute("ALTER TABLE t ADD COLUMN x int DEFAULT 7");
    daemon.wait_for_log("the table is read again");
    daemon.kill();
    connector.database.execute("UPDATE t SET v = 'y' WHERE id % 100 = 0; DELETE FROM t WHERE id % 100 = 1");
    let _daemon = connector.start_streaming();
    wait_until_same(&connector, "t");
}

#[test]
fn a_table_that_is_never_read_is_not_read_again_but_told() {
    let settings = format!("{SETTINGS}\nsnapshot = \"never\"");
    let connector = Connector::configured(TABLE, &settings, ALL);
    let daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t (id) VALUES (101)");
    connector.records("t", 1);
    connector.database.execute("ALTER TABLE t ADD COLUMN x int DEFAULT 7");
    connector.database.execute("INSERT INTO t (id) VALUES (102)");
    daemon.wait_for_log("it isn't read again by itself");
    assert!(daemon.log().contains("tablecast backfill"), "{}", daemon.log());
    connector.records("t", 2);
}

#[test]
fn a_renamed_table_stops_the_connector_with_both_names_and_goes_on_under_the_new_one() {
    let by_name = "[connectors.NAME.tables.\"public.t\"]\ntopic = \"NAME.public.t\"";
    let connector = Connector::configured(TABLE, SETTINGS, by_name);
    let daemon = start(&connector);
    connector.database.execute("INSERT INTO t (id) VALUES (101)");
    connector.database.execute("ALTER TABLE t RENAME TO u; INSERT INTO u (id) VALUES (102)");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    for words in ["public.t is called public.u now", "tables.'public.u'"] {
        assert!(log.contains(words), "no {words:?} in:\n{log}");
    }
    assert_refused(&connector, &["public.t is called public.u now"]);
    connector.configure(SETTINGS, &by_name.replace("\"public.t\"]", "\"public.u\"]"));
    let _daemon = connector.start_streaming();
    connector.database.execute("DELETE FROM u WHERE id = 1; ALTER TABLE u RENAME TO t");
    connector.configure(SETTINGS, by_name);
    drop(_daemon);
    let _daemon = connector.start_streaming();
    wait_until_same(&connector, "t");
}

#[test]
fn a_renamed_table_that_a_pattern_maps_is_a_new_table_with_a_topic_of_its_own() {
    let connector = connector(TABLE);
    let _daemon = start(&connector);
    let before = topic::read(&connector.topic("t"));
    connector.database.execute("ALTER TABLE t RENAME TO u; INSERT INTO u (id) VALUES (101)");
    wait_until_same(&connector, "u");
    connector.database.execute("UPDATE u SET v = 'x' WHERE id = 101");
    wait_until_same(&connector, "u");
    assert_eq!(topic::read(&connector.topic("t")), before);
}

#[test]
fn a_dropped_table_leaves_its_topic_and_the_others_go_on() {
    let connector = connector(&format!("{TABLE}; CREATE TABLE u (id int PRIMARY KEY)"));
    let daemon = start(&connector);
    let before = topic::read(&connector.topic("t"));
    connector.database.execute("DROP TABLE t; INSERT INTO u VALUES (1)");
    daemon.wait_for_log("the table was dropped; its topic stays as it is");
    connector.records("u", 1);
    assert!(daemon.terminate().success());
    let _daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO u VALUES (2)");
    connector.records("u", 2);
    assert_eq!(topic::read(&connector.topic("t")), before);
    // It comes back.
    connector.database.execute("CREATE TABLE t (id int PRIMARY KEY, other text); INSERT INTO t VALUES (5, 'a')");
    drop(_daemon);
    let _daemon = connector.start_streaming();
    wait_until_same(&connector, "t");
}

#[test]
fn a_table_that_was_dropped_and_created_anew_takes_its_topic_over() {
    let create = "CREATE TABLE t (id int PRIMARY KEY, v text)";
    let connector = connector(&format!("{create}; INSERT INTO t SELECT g, 'old' FROM generate_series(1, 20) g"));
    let daemon = start(&connector);
    connector.database.execute("UPDATE t SET v = 'newer'");
    connector.database.execute(&format!("BEGIN; DROP TABLE t; {create}; INSERT INTO t VALUES (5, 'a'); COMMIT"));
    connector.database.execute("INSERT INTO t VALUES (6, 'b')");
    wait_until_same(&connector, "t");
    connector.database.execute("INSERT INTO t VALUES (7, 'c'); DELETE FROM t WHERE id = 5");
    wait_until_same(&connector, "t");
    assert!(daemon.terminate().success());
    connector.database.execute(&format!("INSERT INTO t VALUES (8, 'd'); DROP TABLE t; {create}"));
    connector.database.execute("INSERT INTO t VALUES (9, 'e')");
    let _daemon = connector.start_streaming();
    wait_until_same(&connector, "t");
}

/// Says how compatible the schemas of a subject have to be, by HTTP alone.
fn require(subject: &str, compatibility: &str) {
    let url = format!("{}/config/{subject}", variable("TABLECAST_REGISTRY"));
    let body = format!("{{\"compatibility\": \"{compatibility}\"}}");
    let put = ["-sf", "-X", "PUT", "-H", "Content-Type: application/vnd.schemaregistry.v1+json", "-d", &body, &url];
    let done = std::process::Command::new("curl").args(put).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn a_schema_that_the_registry_refuses_stops_the_connector_with_what_differs_and_nothing_is_skipped() {
    let connector = connector(TABLE);
    let daemon = start(&connector);
    let subject = format!("{}-value", connector.topic("t"));
    require(&subject, "BACKWARD");
    connector.database.execute("ALTER TABLE t ALTER v TYPE int USING length(v); INSERT INTO t (id, v) VALUES (101, 5)");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    for words in [&subject, "not compatible", "field \"v\" is [\"null\",\"int\"], and was [\"null\",\"string\"]"] {
        assert!(log.contains(words), "no {words:?} in:\n{log}");
    }
    connector.database.execute("INSERT INTO t (id, v) VALUES (102, 6)");
    assert_refused(&connector, &[&subject]);
    require(&subject, "NONE");
    let _daemon = connector.start_streaming();
    wait_until_same(&connector, "t");
}

#[test]
fn without_auto_register_what_is_registered_is_used_and_what_is_missing_is_told() {
    let connector = connector("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')");
    assert!(start(&connector).terminate().success());
    connector.reconfigure("[registry]\n", "[registry]\nauto_register = false\n");
    let daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (2, 'b')");
    wait_until_same(&connector, "t");
    connector.database.execute("ALTER TABLE t ADD COLUMN w int; INSERT INTO t VALUES (3, 'c', 5)");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    let subject = format!("subject \"{}-value\" has not got the schema", connector.topic("t"));
    for words in [subject.as_str(), "field \"w\" is new", "\"name\":\"w\""] {
        assert!(log.contains(words), "no {words:?} in:\n{log}");
    }
    connector.reconfigure("auto_register = false", "auto_register = true");
    let _daemon = connector.start_streaming();
    wait_until_same(&connector, "t");
}
