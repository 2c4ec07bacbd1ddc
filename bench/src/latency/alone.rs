//! The limit of the latency: librdkafka alone, at the same rate, with no Postgres and no daemon.
//!
//! A thread begins a Kafka transaction as soon as a record is due and the one before has ended, sends what is due by
//! then and a record beside it that stands for the position, and commits: what the daemon asks of Kafka, and nothing
//! else. What this takes on a machine is the broker's share and the machine's own. (The daemon can be faster by what it
//! does more cleverly: it takes records, too, while librdkafka waits to add their partitions.)

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::Offset;
use rdkafka::producer::{BaseProducer, Producer};

use super::{LEAD, Load, Times, consume};
use crate::Bench;
use crate::limits::{self, commit, create_topic, send};
use crate::topic;

/// Until the broker has written the markers of the transaction before, less what librdkafka waits by itself: whoever begins
/// sooner waits for longer.
const MARKERS_TAKE: Duration = Duration::from_micros(1_500);
/// About as large as the 11-column table's records, and as a stored position.
const VALUE: [u8; 140] = [b'x'; 140];

/// When each record was due, in `times`; gives back when each arrived.
pub fn run(bench: &Bench, load: Load, times: &Times) -> Result<Vec<u64>> {
    let topic = format!("alone-{}-{}", bench.tag, load.rate);
    let position = format!("{topic}-position");
    create_topic(bench, &topic)?;
    create_topic(bench, &position)?;
    topic::wait_for_topic(&bench.services, &topic)?;
    let consumer = topic::consumer(&bench.services, &topic, Offset::Beginning, &topic::FAST)?;
    let producer = limits::producer(bench, &topic, &[("linger.ms", "0"), ("socket.nagle.disable", "true")])?;
    let written = AtomicU64::new(load.rows());
    std::thread::scope(|scope| {
        let consuming = scope.spawn(|| consume(&consumer, load.rows(), &written, times));
        let produced = produce(&producer, [&topic, &position], load, times);
        if produced.is_err() {
            written.store(0, Ordering::Relaxed);
        }
        let arrived = consuming.join().ok().context("the consumer panicked").and_then(|arrived| arrived);
        produced?;
        arrived
    })
}

fn produce(producer: &BaseProducer, [topic, position]: [&str; 2], load: Load, times: &Times) -> Result<()> {
    let begin = times.began + LEAD;
    let mut committed = begin;
    let mut next = 1;
    while next <= load.rows() {
        let start = (begin + load.due(next)).max(committed + MARKERS_TAKE);
        std::thread::sleep(start.saturating_duration_since(Instant::now()));
        producer.begin_transaction()?;
        while next <= load.rows() && begin + load.due(next) <= Instant::now() {
            let due = LEAD + load.due(next);
            let row = usize::try_from(next - 1)?;
            times.sent[row].store(u64::try_from(due.as_nanos())?, Ordering::Relaxed);
            times.returned[row].store(times.now(), Ordering::Relaxed);
            send(producer, topic, &topic::key_of(next), &VALUE)?;
            next += 1;
        }
        send(producer, position, b"alone", &VALUE)?;
        commit(producer)?;
        committed = Instant::now();
    }
    Ok(())
}
