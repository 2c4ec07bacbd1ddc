//! Replication slots: what the server keeps for a connector.

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::{lsn, not_understood};
use crate::lsn::Lsn;
use crate::postgres::control::{Control, ControlError};

const DOING: &str = "reading the replication slot from the catalog";

/// Columns that not all versions have are read through JSON, where a missing one is null. Before 17 no column gives the
/// reason of an invalidation.
const SLOT: &str = "
SELECT slot.plugin::text, slot.slot_type, slot.database::text, slot.temporary, slot.active, slot.active_pid,
       slot.restart_lsn::text, slot.confirmed_flush_lsn::text, slot.wal_status, slot.safe_wal_size,
       greatest(0, pg_wal_lsn_diff(
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
           slot.restart_lsn))::int8,
       slot.two_phase,
       coalesce(
           to_jsonb(slot) ->> 'invalidation_reason',
           CASE WHEN (to_jsonb(slot) ->> 'conflicting')::bool THEN 'conflicting'
                WHEN slot.wal_status = 'lost' THEN 'wal_removed' END)
FROM pg_catalog.pg_replication_slots slot WHERE slot.slot_name = $1";

const DROP: &str = "
SELECT pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";

/// The headers of WAL pages are no record's: a sender that is through may stand before one (40 bytes at most).
const SENT_ALL: &str = "
SELECT coalesce(bool_or(pg_wal_lsn_diff(
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END,
           sent_lsn) <= 40), false)
FROM pg_catalog.pg_stat_replication WHERE pid = $1";

/// A replication slot as the server has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotFacts {
    /// The output plugin; `None` for a physical slot.
    pub plugin: Option<String>,
    /// `logical` or `physical`.
    pub slot_type: String,
    /// The database it is of; `None` for a physical slot.
    pub database: Option<String>,
    /// It ends with the session that created it.
    pub temporary: bool,
    /// Somebody streams from it.
    pub active: bool,
    /// Who: the process on the server.
    pub active_pid: Option<i32>,
    /// From where on the server keeps WAL for it; `None` once invalidated.
    pub restart_lsn: Option<Lsn>,
    /// Up to where the client has said that it holds everything: the stream resumes here.
    pub confirmed_flush_lsn: Option<Lsn>,
    /// Whether the WAL that it needs is still there.
    pub wal_status: Option<WalStatus>,
    /// How many bytes of WAL until it may be lost; `None` where nothing limits it (`max_slot_wal_keep_size`).
    pub safe_wal_size: Option<i64>,
    /// How many bytes of WAL the server keeps for it.
    pub retained_bytes: Option<u64>,
    /// Prepared transactions are decoded when they are prepared.
    pub two_phase: bool,
    /// Why it can never be used again (`wal_removed`, `rows_removed`, `wal_level_insufficient`, `idle_timeout`, and
    /// before Postgres 17 `conflicting` for any of the second and third); `None` if it can.
    pub invalidation_reason: Option<String>,
}

/// Whether the WAL that a slot needs is still there (`pg_replication_slots.wal_status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalStatus {
    /// It is, within `max_wal_size`.
    Reserved,
    /// It is, beyond `max_wal_size`.
    Extended,
    /// It is, but the next checkpoint may remove it.
    Unreserved,
    /// It is not: the slot can't be used any more.
    Lost,
}

impl WalStatus {
    /// As the catalog has it.
    pub fn name(self) -> &'static str {
        match self {
            WalStatus::Reserved => "reserved",
            WalStatus::Extended => "extended",
            WalStatus::Unreserved => "unreserved",
            WalStatus::Lost => "lost",
        }
    }
}

impl Control {
    /// The slot of that name, if there is one.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn slot(&self, name: &str) -> Result<Option<SlotFacts>, ControlError> {
        let parameters = [(&name as &(dyn ToSql + Sync), Type::TEXT)];
        self.query(DOING, SLOT, &parameters).await?.first().map(facts).transpose()
    }

    /// Whether the process that streams from a slot has sent all WAL that there is to send.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn has_sent_all(&self, pid: i32) -> Result<bool, ControlError> {
        Ok(self.query_one("asking how far a stream is", SENT_ALL, &[(&pid, Type::INT4)]).await?.get(0))
    }

    /// Drops a slot; false if there was none.
    ///
    /// # Errors
    ///
    /// If somebody streams from it (SQLSTATE 55006), or we may not.
    pub async fn drop_slot(&self, name: &str) -> Result<bool, ControlError> {
        let parameters = [(&name as &(dyn ToSql + Sync), Type::TEXT)];
        Ok(!self.query("dropping the replication slot", DROP, &parameters).await?.is_empty())
    }
}

fn facts(row: &Row) -> Result<SlotFacts, ControlError> {
    let place = |index: usize| row.get::<_, Option<&str>>(index).map(|text| lsn(DOING, text)).transpose();
    Ok(SlotFacts {
        plugin: row.get(0),
        slot_type: row.get(1),
        database: row.get(2),
        temporary: row.get(3),
        active: row.get(4),
        active_pid: row.get(5),
        restart_lsn: place(6)?,
        confirmed_flush_lsn: place(7)?,
        wal_status: row.get::<_, Option<&str>>(8).map(wal_status).transpose()?,
        safe_wal_size: row.get(9),
        retained_bytes: row.get::<_, Option<i64>>(10).map(i64::unsigned_abs),
        two_phase: row.get(11),
        invalidation_reason: row.get(12),
    })
}

fn wal_status(text: &str) -> Result<WalStatus, ControlError> {
    match text {
        "reserved" => Ok(WalStatus::Reserved),
        "extended" => Ok(WalStatus::Extended),
        "unreserved" => Ok(WalStatus::Unreserved),
        "lost" => Ok(WalStatus::Lost),
        other => Err(not_understood(DOING, other)),
    }
}
