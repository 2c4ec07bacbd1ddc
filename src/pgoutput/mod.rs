//! The decoder of pgoutput, Postgres's built-in logical decoding plugin: bytes in, messages out.
//!
//! Protocol version 1, as in the manual's chapter "Logical Replication Message Formats". The decoder is pure (no I/O,
//! no state), total (any input gives a message or an error, never a panic), and borrows: names and tuple data stay in
//! the frame's buffer.

mod decode;
mod message;
#[cfg(test)]
mod tests;

pub use decode::{DecodeError, Problem, decode};
pub use message::{Begin, Cell, Cells, Commit, Message, OldTuple, RelationColumn, RelationMessage, Tuple};
