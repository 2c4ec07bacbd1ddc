//! Debezium in Kafka Connect, as well tuned as we know how: large batches and queues, a producer that lingers and
//! compresses, flat records, and schemas that are registered before anything is measured.
//!
//! Each run has a worker of its own, a distributed one, since only that delivers exactly once; workers of the same kind
//! follow each other in the same group, and find in it the connectors that [`prepare`] made and stopped there.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::http;
use crate::process::{Watched, log_tail};
use crate::source::{PUBLICATION, Source};
use crate::topic;
use crate::{Bench, wait_until};

/// How long a start may take; a JVM that has two cores to share is in no hurry.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long a worker may take to end.
const FAREWELL: Duration = Duration::from_secs(60);

/// How often the last topic is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How often the worker is asked whether the connector has failed.
const ASK: Duration = Duration::from_secs(2);

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Through the registry: the same work as ours.
    Avro,
    /// Without schemas: the least work.
    Json,
}

/// What the settings are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuned {
    Throughput,
    Latency,
}

/// A connector of Debezium's; slot and topics derive from its name.
#[derive(Clone, Debug)]
pub struct Debezium {
    pub name: String,
    pub exactly_once: bool,
    pub format: Format,
    pub tuned: Tuned,
    /// Of the schema `public`.
    pub tables: Vec<String>,
}

impl Debezium {
    pub fn slot(&self) -> String {
        self.name.replace('-', "_")
    }

    pub fn topic(&self, table: &str) -> String {
        format!("{}.public.{table}", self.name)
    }

    /// The workers of one group have the same settings.
    fn group(&self, bench: &Bench) -> String {
        format!("debezium-{}-{}", bench.tag, if self.exactly_once { "exactly-once" } else { "at-least-once" })
    }

    fn configuration(&self, bench: &Bench, database: &str, slot: &str, register: bool) -> Result<Value> {
        let registry = bench.services.registry.replace("/apis/ccompat/v7", "/apis/registry/v2");
        let tables: Vec<String> = self.tables.iter().map(|table| format!("public.{table}")).collect();
        let linger = if self.tuned == Tuned::Throughput { "20" } else { "0" };
        let mut config = json!({
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "tasks.max": "1",
            "database.hostname": "127.0.0.1",
            "database.port": bench.services.postgres_port().to_string(),
            "database.user": "postgres",
            "database.password": "none",
            "database.dbname": database,
            "database.sslmode": "disable",
            "plugin.name": "pgoutput",
            "slot.name": slot,
            "publication.name": PUBLICATION,
            "publication.autocreate.mode": "disabled",
            "topic.prefix": self.name,
            "table.include.list": tables.join(","),
            "snapshot.mode": "initial",
            "snapshot.fetch.size": "10240",
            "max.batch.size": "8192",
            "max.queue.size": "32768",
            "poll.interval.ms": "20",
            "transforms": "unwrap",
            "transforms.unwrap.type": "io.debezium.transforms.ExtractNewRecordState",
            "topic.creation.default.partitions": "1",
            "topic.creation.default.replication.factor": "1",
            "topic.creation.default.cleanup.policy": "compact",
            "producer.override.acks": "all",
            "producer.override.linger.ms": linger,
            "producer.override.batch.size": "524288",
            "producer.override.compression.type": "lz4",
            "producer.override.buffer.memory": "67108864",
        });
        let mut set = |name: &str, value: &str| config[name] = Value::from(value);
        if self.exactly_once {
            set("exactly.once.support", "required");
            set("transaction.boundary", "poll");
        }
        match self.format {
            Format::Avro => set("schema.name.adjustment.mode", "avro"),
            Format::Json => {}
        }
        for side in ["key", "value"] {
            let converter = format!("{side}.converter");
            match self.format {
                Format::Avro => {
                    set(&converter, "io.apicurio.registry.utils.converter.AvroConverter");
                    let mut apicurio =
                        |name: &str, value: &str| set(&format!("{converter}.apicurio.registry.{name}"), value);
                    apicurio("url", &registry);
                    apicurio("auto-register", if register { "true" } else { "false" });
                    apicurio("find-latest", "true");
                    // Confluent's wire format.
                    apicurio("headers.enabled", "false");
                    apicurio("as-confluent", "true");
                }
                Format::Json => {
                    set(&converter, "org.apache.kafka.connect.json.JsonConverter");
                    set(&format!("{converter}.schemas.enable"), "false");
                }
            }
        }
        Ok(config)
    }
}

