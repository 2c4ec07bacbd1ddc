//! Waiting for those that had begun to write to a table.
//!
//! Before a table is read for the first time, they have to be done. Such a transaction may have begun before the
//! publication had the table, so that the stream lacks what it wrote; once it has ended, the chunks see that.
//! `CREATE INDEX CONCURRENTLY` waits for the same.
//!
//! On a standby the locks of the primary's writers don't show: there it is waited until everything has ended that hadn't
//! when the waiting began.

use std::time::{Duration, Instant};

use crate::postgres::catalog::Writer;
use crate::postgres::control::{Control, ControlError};

/// Who waits for so long says so, and again each time.
const TELL_AFTER: Duration = Duration::from_secs(10);

/// Who is waited for.
#[derive(Clone, Debug)]
pub struct Waiting {
    writers: Vec<Writer>,
    /// On a standby: all transactions before this one.
    before: Option<u64>,
    told: Instant,
}

impl Waiting {
    /// Who writes to the table now.
    ///
    /// # Errors
    ///
    /// If Postgres can't be asked.
    pub async fn begin(control: &Control, table: u32) -> Result<Self, ControlError> {
        let ended = control.ended().await?;
        let writers = control.writers(table).await?;
        let before = (ended.in_recovery && ended.xmin < ended.xmax).then_some(ended.xmax);
        Ok(Self { writers, before, told: Instant::now() })
    }

    /// Whether all of them have ended.
    ///
    /// # Errors
    ///
    /// If Postgres can't be asked.
    pub async fn is_over(&mut self, control: &Control, table: u32) -> Result<bool, ControlError> {
        if !self.writers.is_empty() {
            self.keep(control.writers(table).await?);
        }
        if let Some(before) = self.before
            && control.ended().await?.xmin >= before
        {
            self.before = None;
        }
        Ok(self.writers.is_empty() && self.before.is_none())
    }

    /// Keeps those that are still there. A transaction that is prepared goes by another name from then on, and its id may
    /// not have been known: then it may be any that is prepared.
    fn keep(&mut self, now: Vec<Writer>) {
        let before = std::mem::take(&mut self.writers);
        let is_one = |now: &Writer, was: &Writer| {
            now.virtual_transaction == was.virtual_transaction
                || (was.xid.is_some() && now.xid == was.xid)
                || (was.xid.is_none() && now.pid == 0)
        };
        self.writers = now.into_iter().filter(|now| before.iter().any(|was| is_one(now, was))).collect();
    }

    /// Says who is waited for, when it has taken long.
    pub fn tell(&mut self, connector: &str, table: &str) {
        if self.told.elapsed() < TELL_AFTER {
            return;
        }
        self.told = Instant::now();
        let pids: Vec<i32> = self.writers.iter().map(|writer| writer.pid).collect();
        tracing::warn!(connector, table, ?pids, "reading the table waits for transactions that have written to it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(name: &str, pid: i32, xid: Option<u32>) -> Writer {
        Writer { virtual_transaction: name.to_owned(), pid, xid }
    }

    fn left(was: Vec<Writer>, now: Vec<Writer>) -> usize {
        let mut waiting = Waiting { writers: was, before: None, told: Instant::now() };
        waiting.keep(now);
        waiting.writers.len()
    }

    #[test]
    fn who_began_later_is_not_waited_for() {
        let was = writer("3/45", 100, Some(7));
        assert_eq!(left(vec![was.clone()], vec![was.clone(), writer("4/9", 101, Some(8))]), 1);
        assert_eq!(left(vec![was], vec![writer("3/46", 100, Some(9))]), 0);
    }

    #[test]
    fn who_prepares_a_transaction_is_still_waited_for() {
        assert_eq!(left(vec![writer("3/45", 100, Some(7))], vec![writer("-1/7", 0, Some(7))]), 1);
        assert_eq!(left(vec![writer("3/45", 100, None)], vec![writer("-1/7", 0, Some(7))]), 1);
    }
}
