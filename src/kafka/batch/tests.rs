//! Batches, filled by hand.

use super::*;
use crate::avro::Plan;
use crate::lsn::Lsn;
use crate::postgres::catalog::ReplicaIdentity;
use crate::relation::{Column, Kind, PgType, Shape, TableRows, Unrepresentable};

fn put(batch: &mut Batch, key: &[u8], value: Option<&[u8]>) {
    let mut writer = batch.record(TopicId(3), 42);
    writer.bytes().extend_from_slice(key);
    match value {
        None => writer.tombstone(),
        Some(value) => writer
            .value(|bytes| {
                bytes.extend_from_slice(value);
                Ok::<(), ()>(())
            })
            .unwrap(),
    }
}

fn content(batch: &Batch) -> Vec<(&[u8], Option<&[u8]>)> {
    batch.records().map(|record| (record.key, record.value)).collect()
}

#[test]
fn gives_the_records_back_in_order() {
    let mut batch = Batch::default();
    put(&mut batch, b"a", Some(b"one"));
    put(&mut batch, b"bb", None);
    put(&mut batch, b"", Some(b""));
    assert_eq!(content(&batch), [(&b"a"[..], Some(&b"one"[..])), (b"bb", None), (b"", Some(b""))]);
    assert!(batch.records().all(|record| record.topic == TopicId(3) && record.timestamp == 42));
}

#[test]
fn a_record_that_fails_to_encode_leaves_no_trace() {
    let mut batch = Batch::default();
    put(&mut batch, b"a", Some(b"one"));
    let mut writer = batch.record(TopicId(0), 0);
    writer.bytes().extend_from_slice(b"half a key");
    let failed = writer.value(|bytes| {
        bytes.extend_from_slice(b"half a value");
        Err("no")
    });
    assert_eq!(failed, Err("no"));
    assert_eq!(content(&batch), [(&b"a"[..], Some(&b"one"[..]))]);
    assert_eq!(batch.byte_len(), 4);
}

#[test]
fn records_can_be_dropped_by_their_keys() {
    let mut batch = Batch::default();
    put(&mut batch, b"a", Some(b"one"));
    let mark = batch.mark();
    put(&mut batch, b"b", None);
    put(&mut batch, b"c", Some(b"three"));
    assert_eq!(batch.drop_records(|key| key == b"b"), 1);
    assert_eq!(content(&batch), [(&b"a"[..], Some(&b"one"[..])), (b"c", Some(b"three"))]);
    assert_eq!(batch.records_since(mark).map(|record| record.key).collect::<Vec<_>>(), [b"c"]);
}

#[test]
fn many_short_records_weigh_more_than_their_bytes() {
    let mut batch = Batch::default();
    put(&mut batch, b"a", None);
    put(&mut batch, b"b", None);
    assert_eq!(batch.weight(), 200);
    put(&mut batch, b"c", Some(&[0; 1_000]));
    assert_eq!(batch.weight(), batch.byte_len());
}

#[test]
fn truncating_drops_what_came_after_the_mark() {
    let mut batch = Batch::default();
    put(&mut batch, b"a", Some(b"one"));
    let mark = batch.mark();
    put(&mut batch, b"b", None);
    batch.truncate(mark);
    assert_eq!(content(&batch), [(&b"a"[..], Some(&b"one"[..]))]);
}

#[test]
fn what_came_after_the_mark_can_go_to_another_batch() {
    let (mut batch, mut rest) = (Batch::default(), Batch::default());
    put(&mut batch, b"a", Some(b"one"));
    let mark = batch.mark();
    put(&mut batch, b"b", None);
    put(&mut batch, b"c", Some(b"three"));
    batch.move_after(mark, &mut rest);
    assert_eq!(content(&batch), [(&b"a"[..], Some(&b"one"[..]))]);
    assert_eq!(content(&rest), [(&b"b"[..], None), (b"c", Some(&b"three"[..]))]);
}

