//! Postgres: the replication stream, and the ordinary connection beside it for the catalog and for control queries.

pub mod backfills;
pub mod catalog;
pub mod control;
pub mod migrate;
pub mod replication;
pub mod session;
pub mod sql;
pub mod sqlstate;
pub mod tls;
