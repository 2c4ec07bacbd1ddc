//! The pace: how long rows wait for company before they are handed to Kafka, and when the intake looks away.
//!
//! A commit costs a fixed price (about 2 ms of waiting and some work of the broker), whatever it holds. While few rows
//! come, each batch follows as soon as the input has run dry: that is the latency. While many come, a batch lingers, so
//! that the price is shared by more rows; the linger grows with the rate and is bounded by `batch_max_latency`.
//!
//! Postgres writes each message with a system call of its own, and to be woken for each costs both sides more than the
//! work itself. So while many messages come, the intake looks away for a moment after each gulp, and finds more of them at
//! the next; the more come, the longer, up to what the connection bears
//! ([`ReplicationStream::look_away`](crate::postgres::replication::ReplicationStream::look_away)).
//!
//! Pure: the clock is an argument.

use std::time::{Duration, Instant};

/// Below this rate a batch never lingers, in rows per second.
const LINGER_FROM_RATE: f64 = 5_000.0;
/// From this rate on it lingers as long as it may.
const LINGER_FULL_RATE: f64 = 40_000.0;
/// The rate is an average over about this time.
const RATE_WINDOW: Duration = Duration::from_millis(200);
/// Below this rate the intake never looks away, in frames per second. A transaction of one row has three.
const LOOK_AWAY_FROM_RATE: f64 = 10_000.0;
/// From this rate on it looks away for as long as it may. A reader that is woken for each frame gets more than that, so
/// one that is behind comes to look away.
const LOOK_AWAY_FULL_RATE: f64 = 40_000.0;
/// Data that came so recently means that more is coming.
const BUSY: Duration = Duration::from_millis(1);

/// How many come in a second: an average over about [`RATE_WINDOW`].
#[derive(Debug)]
struct Rate {
    per_second: f64,
    at: Instant,
}

impl Rate {
    fn came(&mut self, count: usize, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        let weight = (-elapsed / RATE_WINDOW.as_secs_f64()).exp();
        self.per_second = self.per_second * weight + count as f64 / RATE_WINDOW.as_secs_f64();
        self.at = now;
    }

    /// Where the rate lies between two others: 0 at or below the first, 1 at or above the second.
    fn share(&self, from: f64, to: f64) -> f64 {
        ((self.per_second - from) / (to - from)).clamp(0.0, 1.0)
    }
}

/// How fast rows come.
#[derive(Debug)]
pub struct Pace {
    max_linger: Duration,
    max_look_away: Duration,
    rows: Rate,
    frames: Rate,
    /// When the first of the rows came that wait.
    waiting_since: Option<Instant>,
    last_data: Option<Instant>,
}

impl Pace {
    /// The pace of an intake that begins now, on a connection that it may look away from for so long.
    pub fn new(max_linger: Duration, max_look_away: Duration, now: Instant) -> Self {
        let none = || Rate { per_second: 0.0, at: now };
        Self { max_linger, max_look_away, rows: none(), frames: none(), waiting_since: None, last_data: None }
    }

    /// Notes that data came: so many frames, which became so many records.
    pub fn came(&mut self, frames: usize, rows: usize, now: Instant) {
        self.last_data = Some(now);
        self.frames.came(frames, now);
        if rows > 0 {
            self.rows.came(rows, now);
            self.waiting_since.get_or_insert(now);
        }
    }

    /// Notes that what waited has been handed over.
    pub fn handed_over(&mut self) {
        self.waiting_since = None;
    }

    /// How long what waits is still to wait.
    pub fn wait(&self, now: Instant) -> Duration {
        let linger = self.max_linger.mul_f64(self.rows.share(LINGER_FROM_RATE, LINGER_FULL_RATE));
        let waited = self.waiting_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        linger.saturating_sub(waited)
    }

    /// Whether so little comes that it may lie in the socket for some milliseconds, rather than be taken piece by piece.
    pub fn is_calm(&self) -> bool {
        self.frames.share(LOOK_AWAY_FROM_RATE, LOOK_AWAY_FULL_RATE) == 0.0
    }

    /// How long to look away from the socket.
    pub fn look_away(&self, now: Instant) -> Duration {
        let busy = self.last_data.is_some_and(|last| now.saturating_duration_since(last) < BUSY);
        match busy {
            true => self.max_look_away.mul_f64(self.frames.share(LOOK_AWAY_FROM_RATE, LOOK_AWAY_FULL_RATE)),
            false => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_millis(100);
    const LOOK_AWAY: Duration = Duration::from_micros(500);

    fn pace(now: Instant) -> Pace {
        Pace::new(LINGER, LOOK_AWAY, now)
    }

    #[test]
    fn a_steady_thousand_rows_a_second_do_not_wait() {
        let mut now = Instant::now();
        let mut pace = pace(now);
        for _ in 0..2_000 {
            now += Duration::from_millis(1);
            pace.came(3, 1, now);
            assert_eq!(pace.wait(now), Duration::ZERO);
            pace.handed_over();
        }
    }

    #[test]
    fn a_high_rate_makes_rows_wait_for_company_and_a_low_one_ends_that() {
        let mut now = Instant::now();
        let mut pace = pace(now);
        for _ in 0..200 {
            now += Duration::from_millis(5);
            pace.came(1_500, 500, now);
            pace.handed_over();
        }
        pace.came(3, 1, now);
        assert_eq!(pace.wait(now), LINGER);
        assert_eq!(pace.wait(now + LINGER / 4), LINGER - LINGER / 4);
        assert_eq!(pace.wait(now + LINGER), Duration::ZERO);

        pace.handed_over();
        now += Duration::from_secs(5);
        pace.came(3, 1, now);
        assert_eq!(pace.wait(now), Duration::ZERO);
    }

    #[test]
    fn one_large_burst_is_not_a_high_rate_for_long() {
        let now = Instant::now();
        let mut pace = pace(now);
        pace.came(15_000, 5_000, now);
        pace.handed_over();
        let later = now + Duration::from_secs(2);
        pace.came(3, 1, later);
        assert_eq!(pace.wait(later), Duration::ZERO);
    }

    #[test]
    fn the_intake_looks_away_only_while_many_frames_keep_coming() {
        let mut now = Instant::now();
        let mut pace = pace(now);
        for _ in 0..1_000 {
            now += Duration::from_millis(1);
            pace.came(3, 1, now);
        }
        assert_eq!(pace.look_away(now), Duration::ZERO);
        assert!(pace.is_calm());
        for _ in 0..1_000 {
            now += Duration::from_millis(1);
            pace.came(100, 33, now);
        }
        assert_eq!(pace.look_away(now), LOOK_AWAY);
        assert!(!pace.is_calm());
        assert_eq!(pace.look_away(now + BUSY), Duration::ZERO);
    }
}
