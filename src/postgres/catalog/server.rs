//! The server: who it is, and whether it is set up for logical replication.

use std::time::Duration;

use super::lsn;
use crate::lsn::Lsn;
use crate::postgres::control::{Control, ControlError};

const DOING: &str = "reading the server's settings";

/// The timeline of a primary is that of the WAL that it writes, and of a standby that of the WAL that it gets: the
/// control file learns of a promotion only at the next checkpoint. Numbers of settings come from `pg_settings`, whose
/// units are fixed. `rds_replication` stands in for the attribute where a cloud gives no superuser.
const SERVER: &str = "
WITH wal AS (
    SELECT pg_is_in_recovery() AS in_recovery,
           CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn(), '0/0')
                ELSE pg_current_wal_lsn() END AS lsn
), setting AS (
    SELECT jsonb_object_agg(name, setting) AS of FROM pg_catalog.pg_settings
    WHERE name IN ('wal_level', 'max_replication_slots', 'max_wal_senders', 'wal_sender_timeout',
                   'max_slot_wal_keep_size')
)
SELECT (SELECT system_identifier FROM pg_control_system()),
       CASE WHEN wal.in_recovery
            THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()),
                          (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
                          (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver))::int8
            ELSE ('x' || substr(pg_walfile_name(wal.lsn), 1, 8))::bit(32)::int8 END,
       wal.in_recovery, wal.lsn::text,
       setting.of ->> 'wal_level',
       (setting.of ->> 'max_replication_slots')::int8, (SELECT count(*) FROM pg_catalog.pg_replication_slots),
       (setting.of ->> 'max_wal_senders')::int8, (SELECT count(*) FROM pg_catalog.pg_stat_replication),
       (setting.of ->> 'wal_sender_timeout')::int8, (setting.of ->> 'max_slot_wal_keep_size')::int8,
       current_database()::text, current_user::text, role.rolsuper,
       role.rolsuper OR role.rolreplication OR EXISTS (
           SELECT FROM pg_catalog.pg_roles r
           WHERE r.rolname = 'rds_replication' AND pg_has_role(r.oid, 'USAGE')),
       has_database_privilege(current_database(), 'CREATE')
FROM wal, setting, pg_catalog.pg_roles role WHERE role.rolname = current_user";

/// The server, the database and the user as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// 150004 is 15.4.
    pub version_num: i32,
    /// What tells one cluster from all others; replicas have their primary's.
    pub system_identifier: u64,
    /// Which of the histories that begin at promotions.
    pub timeline: u32,
    /// It is a standby.
    pub in_recovery: bool,
    /// How far it has written WAL, or as a standby replayed it.
    pub current_wal_lsn: Lsn,
    /// Has to be `logical`.
    pub wal_level: String,
    /// How many slots there may be.
    pub max_replication_slots: i64,
    /// How many there are.
    pub replication_slots: i64,
    /// How many replication connections there may be.
    pub max_wal_senders: i64,
    /// How many there are.
    pub wal_senders: i64,
    /// After so long without a sign from us the server ends the stream; `None`: never.
    pub wal_sender_timeout: Option<Duration>,
    /// How many bytes of WAL a slot may hold back before it is invalidated; `None`: any number.
    pub max_slot_wal_keep_size: Option<u64>,
    /// The database that we are connected to.
    pub database: String,
    /// Who we are.
    pub user: String,
    /// We are superuser.
    pub is_superuser: bool,
    /// We may create slots and stream from them.
    pub may_replicate: bool,
    /// We may create publications in this database (of tables that we own).
    pub may_create: bool,
}

impl Control {
    /// The server, the database and the user.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn server(&self) -> Result<ServerFacts, ControlError> {
        let row = self.query_one(DOING, SERVER, &[]).await?;
        let system_identifier: i64 = row.get(0);
        let timeout: i64 = row.get(9);
        let keep_megabytes: i64 = row.get(10);
        Ok(ServerFacts {
            version_num: self.version_num(),
            // The catalog has no unsigned numbers: the same 64 bits, taken as IDENTIFY_SYSTEM prints them.
            system_identifier: system_identifier.cast_unsigned(),
            timeline: u32::try_from(row.get::<_, i64>(1)).unwrap_or_default(),
            in_recovery: row.get(2),
            current_wal_lsn: lsn(DOING, row.get(3))?,
            wal_level: row.get(4),
            max_replication_slots: row.get(5),
            replication_slots: row.get(6),
            max_wal_senders: row.get(7),
            wal_senders: row.get(8),
            wal_sender_timeout: u64::try_from(timeout).ok().filter(|ms| *ms > 0).map(Duration::from_millis),
            max_slot_wal_keep_size: u64::try_from(keep_megabytes).ok().map(|megabytes| megabytes << 20),
            database: row.get(11),
            user: row.get(12),
            is_superuser: row.get(13),
            may_replicate: row.get(14),
            may_create: row.get(15),
        })
    }
}
