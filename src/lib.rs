//! tablecast turns Postgres tables into log-compacted Kafka topics, and keeps them so.
//!
//! The modules stand in the order in which a row travels, and none imports a later one:
//!
//! ```text
//! postgres → pgoutput → relation → avro → kafka
//! ```
//!
//! [`connector`] is the one place that wires the stages together. The [`position`] is the only thing that flows
//! back. `ARCHITECTURE.md` has the map and the invariants.

pub mod avro;
pub mod bell;
pub mod calendar;
pub mod cli;
pub mod config;
pub mod connector;
pub mod http;
pub mod kafka;
pub mod lsn;
pub mod pgoutput;
pub mod position;
pub mod postgres;
pub mod relation;
pub mod retry;
pub mod shutdown;
pub mod snapshot;
pub mod telemetry;
