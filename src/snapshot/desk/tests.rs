//! The desk, with the reader's and the stream's part played by the test.

use super::*;
use crate::kafka::positions::SnapshotProgress;
use crate::postgres::catalog::TableName;
use crate::relation::Unrepresentable;

const TABLE: TopicId = TopicId(0);
const INITIAL: ReadingId = ReadingId::Initial(TABLE);

fn table() -> SnapshotTable {
    SnapshotTable {
        name: TableName::new("public", "t"),
        sql_name: "public.t".into(),
        oid: 1,
        key: vec!["id".into()],
        mapped_key: None,
        exclude_columns: Vec::new(),
        string_columns: Vec::new(),
        unrepresentable: Unrepresentable::Error,
    }
}

fn desk(blocks: u32) -> Arc<Desk> {
    let desk = Desk::new(vec![table()], 1, 2 << 20, 10);
    desk.add(INITIAL, TABLE, None, Reading::default());
    let Claim::Survey(Survey { reading, .. }) = desk.claim() else { panic!("a survey comes first") };
    desk.surveyed(
        reading,
        vec![HeapFacts { oid: 1, name: TableName::new("public", "t"), file_node: 2, blocks, rows: 0 }],
    );
    desk
}

fn claim(desk: &Desk) -> Taken {
    match desk.claim() {
        Claim::Chunk(taken) => *taken,
        other => panic!("{other:?}"),
    }
}

fn put(batch: &mut Batch, key: &[u8]) {
    let mut writer = batch.record(TABLE, 0);
    writer.bytes().extend_from_slice(key);
    writer.value(|_| Ok::<(), ()>(())).unwrap();
}

fn keys(batch: &Batch) -> Vec<&[u8]> {
    batch.records().map(|record| record.key).collect()
}

#[test]
fn a_chunk_is_merged_when_the_stream_has_come_to_its_snapshot_and_without_what_the_stream_changed() {
    let desk = desk(10);
    let mut taken = claim(&desk);
    assert!(desk.begin(11));
    let mut streamed = Batch::default();
    put(&mut streamed, b"b");
    desk.note(streamed.records());
    for key in [b"a", b"b", b"c"] {
        put(&mut taken.batch, key);
    }
    desk.hand_in(taken, Lsn(100));
    assert!(desk.is_waiting(Lsn(99)) && !desk.is_due(Lsn(99)));
    assert!(desk.is_due(Lsn(100)) && !desk.is_waiting(Lsn(100)));
    assert!(desk.take_merge(Lsn(99)).is_none());
    let batch = desk.take_merge(Lsn(100)).unwrap();
    assert_eq!(keys(&batch), [b"a", b"c"]);
    assert_eq!(batch.changes, [Change::Snapshot { table: "public.t".into(), progress: SnapshotProgress::Done }]);
    assert!(!desk.is_active() && !desk.is_due(Lsn(200)) && !desk.is_waiting(Lsn(0)));
    desk.take_back(batch);
}

#[test]
fn a_chunk_whose_table_was_truncated_is_read_again() {
    let desk = desk(10);
    let taken = claim(&desk);
    let stretch = taken.job.stretch;
    desk.truncated(TABLE);
    desk.hand_in(taken, Lsn(100));
    assert!(desk.take_merge(Lsn(100)).is_none());
    let again = claim(&desk);
    assert_eq!(again.job.stretch.from, stretch.from);
    assert_eq!(again.job.stretch, stretch);
}

#[test]
fn an_empty_table_is_done_without_a_chunk() {
    let desk = desk(0);
    let batch = desk.take_merge(Lsn(0)).unwrap();
    assert_eq!(batch.changes, [Change::Snapshot { table: "public.t".into(), progress: SnapshotProgress::Done }]);
    assert!(batch.is_empty() && !desk.is_active());
}

#[test]
fn a_topic_is_swept_only_when_all_is_stored_of_the_reading_before() {
    let desk = Desk::new(vec![table()], 1, 2 << 20, 10);
    desk.sweep_after(TABLE);
    desk.add(INITIAL, TABLE, None, Reading::default());
    let Claim::Survey(Survey { reading, .. }) = desk.claim() else { panic!("a survey comes first") };
    desk.surveyed(reading, Vec::new());
    assert_eq!(desk.take_sweep(), None);
    let batch = desk.take_merge(Lsn(0)).unwrap();
    let [Change::Snapshot { progress, .. }] = &batch.changes[..] else { panic!("{:?}", batch.changes) };
    assert!(matches!(progress, SnapshotProgress::Reading(_)));
    assert_eq!(desk.take_sweep(), Some(TABLE));
    desk.swept(TABLE);
    assert!(!desk.is_active());
}

#[test]
fn no_more_chunks_are_with_the_sink_than_may_be() {
    let desk = desk(10_000);
    for _ in 0..3 {
        let taken = claim(&desk);
        desk.hand_in(taken, Lsn(1));
    }
    let first = desk.take_merge(Lsn(1)).unwrap();
    assert!(desk.take_merge(Lsn(1)).is_none());
    desk.take_back(first);
    assert!(desk.take_merge(Lsn(1)).is_some());
}

#[test]
fn a_reading_ends_whose_last_heap_was_rewritten_and_is_empty() {
    let desk = desk(10);
    let taken = claim(&desk);
    desk.rewritten(taken, 3, 0);
    let batch = desk.take_merge(Lsn(0)).unwrap();
    assert_eq!(batch.changes, [Change::Snapshot { table: "public.t".into(), progress: SnapshotProgress::Done }]);
    assert!(batch.is_empty() && !desk.is_active());
}

#[test]
fn a_reading_that_was_removed_comes_to_nothing() {
    let desk = desk(10);
    let taken = claim(&desk);
    desk.remove(INITIAL);
    desk.hand_in(taken, Lsn(1));
    assert!(desk.take_merge(Lsn(1)).is_none());
    desk.close();
    assert!(matches!(desk.claim(), Claim::Closed));
}
