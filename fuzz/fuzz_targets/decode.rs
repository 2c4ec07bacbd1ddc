//! Any bytes are a pgoutput message or an error, and a tuple that was accepted yields as many cells as it has columns.
//!
//! `cargo +nightly fuzz run decode fuzz/corpus/decode fuzz/seeds/decode`

#![no_main]

use libfuzzer_sys::fuzz_target;
use tablecast::pgoutput::{Message, Tuple, decode};

fn walk(tuple: &Tuple<'_>) {
    assert_eq!(tuple.cells().len(), tuple.len());
    assert_eq!(tuple.cells().count(), tuple.len());
}

fuzz_target!(|bytes: &[u8]| match decode(bytes) {
    Ok(Message::Insert { new, .. }) => walk(&new),
    Ok(Message::Update { old, new, .. }) => {
        old.iter().for_each(|old| walk(old.tuple()));
        walk(&new);
    }
    Ok(Message::Delete { old, .. }) => walk(old.tuple()),
    Ok(_) => {}
    Err(error) => {
        assert!(error.offset <= bytes.len());
        assert!(!error.to_string().is_empty());
    }
});
