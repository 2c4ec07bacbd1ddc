//! The start of a run, in the order that makes it safe.
//!
//! 1. The tables, the publication and the topics are seen to: none of that touches what another daemon may be doing.
//! 2. `START_REPLICATION` at the slot's own position. The slot is the lock: whoever doesn't get it is a standby, and
//!    has fenced nobody.
//! 3. Only then is the transactional id taken over, which fences a zombie and settles its last transaction; so the
//!    stored position that is read next is the last there will ever be from before.
//! 4. Continuity between it and the slot is proved (P4).
//!
//! Where the slot doesn't exist yet, nobody can hold it; then 3 comes first, since a stored position forbids to create
//! one. The topic of a table that is new to the stored position must be empty: rows deleted unseen would live on in it.
//! The topic of one that isn't must be there, and have been written from the same table, by the same key.
//!
//! All of it blocks for as long as a server is away, so it runs beside a thread that heeds the shutdown and, from 2 on,
//! keeps the replication connection alive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::acknowledger::Acknowledger;
use super::beside::beside;
use super::continuity::{self, Gap, Slot};
use super::fault::Fault;
use super::look;
use super::publication;
use super::renewal::{self, Known, Tables};
use super::source::{self, Source, TableFault};
use super::state::State;
use crate::config::{Connector, Delivery, SnapshotMode};
use crate::kafka::positions::{self, Origin, SnapshotProgress, StoredPosition, TableProgress};
use crate::kafka::shapes::TableShape;
use crate::kafka::sink::{self, Ready, SinkOptions};
use crate::kafka::topics::{NewTopics, TopicFault, TopicState, Topics};
use crate::kafka::{Connection, reader};
use crate::lsn::Lsn;
use crate::position::Position;
use crate::postgres::control::Control;
use crate::postgres::replication::{Endpoint, ReplicationStream, Session};
use crate::postgres::tls::client_config;
use crate::relation::{TypeMap, qualified};
use crate::shutdown::Shutdown;

/// How long creating the slot may take: it waits for every transaction that is open then.
const CREATE_SLOT_PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// What a run is given.
#[derive(Clone)]
pub struct Setting {
    pub connector: Connector,
    pub kafka: Connection,
    pub new_topics: NewTopics,
    pub runtime: Handle,
    pub shutdown: Shutdown,
    pub state: Arc<State>,
    pub goal: Goal,
}

/// When a run ends by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Never.
    Stream,
    /// When the first rows of these tables (names as SQL writes them; all tables if there is none) are in Kafka.
    Snapshot(Vec<String>),
}

/// A run that may begin to read.
pub struct Started {
    pub source: Source,
    pub stream: ReplicationStream,
    pub acknowledger: Acknowledger,
    pub ready: Ready,
    pub stored: StoredPosition,
    pub options: SinkOptions,
    /// The newest transaction id that may have come down an earlier stream.
    pub horizon: u32,
}

/// Takes the slot and the transactional id, and proves continuity.
pub fn start(setting: &Setting) -> Result<Started, Fault> {
    let connector = &setting.connector;
    let heed = || if setting.shutdown.is_requested() { Err(Fault::Interrupted) } else { Ok(()) };
    let preparing = setting.clone();
    let (prepared, session) = beside("prepare", move || prepare(preparing), heed)?;
    let mut stream = session.start_replication(&connector.slot, Lsn::ZERO, &connector.publication)?;
    let mut acknowledger = Acknowledger::new(connector.position_interval);
    let options = prepared.options.clone();
    let Settled { ready, stored, source, horizon } = beside(
        "settle",
        move || prepared.settle(),
        || {
            heed()?;
            acknowledger.tick(&mut stream, &setting.state)
        },
    )?;
    setting.state.resumed(&stored);
    Ok(Started { source, stream, acknowledger, ready, stored, options, horizon })
}

/// How the connector writes.
pub fn sink_options(connector: &Connector, kafka: &Connection) -> SinkOptions {
    SinkOptions {
        connection: kafka.clone(),
        connector: connector.name.clone(),
        exactly_once: connector.delivery == Delivery::ExactlyOnce,
        batch_max_bytes: connector.batch_max_bytes,
        batch_max_latency: connector.batch_max_latency,
    }
}

