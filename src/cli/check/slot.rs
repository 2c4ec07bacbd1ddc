//! The slot, and whether it goes on where the stored position ends.

use super::Look;
use crate::cli::output::bytes;
use crate::connector::{Slot, continuity};
use crate::postgres::catalog::{ServerFacts, SlotFacts};
use crate::postgres::replication::SystemIdentity;
use crate::postgres::sql::quote_literal;

/// The output plugin that tablecast reads.
const PLUGIN: &str = "pgoutput";

impl Look<'_> {
    pub(super) fn slot(&mut self, server: &ServerFacts, facts: Option<SlotFacts>, identity: Option<&SystemIdentity>) {
        let name = self.connector.slot.clone();
        let subject = format!("slot {name}");
        if let Some(problem) = facts.as_ref().and_then(|facts| foreign(server, facts)) {
            let remedy = format!(
                "-- another name: slot = \"…\" in [connectors.{}]; or, if nobody needs it:\n\
                 SELECT pg_drop_replication_slot({});",
                self.connector.name,
                quote_literal(&name)
            );
            return self.error(&subject, problem, remedy);
        }
        let words = facts.as_ref().map_or_else(|| "will be created".to_owned(), describe);
        let slot = facts.map(|facts| Slot::new(&name, facts));
        let proved = match (self.stored().flatten(), identity) {
            (Some(stored), Some(identity)) => {
                let now = continuity::origin(self.connector, identity);
                continuity::prove(stored, &now, slot.as_ref())
                    .map(|()| format!("{words}; goes on from the stored position {}", stored.position.lsn))
            }
            _ => slot.as_ref().map_or(Ok(()), continuity::usable).map(|()| words),
        };
        match proved {
            Ok(words) => self.ok(&subject, words),
            Err(gap) => self.fault(&subject, gap),
        }
    }
}

/// Why the slot is none that tablecast has made.
fn foreign(server: &ServerFacts, slot: &SlotFacts) -> Option<String> {
    match (slot.plugin.as_deref(), slot.database.as_deref()) {
        (None, _) => Some("is a physical slot".to_owned()),
        (Some(plugin), _) if plugin != PLUGIN => Some(format!("is for the output plugin {plugin}, not {PLUGIN}")),
        (_, Some(database)) if database != server.database => {
            Some(format!("is of database {database:?}, not of {:?}", server.database))
        }
        _ if slot.temporary => Some("is temporary: it ends with the session that made it".to_owned()),
        _ => None,
    }
}

fn describe(slot: &SlotFacts) -> String {
    let reader = match slot.active_pid {
        Some(pid) => format!("in use by process {pid}: a daemon runs, and another would stand by"),
        None => "free".to_owned(),
    };
    let retained = slot.retained_bytes.map(|size| format!(", {} of WAL kept for it", bytes(size))).unwrap_or_default();
    format!("{reader}{retained}")
}
