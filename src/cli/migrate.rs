//! `tablecast migrate`: makes or upgrades the control schema.

use serde::Serialize;

use super::exit::{Exit, Failure};
use super::run::runtime;
use super::{Global, look, output};
use crate::config::Connector;
use crate::postgres::migrate::{MigrateError, MigrationReport};

const EXAMPLES: &str = "\
The schema `tablecast` in the source's database is where backfills are asked for; all connectors of a database share it.
`run` needs none of it. The login needs CREATE on the database once, or somebody who has it runs what --sql prints.

Examples:
  tablecast migrate shop
  tablecast migrate shop --sql | psql -h db -U postgres shop";

/// Arguments of `tablecast migrate`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The connector whose database it is
    pub connector: String,
    /// Change nothing, print the SQL of what is missing
    #[arg(long, conflicts_with = "json")]
    pub sql: bool,
    /// One JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// What was done. Programs rely on the names.
#[derive(Serialize)]
struct Report {
    version: i32,
    /// Null if there was no schema.
    was: Option<i32>,
}

/// Migrates, and says what it did.
pub fn run(args: &Args, global: &Global) -> Result<Exit, Failure> {
    let config = global.load()?;
    let connector = config.connector(&args.connector)?;
    let runtime = runtime()?;
    if args.sql {
        let script = runtime.block_on(script(connector))?;
        output::write(script.as_deref().unwrap_or("-- nothing to do: the schema tablecast is as it should be"))?;
        return Ok(Exit::Done);
    }
    let report = runtime.block_on(migrate(connector))?;
    output::write(&match args.json {
        true => serde_json::to_string_pretty(&Report { version: report.version, was: report.was })?,
        false => human(report),
    })?;
    Ok(Exit::Done)
}

async fn migrate(connector: &Connector) -> Result<MigrationReport, Failure> {
    let source = look::source(connector).await;
    let mut control = source.map_err(|error| failure(error, connector))?;
    control.migrate().await.map_err(|error| failure(error, connector))
}

async fn script(connector: &Connector) -> Result<Option<String>, Failure> {
    let source = look::source(connector).await;
    let control = source.map_err(|error| failure(error, connector))?;
    control.migration_sql().await.map_err(|error| failure(error, connector))
}

fn human(report: MigrationReport) -> String {
    let version = report.version;
    match report.was {
        Some(was) if was == version => format!("schema tablecast is at version {version} already"),
        Some(was) => format!("schema tablecast is at version {version} (was: {was})"),
        None => format!("schema tablecast is at version {version} (was: none)"),
    }
}

fn failure(error: impl Into<MigrateError>, connector: &Connector) -> Failure {
    let error = error.into();
    match (error.remedy(&connector.name), error) {
        (Some(remedy), error) => Failure::Work(format!("{error}; {remedy}").into()),
        (None, MigrateError::Control(error)) => Failure::of_connector(error, &connector.name),
        (None, error) => Failure::Work(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_what_there_was_and_what_there_is() {
        let said = |was, version| human(MigrationReport { was, version });
        assert_eq!(said(None, 1), "schema tablecast is at version 1 (was: none)");
        assert_eq!(said(Some(1), 2), "schema tablecast is at version 2 (was: 1)");
        assert_eq!(said(Some(2), 2), "schema tablecast is at version 2 already");
    }
}