/// What is known once the slot and the transactional id are taken.
struct Settled {
    ready: Ready,
    stored: StoredPosition,
    source: Source,
    horizon: u32,
}

/// What is known of the source before the slot is taken.
struct Prepared {
    setting: Setting,
    control: Control,
    source: Source,
    options: SinkOptions,
    origin: Origin,
    /// Where the source's WAL ends.
    wal_end: Lsn,
}

/// Step 1, and the slot if there is none yet. Blocks.
fn prepare(setting: Setting) -> Result<(Prepared, Session), Fault> {
    let connector = &setting.connector;
    let (control, source) = setting.runtime.block_on(find_tables(&setting))?;
    let endpoint = Endpoint::new(&connector.database, Some(client_config(&connector.tls)?))?;
    let mut session = Session::connect(&endpoint)?;
    let identity = session.identify_system()?;
    let prepared = Prepared {
        options: sink_options(connector, &setting.kafka),
        origin: continuity::origin(connector, &identity),
        wal_end: identity.wal_position,
        control,
        source,
        setting,
    };
    match prepared.slot()? {
        None => prepared.create_slot(&endpoint)?,
        // Postgres would refuse it too, but for no reason that one could tell from others.
        Some(slot) => continuity::usable(&slot)?,
    }
    Ok((prepared, session))
}

