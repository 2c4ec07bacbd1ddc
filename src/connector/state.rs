//! What a connector shows of itself while it works: its phase, its position, its counts.
//!
//! Shared between the connector's threads, which write it, and the HTTP endpoint, which reads it. Nothing here takes
//! part in the flow of rows except `stored_lsn`, by which the sink tells the intake what may be acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;

use crate::kafka::positions::{BackfillProgress, SnapshotProgress, StoredPosition};
use crate::kafka::shapes::TableShape;
use crate::kafka::sink::{Committed, SinkObserver};
use crate::lsn::Lsn;
use crate::position::Position;
use crate::postgres::backfills::Progress;
use crate::snapshot::{Desk, ReadingId, Report};

/// What a connector is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum Phase {
    /// Connecting, taking over, proving continuity.
    Starting,
    /// Another daemon has the slot; this one takes over when it comes free.
    Standby,
    /// Rows flow.
    Streaming,
    /// Something failed that passes by itself; a new start follows.
    Retrying {
        /// What failed.
        error: String,
    },
    /// Something failed that doesn't pass by itself.
    Failed {
        /// What failed.
        error: String,
        /// What to do about it.
        remedy: Option<String>,
    },
    /// Asked to stop.
    Stopped,
}

impl Phase {
    /// One word, for metrics and lists.
    pub fn name(&self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Standby => "standby",
            Phase::Streaming => "streaming",
            Phase::Retrying { .. } => "retrying",
            Phase::Failed { .. } => "failed",
            Phase::Stopped => "stopped",
        }
    }
}

/// All phases' names, for the metric that has one series a phase.
const PHASES: [&str; 6] = ["starting", "standby", "streaming", "retrying", "failed", "stopped"];

/// A connector's state at a moment.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// The connector.
    pub connector: String,
    /// What it is doing.
    #[serde(flatten)]
    pub phase: Phase,
    /// What Kafka holds.
    #[serde(flatten)]
    pub position: Option<Position>,
    /// Commit time of the last source transaction that Kafka holds, in milliseconds since 1970-01-01 UTC.
    pub commit_time: Option<i64>,
    /// Since the daemon's start.
    pub records: u64,
    /// Since the daemon's start: bytes of keys and values.
    pub bytes: u64,
    /// Since the daemon's start: source transactions.
    pub transactions: u64,
    /// Tables that are being read beside the stream.
    pub reading: Vec<ReadingStatus>,
}

/// The state that a connector's threads share.
pub struct State {
    stored_lsn: AtomicU64,
    shown: Mutex<Snapshot>,
    readings: Mutex<Readings>,
    /// The stream has announced a table.
    announced: Notify,
}

/// What of the tables is in Kafka.
#[derive(Debug, Default)]
struct Readings {
    tables: BTreeMap<String, SnapshotProgress>,
    backfills: BTreeMap<i64, BackfillProgress>,
    shapes: BTreeMap<String, TableShape>,
    /// Where the topics ended of the tables that are swept when they are read.
    sweeps: BTreeMap<String, Vec<i64>>,
    /// The run's, while it lasts.
    desk: Option<Arc<Desk>>,
    /// What the last run had finished.
    finished: Vec<Report>,
    /// Tables that a run may begin to read again, by name.
    due: BTreeMap<String, Due>,
}

/// A table was seen in this shape, and what was written under former ones lies before this place.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    /// The shape.
    pub shape: TableShape,
    /// The place.
    pub at: Lsn,
}

impl State {
    /// The state of a connector that has not begun.
    pub fn new(connector: &str) -> Arc<Self> {
        describe_metrics();
        let shown = Snapshot {
            connector: connector.to_owned(),
            phase: Phase::Starting,
            position: None,
            commit_time: None,
            records: 0,
            bytes: 0,
            transactions: 0,
            reading: Vec::new(),
        };
        Arc::new(Self {
            stored_lsn: AtomicU64::new(0),
            shown: Mutex::new(shown),
            readings: Mutex::default(),
            announced: Notify::new(),
        })
    }

