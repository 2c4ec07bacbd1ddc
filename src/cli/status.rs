//! `tablecast status`: how far each connector is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::daemon::{self, Seen};
use super::exit::{Exit, Failure};
use super::run::runtime;
use super::{Global, look, output};
use crate::calendar::rfc3339;
use crate::config::{Config, Connector};
use crate::connector::source;
use crate::connector::supervisor::kafka_connection;
use crate::kafka::positions::{SnapshotProgress, StoredPosition};
use crate::lsn::Lsn;
use crate::postgres::catalog::SlotFacts;
use crate::postgres::control::{Control, ControlError};

const EXAMPLES: &str = "\
The lag in bytes is the WAL that the source has written beyond the stored position. The lag in seconds is the age of the
last source transaction that is stored; it is 0 when the source has nothing left to send, since the bytes are then WAL
without captured changes. What can't be looked at is shown as an error, and the exit status is 1.

Examples:
  tablecast status
  tablecast status --json | jq '.connectors[].lag_bytes'";

/// Arguments of `tablecast status`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// One JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// What is shown of all connectors.
#[derive(Debug, Serialize)]
struct Report {
    connectors: Vec<Status>,
}

/// What is shown of a connector. Programs rely on the names.
#[derive(Debug, Default, Serialize)]
struct Status {
    name: String,
    /// The daemon's word if it answers at `[http]`; else `running` or `not running`, by whether the slot is in use.
    phase: Option<String>,
    lsn: Option<Lsn>,
    ordinal: Option<u64>,
    /// Of the last source transaction that is stored.
    commit_time: Option<String>,
    lag_bytes: Option<u64>,
    lag_seconds: Option<u64>,
    slot: Option<SlotStatus>,
    tables: Vec<TableStatus>,
    /// Why it doesn't work, or why it can't be looked at.
    error: Option<String>,
    /// All that was to be looked at answered.
    #[serde(skip)]
    seen: bool,
}

#[derive(Debug, Serialize)]
struct SlotStatus {
    name: String,
    active: bool,
    active_pid: Option<i32>,
    wal_status: Option<&'static str>,
    retained_bytes: Option<u64>,
    safe_wal_size: Option<i64>,
    confirmed_flush: Option<Lsn>,
    invalidated: Option<String>,
}

#[derive(Debug, Serialize)]
struct TableStatus {
    /// As SQL writes it.
    table: String,
    topic: String,
    /// The columns of the records' key; null before the connector has run with the table.
    key: Option<Vec<String>>,
    /// How far the table's first rows are in the topic; null before the connector has run with the table.
    snapshot: Option<SnapshotProgress>,
}

/// Writes each connector's state to stdout.
pub fn run(args: &Args, global: &Global) -> Result<Exit, Failure> {
    let config = global.load()?;
    config.select(&[])?;
    let runtime = runtime()?;
    let report = runtime.block_on(look(&config));
    // A thread may still wait for a broker that doesn't answer.
    runtime.shutdown_background();
    let text = match args.json {
        true => serde_json::to_string_pretty(&report)?,
        false => report.connectors.iter().map(human::connector).collect::<Vec<_>>().join("\n"),
    };
    output::write(&text)?;
    Ok(if report.connectors.iter().all(|status| status.seen) { Exit::Done } else { Exit::Failed })
}

/// What Kafka and the daemon say, which is asked for once.
struct Common {
    positions: Result<BTreeMap<String, StoredPosition>, String>,
    daemon: BTreeMap<String, Seen>,
}

async fn look(config: &Config) -> Report {
    let daemon = async {
        match &config.http {
            Some(http) => daemon::ask(http.listen).await,
            None => BTreeMap::new(),
        }
    };
    let connection = kafka_connection(config);
    let (positions, daemon) = tokio::join!(look::positions(&connection, config.connectors.keys()), daemon);
    let common = Arc::new(Common { positions: positions.map_err(|fault| fault.to_string()), daemon });
    let looks: Vec<_> = config
        .connectors
        .values()
        .map(|connector| tokio::spawn(status(connector.clone(), Arc::clone(&common))))
        .collect();
    let mut connectors = Vec::new();
    for (look, name) in looks.into_iter().zip(config.connectors.keys()) {
        let gone = |error: tokio::task::JoinError| Status {
            name: name.clone(),
            error: Some(error.to_string()),
            ..Status::default()
        };
        connectors.push(look.await.unwrap_or_else(gone));
    }
    Report { connectors }
}

