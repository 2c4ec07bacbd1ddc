//! The replication connection against a real server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tablecast::lsn::Lsn;
use tablecast::postgres::replication::{Endpoint, Fill, Frame, ReplicationError, ReplicationStream, Session};
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslMode};

use crate::support::postgres::Database;

const DEADLINE: Duration = Duration::from_secs(30);

fn connect(config: &Config) -> Result<Session, ReplicationError> {
    Session::connect(&Endpoint::new(config, None)?)
}

/// A database with a published table `t (id, v)`, and a slot that begins before any of its rows.
fn published() -> (Database, String) {
    let database = Database::create();
    database.execute("CREATE TABLE t (id bigint PRIMARY KEY, v text); CREATE PUBLICATION p FOR TABLE t");
    let slot = format!("slot_{}", database.name);
    connect(&database.config()).unwrap().create_slot(&slot).unwrap();
    (database, slot)
}

fn start(database: &Database, slot: &str) -> ReplicationStream {
    connect(&database.config()).unwrap().start_replication(slot, Lsn::ZERO, "p").unwrap()
}

/// Reads until `done` says so of a frame; an error of the stream ends it too.
fn read_until(stream: &mut ReplicationStream, done: impl FnMut(Frame<'_>) -> bool) -> Result<(), ReplicationError> {
    let mut done = done;
    let deadline = Instant::now() + DEADLINE;
    loop {
        while let Some(frame) = stream.next_frame()? {
            if done(frame) {
                return Ok(());
            }
        }
        assert!(Instant::now() < deadline, "the frame did not come");
        stream.fill(Duration::from_millis(100))?;
    }
}

/// The kinds of pgoutput's messages up to and including the next commit. Postgres 14 sends empty transactions too.
fn kinds_of_a_transaction(stream: &mut ReplicationStream) -> String {
    let mut kinds = String::new();
    read_until(stream, |frame| {
        if let Frame::XLogData { data, .. } = frame {
            kinds.push(char::from(data[0]));
        }
        if kinds == "BC" {
            kinds.clear();
        }
        kinds.ends_with('C')
    })
    .unwrap();
    kinds
}

/// Logs in as a new role of `group` with the password `right`, once with it and once with another.
fn logs_in(group: &str, encryption: &str) {
    let database = Database::create();
    let role = format!("{}_{group}", database.name);
    database.execute(&format!(
        "SET password_encryption = '{encryption}';
         CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'right' IN ROLE {group}"
    ));
    let mut config = database.config();
    config.user(&role).password("right").ssl_mode(SslMode::Disable);
    let mut session = connect(&config).unwrap();
    assert_eq!(session.identify_system().unwrap().database.as_ref(), Some(&database.name));

    config.password("wrong");
    let error = connect(&config).unwrap_err();
    assert_eq!((error.sqlstate(), error.is_transient()), (Some("28P01"), false), "{error}");
    assert!(!format!("{error} {error:?}").contains("wrong\""), "{error:?}");

    let mut without = database.config();
    without.user(&role).ssl_mode(SslMode::Disable);
    // The superuser's URL may hold a password of its own.
    if without.get_password().is_none() {
        let error = connect(&without).unwrap_err();
        assert!(matches!(error, ReplicationError::Login(_)) && !error.is_transient(), "{error}");
    }
    drop(session);
    database.execute(&format!("DROP ROLE {role}"));
}

#[test]
fn logs_in_with_scram() {
    logs_in("scram_login", "scram-sha-256");
}

#[test]
fn logs_in_with_md5() {
    logs_in("md5_login", "md5");
}

#[test]
fn logs_in_with_a_password_in_plain_text() {
    logs_in("password_login", "scram-sha-256");
}

#[test]
fn a_trusted_role_logs_in_and_learns_who_the_server_is() {
    let database = Database::create();
    let mut session = connect(&database.config()).unwrap();
    let identity = session.identify_system().unwrap();
    let expected = database.query("SELECT system_identifier FROM pg_control_system()");
    assert_eq!(Some(identity.system_identifier), expected);
    assert_eq!(identity.database.as_deref(), Some(&*database.name));
    assert!(identity.wal_position > Lsn::ZERO && identity.timeline >= 1);
    assert_eq!(session.parameter_status("server_version").map(str::to_owned), database.query("SHOW server_version"));
    // What the encoders rely on, whatever the role and the database have set.
    for (setting, value) in [("IntervalStyle", "iso_8601"), ("TimeZone", "UTC"), ("extra_float_digits", "3")] {
        assert_eq!(session.show(setting).unwrap(), value);
    }
    let error = session.show("no_such_setting").unwrap_err();
    assert_eq!((error.sqlstate(), error.is_transient()), (Some("42704"), false));
    assert_eq!(session.show("bytea_output").unwrap(), "hex", "an error leaves the session usable");
}

#[test]
fn hosts_are_tried_in_order_until_one_takes_us() {
    let database = Database::create();
    let port = database.config().get_ports()[0];
    let mut config = Config::new();
    // Nothing listens on port 1.
    config.user("postgres").dbname(&database.name).host("127.0.0.1").port(1).host("127.0.0.1").port(port);
    config.target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
    connect(&config).unwrap();

    config.target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadOnly);
    let error = connect(&config).unwrap_err();
    assert!(matches!(error, ReplicationError::WrongServer { .. }) && error.is_transient(), "{error}");
}

