//! `tablecast run`: the daemon.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Global;
use super::exit::{Exit, Failure};
use crate::config::{Config, ConfigError};
use crate::connector::state::{Phase, States};
use crate::connector::supervisor::{Reload, Supervisor};
use crate::http;
use crate::shutdown::Shutdown;

const EXAMPLES: &str = "\
SIGTERM or SIGINT ends it in good order; a second one ends it at once, which is safe too.
SIGHUP reads the configuration again: what it adds starts, what it lacks stops, what it changes starts anew, and a
file that doesn't validate changes nothing.
A connector that fails for good doesn't stop the others; the exit status tells at the end.

Examples:
  tablecast run
  tablecast run --connector shop --connector billing
  tablecast --config /etc/tablecast/connectors.toml run --log-format json";

/// Threads for look-ups and HTTP; rows have threads of their own.
const WORKER_THREADS: usize = 2;

/// Arguments of `tablecast run`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only this connector; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub connector: Vec<String>,
}

/// Runs the connectors until the process is asked to end, or until every one of them has failed.
pub fn run(args: &Args, global: &Global) -> Result<Exit, Failure> {
    let config = global.load()?;
    config.select(&args.connector)?;
    let runtime = runtime()?;
    let shutdown = runtime.block_on(async { Shutdown::on_signals() }).map_err(work)?;
    let supervisor = Supervisor::new(&config, &args.connector, runtime.handle().clone(), shutdown.clone());
    let states = supervisor.states();
    serve(&config, &runtime, &states, &shutdown)?;
    let reload = supervisor.reload_handle();
    let hangup = runtime.block_on(async { signal(SignalKind::hangup()) }).map_err(work)?;
    runtime.spawn(on_hangup(hangup, reload));
    supervisor.run(|| reloaded(global, &config)).map_err(work)?;
    shutdown.request();
    let failed = states.snapshots().iter().any(|state| matches!(state.phase, Phase::Failed { .. }));
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

/// SIGHUP asks for the configuration to be read again.
async fn on_hangup(mut hangup: Signal, reload: Reload) {
    while hangup.recv().await.is_some() {
        tracing::info!("SIGHUP: reading the configuration again");
        reload.request();
    }
}

fn reloaded(global: &Global, first: &Config) -> Result<Config, ConfigError> {
    let config = Config::load(&global.config)?;
    if config.http != first.http {
        tracing::warn!("[http] has changed: that takes a restart");
    }
    Ok(config)
}

/// The runtime of a command.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build().map_err(work)
}

fn work(error: io::Error) -> Failure {
    Failure::Work(error.into())
}

/// Serves metrics, health and status, if the configuration asks for it.
fn serve(config: &Config, runtime: &Runtime, states: &States, shutdown: &Shutdown) -> Result<(), Failure> {
    let Some(endpoint) = &config.http else { return Ok(()) };
    let metrics = http::install_recorder().map_err(|error| Failure::Work(error.into()))?;
    let listener = runtime.block_on(http::bind(endpoint.listen)).map_err(|error| {
        let remedy = "set http.listen to a free address, or end what listens there";
        Failure::Work(format!("cannot listen at {} (http.listen): {error}; {remedy}", endpoint.listen).into())
    })?;
    let address = listener.local_addr().map_err(work)?;
    tracing::info!(%address, "serving /metrics, /health, /ready and /status");
    let (states, shutdown) = (states.clone(), shutdown.clone());
    runtime.spawn(async move {
        if let Err(error) = http::serve(listener, states, metrics, shutdown).await {
            tracing::error!(%error, "the HTTP endpoint ended");
        }
    });
    Ok(())
}
