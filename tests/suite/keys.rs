//! The key of a table is changed: old keys get tombstones, new ones rows.

use crate::continuity::assert_refused;
use crate::schema_changes::{ALL, SETTINGS, connector, start};
use crate::support::connector::Connector;
use crate::support::topic;
use crate::support::view::wait_until_same;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL UNIQUE, v text);
     INSERT INTO t SELECT g, 1000 + g, 'v' FROM generate_series(1, 50) g";
const TO_K: &str = "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (k)";
const TO_BOTH: &str = "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (k, id)";
const TO_ID: &str = "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id)";

/// Rows that come, change, get another key and go.
fn touch(from: i32) -> String {
    format!(
        "INSERT INTO t SELECT g, 2000 + g, 'new' FROM generate_series({from}, {from} + 4) g;
         UPDATE t SET v = 'changed' WHERE id = {from}; UPDATE t SET id = id + 500, k = k + 5000 WHERE id = {from} + 1;
         DELETE FROM t WHERE id = {from} + 2"
    )
}

#[test]
fn the_old_keys_of_a_changed_primary_key_die_and_the_new_ones_have_the_rows() {
    let connector = connector(TABLE);
    let daemon = start(&connector);
    connector.database.execute(&touch(100));
    connector.database.execute(TO_K);
    connector.database.execute(&touch(110));
    daemon.wait_for_log("the topic is swept");
    wait_until_same(&connector, "t");
    let live: Vec<_> = topic::fold(&topic::read(&connector.topic("t"))).into_keys().collect();
    assert!(live.iter().all(|key| key.parse::<i32>().unwrap() > 1000), "{live:?}");

    connector.database.execute(&format!("BEGIN; {}; {TO_BOTH}; {}; COMMIT", touch(120), touch(130)));
    wait_until_same(&connector, "t");
    assert!(daemon.terminate().success());

    connector.database.execute(&touch(140));
    connector.database.execute(TO_ID);
    connector.database.execute(&touch(150));
    let _daemon = connector.start_streaming();
    wait_until_same(&connector, "t");
}

#[test]
fn a_key_whose_columns_change_their_order_name_or_type_is_another_key() {
    let connector = connector(TABLE);
    let _daemon = start(&connector);
    for change in [
        TO_BOTH,
        "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, k)",
        "ALTER TABLE t RENAME k TO number",
        "ALTER TABLE t ALTER id TYPE bigint",
    ] {
        connector.database.execute(change);
        connector.database.execute("UPDATE t SET v = v || 'x' WHERE id < 10");
        wait_until_same(&connector, "t");
    }
}

#[test]
fn a_replica_identity_index_that_is_changed_changes_the_key() {
    let connector = connector(&format!(
        "{TABLE}; CREATE UNIQUE INDEX by_k ON t (k); ALTER TABLE t REPLICA IDENTITY USING INDEX by_k"
    ));
    let daemon = start(&connector);
    connector.database.execute(&touch(100));
    connector.database.execute("ALTER TABLE t REPLICA IDENTITY DEFAULT");
    connector.database.execute(&touch(110));
    wait_until_same(&connector, "t");
    connector.database.execute("ALTER TABLE t REPLICA IDENTITY FULL");
    connector.database.execute(&touch(120));
    wait_until_same(&connector, "t");
    assert!(daemon.terminate().success());
    connector.configure(SETTINGS, &format!("{ALL}\nkey = [\"v\", \"k\"]"));
    let _daemon = connector.start_streaming();
    connector.database.execute(&touch(130));
    wait_until_same(&connector, "t");
}

#[test]
fn rows_that_come_while_there_is_no_primary_key_are_not_lost() {
    let connector = connector(TABLE);
    assert!(start(&connector).terminate().success());
    connector.database.execute("ALTER TABLE t DROP CONSTRAINT t_pkey");
    connector.database.execute("INSERT INTO t SELECT g, 2000 + g, 'new' FROM generate_series(100, 110) g");
    connector.database.execute("ALTER TABLE t ADD PRIMARY KEY (k)");
    connector.database.execute(&touch(120));
    let _daemon = connector.start_streaming();
    wait_until_same(&connector, "t");
}

