//! The readers of a run: threads that read tables beside the stream, and what there is for them to read.

use std::sync::Arc;
use std::thread::JoinHandle;

use super::fault::Fault;
use super::source::{Source, Table};
use super::start::Goal;
use crate::avro::Encoders;
use crate::config::Connector;
use crate::kafka::positions::{SnapshotProgress, StoredPosition};
use crate::kafka::{TopicId, TopicNames};
use crate::snapshot::reader::{self, Setting};
use crate::snapshot::{Desk, ReadingId, SnapshotTable};

/// The desk of a run, with the first rows of every table on it that still lack some.
pub fn desk(connector: &Connector, source: &Source, stored: &StoredPosition, horizon: u32, goal: &Goal) -> Arc<Desk> {
    let desk = Desk::new(
        source.tables.iter().map(snapshot_table).collect(),
        connector.snapshot_readers,
        connector.snapshot_chunk_bytes,
        horizon,
    );
    let is_wanted = |table: &Table| match goal {
        Goal::Stream => true,
        Goal::Snapshot(tables) => tables.is_empty() || tables.contains(&table.sql_name()),
    };
    for (place, table) in source.tables.iter().enumerate().filter(|(_, table)| is_wanted(table)) {
        let Some(progress) = stored.tables.get(&table.sql_name()) else { continue };
        // One that is to be read anew, as another table or under another key, isn't read to its end before.
        let is_it = progress.oid == table.facts.oid && progress.key == table.key;
        if let SnapshotProgress::Reading(reading) = &progress.snapshot
            && is_it
        {
            let topic = TopicId(place as u32);
            if progress.sweep.is_some() {
                desk.sweep_after(topic);
            }
            desk.add(ReadingId::Initial(topic), topic, None, reading.clone());
        }
    }
    desk
}

/// The threads; they end with the value.
#[derive(Debug)]
pub struct Readers {
    desk: Arc<Desk>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Starts as many as the configuration says.
    pub fn start(
        connector: &Connector,
        topics: TopicNames,
        encoders: Arc<Encoders>,
        desk: Arc<Desk>,
    ) -> Result<Self, Fault> {
        let setting = Arc::new(Setting {
            connector: connector.name.clone(),
            database: connector.database.clone(),
            tls: connector.tls.clone(),
            publication: connector.publication.clone(),
            topics,
            encoders,
            desk: Arc::clone(&desk),
        });
        let mut readers = Self { desk, threads: Vec::new() };
        for _ in 0..connector.snapshot_readers {
            let setting = Arc::clone(&setting);
            let name = format!("reader-{}", connector.name);
            let thread = std::thread::Builder::new().name(name).spawn(move || {
                match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| reader::run(&setting))) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::error!(connector = setting.connector, %error, "a reader of tables can't run");
                        setting.desk.panicked();
                    }
                    Err(_) => setting.desk.panicked(),
                }
            })?;
            readers.threads.push(thread);
        }
        Ok(readers)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.desk.close();
        for thread in self.threads.drain(..) {
            // A panic has been told already.
            let _ = thread.join();
        }
    }
}

fn snapshot_table(table: &Table) -> SnapshotTable {
    SnapshotTable {
        name: table.facts.table_name(),
        sql_name: table.sql_name(),
        oid: table.facts.oid,
        key: table.key.clone(),
        mapped_key: table.mapping.key.clone(),
        exclude_columns: table.mapping.exclude_columns.clone(),
        string_columns: table.mapping.string_columns.clone(),
        unrepresentable: table.unrepresentable,
    }
}
