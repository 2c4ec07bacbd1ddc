//! Messages become records: the state of the stream between two of them, and the rules of the position.
//!
//! The assembler skips what the stored position says is in, puts the rest into the batch, and keeps the batch's
//! position right: after each Commit it is the commit's end, inside a transaction it is the bound before it and the
//! number of changes that are in. Pure: it knows no connection.
//!
//! An update that left a TOASTed value as it was, be it that a row filter makes an insert of it, becomes a record that
//! lacks it, which the batch keeps in its place until the value has been looked up (`toast`).
//!
//! Amid a change of the key a row may have none of the key that it would be written under. It is left out, and that is
//! stored with what follows it: the table is read again.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use crate::avro::{EncodeError, Encoder, fill_unchanged};
use crate::kafka::positions;
use crate::kafka::shapes::Announced;
use crate::kafka::{Batch, BatchMark, Provenance, RelationVersion, TopicId};
use crate::lsn::Lsn;
use crate::pgoutput::{Begin, Cell, Cells, Message};
use crate::position::{Position, Resume};
use crate::snapshot::Desk;

/// From 1970-01-01 to 2000-01-01, Postgres's epoch, in milliseconds.
const POSTGRES_EPOCH_MS: i64 = 946_684_800_000;

/// Where the changes of a relation go.
pub enum Route {
    /// To a topic.
    Topic(Box<TopicRoute>),
    /// Nowhere: the configuration doesn't map the table, though the publication has it.
    Nowhere,
}

/// A relation version whose changes become records.
pub struct TopicRoute {
    /// `schema.table`, as SQL writes it.
    pub table: String,
    pub topic: TopicId,
    pub encoder: Encoder,
    /// How values that the WAL doesn't carry are found.
    pub version: Arc<RelationVersion>,
    /// The key is whichever there is amid a change of it: all of these rows are written again.
    pub is_provisional: bool,
}

/// A message that can't become records.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// A value or a key can't be encoded.
    #[error("table {table}, key {key}: {source}")]
    Encode { table: String, key: String, source: Box<EncodeError> },
    /// An update left a TOASTed value as it was, and the table has nothing to find the row by.
    #[error(
        "table {table}: an update left a large value as it was, which is looked up in the table, but it has no valid unique \
         index over columns that the update tells; remedy: CREATE UNIQUE INDEX over the columns that identify a row (of a \
         partitioned table also ALTER TABLE … REPLICA IDENTITY FULL for each partition, for the updates to come)"
    )]
    NoUniqueIndex { table: String },
    /// The stream isn't as the protocol says.
    #[error("the replication stream is out of order: {0}")]
    OutOfOrder(&'static str),
    /// A change of a relation that no Relation message has announced.
    #[error("the replication stream is out of order: a change of relation {0}, which was not announced")]
    UnknownRelation(u32),
}

/// Why a change has no record.
enum Failure {
    /// It isn't to have one: the table is read again.
    LeftOut,
    Assemble(AssembleError),
}

/// What the intake has to do after a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on.
    Done,
    /// The message is a Relation: look it up, then call [`Assembler::announce`].
    Announce,
    /// The message is a Truncate: write a tombstone for every key that lives in the tables' topics, then call
    /// [`Assembler::truncated`].
    Truncate(Vec<Truncated>),
}

/// A captured table that a source transaction empties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// `schema.table`, as SQL writes it.
    pub table: String,
    pub topic: TopicId,
    /// Of the tombstones: when the source transaction committed.
    pub timestamp: i64,
}

/// Where in the stream the assembler is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Between,
    /// In a transaction that Kafka has already.
    AlreadyIn,
    /// In a transaction; `seen` counts its changes, of which the first `skip` are in Kafka already.
    In {
        timestamp: i64,
        xid: u32,
        commit_lsn: Lsn,
        seen: u64,
        skip: u64,
    },
}

/// A change that is to be written.
struct Change<'s> {
    route: &'s TopicRoute,
    timestamp: i64,
    from: Provenance,
    scratch: &'s mut Scratch,
}

/// The state of the stream.
pub struct Assembler {
    place: Place,
    /// All before it is in this batch, an earlier one, or Kafka.
    position: Position,
    routes: HashMap<u32, Route>,
    /// The end of the last whole transaction in the batch, if it holds one's end.
    boundary: Option<(BatchMark, Position)>,
    scratch: Scratch,
    /// Told what comes, for the tables that are read beside the stream.
    desk: Arc<Desk>,
    /// Whether it wants to know the keys of this transaction.
    noting: bool,
}

/// Buffers for comparing the keys of an update.
#[derive(Default)]
struct Scratch {
    old: Vec<u8>,
    new: Vec<u8>,
}

impl Assembler {
    /// A stream that goes on from what is stored.
    pub fn new(stored: Position, desk: Arc<Desk>) -> Self {
        Self {
            place: Place::Between,
            position: stored,
            routes: HashMap::new(),
            boundary: None,
            scratch: Scratch::default(),
            desk,
            noting: false,
        }
    }

    /// All before it is in the batch, an earlier one, or Kafka.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Whether the last message ended a transaction.
    pub fn is_between_transactions(&self) -> bool {
        self.place == Place::Between
    }

