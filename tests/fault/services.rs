//! Postgres, Kafka and a registry of the test's own, which it may treat as badly as it likes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Output};

use super::daemon::note;

/// An instance of `dev/services`; it goes down, with its data, when this is dropped.
pub struct Services {
    instance: String,
    variables: HashMap<String, String>,
    log: PathBuf,
    kept: bool,
}

impl Services {
    /// Starts them. What is done to them is noted in `log`. `kept` leaves them up at the end, for somebody to look at.
    pub fn up(log: PathBuf, kept: bool) -> Self {
        let instance = format!("fault-{}", std::process::id());
        let mut services = Self { instance, variables: HashMap::new(), log, kept };
        services.call(&["up"]);
        let exports = services.call(&["env"]);
        let exports = exports.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        services.variables = exports.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        services
    }

    pub fn postgres_url(&self) -> String {
        self.variable("TABLECAST_POSTGRES_URL")
    }

    pub fn kafka(&self) -> String {
        self.variable("TABLECAST_KAFKA")
    }

    pub fn registry(&self) -> String {
        self.variable("TABLECAST_REGISTRY")
    }

    /// As an administrator would: what runs is ended in order.
    pub fn restart(&self, service: &str) {
        note(&self.log, &format!("{service} is restarted"));
        self.call(&["restart", service]);
        note(&self.log, &format!("{service} is up again"));
    }

    /// As a crash would.
    pub fn crash(&self, service: &str) {
        note(&self.log, &format!("{service} crashes"));
        self.call(&["kill", service]);
        self.call(&["start", service]);
        note(&self.log, &format!("{service} is up again"));
    }

    fn variable(&self, name: &str) -> String {
        self.variables.get(name).unwrap_or_else(|| panic!("dev/services env says nothing of {name}")).clone()
    }

    fn call(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.output(arguments);
        let stderr = String::from_utf8_lossy(&stderr);
        assert!(status.success(), "dev/services {arguments:?}: {status}\n{stderr}");
        String::from_utf8_lossy(&stdout).into_owned()
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(root.join("dev/services"));
        command.args(arguments).current_dir(root).env("TABLECAST_SERVICES", &self.instance);
        command.output().expect("dev/services can be run")
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        if self.kept {
            say!("the services stay up: TABLECAST_SERVICES={} dev/services down", self.instance);
        } else {
            // A test that failed has more to say than its clean-up.
            self.output(&["down"]);
            // The instance's name is never used again, nor is its lock.
            let lock = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!(".services/{}.lock", self.instance));
            let _ = std::fs::remove_file(lock);
        }
    }
}
