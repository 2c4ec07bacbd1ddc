//! Look-ups for Relation messages: catalog → shape → plan → registry, beside the stream.
//!
//! The intake asks and goes on serving its connection; a task does the work. A registry that is away is waited for here,
//! with backoff, since the stream can't go on without the answer. A shape that is the same as before
//! keeps its encoder: nothing is asked anew.
//!
//! A table is told by its oid. Under its name, the stream may still have an earlier table, which was dropped, or already a
//! later one: neither is captured by this run, and the topic is made the table again by a later one
//! ([`watch`](super::watch)). Where the stream is amid a change of the key, being behind the catalog or ahead of the run,
//! records get whatever key there is: they are written again when the key is found to have changed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::assembler::{Route, TopicRoute};
use super::fault::Fault;
use super::source::{self, Source, Table, TableFault};
use crate::avro::{Encoder, Encoders};
use crate::config::{Connector, SnapshotMode};
use crate::kafka::positions::Change;
use crate::kafka::shapes::Announced;
use crate::kafka::{RelationVersion, TopicId, TopicNames};
use crate::pgoutput::{self, Message, RelationMessage};
use crate::postgres::catalog::{ReplicaIdentity, TableFacts};
use crate::postgres::control::Control;
use crate::relation::{Shape, TableRows, TypeMap, qualified};
use crate::retry::Backoff;
use crate::snapshot::look_up_types;

/// What look-ups need, shared with their tasks.
struct Shared {
    connector: Connector,
    source: Source,
    encoders: Arc<Encoders>,
    topics: TopicNames,
    known: tokio::sync::Mutex<Known>,
}

#[derive(Default)]
struct Known {
    types: TypeMap,
    /// Made at the first look-up, and again when it broke.
    control: Option<Control>,
}

/// Looks up the relations of one run.
pub struct Relations {
    shared: Arc<Shared>,
    runtime: Handle,
}

/// Where the changes of a relation go.
pub struct Found {
    /// Where.
    pub route: Route,
    /// What is stored of it once a row is written there.
    pub announced: Option<Change>,
}

impl Found {
    const NOWHERE: Found = Found { route: Route::Nowhere, announced: None };
}

/// A look-up under way; ended when it is dropped.
pub struct Lookup {
    answer: Receiver<Result<Found, Fault>>,
    task: AbortHandle,
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lookup {
    /// The answer, if it comes within `wait`.
    pub fn wait(&self, wait: Duration) -> Option<Result<Found, Fault>> {
        match self.answer.recv_timeout(wait) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(Fault::TaskGone)),
        }
    }
}

impl Relations {
    /// Look-ups for the tables of `source`.
    pub fn new(connector: Connector, source: Source, encoders: Arc<Encoders>, runtime: Handle) -> Self {
        let topics = Arc::new(source.tables.iter().map(|table| Arc::from(table.topic.as_str())).collect());
        let known = tokio::sync::Mutex::default();
        Self { shared: Arc::new(Shared { connector, source, encoders, topics, known }), runtime }
    }

    /// The names that a route's topic stands for.
    pub fn topics(&self) -> TopicNames {
        Arc::clone(&self.shared.topics)
    }

    /// Starts the look-up of `relation`, which `announcement` is the message of.
    pub fn look_up(&self, relation: &RelationMessage<'_>, announcement: &[u8]) -> Lookup {
        let (send, answer) = sync_channel(1);
        let tables = &self.shared.source.tables;
        let by_oid = tables.iter().position(|table| table.facts.oid == relation.oid);
        let is_named = |table: &Table| table.facts.name == relation.name && table.facts.schema == relation.schema;
        let namesake = by_oid.is_none() && tables.iter().any(is_named);
        let shared = Arc::clone(&self.shared);
        let announcement = announcement.to_vec();
        let task = self.runtime.spawn(async move {
            let found = match by_oid {
                Some(place) => look_up_mapped(&shared, place, &announcement).await,
                None if namesake => Ok(Found::NOWHERE),
                None => look_up_unmapped(&shared, &announcement).await,
            };
            // The intake may have ended meanwhile.
            let _ = send.send(found);
        });
        Lookup { answer, task: task.abort_handle() }
    }
}

/// Tries until the registry answers. A database that is away ends the run: the stream is on its way to the same end,
/// and a shutting-down Postgres waits for what only a new run can give, the acknowledgement of what it has sent.
async fn look_up_mapped(shared: &Shared, place: usize, announcement: &[u8]) -> Result<Found, Fault> {
    let mut backoff = Backoff::default();
    loop {
        match try_look_up(shared, place, announcement).await {
            Err(Fault::Encoder(error)) if error.is_transient() => {
                let delay = backoff.failed_after(Duration::ZERO);
                tracing::warn!(
                    connector = shared.connector.name,
                    table = shared.source.tables[place].sql_name(),
                    %error,
                    retry_in = ?delay,
                    "a table's schema can't be registered yet; the stream waits"
                );
                tokio::time::sleep(delay).await;
            }
            done => return done,
        }
    }
}

