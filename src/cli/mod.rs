//! The command line: what was asked for, one file a command, and what the process ends with.
//!
//! Results go to stdout and everything else to stderr, so that a command can stand in a pipe. [`exit`] says which
//! status means what. A command parses nothing and prints no errors: it gets its arguments as meant, and gives back an
//! [`exit::Exit`] or an [`exit::Failure`].

pub mod backfill;
pub mod check;
mod daemon;
pub mod exit;
pub mod finding;
mod look;
pub mod migrate;
mod ordered;
mod output;
mod progress;
mod record;
pub mod run;
pub mod schema;
pub mod snapshot;
pub mod status;
pub mod tail;
pub mod teardown;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::Config;
use crate::kafka::reader;
use crate::telemetry::{self, LogFormat};
use exit::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  tablecast check                            what stops `run`, and the SQL that mends it
  tablecast run                              all connectors of connectors.toml
  tablecast run --connector shop             one of them
  tablecast tail shop.public.users --view    the table, rebuilt from its topic

Exit status:
  0  done
  1  failed at work
  2  the call or the configuration is wrong
  3  `check` found something that stops `run`

Settings are explained in docs/configuration.md.";

/// Turns every captured Postgres table into a log-compacted Kafka topic, exactly once, and keeps it so.
#[derive(Debug, Parser)]
#[command(name = "tablecast", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The configuration
    #[arg(long, global = true, value_name = "FILE", env = "TABLECAST_CONFIG", default_value = "connectors.toml")]
    pub config: PathBuf,
    /// How log lines are written to stderr
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// What is logged: a level, or targets like `info,tablecast::kafka=debug` [default: info; warn beside progress bars]
    #[arg(long, global = true, value_name = "FILTER", env = "TABLECAST_LOG")]
    pub log: Option<String>,
}

impl Global {
    /// The configuration that was asked for.
    pub fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.config)?)
    }
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the connectors until SIGTERM or SIGINT
    Run(run::Args),
    /// Look at everything that `run` needs, and name the remedy for what is missing
    Check(check::Args),
    /// Read tables into their topics without a daemon, and end
    Snapshot(snapshot::Args),
    /// Show each connector's position, lag, slot and snapshot progress
    Status(status::Args),
    /// Write a topic's records as JSON lines
    Tail(tail::Args),
    /// Show the Avro schemas that tables get
    Schema(schema::Args),
    /// Have the running daemon read tables again
    Backfill(backfill::Args),
    /// Create or upgrade the schema in the source where backfills are asked for
    Migrate(migrate::Args),
    /// Drop a connector's slot and publication, and forget its position
    Teardown(teardown::Args),
}

/// The binary: reads the arguments, does what they say, and reports what went wrong.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` come this way too, and go to stdout. If that is closed, nobody wants to know.
            let _ = error.print();
            return if error.use_stderr() { Exit::Wrong.into() } else { Exit::Done.into() };
        }
    };
    let exit = match execute(cli) {
        Ok(exit) => exit,
        Err(failure) => {
            failure.report();
            failure.exit()
        }
    };
    reader::wait_for_farewells(reader::FAREWELLS_LIMIT);
    exit.into()
}

fn execute(cli: Cli) -> Result<Exit, Failure> {
    let shows_bars = matches!(cli.command, Command::Snapshot(_)) && std::io::stderr().is_terminal();
    let log = cli.global.log.as_deref().unwrap_or(if shows_bars { "warn" } else { "info" });
    telemetry::init(cli.global.log_format, log)?;
    match cli.command {
        Command::Run(args) => run::run(&args, &cli.global),
        Command::Check(args) => check::run(&args, &cli.global),
        Command::Snapshot(args) => snapshot::run(&args, &cli.global),
        Command::Status(args) => status::run(&args, &cli.global),
        Command::Tail(args) => tail::run(&args, &cli.global),
        Command::Schema(args) => schema::run(&args, &cli.global),
        Command::Backfill(args) => backfill::run(&args, &cli.global),
        Command::Migrate(args) => migrate::run(&args, &cli.global),
        Command::Teardown(args) => teardown::run(&args, &cli.global),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for arguments in [["tablecast", "--config", "a.toml", "check"], ["tablecast", "check", "--config", "a.toml"]] {
            let cli = Cli::try_parse_from(arguments).unwrap();
            assert_eq!(cli.global.config, PathBuf::from("a.toml"));
        }
    }
}