/// A version of a table with a key and a text, of which an update may carry only the key.
fn version() -> Arc<RelationVersion> {
    let column = |name: &str, kind: Kind, in_key: bool| Column {
        name: name.into(),
        pg_type: PgType { oid: 25, typmod: -1, name: "text".into(), kind },
        captured: true,
        in_key,
    };
    let shape = Shape {
        oid: 1,
        schema: "public".into(),
        name: "t".into(),
        replica_identity: ReplicaIdentity::Default,
        columns: vec![column("id", Kind::Text, true), column("big", Kind::Text, false)],
        key: vec![0],
        unrepresentable: Unrepresentable::Error,
    };
    let encoder = Plan::compile(&shape, "shop").unwrap().with_ids(1, 2);
    let rows = TableRows { oid: 1, is_partitioned: false, is_full: false, columns: Vec::new() };
    Arc::new(RelationVersion { table: "public.t".into(), rows, encoder })
}

fn pend(batch: &mut Batch, key: &[u8], ordinal: u64) {
    let from = Provenance { xid: 7, commit_lsn: Lsn(9), position: Position { lsn: Lsn(5), ordinal } };
    batch.pend(TopicId(3), 42, &version(), from, [Cell::Text(key), Cell::Unchanged].into_iter()).unwrap();
}

fn kept(batch: &Batch) -> Vec<(Vec<Cell<'_>>, u64)> {
    let all = batch.pendings().iter();
    all.map(|pending| (batch.kept(pending).collect(), pending.from.position.ordinal)).collect()
}

#[test]
fn a_record_that_lacks_a_value_has_its_place_and_its_key() {
    let mut batch = Batch::default();
    put(&mut batch, b"a", Some(b"one"));
    pend(&mut batch, b"key", 1);
    put(&mut batch, b"c", None);
    assert_eq!((batch.len(), batch.pendings().len()), (3, 1));
    let key = batch.records().nth(1).unwrap().key;
    assert!(key.ends_with(b"key"), "{key:?}");
    assert_eq!(batch.records().nth(2).unwrap().key, b"c");
    assert_eq!(kept(&batch), [(vec![Cell::Text(b"key"), Cell::Unchanged], 1)]);
}

#[test]
fn a_key_that_cannot_be_encoded_leaves_no_trace_of_the_record() {
    let mut batch = Batch::default();
    put(&mut batch, b"a", Some(b"one"));
    let from = Provenance { xid: 7, commit_lsn: Lsn(9), position: Position::default() };
    let cells = [Cell::Unchanged, Cell::Unchanged].into_iter();
    assert!(batch.pend(TopicId(3), 42, &version(), from, cells).is_err());
    assert_eq!((batch.len(), batch.pendings().len(), batch.weight()), (1, 0, 100));
}

#[test]
fn what_lacks_a_value_is_truncated_and_moved_with_the_records_around_it() {
    let (mut batch, mut rest) = (Batch::default(), Batch::default());
    put(&mut rest, b"z", None);
    pend(&mut rest, b"first", 1);
    pend(&mut batch, b"stays", 2);
    let mark = batch.mark();
    put(&mut batch, b"a", Some(b"one"));
    pend(&mut batch, b"moves", 3);
    batch.move_after(mark, &mut rest);
    assert_eq!(kept(&batch), [(vec![Cell::Text(b"stays"), Cell::Unchanged], 2)]);
    let moved = [(vec![Cell::Text(b"first"), Cell::Unchanged], 1), (vec![Cell::Text(b"moves"), Cell::Unchanged], 3)];
    assert_eq!(kept(&rest), moved);
    // The places fit: each is found behind what precedes it.
    let (mut walk, mut out) = (rest.rest(), Batch::default());
    assert!(walk.next(&mut out).is_some() && out.len() == 1);
    assert!(walk.next(&mut out).is_some() && out.len() == 2);
    assert!(walk.next(&mut out).is_none());
    rest.truncate(Mark::default());
    assert_eq!((rest.len(), rest.pendings().len(), rest.weight()), (0, 0, 0));
}

