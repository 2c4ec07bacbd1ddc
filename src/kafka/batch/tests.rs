//! Batches, filled by hand.

use super::*;

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
