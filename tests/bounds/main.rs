//! What a row may cost: no allocation, and so many instructions.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod allocations;
mod instructions;
#[path = "../../benches/rows/mod.rs"]
mod rows;