#[test]
fn a_host_that_is_down_and_a_database_that_is_not_there_differ() {
    let mut config: Config = "host=127.0.0.1 port=1 user=postgres".parse().unwrap();
    let error = connect(&config).unwrap_err();
    assert!(matches!(error, ReplicationError::Connect { .. }) && error.is_transient(), "{error}");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");

    config = Database::create().config();
    let error = connect(&config).unwrap_err();
    assert_eq!((error.sqlstate(), error.is_transient()), (Some("3D000"), false), "{error}");
}

#[test]
fn a_transaction_comes_down_the_stream_over_tcp() {
    let (database, slot) = published();
    let mut stream = start(&database, &slot);
    database.execute("INSERT INTO t VALUES (1, 'one'), (2, 'two')");
    assert_eq!(kinds_of_a_transaction(&mut stream), "BRIIC");
    database.execute("DELETE FROM t WHERE id = 1");
    assert_eq!(kinds_of_a_transaction(&mut stream), "BDC");
}

#[test]
fn the_wal_end_of_a_frame_tells_nothing_but_its_send_time_does() {
    let (database, slot) = published();
    database.execute("INSERT INTO t VALUES (1, 'one')");
    let mut stream = start(&database, &slot);
    let (mut committed_at, mut last_sent_at) = (0, 0);
    read_until(&mut stream, |frame| {
        let Frame::XLogData { start, wal_end, sent_at, data } = frame else { return false };
        assert_eq!(start, wal_end);
        if data[0] == b'B' {
            committed_at = i64::from_be_bytes(data[9..17].try_into().unwrap());
        }
        last_sent_at = sent_at;
        data[0] == b'C'
    })
    .unwrap();
    assert!(committed_at > 0 && last_sent_at > committed_at);
}

#[test]
fn a_transaction_comes_down_the_stream_over_a_unix_socket() {
    let (database, slot) = published();
    let folder = database.query("SHOW unix_socket_directories").unwrap();
    let mut config = Config::new();
    config.host_path(folder.split(',').next().unwrap().trim()).port(database.config().get_ports()[0]);
    config.user("postgres").dbname(&database.name);
    let mut stream = connect(&config).unwrap().start_replication(&slot, Lsn::ZERO, "p").unwrap();
    database.execute("INSERT INTO t VALUES (1, 'one')");
    assert_eq!(kinds_of_a_transaction(&mut stream), "BRIC");
}

