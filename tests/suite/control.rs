//! The control connection: its session, its errors, its end.

use std::time::{Duration, Instant};

use tablecast::postgres::control::Control;
use tablecast::postgres::tls::TlsMode;
use tokio_postgres::config::SslMode;

use crate::support::postgres::Database;

fn connect(database: &Database) -> Control {
    database.block_on(Control::connect(&database.config())).unwrap()
}

fn text(database: &Database, control: &Control, sql: &str) -> String {
    database.block_on(control.query_one("testing", &format!("SELECT ({sql})::text"), &[])).unwrap().get(0)
}

#[test]
fn values_read_the_same_whatever_the_role_is_set_to() {
    let database = Database::create();
    let name = &database.name;
    database.execute(&format!(
        "ALTER DATABASE {name} SET datestyle = 'German'; ALTER DATABASE {name} SET timezone = 'Asia/Tokyo';
         ALTER DATABASE {name} SET intervalstyle = 'sql_standard'; ALTER DATABASE {name} SET extra_float_digits = 0;
         ALTER DATABASE {name} SET bytea_output = 'escape'; CREATE TABLE t ();"
    ));
    let control = connect(&database);
    let read = |sql| text(&database, &control, sql);
    assert_eq!(read("timestamptz '2024-05-01 12:00:00+02'"), "2024-05-01 10:00:00+00");
    assert_eq!(read("interval '1 day 2 hours'"), "P1DT2H");
    assert_eq!(read("0.1::float8 + 0.2"), "0.30000000000000004");
    assert_eq!(read(r"bytea '\x00ff'"), r"\x00ff");
    assert_eq!(read("1234.5::money"), "$1,234.50");
    assert_eq!(read("'public.t'::regclass"), "public.t");
}

#[test]
fn the_session_has_a_name_and_limits() {
    let database = Database::create();
    let control = connect(&database);
    assert_eq!(text(&database, &control, "current_setting('application_name')"), "tablecast");
    assert_eq!(text(&database, &control, "current_setting('statement_timeout')"), "1min");
    let mut config = database.config();
    config.application_name("mine");
    let control = database.block_on(Control::connect(&config)).unwrap();
    assert_eq!(text(&database, &control, "current_setting('application_name')"), "mine");
}

#[test]
fn a_dropped_connection_leaves_no_session() {
    let database = Database::create();
    drop(connect(&database));
    let deadline = Instant::now() + Duration::from_secs(10);
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tablecast' \
                    AND datname = current_database()";
    while database.query(sessions).as_deref() != Some("0") {
        assert!(Instant::now() < deadline, "the session is still there");
        std::thread::yield_now();
    }
}

#[test]
fn what_may_pass_by_itself_is_transient() {
    let database = Database::create();
    let control = connect(&database);
    let kill = "SELECT pg_terminate_backend(pg_backend_pid())";
    assert!(database.block_on(control.query("testing", kill, &[])).unwrap_err().is_transient());
    let after = database.block_on(control.query("testing", "SELECT 1", &[])).unwrap_err();
    assert!(after.is_transient(), "{after}");

    let mut nobody = tokio_postgres::Config::new();
    nobody.host("127.0.0.1").port(1).user("postgres");
    let refused = database.block_on(Control::connect(&nobody)).unwrap_err();
    assert!(refused.is_transient(), "{refused}");

    let control = connect(&database);
    let slow = "SET statement_timeout = '10ms'; SELECT pg_sleep(60)";
    let slow = database.block_on(control.execute("testing", slow)).unwrap_err();
    assert_eq!((slow.sqlstate(), slow.is_transient()), (Some("57014"), true));
}

#[test]
fn what_somebody_has_to_put_right_is_definite_and_says_what() {
    let database = Database::create();
    let mut config = database.config();
    config.dbname("no_such_database");
    let error = database.block_on(Control::connect(&config)).unwrap_err();
    assert_eq!((error.sqlstate(), error.is_transient()), (Some("3D000"), false));
    let expected = "connecting to Postgres: database \"no_such_database\" does not exist (SQLSTATE 3D000)";
    assert_eq!(error.to_string(), expected);

    let mut config = database.config();
    config.user("no_such_role");
    let error = database.block_on(Control::connect(&config)).unwrap_err();
    assert_eq!((error.sqlstate(), error.is_transient()), (Some("28000"), false));

    let control = connect(&database);
    let error = database.block_on(control.query("testing", "SELECT FROM nowhere", &[])).unwrap_err();
    assert_eq!((error.sqlstate(), error.is_transient()), (Some("42P01"), false));
}

#[test]
fn require_encrypts_with_any_certificate_and_verify_full_wants_a_trusted_one() {
    let Ok(authority) = std::env::var("TABLECAST_POSTGRES_TLS_CA") else {
        panic!("TABLECAST_POSTGRES_TLS_CA is not set: run `make test`, or `eval \"$(dev/services env)\"` first");
    };
    let database = Database::create();
    let encrypted = "(SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid())";
    let mut config = database.config();
    config.ssl_mode(SslMode::Require);
    let control = database.block_on(Control::connect(&config)).unwrap();
    assert_eq!(text(&database, &control, encrypted), "true");
    config.ssl_mode(SslMode::Disable);
    let control = database.block_on(Control::connect(&config)).unwrap();
    assert_eq!(text(&database, &control, encrypted), "false");

    let trusted = TlsMode::VerifyFull { root_cert: Some(authority.into()) };
    let control = database.block_on(Control::connect_with_tls(&config, &trusted)).unwrap();
    assert_eq!(text(&database, &control, encrypted), "true");

    let mut misnamed = tokio_postgres::Config::new();
    misnamed.host("elsewhere.example").hostaddr([127, 0, 0, 1].into());
    misnamed.port(config.get_ports()[0]).user("postgres").dbname(&database.name);
    let error = database.block_on(Control::connect_with_tls(&misnamed, &trusted)).unwrap_err();
    assert!(!error.is_transient(), "{error}");

    let stranger = database.block_on(Control::connect_with_tls(&config, &TlsMode::VerifyFull { root_cert: None }));
    let error = stranger.unwrap_err();
    assert!(!error.is_transient(), "{error}");
}
