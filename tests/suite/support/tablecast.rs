//! The binary, run with a configuration of its own for a database of its own.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::postgres::Database;

/// How long anything may take that is waited for.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// A connector, named after its database like everything that it has: slot, publication, topics.
pub struct Connector {
    pub database: Database,
    pub name: String,
    directory: TempDir,
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Said {
    /// The lines of stdout, each as JSON.
    pub fn lines(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// stdout as one JSON value.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: eval \"$(dev/services env)\""))
}

impl Connector {
    /// A connector for all tables of `public` in a new database with this schema.
    pub fn new(sql: &str) -> Connector {
        Connector::with_settings(sql, "")
    }

    /// The same, with further settings of the connector, and sections after it.
    pub fn with_settings(sql: &str, settings: &str) -> Connector {
        let database = Database::create();
        database.execute(sql);
        let directory = TempDir::new().unwrap();
        let connector = Connector { name: database.name.clone(), database, directory };
        let url = variable("TABLECAST_POSTGRES_URL");
        let (server, _) = url.rsplit_once('/').unwrap();
        connector.configure(&format!("{server}/{}", connector.name), settings);
        connector
    }

    /// Writes the configuration anew, with another login.
    pub fn configure_as(&self, user: &str, password: &str) {
        let url = variable("TABLECAST_POSTGRES_URL");
        let (server, _) = url.rsplit_once('/').unwrap();
        let (_, address) = server.rsplit_once('@').unwrap();
        self.configure(&format!("postgres://{user}:{password}@{address}/{}", self.name), "");
    }

    /// Writes the configuration anew.
    pub fn configure(&self, database_url: &str, settings: &str) {
        let (kafka, registry) = (variable("TABLECAST_KAFKA"), variable("TABLECAST_REGISTRY"));
        let name = &self.name;
        let config = format!(
            "[kafka]\nbootstrap_servers = \"{kafka}\"\n[registry]\nurl = \"{registry}\"\n\
             [connectors.{name}.tables.\"public.*\"]\n[connectors.{name}]\ndatabase_url = \"{database_url}\"\n{settings}"
        );
        std::fs::write(self.path("connectors.toml"), config).unwrap();
    }

    /// A path in the directory that the commands run in.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The topic of a table of `public`.
    pub fn topic(&self, table: &str) -> String {
        format!("{}.public.{table}", self.name)
    }

    /// The command, with nothing on stdin.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tablecast"));
        command.current_dir(self.directory.path()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().unwrap().into()
    }

    /// Starts `tablecast run`, and waits until it streams.
    pub fn start(&self) -> Daemon<'_> {
        let log = File::create(self.path("daemon.log")).unwrap();
        let child = self.command(&["run"]).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut daemon = Daemon { child, connector: self };
        wait_until("the daemon streams", || {
            let log = daemon.log();
            assert!(daemon.child.try_wait().unwrap().is_none(), "the daemon ended: {log}");
            log.contains("streaming")
        });
        daemon
    }

    /// Waits until the topic of `table`, folded, has so many rows, and gives its lines.
    pub fn view(&self, table: &str, rows: usize) -> Vec<serde_json::Value> {
        let mut lines = Vec::new();
        wait_until("the rows are in the topic", || {
            let said = self.run(&["tail", "--view", &self.topic(table)]);
            lines = if said.status == Some(0) { said.lines() } else { Vec::new() };
            lines.len() == rows
        });
        lines
    }
}

/// A running `tablecast run`; killed if it is dropped.
pub struct Daemon<'c> {
    child: Child,
    connector: &'c Connector,
}

impl Daemon<'_> {
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.connector.path("daemon.log")).unwrap()
    }

    /// Ends it in good order.
    pub fn stop(mut self) {
        signal(&self.child, "-TERM");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.log());
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process of ours.
pub fn signal(child: &Child, signal: &str) {
    Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
}

/// Looks at a condition until it holds.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::park_timeout(INTERVAL);
    }
}