/// A running Kafka Connect.
pub struct Worker {
    pub process: Watched,
    http: SocketAddr,
    log: PathBuf,
}

impl Worker {
    /// Starts the worker for this connector.
    pub fn start(bench: &Bench, debezium: &Debezium) -> Result<Self> {
        let group = debezium.group(bench);
        let http = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let from_environment =
            |name: &str| std::env::var(name).with_context(|| format!("{name} is not set: `bench/run` sets it"));
        let exactly_once = if debezium.exactly_once { "enabled" } else { "disabled" };
        let topics: String = ["config", "offset", "status"]
            .map(|what| format!("{what}.storage.topic={group}-{what}\n{what}.storage.replication.factor=1\n"))
            .concat();
        let properties = format!(
            "bootstrap.servers={}\ngroup.id={group}\nlisteners=http://{http}\nplugin.path={}\n\
             plugin.discovery=service_load\nexactly.once.source.support={exactly_once}\n\
             connector.client.config.override.policy=All\nscheduled.rebalance.max.delay.ms=0\n\
             offset.storage.partitions=1\nstatus.storage.partitions=1\noffset.flush.interval.ms=5000\n{topics}\
             key.converter=org.apache.kafka.connect.json.JsonConverter\n\
             value.converter=org.apache.kafka.connect.json.JsonConverter\n",
            bench.services.kafka,
            from_environment("BENCH_DEBEZIUM")?,
        );
        let file = bench.work.join(format!("{}.properties", debezium.name));
        fs::write(&file, properties)?;
        let log = bench.work.join(format!("{}.log", debezium.name));
        // Ends with this program, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "java", "-Xmx2g", "-cp", &from_environment("BENCH_CONNECT_CLASSES")?]);
        command.arg("org.apache.kafka.connect.cli.ConnectDistributed").arg(&file);
        let mut worker = Self { process: Watched::spawn(&mut command, &log)?, http, log };
        crate::wait_until(PATIENCE, || worker.answers()).with_context(|| worker.why())?;
        Ok(worker)
    }

    fn answers(&mut self) -> Result<bool> {
        ensure!(!self.process.has_ended(), "Kafka Connect has ended:\n{}", log_tail(&self.log));
        Ok(http::get(self.http, "/connectors").is_ok_and(|answer| answer.is_good()))
    }

    fn why(&self) -> String {
        format!("Kafka Connect does not do what it should:\n{}", log_tail(&self.log))
    }

    /// Asks for something of the connector, again while the workers are still settling.
    fn ask(&self, method: &str, debezium: &Debezium, what: &str, body: &str) -> Result<()> {
        let path = format!("/connectors/{}{what}", debezium.name);
        let mut last = String::new();
        let done = crate::wait_until(PATIENCE, || {
            let answer = http::request(self.http, method, &path, body)?;
            last = answer.body.clone();
            ensure!(answer.status != 400, "{method} {path}: {}", answer.body);
            Ok(answer.is_good())
        });
        done.with_context(|| format!("{method} {path}: {last}")).with_context(|| self.why())
    }

    /// Creates the connector, or changes its configuration.
    fn configure(&self, bench: &Bench, debezium: &Debezium, database: &str, register: bool) -> Result<()> {
        let config = debezium.configuration(bench, database, &debezium.slot(), register)?;
        self.ask("PUT", debezium, "/config", &config.to_string())
    }

    /// Lets the connector go on that [`prepare`] stopped.
    pub fn resume(&self, debezium: &Debezium) -> Result<()> {
        self.ask("PUT", debezium, "/resume", "")
    }

    /// Has the connector stop, and waits until it has.
    fn stop_connector(&mut self, debezium: &Debezium) -> Result<()> {
        self.ask("PUT", debezium, "/stop", "")?;
        crate::wait_until(PATIENCE, || {
            let status = self.status(debezium)?;
            Ok(status["connector"]["state"] == "STOPPED" && status["tasks"].as_array().is_none_or(Vec::is_empty))
        })
        .with_context(|| self.why())
    }

    fn status(&self, debezium: &Debezium) -> Result<Value> {
        let answer = http::get(self.http, &format!("/connectors/{}/status", debezium.name))?;
        serde_json::from_str(&answer.body).with_context(|| format!("the status is {:?}", answer.body))
    }