    /// Says where the changes of a relation go from now on.
    pub fn announce(&mut self, relation: u32, route: Route) {
        self.routes.insert(relation, route);
    }

    /// Takes a keepalive's position: every commit that starts before it has been sent. Not while the rest of a split
    /// transaction is still to come: Postgres reads on to its commit meanwhile, and the ordinal belongs to the bound.
    pub fn keepalive(&mut self, wal_end: Lsn) {
        if self.place == Place::Between && self.position.ordinal == 0 && wal_end > self.position.lsn {
            self.position = Position::between(wal_end);
        }
    }

    /// Takes a message, and appends its records to the batch.
    pub fn message(&mut self, message: &Message<'_>, batch: &mut Batch) -> Result<Step, AssembleError> {
        let noted_from = self.noting.then(|| batch.mark());
        match message {
            Message::Insert { relation, new } => {
                // It may be an update of a row that the publication's row filter had left out until then.
                if let Some(change) = self.change(*relation)? {
                    change.route.take(upsert(&change, new.cells(), batch), batch)?;
                }
            }
            Message::Update { relation, old, new } => {
                if let Some(mut change) = self.change(*relation)? {
                    let new = new.cells();
                    let done = match old {
                        None => upsert(&change, new, batch),
                        Some(old) => {
                            let old = old.tuple().cells();
                            update(&mut change, old.clone(), fill_unchanged(new, old), batch)
                        }
                    };
                    change.route.take(done, batch)?;
                }
            }
            Message::Delete { relation, old } => {
                if let Some(Change { route, timestamp, .. }) = self.change(*relation)? {
                    route.take(delete(route, timestamp, old.tuple().cells(), batch), batch)?;
                }
            }
            Message::Begin(begin) => self.begin(begin)?,
            Message::Commit(commit) => self.commit(commit.end_lsn, batch)?,
            Message::Relation(_) => return Ok(Step::Announce),
            Message::Truncate { relations, .. } => return self.truncate(relations),
            Message::Origin { .. } | Message::Type { .. } | Message::Logical { .. } => {}
        }
        if let Some(mark) = noted_from {
            self.desk.note(batch.records_since(mark));
        }
        Ok(Step::Done)
    }

    fn begin(&mut self, begin: &Begin) -> Result<(), AssembleError> {
        if self.place != Place::Between {
            return Err(AssembleError::OutOfOrder("a Begin within a transaction"));
        }
        self.place = match self.position.resume(begin.commit_lsn) {
            Resume::AlreadyIn => Place::AlreadyIn,
            Resume::AfterChanges(skip) => {
                self.noting = if skip == 0 { self.desk.begin(begin.xid) } else { self.desk.is_noting() };
                let timestamp = begin.commit_time.div_euclid(1_000).saturating_add(POSTGRES_EPOCH_MS);
                Place::In { timestamp, xid: begin.xid, commit_lsn: begin.commit_lsn, seen: 0, skip }
            }
        };
        Ok(())
    }

    fn commit(&mut self, end_lsn: Lsn, batch: &mut Batch) -> Result<(), AssembleError> {
        self.noting = false;
        match std::mem::replace(&mut self.place, Place::Between) {
            Place::Between => return Err(AssembleError::OutOfOrder("a Commit outside a transaction")),
            Place::AlreadyIn => {}
            Place::In { timestamp, .. } => {
                self.position = Position::between(end_lsn);
                batch.note_boundary(self.boundary);
                self.boundary = Some((batch.mark(), self.position));
                batch.commit_time = Some(timestamp);
                batch.transactions += 1;
            }
        }
        Ok(())
    }

