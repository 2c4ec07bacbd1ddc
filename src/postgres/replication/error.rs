//! What can go wrong on a replication connection, and whether it passes by itself.
//!
//! The supervisor asks one question of an error: is it worth another try, or must somebody act? [`is_transient`] answers
//! it from the kind of the error and, for what the server says, from the SQLSTATE. It never looks at a message's text:
//! texts are translated, reworded between versions, and carry names that users choose.
//!
//! Errors are safe to log. They hold what the server said and where we connected to, never a password.
//!
//! [`is_transient`]: ReplicationError::is_transient

use std::fmt;
use std::io;
use std::time::Duration;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;

use super::wire::WireError;
use crate::postgres::sqlstate;

/// The result of whatever happens on a replication connection.
pub type Result<T, E = ReplicationError> = std::result::Result<T, E>;

/// A failure of a replication connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicationError {
    /// No connection came about.
    #[error("cannot connect to Postgres at {place}: {source}")]
    Connect {
        /// Host and port, or the path of the socket.
        place: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to Postgres broke: {0}")]
    Io(#[from] io::Error),
    /// The server said no, or goodbye.
    #[error(transparent)]
    Server(Box<ServerError>),
    /// The server ended the connection without a reason.
    #[error("Postgres closed the connection while we waited for {waited_for}")]
    Closed {
        /// What should have come.
        waited_for: &'static str,
    },
    /// The server did not answer in time.
    #[error("Postgres did not send {waited_for} within {patience:?}")]
    Timeout {
        /// What should have come.
        waited_for: &'static str,
        /// How long we waited.
        patience: Duration,
    },
    /// The other side does not speak the protocol as we know it.
    #[error("the replication protocol was broken: expected {expected}, got {got}")]
    Protocol {
        /// What the protocol asks for at this place.
        expected: &'static str,
        /// What came instead.
        got: String,
    },
    /// TLS could not be set up.
    #[error("TLS with Postgres at {place} failed: {source}")]
    Tls {
        /// Host and port.
        place: String,
        /// What rustls said.
        source: rustls::Error,
    },
    /// The login can't be completed from our side.
    #[error("cannot log in to Postgres: {0}")]
    Login(String),
    /// The connection parameters can't be used for replication.
    #[error("the database URL cannot be used for replication: {0}")]
    Parameters(String),
    /// The server is not of the kind that `target_session_attrs` asks for.
    #[error("Postgres at {place} is not {wanted}, as target_session_attrs asks")]
    WrongServer {
        /// Host and port, or the path of the socket.
        place: String,
        /// `read-write` or `read-only`.
        wanted: &'static str,
    },
    /// The publication to read does not exist.
    #[error("the publication {name:?} does not exist in the database {database:?}")]
    NoPublication {
        /// The publication.
        name: String,
        /// The database that was searched.
        database: String,
    },
    /// The publication did not exist when the WAL was written that is to be decoded: from Postgres 18 on only a warning
    /// says that the changes are left out.
    #[error("Postgres leaves out changes that should be sent: {0}")]
    PublicationGone(Box<ServerError>),
}

impl ReplicationError {
    /// Whether the same thing, tried again from the beginning, may succeed without anybody's help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Io(_) | Self::Closed { .. } | Self::Timeout { .. } => true,
            // A failover is under way: the other host will be promoted, or this one.
            Self::WrongServer { .. } => true,
            Self::Server(error) => error.is_transient(),
            Self::Protocol { .. }
            | Self::Tls { .. }
            | Self::Login(_)
            | Self::Parameters(_)
            | Self::NoPublication { .. }
            | Self::PublicationGone(_) => false,
        }
    }

    /// The server's SQLSTATE, where the server spoke.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server(error) | Self::PublicationGone(error) => Some(&error.code),
            _ => None,
        }
    }

    pub(super) fn protocol(expected: &'static str, got: impl Into<String>) -> Self {
        Self::Protocol { expected, got: got.into() }
    }
}

impl From<WireError> for ReplicationError {
    fn from(error: WireError) -> Self {
        Self::protocol(error.expected(), error.got())
    }
}

impl From<ServerError> for ReplicationError {
    fn from(error: ServerError) -> Self {
        Self::Server(Box::new(error))
    }
}

/// An error or a notice as the server sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`…, not translated.
    pub severity: String,
    /// The SQLSTATE: five characters, the first two are the class.
    pub code: String,
    /// The primary message.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What the server suggests.
    pub hint: Option<String>,
}

impl ServerError {
    /// Reads the fields of an ErrorResponse or a NoticeResponse; what is malformed is left out.
    pub(super) fn from_fields(mut fields: ErrorFields<'_>) -> Self {
        let mut error = Self::default();
        while let Ok(Some(field)) = fields.next() {
            // Before the login the server writes in its own encoding.
            let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'V' => error.severity = value,
                b'S' if error.severity.is_empty() => error.severity = value,
                b'C' => error.code = value,
                b'M' => error.message = value,
                b'D' => error.detail = Some(value),
                b'H' => error.hint = Some(value),
                _ => {}
            }
        }
        error
    }

    /// Whether this passes by itself, as the SQLSTATE tells.
    fn is_transient(&self) -> bool {
        sqlstate::is_transient(&self.code)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Postgres says {} {}: {}", self.severity, self.code, self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ServerError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: &str) -> ReplicationError {
        ServerError { code: code.to_owned(), ..ServerError::default() }.into()
    }

    #[test]
    fn what_passes_by_itself_is_decided_by_the_sqlstate() {
        for code in ["08006", "40001", "53300", "55006", "57P01", "57P02", "57P03"] {
            assert!(server(code).is_transient(), "{code}");
        }
        for code in ["", "2", "28P01", "28000", "3D000", "42704", "42501", "55000", "57P04", "58P01", "XX000", "äöü"]
        {
            assert!(!server(code).is_transient(), "{code}");
        }
    }

    #[test]
    fn a_broken_connection_is_transient_and_a_broken_protocol_is_not() {
        assert!(ReplicationError::from(io::Error::from(io::ErrorKind::ConnectionReset)).is_transient());
        assert!(ReplicationError::Closed { waited_for: "anything" }.is_transient());
        assert!(!ReplicationError::protocol("a row", "nonsense").is_transient());
        assert!(!ReplicationError::Login("no password".to_owned()).is_transient());
    }
}
