//! `tablecast teardown`: drops what a connector has in the source.

use std::io::{self, IsTerminal};

use super::exit::{Exit, Failure};
use super::output::{self, bytes};
use super::run::runtime;
use super::{Global, look};
use crate::config::Connector;
use crate::connector::supervisor::kafka_connection;
use crate::connector::{sink_options, source};
use crate::kafka::{Connection, KafkaFault, positions, sink};
use crate::postgres::catalog::SlotFacts;
use crate::postgres::control::{Control, ControlError};
use crate::postgres::migrate::ControlSchema;

const EXAMPLES: &str = "\
The stored position is forgotten with them, so that the connector can start over. The topics stay; while they hold
records, the connector refuses to start over, since rows deleted meanwhile would live on in them. The schema tablecast,
which connectors share, stays without the backfills of this one.

Examples:
  tablecast teardown shop
  tablecast teardown shop --yes    asks nothing, for scripts";

/// Arguments of `tablecast teardown`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The connector
    pub connector: String,
    /// Drop without asking
    #[arg(long)]
    pub yes: bool,
}

/// Drops the slot and the publication, and forgets the stored position and the backfills, after asking.
pub fn run(args: &Args, global: &Global) -> Result<Exit, Failure> {
    let config = global.load()?;
    let connector = config.connector(&args.connector)?;
    let kafka = kafka_connection(&config);
    let runtime = runtime()?;
    let (control, there) = runtime.block_on(find(connector, &kafka))?;
    output::write(&there.describe(connector))?;
    if there.is_nothing() {
        return Ok(Exit::Done);
    }
    there.refuse_if_in_use(connector)?;
    if !args.yes && !confirmed()? {
        output::write("Nothing was dropped.")?;
        return Ok(Exit::Done);
    }
    runtime.block_on(drop_all(&control, connector, &there))?;
    if there.stored {
        let options = sink_options(connector, &kafka);
        sink::forget(&options)?;
        output::write("forgotten: the stored position")?;
    }
    output::write(&about_topics(&there.topics, &kafka))?;
    Ok(Exit::Done)
}

/// What there is to drop.
struct There {
    slot: Option<SlotFacts>,
    publication: bool,
    stored: bool,
    /// Rows in `tablecast.backfills`.
    backfills: i64,
    /// These stay.
    topics: Vec<String>,
}

/// Everything is looked at before anything is dropped, so that what doesn't answer leaves nothing half done.
async fn find(connector: &Connector, kafka: &Connection) -> Result<(Control, There), Failure> {
    let failure = |error: ControlError| Failure::of_connector(error, &connector.name);
    let control = look::source(connector).await.map_err(failure)?;
    let slot = control.slot(&connector.slot).await.map_err(failure)?;
    let publication = control.publication(&connector.publication).await.map_err(failure)?.is_some();
    let backfills = backfills(&control, connector).await.map_err(failure)?;
    let (source, _) = source::find(&control, connector).await.map_err(failure)?;
    let stored = match look::positions(kafka, [&connector.name]).await {
        // One that can't be read is to be forgotten all the more.
        Err(KafkaFault::StoredPosition { .. }) => true,
        positions => positions?.contains_key(&connector.name),
    };
    let topics = source.topics().into_iter().map(str::to_owned).collect();
    Ok((control, There { slot, publication, stored, backfills, topics }))
}

/// How many backfills were asked of the connector, as far as we may look and could delete them: where we may not, they
/// are no reason to keep the slot.
async fn backfills(control: &Control, connector: &Connector) -> Result<i64, ControlError> {
    const NO_PRIVILEGE: &str = "42501";
    if control.server().await?.in_recovery {
        return Ok(0);
    }
    let count = match control.control_schema().await {
        Ok(ControlSchema::Missing) => Ok(0),
        Ok(_) => control.forgettable_backfills(&connector.name).await,
        Err(error) => Err(error),
    };
    match count {
        Err(error) if error.sqlstate() == Some(NO_PRIVILEGE) => Ok(0),
        count => count,
    }
}

/// The slot first: it is what can be in use, and then nothing else must go.
async fn drop_all(control: &Control, connector: &Connector, there: &There) -> Result<(), Failure> {
    if there.slot.is_some() {
        control.drop_slot(&connector.slot).await.map_err(|error| Failure::of_connector(error, &connector.name))?;
        output::write(&format!("dropped: slot {}", connector.slot))?;
    }
    if there.publication {
        let dropped = control.drop_publication(&connector.publication).await;
        dropped.map_err(|error| Failure::of_connector(error, &connector.name))?;
        output::write(&format!("dropped: publication {}", connector.publication))?;
    }
    // One that is still open would be done by whoever runs the connector anew.
    if there.backfills > 0 {
        let forgotten = control.forget_backfills(&connector.name).await;
        let count = forgotten.map_err(|error| Failure::of_connector(error, &connector.name))?;
        output::write(&format!("forgotten: {count} in tablecast.backfills"))?;
    }
    Ok(())
}

impl There {
    fn is_nothing(&self) -> bool {
        self.slot.is_none() && !self.publication && !self.stored && self.backfills == 0
    }

    fn describe(&self, connector: &Connector) -> String {
        if self.is_nothing() {
            return format!("connector {} has no slot, no publication and no stored position: done", connector.name);
        }
        let mut lines = vec![format!("connector {} has:", connector.name)];
        if let Some(slot) = &self.slot {
            let kept = slot.retained_bytes.map(|size| format!(", {} of WAL kept for it", bytes(size)));
            lines.push(format!("  slot         {}{}", connector.slot, kept.unwrap_or_default()));
        }
        if self.publication {
            lines.push(format!("  publication  {}", connector.publication));
        }
        if self.stored {
            lines.push(format!("  position     in topic {}", positions::TOPIC));
        }
        if self.backfills > 0 {
            lines.push(format!("  backfills    {} in tablecast.backfills", self.backfills));
        }
        lines.join("\n")
    }

    fn refuse_if_in_use(&self, connector: &Connector) -> Result<(), Failure> {
        let Some(pid) = self.slot.as_ref().and_then(|slot| slot.active_pid) else { return Ok(()) };
        let remedy = "stop the daemon first, and any that stands by";
        Err(Failure::Work(format!("slot {} is in use by process {pid} of the source; {remedy}", connector.slot).into()))
    }
}

/// Asks on the terminal; without one nobody can answer.
fn confirmed() -> Result<bool, Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::Call("there is no terminal to ask at; give --yes to drop it all".to_owned()));
    }
    output::write("Drop it all? The topics stay. [y/N]")?;
    let mut answer = String::new();
    stdin.read_line(&mut answer).map_err(|error| Failure::Work(format!("cannot read the answer: {error}").into()))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn about_topics(topics: &[String], kafka: &Connection) -> String {
    let mut text = "The topics stay. Before the connector can run again, delete those that hold records:".to_owned();
    for topic in topics {
        let servers = &kafka.bootstrap_servers;
        text.push_str(&format!("\n  kafka-topics.sh --bootstrap-server {servers} --delete --topic {topic}"));
    }
    text
}
