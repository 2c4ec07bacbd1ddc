//! A connector of its own for each test, run by the real binary.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use super::postgres::Database;
use super::topic::{self, Record};
use super::wait_for;

static VARIABLES: OnceLock<HashMap<String, String>> = OnceLock::new();

#[allow(dead_code, reason = "for tests with services of their own")]
/// Takes the variables from here rather than from the environment.
pub fn use_variables(variables: HashMap<String, String>) {
    VARIABLES.set(variables).unwrap();
}

/// A variable that `dev/services env` sets.
pub fn variable(name: &str) -> String {
    if let Some(variables) = VARIABLES.get() {
        return variables[name].clone();
    }
    let hint = "is not set: run `make test`, or `eval \"$(dev/services env)\"` first";
    std::env::var(name).unwrap_or_else(|_| panic!("{name} {hint}"))
}

/// A database, and the configuration of a connector that is named after it.
pub struct Connector {
    pub database: Database,
    dir: TempDir,
}

impl Connector {
    /// A connector of all tables that `sql` makes in the schema `public`.
    pub fn of(sql: &str) -> Self {
        Self::configured(sql, "", "[connectors.NAME.tables.\"public.*\"]")
    }

    /// With `settings` of the connector, and `tables`, in both of which NAME stands for the connector's name.
    pub fn configured(sql: &str, settings: &str, tables: &str) -> Self {
        let database = Database::create();
        database.execute(sql);
        Self::on(database, settings, tables)
    }

    /// The same, for a database that is there.
    pub fn on(database: Database, settings: &str, tables: &str) -> Self {
        let connector = Self { database, dir: tempfile::tempdir().unwrap() };
        connector.configure(settings, tables);
        connector
    }

    /// Writes the configuration anew.
    pub fn configure(&self, settings: &str, tables: &str) {
        let database = &self.database.name;
        let settings = settings.replace("NAME", database);
        let url = match settings.contains("database_url") {
            true => String::new(),
            false => format!("database_url = \"{}\"\n", self.database.url()),
        };
        let text = format!(
            "[kafka]\nbootstrap_servers = \"{}\"\n[registry]\nurl = \"{}\"\n[connectors.{database}]\n{url}{settings}\n{}\n",
            variable("TABLECAST_KAFKA"),
            variable("TABLECAST_REGISTRY"),
            tables.replace("NAME", database),
        );
        fs::write(self.config(), text).unwrap();
    }

    /// Replaces text in the configuration.
    pub fn reconfigure(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.config()).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(self.config(), text.replace(from, to)).unwrap();
    }

    pub fn name(&self) -> &str {
        &self.database.name
    }

    pub fn slot(&self) -> String {
        format!("tablecast_{}", self.name())
    }

    pub fn topic(&self, table: &str) -> String {
        format!("{}.public.{table}", self.name())
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("connectors.toml")
    }

    /// The binary with this connector's configuration.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tablecast"));
        command.arg("--config").arg(self.config()).stdin(Stdio::null());
        command
    }

    /// Starts the daemon.
    pub fn start(&self) -> Daemon {
        let number = fs::read_dir(self.dir.path()).unwrap().count();
        let log = self.dir.path().join(format!("log-{number}"));
        let child = self.command().arg("run").stdout(Stdio::null()).stderr(File::create(&log).unwrap()).spawn();
        Daemon { child: child.unwrap(), log }
    }

    /// What the daemons have said, the last one last.
    pub fn logs(&self) -> String {
        let mut logs: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        logs.retain(|path| path != &self.config());
        logs.sort();
        logs.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    /// Starts the daemon and waits until rows flow.
    pub fn start_streaming(&self) -> Daemon {
        let daemon = self.start();
        daemon.wait_for_log(" streaming ");
        daemon
    }

    /// The committed records of a table's topic, once there are `count`.
    pub fn records(&self, table: &str, count: usize) -> Vec<Record> {
        let topic = self.topic(table);
        let records = wait_for(&format!("{count} records in {topic}"), || {
            let records = topic::read(&topic);
            (records.len() >= count).then_some(records)
        });
        assert_eq!(records.len(), count, "{records:#?}");
        records
    }

    /// Waits until the slot has confirmed all WAL that there is now.
    pub fn wait_until_caught_up(&self) {
        let end = self.database.query("SELECT pg_current_wal_insert_lsn()").unwrap();
        self.database.execute("SELECT pg_logical_emit_message(false, 'test', 'so that WAL moves on')");
        wait_for("the slot to catch up", || {
            let slot = self.slot();
            let sql =
                format!("SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE slot_name = '{slot}'");
            (self.database.query(&sql).as_deref() == Some("t")).then_some(())
        });
    }
}

/// A running daemon; ended when it is dropped. In good order, as long as the test is well: a Kafka transaction that it
/// leaves open holds the starts of all other connectors up, which read the same positions topic.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for words in the log.
    pub fn wait_for_log(&self, words: &str) {
        self.wait_for_log_times(words, 1);
    }

    /// Waits until the words are so many times in the log.
    pub fn wait_for_log_times(&self, words: &str, times: usize) {
        let found = std::panic::catch_unwind(|| {
            wait_for(words, || (self.log().matches(words).count() >= times).then_some(()));
        });
        assert!(found.is_ok(), "no {words:?} ({times} times) in the log:\n{}", self.log());
    }

    /// The most that it has had resident, in KiB.
    pub fn peak_memory_kib(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Ends it as systemd would.
    pub fn terminate(mut self) -> ExitStatus {
        let pid = i32::try_from(self.child.id()).unwrap();
        let done = Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap();
        assert!(done.success());
        self.child.wait().unwrap()
    }

    /// Asks it to read its configuration again.
    pub fn hang_up(&self) {
        let done = Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ends by itself; gives its status and its log.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = wait_for("the daemon to end", || self.child.try_wait().unwrap());
        (status, self.log())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let is_running = matches!(self.child.try_wait(), Ok(None));
        if is_running && !std::thread::panicking() {
            let ended = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
            if ended.is_ok_and(|status| status.success()) {
                wait_for("the daemon to end", || self.child.try_wait().unwrap());
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
