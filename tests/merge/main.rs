//! The merge test: tables are read beside the stream while sessions change them, rewrite them and truncate them, and
//! the daemon is killed; and in the end every topic is its table, and at no moment did any key go back.
//!
//! Everything is random, by a seed. Environment:
//!
//! - `TABLECAST_MERGE_SEEDS`: how many seeds, 10 by default;
//! - `TABLECAST_MERGE_SEED`: this one alone, to do the same once more (as far as the machine's timing lets it).
//!
//! How it knows. Each row carries a version that grows in the order in which the transactions of its key commit
//! ([`load`]), and a ledger says which were committed ([`ledger`]). A consumer that shares no code with the daemon reads
//! every record of the topics, and they are judged key by key ([`history`]).

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

/// Says it now, even if the test passes: libtest keeps only what `print!` prints.
macro_rules! say {
    ($($words:tt)*) => {
        {
            use std::io::Write;
            // Nobody may be listening.
            let _ = writeln!(std::io::stderr(), $($words)*);
        }
    };
}

#[path = "../fault/decode.rs"]
mod decode;
mod history;
mod late;
mod ledger;
mod load;
#[path = "../fault/logs.rs"]
#[allow(dead_code, reason = "the fault test uses the rest")]
mod logs;
#[path = "../fault/patience.rs"]
#[allow(dead_code, reason = "the fault test uses the rest")]
mod patience;
mod scenario;
mod seeds;
mod stored;
#[path = "../suite/support/mod.rs"]
#[allow(dead_code, reason = "the suite uses the rest")]
mod support;
mod tables;
mod toasted;
mod topics;

use std::time::Duration;

use fastrand::Rng;
use late::LateServer;
use scenario::Plan;
use seeds::Seeds;
use support::connector::variable;
use tables::Size;

const SEEDS: Seeds = Seeds { variable: "TABLECAST_MERGE_SEED", test: "merge", count: 10, first: None, at_once: 5 };
/// Of the seeds, one in so many is enough where every commit takes long.
const SEEDS_PER_LATE_SEED: usize = 4;

const PLAN: Plan = Plan {
    size: Size { tables: (2, 4), rows_max: 3_000 },
    sessions: (1, 3),
    chunks: &[1, 2, 2, 8],
    kills_max: 4,
    backfills_max: 3,
    load: (Duration::from_secs(1), Duration::from_secs(5)),
};

/// Every chunk waits for what the standby has not got yet: there must not be many.
const LATE_PLAN: Plan = Plan {
    size: Size { tables: (2, 3), rows_max: 600 },
    sessions: (4, 6),
    chunks: &[2, 4],
    kills_max: 1,
    load: (Duration::from_secs(2), Duration::from_secs(6)),
    ..PLAN
};

#[test]
fn chunks_merged_into_the_stream_leave_every_topic_as_its_table_and_take_no_key_back() {
    let url = variable("TABLECAST_POSTGRES_URL");
    SEEDS.run_all(1, "chunks_merged", |seed| scenario::run(seed, &url, &PLAN).summary);
}

#[test]
fn so_do_chunks_where_commits_are_decoded_long_before_they_are_visible() {
    let server = LateServer::up(&mut Rng::new());
    SEEDS.run_all(SEEDS_PER_LATE_SEED, "so_do_chunks", |seed| {
        let outcome = scenario::run(seed, &server.url, &LATE_PLAN);
        let (slowest, late) = (outcome.slowest_commit, Duration::from_millis(late::DELAY_MS.start));
        assert!(slowest >= late, "commits took {slowest:?} at most: the standby was not waited for");
        outcome.summary
    });
}