    /// Counts a change; `None` if there is nothing to write.
    #[inline]
    fn change(&mut self, relation: u32) -> Result<Option<Change<'_>>, AssembleError> {
        match &mut self.place {
            Place::Between => Err(AssembleError::OutOfOrder("a change outside a transaction")),
            Place::AlreadyIn => Ok(None),
            Place::In { timestamp, xid, commit_lsn, seen, skip } => {
                *seen += 1;
                if *seen <= *skip {
                    return Ok(None);
                }
                self.position.ordinal = *seen;
                let from = Provenance { xid: *xid, commit_lsn: *commit_lsn, position: self.position };
                match self.routes.get(&relation) {
                    Some(Route::Topic(route)) => {
                        Ok(Some(Change { route, timestamp: *timestamp, from, scratch: &mut self.scratch }))
                    }
                    Some(Route::Nowhere) => Ok(None),
                    None => Err(AssembleError::UnknownRelation(relation)),
                }
            }
        }
    }

    /// A TRUNCATE is one change, whatever it empties. It counts as in only when its last tombstone is in a batch
    /// ([`truncated`](Self::truncated)): whoever goes on from a position amid them has to write all of them anew.
    fn truncate(&mut self, relations: &[u32]) -> Result<Step, AssembleError> {
        let timestamp = match &mut self.place {
            Place::Between => return Err(AssembleError::OutOfOrder("a change outside a transaction")),
            Place::AlreadyIn => return Ok(Step::Done),
            Place::In { timestamp, seen, skip, .. } => {
                *seen += 1;
                if *seen <= *skip {
                    return Ok(Step::Done);
                }
                *timestamp
            }
        };
        let mut emptied = Vec::new();
        for relation in relations {
            match self.routes.get(relation) {
                Some(Route::Topic(route)) => {
                    self.desk.truncated(route.topic);
                    emptied.push(Truncated { table: route.table.clone(), topic: route.topic, timestamp });
                }
                Some(Route::Nowhere) => {}
                None => return Err(AssembleError::UnknownRelation(*relation)),
            }
        }
        if emptied.is_empty() {
            self.truncated();
            return Ok(Step::Done);
        }
        Ok(Step::Truncate(emptied))
    }

    /// Says that the tombstones of the last Truncate are in this batch or an earlier one.
    pub fn truncated(&mut self) {
        if let Place::In { seen, .. } = self.place {
            self.position.ordinal = seen;
        }
    }

    /// Ends the batch where the stream is now, be it within a transaction.
    pub fn seal(&mut self, batch: &mut Batch) {
        batch.end = self.position;
        batch.at_boundary = self.is_between_transactions();
        batch.note_boundary(self.boundary.take());
    }

    /// Whether the batch holds the end of a whole transaction.
    pub fn has_boundary(&self) -> bool {
        self.boundary.is_some()
    }

    /// Ends the batch at the last whole transaction in it and moves what follows to `rest`. Without one, everything
    /// stays.
    pub fn split_at_boundary(&mut self, batch: &mut Batch, rest: &mut Batch) {
        let Some((mark, position)) = self.boundary.take() else { return };
        batch.move_after(mark, rest);
        batch.end = position;
        batch.at_boundary = true;
    }

    /// Ends the batch at the last whole transaction in it and drops what follows; false if there is none.
    pub fn seal_at_boundary(&mut self, batch: &mut Batch) -> bool {
        if self.is_between_transactions() {
            self.seal(batch);
            return true;
        }
        let Some((mark, position)) = self.boundary.take() else { return false };
        batch.truncate(mark);
        batch.end = position;
        batch.at_boundary = true;
        true
    }
}

/// A row as it is now, which may lack values.
fn upsert<'a>(
    change: &Change<'_>,
    cells: impl Iterator<Item = Cell<'a>> + Clone,
    batch: &mut Batch,
) -> Result<(), Failure> {
    let Change { route, timestamp, from, .. } = change;
    let row = match batch.row(route.topic, *timestamp, &route.encoder, cells.clone()) {
        Err(EncodeError::UnchangedToast { .. }) => {
            batch.pend(route.topic, *timestamp, &route.version, *from, cells.clone())
        }
        row => row,
    };
    row.map_err(|source| route.failed(cells, source))
}

fn delete<'a>(
    route: &TopicRoute,
    timestamp: i64,
    cells: impl Iterator<Item = Cell<'a>> + Clone,
    batch: &mut Batch,
) -> Result<(), Failure> {
    let mut writer = batch.record(route.topic, timestamp);
    route.encoder.encode_key(cells.clone(), writer.bytes()).map_err(|source| route.failed(cells, source))?;
    writer.tombstone();
    Ok(())
}

/// An update whose old row the WAL carries: the key may have changed, and unchanged TOASTed values may be in it.
fn update<'a>(
    change: &mut Change<'_>,
    old: Cells<'a>,
    new: impl Iterator<Item = Cell<'a>> + Clone,
    batch: &mut Batch,
) -> Result<(), Failure> {
    let Change { route, timestamp, scratch, .. } = change;
    scratch.old.clear();
    scratch.new.clear();
    route.encoder.encode_key(old.clone(), &mut scratch.old).map_err(|source| route.failed(old, source))?;
    let key = route.encoder.encode_key(new.clone(), &mut scratch.new);
    key.map_err(|source| route.failed(new.clone(), source))?;
    if scratch.old != scratch.new {
        batch.tombstone(route.topic, *timestamp, &scratch.old);
    }
    upsert(change, new, batch)
}

impl TopicRoute {
    /// What became of a change of this table.
    #[inline]
    fn take(&self, done: Result<(), Failure>, batch: &mut Batch) -> Result<(), AssembleError> {
        match done {
            Ok(()) => Ok(()),
            Err(Failure::LeftOut) => {
                let announced = Announced::skipped();
                batch.changes.push(positions::Change::Announced { table: self.table.clone(), announced });
                Ok(())
            }
            Err(Failure::Assemble(error)) => Err(error),
        }
    }

    #[cold]
    fn failed<'a>(&self, cells: impl Iterator<Item = Cell<'a>> + Clone, source: EncodeError) -> Failure {
        let has_key = || self.encoder.encode_key(cells.clone(), &mut Vec::new()).is_ok();
        if self.is_provisional && !has_key() {
            return Failure::LeftOut;
        }
        let (table, key) = (self.table.clone(), self.encoder.show_key(cells));
        Failure::Assemble(AssembleError::Encode { table, key, source: Box::new(source) })
    }
}