#[test]
fn a_crash_before_the_old_keys_are_gone_has_them_go_all_the_same() {
    const ROWS: usize = 40_000;
    let connector = Connector::configured(
        &format!(
            "CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, v text);
             INSERT INTO t SELECT g, 100000 + g, 'v' FROM generate_series(1, {ROWS}) g"
        ),
        SETTINGS,
        ALL,
    );
    let daemon = start(&connector);
    connector.database.execute(TO_K);
    daemon.wait_for_log("the table is read; what is older goes");
    daemon.kill();
    connector.database.execute("UPDATE t SET v = 'w' WHERE id % 10 = 0");
    let daemon = connector.start_streaming();
    wait_until_same(&connector, "t");
    assert!(daemon.terminate().success());
}

#[test]
fn a_key_whose_type_or_field_gets_another_name_is_another_key() {
    let connector = connector(
        "CREATE TYPE code AS ENUM ('a', 'b', 'c'); CREATE TABLE t (k code PRIMARY KEY, v text);
         INSERT INTO t VALUES ('a', 'v'), ('b', 'v'); CREATE TABLE u (\"k-1\" int PRIMARY KEY); INSERT INTO u VALUES (1)",
    );
    let daemon = start(&connector);
    connector.database.execute("ALTER TYPE code RENAME TO signs");
    connector.database.execute("DELETE FROM t WHERE k = 'a'; INSERT INTO t VALUES ('c', 'v')");
    daemon.wait_for_log("the topic is swept");
    wait_until_same(&connector, "t");
    // Another column of the table takes the name that the key's had in Avro.
    connector.database.execute("ALTER TABLE u ADD COLUMN k_1 text");
    daemon.wait_for_log_times("the topic is swept", 2);
}

#[test]
fn a_key_that_is_generated_is_known_to_whoever_watches() {
    let settings = format!("{SETTINGS}\npublication = \"p\"");
    let sql = "CREATE TABLE t (id int, k int GENERATED ALWAYS AS (id + 1) STORED PRIMARY KEY, v text);
               INSERT INTO t (id, v) SELECT g, 'v' FROM generate_series(1, 5) g";
    let connector = Connector::configured(sql, &settings, ALL);
    if connector.database.query("SELECT current_setting('server_version_num')::int >= 180000").as_deref() != Some("t") {
        return;
    }
    connector.database.execute(
        "CREATE PUBLICATION p FOR TABLE t WITH (publish_generated_columns = stored, publish_via_partition_root = true)",
    );
    let daemon = start(&connector);
    connector.database.execute("ALTER TABLE t ADD COLUMN x int DEFAULT 7");
    daemon.wait_for_log("the table is read again");
    wait_until_same(&connector, "t");
    assert!(!daemon.log().contains("can't be captured any more"), "{}", daemon.log());
}

#[test]
fn a_key_that_goes_and_comes_back_later_stops_nothing() {
    let connector = connector(TABLE);
    let daemon = start(&connector);
    connector.database.execute("ALTER TABLE t DROP CONSTRAINT t_pkey");
    daemon.wait_for_log("the table can't be compared with the catalog");
    connector.database.execute("ALTER TABLE t ADD PRIMARY KEY (k)");
    connector.database.execute(&touch(120));
    wait_until_same(&connector, "t");
}

#[test]
fn a_changed_key_stops_a_connector_that_reads_no_tables() {
    let connector = Connector::configured(TABLE, &format!("{SETTINGS}\nsnapshot = \"never\""), ALL);
    let daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (100, 1100, 'v')");
    connector.records("t", 1);
    connector.database.execute(TO_K);
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("has the key (k), but its topic was written with (id)"), "{log}");
    assert_refused(&connector, &["snapshot = \"initial\""]);
    connector.configure(SETTINGS, ALL);
    let _daemon = connector.start_streaming();
    wait_until_same(&connector, "t");
}
