//! What fails and passes by itself is got over; what doesn't stops the connector with its remedy; and no failure of one
//! connector stops another.

use std::fs;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

use crate::support::connector::{Connector, variable};
use crate::support::topic::short;
use crate::support::wait_for;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";
const ALL: &str = "[connectors.NAME.tables.\"public.*\"]";

#[test]
fn a_terminated_walsender_is_got_over() {
    let connector = Connector::of(TABLE);
    let daemon = connector.start_streaming();
    for id in 1..=3 {
        connector.database.execute(&format!("INSERT INTO t VALUES ({id}, 'a')"));
        let slot = connector.slot();
        connector.database.execute(&format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{slot}'"
        ));
        daemon.wait_for_log_times(" streaming ", id + 1);
    }
    assert_eq!(short(&connector.records("t", 3)), ["1: 1 a", "2: 2 a", "3: 3 a"]);
}

#[test]
fn a_wrong_password_stops_the_connector_and_is_not_shown() {
    let connector = Connector::of(TABLE);
    let role = format!("login_{}", connector.name());
    connector.database.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'right' IN ROLE scram_login"));
    let url = connector.database.url().replace("postgres@", &format!("{role}:wr0ngsecret@"));
    connector.configure(&format!("database_url = \"{url}\""), ALL);
    let (status, log) = connector.start().wait();
    connector.database.execute(&format!("DROP ROLE {role}"));
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("password authentication failed") && log.contains("pg_hba.conf"), "{log}");
    assert!(!log.contains("wr0ngsecret"), "{log}");
}

#[test]
fn a_missing_table_stops_the_connector_with_its_name() {
    let connector = Connector::configured(TABLE, "", "[connectors.NAME.tables.\"public.nope\"]");
    let (status, log) = connector.start().wait();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("table public.nope doesn't exist"), "{log}");
}

#[test]
fn a_table_that_the_publication_lacks_and_that_may_not_be_added_stops_the_connector_with_the_sql() {
    let connector = Connector::configured(
        &format!("{TABLE}; CREATE TABLE other (id int PRIMARY KEY)"),
        "",
        "[connectors.NAME.tables.t]\n[connectors.NAME.tables.other]",
    );
    let login = format!("other_{}", connector.name());
    connector.database.execute(&format!(
        "CREATE PUBLICATION tablecast_{} FOR TABLE t; CREATE ROLE {login} LOGIN REPLICATION; GRANT SELECT ON t, other TO {login}",
        connector.name()
    ));
    let url = connector.database.url();
    let (_, address) = url.rsplit_once('@').unwrap();
    connector.reconfigure(&url, &format!("postgres://{login}@{address}"));
    let (status, log) = connector.start().wait();
    connector.database.execute(&format!("DROP OWNED BY {login}; DROP ROLE {login}"));
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("ADD TABLE public.other;"), "{log}");
}

#[test]
fn a_publication_that_leaves_out_deletes_stops_the_connector() {
    let connector = Connector::of(TABLE);
    connector.database.execute(&format!(
        "CREATE PUBLICATION tablecast_{} FOR TABLE t WITH (publish = 'insert, update')",
        connector.name()
    ));
    let (status, log) = connector.start().wait();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("leaves out deletes, truncates"), "{log}");
}

#[test]
fn a_publication_that_is_dropped_while_rows_flow_stops_the_connector() {
    let connector = Connector::of(TABLE);
    let daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (1, 'a')");
    connector.records("t", 1);
    connector.database.execute(&format!("DROP PUBLICATION tablecast_{}", connector.name()));
    connector.database.execute("INSERT INTO t VALUES (2, 'b')");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&format!("tablecast_{}", connector.name())) && log.contains("start over"), "{log}");
}

#[test]
fn a_table_without_a_key_stops_the_connector_with_the_sql() {
    let connector = Connector::of("CREATE TABLE t (a int)");
    let (status, log) = connector.start().wait();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("ALTER TABLE public.t ADD PRIMARY KEY"), "{log}");
}

