//! When to try again: exponential backoff with full jitter.
//!
//! A connector that fails starts anew as after a crash, so all that is to decide is how long to wait. Full jitter (any
//! delay up to the ceiling) keeps connectors that fell together from getting up together.

use std::time::Duration;

/// The ceiling of the first delay: about what a broker's or a server's restart of a connection takes.
const BASE: Duration = Duration::from_millis(250);
/// No ceiling is higher: after a long outage, work goes on within half a minute.
const MAX: Duration = Duration::from_secs(30);
/// Whoever worked for so long has recovered: the next failure is a new one.
const HEALTHY: Duration = Duration::from_secs(60);

/// How long to wait before the next attempt. Asks no clock: the caller says how long the last attempt worked.
#[derive(Clone, Debug)]
pub struct Backoff {
    failures: u32,
    random: fastrand::Rng,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { failures: 0, random: fastrand::Rng::new() }
    }
}

impl Backoff {
    /// The delays of this seed, always the same ones.
    pub fn seeded(seed: u64) -> Backoff {
        Backoff { failures: 0, random: fastrand::Rng::with_seed(seed) }
    }

    /// The last attempt failed, after it had worked for so long: how long to wait now.
    pub fn failed_after(&mut self, worked: Duration) -> Duration {
        if worked >= HEALTHY {
            self.failures = 0;
        }
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(self.random.f64())
    }

    /// How often in a row it failed.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The next delay is below this.
    fn ceiling(&self) -> Duration {
        // 2^7 times the base is past the maximum already; more would only overflow.
        (BASE * 2_u32.pow(self.failures.min(7))).min(MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum() {
        let mut backoff = Backoff::seeded(1);
        let ceilings: Vec<_> = (0..9)
            .map(|_| {
                let ceiling = backoff.ceiling().as_millis();
                backoff.failed_after(Duration::ZERO);
                ceiling
            })
            .collect();
        assert_eq!(ceilings, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
    }

    #[test]
    fn every_delay_is_below_its_ceiling_and_they_differ() {
        let mut backoff = Backoff::seeded(2);
        let mut delays = Vec::new();
        for _ in 0..1000 {
            let ceiling = backoff.ceiling();
            let delay = backoff.failed_after(Duration::ZERO);
            assert!(delay < ceiling);
            delays.push(delay);
        }
        delays.sort();
        delays.dedup();
        assert!(delays.len() > 900);
        assert!(delays[delays.len() - 1] > MAX / 2);
    }

    #[test]
    fn a_healthy_period_starts_it_over() {
        let mut backoff = Backoff::seeded(3);
        for _ in 0..20 {
            backoff.failed_after(HEALTHY - Duration::from_millis(1));
        }
        assert_eq!((backoff.ceiling(), backoff.failures()), (MAX, 20));
        assert!(backoff.failed_after(HEALTHY) < BASE);
        assert_eq!((backoff.ceiling(), backoff.failures()), (BASE * 2, 1));
    }

    #[test]
    fn it_never_overflows() {
        let mut backoff = Backoff { failures: u32::MAX, random: fastrand::Rng::with_seed(4) };
        assert!(backoff.failed_after(Duration::ZERO) < MAX);
        assert_eq!(backoff.failures(), u32::MAX);
    }
}