/// Finds the tables, and sees to the publication and the positions topic.
async fn find_tables(setting: &Setting) -> Result<(Control, Source), Fault> {
    let connector = &setting.connector;
    let control = Control::connect_with_tls(&connector.database, &connector.tls).await?;
    let (mut source, faults) = source::find(&control, connector).await?;
    if let Some(fault) = faults.into_iter().next() {
        return Err(renamed(setting, &control, &fault).await.unwrap_or(fault).into());
    }
    let publication = control.publication(&connector.publication).await?;
    let faults = publication.as_ref().map(|publication| publication::faults(publication, &source));
    if let Some(fault) = faults.into_iter().flatten().next() {
        return Err(fault.into());
    }
    let has =
        |table: &source::Table| publication.as_ref().is_some_and(|publication| publication::has(publication, table));
    for mut table in std::mem::take(&mut source.tables) {
        match source::shape(&control, &table, &connector.publication).await? {
            Ok(shape) => {
                table.key = shape.key_columns();
                source.tables.push(table);
            }
            // One that somebody created beside the others must not stop them.
            Err(error) if publication.is_some() && !table.is_mapped_by_name() && !has(&table) => {
                tracing::warn!(connector = connector.name, "left out, and not in publication: {error}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    if publication.is_none() {
        let tables: Vec<_> = source.tables.iter().map(|table| table.facts.table_name()).collect();
        control.create_publication(&connector.publication, &tables).await?;
        let (publication, tables) = (&connector.publication, tables.len());
        tracing::info!(connector = connector.name, publication, tables, "publication created");
    }
    Topics::new(&setting.kafka)?.ensure_positions(setting.new_topics).await?;
    Ok((control, source))
}

/// Whether a table that is missing goes by another name now.
async fn renamed(setting: &Setting, control: &Control, fault: &TableFault) -> Option<TableFault> {
    let TableFault::Missing { table } = fault else { return None };
    let (kafka, name) = (setting.kafka.clone(), setting.connector.name.clone());
    // What can't be read now only leaves the error as it is.
    let look = tokio::task::spawn_blocking(move || positions::look(&kafka, &[&name]).ok()?.remove(&name));
    let stored = look.await.ok()??;
    let now = control.name_of(stored.tables.get(table)?.oid).await.ok()??;
    Some(TableFault::Renamed { table: table.clone(), now: qualified(&now.schema, &now.name) })
}

impl Prepared {
    fn slot(&self) -> Result<Option<Slot>, Fault> {
        let facts = self.setting.runtime.block_on(self.control.slot(&self.origin.slot))?;
        Ok(facts.map(|facts| Slot::new(&self.origin.slot, facts)))
    }

    /// Creates the slot, unless a stored position says that there has been one. What is stored is looked at before the
    /// transactional id is taken over: with a mistaken `database_url` it may be in use, by the rightful connector.
    fn create_slot(&self, endpoint: &Endpoint) -> Result<(), Fault> {
        let connector = &self.setting.connector;
        if let Some(stored) = positions::read(&self.setting.kafka, &connector.name)? {
            continuity::prove(&stored, &self.origin, None)?;
        }
        if let Some(stored) = sink::take_over(&self.options)?.stored {
            return Err(Gap::SlotMissing { slot: connector.slot.clone(), stored: stored.position.lsn }.into());
        }
        self.see_to_topics(&BTreeMap::new())?;
        let mut session = Session::connect(endpoint)?;
        session.set_patience(CREATE_SLOT_PATIENCE);
        tracing::info!(
            connector = connector.name,
            slot = connector.slot,
            "creating the replication slot; Postgres waits for the transactions that are open now (a standby, until the \
             primary logs them: SELECT pg_log_standby_snapshot() there has it done at once)"
        );
        let created = session.create_slot(&connector.slot)?;
        let lsn = created.consistent_point;
        tracing::info!(connector = connector.name, slot = connector.slot, %lsn, "replication slot created");
        Ok(())
    }

    /// Creates the topics of tables that are new to the stored position, which must be empty; the others must be there.
    fn see_to_topics(&self, stored: &BTreeMap<String, TableProgress>) -> Result<(), Fault> {
        let runtime = &self.setting.runtime;
        let topics = Topics::new(&self.setting.kafka)?;
        let names = self.source.topics();
        let states = runtime.block_on(topics.states(&names))?;
        let is_new = |table: &source::Table| !stored.contains_key(&table.sql_name());
        for (table, state) in self.source.tables.iter().zip(states) {
            if state == TopicState::Missing && !is_new(table) {
                return Err(TableFault::TopicGone { table: table.sql_name(), topic: table.topic.clone() }.into());
            }
        }
        runtime.block_on(topics.ensure(&names, self.setting.new_topics))?;
        let new = self.source.tables.iter().filter(|table| is_new(table));
        let new: Vec<&str> = new.map(|table| table.topic.as_str()).collect();
        match reader::first_with_records(&self.setting.kafka, &new)? {
            None => Ok(()),
            Some(topic) => {
                let (topic, connector) = (topic.to_owned(), self.setting.connector.name.clone());
                Err(Fault::Kafka(TopicFault::NotEmpty { topic, connector }.into()))
            }
        }
    }

    /// Steps 3 and 4: who writes, and from where. Blocks.
    fn settle(mut self) -> Result<Settled, Fault> {
        let ready = sink::take_over(&self.options)?;
        let slot = self.slot()?;
        let mut stored = match &ready.stored {
            Some(stored) => {
                continuity::prove(stored, &self.origin, slot.as_ref())?;
                continuity::prove_source_has(stored, self.wal_end)?;
                stored.clone()
            }
            None => self.first_position(slot)?,
        };
        let runtime = self.setting.runtime.clone();
        let connector = &self.setting.connector;
        renewal::follow_names(connector, &mut stored, &self.source);
        for table in &self.source.tables {
            if let Some(progress) = stored.tables.get(&table.sql_name()) {
                // Before anything is changed for it.
                table.check_written(progress)?;
            }
        }
        let follow = publication::follow(&self.control, connector, &mut self.source, &stored.tables);
        runtime.block_on(follow)?;
        // Before any is read: what comes after this look makes a difference to the next.
        let looks = runtime.block_on(self.look())?;
        if ready.stored.is_none() {
            stored.position = self.first_place(stored.position)?;
        }
        self.see_to_topics(&stored.tables)?;
        (stored.tables, stored.shapes) = self.tables(&stored, &looks)?;
        if ready.stored.as_ref() != Some(&stored) {
            ready.store(&self.options, &stored)?;
        }
        let horizon = runtime.block_on(self.control.newest_xid())?;
        Ok(Settled { ready, stored, source: self.source, horizon })
    }

    /// The position of a connector that has none: the slot's.
    fn first_position(&self, slot: Option<Slot>) -> Result<StoredPosition, Fault> {
        let slot = slot.ok_or(Fault::TaskGone)?;
        continuity::usable(&slot)?;
        let lsn = slot.confirmed_flush.unwrap_or(Lsn::ZERO);
        let (position, origin) = (Position::between(lsn), self.origin.clone());
        let (tables, backfills, shapes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(StoredPosition { position, commit_time: None, origin, tables, backfills, shapes })
    }

    /// Where a connector begins that has stored nothing. The slot may be older, of a run that died before it stored
    /// anything, or made by somebody: what came since then is in the tables, and is read. The stream would bring it under
    /// whatever shape, key and publication the tables had at the time, which nobody noted: only what comes after the look
    /// is known to be what the next look is compared with. A table that is never read has nothing but the stream.
    fn first_place(&self, slot: Position) -> Result<Position, Fault> {
        if self.source.tables.iter().any(|table| table.snapshot == SnapshotMode::Never) {
            return Ok(slot);
        }
        let now = self.setting.runtime.block_on(self.control.wal_end())?;
        Ok(Position::between(slot.lsn.max(now)))
    }

    /// The tables as the catalog has them now, by name.
    async fn look(&self) -> Result<BTreeMap<String, TableShape>, Fault> {
        let connector = &self.setting.connector;
        let states = look::states(&self.control, &connector.publication, &self.source.tables).await?;
        let (mut looks, mut types) = (BTreeMap::new(), TypeMap::default());
        for table in &self.source.tables {
            let Some(state) = states.get(&table.facts.oid) else { continue };
            let published = look::published(state);
            let key = source::key(&self.control, &connector.name, table, &published, &mut types).await?;
            // What the run began with is what it writes.
            let key = key.ok().filter(|key| key.columns == table.key);
            let key = key.unwrap_or_else(|| source::Key { columns: table.key.clone(), schema: None });
            looks.extend(look::shape(table, &key, state).map(|shape| (table.sql_name(), shape)));
        }
        Ok(looks)
    }

    /// What of each table is in its topic, and under what it was written. The first rows of a table that is new to the
    /// connector are read beside the stream, which brings whatever comes into it from now on: the slot and its place in
    /// the publication are older.
    fn tables(&self, stored: &StoredPosition, looks: &BTreeMap<String, TableShape>) -> Result<Tables, Fault> {
        let Setting { connector, kafka, runtime, state, .. } = &self.setting;
        let due = state.due();
        let known = Known { stored, looks, due: &due };
        let (mut tables, mut shapes) = known.gone(connector, &self.source);
        for table in &self.source.tables {
            let name = table.sql_name();
            let (progress, shape) = match stored.tables.get(&name) {
                Some(progress) => known.renew(connector, kafka, table, progress)?,
                None => {
                    let mut progress = source::first_progress(table);
                    if progress.snapshot.is_to_be_read() && runtime.block_on(self.has_nothing(table))? {
                        progress.snapshot = SnapshotProgress::Done;
                    }
                    (progress, looks.get(&name).cloned())
                }
            };
            shapes.extend(shape.map(|shape| (name.clone(), shape)));
            tables.insert(name, progress);
        }
        Ok((tables, shapes))
    }

    /// Whether there is nothing to read of the table: it is empty, and nobody had begun to write to it before. To read it
    /// all the same would be right, too, but then what comes into it right now might be in its topic twice.
    async fn has_nothing(&self, table: &source::Table) -> Result<bool, Fault> {
        // A standby doesn't show who writes.
        let shows_writers = !self.control.ended().await?.in_recovery;
        let nobody_writes = shows_writers && self.control.writers(table.facts.oid).await?.is_empty();
        Ok(nobody_writes && self.control.is_empty(&table.facts).await?)
    }
}
