//! The connector: the one place that wires the stages together.
//!
//! A run of a connector goes from finding the tables to the end of the stream, in this order: [`source`] (the tables,
//! the publication), `start` (the slot is taken, the Kafka transactional id is taken over, continuity is proved),
//! `intake` (frames become records become batches; the rules are `assembler`'s, the timing is `pace`'s). The
//! [`supervisor`] starts runs, again and again: there is one way to recover, and it is the way to start.
//!
//! Two threads carry the rows: the intake reads, decodes and encodes; the Kafka sink writes and commits. Neither ever
//! waits for a lookup of its own: the catalog and the registry are asked by tasks beside them, and a topic that a
//! TRUNCATE empties is read by a thread beside (`truncate`), while the intake goes on answering Postgres.

mod acknowledger;
mod assembler;
mod backfills;
mod beside;
mod changes;
pub mod continuity;
mod fault;
mod intake;
mod look;
mod pace;
pub mod publication;
mod readers;
mod relations;
mod renewal;
mod run;
pub mod source;
mod start;
pub mod state;
pub mod supervisor;
mod sweep;
mod telling;
mod toast;
mod truncate;
mod watch;

pub use continuity::{Gap, Slot};
pub use fault::Fault;
pub use start::{Goal, sink_options};
