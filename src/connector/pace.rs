//! The pace: how long rows wait for company before they are handed to Kafka, and when the intake looks away.
//!
//! A commit costs a fixed price (about 2 ms of waiting and some work of the broker), whatever it holds. While few rows
//! come, each batch follows as soon as the input has run dry: that is the latency. While many come, a batch lingers, so
//! that the price is shared by more rows; the linger grows with the rate and is bounded by `batch_max_latency`.
//!
//! Postgres writes each message with a system call of its own, and to be woken for each costs both sides more than the
//! work itself. So while data keeps coming, the intake looks away for a moment after each gulp, and finds many messages
//! at the next. Too long a look fills the socket's buffer and stalls the walsender; a Unix socket's is the smaller one.
//!
//! Pure: the clock is an argument.

use std::time::{Duration, Instant};

/// Below this rate a batch never lingers, in rows per second.
const LINGER_FROM_RATE: f64 = 5_000.0;
/// From this rate on it lingers as long as it may.
const LINGER_FULL_RATE: f64 = 40_000.0;
/// The rate is an average over about this time.
const RATE_WINDOW: Duration = Duration::from_millis(200);
/// Data that came so recently means that more is coming.
const BUSY: Duration = Duration::from_millis(1);

/// How fast rows come.
#[derive(Debug)]
pub struct Pace {
    max_linger: Duration,
    look_away: Duration,
    rate: f64,
    rate_at: Instant,
    /// When the first of the rows came that wait.
    waiting_since: Option<Instant>,
    last_data: Option<Instant>,
}

impl Pace {
    /// The pace of an intake that begins now.
    pub fn new(max_linger: Duration, look_away: Duration, now: Instant) -> Self {
        Self { max_linger, look_away, rate: 0.0, rate_at: now, waiting_since: None, last_data: None }
    }

    /// Notes that data came, and how many rows it held.
    pub fn came(&mut self, rows: usize, now: Instant) {
        self.last_data = Some(now);
        if rows > 0 {
            let elapsed = now.saturating_duration_since(self.rate_at).as_secs_f64();
            let weight = (-elapsed / RATE_WINDOW.as_secs_f64()).exp();
            self.rate = self.rate * weight + rows as f64 / RATE_WINDOW.as_secs_f64();
            self.rate_at = now;
            self.waiting_since.get_or_insert(now);
        }
    }

    /// Notes that what waited has been handed over.
    pub fn handed_over(&mut self) {
        self.waiting_since = None;
    }

    /// How long what waits is still to wait.
    pub fn wait(&self, now: Instant) -> Duration {
        let share = (self.rate - LINGER_FROM_RATE) / (LINGER_FULL_RATE - LINGER_FROM_RATE);
        let linger = self.max_linger.mul_f64(share.clamp(0.0, 1.0));
        let waited = self.waiting_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        linger.saturating_sub(waited)
    }

    /// How long to look away from the socket.
    pub fn look_away(&self, now: Instant) -> Duration {
        let busy = self.last_data.is_some_and(|last| now.saturating_duration_since(last) < BUSY);
        if busy { self.look_away } else { Duration::ZERO }
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
            pace.came(1, now);
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
            pace.came(500, now);
            pace.handed_over();
        }
        pace.came(1, now);
        assert_eq!(pace.wait(now), LINGER);
        assert_eq!(pace.wait(now + LINGER / 4), LINGER - LINGER / 4);
        assert_eq!(pace.wait(now + LINGER), Duration::ZERO);

        pace.handed_over();
        now += Duration::from_secs(5);
        pace.came(1, now);
        assert_eq!(pace.wait(now), Duration::ZERO);
    }

    #[test]
    fn one_large_burst_is_not_a_high_rate_for_long() {
        let now = Instant::now();
        let mut pace = pace(now);
        pace.came(5_000, now);
        pace.handed_over();
        let later = now + Duration::from_secs(2);
        pace.came(1, later);
        assert_eq!(pace.wait(later), Duration::ZERO);
    }

    #[test]
    fn the_intake_looks_away_only_while_data_keeps_coming() {
        let now = Instant::now();
        let mut pace = pace(now);
        assert_eq!(pace.look_away(now), Duration::ZERO);
        pace.came(0, now);
        assert_eq!(pace.look_away(now), LOOK_AWAY);
        assert_eq!(pace.look_away(now + BUSY), Duration::ZERO);
    }
}
