//! The daemon under measurement, by its outer contract alone: a configuration, `run`, and `/status`.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::Bench;
use crate::http;
use crate::process::{Watched, log_tail};
use crate::services::Via;
use crate::stored::Stored;

/// How often the daemon is asked how far it is, where the answer matters: it costs the daemon some CPU, which is measured.
pub const POLL: Duration = Duration::from_millis(20);
/// How often it is asked at least.
const POLL_MAX: Duration = Duration::from_millis(500);
/// Before anything has come, it is asked after this part more of the time that it took so far.
const POLL_SHARE: u32 = 50;
/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connector of the configuration; slot, publication and topic derive from its name.
#[derive(Clone, Debug)]
pub struct Connector {
    pub name: String,
    pub via: Via,
    pub delivery: Delivery,
    /// Of the schema `public`.
    pub tables: Vec<String>,
}

/// What the daemon promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    ExactlyOnce,
    AtLeastOnce,
}

impl Delivery {
    /// As the configuration has it.
    pub fn written(self) -> &'static str {
        match self {
            Delivery::ExactlyOnce => "exactly-once",
            Delivery::AtLeastOnce => "at-least-once",
        }
    }
}

impl Connector {
    /// Of these tables, exactly once.
    pub fn new(name: String, via: Via, tables: &[&str]) -> Self {
        let tables = tables.iter().map(|table| (*table).to_owned()).collect();
        Self { name, via, delivery: Delivery::ExactlyOnce, tables }
    }

    pub fn slot(&self) -> String {
        format!("tablecast_{}", self.name.replace('-', "_"))
    }

    pub fn topic(&self, table: &str) -> String {
        format!("{}.public.{table}", self.name)
    }
}

/// A running daemon.
pub struct Daemon {
    pub process: Watched,
    http: SocketAddr,
    log: PathBuf,
}

/// What `/status` says of one connector.
#[derive(Debug)]
pub struct Status {
    pub phase: String,
    /// Committed to Kafka since the daemon's start.
    pub records: u64,
}

/// When a backlog's changes were committed.
pub struct Drained {
    /// When the first were seen, and how many those were.
    pub first: Instant,
    pub seen: u64,
    pub last: Instant,
    changes: u64,
}

impl Drained {
    /// Rows a second, from the first that were seen to the last.
    pub fn rate(&self) -> f64 {
        (self.changes - self.seen) as f64 / (self.last - self.first).as_secs_f64().max(POLL.as_secs_f64())
    }
}

impl Daemon {
    /// Starts it with these connectors.
    pub fn start(bench: &Bench, database: &str, connectors: &[Connector]) -> Result<Self> {
        let name = connectors.first().map_or("none", |connector| connector.name.as_str());
        let http = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = bench.work.join(format!("{name}.toml"));
        fs::write(&config, configuration(bench, database, connectors, http)?)?;
        let log = bench.work.join(format!("{name}.log"));
        let mut command = Command::new(&bench.tablecast);
        command.arg("--config").arg(&config).arg("run");
        Ok(Self { process: Watched::spawn(&mut command, &log)?, http, log })
    }

    /// What it says of the connector, which must not have been interrupted; `None` while it does not answer yet.
    pub fn status(&mut self, connector: &Connector) -> Result<Option<Status>> {
        let status = self.look(connector)?;
        if status.as_ref().is_some_and(|status| status.phase == "retrying") {
            bail!("the connector was interrupted:\n{}", log_tail(&self.log));
        }
        Ok(status)
    }

    fn look(&mut self, connector: &Connector) -> Result<Option<Status>> {
        ensure!(!self.process.has_ended(), "the daemon has ended:\n{}", log_tail(&self.log));
        let Ok(answer) = http::get(self.http, "/status") else { return Ok(None) };
        let body = answer.body;
        let json: Value = serde_json::from_str(&body).with_context(|| format!("/status answered {body:?}"))?;
        let connectors = json["connectors"].as_array().context("/status lists no connectors")?;
        let shown = connectors.iter().find(|shown| shown["connector"] == connector.name.as_str());
        let shown = shown.with_context(|| format!("/status does not know {}", connector.name))?;
        let phase = shown["phase"].as_str().unwrap_or_default().to_owned();
        if phase == "failed" {
            bail!("the connector has failed: {}\n{}", shown["error"], log_tail(&self.log));
        }
        Ok(Some(Status { phase, records: shown["records"].as_u64().unwrap_or(0) }))
    }

