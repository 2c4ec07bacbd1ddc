//! Seeds: which to run, some at the same time, and what is said of each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// How a test runs its seeds.
pub struct Seeds {
    /// The environment's variable for one seed; with an S behind it, for how many.
    pub variable: &'static str,
    /// The test's binary.
    pub test: &'static str,
    pub count: usize,
    /// Where the seeds begin that are run by default; by chance, if it is `None`.
    pub first: Option<u64>,
    /// So many at the same time: most of a scenario is waiting.
    pub at_once: usize,
}

impl Seeds {
    /// Runs all seeds, or one in so many of them, and tells of each. `name` is enough of the test's name to run it.
    pub fn run_all(&self, one_in: usize, name: &str, run: impl Fn(u64) -> String + Sync) {
        let Self { variable, test, .. } = self;
        let began = Instant::now();
        let seeds = self.seeds(one_in);
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(Vec::new());
        let work = || {
            while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::SeqCst)) {
                match catch_unwind(AssertUnwindSafe(|| run(seed))) {
                    Ok(summary) => say!("  seed {seed}: {summary}"),
                    Err(panic) => {
                        let why = panic.downcast_ref::<String>().map(String::as_str);
                        let why = why.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default();
                        say!("seed {seed} failed: {variable}={seed} cargo test --test {test} {name}\n{why}");
                        failed.lock().unwrap().push(seed);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.at_once.min(seeds.len()) {
                scope.spawn(work);
            }
        });
        let failed = failed.into_inner().unwrap();
        assert!(failed.is_empty(), "{} of {} seeds failed: {variable}={failed:?}", failed.len(), seeds.len());
        say!("{name}: {} seeds, {:.0?}", seeds.len(), began.elapsed());
    }

    /// A part of what there are by default, or are asked for.
    fn seeds(&self, one_in: usize) -> Vec<u64> {
        if let Some(seed) = number(self.variable) {
            return vec![seed];
        }
        let asked = number(&format!("{}S", self.variable));
        let count = asked.map_or(self.count, |count| count as usize);
        let first = self.first.filter(|_| asked.is_none()).unwrap_or_else(|| fastrand::u64(..1_000_000_000));
        (first..).take((count / one_in).max(1)).collect()
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
}
