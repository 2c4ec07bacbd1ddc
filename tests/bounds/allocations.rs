//! In the steady state, when every buffer has grown to its size, a row allocates nothing.

use allocation_counter::measure;
use tablecast::kafka::Batch;
use tablecast::pgoutput::decode;
use tablecast::snapshot::Line;

use crate::rows;

/// How often `work` allocates, once it has been done before.
fn allocations(mut work: impl FnMut()) -> u64 {
    work();
    measure(work).count_total
}

#[test]
fn decoding_a_row_allocates_nothing() {
    let messages = [rows::inserts(), rows::updates()].concat();
    let decode_all = || {
        for message in &messages {
            decode(message).unwrap();
            assert_eq!(rows::cells(message).count(), 11);
        }
    };
    assert_eq!(allocations(decode_all), 0);
}

#[test]
fn encoding_a_row_allocates_nothing() {
    let (encoder, messages, mut out) = (rows::encoder(), rows::inserts(), Vec::new());
    let encode_all = || {
        out.clear();
        for message in &messages {
            encoder.encode_key(rows::cells(message), &mut out).unwrap();
            encoder.encode_value(rows::cells(message), &mut out).unwrap();
        }
    };
    assert_eq!(allocations(encode_all), 0);
}

#[test]
fn a_row_of_the_stream_allocates_nothing_on_its_way_into_the_batch() {
    let (encoder, messages, mut batch) = (rows::encoder(), rows::inserts(), Batch::default());
    let fill = || {
        batch.clear(usize::MAX);
        messages.iter().for_each(|message| rows::row(message, &encoder, &mut batch));
        assert_eq!(batch.records().count(), messages.len());
    };
    assert_eq!(allocations(fill), 0);
}

#[test]
fn a_row_of_a_snapshot_allocates_nothing_on_its_way_into_the_batch() {
    let (encoder, lines, mut line, mut batch) = (rows::encoder(), rows::lines(), Line::default(), Batch::default());
    let fill = || {
        batch.clear(usize::MAX);
        for text in &lines {
            line.parse(text);
            batch.row(rows::TOPIC, 0, &encoder, line.cells(text, 11)).unwrap();
        }
    };
    assert_eq!(allocations(fill), 0);
}

#[test]
fn an_allocation_is_counted() {
    let mut kept = Vec::new();
    assert_eq!(allocations(|| kept.push(Box::new(1))), 1, "the box; the vector has room");
}
