//! The position: how far the stream is in Kafka, and the rules by which it moves.
//!
//! A [`Position`] is `(lsn, ordinal)`. `lsn` is an exclusive bound on *commit* LSNs: a source transaction is in if its
//! commit LSN, which Begin announces, is less than it. So the *end* LSN of the last transaction that is in serves, and
//! so does a keepalive's `wal_end`: Postgres has by then sent every commit that starts before it. A commit LSN itself
//! would not serve, since a commit record can start exactly where a keepalive ended.
//!
//! `ordinal` is how many row changes of the transaction that comes next are in. It is 0 but for a transaction that
//! outlived Kafka's transaction timeout and had to be split.
//!
//! Nothing compares the LSN of a single change: several rows can share one, in-progress transactions overlap, and from
//! Postgres 17 on a commit's end LSN can equal the LSN of the next change.

use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;

/// How far the stream is: everything before it is in, nothing after it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Every source transaction whose commit LSN is less than this is in, whole.
    pub lsn: Lsn,
    /// How many row changes of the next source transaction are in.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ordinal: u64,
}

fn is_zero(ordinal: &u64) -> bool {
    *ordinal == 0
}

impl Position {
    /// The position between two source transactions, with all before `lsn` in.
    pub fn between(lsn: Lsn) -> Position {
        Position { lsn, ordinal: 0 }
    }

    /// Where to take up a source transaction whose Begin announces `commit_lsn`.
    pub fn resume(self, commit_lsn: Lsn) -> Resume {
        if commit_lsn < self.lsn { Resume::AlreadyIn } else { Resume::AfterChanges(self.ordinal) }
    }
}

/// What the stored position says of a source transaction that comes down the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// All of it is in Kafka: skip it.
    AlreadyIn,
    /// Its first so many row changes are in Kafka (0 for all but a split one): go on after them.
    AfterChanges(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_that_ended_at_the_position_is_in() {
        let position = Position::between(Lsn(100));
        assert_eq!(position.resume(Lsn(60)), Resume::AlreadyIn);
        assert_eq!(position.resume(Lsn(99)), Resume::AlreadyIn);
    }

    #[test]
    fn a_transaction_whose_commit_record_starts_at_the_position_is_not_in() {
        assert_eq!(Position::between(Lsn(100)).resume(Lsn(100)), Resume::AfterChanges(0));
    }

    #[test]
    fn a_split_transaction_is_taken_up_after_the_changes_that_are_in() {
        let position = Position { lsn: Lsn(100), ordinal: 7 };
        assert_eq!(position.resume(Lsn(250)), Resume::AfterChanges(7));
    }
}
