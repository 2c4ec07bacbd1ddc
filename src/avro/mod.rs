//! From rows to Avro: for each version of a table's shape, once, the schemas and a *plan*, which then writes each row.
//!
//! ```text
//!  Shape ──► types ──► schema ──► registry ──► ids
//!              │                                │
//!              └─────► plan ─────────────────► Encoder ──► key and value in Confluent's wire format
//! ```
//!
//! - `types` is the one table of types. Schema and encoder of a column come from the same row of it, so they can't
//!   disagree, and stream and snapshot can't either.
//! - `schema` writes the schemas of the records.
//! - [`Plan`] is a shape compiled; [`Encoder`] a plan that knows the ids of its schemas.
//! - `text` turns the text of a value into its Avro binary, straight into the caller's buffer.
//! - [`Registry`] speaks with the schema registry.
//! - [`read`] goes the other way, for people who look at a topic.
//!
//! Promises: a record's bytes follow its schema, or there is an error and no byte (`apache_avro` is the judge in the
//! tests); no text makes this panic; a row allocates nothing but what the caller's buffer takes to grow; no value is
//! ever made up: what is not in the WAL ([`Cell::Unchanged`](crate::pgoutput::Cell::Unchanged)) is an error.

mod difference;
mod encoders;
mod error;
mod fill;
mod name;
mod nulls;
mod plan;
mod registry;
mod schema;
mod show;
mod text;
mod types;

pub mod read;

#[cfg(test)]
mod tests;

pub use encoders::{EncoderError, Encoders};
pub use error::{EncodeError, PlanError};
pub use fill::{Filled, fill_unchanged};
pub use plan::{Encoder, Plan};
pub use registry::{Registry, RegistryError};
pub use schema::key_schema;
pub use text::TextError;
