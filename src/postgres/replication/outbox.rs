//! What is to be sent to a server that may not be reading: the rest of one message, and the latest status.
//!
//! Bounded by construction: at most one message is partly out, and a new status takes the place of one that waits.

use std::io;

use super::wire;
use crate::lsn::Lsn;

/// How far we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) written: Lsn,
    pub(super) flushed: Lsn,
    pub(super) applied: Lsn,
    pub(super) reply_requested: bool,
}

/// The messages on their way out, in this order: the rest, the status, the farewell.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// A message of which a part may be out; only `sent` bytes of it are.
    rest: Vec<u8>,
    sent: usize,
    /// The latest status, nothing of which is out.
    latest: Option<Status>,
    /// The very last message, after which nothing is taken in.
    farewell: Vec<u8>,
    closed: bool,
}

impl Outbox {
    /// Whether there is nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.rest.len() && self.latest.is_none() && self.farewell.is_empty()
    }

    /// Takes a status in, in place of one that waits. A request for a reply is not forgotten.
    pub(super) fn put(&mut self, mut status: Status) {
        if self.closed {
            return;
        }
        status.reply_requested |= self.latest.is_some_and(|waiting| waiting.reply_requested);
        self.latest = Some(status);
    }

    /// Sends `farewell` last.
    pub(super) fn close_with(&mut self, farewell: &[u8]) {
        self.farewell = farewell.to_vec();
        self.closed = true;
    }

    /// Writes until all is out or `write` fails, with `WouldBlock` for instance. `now` becomes the status's time.
    pub(super) fn send(&mut self, now: i64, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        loop {
            while self.sent < self.rest.len() {
                match write(&self.rest[self.sent..])? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    count => self.sent += count,
                }
            }
            (self.rest, self.sent) = match self.latest.take() {
                Some(Status { written, flushed, applied, reply_requested }) => {
                    (wire::status(written, flushed, applied, now, reply_requested).to_vec(), 0)
                }
                None if self.farewell.is_empty() => return Ok(()),
                None => (std::mem::take(&mut self.farewell), 0),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(at: u64, reply_requested: bool) -> Status {
        Status { written: Lsn(at), flushed: Lsn(at), applied: Lsn(at), reply_requested }
    }

    /// A socket that takes so many bytes and no more.
    fn takes(budget: &mut usize, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
        if *budget == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = bytes.len().min(*budget).min(7);
        *budget -= count;
        out.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    #[test]
    fn a_message_partly_out_is_finished_and_of_the_others_only_the_latest_is_sent() {
        let (mut outbox, mut out) = (Outbox::default(), Vec::new());
        outbox.put(status(1, false));
        let mut budget = 10;
        outbox.send(0, |bytes| takes(&mut budget, bytes, &mut out)).unwrap_err();
        outbox.put(status(2, true));
        outbox.put(status(3, false));
        assert!(!outbox.is_empty());
        budget = 1000;
        outbox.send(0, |bytes| takes(&mut budget, bytes, &mut out)).unwrap();
        assert!(outbox.is_empty());
        let first = wire::status(Lsn(1), Lsn(1), Lsn(1), 0, false);
        // The request for a reply that status 2 made outlives it.
        let last = wire::status(Lsn(3), Lsn(3), Lsn(3), 0, true);
        assert_eq!(out, [first, last].concat());
    }

    #[test]
    fn the_farewell_comes_last_and_nothing_is_taken_in_after_it() {
        let (mut outbox, mut out) = (Outbox::default(), Vec::new());
        outbox.put(status(1, false));
        outbox.close_with(b"bye");
        outbox.put(status(2, false));
        let mut budget = 1000;
        outbox.send(0, |bytes| takes(&mut budget, bytes, &mut out)).unwrap();
        assert_eq!(out, [&wire::status(Lsn(1), Lsn(1), Lsn(1), 0, false)[..], b"bye"].concat());
    }
}
