//! Messages become records: the state of the stream between two of them, and the rules of the position.
//!
//! The assembler skips what the stored position says is in, puts the rest into the batch, and keeps the batch's
//! position right: after each Commit it is the commit's end, inside a transaction it is the bound before it and the
//! number of changes that are in. Pure: it knows no connection.

use std::collections::HashMap;
use std::sync::Arc;

use crate::avro::{EncodeError, Encoder, OldCells, fill_unchanged};
use crate::kafka::{Batch, BatchMark, TopicId};
use crate::lsn::Lsn;
use crate::pgoutput::{Begin, Cell, Cells, Message, OldTuple};
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
}

/// A message that can't become records.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// A value or a key can't be encoded.
    #[error("table {table}, key {key}: {source}")]
    Encode { table: String, key: String, source: Box<EncodeError> },
    /// The stream isn't as the protocol says.
    #[error("the replication stream is out of order: {0}")]
    OutOfOrder(&'static str),
    /// A change of a relation that no Relation message has announced.
    #[error("the replication stream is out of order: a change of relation {0}, which was not announced")]
    UnknownRelation(u32),
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
        seen: u64,
        skip: u64,
    },
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
                if let Some((route, timestamp, _)) = self.change(*relation)? {
                    upsert(route, timestamp, new.cells(), batch)?;
                }
            }
            Message::Update { relation, old, new } => {
                if let Some((route, timestamp, scratch)) = self.change(*relation)? {
                    let new = new.cells();
                    match old {
                        None => upsert(route, timestamp, new, batch)?,
                        Some(OldTuple::Key(old)) => {
                            let filled = fill_unchanged(new, OldCells::Key(old.cells()));
                            update(route, timestamp, old.cells(), filled, scratch, batch)?;
                        }
                        Some(OldTuple::Full(old)) => {
                            let filled = fill_unchanged(new, OldCells::Full(old.cells()));
                            update(route, timestamp, old.cells(), filled, scratch, batch)?;
                        }
                    }
                }
            }
            Message::Delete { relation, old } => {
                if let Some((route, timestamp, _)) = self.change(*relation)? {
                    delete(route, timestamp, old.tuple().cells(), batch)?;
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
                Place::In { timestamp, seen: 0, skip }
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
                self.boundary = Some((batch.mark(), self.position));
                batch.commit_time = Some(timestamp);
                batch.transactions += 1;
            }
        }
        Ok(())
    }

    /// Counts a change; gives its route, its timestamp and buffers to work in, or `None` if there is nothing to write.
    #[inline]
    fn change(&mut self, relation: u32) -> Result<Option<(&TopicRoute, i64, &mut Scratch)>, AssembleError> {
        match &mut self.place {
            Place::Between => Err(AssembleError::OutOfOrder("a change outside a transaction")),
            Place::AlreadyIn => Ok(None),
            Place::In { timestamp, seen, skip } => {
                *seen += 1;
                if *seen <= *skip {
                    return Ok(None);
                }
                self.position.ordinal = *seen;
                match self.routes.get(&relation) {
                    Some(Route::Topic(route)) => Ok(Some((route, *timestamp, &mut self.scratch))),
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
            Place::In { timestamp, seen, skip } => {
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
        self.boundary = None;
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

fn upsert<'a>(
    route: &TopicRoute,
    timestamp: i64,
    cells: impl Iterator<Item = Cell<'a>> + Clone,
    batch: &mut Batch,
) -> Result<(), AssembleError> {
    let row = batch.row(route.topic, timestamp, &route.encoder, cells.clone());
    row.map_err(|source| route.failed(cells, source))
}

fn delete<'a>(
    route: &TopicRoute,
    timestamp: i64,
    cells: impl Iterator<Item = Cell<'a>> + Clone,
    batch: &mut Batch,
) -> Result<(), AssembleError> {
    let mut writer = batch.record(route.topic, timestamp);
    route.encoder.encode_key(cells.clone(), writer.bytes()).map_err(|source| route.failed(cells, source))?;
    writer.tombstone();
    Ok(())
}

/// An update whose old row the WAL carries: the key may have changed, and unchanged TOASTed values may be in it.
fn update<'a>(
    route: &TopicRoute,
    timestamp: i64,
    old: Cells<'a>,
    new: impl Iterator<Item = Cell<'a>> + Clone,
    scratch: &mut Scratch,
    batch: &mut Batch,
) -> Result<(), AssembleError> {
    scratch.old.clear();
    scratch.new.clear();
    route.encoder.encode_key(old.clone(), &mut scratch.old).map_err(|source| route.failed(old, source))?;
    let key = route.encoder.encode_key(new.clone(), &mut scratch.new);
    key.map_err(|source| route.failed(new.clone(), source))?;
    if scratch.old != scratch.new {
        batch.tombstone(route.topic, timestamp, &scratch.old);
    }
    upsert(route, timestamp, new, batch)
}

impl TopicRoute {
    #[cold]
    fn failed<'a>(&self, cells: impl Iterator<Item = Cell<'a>> + Clone, source: EncodeError) -> AssembleError {
        AssembleError::Encode { table: self.table.clone(), key: self.encoder.show_key(cells), source: Box::new(source) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro::Plan;
    use crate::pgoutput::Commit;
    use crate::postgres::catalog::ReplicaIdentity;
    use crate::relation::{Column, Kind, PgType, Shape, Unrepresentable};

    fn new(position: Position) -> Assembler {
        Assembler::new(position, Desk::new(Vec::new(), 0, 0, 0))
    }

    fn begin(commit_lsn: u64) -> Message<'static> {
        Message::Begin(Begin { commit_lsn: Lsn(commit_lsn), commit_time: 0, xid: 1 })
    }

    fn commit(commit_lsn: u64, end_lsn: u64) -> Message<'static> {
        Message::Commit(Commit { commit_lsn: Lsn(commit_lsn), end_lsn: Lsn(end_lsn), commit_time: 0 })
    }

    /// Of a table that isn't mapped, or, as relation 2, of one that is.
    fn truncate(relation: u32) -> Message<'static> {
        Message::Truncate { relations: vec![relation], cascade: false, restart_identity: false }
    }

    /// The route of a table with one column, its key.
    fn route(table: &str) -> Route {
        let pg_type = PgType { oid: 23, typmod: -1, name: "integer".into(), kind: Kind::Int4 };
        let shape = Shape {
            oid: 2,
            schema: "public".into(),
            name: table.into(),
            replica_identity: ReplicaIdentity::Default,
            columns: vec![Column { name: "id".into(), pg_type, captured: true, in_key: true }],
            key: vec![0],
            unrepresentable: Unrepresentable::Error,
        };
        let encoder = Plan::compile(&shape, "shop").unwrap().with_ids(1, 2);
        Route::Topic(Box::new(TopicRoute { table: shape.sql_name(), topic: TopicId(5), encoder }))
    }

    /// An assembler at the position that has been given these messages.
    fn after(position: Position, messages: &[Message<'_>]) -> (Assembler, Batch) {
        let (mut assembler, mut batch) = (new(position), Batch::default());
        assembler.announce(1, Route::Nowhere);
        assembler.announce(2, route("users"));
        for message in messages {
            assembler.message(message, &mut batch).unwrap();
        }
        (assembler, batch)
    }

    #[test]
    fn a_keepalive_between_two_transactions_moves_the_position_and_one_within_does_not() {
        let (mut assembler, _) = after(Position::between(Lsn(100)), &[]);
        assembler.keepalive(Lsn(150));
        assert_eq!(assembler.position(), Position::between(Lsn(150)));
        assembler.message(&begin(200), &mut Batch::default()).unwrap();
        assembler.keepalive(Lsn(300));
        assert_eq!(assembler.position(), Position::between(Lsn(150)));
    }

    #[test]
    fn a_keepalive_never_moves_the_position_back() {
        let (mut assembler, _) = after(Position::between(Lsn(100)), &[]);
        assembler.keepalive(Lsn(50));
        assert_eq!(assembler.position(), Position::between(Lsn(100)));
    }

    #[test]
    fn a_keepalive_before_the_rest_of_a_split_transaction_keeps_the_ordinal() {
        let split = Position { lsn: Lsn(100), ordinal: 7 };
        let (mut assembler, _) = after(split, &[]);
        assembler.keepalive(Lsn(150));
        assert_eq!(assembler.position(), split);
    }

    #[test]
    fn a_commit_moves_the_position_to_its_end_and_what_is_in_is_skipped() {
        let (assembler, batch) = after(Position::between(Lsn(100)), &[begin(60), commit(60, 100)]);
        assert_eq!((assembler.position(), batch.transactions), (Position::between(Lsn(100)), 0));
        let (assembler, batch) = after(Position::between(Lsn(100)), &[begin(100), commit(100, 140)]);
        assert_eq!((assembler.position(), batch.transactions), (Position::between(Lsn(140)), 1));
    }

    #[test]
    fn a_batch_that_ends_within_a_transaction_has_the_bound_before_it_and_the_count_of_its_changes() {
        let (mut assembler, mut batch) = after(Position::between(Lsn(100)), &[begin(200), truncate(1), truncate(1)]);
        assembler.seal(&mut batch);
        assert_eq!((batch.end, batch.at_boundary), (Position { lsn: Lsn(100), ordinal: 2 }, false));
    }

    #[test]
    fn a_batch_that_is_sealed_at_the_boundary_ends_at_the_last_whole_transaction() {
        let messages = [begin(100), commit(100, 140), begin(200), truncate(1)];
        let (mut assembler, mut batch) = after(Position::between(Lsn(100)), &messages);
        assert!(assembler.seal_at_boundary(&mut batch));
        assert_eq!((batch.end, batch.at_boundary), (Position::between(Lsn(140)), true));
        let (mut assembler, mut batch) = after(Position::between(Lsn(100)), &[begin(200), truncate(1)]);
        assert!(!assembler.seal_at_boundary(&mut batch));
    }

    #[test]
    fn a_truncate_counts_as_in_only_once_its_tombstones_are() {
        let (mut assembler, mut batch) = after(Position::between(Lsn(100)), &[begin(200), truncate(1)]);
        let step = assembler.message(&truncate(2), &mut batch).unwrap();
        let timestamp = POSTGRES_EPOCH_MS;
        let users = Truncated { table: "public.users".into(), topic: TopicId(5), timestamp };
        assert_eq!(step, Step::Truncate(vec![users]));
        assembler.seal(&mut batch);
        assert_eq!(batch.end, Position { lsn: Lsn(100), ordinal: 1 });
        assembler.truncated();
        assembler.seal(&mut batch);
        assert_eq!(batch.end, Position { lsn: Lsn(100), ordinal: 2 });
    }

    #[test]
    fn a_truncate_that_is_in_already_empties_nothing() {
        let split = Position { lsn: Lsn(100), ordinal: 1 };
        let (mut assembler, mut batch) = after(split, &[begin(60)]);
        assert_eq!(assembler.message(&truncate(2), &mut batch).unwrap(), Step::Done);
        let (mut assembler, mut batch) = after(split, &[begin(200)]);
        assert_eq!(assembler.message(&truncate(2), &mut batch).unwrap(), Step::Done);
        assert!(matches!(assembler.message(&truncate(2), &mut batch), Ok(Step::Truncate(_))));
    }

    #[test]
    fn a_batch_is_split_where_its_last_whole_transaction_ends() {
        let messages = [begin(100), commit(100, 140), begin(200), truncate(1)];
        let (mut assembler, mut batch) = after(Position::between(Lsn(100)), &messages);
        let mut rest = Batch::default();
        batch.tombstone(TopicId(5), 0, b"of the second");
        assert!(assembler.has_boundary());
        assembler.split_at_boundary(&mut batch, &mut rest);
        assert_eq!((batch.end, batch.at_boundary, batch.len()), (Position::between(Lsn(140)), true, 0));
        assert_eq!((batch.transactions, rest.transactions, rest.len()), (1, 0, 1));
        assembler.seal(&mut rest);
        assert_eq!((rest.end, rest.at_boundary), (Position { lsn: Lsn(140), ordinal: 1 }, false));
        assert!(!assembler.has_boundary());
    }

    #[test]
    fn what_comes_out_of_order_is_an_error() {
        let mut assembler = new(Position::default());
        assert!(assembler.message(&commit(1, 2), &mut Batch::default()).is_err());
        assert!(assembler.message(&truncate(2), &mut Batch::default()).is_err());
        assembler.message(&begin(10), &mut Batch::default()).unwrap();
        assert!(assembler.message(&begin(20), &mut Batch::default()).is_err());
    }
}
