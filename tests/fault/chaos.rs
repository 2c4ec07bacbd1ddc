//! What is done to the daemon and to its services: kills at random moments, restarts and crashes beside them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use fastrand::Rng;

use super::patience::let_run_for;
use super::services::Services;

/// So many kills of the daemon come with one more of each kind of disturbance.
const KILLS_PER_DISTURBANCE: usize = 12;
/// How long the services are left alone between two disturbances: long enough for a daemon to get on now and then.
const CALM_MS: std::ops::Range<u64> = 2_000..8_000;

#[derive(Clone, Copy, Debug)]
enum Disturbance {
    Restart(&'static str),
    Crash(&'static str),
}

const KINDS: [Disturbance; 4] = [
    Disturbance::Restart("kafka"),
    Disturbance::Crash("kafka"),
    Disturbance::Restart("postgres"),
    Disturbance::Crash("postgres"),
];

/// Restarts and crashes the services, one after the other, in a thread of its own. It has the services locked while it
/// is at it, so whoever needs them up takes the lock.
pub struct Disturber {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    pub count: usize,
}

impl Disturber {
    pub fn start(services: &Arc<Mutex<Services>>, kills: usize, mut rng: Rng) -> Self {
        let mut disturbances = KINDS.repeat((kills / KILLS_PER_DISTURBANCE).max(1));
        rng.shuffle(&mut disturbances);
        let count = disturbances.len();
        let stop = Arc::new(AtomicBool::new(false));
        let (services, stop_there) = (Arc::clone(services), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for disturbance in disturbances {
                let_run_for(Duration::from_millis(rng.u64(CALM_MS)));
                if stop_there.load(Ordering::Relaxed) {
                    return;
                }
                // The test has failed with the lock in its hands: nothing is left to disturb.
                let Ok(services) = services.lock() else { return };
                disturb(&services, disturbance);
            }
        });
        Self { thread: Some(thread), stop, count }
    }

    pub fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the last of them.
    pub fn finish(mut self) {
        let thread = self.thread.take().expect("it is taken only here and by drop");
        thread.join().expect("the services obey");
    }
}

impl Drop for Disturber {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has said what went wrong.
            let _ = thread.join();
        }
    }
}

fn disturb(services: &Services, disturbance: Disturbance) {
    say!("  {disturbance:?}");
    match disturbance {
        Disturbance::Restart(service) => services.restart(service),
        Disturbance::Crash(service) => services.crash(service),
    }
}

/// How long a daemon lives: some are killed while they start, some when they have just begun, some at work.
pub fn life(rng: &mut Rng) -> Duration {
    Duration::from_millis(match rng.u8(..10) {
        0..=2 => rng.u64(0..400),
        3..=4 => rng.u64(400..1_500),
        _ => rng.u64(1_500..6_000),
    })
}
