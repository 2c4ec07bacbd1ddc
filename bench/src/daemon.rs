//! The daemon under measurement, by its outer contract alone: a configuration, `run`, and `/status`.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::Bench;
use crate::process::{Watched, log_tail};
use crate::services::Via;
use crate::source::TABLE;
use crate::stored::Stored;

/// How often the daemon is asked how far it is.
pub const POLL: Duration = Duration::from_millis(20);
/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connector of the configuration; slot, publication and topic derive from its name.
#[derive(Clone, Debug)]
pub struct Connector {
    pub name: String,
    pub via: Via,
    /// Of the schema `public`.
    pub tables: &'static [&'static str],
}

impl Connector {
    pub fn slot(&self) -> String {
        format!("tablecast_{}", self.name.replace('-', "_"))
    }

    pub fn publication(&self) -> String {
        self.slot()
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

    /// What it says of the connector; `None` while it does not answer yet.
    pub fn status(&mut self, connector: &Connector) -> Result<Option<Status>> {
        ensure!(!self.process.has_ended(), "the daemon has ended:\n{}", log_tail(&self.log));
        let Ok(body) = get(self.http, "/status") else { return Ok(None) };
        let json: Value = serde_json::from_str(&body).with_context(|| format!("/status answered {body:?}"))?;
        let connectors = json["connectors"].as_array().context("/status lists no connectors")?;
        let shown = connectors.iter().find(|shown| shown["connector"] == connector.name.as_str());
        let shown = shown.with_context(|| format!("/status does not know {}", connector.name))?;
        let phase = shown["phase"].as_str().unwrap_or_default().to_owned();
        if phase == "failed" || phase == "retrying" {
            bail!("the connector has failed: {}\n{}", shown["error"], log_tail(&self.log));
        }
        Ok(Some(Status { phase, records: shown["records"].as_u64().unwrap_or(0) }))
    }

    /// Waits until all connectors stream.
    pub fn wait_until_streaming(&mut self, connectors: &[Connector]) -> Result<()> {
        for connector in connectors {
            crate::wait_until(PATIENCE, || {
                Ok(self.status(connector)?.is_some_and(|status| status.phase == "streaming"))
            })
            .with_context(|| format!("{} does not stream:\n{}", connector.name, log_tail(&self.log)))?;
        }
        Ok(())
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
        writeln!(text, "\n[connectors.{name}]\ndatabase_url = \"{url}\"")?;
        for table in connector.tables {
            writeln!(text, "[connectors.{name}.tables.\"public.{table}\"]")?;
        }
    }
    Ok(text)
}

/// The body of the answer.
fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("an answer without an end of its head")?;
    Ok(body.to_owned())
}

/// Slots, publications, topics and stored positions are made while the tables are empty. Only when the position says that
/// their first rows are in, all none of them, does whatever is written from then on come by the stream alone.
pub fn prepare(bench: &Bench, database: &str, connectors: &[Connector]) -> Result<()> {
    let mut daemon = Daemon::start(bench, database, connectors)?;
    daemon.wait_until_streaming(connectors)?;
    for connector in connectors {
        for table in connector.tables {
            let limit = Instant::now() + PATIENCE;
            Stored::follow(&bench.services, connector, table)?.wait(&mut daemon, limit, |progress| progress.done)?;
        }
    }
    daemon.stop()
}

/// How a daemon drained a backlog.
pub struct Drained {
    /// From the start of the process to its first committed records.
    pub startup: Duration,
    /// From the start of the process to the last record's commit.
    pub took: Duration,
    /// Committed after the first that were seen, a second.
    pub rate: f64,
    pub usage: crate::process::Usage,
    /// CPU seconds of the walsender that served it.
    pub walsender_cpu: f64,
    pub content: crate::topic::Content,
}

/// Runs a daemon of its own until every row is committed, and counts what the topic got.
pub fn drain(bench: &Bench, source: &mut crate::source::Source, connector: &Connector, rows: u64) -> Result<Drained> {
    let mut daemon = Daemon::start(bench, &source.database, std::slice::from_ref(connector))?;
    let started = daemon.process.started;
    let limit = started + Duration::from_secs(60) + Duration::from_micros(rows * 100);
    let mut first: Option<(Instant, u64)> = None;
    let (first, last) = loop {
        let records = daemon.status(connector)?.map_or(0, |status| status.records);
        let now = Instant::now();
        if records > 0 {
            first.get_or_insert((now, records));
        }
        match first {
            Some(first) if records >= rows => break (first, now),
            _ => ensure!(now < limit, "only {records} of {rows} rows came in time:\n{}", log_tail(&daemon.log)),
        }
        std::thread::sleep(POLL);
    };
    let usage = daemon.process.usage()?;
    let walsender = source.walsender(&connector.slot())?.map(crate::process::usage).transpose()?;
    daemon.stop()?;
    let content = crate::topic::verify(&bench.services, &connector.topic(TABLE), rows)?;
    let steady = (rows - first.1) as f64 / (last - first.0).as_secs_f64().max(POLL.as_secs_f64());
    Ok(Drained {
        startup: first.0 - started,
        took: last - started,
        rate: steady,
        usage,
        walsender_cpu: walsender.unwrap_or_default().cpu(),
        content,
    })
}