#[test]
fn a_batch_that_is_written_out_in_parts_is_cut_where_a_source_transaction_ends() {
    let at = |lsn| Position::between(Lsn(lsn));
    let mut batch = Batch::default();
    put(&mut batch, b"a", Some(b"one"));
    // Nothing is noted before something is lacking: what is passed on whole is cut nowhere.
    batch.note_boundary(Some((batch.mark(), at(1))));
    pend(&mut batch, b"first", 1);
    put(&mut batch, b"b", None);
    batch.note_boundary(Some((batch.mark(), at(2))));
    put(&mut batch, b"c", None);
    pend(&mut batch, b"second", 1);
    batch.note_boundary(Some((batch.mark(), at(3))));
    pend(&mut batch, b"third", 1);
    pend(&mut batch, b"fourth", 2);

    let (mut rest, mut out) = (batch.rest(), Batch::default());
    let next = |rest: &mut Rest<'_>, out: &mut Batch| {
        let waiting = rest.next(out).unwrap();
        waiting.complete([Cell::Text(b"key"), Cell::Text(b"large")].into_iter(), out).unwrap();
    };
    let split = |rest: &mut Rest<'_>, out: Batch| {
        let (mut part, mut out) = (out, Batch::default());
        rest.split_at_boundary(&mut part, &mut out);
        ((part.len(), part.at_boundary, part.end), out)
    };
    next(&mut rest, &mut out);
    let (part, mut out) = split(&mut rest, out);
    assert_eq!((part, out.len()), ((2, false, Position::default()), 0));
    // The end lies right behind what was completed last, and what is between the two is taken along.
    next(&mut rest, &mut out);
    let (part, mut out) = split(&mut rest, out);
    assert_eq!((part, out.len()), ((3, true, at(3)), 0));
    next(&mut rest, &mut out);
    next(&mut rest, &mut out);
    let (part, out) = split(&mut rest, out);
    assert_eq!((part, out.len()), ((2, false, Position::default()), 0));

    // In one go: what lies behind the last end stays.
    let (mut rest, mut out) = (batch.rest(), Batch::default());
    (0..3).for_each(|_| next(&mut rest, &mut out));
    let (part, out) = split(&mut rest, out);
    assert_eq!((part, out.len()), ((5, true, at(3)), 1));
}

#[test]
fn a_batch_is_written_out_in_order_with_what_it_lacked_or_without_the_record() {
    let mut batch = Batch::default();
    put(&mut batch, b"a", Some(b"one"));
    pend(&mut batch, b"found", 1);
    put(&mut batch, b"b", None);
    pend(&mut batch, b"gone", 2);
    put(&mut batch, b"c", Some(b"three"));
    let (mut rest, mut out) = (batch.rest(), Batch::default());
    let waiting = rest.next(&mut out).unwrap();
    let lacking = [Cell::Text(b"found"), Cell::Unchanged].into_iter();
    assert!(matches!(waiting.complete(lacking, &mut out), Err(EncodeError::UnchangedToast { .. })));
    waiting.complete([Cell::Text(b"found"), Cell::Text(b"large")].into_iter(), &mut out).unwrap();
    assert!(rest.next(&mut out).is_some());
    assert!(rest.next(&mut out).is_none());
    let content = content(&out);
    assert_eq!(content.len(), 4);
    assert_eq!(content[0], (&b"a"[..], Some(&b"one"[..])));
    assert!(content[1].0.ends_with(b"found") && content[1].1.unwrap().ends_with(b"large"));
    assert_eq!(content[2..], [(&b"b"[..], None), (b"c", Some(&b"three"[..]))]);
    assert!(out.pendings().is_empty());
}