#[test]
fn names_with_quotes_reach_the_server_as_they_are() {
    let (database, slot) = published();
    database.execute(r#"CREATE PUBLICATION "it's a ""p"", \ so" FOR TABLE t"#);
    let session = connect(&database.config()).unwrap();
    let mut stream = session.start_replication(&slot, Lsn::ZERO, r#"it's a "p", \ so"#).unwrap();
    // Reading a change needs the publication, which did not exist when the slot was created: only what comes after it.
    database.execute("INSERT INTO t VALUES (1, 'one')");
    assert_eq!(kinds_of_a_transaction(&mut stream), "BRIC");
}

#[test]
fn a_slot_in_use_is_a_transient_error_and_is_free_after_an_orderly_end() {
    let (database, slot) = published();
    let mut stream = start(&database, &slot);
    let refused = connect(&database.config()).unwrap().start_replication(&slot, Lsn::ZERO, "p").unwrap_err();
    assert_eq!((refused.sqlstate(), refused.is_transient()), (Some("55006"), true), "{refused}");

    database.execute("INSERT INTO t VALUES (1, 'one')");
    let mut commit_end = Lsn::ZERO;
    read_until(&mut stream, |frame| match frame {
        Frame::XLogData { data: [b'C', _, _, _, _, _, _, _, _, _, end @ ..], .. } => {
            commit_end = Lsn(u64::from_be_bytes(end[..8].try_into().unwrap()));
            true
        }
        _ => false,
    })
    .unwrap();
    stream.send_status(commit_end, commit_end, commit_end, false);
    stream.finish(DEADLINE).unwrap();
    let confirmed = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE NOT active AND slot_name = ";
    assert_eq!(database.query(&format!("{confirmed}'{slot}'")), Some(commit_end.to_string()));
    connect(&database.config()).unwrap().drop_slot(&slot, false).unwrap();
}

#[test]
fn a_stream_with_much_still_to_send_ends_in_an_orderly_way_too() {
    let (database, slot) = published();
    let stream = start(&database, &slot);
    database.execute("INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 30000) n");
    stream.finish(DEADLINE).unwrap();
    start(&database, &slot);
}

#[test]
fn a_walsender_that_is_terminated_gives_a_transient_error_with_its_reason() {
    let (database, slot) = published();
    let mut stream = start(&database, &slot);
    let terminate = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = ";
    assert_eq!(database.query(&format!("{terminate}'{slot}'")).as_deref(), Some("t"));
    let error = read_until(&mut stream, |_| false).unwrap_err();
    assert_eq!((error.sqlstate(), error.is_transient()), (Some("57P01"), true), "{error}");
    // Whoever goes on nevertheless learns that the connection has ended, and soon.
    stream.send_status(Lsn(1), Lsn::ZERO, Lsn::ZERO, false);
    assert!(read_until(&mut stream, |_| false).unwrap_err().is_transient());
}

#[test]
fn a_missing_slot_and_a_missing_publication_are_named() {
    let (database, slot) = published();
    let session = connect(&database.config()).unwrap();
    let error = session.start_replication("no_such_slot", Lsn::ZERO, "p").unwrap_err();
    assert_eq!((error.sqlstate(), error.is_transient()), (Some("42704"), false));
    assert!(error.to_string().contains("no_such_slot"), "{error}");

    let session = connect(&database.config()).unwrap();
    let error = session.start_replication(&slot, Lsn::ZERO, "no such publication").unwrap_err();
    assert!(matches!(&error, ReplicationError::NoPublication { name, .. } if name == "no such publication"), "{error}");
    assert!(!error.is_transient());
}

#[test]
fn a_publication_dropped_under_the_stream_ends_it_on_every_version() {
    let (database, slot) = published();
    let mut stream = start(&database, &slot);
    database.execute("DROP PUBLICATION p; INSERT INTO t VALUES (1, 'one')");
    let error = read_until(&mut stream, |frame| matches!(frame, Frame::XLogData { data: [b'I', ..], .. })).unwrap_err();
    assert!(matches!(error.sqlstate(), Some("42704" | "55000")) && !error.is_transient(), "{error}");
    assert!(error.to_string().contains("\"p\""), "{error}");
}

#[test]
fn a_status_that_asks_for_a_reply_gets_a_keepalive() {
    let (database, slot) = published();
    let mut stream = start(&database, &slot);
    // Whatever the server sends by itself at the beginning is behind us when the stream is dry.
    while stream.fill(Duration::from_millis(200)).unwrap() != Fill::Nothing {
        while stream.next_frame().unwrap().is_some() {}
    }
    stream.send_status(Lsn::ZERO, Lsn::ZERO, Lsn::ZERO, true);
    let mut wal_end = Lsn::ZERO;
    read_until(&mut stream, |frame| match frame {
        Frame::KeepAlive { wal_end: end, reply_requested, .. } => {
            wal_end = end;
            !reply_requested
        }
        Frame::XLogData { .. } => false,
    })
    .unwrap();
    assert!(wal_end > Lsn::ZERO);
}

#[test]
fn a_value_of_50_megabytes_is_one_frame_and_the_buffer_shrinks_after_it() {
    const SIZE: usize = 50_000_000;
    let (database, slot) = published();
    let mut stream = start(&database, &slot);
    let usual = stream.buffer_capacity();
    database.execute(&format!("INSERT INTO t VALUES (0, repeat('x', {SIZE}))"));
    let mut largest = 0;
    read_until(&mut stream, |frame| match frame {
        Frame::XLogData { data, .. } => {
            largest = largest.max(data.len());
            data[0] == b'C'
        }
        Frame::KeepAlive { .. } => false,
    })
    .unwrap();
    assert!((SIZE..SIZE + 100).contains(&largest), "{largest}");
    assert!((SIZE..SIZE * 2).contains(&stream.buffer_capacity()), "{}", stream.buffer_capacity());
    let mut id = 1;
    while stream.buffer_capacity() > usual {
        assert!(id < 100, "the buffer did not shrink");
        database.execute(&format!("INSERT INTO t VALUES ({id}, 'small')"));
        assert_eq!(kinds_of_a_transaction(&mut stream), "BIC");
        id += 1;
    }
}

#[test]
fn statuses_that_the_server_does_not_read_neither_wait_nor_pile_up() {
    let (database, slot) = published();
    let mut stream = start(&database, &slot);
    // The walsender fills the socket and waits for us, reading little: many more statuses than a socket holds.
    database.execute("INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) n");
    let began = Instant::now();
    for _ in 0..200_000 {
        stream.send_status(Lsn(1), Lsn::ZERO, Lsn::ZERO, false);
    }
    assert!(began.elapsed() < DEADLINE);
    assert_eq!(kinds_of_a_transaction(&mut stream).len(), 20_003);
}

/// Trusts the one certificate that the test server has: it is its own issuer, which no ordinary check accepts.
#[derive(Debug)]
struct Pinned(CertificateDer<'static>);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match *shown == self.0 {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A configuration that trusts the server of `database`.
fn trusting(database: &Database) -> Arc<ClientConfig> {
    let pem = database.query("SELECT pg_read_file(current_setting('ssl_cert_file'))").unwrap();
    let pinned = Pinned(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.dangerous().with_custom_certificate_verifier(Arc::new(pinned)).with_no_client_auth())
}

#[test]
fn a_large_transaction_comes_down_the_stream_over_tls() {
    let (database, slot) = published();
    let mut config = database.config();
    config.ssl_mode(SslMode::Require);
    let endpoint = Endpoint::new(&config, Some(trusting(&database))).unwrap();
    let session = Session::connect(&endpoint).unwrap();
    let mut stream = session.start_replication(&slot, Lsn::ZERO, "p").unwrap();
    let encrypted = "SELECT ssl FROM pg_stat_ssl JOIN pg_replication_slots ON pid = active_pid WHERE slot_name = ";
    assert_eq!(database.query(&format!("{encrypted}'{slot}'")).as_deref(), Some("t"));
    database.execute("INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) n");
    assert_eq!(kinds_of_a_transaction(&mut stream).len(), 20_003);
    stream.send_status(Lsn(1), Lsn::ZERO, Lsn::ZERO, false);
    stream.finish(DEADLINE).unwrap();
}

#[test]
fn scram_binds_itself_to_the_certificate_over_tls() {
    let database = Database::create();
    let role = format!("{}_bound", database.name);
    database.execute(&format!("CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'right' IN ROLE scram_login"));
    let mut config = database.config();
    config.user(&role).password("right").ssl_mode(SslMode::Require).channel_binding(ChannelBinding::Require);
    let session = Session::connect(&Endpoint::new(&config, Some(trusting(&database))).unwrap()).unwrap();
    drop(session);

    // Without TLS there is nothing to bind to.
    config.ssl_mode(SslMode::Prefer);
    let error = connect(&config).unwrap_err();
    assert!(matches!(error, ReplicationError::Login(_)) && !error.is_transient(), "{error}");
    database.execute(&format!("DROP ROLE {role}"));
}

#[test]
fn a_certificate_that_is_not_trusted_is_a_definite_error() {
    let database = Database::create();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let mut config = database.config();
    config.ssl_mode(SslMode::Prefer);
    let error = Session::connect(&Endpoint::new(&config, Some(Arc::new(tls))).unwrap()).unwrap_err();
    assert!(matches!(error, ReplicationError::Tls { .. }) && !error.is_transient(), "{error}");
}
