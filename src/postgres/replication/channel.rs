//! Question and answer with the server, before the stream begins: whole messages, each within a time limit.
//!
//! It reads from the socket what comes, so when the stream begins some of it may already be here:
//! [`Channel::into_parts`] hands it over.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use postgres_protocol::message::backend::{Header, Message};

use super::error::{ReplicationError, Result, ServerError};
use super::socket::Socket;
use super::wire::HEADER;

/// The longest message that is believed before the stream begins. Answers here are a row or two; more means that the
/// other side is no Postgres, and it may not have our memory.
const MAX_ANSWER: usize = 1 << 20;

/// The tag of CopyBothResponse, which `postgres-protocol` doesn't know.
const COPY_BOTH_RESPONSE: u8 = b'W';

/// An answer of the server.
pub(super) enum Answer {
    /// The stream begins.
    CopyBoth,
    /// Anything else.
    Message(Message),
}

/// A connection on which messages are sent and awaited.
pub(super) struct Channel {
    socket: Socket,
    incoming: BytesMut,
    /// What the next [`send`](Self::send) sends.
    pub(super) outgoing: BytesMut,
    /// How long an answer may take.
    pub(super) patience: Duration,
    /// What the server reports of its settings.
    pub(super) parameters: BTreeMap<String, String>,
}

impl Channel {
    pub(super) fn new(socket: Socket, patience: Duration) -> Self {
        Self {
            socket,
            incoming: BytesMut::with_capacity(8 << 10),
            outgoing: BytesMut::new(),
            patience,
            parameters: BTreeMap::new(),
        }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The socket, and what was read from it and not yet used.
    pub(super) fn into_parts(self) -> (Socket, BytesMut) {
        (self.socket, self.incoming)
    }

    /// Sends all of `outgoing`.
    pub(super) fn send(&mut self) -> Result<()> {
        let waited_for = "room for our message";
        let deadline = Instant::now() + self.patience;
        while self.outgoing.has_remaining() {
            match self.socket.write(&self.outgoing) {
                Ok(count) => self.outgoing.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(true, deadline, waited_for)?,
                Err(error) => return Err(error.into()),
            }
        }
        loop {
            match self.socket.flush() {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(true, deadline, waited_for)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next message that is an answer. Notices are logged, parameters noted; an ErrorResponse is an error.
    pub(super) fn receive(&mut self, waited_for: &'static str) -> Result<Answer> {
        let deadline = Instant::now() + self.patience;
        loop {
            let Some(answer) = self.parse()? else {
                self.read(deadline, waited_for)?;
                continue;
            };
            match answer {
                Answer::Message(Message::NoticeResponse(notice)) => {
                    tracing::debug!(notice = %ServerError::from_fields(notice.fields()), "notice from Postgres");
                }
                Answer::Message(Message::ParameterStatus(status)) => {
                    self.parameters.insert(status.name()?.to_owned(), status.value()?.to_owned());
                }
                Answer::Message(Message::ErrorResponse(error)) => {
                    return Err(ServerError::from_fields(error.fields()).into());
                }
                answer => return Ok(answer),
            }
        }
    }

    /// The next message, if it is there.
    fn parse(&mut self) -> Result<Option<Answer>> {
        let malformed = |error: io::Error| ReplicationError::protocol("a message of Postgres", error.to_string());
        let Some(header) = Header::parse(&self.incoming).map_err(malformed)? else {
            return Ok(None);
        };
        let len = header.len().unsigned_abs() as usize;
        if len > MAX_ANSWER {
            let got = format!("one of {len} bytes and the kind {:?}", char::from(header.tag()));
            return Err(ReplicationError::protocol("a message of at most 1 MiB before the stream begins", got));
        }
        if header.tag() != COPY_BOTH_RESPONSE {
            return Ok(Message::parse(&mut self.incoming).map_err(malformed)?.map(Answer::Message));
        }
        if self.incoming.len() < HEADER - 4 + len {
            return Ok(None);
        }
        self.incoming.advance(HEADER - 4 + len);
        Ok(Some(Answer::CopyBoth))
    }

    fn read(&mut self, deadline: Instant, waited_for: &'static str) -> Result<()> {
        let mut piece = [0; 8 << 10];
        loop {
            match self.socket.read(&mut piece) {
                Ok(0) => return Err(ReplicationError::Closed { waited_for }),
                Ok(count) => {
                    self.incoming.extend_from_slice(&piece[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(false, deadline, waited_for)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wait(&self, for_writing: bool, deadline: Instant, waited_for: &'static str) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ReplicationError::Timeout { waited_for, patience: self.patience });
        }
        self.socket.wait(for_writing, None, left)?;
        Ok(())
    }
}

/// The name of a message, for an error that says what came instead of the expected one.
pub(super) fn name(answer: &Answer) -> &'static str {
    match answer {
        Answer::CopyBoth => "CopyBothResponse",
        Answer::Message(message) => match message {
            Message::AuthenticationOk => "AuthenticationOk",
            Message::AuthenticationSasl(_)
            | Message::AuthenticationSaslContinue(_)
            | Message::AuthenticationSaslFinal(_)
            | Message::AuthenticationMd5Password(_)
            | Message::AuthenticationCleartextPassword => "another step of a login",
            Message::CommandComplete(_) => "CommandComplete",
            Message::CopyData(_) => "CopyData",
            Message::CopyDone => "CopyDone",
            Message::DataRow(_) => "DataRow",
            Message::EmptyQueryResponse => "EmptyQueryResponse",
            Message::ReadyForQuery(_) => "ReadyForQuery",
            Message::RowDescription(_) => "RowDescription",
            _ => "some other message",
        },
    }
}
