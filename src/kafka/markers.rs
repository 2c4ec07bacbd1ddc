//! Markers: how long after a commit the next Kafka transaction is best begun.
//!
//! A broker answers a commit before it has written the markers that end the transaction (KIP-98). Who sends a record of the
//! next one sooner is refused (`CONCURRENT_TRANSACTIONS`), and librdkafka, which tells nobody, asks again only after 20 ms.
//! How long the markers take depends on the cluster: a millisecond on one broker, several where they are replicated.
//!
//! So the wait is learned. A small transaction that was begun soon after a commit, and whose records took 20 ms longer than
//! usual, may have been refused, or have met a broker that paused. Refusals come one upon the other while the wait is too
//! short, pauses seldom do: two that are [`NEAR`] make the wait longer, and it slowly shrinks again. Nothing rests on it but
//! latency.
//!
//! Pure: times are arguments.

use std::ops::Range;
use std::time::Duration;

/// The shortest wait: one broker on a busy machine is seldom slower. librdkafka itself waits 1 ms more, after a transaction's
/// first record.
const SHORTEST: Duration = Duration::from_millis(2);
/// The longest. A transaction that is begun later than this after a commit isn't refused.
const LONGEST: Duration = Duration::from_millis(10);
/// How much longer than usual a transaction takes that was refused: librdkafka asks again after 20 ms, and its first 1 or
/// 2 ms passed before its commit was due.
const EXCESS: Range<Duration> = Duration::from_millis(17)..Duration::from_millis(30);
/// What would take its time by itself, in bytes, tells nothing.
const SMALL: u64 = 64 << 10;
/// Two suspicious transactions are near each other with fewer than so many between them.
const NEAR: u32 = 4;
/// The share of its excess that the wait loses with each transaction that is not suspicious.
const SHRINKS_BY: u32 = 2_048;
/// The share by which what is usual follows what takes longer; what takes less it follows at once, by half.
const RISES_BY: u32 = 64;

/// How long to wait after a commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Markers {
    wait: Duration,
    /// How long it usually takes until a small transaction's records have arrived.
    usual: Option<Duration>,
    /// Transactions since the last suspicious one.
    calm: u32,
}

impl Default for Markers {
    fn default() -> Self {
        Self { wait: SHORTEST, usual: None, calm: NEAR }
    }
}

impl Markers {
    /// How long to wait, of which `since_commit` has passed.
    pub(super) fn wait(&self, since_commit: Duration) -> Duration {
        self.wait.saturating_sub(since_commit)
    }

    /// The records of a transaction, of so many bytes, have arrived so long after its commit was due. It was begun so long
    /// after the commit before, if there was one.
    pub(super) fn arrived(&mut self, bytes: u64, begun_after: Option<Duration>, took: Duration) {
        if bytes > SMALL {
            return;
        }
        let usual = *self.usual.get_or_insert(took);
        self.usual = Some(match took.checked_sub(usual) {
            Some(longer) => usual + longer / RISES_BY,
            None => (usual + took) / 2,
        });
        if begun_after.is_none_or(|after| after > LONGEST) {
            return;
        }
        if !EXCESS.contains(&took.saturating_sub(usual)) {
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

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Transactions one after the other, on a cluster whose markers take so long, and which takes `usual` for the records;
    /// so many of them were refused.
    fn transactions(markers: &mut Markers, take: Duration, usual: Duration, count: usize) -> usize {
        let mut refused = 0;
        for _ in 0..count {
            let wait = markers.wait(Duration::ZERO);
            let is_refused = wait + MILLISECOND < take;
            refused += usize::from(is_refused);
            let again = if is_refused { 20 * MILLISECOND } else { Duration::ZERO };
            markers.arrived(500, Some(wait), usual + again);
        }
        refused
    }

    #[test]
    fn a_cluster_that_is_slow_to_write_markers_is_given_the_time_it_takes() {
        for millis in [4, 5, 6, 8] {
            let (mut markers, take) = (Markers::default(), millis * MILLISECOND);
            markers.arrived(500, None, 3 * MILLISECOND);
            assert!(transactions(&mut markers, take, 3 * MILLISECOND, 100) > 1);
            let refused = transactions(&mut markers, take, 3 * MILLISECOND, 10_000);
            assert!(refused < 60, "{refused} of 10,000 at {millis} ms");
            let wait = markers.wait(Duration::ZERO);
            assert!(wait < take.mul_f64(1.2), "{wait:?} at {millis} ms");
        }
    }

    #[test]
    fn a_broker_that_pauses_at_random_is_not_waited_for() {
        let (mut markers, mut random) = (Markers::default(), 1_u32);
        for _ in 0..100_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // One in 200.
            let pauses = random >> 16 < 65_536 / 200;
            markers.arrived(500, Some(2 * MILLISECOND), if pauses { 25 * MILLISECOND } else { 3 * MILLISECOND });
        }
        let wait = markers.wait(Duration::ZERO);
        assert!(wait < SHORTEST * 3 / 2, "{wait:?}");
    }

    #[test]
    fn a_cluster_that_is_far_away_is_not_waited_for() {
        let mut markers = Markers::default();
        markers.arrived(500, None, 30 * MILLISECOND);
        transactions(&mut markers, MILLISECOND, 30 * MILLISECOND, 1_000);
        assert_eq!(markers.wait(Duration::ZERO), SHORTEST);
    }

    #[test]
    fn what_was_begun_late_or_is_large_tells_nothing_of_the_markers() {
        let mut markers = Markers::default();
        transactions(&mut markers, 50 * MILLISECOND, 3 * MILLISECOND, 40);
        let learned = markers.wait(Duration::ZERO);
        for millis in [3, 25] {
            for _ in 0..1_000 {
                markers.arrived(500, Some(100 * MILLISECOND), millis * MILLISECOND);
                markers.arrived(800_000, Some(2 * MILLISECOND), millis * MILLISECOND);
            }
        }
        assert_eq!(markers.wait(Duration::ZERO), learned);
    }

    #[test]
    fn the_wait_is_bounded_and_comes_down_again() {
        let mut markers = Markers::default();
        markers.arrived(500, None, 3 * MILLISECOND);
        transactions(&mut markers, 50 * MILLISECOND, 3 * MILLISECOND, 8);
        assert_eq!(markers.wait(4 * MILLISECOND), LONGEST - 4 * MILLISECOND);
        transactions(&mut markers, Duration::ZERO, 3 * MILLISECOND, 20_000);
        assert!(markers.wait(Duration::ZERO) < SHORTEST * 11 / 10);
    }
}
