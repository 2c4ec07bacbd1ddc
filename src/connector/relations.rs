//! Look-ups for Relation messages: catalog → shape → plan → registry, beside the stream.
//!
//! The intake asks and goes on serving its connection; a task does the work. A registry that is away is waited for here,
//! with backoff, since the stream can't go on without the answer. A shape that is the same as before
//! keeps its encoder: nothing is asked anew.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::assembler::{Route, TopicRoute};
use super::fault::Fault;
use super::source::{self, Source, Table};
use crate::avro::{Encoder, Encoders};
use crate::config::Connector;
use crate::kafka::{RelationVersion, TopicId, TopicNames};
use crate::pgoutput::{self, Message, RelationMessage};
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

/// A look-up under way; ended when it is dropped.
pub struct Lookup {
    answer: Receiver<Result<Route, Fault>>,
    task: AbortHandle,
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lookup {
    /// The answer, if it comes within `wait`.
    pub fn wait(&self, wait: Duration) -> Option<Result<Route, Fault>> {
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
        let place = self
            .shared
            .source
            .tables
            .iter()
            .position(|table| table.facts.name == relation.name && table.facts.schema == relation.schema);
        let shared = Arc::clone(&self.shared);
        let announcement = announcement.to_vec();
        let task = self.runtime.spawn(async move {
            let found = match place {
                Some(place) => look_up_mapped(&shared, place, &announcement).await,
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
async fn look_up_mapped(shared: &Shared, place: usize, announcement: &[u8]) -> Result<Route, Fault> {
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

async fn try_look_up(shared: &Shared, place: usize, announcement: &[u8]) -> Result<Route, Fault> {
    let Message::Relation(relation) = pgoutput::decode(announcement)? else { return Err(Fault::TaskGone) };
    let table = &shared.source.tables[place];
    let mut known = shared.known.lock().await;
    let shape = current_shape(shared, &mut known, table, &relation).await?;
    let encoder = shared.encoders.encoder(&shape, &table.topic).await?;
    let version = version(table, &relation, &shape, &encoder);
    Ok(Route::Topic(Box::new(TopicRoute { table: table.sql_name(), topic: TopicId(place as u32), encoder, version })))
}

/// What it takes to look up values that the WAL doesn't carry, where there may be such. A table that has become a
/// partitioned one is another table.
fn version(
    table: &Table,
    relation: &RelationMessage<'_>,
    shape: &Shape,
    encoder: &Encoder,
) -> Option<Arc<RelationVersion>> {
    let rows = TableRows::new(relation, shape, table.facts.relkind == 'p')?;
    Some(Arc::new(RelationVersion { table: table.sql_name(), rows, encoder: encoder.clone() }))
}

/// The shape that the message announces, with what the catalog knows now.
async fn current_shape(
    shared: &Shared,
    known: &mut Known,
    table: &Table,
    relation: &RelationMessage<'_>,
) -> Result<Shape, Fault> {
    let control = match known.control.take() {
        Some(control) if !control.is_closed() => control,
        _ => Control::connect_with_tls(&shared.connector.database, &shared.connector.tls).await?,
    };
    let facts = control.tables(relation.schema, Some(relation.name)).await?;
    let Some(facts) = facts.into_iter().next() else {
        return Err(Fault::NewTable { table: table.sql_name() });
    };
    look_up_types(&control, relation, &mut known.types).await?;
    known.control = Some(control);
    let shape = Shape::new(relation, &facts, &known.types, &table.shape_options())?;
    // The run began with a key that the topic agrees with; the stream, being behind or ahead, may know another.
    Table { key: shape.key_columns(), ..table.clone() }.check_key(&table.key)?;
    Ok(shape)
}

/// A table that this run doesn't know: a new run takes it in if the configuration maps it and it still exists.
async fn look_up_unmapped(shared: &Shared, announcement: &[u8]) -> Result<Route, Fault> {
    let Message::Relation(relation) = pgoutput::decode(announcement)? else { return Err(Fault::TaskGone) };
    if shared.connector.mapping_for(relation.schema, relation.name).is_none() {
        return Ok(Route::Nowhere);
    }
    let control = Control::connect_with_tls(&shared.connector.database, &shared.connector.tls).await?;
    let table = qualified(relation.schema, relation.name);
    match control.tables(relation.schema, Some(relation.name)).await?.first() {
        None => {
            tracing::warn!(connector = shared.connector.name, table, "the stream has changes of a table that is gone");
            Ok(Route::Nowhere)
        }
        // Postgres announces partitions too, and then sends their changes as those of the partitioned table.
        Some(facts) if source::unfit(facts).is_some() => Ok(Route::Nowhere),
        Some(_) => Err(Fault::NewTable { table }),
    }
}
