//! How long each step of a row takes: `cargo bench --bench steps`, or a part, as in `cargo bench --bench steps -- encode`.
//!
//! The key's hash, which chooses the partition, is not here: librdkafka computes it.

mod rows;

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tablecast::kafka::Batch;
use tablecast::pgoutput::{Cell, decode};
use tablecast::relation::{Kind, NumericLimits};
use tablecast::snapshot::Line;

/// One of each encoder, with a text as it is found in tables.
const KINDS: [(Kind, &str); 14] = [
    (Kind::Bool, "t"),
    (Kind::Int4, "-18277"),
    (Kind::Int8, "9007199254740993"),
    (Kind::Float4, "0.30000001"),
    (Kind::Float8, "3.141592653589793"),
    (Kind::Numeric(Some(NumericLimits { precision: 12, scale: 2 })), "123456.78"),
    (Kind::Numeric(Some(NumericLimits { precision: 38, scale: 10 })), "1234567890123456789012345678.0123456789"),
    (Kind::Bytea, "\\x00ff00ff00ff00ff00ff00ff00ff00ff"),
    (Kind::Uuid, "1bdc120b-7e70-4373-b626-a0f5d5424645"),
    (Kind::Date, "2024-02-29"),
    (Kind::Time, "23:59:58.999999"),
    (Kind::Timestamp, "2026-02-28 13:37:58.123456"),
    (Kind::TimestampTz, "2026-02-28 13:37:58.123456+00"),
    (Kind::Text, "a note of the row 792319"),
];

/// All rows once, in each iteration.
fn steps(criterion: &mut Criterion) {
    let (encoder, inserts, updates, lines) = (rows::encoder(), rows::inserts(), rows::updates(), rows::lines());
    let mut group = criterion.benchmark_group("row");
    group.throughput(Throughput::Elements(inserts.len() as u64));
    group.bench_function("decode insert", |bench| {
        bench.iter(|| inserts.iter().for_each(|message| drop(black_box(decode(black_box(message))))));
    });
    group.bench_function("decode update with the old row", |bench| {
        bench.iter(|| updates.iter().for_each(|message| drop(black_box(decode(black_box(message))))));
    });
    let tuples: Vec<_> = inserts.iter().map(|message| rows::cells(message)).collect();
    let mut out = Vec::with_capacity(1 << 20);
    group.bench_function("plan: key", |bench| {
        bench.iter(|| {
            out.clear();
            tuples.iter().for_each(|cells| drop(black_box(encoder.encode_key(cells.clone(), &mut out))));
        });
    });
    group.bench_function("plan: value", |bench| {
        bench.iter(|| {
            out.clear();
            tuples.iter().for_each(|cells| drop(black_box(encoder.encode_value(cells.clone(), &mut out))));
        });
    });
    let mut batch = Batch::default();
    group.bench_function("append to a batch, already encoded", |bench| {
        bench.iter(|| {
            batch.clear(usize::MAX);
            inserts.iter().for_each(|message| batch.tombstone(rows::TOPIC, 0, black_box(message)));
        });
    });
    group.bench_function("stream: decode, plan, append", |bench| {
        bench.iter(|| {
            batch.clear(usize::MAX);
            inserts.iter().for_each(|message| rows::row(black_box(message), &encoder, &mut batch));
        });
    });
    let mut line = Line::default();
    group.bench_function("snapshot: parse, plan, append", |bench| {
        bench.iter(|| {
            batch.clear(usize::MAX);
            for text in &lines {
                line.parse(black_box(text));
                drop(black_box(batch.row(rows::TOPIC, 0, &encoder, line.cells(text, 11))));
            }
        });
    });
    group.bench_function("read a batch back", |bench| {
        bench.iter(|| batch.records().map(|record| black_box(record).key.len()).sum::<usize>());
    });
    group.finish();
}

/// A value of two columns, whose first is the key: a boolean, the cheapest there is.
fn encoders(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for (kind, text) in KINDS {
        let encoder = rows::encoder_of(&[("k", Kind::Bool), ("v", kind.clone())]);
        let cells = [Cell::Text(b"t"), Cell::Text(text.as_bytes())];
        group.bench_with_input(BenchmarkId::new(format!("{kind:?}"), text), &cells, |bench, cells| {
            bench.iter_batched_ref(
                || Vec::with_capacity(256),
                |out| drop(black_box(encoder.encode_value(black_box(cells).iter().copied(), out))),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(all, steps, encoders);
criterion_main!(all);