    fn shown(&self) -> MutexGuard<'_, Snapshot> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readings(&self) -> MutexGuard<'_, Readings> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { reading: self.reports().into_iter().map(ReadingStatus::from).collect(), ..self.shown().clone() }
    }

    /// What is being read, and how far it is.
    pub fn reports(&self) -> Vec<Report> {
        let desk = self.readings().desk.clone();
        desk.map(|desk| desk.reports()).unwrap_or_default()
    }

    /// The run has ended: nothing is being read any more.
    pub fn read_no_more(&self) {
        let finished = self.finished();
        let mut readings = self.readings();
        readings.desk = None;
        readings.finished = finished;
    }

    /// The tables whose first rows this run has read to their end, be it that Kafka doesn't hold all yet.
    pub fn finished(&self) -> Vec<Report> {
        let desk = self.readings().desk.clone();
        desk.map_or_else(|| self.readings().finished.clone(), |desk| desk.finished())
    }

    /// The run's readers meet the stream here.
    pub fn read_at(&self, desk: &Arc<Desk>) {
        self.readings().desk = Some(Arc::clone(desk));
    }

    /// How far the first rows of each table are in Kafka.
    pub fn snapshots(&self) -> BTreeMap<String, SnapshotProgress> {
        self.readings().tables.clone()
    }

    /// How far backfills are in Kafka.
    pub fn backfills(&self) -> BTreeMap<i64, BackfillProgress> {
        self.readings().backfills.clone()
    }

    /// What the rows of a table's topic were written under, as it is in Kafka.
    pub fn shape(&self, table: &str) -> Option<TableShape> {
        self.readings().shapes.get(table).cloned()
    }

    /// Where the partitions of a table's topic ended when the reading began that a sweep follows.
    pub fn sweep_of(&self, table: &str) -> Option<Vec<i64>> {
        self.readings().sweeps.get(table).cloned()
    }

    /// Says that a run may begin to read a table again once it has come so far.
    pub fn set_due(&self, table: &str, due: Due) {
        self.readings().due.insert(table.to_owned(), due);
    }

    /// What runs before this one have found.
    pub fn due(&self) -> BTreeMap<String, Due> {
        self.readings().due.clone()
    }

    /// The stream has announced a table: it may have become another one.
    pub fn look_at_once(&self) {
        self.announced.notify_one();
    }

    /// Waits until the stream announces a table.
    pub async fn asked_to_look(&self) {
        self.announced.notified().await;
    }

    /// Changes the phase.
    pub fn enter(&self, phase: Phase) {
        let mut shown = self.shown();
        for name in PHASES {
            let value = if name == phase.name() { 1.0 } else { 0.0 };
            let labels = [("connector", shown.connector.clone()), ("phase", name.to_owned())];
            metrics::gauge!("tablecast_connector_phase", &labels).set(value);
        }
        shown.phase = phase;
    }

    /// A new run begins: nothing may be acknowledged before continuity is proved.
    pub fn starting(&self) {
        self.stored_lsn.store(0, Ordering::Release);
    }

    /// Continuity is proved, and the run goes on from what is stored.
    pub fn resumed(&self, stored: &StoredPosition) {
        let mut shown = self.shown();
        shown.position = Some(stored.position);
        shown.commit_time = stored.commit_time;
        self.stored_lsn.store(stored.position.lsn.0, Ordering::Release);
        let mut readings = self.readings();
        readings.tables = snapshots_of(stored);
        readings.backfills.clone_from(&stored.backfills);
        readings.shapes.clone_from(&stored.shapes);
        let sweeps = stored.tables.iter().filter_map(|(name, table)| Some((name.clone(), table.sweep.clone()?)));
        readings.sweeps = sweeps.collect();
        readings.due.clear();
    }

    /// What may be acknowledged to Postgres.
    pub fn stored_lsn(&self) -> Lsn {
        Lsn(self.stored_lsn.load(Ordering::Acquire))
    }

    /// Notes the furthest place in the WAL that Postgres has told of.
    pub fn note_wal_end(&self, wal_end: Lsn) {
        let lag = wal_end.bytes_since(self.stored_lsn()) as f64;
        let connector = self.shown().connector.clone();
        metrics::gauge!("tablecast_unstored_wal_bytes", "connector" => connector).set(lag);
    }
}

impl SinkObserver for State {
    fn stored(&self, stored: &StoredPosition, committed: Committed) {
        let connector = {
            let mut shown = self.shown();
            shown.position = Some(stored.position);
            shown.commit_time = stored.commit_time;
            shown.records += committed.records;
            shown.bytes += committed.bytes;
            shown.transactions += committed.transactions;
            shown.connector.clone()
        };
        self.stored_lsn.store(stored.position.lsn.0, Ordering::Release);
        let labels = [("connector", connector)];
        metrics::counter!("tablecast_records_total", &labels).increment(committed.records);
        metrics::counter!("tablecast_record_bytes_total", &labels).increment(committed.bytes);
        metrics::counter!("tablecast_source_transactions_total", &labels).increment(committed.transactions);
        metrics::counter!("tablecast_kafka_transactions_total", &labels).increment(1);
        metrics::histogram!("tablecast_commit_seconds", &labels).record(committed.commit_took.as_secs_f64());
        metrics::gauge!("tablecast_stored_lsn_bytes", &labels).set(stored.position.lsn.0 as f64);
        if let Some(commit_time) = stored.commit_time {
            metrics::gauge!("tablecast_last_commit_timestamp_seconds", &labels).set(commit_time as f64 / 1_000.0);
        }
    }

