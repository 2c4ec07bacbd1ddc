//! The replication stream: frames from the server, status updates to it.
//!
//! # Reading
//!
//! [`ReplicationStream::fill`] takes what the socket has in gulps, [`next_frame`] hands it out in place. Both are cheap,
//! and neither decides how often to look: the walsender writes each message with a system call of its own, and if it has
//! to wake us for each, that costs more than all the rest. So a caller that is behind should [`pause`] for a fraction of
//! a millisecond when a gulp was small, and one that is not should wait in `fill`.
//!
//! # Writing
//!
//! A server that is busy sending may not read for a while, so its side of the socket can be full. Waiting for it could
//! wait forever (it waits for us to read). So [`send_status`] never waits: what the socket doesn't take is kept and sent
//! by a later call. Only the latest status is kept, since it says all that the earlier ones said; a message of which a
//! part is out is finished first.
//!
//! # How it ends
//!
//! The server's last word, an ErrorResponse or the end of the copy, stands in the stream behind all frames and is
//! returned by `next_frame` when it is reached. Therefore a failed write is no error yet, since the reason may still be
//! on its way: the end of the reading side tells. And therefore `fill` reports the end of the connection only when it
//! has no byte to offer.
//!
//! # A missing publication
//!
//! From version 18 on, Postgres only warns when the publication does not exist at the place in the WAL where it decodes,
//! and passes the changes over. Going on would lose them for good, as later positions get confirmed. So any warning of
//! the class 55, "object not in prerequisite state", ends the stream. It comes before every later frame, hence before
//! any position that could confirm the loss.
//!
//! [`next_frame`]: ReplicationStream::next_frame
//! [`pause`]: ReplicationStream::pause
//! [`send_status`]: ReplicationStream::send_status

use std::io;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::buffer::ReceiveBuffer;
use super::error::{ReplicationError, Result, ServerError};
use super::outbox::{Outbox, Status};
use super::socket::Socket;
use super::window::MessageSizes;
use super::wire::{self, COPY_DATA, ERROR_RESPONSE, Frame, HEADER};
use crate::bell::Bell;
use crate::lsn::Lsn;

/// Seconds from the Unix epoch to Postgres's, 2000-01-01.
const POSTGRES_EPOCH: Duration = Duration::from_secs(946_684_800);

/// What a [`fill`](ReplicationStream::fill) brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// So many new bytes.
    Data(usize),
    /// Nothing came within the time, or until the bell rang.
    Nothing,
    /// There is no room: whole frames wait to be taken. Nothing was read, nor waited for.
    Full,
}

/// A started replication stream.
#[derive(Debug)]
pub struct ReplicationStream {
    socket: Socket,
    buffer: ReceiveBuffer,
    outbox: Outbox,
    sizes: MessageSizes,
    /// The last look at the socket found nothing more in it, just now.
    emptied: bool,
    /// Why writing failed; no more is written then.
    write_failed: Option<io::Error>,
}

impl ReplicationStream {
    /// A stream over `socket`, of which `first` was already read.
    pub(super) fn new(socket: Socket, first: &[u8]) -> Self {
        let (buffer, outbox, sizes) = (ReceiveBuffer::new(first), Outbox::default(), MessageSizes::default());
        Self { socket, buffer, outbox, sizes, emptied: false, write_failed: None }
    }

    /// Reads what is there; if there is nothing, waits for at most `wait` until there is. Zero does not wait.
    ///
    /// Frames that were returned before are gone.
    pub fn fill(&mut self, wait: Duration) -> Result<Fill> {
        self.fill_or_hear(wait, None)
    }

