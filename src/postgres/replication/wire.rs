//! The bytes of a replication stream: where a message ends, and what a frame says.
//!
//! Pure functions over a slice: no socket, no copy, no allocation on the good path, and no panic whatever the bytes.
//! [`head`] looks at the first five bytes and says how long the message is, or how many bytes are needed before that
//! can be said. [`frame`] takes the body of one CopyData message. Since both depend on nothing but the bytes from the
//! message's beginning, it makes no difference how the network cut the stream into reads (a property test holds this).
//!
//! See the manual, "Message Formats" and "Streaming Replication Protocol".

use crate::lsn::Lsn;

/// Bytes before a message's body: its tag, and its length.
pub(super) const HEADER: usize = 5;

/// The kind of the message that holds a frame.
pub(super) const COPY_DATA: u8 = b'd';

/// The kind of the message that says why the server gives up.
pub(super) const ERROR_RESPONSE: u8 = b'E';

/// The longest body that is believed. Postgres can't build a message above 1 GiB (`MaxAllocSize`), so a longer one means
/// that the stream is out of step.
pub(super) const MAX_BODY: usize = 1 << 30;

/// Bytes of an XLogData frame before its data: kind, start, end, clock.
const XLOG_DATA_HEADER: usize = 1 + 8 + 8 + 8;

/// Bytes of a keepalive: kind, end, clock, reply flag.
const KEEPALIVE: usize = 1 + 8 + 8 + 1;

/// Bytes of a standby status update, with its CopyData header.
pub(super) const STATUS: usize = HEADER + 1 + 8 + 8 + 8 + 8 + 1;

/// One frame of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A piece of the WAL: for pgoutput, exactly one of its messages.
    XLogData {
        /// Where the data begins in the WAL; 0/0 for messages that have no place of their own.
        start: Lsn,
        /// From a logical slot the same as `start`, and no news of how far the server has come: to see whether a reader
        /// is behind, compare `sent_at` with the commit times of the transactions. Both are the server's clock.
        wal_end: Lsn,
        /// The server's clock, in microseconds since 2000-01-01 UTC.
        sent_at: i64,
        /// The message of the output plugin.
        data: &'a [u8],
    },
    /// The server is alive, and has sent everything before `wal_end`.
    KeepAlive {
        /// How far the server has sent its WAL.
        wal_end: Lsn,
        /// The server's clock, in microseconds since 2000-01-01 UTC.
        sent_at: i64,
        /// The server wants a status update now.
        reply_requested: bool,
    },
}

/// What the beginning of a buffer tells about the message that stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// The message is not all there: at least so many bytes are needed, counted from its beginning.
    Incomplete {
        /// Bytes from the message's beginning.
        need: usize,
    },
    /// A whole message.
    Message {
        /// Its kind.
        tag: u8,
        /// Its length with the header.
        len: usize,
    },
}

/// The bytes are not those of a replication stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireError {
    /// A message of a kind that has no place in a stream.
    UnknownMessage(u8),
    /// A message's length is less than its own size, or beyond [`MAX_BODY`].
    Length(u32),
    /// A CopyData message holds a frame of an unknown kind.
    UnknownFrame(u8),
    /// A frame is shorter (or a keepalive longer) than its kind asks.
    FrameLength {
        /// The frame's kind, 0 for an empty one.
        kind: u8,
        /// Its length.
        len: usize,
    },
}

impl WireError {
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::UnknownMessage(_) => "a message of a replication stream",
            Self::Length(_) => "a message length from 4 bytes to 1 GiB",
            Self::UnknownFrame(_) => "a frame of the kind XLogData ('w') or keepalive ('k')",
            Self::FrameLength { .. } => "a frame of 25 bytes or more ('w'), or of 18 ('k')",
        }
    }

    pub(super) fn got(self) -> String {
        match self {
            Self::UnknownMessage(tag) => format!("one of the kind {:?}", char::from(tag)),
            Self::Length(len) => format!("{len}"),
            Self::UnknownFrame(kind) => format!("{:?}", char::from(kind)),
            Self::FrameLength { kind, len } => format!("{len} bytes of the kind {:?}", char::from(kind)),
        }
    }
}

/// Finds the end of the message at the beginning of `bytes`.
///
/// The kind is checked before the length is believed, so that a stream out of step fails at once instead of waiting for
/// a gigabyte that never comes.
#[inline]
pub(super) fn head(bytes: &[u8]) -> Result<Head, WireError> {
    let Some((&[tag, a, b, c, d], _)) = bytes.split_first_chunk::<HEADER>() else {
        return Ok(Head::Incomplete { need: HEADER });
    };
    // Data, notice, parameter, error, end of copy, end of command, notification, ready for the next command.
    if !matches!(tag, b'd' | b'N' | b'S' | b'E' | b'c' | b'C' | b'A' | b'Z') {
        return Err(WireError::UnknownMessage(tag));
    }
    let stated = u32::from_be_bytes([a, b, c, d]);
    let len = stated as usize + 1;
    if !(HEADER..=HEADER + MAX_BODY).contains(&len) {
        return Err(WireError::Length(stated));
    }
    if bytes.len() < len { Ok(Head::Incomplete { need: len }) } else { Ok(Head::Message { tag, len }) }
}

