//! Looking at the services without hanging on one that doesn't answer.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use crate::config::Connector;
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