    /// Fails if the connector has failed.
    pub fn check(&mut self, debezium: &Debezium) -> Result<()> {
        ensure!(!self.process.has_ended(), "Kafka Connect has ended:\n{}", log_tail(&self.log));
        let status = self.status(debezium)?.to_string();
        ensure!(!status.contains("FAILED"), "{} has failed: {status}", debezium.name);
        Ok(())
    }

    /// Removes the connector, then ends the worker in good order.
    pub fn finish(self, debezium: &Debezium) -> Result<()> {
        self.ask("DELETE", debezium, "", "")?;
        self.stop()
    }

    /// Kafka Connect, asked to end while it starts a connector, may never do it: it is killed then, as it is dropped.
    fn stop(mut self) -> Result<()> {
        self.process.terminate()?;
        if wait_until(FAREWELL, || Ok(self.process.has_ended())).is_err() {
            eprintln!("Kafka Connect didn't end within {FAREWELL:?}");
        }
        Ok(())
    }
}

/// Slots, topics, schemas and offsets are made while each table has its row 0 alone, by the first snapshot; what is
/// written from then on comes by the stream. The converter registers the schemas now, and never again.
pub fn prepare(bench: &Bench, database: &str, connectors: &[Debezium]) -> Result<()> {
    for exactly_once in [false, true] {
        let of_group: Vec<&Debezium> = connectors.iter().filter(|one| one.exactly_once == exactly_once).collect();
        let Some(first) = of_group.first() else { continue };
        let mut worker = Worker::start(bench, first)?;
        for debezium in of_group {
            worker.configure(bench, debezium, database, true)?;
            for table in &debezium.tables {
                let watched = topic::Watched::new(&bench.services, &debezium.topic(table))?;
                crate::wait_until(PATIENCE, || {
                    worker.check(debezium)?;
                    Ok(watched.offsets() > 0)
                })
                .with_context(|| format!("{table}: no row 0"))?;
            }
            worker.stop_connector(debezium)?;
            worker.configure(bench, debezium, database, false)?;
        }
        worker.stop()?;
    }
    Ok(())
}

/// After [`prepare`]: the topics and schemas stay, slot and offsets go, so that the next start reads the tables anew.
pub fn forget(bench: &Bench, source: &mut Source, connectors: &[Debezium]) -> Result<()> {
    for debezium in connectors {
        let worker = Worker::start(bench, debezium)?;
        worker.ask("DELETE", debezium, "/offsets", "")?;
        worker.stop()?;
        source.drop_slot(&debezium.slot())?;
    }
    Ok(())
}

/// How far a run was at a moment.
#[derive(Clone, Copy)]
pub struct Progress {
    pub at: Instant,
    /// Committed, about.
    pub records: u64,
    /// CPU seconds of the worker up to then.
    pub cpu: f64,
}

/// Some moments of a run.
pub struct Ran {
    pub worker: Worker,
    /// The first that was seen of its work.
    pub first: Progress,
    /// When it was half done: the JVM has compiled what matters.
    pub half: Progress,
    pub last: Progress,
}

/// Runs a worker of its own until so many records are committed to each topic, and the last id is at the last topic's end.
pub fn run(bench: &Bench, debezium: &Debezium, records: u64, last_id: u64) -> Result<Ran> {
    let table = debezium.tables.last().context("no table")?;
    let tables = debezium.tables.len() as u64;
    let watched = topic::Watched::new(&bench.services, &debezium.topic(table))?;
    let before = watched.offsets();
    let mut worker = Worker::start(bench, debezium)?;
    worker.resume(debezium)?;
    let limit = worker.process.started + PATIENCE + Duration::from_micros(records * tables * 300);
    let (mut first, mut half, mut asked) = (None, None, Instant::now());
    loop {
        let offsets = watched.offsets() - before;
        let now = Progress { at: Instant::now(), records: offsets * tables, cpu: worker.process.usage()?.cpu() };
        if offsets > 0 {
            first.get_or_insert(now);
        }
        if offsets >= records / 2 {
            half.get_or_insert(now);
        }
        if let (Some(first), Some(half)) = (first, half)
            && offsets >= records
            && watched.ends_with(&bench.services, last_id)?
        {
            let last = Progress { records: records * tables, ..now };
            return Ok(Ran { worker, first, half, last });
        }
        ensure!(now.at < limit, "only {} records came in time:\n{}", now.records, worker.why());
        if asked.elapsed() > ASK {
            worker.check(debezium)?;
            asked = Instant::now();
        }
        std::thread::sleep(LOOK);
    }
}
