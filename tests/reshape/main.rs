//! The reshape test: random changes of tables' shapes, keys, partitions and of the publication, mixed with random changes
//! of rows of random types, while a daemon comes and goes and reads tables beside the stream; and in the end every topic
//! is its table, column by column.
//!
//! Everything is random, by a seed. Environment:
//!
//! - `TABLECAST_RESHAPE_SEEDS`: how many seeds, of any; without it, always the same 10;
//! - `TABLECAST_RESHAPE_SEED`: this one alone, to do the same once more (as far as the machine's timing lets it).
//!
//! Each change is made from what the catalog says at that moment ([`ddl`], [`dml`]), with values that know the extremes of
//! their types ([`kinds`]). The end is judged by Postgres itself ([`judge`]): each record is read with the schema that it
//! was written with, and with the newest one as the reader's.

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

#[path = "../suite/types/cases.rs"]
#[allow(dead_code, reason = "the suite uses the rest")]
mod cases;
#[path = "../suite/types/check.rs"]
mod check;
mod ddl;
mod dml;
mod judge;
mod kinds;
#[path = "../fault/logs.rs"]
mod logs;
#[path = "../fault/patience.rs"]
#[allow(dead_code, reason = "the fault test uses the rest")]
mod patience;
mod scenario;
#[path = "../merge/seeds.rs"]
mod seeds;
mod session;
#[path = "../merge/stored.rs"]
#[allow(dead_code, reason = "the merge test uses the rest")]
mod stored;
#[path = "../suite/support/mod.rs"]
#[allow(dead_code, reason = "the suite uses the rest")]
mod support;
mod table;

use seeds::Seeds;
use support::connector::variable;

const SEEDS: Seeds =
    Seeds { variable: "TABLECAST_RESHAPE_SEED", test: "reshape", count: 10, first: Some(1), at_once: 4 };

#[test]
fn a_topic_is_its_table_whatever_becomes_of_its_columns_its_key_and_its_partitions() {
    let url = variable("TABLECAST_POSTGRES_URL");
    SEEDS.run_all(1, "whatever_becomes", |seed| scenario::run(seed, &url));
}