async fn try_look_up(shared: &Shared, place: usize, announcement: &[u8]) -> Result<Found, Fault> {
    let Message::Relation(relation) = pgoutput::decode(announcement)? else { return Err(Fault::TaskGone) };
    let table = &shared.source.tables[place];
    let mut known = shared.known.lock().await;
    let (shape, is_provisional) = current_shape(shared, &mut known, table, &relation).await?;
    let encoder = shared.encoders.encoder(&shape, &table.topic).await?;
    let announced =
        Change::Announced { table: table.sql_name(), announced: announced(&shape, &encoder, is_provisional) };
    let version = version(table, &relation, &shape, &encoder);
    let route = TopicRoute { table: table.sql_name(), topic: TopicId(place as u32), encoder, version, is_provisional };
    Ok(Found { route: Route::Topic(Box::new(route)), announced: Some(announced) })
}

/// What it takes to look up values that the WAL doesn't carry. A table that has become a partitioned one is another table.
fn version(table: &Table, relation: &RelationMessage<'_>, shape: &Shape, encoder: &Encoder) -> Arc<RelationVersion> {
    let rows = TableRows::new(relation, shape, table.facts.relkind == 'p');
    Arc::new(RelationVersion { table: table.sql_name(), rows, encoder: encoder.clone() })
}

/// The version that rows are written under. The key of a provisional one is none: no table has that.
fn announced(shape: &Shape, encoder: &Encoder, is_provisional: bool) -> Announced {
    let announced = Announced::of(shape, encoder.plan().key_schema());
    if is_provisional { Announced { key: Vec::new(), ..announced } } else { announced }
}

/// The shape that the message announces, with what the catalog knows now, and whether it is provisional.
async fn current_shape(
    shared: &Shared,
    known: &mut Known,
    table: &Table,
    relation: &RelationMessage<'_>,
) -> Result<(Shape, bool), Fault> {
    let control = match known.control.take() {
        Some(control) if !control.is_closed() => control,
        _ => Control::connect_with_tls(&shared.connector.database, &shared.connector.tls).await?,
    };
    let Some(name) = control.name_of(relation.oid).await? else {
        // Dropped since: what the run began with knows the key's order.
        look_up_types(&control, relation, &mut known.types).await?;
        known.control = Some(control);
        return shape(shared, known, table, &table.facts, relation);
    };
    if name != table.facts.table_name() {
        // The stream may be of before or after; the next run knows the table by its name of now.
        return Err(Fault::TablesChanged);
    }
    let facts = control.tables(&name.schema, Some(&name.name)).await?;
    look_up_types(&control, relation, &mut known.types).await?;
    known.control = Some(control);
    let facts = facts.into_iter().find(|facts| facts.oid == relation.oid);
    shape(shared, known, table, facts.as_ref().unwrap_or(&table.facts), relation)
}

fn shape(
    shared: &Shared,
    known: &Known,
    table: &Table,
    facts: &TableFacts,
    relation: &RelationMessage<'_>,
) -> Result<(Shape, bool), Fault> {
    // Before it was renamed, the stream has it by its former name: its schemas go by that of now.
    let now = RelationMessage { schema: &table.facts.schema, name: &table.facts.name, ..relation.clone() };
    let options = table.shape_options();
    let error = match Shape::new(&now, facts, &known.types, &options) {
        Ok(shape) if table.snapshot != SnapshotMode::Never || shape.key_columns() == table.key => {
            return Ok((shape, false));
        }
        Ok(shape) => {
            let (stored, now) = (table.key.join(", "), shape.key_columns().join(", "));
            return Err(TableFault::KeyChanged { table: table.sql_name(), stored, now }.into());
        }
        Err(error) => error,
    };
    if table.snapshot == SnapshotMode::Never || !error.problem.is_about_the_key() {
        return Err(error.into());
    }
    let flagged: Vec<String> =
        now.columns.iter().filter(|column| column.in_replica_identity).map(|column| column.name.to_owned()).collect();
    // The columns of an identity that isn't the whole row are never null; those of the key may be others by now, which have
    // taken over their names.
    let is_other = flagged.iter().collect::<BTreeSet<_>>() != table.key.iter().collect();
    let keys: &[&[String]] = match is_other && now.replica_identity != ReplicaIdentity::Full {
        true => &[&flagged, &table.key],
        false => &[&table.key, &flagged],
    };
    let shape = Shape::provisional(&now, facts, &known.types, &options, keys);
    let shape = shape.ok_or(error)?;
    let (connector, key) = (&shared.connector.name, shape.key_columns());
    tracing::info!(connector, table = table.sql_name(), ?key, "the stream is amid a change of the table's key");
    Ok((shape, true))
}

/// A table that this run doesn't know: a new run takes it in if the configuration maps it and it still exists.
async fn look_up_unmapped(shared: &Shared, announcement: &[u8]) -> Result<Found, Fault> {
    let Message::Relation(relation) = pgoutput::decode(announcement)? else { return Err(Fault::TaskGone) };
    if shared.connector.mapping_for(relation.schema, relation.name).is_none() {
        return Ok(Found::NOWHERE);
    }
    let control = Control::connect_with_tls(&shared.connector.database, &shared.connector.tls).await?;
    let table = qualified(relation.schema, relation.name);
    match control.tables(relation.schema, Some(relation.name)).await?.first() {
        None => {
            tracing::warn!(connector = shared.connector.name, table, "the stream has changes of a table that is gone");
            Ok(Found::NOWHERE)
        }
        // Postgres announces partitions too, and then sends their changes as those of the partitioned table.
        Some(facts) if source::unfit(facts).is_some() => Ok(Found::NOWHERE),
        Some(_) => Err(Fault::NewTable { table }),
    }
}
