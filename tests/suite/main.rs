//! The integration tests, one binary: they run against real services (`dev/services`), each in a database of its own.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod backfill_command;
mod backfills;
mod catalog;
mod commands;
mod continuity;
mod control;
mod failures;
mod guards;
mod keys;
mod partitioner;
mod partitions;
mod publication;
mod replication;
mod schema_changes;
mod snapshots;
mod streaming;
mod support;
mod toast;
mod toast_cost;
mod toast_identity;
mod truncate;
mod types;
