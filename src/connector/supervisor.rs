//! The supervisor: starts runs of connectors, and decides what follows their ends.
//!
//! What passes by itself is followed by a new run after a backoff with jitter, exactly as after a crash. What doesn't
//! stops that connector, with its reason, and no other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::fault::Fault;
use super::run::run;
use super::start::Setting;
use super::state::{Phase, State, States};
use crate::config::Config;
use crate::kafka::Connection;
use crate::kafka::topics::NewTopics;
use crate::retry::Backoff;
use crate::shutdown::Shutdown;

/// How often a standby asks for the slot.
const STANDBY_INTERVAL: Duration = Duration::from_secs(1);

/// How the configuration says to reach Kafka.
pub fn kafka_connection(config: &Config) -> Connection {
    Connection {
        bootstrap_servers: config.kafka.bootstrap_servers.clone(),
        properties: config.kafka.properties.clone(),
    }
}

/// The connectors of a daemon.
pub struct Supervisor {
    settings: Vec<Setting>,
    registry_url: String,
    states: States,
}

impl Supervisor {
    /// The connectors of `config`, or those of them that `only` names. Nothing runs yet.
    pub fn new(config: &Config, only: &[String], runtime: Handle, shutdown: Shutdown) -> Self {
        let kafka = kafka_connection(config);
        let new_topics =
            NewTopics { partitions: config.topics.partitions, replication_factor: config.topics.replication_factor };
        let chosen = config.connectors.values().filter(|connector| only.is_empty() || only.contains(&connector.name));
        let settings: Vec<Setting> = chosen
            .map(|connector| Setting {
                state: State::new(&connector.name),
                connector: connector.clone(),
                kafka: kafka.clone(),
                new_topics,
                runtime: runtime.clone(),
                shutdown: shutdown.clone(),
            })
            .collect();
        let states: BTreeMap<_, _> =
            settings.iter().map(|setting| (setting.connector.name.clone(), Arc::clone(&setting.state))).collect();
        Self { settings, registry_url: config.registry.url.clone(), states: Arc::new(states) }
    }

    /// What the connectors show of themselves.
    pub fn states(&self) -> States {
        Arc::clone(&self.states)
    }

    /// Runs all connectors, each in a thread of its own, until each has ended. Blocks.
    pub fn run(self) -> std::io::Result<()> {
        let mut threads = Vec::new();
        for setting in self.settings {
            let registry_url = self.registry_url.clone();
            let name = format!("connector-{}", setting.connector.name);
            threads.push(std::thread::Builder::new().name(name).spawn(move || watch(&setting, &registry_url))?);
        }
        for thread in threads {
            // A panic has been caught and told already.
            let _ = thread.join();
        }
        Ok(())
    }
}

/// Supervises one connector; a panic is a failure like another, not a connector that seems to stream.
fn watch(setting: &Setting, registry_url: &str) {
    let supervised = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| supervise(setting, registry_url)));
    if supervised.is_err() {
        let connector = &setting.connector.name;
        tracing::error!(connector, "connector panicked; this is a defect of tablecast: please report it");
        setting.state.enter(Phase::Failed { error: "it panicked".to_owned(), remedy: None });
    }
}

/// Runs one connector until the shutdown, or until it fails in a way that doesn't pass by itself.
fn supervise(setting: &Setting, registry_url: &str) {
    let connector = &setting.connector.name;
    let mut backoff = Backoff::default();
    while !setting.shutdown.is_requested() {
        let began = Instant::now();
        let fault = match run(setting, registry_url) {
            Ok(()) | Err(Fault::Interrupted) => break,
            Err(fault) => fault,
        };
        if fault.is_slot_taken() {
            stand_by(setting);
            continue;
        }
        metrics::counter!("tablecast_restarts_total", "connector" => connector.clone()).increment(1);
        let error = with_causes(&fault);
        if !fault.is_transient() {
            let remedy = fault.remedy(connector);
            let shown = remedy.as_deref().unwrap_or("none known");
            tracing::error!(connector, %error, remedy = %shown, "connector failed; it will not be started again");
            setting.state.enter(Phase::Failed { error, remedy });
            return;
        }
        let delay = backoff.failed_after(began.elapsed());
        let remedy = fault.remedy(connector).unwrap_or_else(|| "none needed, if it passes".to_owned());
        tracing::warn!(connector, %error, retry_in = ?delay, %remedy, "connector interrupted; it starts anew");
        setting.state.enter(Phase::Retrying { error });
        pause(setting, delay);
    }
    setting.state.enter(Phase::Stopped);
    tracing::info!(connector, "connector stopped");
}

fn stand_by(setting: &Setting) {
    if setting.state.snapshot().phase != Phase::Standby {
        tracing::info!(
            connector = setting.connector.name,
            slot = setting.connector.slot,
            "the slot is in use: standing by until it comes free"
        );
        setting.state.enter(Phase::Standby);
    }
    pause(setting, STANDBY_INTERVAL);
}

fn pause(setting: &Setting, delay: Duration) {
    let shutdown = setting.shutdown.clone();
    setting.runtime.block_on(async move {
        tokio::select! {
            () = shutdown.requested() => {}
            () = tokio::time::sleep(delay) => {}
        }
    });
}

/// The error and what is below it, each said once.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(below) = cause {
        let words = below.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = below.source();
    }
    text
}