#[test]
fn a_topic_that_is_not_compacted_stops_the_connector_with_the_command() {
    let connector = Connector::of(TABLE);
    let topic = connector.topic("t");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", variable("TABLECAST_KAFKA")).create().unwrap();
    let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "delete");
    let created = connector.database.block_on(admin.create_topics([&new], &AdminOptions::new())).unwrap();
    assert!(created.iter().all(Result::is_ok));
    let (status, log) = connector.start().wait();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("cleanup.policy=compact"), "{log}");
}

#[test]
fn a_topic_that_cannot_be_created_stops_the_connector_with_the_settings_to_look_at() {
    let connector = Connector::of(TABLE);
    connector.reconfigure("[registry]", "[topics]\nreplication_factor = 3\n[registry]");
    let (status, log) = connector.start().wait();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("could not be created") && log.contains("replication_factor"), "{log}");
}

#[test]
fn a_registry_that_is_away_is_waited_for_and_postgres_keeps_the_connection() {
    let connector = Connector::of(TABLE);
    let name = connector.name();
    connector.database.execute(&format!("ALTER DATABASE {name} SET wal_sender_timeout = '1500ms'"));
    // A port that nothing listens on: bound, and free again.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    connector.reconfigure(&variable("TABLECAST_REGISTRY"), &format!("http://127.0.0.1:{port}/apis/ccompat/v7"));
    let daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (1, 'a')");
    daemon.wait_for_log_times("can't be registered yet", 4);
    let slot = connector.slot();
    wait_for("a connection older than three times its timeout", || {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid
             WHERE slot_name = '{slot}' AND now() - backend_start > interval '4.5 s'"
        );
        (connector.database.query(&sql).as_deref() == Some("1")).then_some(())
    });
    assert!(!daemon.log().contains("starts anew"), "{}", daemon.log());
    assert!(daemon.terminate().success());
    connector.reconfigure(&format!("http://127.0.0.1:{port}/apis/ccompat/v7"), &variable("TABLECAST_REGISTRY"));
    let _daemon = connector.start_streaming();
    assert_eq!(short(&connector.records("t", 1)), ["1: 1 a"]);
}

#[test]
fn a_connector_that_fails_does_not_stop_another_and_the_exit_status_tells() {
    let good = Connector::of(TABLE);
    let bad = Connector::configured(TABLE, "", "[connectors.NAME.tables.\"public.nope\"]");
    let text = fs::read_to_string(bad.config()).unwrap();
    let section = &text[text.find(&format!("[connectors.{}]", bad.name())).unwrap()..];
    let together = fs::read_to_string(good.config()).unwrap() + section;
    fs::write(good.config(), together).unwrap();
    let daemon = good.start();
    daemon.wait_for_log("connector failed");
    daemon.wait_for_log(" streaming ");
    good.database.execute("INSERT INTO t VALUES (1, 'a')");
    good.records("t", 1);
    assert_eq!(daemon.terminate().code(), Some(1));
}

#[test]
fn sigterm_commits_what_is_whole_within_seconds() {
    let connector = Connector::of(TABLE);
    let daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t SELECT g, 'a' FROM generate_series(1, 20000) g");
    let began = std::time::Instant::now();
    assert!(daemon.terminate().success());
    assert!(began.elapsed() < Duration::from_secs(10));
    let _daemon = connector.start_streaming();
    connector.records("t", 20_000);
}

#[test]
fn idle_tables_pin_no_wal_while_others_are_written_to() {
    let connector = Connector::configured(
        &format!("{TABLE}; CREATE TABLE busy (id int PRIMARY KEY, v text)"),
        "position_interval = \"1s\"",
        "[connectors.NAME.tables.\"public.t\"]",
    );
    let _daemon = connector.start_streaming();
    let slot = connector.slot();
    connector.database.execute("INSERT INTO busy SELECT g, repeat('x', 500) FROM generate_series(1, 60000) g");
    connector.wait_until_caught_up();
    let sql = format!(
        "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) < 16 * 1024 * 1024
         FROM pg_replication_slots WHERE slot_name = '{slot}'"
    );
    for _ in 0..3 {
        connector.database.execute("UPDATE busy SET v = v || 'y'");
        wait_for("the retained WAL to shrink", || {
            (connector.database.query(&sql).as_deref() == Some("t")).then_some(())
        });
    }
}