async fn status(connector: Connector, common: Arc<Common>) -> Status {
    let mut status = Status { name: connector.name.clone(), ..Status::default() };
    let mut errors = Vec::new();
    let stored = match &common.positions {
        Ok(positions) => positions.get(&connector.name),
        Err(error) => {
            errors.push(error.clone());
            None
        }
    };
    if let Some(stored) = stored {
        status.lsn = Some(stored.position.lsn);
        status.ordinal = Some(stored.position.ordinal);
        status.commit_time = stored.commit_time.map(rfc3339);
    }
    match look::within(source_of(&connector)).await {
        Some(Ok(found)) => found.fill(&mut status, &connector, stored),
        Some(Err(error)) => errors.push(error.to_string()),
        None => errors.push(ControlError::ConnectTimeout(look::PATIENCE).to_string()),
    }
    status.seen = errors.is_empty();
    if let Some(seen) = common.daemon.get(&connector.name) {
        status.phase = Some(seen.phase.clone());
        errors.extend(seen.error.clone());
    }
    status.error = (!errors.is_empty()).then(|| errors.join("; "));
    status
}

/// What the source says.
struct Found {
    wal: Lsn,
    slot: Option<SlotFacts>,
    sent_all: bool,
    tables: Vec<(String, String)>,
}

async fn source_of(connector: &Connector) -> Result<Found, ControlError> {
    let control: Control = look::source(connector).await?;
    let wal = control.server().await?.current_wal_lsn;
    let slot = control.slot(&connector.slot).await?;
    let sent_all = match slot.as_ref().and_then(|slot| slot.active_pid) {
        Some(pid) => control.has_sent_all(pid).await?,
        None => false,
    };
    let (source, _) = source::find(&control, connector).await?;
    let tables = source.tables.into_iter().map(|table| (table.sql_name(), table.topic)).collect();
    Ok(Found { wal, slot, sent_all, tables })
}

impl Found {
    fn fill(self, status: &mut Status, connector: &Connector, stored: Option<&StoredPosition>) {
        let active = self.slot.as_ref().is_some_and(|slot| slot.active);
        status.phase = Some(if active { "running" } else { "not running" }.to_owned());
        if let Some(stored) = stored {
            let bytes = self.wal.bytes_since(stored.position.lsn);
            status.lag_bytes = Some(bytes);
            status.lag_seconds = match bytes == 0 || self.sent_all {
                true => Some(0),
                false => stored.commit_time.map(|committed| seconds_since(committed, SystemTime::now())),
            };
        }
        status.slot = self.slot.map(|slot| SlotStatus {
            name: connector.slot.clone(),
            active: slot.active,
            active_pid: slot.active_pid,
            wal_status: slot.wal_status.map(|status| status.name()),
            retained_bytes: slot.retained_bytes,
            safe_wal_size: slot.safe_wal_size,
            confirmed_flush: slot.confirmed_flush_lsn,
            invalidated: slot.invalidation_reason,
        });
        let table_status = |(table, topic): (String, String)| {
            let progress = stored.and_then(|stored| stored.tables.get(&table));
            let (key, snapshot) =
                (progress.map(|progress| progress.key.clone()), progress.map(|progress| progress.snapshot.clone()));
            TableStatus { table, topic, key, snapshot }
        };
        status.tables = self.tables.into_iter().map(table_status).collect();
    }
}

/// Whole seconds between a moment, in milliseconds since 1970, and now; 0 if the source's clock is ahead.
fn seconds_since(millis: i64, now: SystemTime) -> u64 {
    let now = now.duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default();
    now.saturating_sub(u64::try_from(millis / 1_000).unwrap_or_default())
}

