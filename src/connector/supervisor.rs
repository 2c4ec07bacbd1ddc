//! The supervisor: starts runs of connectors, and decides what follows their ends.
//!
//! What passes by itself is followed by a new run after a backoff with jitter, exactly as after a crash. What doesn't
//! stops that connector, with its reason, and no other. A configuration that is read again stops, starts and changes
//! connectors, and leaves alone those that it says the same of.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::fault::Fault;
use super::run::run;
use super::start::{Goal, Setting};
use super::state::{Phase, State, States};
use crate::config::{Config, Connector, Registry};
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

/// What a connector of `config` runs with, to reach `goal`.
pub fn setting(config: &Config, connector: &Connector, goal: Goal, runtime: Handle, shutdown: Shutdown) -> Setting {
    Setting {
        state: State::new(&connector.name),
        connector: connector.clone(),
        kafka: kafka_connection(config),
        new_topics: new_topics(config),
        runtime,
        shutdown,
        goal,
    }
}

fn new_topics(config: &Config) -> NewTopics {
    NewTopics { partitions: config.topics.partitions, replication_factor: config.topics.replication_factor }
}

/// What a connector runs with. One that is to run with something else is started anew.
#[derive(Clone, PartialEq)]
struct Wanted {
    connector: Connector,
    kafka: Connection,
    new_topics: NewTopics,
    registry: Registry,
}

/// The connectors of the configuration, or those of them that `only` names.
fn wanted(config: &Config, only: &[String]) -> BTreeMap<String, Wanted> {
    let chosen = config.connectors.values().filter(|connector| only.is_empty() || only.contains(&connector.name));
    let wanted = |connector: &Connector| Wanted {
        connector: connector.clone(),
        kafka: kafka_connection(config),
        new_topics: new_topics(config),
        registry: config.registry.clone(),
    };
    chosen.map(|connector| (connector.name.clone(), wanted(connector))).collect()
}

/// A connector that runs in a thread.
struct Running {
    wanted: Wanted,
    part: Shutdown,
    thread: JoinHandle<()>,
}

enum Event {
    /// The connector's thread has ended, or is about to.
    Ended(String),
    /// The configuration may be another one.
    Reload,
}

/// Asks a supervisor to read the configuration again.
pub struct Reload(Sender<Event>);

impl Reload {
    /// Asks; does nothing if the supervisor has ended.
    pub fn request(&self) {
        let _ = self.0.send(Event::Reload);
    }
}

/// The connectors of a daemon.
pub struct Supervisor {
    wanted: BTreeMap<String, Wanted>,
    only: Vec<String>,
    running: BTreeMap<String, Running>,
    runtime: Handle,
    shutdown: Shutdown,
    states: States,
    tell: Sender<Event>,
    events: Receiver<Event>,
}

impl Supervisor {
    /// The connectors of `config`, or those of them that `only` names. Nothing runs yet.
    pub fn new(config: &Config, only: &[String], runtime: Handle, shutdown: Shutdown) -> Self {
        let wanted = wanted(config, only);
        let states = States::default();
        for name in wanted.keys() {
            states.of(name);
        }
        let (tell, events) = channel();
        Self { wanted, only: only.to_vec(), running: BTreeMap::new(), runtime, shutdown, states, tell, events }
    }

    /// What the connectors show of themselves.
    pub fn states(&self) -> States {
        self.states.clone()
    }

    /// What asks this one to read the configuration again.
    pub fn reload_handle(&self) -> Reload {
        Reload(self.tell.clone())
    }

