//! Asking: what has to be there, which tables are meant, and the rows that ask for them.

use super::{failure, name, requested};
use crate::cli::exit::Failure;
use crate::cli::look;
use crate::cli::progress::TableProgress;
use crate::config::{Connector, TablePattern};
use crate::connector::publication;
use crate::connector::source::{self, Table};
use crate::postgres::backfills::{ConditionError, Request};
use crate::postgres::control::Control;
use crate::postgres::migrate::ControlSchema;

/// A connection to a source where backfills can be asked for.
pub(super) async fn connect(connector: &Connector) -> Result<Control, Failure> {
    let control = look::source(connector).await.map_err(|error| failure(error, connector))?;
    if control.server().await.map_err(|error| failure(error, connector))?.in_recovery {
        let remedy = "backfill needs a database_url that names the primary";
        return Err(work(format!("the source is a standby, where nothing can be asked for; {remedy}")));
    }
    match control.control_schema().await.map_err(|error| failure(error, connector))? {
        ControlSchema::Current | ControlSchema::Newer(_) => Ok(control),
        ControlSchema::Missing => Err(work(format!(
            "the source has no schema tablecast, where backfills are asked for; run `tablecast migrate {}`",
            connector.name
        ))),
        ControlSchema::Old(version) => Err(work(format!(
            "the schema tablecast is at version {version}, which is too old; run `tablecast migrate {}`",
            connector.name
        ))),
    }
}

/// Asks for all the tables that are meant, or for none of them.
pub(super) async fn request(
    control: &Control,
    connector: &Connector,
    wanted: &[TablePattern],
    condition: Option<&str>,
) -> Result<Vec<TableProgress>, Failure> {
    let failure = |error| failure(error, connector);
    let (mut source, _) = source::find(control, connector).await.map_err(failure)?;
    if let Some(publication) = control.publication(&connector.publication).await.map_err(failure)? {
        source.tables.retain(|table| publication::has(&publication, table));
    }
    let tables = look::wanted(connector, &source, wanted)?;
    if let Some(condition) = condition {
        for table in &tables {
            check(control, connector, table, condition).await?;
        }
    }
    let names: Vec<_> = tables.iter().map(|table| table.facts.table_name()).collect();
    let ids = control.request_backfill(&connector.name, &names, condition).await.map_err(failure)?;
    Ok(ids.into_iter().zip(tables).map(|(id, table)| requested(id, table.sql_name())).collect())
}

/// Wants the open backfills of these tables to end, also of such as aren't captured any more.
pub(super) async fn cancel(
    control: &Control,
    connector: &Connector,
    wanted: &[TablePattern],
) -> Result<Vec<TableProgress>, Failure> {
    let failure = |error| failure(error, connector);
    let is_wanted = |request: &Request| {
        wanted.is_empty() || wanted.iter().any(|one| one.matches(&request.table.schema, &request.table.name))
    };
    let mut open = control.open_backfills(&connector.name).await.map_err(failure)?;
    open.retain(is_wanted);
    let ids: Vec<i64> = open.iter().map(|request| request.id).collect();
    let cancelled = control.cancel_backfills(&connector.name, &ids).await.map_err(failure)?;
    open.retain(|request| cancelled.contains(&request.id));
    Ok(open.iter().map(|request| requested(request.id, name(request))).collect())
}

async fn check(control: &Control, connector: &Connector, table: &Table, condition: &str) -> Result<(), Failure> {
    match control.check_condition(&table.facts.table_name(), condition).await {
        Ok(()) => Ok(()),
        Err(ConditionError::Control(error)) => Err(failure(error, connector)),
        Err(error) => {
            let place = match error {
                ConditionError::Refused { position, .. } => position,
                _ => None,
            };
            let place = place.map(|place| pointed_at(condition, place)).unwrap_or_default();
            Err(Failure::Call(format!("--where can't choose rows of {}: {error}{place}", table.sql_name())))
        }
    }
}

/// The line that has the character, and a caret below it.
fn pointed_at(condition: &str, place: usize) -> String {
    let mut left = place;
    for line in condition.split('\n') {
        let length = line.chars().count();
        if left <= length {
            return format!("\n  {line}\n  {}^", " ".repeat(left));
        }
        left -= length + 1;
    }
    String::new()
}

fn work(message: String) -> Failure {
    Failure::Work(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caret_stands_below_what_is_wrong() {
        assert_eq!(pointed_at("größe > nix", 8), "\n  größe > nix\n          ^");
        assert_eq!(pointed_at("a > 1\n  AND b", 12), "\n    AND b\n        ^");
        assert_eq!(pointed_at("a >", 3), "\n  a >\n     ^");
        assert_eq!(pointed_at("a", 9), "");
    }
}
