//! The source: its version, its settings, the login's rights, room for a slot and a stream.

use std::time::Duration;

use super::Look;
use crate::cli::look;
use crate::cli::output::bytes;
use crate::connector::Fault;
use crate::postgres::catalog::{ServerFacts, SlotFacts};
use crate::postgres::replication::{Endpoint, Session, SystemIdentity};
use crate::postgres::sql::quote_ident;
use crate::postgres::tls::client_config;

/// The oldest version that tablecast reads.
const OLDEST: i32 = 14;
/// The first version with logical decoding on a standby.
const DECODING_STANDBY: i32 = 16;
/// A stream hears from us every second; a server that gives up sooner than after a few of them gives up for nothing.
const SHORT_TIMEOUT: Duration = Duration::from_secs(5);

impl Look<'_> {
    /// All that doesn't depend on the tables.
    pub(super) fn server(&mut self, server: &ServerFacts, slot: Option<&SlotFacts>) {
        let major = server.version_num / 10_000;
        let version = format!("PostgreSQL {major}.{}, database {:?}", server.version_num % 10_000, server.database);
        if major < OLDEST {
            self.error("source", format!("{version}: too old"), format!("upgrade to PostgreSQL {OLDEST} or later"));
        } else if server.in_recovery && major < DECODING_STANDBY {
            let remedy = format!("name the primary in database_url, or upgrade to PostgreSQL {DECODING_STANDBY}");
            self.error("source", format!("{version}: a standby of this version can't decode WAL"), remedy);
        } else {
            self.ok("source", version);
        }
        if server.wal_level == "logical" {
            self.ok("wal_level", "logical");
        } else {
            let remedy = "ALTER SYSTEM SET wal_level = logical;\n-- then restart the server";
            self.error("wal_level", format!("{}: the WAL lacks what rows need", server.wal_level), remedy);
        }
        if server.may_replicate {
            self.ok("login", format!("{} may replicate", server.user));
        } else {
            let remedy = format!("ALTER ROLE {} REPLICATION;", quote_ident(&server.user));
            self.error("login", format!("{} may not replicate", server.user), remedy);
        }
        self.room(server, slot);
        self.limits(server);
    }

    fn room(&mut self, server: &ServerFacts, slot: Option<&SlotFacts>) {
        let full = |setting: &str, max: i64| {
            format!("ALTER SYSTEM SET {setting} = {};\n-- then restart the server", max.saturating_mul(2).max(10))
        };
        let (slots, max_slots) = (server.replication_slots, server.max_replication_slots);
        if slot.is_none() && slots >= max_slots {
            let message = format!("all {max_slots} replication slots are taken");
            self.error("max_replication_slots", message, full("max_replication_slots", max_slots));
        }
        let (senders, max_senders) = (server.wal_senders, server.max_wal_senders);
        let streams = slot.is_some_and(|slot| slot.active);
        if !streams && senders >= max_senders {
            let message = format!("all {max_senders} replication connections are taken");
            self.error("max_wal_senders", message, full("max_wal_senders", max_senders));
        }
    }

    fn limits(&mut self, server: &ServerFacts) {
        const SUBJECT: &str = "wal_sender_timeout";
        let remedy = "ALTER SYSTEM SET wal_sender_timeout = '60s';\nSELECT pg_reload_conf();";
        match server.wal_sender_timeout {
            None => {
                let message = "0: a daemon whose machine is gone keeps the slot, and no standby can take over";
                self.warning(SUBJECT, message, remedy);
            }
            Some(timeout) if timeout < SHORT_TIMEOUT => {
                let message = format!("{} ms: the server may drop a stream that is alive", timeout.as_millis());
                self.warning(SUBJECT, message, remedy);
            }
            Some(_) => {}
        }
        const KEEP: &str = "max_slot_wal_keep_size";
        match server.max_slot_wal_keep_size {
            None => {
                let message = "unlimited: while the daemon is away, WAL is kept until the server's disk is full";
                let remedy = "-- a limit saves the disk, and beyond it the slot is lost:\n\
                              ALTER SYSTEM SET max_slot_wal_keep_size = '100GB';\nSELECT pg_reload_conf();";
                self.warning(KEEP, message, remedy);
            }
            Some(limit) => self.ok(KEEP, format!("{}: beyond it the slot is lost", bytes(limit))),
        }
    }

    /// Logs in as the stream does, and asks which history of which cluster this is.
    pub(super) async fn identity(&mut self) -> Option<SystemIdentity> {
        let (database, tls) = (self.connector.database.clone(), self.connector.tls.clone());
        let identify = move || -> Result<SystemIdentity, Fault> {
            let endpoint = Endpoint::new(&database, Some(client_config(&tls)?))?;
            Ok(Session::connect(&endpoint)?.identify_system()?)
        };
        match look::within(tokio::task::spawn_blocking(identify)).await {
            Some(Ok(Ok(identity))) => Some(identity),
            Some(Ok(Err(fault))) => {
                self.fault("replication connection", fault);
                None
            }
            Some(Err(_)) | None => {
                let message = format!("no answer within {} s", look::PATIENCE.as_secs());
                self.error("replication connection", message, "see what stands between here and the server");
                None
            }
        }
    }
}
