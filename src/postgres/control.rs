//! The ordinary connection to the source: catalog queries, publications, slots' facts, look-ups of rows.
//!
//! A [`Control`] is a session with the settings of [`super::session`], with a time limit on everything: on connecting,
//! on a statement, on waiting for a lock, on a peer that has gone silent. So a caller that awaits it gets an answer or
//! an error, and [`ControlError::is_transient`] says whether to try again. What it can be asked is in
//! [`super::catalog`].

use std::error::Error as _;
use std::io;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::error::DbError;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls::{TlsError, TlsMode, client_config};
use super::{session, sqlstate};

/// For one address; the whole of connecting gets once more than all the hosts together. Unless the URL says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// After so long without traffic, the other side is probed; so that a firewall's silent drop is noticed in a minute.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// Between two probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// So many probes without an answer are the end of the connection.
const KEEPALIVE_RETRIES: u32 = 3;

/// Limits of the session. Catalog queries take milliseconds; these bound a server that is in trouble. What is known
/// to take longer (a COPY) sets its own with SET LOCAL.
const LIMITS: &[(&str, &str)] =
    &[("statement_timeout", "60s"), ("lock_timeout", "10s"), ("idle_in_transaction_session_timeout", "60s")];

/// A query, or the connection, failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The TLS configuration can't be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server did not let us in within the time limit.
    #[error("Postgres did not answer within {} s", .0.as_secs())]
    ConnectTimeout(Duration),
    /// Postgres, or the way to it, failed.
    #[error("{doing}: {}", describe(source))]
    Postgres {
        /// What was being done, as in "reading the tables".
        doing: &'static str,
        /// Why it failed.
        source: tokio_postgres::Error,
    },
    /// The catalog answered what this version doesn't understand.
    #[error("{doing}: the catalog says {value:?}, which is not understood")]
    NotUnderstood {
        /// What was being done.
        doing: &'static str,
        /// The value.
        value: String,
    },
}

impl ControlError {
    /// Whether it may pass by itself, so that to try again makes sense. Decided by SQLSTATE and by the kind of I/O
    /// error, never by a message's text.
    pub fn is_transient(&self) -> bool {
        match self {
            ControlError::ConnectTimeout(_) => true,
            ControlError::Tls(_) | ControlError::NotUnderstood { .. } => false,
            ControlError::Postgres { source, .. } => is_transient(source),
        }
    }

    /// The server's SQLSTATE, if it was the server that refused.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            ControlError::Postgres { source, .. } => source.code().map(|state| state.code()),
            _ => None,
        }
    }

    /// What the server said, if it was the server that refused.
    pub fn database_error(&self) -> Option<&DbError> {
        match self {
            ControlError::Postgres { source, .. } => source.as_db_error(),
            _ => None,
        }
    }
}

fn is_transient(error: &tokio_postgres::Error) -> bool {
    if let Some(state) = error.code() {
        return sqlstate::is_transient(state.code());
    }
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    // InvalidData is a certificate that was refused, InvalidInput a message that is not Postgres's: both stay.
    error.is_closed()
        || io.is_some_and(|io| !matches!(io.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput))
}

/// The reason with its cause: tokio-postgres's own text stops at "db error".
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(db), _) => {
            let hint = db.hint().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
            format!("{} (SQLSTATE {}){hint}", db.message(), db.code().code())
        }
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

/// The ordinary connection. It ends when this is dropped.
#[derive(Debug)]
pub struct Control {
    client: Client,
    connection: JoinHandle<()>,
    version_num: i32,
}

impl Control {
    /// Connects, with TLS as the configuration's `sslmode` says.
    ///
    /// # Errors
    ///
    /// If the server can't be reached in time or doesn't let us in.
    pub async fn connect(config: &Config) -> Result<Control, ControlError> {
        Control::connect_with_tls(config, &config.get_ssl_mode().into()).await
    }

    /// Connects, with TLS as `tls` says, whatever the configuration's `sslmode` is.
    ///
    /// # Errors
    ///
    /// If the server can't be reached in time or doesn't let us in, or the TLS configuration can't be made.
    pub async fn connect_with_tls(config: &Config, tls: &TlsMode) -> Result<Control, ControlError> {
        let connector = MakeRustlsConnect::new((*client_config(tls)?).clone());
        let config = with_limits(config, tls);
        let hosts = config.get_hosts().len().max(config.get_hostaddrs().len());
        let limit =
            config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT) * u32::try_from(hosts + 1).unwrap_or(2);
        tokio::time::timeout(limit, Control::open(&config, connector))
            .await
            .map_err(|_| ControlError::ConnectTimeout(limit))?
    }

    async fn open(config: &Config, connector: MakeRustlsConnect) -> Result<Control, ControlError> {
        let fail = |source| ControlError::Postgres { doing: "connecting to Postgres", source };
        let (client, connection) = config.connect(connector).await.map_err(fail)?;
        let connection = tokio::spawn(async move {
            // The queries under way only learn that the connection is closed: the reason comes out here alone.
            if let Err(error) = connection.await {
                tracing::warn!(error = describe(&error), "the control connection to Postgres ended");
            }
        });
        let mut control = Control { client, connection, version_num: 0 };
        let setup = session::set_commands(session::RENDERING.iter().chain(session::ALL_ROWS).chain(LIMITS));
        control.execute("setting up the session", &setup).await?;
        let version = "SELECT current_setting('server_version_num')::int4";
        control.version_num = control.query_one("asking for the server's version", version, &[]).await?.get(0);
        Ok(control)
    }

    /// The server's version as a number: 150004 is 15.4.
    pub fn version_num(&self) -> i32 {
        self.version_num
    }

    /// Whether the server is of this major version or a later one.
    pub fn is_at_least(&self, major: i32) -> bool {
        self.version_num >= major * 10_000
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The client itself, for COPY and transactions.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The client itself, for transactions that the client library manages.
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Runs one query in one round trip; `doing` is for the error.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub async fn query(
        &self,
        doing: &'static str,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, ControlError> {
        let result = self.client.query_typed(sql, parameters).await;
        result.map_err(|source| ControlError::Postgres { doing, source })
    }

    /// As [`Control::query`], for what yields one row always.
    ///
    /// # Errors
    ///
    /// If it fails, or yields another number of rows.
    pub async fn query_one(
        &self,
        doing: &'static str,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Row, ControlError> {
        let mut rows = self.query(doing, sql, parameters).await?;
        let count = rows.len();
        rows.pop()
            .filter(|_| count == 1)
            .ok_or_else(|| ControlError::NotUnderstood { doing, value: format!("{count} rows") })
    }

    /// Runs commands that yield nothing; several are one transaction. `doing` is for the error.
    ///
    /// # Errors
    ///
    /// If one fails.
    pub async fn execute(&self, doing: &'static str, commands: &str) -> Result<(), ControlError> {
        self.client.batch_execute(commands).await.map_err(|source| ControlError::Postgres { doing, source })
    }
}

impl Drop for Control {
    /// Closes the socket at once, even with a query under way; the server notices at its next write.
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The configuration with the limits that it doesn't set itself.
fn with_limits(config: &Config, tls: &TlsMode) -> Config {
    let mut config = config.clone();
    config.ssl_mode(tls.ssl_mode());
    if config.get_application_name().is_none() {
        config.application_name("tablecast");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    // Two hours is the library's way of saying that the URL names no time.
    if config.get_keepalives_idle() == Duration::from_secs(2 * 60 * 60) {
        config.keepalives_idle(KEEPALIVE_IDLE);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(KEEPALIVE_INTERVAL);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(KEEPALIVE_RETRIES);
    }
    config
}
