//! What the start of a run makes of the stored tables: which are new, which go on, which are read again.
//!
//! A table that has become another one ([`changes`](super::changes)) goes on as it was until a run before this one has seen
//! it in its new shape, and the stream has brought all that was written under former ones ([`watch`](super::watch)). Then
//! its reading begins here, where nothing of this run is in Kafka yet, and all that is handed to it from now on comes
//! later: with the ends of its topic's partitions, if what is older has to be swept.
//!
//! A table that goes by another name now, and whose topic the configuration keeps, is taken over with its rows. One that is
//! gone is kept in mind as long as the configuration maps its name: created anew, it takes its topic over.

use std::collections::BTreeMap;

use super::changes::{Demand, Reason, compare};
use super::fault::Fault;
use super::source::{Source, Table, TableFault};
use super::state::Due;
use crate::config::{Connector, SnapshotMode};
use crate::kafka::positions::{SnapshotProgress, StoredPosition, TableProgress};
use crate::kafka::progress::Reading;
use crate::kafka::shapes::TableShape;
use crate::kafka::{Connection, reader};

/// Takes tables over that go by another name now, with the topic that they had.
pub fn follow_names(connector: &Connector, stored: &mut StoredPosition, source: &Source) {
    for table in &source.tables {
        let name = table.sql_name();
        if stored.tables.contains_key(&name) {
            continue;
        }
        let is_it = |(_, known): &(&String, &TableProgress)| known.oid == table.facts.oid && known.topic == table.topic;
        let Some(was) = stored.tables.iter().find(is_it).map(|(was, _)| was.clone()) else { continue };
        tracing::info!(connector = connector.name, was, now = name, topic = table.topic, "the table was renamed");
        if let Some(progress) = stored.tables.remove(&was) {
            stored.tables.insert(name.clone(), progress);
        }
        if let Some(shape) = stored.shapes.remove(&was) {
            stored.shapes.insert(name, shape);
        }
    }
}

/// By the tables' names: how far each is, and what its topic was written under.
pub type Tables = (BTreeMap<String, TableProgress>, BTreeMap<String, TableShape>);

/// What is known of the tables when a run begins.
pub struct Known<'k> {
    /// What is stored.
    pub stored: &'k StoredPosition,
    /// The tables as they are now, by name.
    pub looks: &'k BTreeMap<String, TableShape>,
    /// What earlier runs have found, by name.
    pub due: &'k BTreeMap<String, Due>,
}

impl Known<'_> {
    /// What of a known table is in its topic from now on, and what it was written under.
    pub fn renew(
        &self,
        connector: &Connector,
        kafka: &Connection,
        table: &Table,
        progress: &TableProgress,
    ) -> Result<(TableProgress, Option<TableShape>), Fault> {
        let name = table.sql_name();
        let was = self.stored.shapes.get(&name);
        let Some(look) = self.looks.get(&name) else { return Ok((progress.clone(), was.cloned())) };
        // Stored by a version that knew of no shapes, but of the table and its key.
        let before = || TableShape { oid: progress.oid, key: progress.key.clone(), ..look.clone() };
        let was = &was.cloned().unwrap_or_else(before);
        let kept = (progress.clone(), Some(was.clone()));
        let (from, swept, reason) = match compare(was, look) {
            Demand::Nothing | Demand::Note => return Ok(kept),
            Demand::Sweep(reason) if table.snapshot == SnapshotMode::Never && reason.is_of_missed_changes() => {
                let table = name;
                return Err(match reason {
                    Reason::OtherTable => TableFault::OtherTable { table },
                    _ => TableFault::ChangesMissed { table },
                }
                .into());
            }
            Demand::Read { from, reason } => (from.0, false, reason),
            Demand::Sweep(reason) => (0, true, reason),
        };
        let position = self.stored.position;
        let is_due = |due: &Due| due.shape.is_same_look(look) && due.at <= position.lsn && position.ordinal == 0;
        if table.snapshot == SnapshotMode::Never || !self.due.get(&name).is_some_and(is_due) {
            return Ok(kept);
        }
        let swept = swept || progress.sweep.is_some();
        // What was not read to its end is read whole.
        let done_before = if progress.snapshot.is_to_be_read() || swept { 0 } else { from };
        let sweep = swept.then(|| reader::ends(kafka, &table.topic)).transpose()?;
        tracing::info!(connector = connector.name, table = name, %reason, swept, "the table is read again");
        let reading = Reading { done_before, ..Reading::default() };
        let progress = TableProgress {
            oid: table.facts.oid,
            topic: table.topic.clone(),
            key: table.key.clone(),
            snapshot: SnapshotProgress::Reading(reading),
            sweep,
        };
        // What isn't read whole leaves old records as they are.
        let shape = if done_before == 0 { look.clone() } else { look.clone().after(was) };
        Ok((progress, Some(shape)))
    }

    /// The tables that are gone, but that the configuration still maps. Whatever comes back under such a name is another
    /// table: be it the same one, which went by another name meanwhile, and whose changes went elsewhere.
    pub fn gone(&self, connector: &Connector, source: &Source) -> Tables {
        let is_there = |name: &String| source.tables.iter().any(|table| table.sql_name() == *name);
        let is_gone = |name: &String| !is_there(name) && connector.maps(name);
        let (mut tables, mut shapes) = Tables::default();
        for (name, progress) in self.stored.tables.iter().filter(|(name, _)| is_gone(name)) {
            tables.insert(name.clone(), TableProgress { oid: 0, ..progress.clone() });
        }
        for (name, shape) in self.stored.shapes.iter().filter(|(name, _)| is_gone(name)) {
            shapes.insert(name.clone(), TableShape { oid: 0, ..shape.clone() });
        }
        (tables, shapes)
    }
}