    fn changed(&self, stored: &StoredPosition) {
        let connector = self.shown().connector.clone();
        let (tables, finished) = (snapshots_of(stored), self.finished());
        let mut readings = self.readings();
        for (table, progress) in &tables {
            let was = readings.tables.get(table);
            if *progress == SnapshotProgress::Done && was.is_some_and(|was| *was != SnapshotProgress::Done) {
                let finished = finished.iter().find(|report| report.table == *table);
                let rows = finished.map(|report| report.progress.rows_written);
                tracing::info!(connector, table, rows, "snapshot done");
            }
        }
        readings.tables = tables;
        readings.backfills.clone_from(&stored.backfills);
        if readings.shapes != stored.shapes {
            readings.shapes.clone_from(&stored.shapes);
        }
    }

    fn split(&self, position: Position) {
        let connector = self.shown().connector.clone();
        tracing::warn!(
            connector,
            bound = %position.lsn,
            changes = position.ordinal,
            "a source transaction outlives transaction.timeout.ms and is split: until its end, consumers see a part of it"
        );
        metrics::counter!("tablecast_split_transactions_total", "connector" => connector).increment(1);
    }
}

fn snapshots_of(stored: &StoredPosition) -> BTreeMap<String, SnapshotProgress> {
    stored.tables.iter().map(|(name, table)| (name.clone(), table.snapshot.clone())).collect()
}

/// A reading of a table that is under way.
#[derive(Clone, Debug, Serialize)]
pub struct ReadingStatus {
    /// The table, as SQL writes it.
    pub table: String,
    /// The request's id, if it is a backfill; else the table's first rows are read.
    pub backfill: Option<i64>,
    /// How far it is.
    #[serde(flatten)]
    pub progress: Progress,
}

impl From<Report> for ReadingStatus {
    fn from(report: Report) -> Self {
        let backfill = match report.reading {
            ReadingId::Backfill(id) => Some(id),
            ReadingId::Initial(_) => None,
        };
        Self { table: report.table, backfill, progress: report.progress }
    }
}

/// The states of all connectors of a daemon, by name. All clones are one.
#[derive(Clone, Default)]
pub struct States(Arc<Mutex<BTreeMap<String, Arc<State>>>>);

impl States {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<State>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of a connector, new if it has none yet.
    pub fn of(&self, connector: &str) -> Arc<State> {
        Arc::clone(self.all().entry(connector.to_owned()).or_insert_with(|| State::new(connector)))
    }

    /// Forgets a connector that the configuration no longer has.
    pub fn remove(&self, connector: &str) {
        self.all().remove(connector);
    }

    /// The connectors' states now, by name.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.all().values().map(|state| state.snapshot()).collect()
    }
}

/// How long a commit may take, as buckets of the histogram.
pub const COMMIT_BUCKETS: [Duration; 8] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(10),
];

fn describe_metrics() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_gauge!("tablecast_connector_phase", "1 for the phase the connector is in, 0 for the others.");
    describe_gauge!(
        "tablecast_unstored_wal_bytes",
        Unit::Bytes,
        "WAL that Postgres has read for the connector, and Kafka doesn't hold yet; what waits before that, status tells."
    );
    describe_gauge!("tablecast_reading_tables", "Tables that are being read beside the stream.");
    describe_gauge!("tablecast_reading_rows", "Rows of them that were written.");
    describe_gauge!("tablecast_reading_bytes", Unit::Bytes, "What of them was read.");
    describe_gauge!("tablecast_reading_bytes_total", Unit::Bytes, "What of them is to be read.");
    describe_counter!("tablecast_records_total", "Records committed to Kafka.");
    describe_counter!("tablecast_record_bytes_total", Unit::Bytes, "Bytes of keys and values committed to Kafka.");
    describe_counter!("tablecast_source_transactions_total", "Source transactions committed to Kafka.");
    describe_counter!("tablecast_kafka_transactions_total", "Kafka transactions committed.");
    describe_counter!("tablecast_split_transactions_total", "Source transactions that had to be split.");
    describe_counter!(
        "tablecast_unrepresentable_total",
        "Values that their Avro type can't hold, and that were written as null (unrepresentable = \"null\")."
    );
    describe_counter!("tablecast_restarts_total", "Runs of the connector that ended with an error.");
    describe_histogram!("tablecast_commit_seconds", Unit::Seconds, "Time from asking Kafka for a commit to its end.");
    describe_counter!(
        "tablecast_toast_looked_up_total",
        "Updates whose record has values that were looked up, since they are not in the WAL."
    );
    describe_counter!(
        "tablecast_toast_skipped_total",
        "Such updates without a record: their row was gone, or the value can't be had (reason=\"unknown\")."
    );
    describe_histogram!("tablecast_toast_lookup_seconds", Unit::Seconds, "Time that a look-up of such values took.");
    describe_gauge!("tablecast_stored_lsn_bytes", Unit::Bytes, "The stored position, as a WAL place in bytes.");
    describe_gauge!(
        "tablecast_last_commit_timestamp_seconds",
        Unit::Seconds,
        "Commit time of the last source transaction that Kafka holds, since 1970-01-01 UTC."
    );
}
