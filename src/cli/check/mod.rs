//! `tablecast check`: everything that `run` needs, looked at beforehand.
//!
//! It asks what `run` asks, by the same functions, and says what is wrong in the same words; but it goes on after the
//! first thing that is wrong, and changes nothing.

mod control_schema;
mod kafka;
mod publication;
mod registry;
mod slot;
mod source;
mod tables;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::exit::{Exit, Failure};
use super::finding::{self, Finding};
use super::run::runtime;
use super::{Global, look, output};
use crate::config::{Config, Connector};
use crate::connector::Fault;
use crate::connector::supervisor::kafka_connection;
use crate::kafka::Connection;
use crate::kafka::positions::StoredPosition;

const EXAMPLES: &str = "\
Ends with 3 if something would stop `run`, and with 2 if the configuration cannot be read.

Examples:
  tablecast check
  tablecast check --json | jq -r '.findings[] | select(.severity == \"error\") | .remedy'";

/// Arguments of `tablecast check`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// One JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// Looks, and writes the findings to stdout.
pub fn run(args: &Args, global: &Global) -> Result<Exit, Failure> {
    let config = global.load()?;
    config.select(&[])?;
    let runtime = runtime()?;
    let findings = runtime.block_on(look(config));
    // A thread may still wait for a broker that doesn't answer.
    runtime.shutdown_background();
    let text = if args.json { finding::json(&findings)? } else { finding::human(&findings, output::is_coloured()) };
    output::write(&text)?;
    Ok(finding::exit(&findings))
}

/// What all connectors share.
struct Shared {
    config: Config,
    kafka: Connection,
    /// `None` where Kafka couldn't be asked: then nothing is said that rests on them.
    positions: Option<BTreeMap<String, StoredPosition>>,
}

/// All findings, in the order in which things have to be right.
async fn look(config: Config) -> Vec<Finding> {
    let names: Vec<_> = config.connectors.keys().cloned().collect();
    let mut findings = vec![Finding::ok("configuration", format!("connectors: {}", names.join(", ")))];
    let connection = kafka_connection(&config);
    let ((of_kafka, positions), of_registry) =
        tokio::join!(kafka::look(&connection, config.connectors.keys()), registry::look(&config.registry.url));
    findings.extend(of_kafka);
    findings.push(of_registry);
    let shared = Arc::new(Shared { config, kafka: connection, positions });
    let looks: Vec<_> = names.iter().map(|name| tokio::spawn(connector(name.clone(), Arc::clone(&shared)))).collect();
    for (look, name) in looks.into_iter().zip(names) {
        match look.await {
            Ok(of_connector) => findings.extend(of_connector),
            Err(error) => findings.push(Finding::error(name, error.to_string(), None)),
        }
    }
    findings
}

async fn connector(name: String, shared: Arc<Shared>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(connector) = shared.config.connectors.get(&name) else { return findings };
    let mut look = Look { connector, shared: &shared, findings: &mut findings };
    if let Err(fault) = look.all().await {
        look.fault("source", fault);
    }
    findings
}

/// Looking at a connector.
struct Look<'l> {
    connector: &'l Connector,
    shared: &'l Shared,
    findings: &'l mut Vec<Finding>,
}

impl Look<'_> {
    /// Fails only where nothing more can be asked.
    async fn all(&mut self) -> Result<(), Fault> {
        let control = look::source(self.connector).await?;
        let server = control.server().await?;
        let slot = control.slot(&self.connector.slot).await?;
        self.server(&server, slot.as_ref());
        let source = self.tables(&control, &server).await?;
        self.publication(&control, &server, &source).await?;
        self.topics(&source).await;
        let identity = if server.may_replicate { self.identity().await } else { None };
        self.slot(&server, slot, identity.as_ref());
        self.control_schema(&control, &server).await?;
        Ok(())
    }

    /// What the connector has stored; `None` where it isn't known.
    fn stored(&self) -> Option<Option<&StoredPosition>> {
        self.shared.positions.as_ref().map(|positions| positions.get(&self.connector.name))
    }

    fn subject(&self, what: &str) -> String {
        format!("{}: {what}", self.connector.name)
    }

    fn ok(&mut self, what: &str, message: impl Into<String>) {
        self.findings.push(Finding::ok(self.subject(what), message));
    }

    fn note(&mut self, what: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(Finding::note(self.subject(what), message, remedy));
    }

    fn warning(&mut self, what: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(Finding::warning(self.subject(what), message, remedy.into()));
    }

    fn error(&mut self, what: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(Finding::error(self.subject(what), message, remedy.into()));
    }

    /// What `run` would say, in its words.
    fn fault(&mut self, what: &str, fault: impl Into<Fault>) {
        let fault = fault.into();
        let text = fault.to_string();
        // Some errors' texts end in the remedy.
        let (message, remedy) = match text.split_once("; remedy: ") {
            Some((message, remedy)) => (message.to_owned(), Some(remedy.to_owned())),
            None => (text, fault.remedy(&self.connector.name)),
        };
        let remedy = remedy.map(|remedy| kafka::with_servers(&remedy, &self.shared.kafka));
        self.findings.push(Finding::error(self.subject(what), message, remedy));
    }
}
