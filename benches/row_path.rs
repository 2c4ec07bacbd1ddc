//! Decodes and encodes as many rows as its argument says, and nothing else: `tests/bounds` counts the instructions of
//! that, with callgrind, and holds them against a bound.

mod rows;

use std::hint::black_box;

use tablecast::kafka::Batch;

/// As many rows as a batch holds in the daemon, about.
const ROWS_A_BATCH: u64 = 4_096;

fn main() {
    // `cargo bench` gives arguments of its own.
    let count: u64 = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(0);
    let (encoder, messages, mut batch) = (rows::encoder(), rows::inserts(), Batch::default());
    for (n, message) in (0..count).zip(messages.iter().cycle()) {
        if n.is_multiple_of(ROWS_A_BATCH) {
            batch.clear(usize::MAX);
        }
        rows::row(black_box(message), &encoder, &mut batch);
    }
    black_box(&batch);
}
