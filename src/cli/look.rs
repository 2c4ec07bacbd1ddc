//! Looking at the services without hanging on one that doesn't answer.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use super::exit::Failure;
use crate::config::{Connector, TablePattern};
use crate::connector::source::{Source, Table};
use crate::kafka::positions::{self, StoredPosition};
use crate::kafka::{Connection, KafkaFault};
use crate::postgres::control::{Control, ControlError};

/// How long a service may take. What works answers in milliseconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(12);

/// Connects to a connector's source, within [`PATIENCE`].
pub(super) async fn source(connector: &Connector) -> Result<Control, ControlError> {
    let connect = Control::connect_with_tls(&connector.database, &connector.tls);
    tokio::time::timeout(PATIENCE, connect).await.unwrap_or(Err(ControlError::ConnectTimeout(PATIENCE)))
}

/// The tables that are wanted, of those that a connector finds at its source; all if none is named. Each name must be
/// that of one.
pub(super) fn wanted<'s>(
    connector: &Connector,
    source: &'s Source,
    wanted: &[TablePattern],
) -> Result<Vec<&'s Table>, Failure> {
    let matches = |pattern: &TablePattern, table: &Table| pattern.matches(&table.facts.schema, &table.facts.name);
    if let Some(missing) = wanted.iter().find(|pattern| !source.tables.iter().any(|table| matches(pattern, table))) {
        let there: Vec<_> = source.tables.iter().map(Table::sql_name).collect();
        let message = format!(
            "connector `{}` finds no table {missing} that it can capture; it finds {}",
            connector.name,
            if there.is_empty() { "none at all".to_owned() } else { there.join(", ") }
        );
        return Err(Failure::Call(message));
    }
    let is_wanted = |table: &&Table| wanted.is_empty() || wanted.iter().any(|pattern| matches(pattern, table));
    Ok(source.tables.iter().filter(is_wanted).collect())
}

/// What is committed of the connectors' stored positions.
pub(super) async fn positions(
    connection: &Connection,
    connectors: impl IntoIterator<Item = &String>,
) -> Result<BTreeMap<String, StoredPosition>, KafkaFault> {
    let connection = connection.clone();
    let connectors: Vec<String> = connectors.into_iter().cloned().collect();
    let names = move || positions::look(&connection, &connectors.iter().map(String::as_str).collect::<Vec<_>>());
    blocking("reading the stored positions", names).await
}

/// Runs what blocks, and doesn't wait for it longer than [`PATIENCE`]. The thread may stay behind; the process ends
/// without it.
pub(super) async fn blocking<T: Send + 'static>(
    doing: &str,
    work: impl FnOnce() -> Result<T, KafkaFault> + Send + 'static,
) -> Result<T, KafkaFault> {
    let stalled = |last: &str| KafkaFault::Stalled {
        doing: doing.to_owned(),
        seconds: PATIENCE.as_secs(),
        last: last.to_owned(),
    };
    match within(tokio::task::spawn_blocking(work)).await {
        Some(Ok(answer)) => answer,
        Some(Err(_)) => Err(stalled("the thread ended without a word")),
        None => Err(stalled("no broker answered")),
    }
}

/// The answer, if it comes within [`PATIENCE`].
pub(super) async fn within<T>(answer: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(PATIENCE, answer).await.ok()
}
