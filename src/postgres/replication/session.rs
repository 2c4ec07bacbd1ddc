//! A replication connection before the stream: who the server is, slots, and the start of the stream.
//!
//! Names are quoted here and nowhere else, each by the rules of the grammar that reads it. The replication commands are
//! written in the form that Postgres 14 to 18 all take.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, Message};
use postgres_protocol::message::frontend;
use tokio_postgres::config::TargetSessionAttrs;

use super::auth;
use super::channel::{Answer, Channel, name};
use super::endpoint::{Endpoint, Target};
use super::error::{ReplicationError, Result};
use super::socket::Socket;
use super::stream::ReplicationStream;
use super::tls;
use crate::lsn::Lsn;

/// How long a command may take, where [`Session::set_patience`] says nothing else.
const PATIENCE: Duration = Duration::from_secs(30);

/// The answer to `IDENTIFY_SYSTEM`: which history of which cluster this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The cluster's identifier, a decimal number.
    pub system_identifier: String,
    /// The timeline that the server writes, or replays.
    pub timeline: u32,
    /// How far the WAL is flushed.
    pub wal_position: Lsn,
    /// The database that we are connected to.
    pub database: Option<String>,
}

/// A slot that was just created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedSlot {
    /// Every transaction that commits after this point comes down the stream.
    pub consistent_point: Lsn,
}

/// A connection with `replication=database` that takes commands.
pub struct Session {
    channel: Channel,
    database: String,
    place: String,
}

impl Session {
    /// Connects and logs in, to the first of the endpoint's hosts that takes us.
    ///
    /// A host that is down, refuses for the moment or is of the wrong kind is passed over; a definite error, such as a
    /// wrong password, ends the search. If no host is left, the last error counts.
    pub fn connect(endpoint: &Endpoint) -> Result<Self> {
        let mut last = ReplicationError::Parameters("it names no host".to_owned());
        for target in &endpoint.targets {
            match Self::connect_to(target, endpoint) {
                Ok(session) => return Ok(session),
                Err(error) if !error.is_transient() => return Err(error),
                Err(error) => {
                    tracing::debug!(host = %target, %error, "no replication connection to this host");
                    last = error;
                }
            }
        }
        Err(last)
    }

    fn connect_to(target: &Target, endpoint: &Endpoint) -> Result<Self> {
        let deadline = Instant::now() + endpoint.connect_timeout;
        let place = target.to_string();
        let socket = Socket::connect(target, endpoint.keepalives, deadline)
            .map_err(|source| ReplicationError::Connect { place: place.clone(), source })?;
        let socket = tls::negotiate(socket, target, &endpoint.tls, deadline)?;
        let mut channel = Channel::new(socket, endpoint.connect_timeout);
        auth::log_in(&mut channel, endpoint)?;
        channel.patience = PATIENCE;
        let mut session = Self { channel, database: endpoint.database.clone(), place };
        session.check_kind(endpoint.session)?;
        Ok(session)
    }

    /// Whether the server is a primary or a standby, as `target_session_attrs` asks.
    fn check_kind(&mut self, wanted: TargetSessionAttrs) -> Result<()> {
        let (read_only, wanted) = match wanted {
            TargetSessionAttrs::ReadWrite => ("off", "read-write"),
            TargetSessionAttrs::ReadOnly => ("on", "read-only"),
            _ => return Ok(()),
        };
        if self.show("transaction_read_only")? == read_only {
            return Ok(());
        }
        Err(ReplicationError::WrongServer { place: self.place.clone(), wanted })
    }

    /// Sets how long each further command may take; 30 s by default. Creating a slot waits for the transactions that
    /// are in progress, and dropping one, if asked to, for whoever reads it.
    pub fn set_patience(&mut self, patience: Duration) {
        self.channel.patience = patience;
    }

    /// A setting that the server reports by itself, such as `server_version`.
    pub fn parameter_status(&self, parameter: &str) -> Option<&str> {
        self.channel.parameters.get(parameter).map(String::as_str)
    }

    /// The value of a setting, as `SHOW` gives it.
    pub fn show(&mut self, parameter: &str) -> Result<String> {
        let quoted: Vec<String> = parameter.split('.').map(identifier).collect();
        let row = self.one_row(&format!("SHOW {}", quoted.join(".")), "one row in answer to SHOW")?;
        column(&row, 0, "a value in answer to SHOW").map(str::to_owned)
    }

    /// Asks which history of which cluster this is.
    pub fn identify_system(&mut self) -> Result<SystemIdentity> {
        let row = self.one_row("IDENTIFY_SYSTEM", "one row in answer to IDENTIFY_SYSTEM")?;
        let timeline = column(&row, 1, "a timeline")?;
        let position = column(&row, 2, "a WAL position")?;
        Ok(SystemIdentity {
            system_identifier: column(&row, 0, "a system identifier")?.to_owned(),
            timeline: timeline.parse().map_err(|_| ReplicationError::protocol("a timeline", timeline))?,
            wal_position: lsn(position)?,
            database: row.into_iter().nth(3).flatten(),
        })
    }