    /// The same, but no longer than until the bell rings.
    pub fn fill_or_hear(&mut self, wait: Duration, bell: Option<&Bell>) -> Result<Fill> {
        self.flush();
        // While little comes, every second call would be in vain.
        let wait_first = std::mem::take(&mut self.emptied) && !wait.is_zero();
        if !wait_first {
            match self.gulp()? {
                Fill::Nothing if !wait.is_zero() => {}
                fill => return Ok(fill),
            }
        }
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let writing = self.write_failed.is_none() && !self.outbox.is_empty();
            let ready = self.socket.wait(writing, bell, left)?;
            if ready.writable {
                self.flush();
            }
            if ready.readable {
                match self.gulp()? {
                    // Under TLS something came, but no whole record yet.
                    Fill::Nothing => {}
                    fill => return Ok(fill),
                }
            }
            if left.is_zero() || ready.rung {
                return Ok(Fill::Nothing);
            }
        }
    }

    /// Reads until the socket is empty or the buffer full.
    fn gulp(&mut self) -> Result<Fill> {
        self.emptied = false;
        let mut total = 0;
        loop {
            let room = self.buffer.room()?;
            let size = room.len();
            if size == 0 {
                return Ok(if total == 0 { Fill::Full } else { Fill::Data(total) });
            }
            match self.socket.read(room) {
                Ok(0) if total == 0 => return Err(self.closed()),
                // The end; what came before it is to be seen first.
                Ok(0) => return Ok(Fill::Data(total)),
                // Also after a short read: to have read opens the window, and what waits behind it comes at once.
                Ok(count) => {
                    self.buffer.filled(count);
                    total += count;
                    if self.sizes.read(count)
                        && let Err(error) = self.socket.widen()
                    {
                        tracing::debug!(%error, "the receive buffer stays small: large rows come slower than they could");
                    }
                }
                // Whatever it is, it comes again when there is nothing else to report.
                Err(error) if total > 0 => {
                    self.emptied = error.kind() == io::ErrorKind::WouldBlock;
                    return Ok(Fill::Data(total));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Fill::Nothing),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn closed(&mut self) -> ReplicationError {
        match self.write_failed.take() {
            Some(error) => error.into(),
            None => ReplicationError::Closed { waited_for: "the next frame of the stream" },
        }
    }

    /// Takes the next frame; `None` if no whole one is there.
    ///
    /// The server's reason for ending the stream is an error of this call.
    #[inline]
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>> {
        while let Some(taken) = self.buffer.next()? {
            if taken.tag == COPY_DATA {
                self.sizes.taken();
                return Ok(Some(wire::frame(&self.buffer.message(taken)[HEADER..])?));
            }
            aside(taken.tag, self.buffer.message(taken))?;
        }
        Ok(None)
    }

    /// Bytes that were read and not yet taken as frames.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes that the receive buffer occupies: 256 KiB, or what the largest recent frame needed.
    pub fn buffer_capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// How long a reader may look away while much comes: until the buffers between it and the server are filled.
    pub fn look_away(&self) -> Duration {
        self.socket.look_away()
    }

    /// Looks away for a while, so that the server can write many messages without waking us for each.
    pub fn pause(&mut self, duration: Duration) {
        self.flush();
        std::thread::sleep(duration);
        // By now something is there.
        self.emptied = false;
    }

    /// The same until the bell rings, but for at most `limit`.
    pub fn pause_until(&mut self, bell: &Bell, limit: Duration) -> Result<()> {
        self.flush();
        self.emptied = false;
        bell.wait(limit)?;
        Ok(())
    }

    /// Tells the server how far we are. The slot moves to `flushed`: what lies before it will never be sent again.
    ///
    /// Never waits. A `reply_requested` that could not be sent yet is kept when a later status takes its place.
    pub fn send_status(&mut self, written: Lsn, flushed: Lsn, applied: Lsn, reply_requested: bool) {
        self.outbox.put(Status { written, flushed, applied, reply_requested });
        self.flush();
    }

    /// Sends what the socket takes now. A failure is reported by the end of the reading side.
    fn flush(&mut self) {
        if self.write_failed.is_some() {
            return;
        }
        let socket = &mut self.socket;
        let sent = self.outbox.send(now(), |bytes| socket.write(bytes)).and_then(|()| socket.flush());
        match sent {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => self.write_failed = Some(error),
            _ => {}
        }
    }

    /// Ends the stream in an orderly way, the latest status included, and waits at most `patience` until the server has
    /// closed the connection: the slot is free then. What it still sends is thrown away.
    pub fn finish(mut self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut farewell = BytesMut::new();
        frontend::copy_done(&mut farewell);
        frontend::terminate(&mut farewell);
        self.outbox.close_with(&farewell);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ReplicationError::Timeout { waited_for: "the end of the stream", patience });
            }
            // The server's own CopyDone and what follows it are expected now; an error is not.
            while let Some(taken) = self.buffer.next()? {
                if taken.tag == ERROR_RESPONSE {
                    aside(taken.tag, self.buffer.message(taken))?;
                }
            }
            match self.fill(left) {
                Ok(_) => {}
                // Whichever way it is closed, with bytes of ours unread or not: it is.
                Err(ReplicationError::Closed { .. } | ReplicationError::Io(_)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// A message that is not a frame: the end, or nothing to care about.
#[cold]
fn aside(tag: u8, message: &[u8]) -> Result<()> {
    let malformed = |error: io::Error| ReplicationError::protocol("a message of Postgres", error.to_string());
    match Message::parse(&mut BytesMut::from(message)).map_err(malformed)? {
        Some(Message::ErrorResponse(error)) => Err(ServerError::from_fields(error.fields()).into()),
        Some(Message::NoticeResponse(notice)) => {
            let notice = ServerError::from_fields(notice.fields());
            if notice.severity == "WARNING" && notice.code.starts_with("55") {
                return Err(ReplicationError::PublicationGone(Box::new(notice)));
            }
            tracing::debug!(%notice, "notice from Postgres");
            Ok(())
        }
        Some(Message::ParameterStatus(_) | Message::NotificationResponse(_)) => Ok(()),
        Some(Message::CopyDone | Message::CommandComplete(_)) => {
            Err(ReplicationError::Closed { waited_for: "the next frame of the stream" })
        }
        _ => Err(ReplicationError::protocol("a frame of the stream", format!("{:?}", char::from(tag)))),
    }
}

/// The time in Postgres's reckoning: microseconds since 2000-01-01 UTC.
fn now() -> i64 {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(unix.saturating_sub(POSTGRES_EPOCH).as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;

    use super::super::endpoint::{Keepalives, Target};
    use super::super::window;
    use super::super::wire::tests::{message, xlog_data};
    use super::*;

    fn notice(severity: &str, code: &str) -> Vec<u8> {
        message(b'N', format!("S{severity}\0V{severity}\0C{code}\0Mskipped\0\0").as_bytes())
    }

    #[test]
    fn what_the_server_sends_before_it_closes_is_read_and_then_the_end() {
        let (mut server, client) = UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        let mut stream = ReplicationStream::new(Socket::Unix(client), &[]);
        server.write_all(&message(b'E', b"VFATAL\0C57P01\0Mbye\0\0")).unwrap();
        drop(server);
        assert!(matches!(stream.fill(Duration::ZERO), Ok(Fill::Data(_))));
        assert_eq!(stream.next_frame().unwrap_err().sqlstate(), Some("57P01"));
        assert!(matches!(stream.fill(Duration::ZERO), Err(ReplicationError::Closed { .. })));
    }

    #[test]
    fn a_bell_ends_the_wait_for_data_until_it_is_silenced() {
        let (_server, client) = UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        let mut stream = ReplicationStream::new(Socket::Unix(client), &[]);
        let (bell, began, long) = (Bell::new().unwrap(), Instant::now(), Duration::from_secs(60));
        bell.ring();
        assert_eq!(stream.fill_or_hear(long, Some(&bell)).unwrap(), Fill::Nothing);
        std::thread::scope(|scope| {
            bell.silence();
            scope.spawn(|| bell.ring());
            assert_eq!(stream.fill_or_hear(long, Some(&bell)).unwrap(), Fill::Nothing);
        });
        assert!(began.elapsed() < long);
        bell.silence();
        assert_eq!(stream.fill_or_hear(Duration::from_millis(1), Some(&bell)).unwrap(), Fill::Nothing);
    }

    #[test]
    fn a_socket_that_was_just_emptied_is_waited_for_until_data_or_a_bell_or_its_end_comes() {
        let (mut server, client) = UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        let mut stream = ReplicationStream::new(Socket::Unix(client), &[]);
        let (bell, long) = (Bell::new().unwrap(), Duration::from_secs(60));
        let frame = xlog_data(1, 1, b"x");
        let empty = |stream: &mut ReplicationStream, server: &mut UnixStream| {
            server.write_all(&frame).unwrap();
            assert_eq!(stream.fill(long).unwrap(), Fill::Data(frame.len()));
            while stream.next_frame().unwrap().is_some() {}
            assert!(stream.emptied);
        };
        empty(&mut stream, &mut server);
        empty(&mut stream, &mut server);
        bell.ring();
        assert_eq!(stream.fill_or_hear(long, Some(&bell)).unwrap(), Fill::Nothing);
        empty(&mut stream, &mut server);
        drop(server);
        assert!(matches!(stream.fill(long), Err(ReplicationError::Closed { .. })));
    }

    /// How large the receive buffer of a TCP connection within this machine is when so many frames of a size have come, all
    /// of them.
    fn receive_buffer_after(frames: u64, size: usize) -> usize {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target = Target::Tcp { host: String::new(), addr: Some(address.ip()), port: address.port() };
        let none = Keepalives { on: false, idle: Duration::ZERO, interval: None, retries: None, user_timeout: None };
        let long = Duration::from_secs(60);
        let socket = Socket::connect(&target, none, Instant::now() + long).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for at in 1..=frames {
                    server.write_all(&xlog_data(at, at, &vec![b'x'; size])).unwrap();
                }
            });
            let mut stream = ReplicationStream::new(socket, &[]);
            let mut came = 0;
            while came < frames {
                assert_ne!(stream.fill(long).unwrap(), Fill::Nothing);
                while let Some(frame) = stream.next_frame().unwrap() {
                    came += 1;
                    assert!(matches!(frame, Frame::XLogData { data, .. } if data.len() == size));
                }
            }
            stream.socket.receive_buffer()
        })
    }

    #[test]
    fn the_receive_buffer_is_large_only_where_messages_are() {
        // The kernel doubles what it is asked for.
        assert_eq!(receive_buffer_after(170_000, 100), 2 * window::SMALL);
        assert_eq!(receive_buffer_after(40_000, 2_000), 2 * window::LARGE);
    }

    #[test]
    fn the_warning_of_a_skipped_publication_ends_the_stream() {
        let error = aside(b'N', &notice("WARNING", "55000")).unwrap_err();
        assert_eq!((error.sqlstate(), error.is_transient()), (Some("55000"), false));
        aside(b'N', &notice("WARNING", "01000")).unwrap();
        aside(b'N', &notice("NOTICE", "55000")).unwrap();
    }

    #[test]
    fn the_servers_last_word_is_an_error() {
        let error = aside(b'E', &message(b'E', b"VFATAL\0C57P01\0Mbye\0\0")).unwrap_err();
        assert_eq!((error.sqlstate(), error.is_transient()), (Some("57P01"), true));
        assert!(aside(b'C', &message(b'C', b"COPY 0\0")).unwrap_err().is_transient());
        assert!(!aside(b'Z', &message(b'Z', b"I")).unwrap_err().is_transient());
    }
}
