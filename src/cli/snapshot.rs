//! `tablecast snapshot`: the first rows of tables, in the foreground, without a daemon.

use std::collections::BTreeMap;
use std::time::Duration;

use super::exit::{Exit, Failure};
use super::progress::{Display, TableProgress};
use super::run::runtime;
use super::{Global, look};
use crate::config::{Connector, TablePattern};
use crate::connector::state::State;
use crate::connector::supervisor::{run_to_goal, setting};
use crate::connector::{Fault, Goal, source};
use crate::kafka::positions::SnapshotProgress;
use crate::postgres::backfills::{BackfillState, Progress};
use crate::shutdown::Shutdown;

const EXAMPLES: &str = "\
It does what `run` does, and ends when the first rows of the tables are in their topics, with all that changed meanwhile;
a later `run` goes on from there. What is interrupted goes on at the chunk, by this command again or by `run`. Tables
whose first rows are in already are not read again: that is what `tablecast backfill` is for.

Examples:
  tablecast snapshot shop
  tablecast snapshot shop public.users 'audit.*'";

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// Arguments of `tablecast snapshot`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The connector
    pub connector: String,
    /// Only these tables, named as in SQL; `schema.*` takes a schema
    #[arg(value_name = "TABLE")]
    pub tables: Vec<TablePattern>,
    /// A JSON object for each change of a table, and one at the end, for programs
    #[arg(long)]
    pub json: bool,
}

/// Reads the tables, and shows how far they are.
pub fn run(args: &Args, global: &Global) -> Result<Exit, Failure> {
    let config = global.load()?;
    let connector = config.connector(&args.connector)?;
    let runtime = runtime()?;
    let shutdown = runtime.block_on(async { Shutdown::on_signals() }).map_err(|error| Failure::Work(error.into()))?;
    let tables = runtime.block_on(wanted(connector, &args.tables))?;
    let goal = Goal::Snapshot(tables.clone());
    let setting = setting(&config, connector, goal, runtime.handle().clone(), shutdown.clone());
    let state = std::sync::Arc::clone(&setting.state);
    let registry = config.registry.clone();
    let worker = std::thread::Builder::new()
        .name(format!("connector-{}", connector.name))
        .spawn(move || run_to_goal(&setting, &registry))
        .map_err(|error| Failure::Work(error.into()))?;
    let mut display = Display::new(args.json);
    let mut seen = Seen::new(&tables);
    while !worker.is_finished() {
        seen.look(&state);
        display.show(&seen.tables)?;
        std::thread::sleep(INTERVAL);
    }
    let ended = worker.join().unwrap_or(Err(Fault::TaskGone));
    seen.look(&state);
    let is_done = seen.tables.iter().all(|table| table.state == BackfillState::Done);
    display.show(&seen.tables)?;
    display.end(&seen.tables)?;
    match ended {
        Ok(()) if is_done => Ok(Exit::Done),
        Ok(()) => {
            let again = "interrupted; the same command, or `tablecast run`, goes on at the chunk";
            Err(Failure::Work(again.into()))
        }
        Err(fault) if fault.is_slot_taken() => Err(Failure::Work(taken(connector).into())),
        Err(fault) => Err(Failure::of_connector(fault, &connector.name)),
    }
}

fn taken(connector: &Connector) -> String {
    format!(
        "slot {} is in use: a daemon runs connector `{}`, and reads the first rows of its tables by itself (`tablecast \
         status` tells how far it is); to have a table read again, use `tablecast backfill {} TABLE`",
        connector.slot, connector.name, connector.name
    )
}

/// The names of the tables, as SQL writes them.
async fn wanted(connector: &Connector, patterns: &[TablePattern]) -> Result<Vec<String>, Failure> {
    let failure = |error| Failure::of_connector(error, &connector.name);
    let control = look::source(connector).await.map_err(failure)?;
    let (source, _) = source::find(&control, connector).await.map_err(failure)?;
    let tables = look::wanted(connector, &source, patterns)?;
    Ok(tables.into_iter().map(source::Table::sql_name).collect())
}

/// What was last seen of the tables.
struct Seen {
    tables: Vec<TableProgress>,
}

impl Seen {
    fn new(names: &[String]) -> Self {
        let table = |name: &String| TableProgress {
            id: None,
            table: name.clone(),
            state: BackfillState::Running,
            progress: Progress::default(),
            error: None,
            remedy: None,
        };
        Self { tables: names.iter().map(table).collect() }
    }

    fn look(&mut self, state: &State) {
        let reports = state.reports().into_iter().chain(state.finished());
        let now: BTreeMap<String, Progress> = reports.map(|report| (report.table, report.progress)).collect();
        let snapshots = state.snapshots();
        for table in &mut self.tables {
            if let Some(progress) = now.get(&table.table) {
                table.progress = *progress;
            }
            if let Some(SnapshotProgress::Done | SnapshotProgress::Never) = snapshots.get(&table.table) {
                table.state = BackfillState::Done;
            }
        }
    }
}