    /// Runs all connectors, each in a thread of its own, until each has ended. `load` reads the configuration when it is
    /// asked for again; what it can't read changes nothing. Blocks.
    pub fn run<E: std::fmt::Display>(mut self, load: impl Fn() -> Result<Config, E>) -> std::io::Result<()> {
        for wanted in self.wanted.clone().into_values() {
            self.start(wanted)?;
        }
        while !self.running.is_empty() {
            match self.events.recv() {
                Ok(Event::Ended(name)) => self.ended(&name)?,
                Ok(Event::Reload) => match load() {
                    Ok(config) => self.reload(&config)?,
                    Err(error) => tracing::error!("the configuration is not taken over, nothing changes: {error}"),
                },
                // We hold a sender ourselves.
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn start(&mut self, wanted: Wanted) -> std::io::Result<()> {
        let name = wanted.connector.name.clone();
        let part = self.shutdown.part();
        let setting = Setting {
            state: self.states.of(&name),
            connector: wanted.connector.clone(),
            kafka: wanted.kafka.clone(),
            new_topics: wanted.new_topics,
            runtime: self.runtime.clone(),
            shutdown: part.clone(),
            goal: Goal::Stream,
        };
        let (registry, tell, thread_name) = (wanted.registry.clone(), self.tell.clone(), name.clone());
        let thread = std::thread::Builder::new().name(format!("connector-{name}")).spawn(move || {
            watch(&setting, &registry);
            let _ = tell.send(Event::Ended(thread_name));
        })?;
        self.running.insert(name, Running { wanted, part, thread });
        Ok(())
    }

    /// A connector has ended: by itself, or because it is to run with something else, or not any more.
    fn ended(&mut self, name: &str) -> std::io::Result<()> {
        let Some(ended) = self.running.remove(name) else { return Ok(()) };
        // A panic has been caught and told already.
        let _ = ended.thread.join();
        match self.wanted.get(name).cloned() {
            _ if self.shutdown.is_requested() => Ok(()),
            // Asked to end for a configuration that has been taken back meanwhile, it is to run again, too.
            Some(wanted) if wanted != ended.wanted || ended.part.is_requested() => self.start(wanted),
            Some(_) => Ok(()),
            None => {
                self.states.remove(name);
                Ok(())
            }
        }
    }

    /// Takes a new configuration over: what it adds starts, also what had failed; what it lacks stops; what it changes
    /// is started anew, and the rest goes on undisturbed.
    fn reload(&mut self, config: &Config) -> std::io::Result<()> {
        if self.shutdown.is_requested() {
            return Ok(());
        }
        if let Err(error) = config.select(&self.only) {
            tracing::error!("the configuration is not taken over, nothing changes: {error}");
            return Ok(());
        }
        let before = std::mem::replace(&mut self.wanted, wanted(config, &self.only));
        for gone in before.keys().filter(|name| !self.wanted.contains_key(*name) && !self.running.contains_key(*name)) {
            self.states.remove(gone);
        }
        let mut changed = Vec::new();
        for (name, running) in &self.running {
            match self.wanted.get(name) {
                Some(wanted) if *wanted == running.wanted => continue,
                Some(_) => changed.push(format!("{name}: changed")),
                None => changed.push(format!("{name}: removed")),
            }
            running.part.request();
        }
        let added: Vec<Wanted> =
            self.wanted.values().filter(|wanted| !self.running.contains_key(&wanted.connector.name)).cloned().collect();
        for wanted in added {
            changed.push(format!("{}: started", wanted.connector.name));
            self.start(wanted)?;
        }
        tracing::info!(connectors = ?changed, "configuration taken over");
        Ok(())
    }
}

/// Supervises one connector; a panic is a failure like another, not a connector that seems to stream.
fn watch(setting: &Setting, registry: &Registry) {
    let supervised = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| supervise(setting, registry)));
    if supervised.is_err() {
        let connector = &setting.connector.name;
        tracing::error!(connector, "connector panicked; this is a defect of tablecast: please report it");
        setting.state.enter(Phase::Failed { error: "it panicked".to_owned(), remedy: None });
    }
}

/// Runs one connector until the shutdown, or until it fails in a way that doesn't pass by itself.
fn supervise(setting: &Setting, registry: &Registry) {
    let connector = &setting.connector.name;
    let mut backoff = Backoff::default();
    while !setting.shutdown.is_requested() {
        let began = Instant::now();
        let fault = match run(setting, registry) {
            Ok(()) | Err(Fault::Interrupted) => break,
            Err(fault) => fault,
        };
        if fault.is_slot_taken() {
            stand_by(setting);
            continue;
        }
        if matches!(fault, Fault::TablesChanged) {
            let delay = backoff.failed_after(began.elapsed());
            tracing::info!(connector, starts_in = ?delay, "{fault}");
            pause(setting, delay);
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

/// Runs one connector until its goal is reached, the shutdown, or a failure that doesn't pass by itself. The slot must be
/// free: whoever has it reads the tables. Blocks.
pub fn run_to_goal(setting: &Setting, registry: &Registry) -> Result<(), Fault> {
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        let fault = match run(setting, registry) {
            Ok(()) | Err(Fault::Interrupted) => return Ok(()),
            Err(fault) if fault.is_transient() && !fault.is_slot_taken() => fault,
            Err(fault) => return Err(fault),
        };
        if setting.shutdown.is_requested() {
            return Ok(());
        }
        let delay = backoff.failed_after(began.elapsed());
        let (connector, error) = (&setting.connector.name, with_causes(&fault));
        tracing::warn!(connector, %error, retry_in = ?delay, "interrupted; it goes on at the chunk");
        pause(setting, delay);
    }
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
