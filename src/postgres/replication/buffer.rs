//! The receive buffer of a stream: one piece of memory in which frames are read in place.
//!
//! It promises that memory follows the frames and not the backlog: it is [`INITIAL`] bytes large, grows only for a frame
//! that does not fit, by doubling and only when it is full (so that a false length alone costs nothing), and shrinks back
//! once [`CALM`] reads in a row had no need of the size.
//!
//! It promises linear work too. Bytes are moved to the front only when the message at the front is incomplete and does
//! not fit behind, which happens once to a message, or when at least half of the buffer is free before them, which is
//! paid for by the bytes consumed since. Growing by doubling adds a constant factor.

use super::wire::{self, Head, WireError};

/// The usual size. Large enough that a gulp takes thousands of small frames with one system call, small enough to stay
/// in the second-level cache between the read and the decoding.
pub(super) const INITIAL: usize = 256 << 10;

/// Reads without a need for a large buffer before it is given back, so that a run of large frames doesn't make it grow
/// for each.
const CALM: u32 = 16;

/// A message that was taken from the front; its bytes stay in the buffer until room is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// Its kind.
    pub(super) tag: u8,
    /// Where it begins in the buffer.
    start: usize,
    /// Its length with the header.
    len: usize,
}

/// A buffer that is filled at its end and parsed at its front.
#[derive(Debug)]
pub(super) struct ReceiveBuffer {
    /// All of it is initialised; what counts lies from `start` to `end`.
    bytes: Vec<u8>,
    /// Always `<= end`.
    start: usize,
    /// Always `<= bytes.len()`.
    end: usize,
    /// Reads in a row that had no need of more than [`INITIAL`].
    calm: u32,
}

impl ReceiveBuffer {
    /// A buffer that begins with `first`, what was read too much before the stream began.
    pub(super) fn new(first: &[u8]) -> Self {
        let mut bytes = vec![0; INITIAL.max(first.len())];
        bytes[..first.len()].copy_from_slice(first);
        Self { bytes, start: 0, end: first.len(), calm: 0 }
    }