/// Reads the body of a CopyData message.
#[inline]
pub(super) fn frame(body: &[u8]) -> Result<Frame<'_>, WireError> {
    match body.first() {
        Some(b'w') if body.len() >= XLOG_DATA_HEADER => {
            let (header, data) = body.split_at(XLOG_DATA_HEADER);
            Ok(Frame::XLogData {
                start: Lsn(u64_at(header, 1)),
                wal_end: Lsn(u64_at(header, 9)),
                sent_at: u64_at(header, 17).cast_signed(),
                data,
            })
        }
        Some(b'k') if body.len() == KEEPALIVE => Ok(Frame::KeepAlive {
            wal_end: Lsn(u64_at(body, 1)),
            sent_at: u64_at(body, 9).cast_signed(),
            reply_requested: body[17] != 0,
        }),
        Some(&kind @ (b'w' | b'k')) => Err(WireError::FrameLength { kind, len: body.len() }),
        Some(&kind) => Err(WireError::UnknownFrame(kind)),
        None => Err(WireError::FrameLength { kind: 0, len: 0 }),
    }
}

/// The eight bytes at `at`, big-endian; the callers have checked the length.
#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(eight)
}

/// Writes a standby status update as a CopyData message; `now` is in microseconds since 2000-01-01 UTC.
pub(super) fn status(written: Lsn, flushed: Lsn, applied: Lsn, now: i64, reply_requested: bool) -> [u8; STATUS] {
    let mut message = [0; STATUS];
    message[0] = b'd';
    // The length counts itself, but not the tag: 38 bytes.
    message[1..5].copy_from_slice(&(STATUS as u32 - 1).to_be_bytes());
    message[5] = b'r';
    message[6..14].copy_from_slice(&written.0.to_be_bytes());
    message[14..22].copy_from_slice(&flushed.0.to_be_bytes());
    message[22..30].copy_from_slice(&applied.0.to_be_bytes());
    message[30..38].copy_from_slice(&now.to_be_bytes());
    message[38] = u8::from(reply_requested);
    message
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![tag];
        message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        message.extend_from_slice(body);
        message
    }

    pub(in super::super) fn xlog_data(start: u64, wal_end: u64, data: &[u8]) -> Vec<u8> {
        let mut body = vec![b'w'];
        for number in [start, wal_end, 7] {
            body.extend_from_slice(&number.to_be_bytes());
        }
        body.extend_from_slice(data);
        message(b'd', &body)
    }

    #[test]
    fn a_message_that_is_not_all_there_says_how_much_it_needs() {
        let whole = xlog_data(1, 2, b"abc");
        for cut in 0..whole.len() {
            let need = if cut < HEADER { HEADER } else { whole.len() };
            assert_eq!(head(&whole[..cut]), Ok(Head::Incomplete { need }));
        }
        assert_eq!(head(&whole), Ok(Head::Message { tag: b'd', len: whole.len() }));
    }

    #[test]
    fn absurd_lengths_are_refused_before_anything_is_waited_for() {
        for len in [0, 1, 3, (1 << 30) + 5, u32::MAX] {
            let mut bytes = vec![b'd'];
            bytes.extend_from_slice(&len.to_be_bytes());
            assert_eq!(head(&bytes), Err(WireError::Length(len)));
        }
        assert_eq!(head(&[b'd', 0x40, 0, 0, 4]), Ok(Head::Incomplete { need: MAX_BODY + HEADER }));
    }

    #[test]
    fn unknown_kinds_of_messages_and_frames_are_refused() {
        assert_eq!(head(b"HTTP/1.1"), Err(WireError::UnknownMessage(b'H')));
        assert_eq!(frame(b"x"), Err(WireError::UnknownFrame(b'x')));
        assert_eq!(frame(b""), Err(WireError::FrameLength { kind: 0, len: 0 }));
        assert_eq!(frame(&[b'w'; 24]), Err(WireError::FrameLength { kind: b'w', len: 24 }));
        assert_eq!(frame(&[b'k'; 19]), Err(WireError::FrameLength { kind: b'k', len: 19 }));
    }

    #[test]
    fn frames_are_read_field_by_field() {
        let data = xlog_data(1, 2, b"abc");
        let expected = Frame::XLogData { start: Lsn(1), wal_end: Lsn(2), sent_at: 7, data: b"abc" };
        assert_eq!(frame(&data[HEADER..]), Ok(expected));
        let mut keepalive = vec![b'k'];
        keepalive.extend_from_slice(&9u64.to_be_bytes());
        keepalive.extend_from_slice(&(-1i64).to_be_bytes());
        keepalive.push(1);
        let expected = Frame::KeepAlive { wal_end: Lsn(9), sent_at: -1, reply_requested: true };
        assert_eq!(frame(&keepalive), Ok(expected));
    }

    #[test]
    fn a_status_update_is_one_copy_data_message() {
        let bytes = status(Lsn(1), Lsn(2), Lsn(3), 4, true);
        assert_eq!(head(&bytes), Ok(Head::Message { tag: b'd', len: STATUS }));
        let numbers: Vec<u64> = (0..4).map(|n| u64_at(&bytes, 6 + 8 * n)).collect();
        assert_eq!((bytes[5], numbers, bytes[38]), (b'r', vec![1, 2, 3, 4], 1));
    }
}
