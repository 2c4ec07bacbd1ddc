//! Markers: how long after a commit the next Kafka transaction is best begun.
//!
//! A broker answers a commit before it has written the markers that end the transaction (KIP-98). Who sends a record of the
//! next one sooner is told so (`CONCURRENT_TRANSACTIONS`), and librdkafka, which tells nobody, asks again only after 20 ms.
//! How long the markers take depends on the cluster: a millisecond on one broker, several where they are replicated.
//!
//! So the wait is learned. A small transaction whose commit waited 20 ms for its records may have met that answer, or a broker
//! that paused: the first comes again and again while the wait is too short, the second seldom. Two within
//! [`NEAR`] transactions make the wait longer, and it slowly shrinks again. No more rests on it than latency.
//!
//! Pure: times are arguments.

use std::time::Duration;

/// The shortest wait. librdkafka itself waits 1 ms after a transaction's first record.
const SHORTEST: Duration = Duration::from_micros(1_000);
/// The longest: more would be no better than what it is to prevent.
const LONGEST: Duration = Duration::from_millis(10);
/// After how long librdkafka asks again.
const ASKS_AGAIN: Duration = Duration::from_millis(20);
/// What would take its time by itself, in bytes, tells nothing.
const SMALL: u64 = 64 << 10;
/// Two suspicious transactions are near each other with fewer than so many between them.
const NEAR: u32 = 64;
/// The share of its excess that the wait loses with each transaction that is not suspicious.
const SHRINKS_BY: u32 = 4_096;

/// How long to wait after a commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Markers {
    wait: Duration,
    /// Transactions since the last suspicious one.
    calm: u32,
}

impl Default for Markers {
    fn default() -> Self {
        Self { wait: SHORTEST, calm: NEAR }
    }
}

impl Markers {
    /// How long to wait, of which `since_commit` has passed.
    pub(super) fn wait(&self, since_commit: Duration) -> Duration {
        self.wait.saturating_sub(since_commit)
    }

    /// The records of a transaction, of so many bytes, have arrived so long after its commit was due.
    pub(super) fn arrived(&mut self, bytes: u64, took: Duration) {
        if bytes > SMALL {
            return;
        }
        if took < ASKS_AGAIN {
            self.calm = self.calm.saturating_add(1);
            self.wait -= (self.wait - SHORTEST) / SHRINKS_BY;
            return;
        }
        if self.calm < NEAR {
            self.wait = (self.wait * 3 / 2).min(LONGEST);
        }
        self.calm = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a cluster whose markers take so long makes of a wait; so many transactions of which were told to wait.
    fn transactions(markers: &mut Markers, take: Duration, count: usize) -> usize {
        let mut refused = 0;
        for _ in 0..count {
            let soon = markers.wait(Duration::ZERO) + Duration::from_millis(1) < take;
            refused += usize::from(soon);
            markers.arrived(500, Duration::from_millis(if soon { 23 } else { 3 }));
        }
        refused
    }

    #[test]
    fn a_cluster_that_is_slow_to_write_markers_is_given_the_time_it_takes() {
        for millis in [2, 3, 5, 8] {
            let mut markers = Markers::default();
            transactions(&mut markers, Duration::from_millis(millis), 100);
            let refused = transactions(&mut markers, Duration::from_millis(millis), 10_000);
            assert!(refused < 30, "{refused} of 10,000 at {millis} ms");
            let wait = markers.wait(Duration::ZERO);
            assert!(wait <= Duration::from_millis(millis).mul_f64(1.5), "{wait:?} at {millis} ms");
        }
    }

    #[test]
    fn a_broker_that_pauses_now_and_then_is_not_waited_for() {
        let mut markers = Markers::default();
        for _ in 0..100 {
            transactions(&mut markers, Duration::from_millis(1), 200);
            markers.arrived(500, Duration::from_millis(40));
        }
        assert_eq!(markers.wait(Duration::ZERO), SHORTEST);
    }

    #[test]
    fn a_large_transaction_that_takes_its_time_tells_nothing() {
        let mut markers = Markers::default();
        for _ in 0..100 {
            markers.arrived(800_000, Duration::from_millis(40));
        }
        assert_eq!(markers.wait(Duration::ZERO), SHORTEST);
    }

    #[test]
    fn the_wait_is_bounded_and_comes_down_again() {
        let mut markers = Markers::default();
        transactions(&mut markers, Duration::from_millis(50), 1_000);
        assert_eq!(markers.wait(Duration::from_millis(4)), LONGEST - Duration::from_millis(4));
        transactions(&mut markers, Duration::ZERO, 100_000);
        assert!(markers.wait(Duration::ZERO) < SHORTEST * 11 / 10);
    }
}
