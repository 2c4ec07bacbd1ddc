//! The replication connection: our own client for `replication=database`.
//!
//! `tokio-postgres` has neither replication mode nor CopyBoth, so this client speaks the protocol itself; the encoding of
//! messages, SCRAM and md5 come from `postgres-protocol`. It is synchronous and meant for a thread of its own: the stream
//! is one socket read in gulps, and a runtime would put a wake-up between the gulps.
//!
//! ```text
//! Endpoint ── Session::connect ──► Session ── start_replication ──► ReplicationStream ── finish ──► closed
//! (endpoint)  (socket, tls, auth)  (session, channel)               (stream, buffer, window, wire, outbox)
//! ```
//!
//! What it promises:
//!
//! - Each step is a type: a session takes commands, a stream gives frames, and neither can do the other's work.
//! - Nothing waits without a limit, and the stream never waits for the server to take something.
//! - Frames are borrowed from the receive buffer: from the socket to the decoder there is one copy, the kernel's.
//! - Memory depends on the largest frame, and is given back after it.
//! - Every error says whether it passes by itself ([`ReplicationError::is_transient`]), and none holds a password.
//!
//! Absent on purpose: nothing here knows what a frame's data mean, or when a position may be confirmed.

mod auth;
mod binding;
mod buffer;
mod channel;
mod endpoint;
mod error;
mod outbox;
mod session;
mod socket;
mod stream;
mod tls;
mod window;
mod wire;

pub use endpoint::Endpoint;
pub use error::{ReplicationError, Result, ServerError};
pub use session::{CreatedSlot, Session, SystemIdentity};
pub use stream::{Fill, ReplicationStream};
pub use wire::Frame;
