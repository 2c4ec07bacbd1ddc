//! The rules of the assembler, with messages made by hand.

use super::*;
use crate::avro::Plan;
use crate::pgoutput::{Commit, RelationColumn, RelationMessage};
use crate::postgres::catalog::ReplicaIdentity;
use crate::relation::{Column, Kind, PgType, Shape, TableRows, Unrepresentable};

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
    let rows = TableRows { oid: 2, is_partitioned: false, is_full: false, columns: Vec::new() };
    let version = Arc::new(RelationVersion { table: shape.sql_name(), rows, encoder: encoder.clone() });
    let (table, topic) = (shape.sql_name(), TopicId(5));
    Route::Topic(Box::new(TopicRoute { table, topic, encoder, version, is_provisional: false }))
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

/// The route of a table whose text may be missing in the WAL.
fn toasted_route(is_full: bool) -> Route {
    let column = |name: &str, in_key: bool| Column {
        name: name.into(),
        pg_type: PgType { oid: 25, typmod: -1, name: "text".into(), kind: Kind::Text },
        captured: true,
        in_key,
    };
    let shape = Shape {
        oid: 2,
        schema: "public".into(),
        name: "notes".into(),
        replica_identity: if is_full { ReplicaIdentity::Full } else { ReplicaIdentity::Default },
        columns: vec![column("id", true), column("big", false)],
        key: vec![0],
        unrepresentable: Unrepresentable::Error,
    };
    let relation = RelationMessage {
        oid: 2,
        schema: "public",
        name: "notes",
        replica_identity: shape.replica_identity,
        columns: [("id", true), ("big", is_full)]
            .map(|(name, in_replica_identity)| RelationColumn { in_replica_identity, name, type_oid: 25, typmod: -1 })
            .to_vec(),
    };
    let encoder = Plan::compile(&shape, "shop").unwrap().with_ids(1, 2);
    let rows = TableRows::new(&relation, &shape, false);
    let version = Arc::new(RelationVersion { table: shape.sql_name(), rows, encoder: encoder.clone() });
    let (table, topic) = (shape.sql_name(), TopicId(6));
    Route::Topic(Box::new(TopicRoute { table, topic, encoder, version, is_provisional: false }))
}

/// `U`, of relation 2: the old key if it has changed, then the new row, with a text or without.
fn update_of(old: Option<&str>, id: &str, big: Option<&str>) -> Vec<u8> {
    fn text(text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&b"t"[..], &length, text.as_bytes()].concat()
    }
    let tuple = |kind: &[u8], cells: [Vec<u8>; 2]| [kind, &[0, 2], &cells.concat()].concat();
    let old = old.map(|old| tuple(b"K", [text(old), b"n".to_vec()])).unwrap_or_default();
    let new = tuple(b"N", [text(id), big.map_or(b"u".to_vec(), text)]);
    [&b"U\0\0\0\x02"[..], &old, &new].concat()
}

#[test]
fn an_update_that_lacks_a_value_waits_at_its_place_and_knows_where_it_comes_from() {
    let (mut assembler, mut batch) = after(Position::between(Lsn(100)), &[begin(200)]);
    assembler.announce(2, toasted_route(false));
    for frame in [update_of(None, "a", Some("v")), update_of(Some("b"), "c", None), update_of(None, "a", None)] {
        let message = crate::pgoutput::decode(&frame).unwrap();
        assembler.message(&message, &mut batch).unwrap();
    }
    // A row, the tombstone of the old key, and two rows that wait.
    assert_eq!((batch.len(), batch.pendings().len()), (4, 2));
    assert!(batch.records().nth(1).unwrap().value.is_none());
    let from = |ordinal| Provenance { xid: 1, commit_lsn: Lsn(200), position: Position { lsn: Lsn(100), ordinal } };
    assert_eq!(batch.pendings().iter().map(|pending| pending.from).collect::<Vec<_>>(), [from(2), from(3)]);
}

#[test]
fn a_value_that_is_missing_though_the_wal_should_carry_it_is_looked_up_too() {
    let (mut assembler, mut batch) = after(Position::between(Lsn(100)), &[begin(200)]);
    assembler.announce(2, toasted_route(true));
    // Of a partition that has the identity of its key alone: the old row is said to be whole, and is a key.
    let mut of_partition = update_of(Some("b"), "a", None);
    of_partition[5] = b'O';
    for frame in [update_of(None, "a", None), of_partition] {
        let message = crate::pgoutput::decode(&frame).unwrap();
        assembler.message(&message, &mut batch).unwrap();
    }
    assert_eq!((batch.len(), batch.pendings().len()), (3, 2));
    let known = batch.pendings()[1].version.rows.columns.iter().map(|column| column.in_identity);
    assert!(known.eq([true, true]));
}

#[test]
fn an_insert_that_lacks_a_value_waits_as_an_update_does() {
    let (mut assembler, mut batch) = after(Position::between(Lsn(100)), &[begin(200)]);
    assembler.announce(2, toasted_route(false));
    let mut frame = update_of(None, "a", None);
    frame[0] = b'I';
    assembler.message(&crate::pgoutput::decode(&frame).unwrap(), &mut batch).unwrap();
    assert_eq!((batch.len(), batch.pendings().len()), (1, 1));
}

#[test]
fn a_row_without_a_key_is_left_out_amid_a_change_of_the_key_and_an_error_otherwise() {
    let keyless = |kind: u8| [&[kind], &b"\0\0\0\x02"[..], if kind == b'D' { b"K" } else { b"N" }, b"\0\x01n"].concat();
    for kind in [b'I', b'D'] {
        let frame = keyless(kind);
        let message = crate::pgoutput::decode(&frame).unwrap();
        let (mut assembler, mut batch) = after(Position::between(Lsn(100)), &[begin(200)]);
        assert!(assembler.message(&message, &mut batch).is_err());

        let Route::Topic(mut provisional) = route("users") else { unreachable!() };
        provisional.is_provisional = true;
        assembler.announce(2, Route::Topic(provisional));
        assembler.message(&message, &mut batch).unwrap();
        let announced = Announced::skipped();
        assert!(batch.is_empty());
        assert_eq!(batch.changes, [positions::Change::Announced { table: "public.users".to_owned(), announced }]);
        assert_eq!(assembler.position(), Position { lsn: Lsn(100), ordinal: 2 });
    }
}
