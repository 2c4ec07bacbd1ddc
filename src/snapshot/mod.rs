//! Reading tables beside the stream, and merging what was read where it is true.
//!
//! One mechanism serves the first snapshot of a table and every later backfill. A table is read in *chunks*, stretches of
//! `ctid`s, by several readers at once; the stream never stops for it. Each chunk goes through three steps:
//!
//! 1. **open**: its *window* opens. From the next source transaction on, the stream notes the keys that it writes to the
//!    table's topic (`windows`).
//! 2. **read** ([`reader`]): in one REPEATABLE READ transaction the table is locked against DDL, the snapshot *S* is
//!    taken, then *high*, the end of the WAL, then the shape; then the rows are read and encoded.
//! 3. **merge** (`desk`): when the stream's position has reached *high*, between two source transactions, the chunk's
//!    rows *but for those whose keys were noted* go to the sink behind all that came before, and with them what is now
//!    read of the table: records and progress in one Kafka transaction.
//!
//! # Why it is right
//!
//! Say that a source transaction is *in S* if S sees what it did. The position being an exclusive bound on commit LSNs,
//! "the stream has brought T" means that T's records precede the merge.
//!
//! **What is in S has been brought before the merge.** Its commit record was written before S was taken, and *high* after
//! that; so its commit LSN is less than *high*, and the position at the merge is not. (A position right behind a page's
//! header is counted as the page's beginning, since an idle stream never comes to it; no record starts in between.)
//!
//! **What the stream brought before the merge and is not in S has been noted.** Let T be such a transaction, with its
//! Begin coming down the stream
//! - *after the window opened*: then its keys were noted, all of them: whether to note is decided at Begin.
//! - *before*: then T had committed when S was taken, since only what has committed comes down the stream; but S doesn't
//!   see it, so it was still in progress in S: a commit is decoded before it is visible, for long where replication is
//!   synchronous. Such an S is not used (`Windows::judge`): the transactions that are in progress in S, which are those
//!   that it lists and every one from its xmax on, are compared with those that came before the window opened. Of what
//!   came down the stream in an earlier run, or so long ago that it is forgotten, one only knows that its id isn't newer
//!   than the *horizon*. If such a one is in progress in S and may have written to the heap, S isn't used either; that
//!   it hasn't is proved by its not having a lock on the heap that every writer holds until it is visible, looked at
//!   before the next S.
//!
//! **So no row of the chunk is older than its key's last record.** Let the row of key K be in S, and not noted. Of the
//! transactions that wrote K, those brought before the merge are in S (else K would be noted). The row is what the last
//! of them left, and what is brought later comes behind it in the topic. Nor does a deleted row come back: were K's
//! delete brought before the merge, it would be in S and the row not, or it would be noted. A change of the key from K to
//! L notes both; a TRUNCATE spoils the windows that are open, and their chunks are read again.
//!
//! (On a standby, *high* is how far the WAL has been replayed, which a transaction that is being replayed may be ahead of:
//! visible, and yet to be brought. Then it is in the chunk, comes down the stream after it with the same values, and the
//! two agree.)
//!
//! **And none is missing.** A row is in the topic if the stream brought its last version, or if a chunk did. Say that the
//! stream has never brought a change of it: then the row was there before the stream began to carry the table, and lies
//! where it lay (an update would have come down the stream, also one that moves the row to another block or another
//! partition). So it is enough to read, at any time, each stretch that the heap had when its reading began; what was
//! added behind it, the stream brings. That the stream carries the table from then on needs care where the table is new
//! to the publication: a transaction that wrote to it before may commit after; so the heaps' sizes are looked at only
//! when all have ended that had a writer's lock on it (`writers`). A row that isn't taken from a chunk because its key
//! was noted has been written by the stream.
//!
//! **A rewrite** (VACUUM FULL, CLUSTER, pg_repack, a rewriting ALTER) moves every row and leaves no trace in the stream.
//! It gives the heap another file node, which each chunk compares under its lock with that which the reading began with;
//! where it differs, the heap's reading starts over. The lock comes before S, so S sees what the rewrite has done.
//!
//! **A partition that is detached** is read no more: what is done with its rows from then on, the stream doesn't tell. Each
//! chunk locks the table before the partition, and asks whether it still is one.
//!
//! **DDL between chunks** is no matter: a chunk is encoded by the shape that its own transaction sees, and each record
//! names its schema. A row's last version under an older shape precedes it, by what was said above. What DDL does to rows
//! that were read already and the stream doesn't tell of, has the table read again, from the start of a run that begins
//! behind all of it (`connector/watch.rs`).
//!
//! **A crash** loses what isn't in Kafka: rows and progress are in one transaction, so that what is read again is what is
//! not in. The windows are gone with their chunks.
//!
//! # What it costs the source
//!
//! No transaction longer than one chunk takes, no lock above ACCESS SHARE, which a waiting ALTER TABLE gets ahead of
//! after each chunk, and no slot or snapshot kept. What is in memory is bounded by [`Desk`]'s batches and by what windows
//! may note: a window that grows long, since the stream is far behind its chunk, goes by the chunk's own keys from then
//! on. Where even that doesn't fit, the chunk is given up and read again, smaller.

mod desk;
mod error;
mod lines;
mod query;
mod table;
mod windows;
mod work;
mod writers;

pub mod reader;

pub use desk::{Desk, Report};
pub use error::SnapshotError;
pub use lines::Line;
pub use table::{SnapshotTable, look_up_types};
pub use work::ReadingId;
pub use writers::Waiting;