    /// Bytes that are there and not yet parsed.
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Bytes that the buffer occupies.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the message at the front, if all of it is there.
    ///
    /// The bytes are asked for by [`message`](Self::message), so that the caller may take the next one after a look at
    /// the kind.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Taken>, WireError> {
        let Head::Message { tag, len } = wire::head(&self.bytes[self.start..self.end])? else {
            return Ok(None);
        };
        let start = self.start;
        self.start += len;
        Ok(Some(Taken { tag, start, len }))
    }

    /// The bytes of a message that was just taken, with its header.
    #[inline]
    pub(super) fn message(&self, taken: Taken) -> &[u8] {
        &self.bytes[taken.start..taken.start + taken.len]
    }

    /// The place for the next bytes; empty only if a whole message waits at the front and must be taken first.
    ///
    /// After reading into it, [`filled`](Self::filled) says how much came.
    pub(super) fn room(&mut self) -> Result<&mut [u8], WireError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let (need, complete) = match wire::head(&self.bytes[self.start..self.end])? {
            Head::Incomplete { need } => (need, false),
            Head::Message { len, .. } => (len, true),
        };
        self.shrink(need);
        let misfit = !complete && self.start + need > self.bytes.len();
        if misfit || self.start >= self.bytes.len() / 2 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if !complete && self.end == self.bytes.len() {
            // The front message is larger than the buffer, which is full of it.
            self.bytes.resize(need.min(self.bytes.len() * 2), 0);
        }
        Ok(&mut self.bytes[self.end..])
    }

    /// Says that `count` bytes were written at the beginning of the room.
    pub(super) fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// Gives the memory of a large frame back, once it has been out of use for a while.
    fn shrink(&mut self, need: usize) {
        if self.bytes.len() <= INITIAL {
            return;
        }
        self.calm = if need.max(self.len()) > INITIAL / 2 { 0 } else { self.calm + 1 };
        if self.calm >= CALM {
            let mut bytes = vec![0; INITIAL];
            bytes[..self.len()].copy_from_slice(&self.bytes[self.start..self.end]);
            *self = Self { end: self.len(), start: 0, bytes, calm: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::wire::tests::{message, xlog_data};
    use super::*;

    /// Takes everything that is complete, as text that can be compared.
    fn drain(buffer: &mut ReceiveBuffer, into: &mut Vec<String>) {
        while let Some(taken) = buffer.next().unwrap() {
            let message = buffer.message(taken);
            into.push(match taken.tag {
                b'd' => format!("{:?}", wire::frame(&message[wire::HEADER..]).unwrap()),
                _ => format!("{message:?}"),
            });
        }
    }

    /// Offers `bytes` as a socket would, at most `size` a time.
    fn feed(buffer: &mut ReceiveBuffer, mut bytes: &[u8], size: usize, into: &mut Vec<String>) {
        while !bytes.is_empty() {
            let room = buffer.room().unwrap();
            let count = size.min(room.len()).min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            buffer.filled(count);
            bytes = &bytes[count..];
            drain(buffer, into);
        }
    }

    proptest! {
        #[test]
        fn any_split_into_reads_yields_the_same_frames(
            sizes in prop::collection::vec(0usize..2000, 1..60),
            notices in prop::collection::vec(any::<bool>(), 60),
            cuts in prop::collection::vec(1usize..3000, 1..20),
        ) {
            let mut stream = Vec::new();
            for (n, size) in sizes.iter().enumerate() {
                stream.extend(xlog_data(n as u64, 0, &vec![n as u8; *size]));
                if notices[n] {
                    stream.extend(message(b'N', b"C00000\0\0"));
                }
            }
            let mut at_once = Vec::new();
            drain(&mut ReceiveBuffer::new(&stream), &mut at_once);
            prop_assert_eq!(at_once.len(), sizes.len() + notices[..sizes.len()].iter().filter(|on| **on).count());

            let mut buffer = ReceiveBuffer::new(&[]);
            let (mut in_pieces, mut rest) = (Vec::new(), &stream[..]);
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                feed(&mut buffer, piece, usize::MAX, &mut in_pieces);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(at_once, in_pieces);
        }
    }

    #[test]
    fn grows_for_a_large_frame_and_shrinks_afterwards() {
        let mut buffer = ReceiveBuffer::new(&[]);
        let mut frames = Vec::new();
        let mut stream = xlog_data(1, 1, b"small");
        stream.extend(xlog_data(2, 2, &vec![b'x'; 20 * INITIAL]));
        feed(&mut buffer, &stream, 100_000, &mut frames);
        assert_eq!(frames.len(), 2);
        assert!((20 * INITIAL..=21 * INITIAL).contains(&buffer.capacity()), "{}", buffer.capacity());
        for n in 0..=u64::from(CALM) {
            feed(&mut buffer, &xlog_data(n, n, b"small"), usize::MAX, &mut frames);
        }
        assert_eq!((buffer.capacity(), buffer.len()), (INITIAL, 0));
        assert_eq!(frames.len(), 2 + CALM as usize + 1);
    }

    #[test]
    fn a_false_length_alone_takes_no_memory() {
        let mut buffer = ReceiveBuffer::new(&[b'd', 0x3F, 0xFF, 0xFF, 0xFF, b'w']);
        assert_eq!(buffer.room().unwrap().len(), INITIAL - 6);
        assert_eq!(buffer.capacity(), INITIAL);
    }

    #[test]
    fn offers_no_room_while_whole_messages_wait_in_a_full_buffer() {
        let mut buffer = ReceiveBuffer::new(&[]);
        let frame = xlog_data(1, 1, &[0; 1000]);
        loop {
            let room = buffer.room().unwrap();
            if room.is_empty() {
                break;
            }
            let count = frame.len().min(room.len());
            room[..count].copy_from_slice(&frame[..count]);
            buffer.filled(count);
        }
        assert_eq!((buffer.len(), buffer.capacity()), (INITIAL, INITIAL));
        // Few bytes taken: nothing is moved for so little. Half of it taken: the room is there.
        assert!(buffer.next().unwrap().is_some());
        assert!(buffer.room().unwrap().is_empty());
        while buffer.len() > INITIAL / 2 {
            assert!(buffer.next().unwrap().is_some());
        }
        assert!(!buffer.room().unwrap().is_empty());
    }
}
