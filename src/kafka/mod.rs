//! Kafka: the last stage. Records go in, committed transactions come out, and the position with them.
//!
//! [`Batch`] is what the stage takes: encoded records of consecutive source transactions. [`Sink`] writes batches,
//! each Kafka transaction ending between two source transactions, with the position that follows the records in the
//! same transaction. [`topics`] sees to the topics, [`positions`] to what is stored, with the [`shapes`] of the tables,
//! [`reader`] reads topics back, [`keys`] finds the keys that live in one.

mod appetite;
mod batch;
mod client;
mod error;
mod markers;
mod open;
mod producer;

pub mod keys;
pub mod positions;
pub mod progress;
pub mod reader;
pub mod shapes;
pub mod sink;
pub mod topics;

pub use appetite::Appetite;
pub use batch::{
    Batch, Home, Kept, Mark as BatchMark, Pending, Provenance, Record, RelationVersion, Rest, TopicId, TopicNames,
    Waiting,
};
pub use client::{Connection, LastError};
pub use error::KafkaFault;
pub use sink::Sink;
