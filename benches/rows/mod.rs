//! The rows that are counted and timed: of the table of eleven columns that `make bench` drains, as the stream and COPY
//! have them, and an encoder for them.

#![allow(dead_code, reason = "each program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a panic is how a benchmark fails")]

use tablecast::avro::{Encoder, Plan};
use tablecast::kafka::{Batch, TopicId};
use tablecast::pgoutput::{Cell, Message, decode};
use tablecast::postgres::catalog::ReplicaIdentity;
use tablecast::relation::{Column, Kind, NumericLimits, PgType, Shape, Unrepresentable};

/// Of the table, in its order.
const COLUMNS: [(&str, Kind); 11] = [
    ("id", Kind::Int8),
    ("ref", Kind::Uuid),
    ("name", Kind::Text),
    ("note", Kind::Text),
    ("qty", Kind::Int4),
    ("big", Kind::Int8),
    ("price", Kind::Numeric(Some(NumericLimits { precision: 12, scale: 2 }))),
    ("active", Kind::Bool),
    ("at", Kind::TimestampTz),
    ("day", Kind::Date),
    ("doc", Kind::Text),
];

/// How many rows are taken in turn: enough that no branch is learnt by heart.
const ROWS: u64 = 256;

/// A topic; there is but one.
pub const TOPIC: TopicId = TopicId(0);

/// The texts of a row, as Postgres writes them.
fn texts(n: u64) -> [String; 11] {
    [
        n.to_string(),
        format!("{:08x}-9675-40a8-bfeb-a4e03d5b{:04x}", n.wrapping_mul(2_654_435_761) % (1 << 32), n % 65_536),
        format!("customer {n}"),
        format!("a note of the row {}", n * 7919 % 1_000_003),
        (n % 1_000).to_string(),
        (n * 1_000_003).to_string(),
        format!("{}.{:02}", n % 1_000, n % 100),
        if n.is_multiple_of(3) { "t" } else { "f" }.to_owned(),
        format!("2026-02-{:02} 13:{:02}:58.{:06}+00", 1 + n % 28, n % 60, n * 7919 % 1_000_000),
        format!("2024-{:02}-{:02}", 1 + n % 12, 1 + n % 28),
        format!("{{\"rank\": {}, \"tags\": [\"blue\", {}]}}", n % 97, n % 7),
    ]
}

/// Where the rows begin: ids of seven digits.
fn numbers() -> impl Iterator<Item = u64> {
    1_000_000..1_000_000 + ROWS
}

/// A tuple, as pgoutput writes it.
fn tuple(texts: &[String]) -> Vec<u8> {
    let mut bytes = u16::try_from(texts.len()).unwrap().to_be_bytes().to_vec();
    for text in texts {
        bytes.push(b't');
        bytes.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// The messages of pgoutput that insert the rows.
pub fn inserts() -> Vec<Vec<u8>> {
    let message = |n| [&b"I\0\0\x40\x01N"[..], &tuple(&texts(n))].concat();
    numbers().map(message).collect()
}

/// The messages that update them, under REPLICA IDENTITY FULL: the old row, then the new one.
pub fn updates() -> Vec<Vec<u8>> {
    let message = |n| [&b"U\0\0\x40\x01O"[..], &tuple(&texts(n)), b"N", &tuple(&texts(n))].concat();
    numbers().map(message).collect()
}

/// The lines of COPY that hold the rows.
pub fn lines() -> Vec<Vec<u8>> {
    numbers().map(|n| format!("{}\n", texts(n).join("\t")).into_bytes()).collect()
}

/// The new row of an insert or an update.
pub fn cells(message: &[u8]) -> impl Iterator<Item = Cell<'_>> + Clone {
    match decode(message).unwrap() {
        Message::Insert { new, .. } | Message::Update { new, .. } => new.cells(),
        other => panic!("no row: {other:?}"),
    }
}

fn column(name: &str, kind: Kind, in_key: bool) -> Column {
    let pg_type = PgType { oid: 0, typmod: -1, name: format!("{kind:?}"), kind };
    Column { name: name.to_owned(), pg_type, captured: true, in_key }
}

/// The encoder of a table whose first column is the key.
pub fn encoder_of(columns: &[(&str, Kind)]) -> Encoder {
    let columns = columns.iter().enumerate().map(|(at, (name, kind))| column(name, kind.clone(), at == 0));
    let shape = Shape {
        oid: 0x4001,
        schema: "public".into(),
        name: "bench_rows".into(),
        replica_identity: ReplicaIdentity::Default,
        columns: columns.collect(),
        key: vec![0],
        unrepresentable: Unrepresentable::Error,
    };
    Plan::compile(&shape, "bench").unwrap().with_ids(1, 2)
}

/// The encoder of the rows.
pub fn encoder() -> Encoder {
    encoder_of(&COLUMNS)
}

/// What a row of the stream goes through: decoded, encoded, appended to the batch.
#[inline]
pub fn row(message: &[u8], encoder: &Encoder, batch: &mut Batch) {
    batch.row(TOPIC, 0, encoder, cells(message)).unwrap();
}
