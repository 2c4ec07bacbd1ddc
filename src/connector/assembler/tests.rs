//! The rules of the assembler, with messages made by hand.

use super::*;
use crate::avro::Plan;
use crate::pgoutput::Commit;
use crate::postgres::catalog::ReplicaIdentity;
use crate::relation::{Column, Kind, PgType, Shape};

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
    };
    let encoder = Plan::compile(&shape, "shop").unwrap().with_ids(1, 2);
    Route::Topic(Box::new(TopicRoute { table: shape.sql_name(), topic: TopicId(5), encoder, version: None }))
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
