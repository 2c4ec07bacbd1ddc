//! P4: where continuity can't be proved the connector refuses to start, each refusal told apart; and where it can, it
//! goes on where it stopped.

use crate::support::connector::Connector;
use crate::support::topic::{self, short};
use crate::support::wait_for;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";

/// A connector that has streamed one row, and was ended.
pub fn stopped() -> Connector {
    let connector = Connector::of(TABLE);
    let daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (1, 'a')");
    connector.records("t", 1);
    assert!(daemon.terminate().success());
    connector
}

/// Starts the connector and checks that it refuses with these words and ends with 1.
pub fn assert_refused(connector: &Connector, words: &[&str]) {
    let (status, log) = connector.start().wait();
    assert_eq!(status.code(), Some(1), "{log}");
    for word in words {
        assert!(log.contains(word), "no {word:?} in:\n{log}");
    }
}

#[test]
fn a_clean_restart_goes_on_where_it_stopped() {
    let connector = stopped();
    connector.database.execute("INSERT INTO t VALUES (2, 'b'); UPDATE t SET v = 'c' WHERE id = 1");
    let _daemon = connector.start_streaming();
    connector.database.execute("DELETE FROM t WHERE id = 2");
    assert_eq!(short(&connector.records("t", 4)), ["1: 1 a", "2: 2 b", "1: 1 c", "2: -"]);
}

#[test]
fn a_kill_loses_nothing_and_repeats_nothing() {
    let connector = Connector::of(TABLE);
    let daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t SELECT g, 'a' FROM generate_series(1, 5000) g");
    daemon.kill();
    connector.database.execute("UPDATE t SET v = 'b' WHERE id <= 10");
    let daemon = connector.start_streaming();
    connector.records("t", 5010);
    connector.wait_until_caught_up();
    daemon.kill();
    let _daemon = connector.start_streaming();
    connector.wait_until_caught_up();
    connector.records("t", 5010);
}

#[test]
fn a_missing_slot_is_refused() {
    let connector = stopped();
    connector.database.execute(&format!("SELECT pg_drop_replication_slot('{}')", connector.slot()));
    assert_refused(&connector, &["is gone, but a position", "tablecast teardown"]);
}

#[test]
fn what_an_older_slot_has_from_before_the_first_start_comes_only_as_the_tables_rows() {
    let connector = Connector::of(TABLE);
    let slot = connector.slot();
    let publication = format!("CREATE PUBLICATION {slot} FOR TABLE t WITH (publish_via_partition_root = true)");
    connector.database.execute(&publication);
    connector.database.execute(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    // As if a run had died before it stored anything, and somebody had changed the table where nobody tells of it.
    connector.database.execute("INSERT INTO t SELECT g, 'gone' FROM generate_series(1, 10) g");
    connector
        .database
        .execute(&format!("ALTER PUBLICATION {slot} DROP TABLE t; TRUNCATE t; INSERT INTO t VALUES (1, 'a')"));
    let _daemon = connector.start_streaming();
    connector.records("t", 1);
    connector.database.execute("INSERT INTO t VALUES (2, 'b')");
    assert_eq!(short(&connector.records("t", 2)), ["1: 1 a", "2: 2 b"]);
}

#[test]
fn a_slot_that_was_created_anew_is_refused() {
    let connector = stopped();
    let slot = connector.slot();
    connector.database.execute(&format!("SELECT pg_drop_replication_slot('{slot}')"));
    connector.database.execute("INSERT INTO t VALUES (2, 'lost')");
    connector.database.execute(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    assert_refused(&connector, &["past the stored position", "tablecast teardown"]);
}

#[test]
fn a_slot_that_was_moved_by_another_reader_is_refused() {
    let connector = stopped();
    connector.database.execute("INSERT INTO t VALUES (2, 'lost')");
    let slot = connector.slot();
    connector.database.execute(&format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())"));
    assert_refused(&connector, &["past the stored position"]);
}

#[test]
fn another_slot_than_the_stored_positions_is_refused() {
    let connector = stopped();
    connector.configure("slot = \"NAME_other\"", "[connectors.NAME.tables.\"public.*\"]");
    connector
        .database
        .execute(&format!("SELECT pg_create_logical_replication_slot('{}_other', 'pgoutput')", connector.name()));
    assert_refused(&connector, &["the stored position is of slot", "set slot ="]);
}

#[test]
fn another_database_than_the_stored_positions_is_refused() {
    let connector = stopped();
    let other = crate::support::postgres::Database::create();
    other.execute(TABLE);
    let slot = format!("{}_other", connector.name());
    connector.configure(
        &format!("database_url = \"{}\"\nslot = \"{slot}\"", other.url()),
        "[connectors.NAME.tables.\"public.*\"]",
    );
    other.execute(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    assert_refused(&connector, &["the stored position is of database"]);
}

#[test]
fn without_a_stored_position_the_topics_must_be_empty() {
    let connector = stopped();
    // Under another name the connector has no position, but the same topics.
    let topic = connector.topic("t");
    connector.configure(
        "slot = \"NAME_again\"\npublication = \"NAME_again\"",
        &format!("[connectors.NAME.tables.\"public.t\"]\ntopic = \"{topic}\""),
    );
    connector
        .reconfigure(&format!("connectors.{}]", connector.name()), &format!("connectors.{}-again]", connector.name()));
    connector
        .reconfigure(&format!("connectors.{}.", connector.name()), &format!("connectors.{}-again.", connector.name()));
    assert_refused(&connector, &["holds records already", "has no stored position"]);
}

#[test]
fn a_second_daemon_stands_by_and_takes_over_when_the_first_is_gone() {
    let connector = Connector::of(TABLE);
    let first = connector.start_streaming();
    let second = connector.start();
    second.wait_for_log("standing by");
    connector.database.execute("INSERT INTO t VALUES (1, 'a')");
    connector.records("t", 1);
    first.kill();
    second.wait_for_log(" streaming ");
    connector.database.execute("INSERT INTO t VALUES (2, 'b')");
    assert_eq!(short(&connector.records("t", 2)), ["1: 1 a", "2: 2 b"]);
}

#[test]
fn a_source_transaction_that_outlives_the_kafka_transaction_is_split_and_comes_whole_all_the_same() {
    let connector = Connector::of(TABLE);
    connector.reconfigure("[registry]", "properties = { \"transaction.timeout.ms\" = \"1000\" }\n[registry]");
    let daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 300000) g");
    daemon.wait_for_log("is split");
    daemon.kill();
    let _daemon = connector.start_streaming();
    let topic = connector.topic("t");
    wait_for("all records", || {
        let mut count = 0;
        topic::read_raw(&topic, |_| count += 1);
        assert!(count <= 300_000, "{count} records: some came twice");
        (count == 300_000).then_some(())
    });
}
