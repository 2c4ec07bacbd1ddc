//! Services that are away: Kafka for a while, during which Postgres must keep the connection; Postgres, which must be
//! able to shut down; and WAL that is gone for good. They are this test's own, since it ends them.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "../suite/support/mod.rs"]
#[allow(dead_code, reason = "the suite uses the rest")]
mod support;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::message::Message;
use support::connector::{Connector, Daemon, use_variables};
use support::{topic, wait_for};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";
/// Short against how long Kafka is away.
const WAL_SENDER_TIMEOUT: Duration = Duration::from_secs(2);
const AWAY: Duration = Duration::from_secs(12);
/// More than all buffers on the way hold: the intake has to stop reading.
const ROWS_MEANWHILE: usize = 120_000;
/// A shutdown that waits for the walsender's client in vain takes a minute and more.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(10);
/// In a debug build, with what librdkafka holds back for a broker that is away.
const MEMORY_KIB: usize = 96 * 1024;

/// An instance of `dev/services`; it goes down, with its data, when this is dropped.
struct Services(String);

impl Services {
    fn up() -> Self {
        let services = Self(format!("outages-{}", std::process::id()));
        services.call(&["up"]);
        let exports = services.call(&["env"]);
        let variables = exports.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        use_variables(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
        services
    }

    fn call(&self, arguments: &[&str]) -> String {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(root.join("dev/services"));
        let output = command.args(arguments).current_dir(root).env("TABLECAST_SERVICES", &self.0).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.call(&["down"]);
    }
}

#[test]
fn kafka_and_postgres_may_be_away_and_nothing_is_lost_or_repeated() {
    let services = Services::up();
    let mut rows = 0;
    {
        let connector = Connector::of(TABLE);
        let timeout =
            format!("ALTER DATABASE {} SET wal_sender_timeout = {}", connector.name(), WAL_SENDER_TIMEOUT.as_millis());
        connector.database.execute(&timeout);
        let daemon = connector.start_streaming();
        insert(&connector, &mut rows, 10);
        wait_for_records(&connector, rows);

        postgres_keeps_the_connection_while_kafka_is_away(&services, &connector, &daemon, &mut rows);
        wait_for_records(&connector, rows);

        services.call(&["restart", "kafka"]);
        insert(&connector, &mut rows, 10);
        wait_for_records(&connector, rows);
        assert!(daemon.terminate().success());
    }
    postgres_can_shut_down(&services);
    // The last, since it changes a setting of the server.
    a_slot_whose_wal_was_removed_is_refused();
}

fn postgres_keeps_the_connection_while_kafka_is_away(
    services: &Services,
    connector: &Connector,
    daemon: &Daemon,
    rows: &mut usize,
) {
    let walsender = walsender(connector);
    services.call(&["kill", "kafka"]);
    let away_since = Instant::now();
    insert(connector, rows, ROWS_MEANWHILE);
    wait_for("the outage to last", || {
        assert_eq!(self::walsender(connector), walsender, "{}", daemon.log());
        (away_since.elapsed() > AWAY).then_some(())
    });
    assert!(daemon.peak_memory_kib() < MEMORY_KIB, "{} KiB", daemon.peak_memory_kib());
    services.call(&["start", "kafka"]);
}

/// Postgres waits in a fast shutdown until all that it has sent is acknowledged.
fn postgres_can_shut_down(services: &Services) {
    let url = support::connector::variable("TABLECAST_POSTGRES_URL");
    let connector = Connector::of(TABLE);
    let daemon = connector.start_streaming();
    let mut rows = 0;
    insert(&connector, &mut rows, 1000);
    let began = Instant::now();
    services.call(&["stop", "postgres"]);
    let took = began.elapsed();
    services.call(&["start", "postgres"]);
    assert!(took < SHUTDOWN_WITHIN, "the shutdown took {took:?}\n{}", daemon.log());
    assert_eq!(support::connector::variable("TABLECAST_POSTGRES_URL"), url);
    daemon.wait_for_log_times(" streaming ", 2);
    connector.database.reconnect();
    insert(&connector, &mut rows, 10);
    wait_for_records(&connector, rows);
    assert!(daemon.terminate().success());
}

fn a_slot_whose_wal_was_removed_is_refused() {
    let connector = Connector::of(TABLE);
    let daemon = connector.start_streaming();
    insert(&connector, &mut 0, 10);
    wait_for_records(&connector, 10);
    assert!(daemon.terminate().success());

    let database = &connector.database;
    database.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
    database.execute("SELECT pg_reload_conf()");
    let slot = connector.slot();
    wait_for("the slot to be lost", || {
        // A segment of 16 MiB each time.
        database.execute("SELECT pg_logical_emit_message(false, 'test', 'so that there is WAL')");
        database.execute("SELECT pg_switch_wal()");
        database.execute("CHECKPOINT");
        let status = database.query(&format!("SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{slot}'"));
        (status.as_deref() == Some("lost")).then_some(())
    });

    let (status, log) = connector.start().wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("was invalidated") && log.contains(&slot), "{log}");
}

fn walsender(connector: &Connector) -> Option<String> {
    let slot = connector.slot();
    connector.database.query(&format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}'"))
}

fn insert(connector: &Connector, rows: &mut usize, count: usize) {
    let (first, last) = (*rows + 1, *rows + count);
    connector
        .database
        .execute(&format!("INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series({first}, {last}) g"));
    *rows = last;
}

/// Waits for as many records as there are rows, each key once.
fn wait_for_records(connector: &Connector, rows: usize) {
    let name = connector.topic("t");
    wait_for(&format!("{rows} records"), || {
        let mut keys = std::collections::HashSet::new();
        let mut count = 0;
        topic::read_raw(&name, |message| {
            keys.insert(message.key().unwrap().to_vec());
            count += 1;
        });
        assert_eq!(count, keys.len(), "some came twice");
        (count == rows).then_some(())
    });
}
