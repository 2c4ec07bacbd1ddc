//! Partitions come, go and are emptied by themselves, of which the stream tells nothing: the topic follows.

use crate::schema_changes::{connector, start};
use crate::support::connector::Connector;
use crate::support::topic;
use crate::support::view::wait_until_same;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
     CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (100);
     CREATE TABLE high PARTITION OF t FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id);
     CREATE TABLE high_a PARTITION OF high FOR VALUES FROM (100) TO (150);
     CREATE TABLE high_b PARTITION OF high FOR VALUES FROM (150) TO (200);
     INSERT INTO t SELECT g, 'v' FROM generate_series(0, 199) g";
const MAPPED: &str = "[connectors.NAME.tables.\"public.t\"]";

fn partitioned() -> Connector {
    Connector::configured(TABLE, crate::schema_changes::SETTINGS, MAPPED)
}

/// Does each change while the daemon runs, with a row of a source transaction before and after it, and waits until the
/// topic is the table; then all of them, one after the other, on another table while the daemon is away.
fn assert_followed(changes: &[&str]) {
    let connector = partitioned();
    let daemon = start(&connector);
    for (number, change) in changes.iter().enumerate() {
        connector.database.execute(&format!("UPDATE t SET v = v || '{number}' WHERE id % 20 = 0"));
        connector.database.execute(change);
        connector.database.execute(&format!("UPDATE t SET v = v || '-' WHERE id % 20 = {number}"));
        wait_until_same(&connector, "t");
    }
    assert!(daemon.terminate().success());

    let connector = partitioned();
    let daemon = start(&connector);
    assert!(daemon.terminate().success());
    for change in changes {
        connector.database.execute("UPDATE t SET v = v || 'x' WHERE id % 20 = 0");
        connector.database.execute(change);
    }
    connector.database.execute("UPDATE t SET v = v || 'y' WHERE id % 20 = 1");
    let _daemon = connector.start_streaming();
    wait_until_same(&connector, "t");
}

#[test]
fn a_partition_that_is_detached_and_attached_again_takes_its_rows_along() {
    assert_followed(&[
        "ALTER TABLE t DETACH PARTITION low",
        "DELETE FROM low WHERE id < 10; UPDATE low SET v = 'other'; INSERT INTO low VALUES (5, 'five')",
        "ALTER TABLE t ATTACH PARTITION low FOR VALUES FROM (0) TO (100)",
        "ALTER TABLE high DETACH PARTITION high_b",
    ]);
}

#[test]
fn a_partition_that_was_changed_while_it_was_detached_is_seen_be_it_attached_again() {
    assert_followed(&[
        "ALTER TABLE t DETACH PARTITION low; DELETE FROM low WHERE id < 10; UPDATE low SET v = 'other';
         ALTER TABLE t ATTACH PARTITION low FOR VALUES FROM (0) TO (100)",
        "ALTER TABLE t DETACH PARTITION high; DELETE FROM high_a WHERE id < 110;
         ALTER TABLE t ATTACH PARTITION high FOR VALUES FROM (100) TO (200)",
    ]);
}

#[test]
fn a_column_that_is_added_with_a_default_has_it_in_the_rows_of_partitions_too() {
    assert_followed(&["ALTER TABLE t ADD COLUMN x int DEFAULT 7"]);
}

#[test]
fn a_partition_that_is_dropped_takes_its_rows_with_it() {
    assert_followed(&["DROP TABLE low", "DROP TABLE high_a"]);
}

#[test]
fn a_partition_that_is_truncated_by_itself_is_empty_and_what_is_inserted_later_lives() {
    assert_followed(&[
        "TRUNCATE low",
        "BEGIN; INSERT INTO t VALUES (3, 'gone'); TRUNCATE low; INSERT INTO t VALUES (4, 'lives'); COMMIT",
        "TRUNCATE high CASCADE",
    ]);
}

#[test]
fn a_table_that_is_attached_brings_its_rows() {
    assert_followed(&[
        "CREATE TABLE next (id int PRIMARY KEY, v text); INSERT INTO next SELECT g, 'n' FROM generate_series(200, 250) g",
        "ALTER TABLE t ATTACH PARTITION next FOR VALUES FROM (200) TO (300)",
    ]);
}

#[test]
fn a_new_partition_has_only_itself_read() {
    let connector = partitioned();
    let daemon = start(&connector);
    let count = topic::read(&connector.topic("t")).len();
    connector.database.execute("CREATE TABLE next PARTITION OF t FOR VALUES FROM (200) TO (300)");
    daemon.wait_for_log("the table is read again");
    connector.database.execute("INSERT INTO t SELECT g, 'n' FROM generate_series(200, 204) g");
    wait_until_same(&connector, "t");
    daemon.wait_for_log_times("snapshot done", 2);
    let after = topic::read(&connector.topic("t")).len();
    assert!(after <= count + 10, "{count} records before, {after} after");
}

#[test]
fn a_row_that_an_update_moves_to_another_partition_stays_one_row() {
    let connector = partitioned();
    let _daemon = start(&connector);
    connector.database.execute("DELETE FROM t WHERE id IN (101, 102)");
    connector.database.execute("UPDATE t SET id = id + 100 WHERE id IN (1, 2)");
    wait_until_same(&connector, "t");
}

#[test]
fn a_truncate_of_many_kinds_of_tables_at_once_empties_all_of_them() {
    let connector = connector(
        "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (100);
         CREATE TABLE a (id serial PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a)",
    );
    let _daemon = start(&connector);
    connector.database.execute(
        "INSERT INTO t SELECT g, 'v' FROM generate_series(0, 50) g; INSERT INTO a (v) SELECT 'v' FROM generate_series(1, 5);
         INSERT INTO b VALUES (1, 1), (2, 2)",
    );
    for table in ["t", "a", "b"] {
        wait_until_same(&connector, table);
    }
    connector.database.execute(
        "BEGIN; INSERT INTO a (v) VALUES ('gone'); TRUNCATE t, a RESTART IDENTITY CASCADE;
         INSERT INTO a (v) VALUES ('first'); INSERT INTO b VALUES (7, 1); INSERT INTO t VALUES (1, 'one'); COMMIT",
    );
    for table in ["t", "a", "b"] {
        wait_until_same(&connector, table);
    }
}
