//! `tablecast backfill`: asks the running daemon to read tables again, and shows how far it is.
//!
//! The command asks by writing to `tablecast.backfills`, and sees what the daemon mirrors there; it never talks to the
//! daemon, which may run anywhere. So whether this command runs on changes nothing for the backfill: it can be
//! interrupted, or be called with `--detach`, and only `--cancel` ends what it began.

mod ask;
mod watch;

use watch::Watch;

use super::Global;
use super::exit::{Exit, Failure};
use super::progress::{Display, TableProgress};
use super::run::runtime;
use crate::config::{Connector, TablePattern};
use crate::postgres::backfills::{BackfillFacts, BackfillState, Request};
use crate::postgres::control::ControlError;
use crate::postgres::migrate::grants;
use crate::relation::qualified;
use crate::shutdown::Shutdown;

const EXAMPLES: &str = "\
Tables are named as in SQL; `public.*` takes all of a schema that the connector captures. The stream goes on meanwhile,
and a row that changes is never overwritten with an older state. `tablecast migrate CONNECTOR` comes first, once.
Interrupting the command leaves the backfill running.

Examples:
  tablecast backfill shop public.users
  tablecast backfill shop 'public.*' --detach
  tablecast backfill shop public.orders --where \"created_at >= '2024-01-01'\"
  tablecast backfill shop public.users --cancel";

/// Arguments of `tablecast backfill`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The connector
    pub connector: String,
    /// The tables
    #[arg(value_name = "TABLE", required_unless_present = "cancel")]
    pub tables: Vec<TablePattern>,
    /// Read only the rows that an SQL condition holds for
    #[arg(long = "where", value_name = "SQL", conflicts_with = "cancel")]
    pub condition: Option<String>,
    /// Only ask, and don't wait
    #[arg(long)]
    pub detach: bool,
    /// End the open backfills of these tables; of all, if none is named
    #[arg(long)]
    pub cancel: bool,
    /// JSON, one object for each change and one at the end, for programs
    #[arg(long)]
    pub json: bool,
}

/// Asks, and shows how far it is until it has ended.
pub fn run(args: &Args, global: &Global) -> Result<Exit, Failure> {
    let config = global.load()?;
    let connector = config.connector(&args.connector)?;
    let runtime = runtime()?;
    runtime.block_on(work(args, connector))
}

async fn work(args: &Args, connector: &Connector) -> Result<Exit, Failure> {
    // Before it asks: an interrupt in between would end the command without a word about what goes on.
    let shutdown = Shutdown::on_signals().map_err(|error| Failure::Work(error.into()))?;
    let control = ask::connect(connector).await?;
    let asked = match args.cancel {
        true => ask::cancel(&control, connector, &args.tables).await?,
        false => ask::request(&control, connector, &args.tables, args.condition.as_deref()).await?,
    };
    let display = Display::new(args.json);
    if asked.is_empty() {
        display.notice(&format!("connector {}: no open backfill to cancel", connector.name));
    }
    for table in asked.iter().filter(|_| !args.json) {
        let id = table.id.unwrap_or_default();
        let what = if args.cancel { "cancelling" } else { "requested:" };
        display.notice(&format!("{what} backfill {id} of {}", table.table));
    }
    if args.detach || asked.is_empty() {
        display.end(&asked)?;
        return Ok(Exit::Done);
    }
    Watch::new(connector, control, asked, args.cancel).until_ended(display, &shutdown).await
}

/// A table as it is asked for.
fn requested(id: i64, table: String) -> TableProgress {
    TableProgress {
        id: Some(id),
        table,
        state: BackfillState::Requested,
        progress: Default::default(),
        error: None,
        remedy: None,
    }
}

/// A table as its row shows it.
fn mirrored(facts: BackfillFacts) -> TableProgress {
    TableProgress {
        id: Some(facts.request.id),
        table: name(&facts.request),
        state: facts.request.state,
        progress: facts.progress,
        error: facts.error,
        remedy: facts.remedy,
    }
}

fn name(request: &Request) -> String {
    qualified(&request.table.schema, &request.table.name)
}

/// What the source refused, with what the login lacks: it is not what `run` needs.
fn failure(error: ControlError, connector: &Connector) -> Failure {
    const NO_PRIVILEGE: &str = "42501";
    match (error.sqlstate(), connector.database.get_user()) {
        (Some(NO_PRIVILEGE), Some(user)) => Failure::Work(format!("{error}; remedy:\n{}", grants(user)).into()),
        _ => Failure::of_connector(error, &connector.name),
    }
}