    /// Creates a permanent logical slot for pgoutput. It exports no snapshot: tables are read beside the stream.
    pub fn create_slot(&mut self, slot: &str) -> Result<CreatedSlot> {
        let command = format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput NOEXPORT_SNAPSHOT", identifier(slot));
        let row = self.one_row(&command, "one row in answer to CREATE_REPLICATION_SLOT")?;
        Ok(CreatedSlot { consistent_point: lsn(column(&row, 1, "a consistent point")?)? })
    }

    /// Drops a slot; if `wait`, only once nobody reads it any more, else a slot in use is an error.
    pub fn drop_slot(&mut self, slot: &str, wait: bool) -> Result<()> {
        let wait = if wait { " WAIT" } else { "" };
        self.command(&format!("DROP_REPLICATION_SLOT {}{wait}", identifier(slot))).map(drop)
    }

    /// Begins the stream of a slot at `start`, or where the slot stands if that is later; 0/0 is always the latter.
    ///
    /// The publication is looked up first: Postgres 14 to 17 notice only at the first change that it does not exist, and
    /// 18 passes the change over with a warning.
    pub fn start_replication(mut self, slot: &str, start: Lsn, publication: &str) -> Result<ReplicationStream> {
        let query = format!("SELECT 1 FROM pg_catalog.pg_publication WHERE pubname = {}", literal(publication));
        if self.command(&query)?.is_empty() {
            let (name, database) = (publication.to_owned(), self.database);
            return Err(ReplicationError::NoPublication { name, database });
        }
        // The option is a list of identifiers inside a literal: quoted twice.
        let publications = option(&identifier(publication));
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL {start} \
             (proto_version '1', publication_names {publications}, messages 'false')",
            identifier(slot)
        );
        self.send(&command)?;
        match self.channel.receive("the beginning of the stream")? {
            Answer::CopyBoth => {
                let (socket, first) = self.channel.into_parts();
                Ok(ReplicationStream::new(socket, &first))
            }
            other => Err(ReplicationError::protocol("CopyBothResponse", name(&other))),
        }
    }

    fn send(&mut self, command: &str) -> Result<()> {
        frontend::query(command, &mut self.channel.outgoing)
            .map_err(|_| ReplicationError::Parameters("a name has a zero byte".to_owned()))?;
        self.channel.send()
    }

    /// Runs a command and returns its rows. An error leaves the session ready for the next command.
    fn command(&mut self, command: &str) -> Result<Vec<Vec<Option<String>>>> {
        self.send(command)?;
        let mut rows = Vec::new();
        let mut refusal = None;
        loop {
            match self.channel.receive("the answer to a command") {
                Ok(Answer::Message(Message::DataRow(row))) => rows.push(read_row(&row)?),
                Ok(Answer::Message(Message::ReadyForQuery(_))) => return refusal.map_or(Ok(rows), Err),
                Ok(Answer::Message(
                    Message::RowDescription(_) | Message::CommandComplete(_) | Message::EmptyQueryResponse,
                )) => {}
                Ok(other) => return Err(ReplicationError::protocol("rows in answer to a command", name(&other))),
                Err(error @ ReplicationError::Server(_)) if refusal.is_none() => refusal = Some(error),
                // After a fatal error the connection ends; the error itself is what matters.
                Err(error) => return Err(refusal.unwrap_or(error)),
            }
        }
    }

    fn one_row(&mut self, command: &str, expected: &'static str) -> Result<Vec<Option<String>>> {
        let mut rows = self.command(command)?;
        match rows.pop() {
            Some(row) if rows.is_empty() => Ok(row),
            _ => Err(ReplicationError::protocol(expected, "none, or several")),
        }
    }
}

/// What the server reports, without the connection itself.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parameters: &BTreeMap<_, _> = &self.channel.parameters;
        f.debug_struct("Session").field("place", &self.place).field("parameters", parameters).finish_non_exhaustive()
    }
}

fn read_row(row: &DataRowBody) -> Result<Vec<Option<String>>> {
    let text = |range: Option<std::ops::Range<usize>>| {
        range.map(|range| String::from_utf8_lossy(&row.buffer()[range]).into_owned())
    };
    Ok(row.ranges().map(|range| Ok(text(range))).collect()?)
}

fn column<'a>(row: &'a [Option<String>], at: usize, expected: &'static str) -> Result<&'a str> {
    row.get(at)
        .and_then(Option::as_deref)
        .ok_or_else(|| ReplicationError::protocol(expected, "null, or no such column"))
}

fn lsn(text: &str) -> Result<Lsn> {
    text.parse().map_err(|_| ReplicationError::protocol("an LSN", text))
}

/// Quotes an identifier, for SQL and for the replication grammar alike.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a string of SQL, whatever `standard_conforming_strings` is.
fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// Quotes a string of the replication grammar, which knows no backslashes.
fn option(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_by_the_grammar_that_reads_them() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
        assert_eq!(option(&identifier("it's \"x\" \\")), "'\"it''s \"\"x\"\" \\\"'");
    }
}
