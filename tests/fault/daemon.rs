//! The daemon under test: `tablecast run` as a child process.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::logs::{check_not_given_up, time_of_day};
use super::patience::{let_run_for, wait_until};

/// Starts daemons, one after the other, with one configuration and one log.
pub struct Daemons {
    config: PathBuf,
    log: PathBuf,
}

/// A running daemon; killed if it is dropped.
pub struct Daemon {
    child: Child,
    began: Instant,
    log: PathBuf,
}

impl Daemons {
    pub fn new(folder: &Path, log: PathBuf, config: &str) -> Self {
        let daemons = Self { config: folder.join("connectors.toml"), log };
        std::fs::write(&daemons.config, config).unwrap();
        daemons
    }

    pub fn start(&self) -> Daemon {
        note(&self.log, "the daemon is started");
        let log = OpenOptions::new().append(true).open(&self.log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tablecast"))
            .arg("run")
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Daemon { child, began: Instant::now(), log: self.log.clone() }
    }
}

impl Daemon {
    /// Leaves it alone for a while; fails if it ends by itself meanwhile.
    pub fn let_run_for(&mut self, duration: Duration) {
        let_run_for(duration);
        self.check_alive();
    }

    pub fn check_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the daemon has ended by itself: {status}");
        }
        check_not_given_up(&std::fs::read_to_string(&self.log).unwrap());
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        note(&self.log, &format!("killed after {:.2?}", self.began.elapsed()));
    }

    /// SIGTERM; the daemon must come to an end in good order.
    pub fn terminate(mut self, within: Duration) -> Duration {
        let began = Instant::now();
        let told = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().unwrap();
        assert!(told.success(), "kill -TERM: {told}");
        let mut status = None;
        wait_until("the daemon ends after SIGTERM", within, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), Some(0), "the daemon's exit status after SIGTERM");
        began.elapsed()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes into the log what is done to the daemon or to its services, among what the daemon says of it.
pub fn note(log: &Path, what: &str) {
    let mut log = OpenOptions::new().create(true).append(true).open(log).unwrap();
    writeln!(log, "--- {} {what}", time_of_day()).unwrap();
}