mod human {
    //! The same for people.

    use super::{SlotStatus, Status, TableStatus};
    use crate::cli::output::bytes;
    use crate::kafka::positions::SnapshotProgress;

    pub(super) fn connector(status: &Status) -> String {
        let mut lines = vec![format!("{}: {}", status.name, status.phase.as_deref().unwrap_or("unknown"))];
        lines.extend(status.error.iter().map(|error| format!("  error     {error}")));
        lines.push(format!("  position  {}", position(status)));
        if let Some(lag) = status.lag_bytes {
            let seconds = status.lag_seconds.map(|seconds| format!(", {seconds} s")).unwrap_or_default();
            lines.push(format!("  lag       {}{seconds}", bytes(lag)));
        }
        if let Some(found) = &status.slot {
            lines.push(format!("  slot      {}", slot(found)));
        }
        lines.extend(status.tables.iter().map(|found| format!("  table     {}", table(found))));
        lines.join("\n")
    }

    fn position(status: &Status) -> String {
        let Some(lsn) = status.lsn else { return "none is stored".to_owned() };
        let ordinal = match status.ordinal {
            Some(ordinal) if ordinal > 0 => format!(" and {ordinal} changes of the next transaction"),
            _ => String::new(),
        };
        let committed = status.commit_time.as_ref().map(|at| format!(", last commit {at}")).unwrap_or_default();
        format!("{lsn}{ordinal}{committed}")
    }

    fn slot(slot: &SlotStatus) -> String {
        let reader = match slot.active_pid {
            Some(pid) => format!("in use by process {pid}"),
            None => "not in use".to_owned(),
        };
        let wal = match (&slot.invalidated, slot.wal_status) {
            (Some(reason), _) => format!("INVALIDATED ({reason})"),
            (None, Some(status)) => format!("WAL {status}"),
            (None, None) => "no WAL".to_owned(),
        };
        let retained = slot.retained_bytes.map(|size| format!(", {} kept for it", bytes(size))).unwrap_or_default();
        let safe = slot
            .safe_wal_size
            .map(|size| format!(", {} until it may be lost", bytes(size.max(0).unsigned_abs())))
            .unwrap_or_default();
        format!("{}: {reader}, {wal}{retained}{safe}", slot.name)
    }

    fn table(table: &TableStatus) -> String {
        let words = match (&table.key, &table.snapshot) {
            (Some(key), Some(SnapshotProgress::Reading(reading))) => {
                format!("key ({}), snapshot under way, {} rows so far", key.join(", "), reading.rows)
            }
            (Some(key), Some(snapshot)) => format!("key ({}), snapshot {}", key.join(", "), snapshot.name()),
            _ => "not captured yet".to_owned(),
        };
        format!("{} → {}: {words}", table.table, table.topic)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_source_whose_clock_is_ahead_is_not_behind() {
        let now = UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(seconds_since(90_500, now), 10);
        assert_eq!(seconds_since(200_000, now), 0);
    }

    #[test]
    fn people_see_what_is_known_and_what_is_not() {
        let status = Status {
            name: "shop".into(),
            error: Some("no broker answered".into()),
            slot: Some(SlotStatus {
                name: "tablecast_shop".into(),
                active: false,
                active_pid: None,
                wal_status: Some("extended"),
                retained_bytes: Some(3 << 20),
                safe_wal_size: Some(-1),
                confirmed_flush: None,
                invalidated: None,
            }),
            tables: vec![TableStatus {
                table: "public.t".into(),
                topic: "t".into(),
                key: Some(vec!["id".into()]),
                snapshot: Some(SnapshotProgress::Done),
            }],
            ..Status::default()
        };
        insta::assert_snapshot!(human::connector(&status), @r"
        shop: unknown
          error     no broker answered
          position  none is stored
          slot      tablecast_shop: not in use, WAL extended, 3.0 MiB kept for it, 0 B until it may be lost
          table     public.t → t: key (id), snapshot done
        ");
    }
}