    /// Waits until all connectors stream; a broker that has just made a topic may not know it yet, and interrupt them.
    pub fn wait_until_streaming(&mut self, connectors: &[Connector]) -> Result<()> {
        for connector in connectors {
            crate::wait_until(PATIENCE, || Ok(self.look(connector)?.is_some_and(|status| status.phase == "streaming")))
                .with_context(|| format!("{} does not stream:\n{}", connector.name, log_tail(&self.log)))?;
        }
        Ok(())
    }

    /// Waits until these connectors together have committed so many changes.
    pub fn drain(&mut self, connectors: &[Connector], changes: u64) -> Result<Drained> {
        let limit = self.process.started + Duration::from_secs(60) + Duration::from_micros(changes * 200);
        let mut first: Option<(Instant, u64)> = None;
        loop {
            let mut records = 0;
            for connector in connectors {
                records += self.status(connector)?.map_or(0, |status| status.records);
            }
            let now = Instant::now();
            ensure!(
                records >= changes || now < limit,
                "only {records} of {changes} came in time:\n{}",
                self.log_tail()
            );
            let pause = if records == 0 {
                (now - self.process.started) / POLL_SHARE
            } else {
                let (first, seen) = *first.get_or_insert((now, records));
                if records >= changes {
                    return Ok(Drained { first, seen, last: now, changes });
                }
                half_of_the_rest(now - first, records.saturating_sub(seen), changes - records)
            };
            std::thread::sleep(pause.clamp(POLL, POLL_MAX));
        }
    }

    /// SIGKILL, as a crash would end it.
    pub fn kill(self) {
        drop(self.process);
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        log_tail(&self.log)
    }

    /// SIGTERM, and a good end.
    pub fn stop(self) -> Result<()> {
        self.process.terminate()?;
        let ended = self.process.wait()?;
        ensure!(ended.success, "the daemon did not end well:\n{}", log_tail(&self.log));
        Ok(())
    }
}

/// Half of the time that the rest takes at the pace so far: the end is not missed, and the way there costs few questions.
fn half_of_the_rest(took: Duration, done: u64, left: u64) -> Duration {
    match done {
        0 => Duration::ZERO,
        done => took.mul_f64(left as f64 / done as f64 / 2.0),
    }
}

fn configuration(bench: &Bench, database: &str, connectors: &[Connector], http: SocketAddr) -> Result<String> {
    let mut text = format!(
        "[kafka]\nbootstrap_servers = \"{}\"\n\n[registry]\nurl = \"{}\"\n\n[http]\nlisten = \"{http}\"\n\n\
         [topics]\npartitions = 1\nreplication_factor = 1\n",
        bench.services.kafka, bench.services.registry
    );
    writeln!(text, "\n[kafka.properties]")?;
    for property in &bench.kafka_properties {
        let (name, value) = property.split_once('=').with_context(|| format!("{property} is not NAME=VALUE"))?;
        writeln!(text, "\"{name}\" = \"{value}\"")?;
    }
    for connector in connectors {
        let (name, url) = (&connector.name, bench.services.database(database, connector.via));
        let delivery = connector.delivery.written();
        writeln!(text, "\n[connectors.{name}]\ndatabase_url = \"{url}\"\ndelivery = \"{delivery}\"")?;
        for table in &connector.tables {
            writeln!(text, "[connectors.{name}.tables.\"public.{table}\"]")?;
        }
    }
    Ok(text)
}

/// Slots, publications, topics and stored positions are made while the tables are all but empty. Only when the position
/// says that their first rows are in does whatever is written from then on come by the stream alone.
pub fn prepare(bench: &Bench, database: &str, connectors: &[Connector]) -> Result<()> {
    let mut daemon = Daemon::start(bench, database, connectors)?;
    daemon.wait_until_streaming(connectors)?;
    for connector in connectors {
        let tables: Vec<&str> = connector.tables.iter().map(String::as_str).collect();
        let limit = Instant::now() + PATIENCE;
        Stored::follow(&bench.services, connector, &tables)?.wait(&mut daemon, limit, |progress| progress.done)?;
    }
    daemon.stop()
}
