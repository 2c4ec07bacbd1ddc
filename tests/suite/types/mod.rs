//! What values become, for each type and each extreme, by the stream, by a snapshot, and in a key.

mod cases;
mod check;
mod consumer;
mod extremes;
mod round_trip;
