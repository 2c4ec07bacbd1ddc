//! A reader: a connection of its own, in a thread of its own, that reads one chunk after the other.
//!
//! A chunk is read in one REPEATABLE READ READ ONLY transaction: first the lock, which holds off DDL for as long as the
//! chunk takes, so that catalog and rows agree; then the snapshot; then the shape; then COPY. It ends before the chunk
//! is merged, so no transaction is ever longer than a chunk takes to read.
//!
//! What passes by itself is tried again after a pause: the stretch goes back to the desk meanwhile. What doesn't ends the
//! reading of that table.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_core::Stream;
use tokio_postgres::Config;

use super::desk::{Claim, Desk, Survey, Taken};
use super::error::SnapshotError;
use super::lines::Line;
use super::query;
use super::table::{SnapshotTable, look_up_types};
use super::windows::Verdict;
use super::writers::Waiting;
use crate::avro::{Encoder, Encoders};
use crate::kafka::positions::Change;
use crate::kafka::shapes::Announced;
use crate::kafka::{TopicId, TopicNames};
use crate::lsn::Lsn;
use crate::postgres::catalog::{HeapFacts, Published, SnapshotFacts};
use crate::postgres::control::{Control, ControlError};
use crate::postgres::tls::TlsMode;
use crate::relation::{Shape, TypeMap, relation_of};
use crate::retry::Backoff;

/// The first pause before a snapshot that was too old is taken again, and the longest.
const TOO_OLD_PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));
/// How often it is looked whether those that write to a table have ended.
const WRITERS_PAUSE: Duration = Duration::from_millis(100);
/// After so long without a snapshot that will do, the stretch goes back to the desk, for so long.
const WAITS_MAX: Duration = Duration::from_secs(1);
const WAITS_PAUSE: Duration = Duration::from_millis(500);

/// What readers need.
#[derive(Debug)]
pub struct Setting {
    /// The connector.
    pub connector: String,
    /// The source.
    pub database: Config,
    /// How to reach it.
    pub tls: TlsMode,
    /// What of the tables is published.
    pub publication: String,
    /// The topics.
    pub topics: TopicNames,
    /// The run's encoders.
    pub encoders: Arc<Encoders>,
    /// Where chunks are claimed and handed in.
    pub desk: Arc<Desk>,
}

/// What a survey came to.
enum Surveyed {
    Heaps(Vec<HeapFacts>),
    /// Somebody has begun to write to the table.
    Waits(Waiting),
    Gone,
}

/// Why a chunk wasn't read.
enum Obstacle {
    TooLarge,
    Waits,
    Rewritten { file_node: u32, blocks: u32 },
    Moved,
    Failed(SnapshotError),
}

impl From<SnapshotError> for Obstacle {
    fn from(error: SnapshotError) -> Self {
        Obstacle::Failed(error)
    }
}

/// Reads until the desk is closed. Blocks.
///
/// # Errors
///
/// If the thread can't have a runtime.
pub fn run(setting: &Setting) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut reader = Reader::new(setting);
    loop {
        if !setting.desk.has_work() {
            // Nobody knows for how long: the server shall not keep a backend for it. The socket is closed by a task.
            reader.control = None;
            runtime.block_on(tokio::task::yield_now());
        }
        let claim = setting.desk.claim();
        let done = runtime.block_on(async {
            tokio::select! {
                () = setting.desk.closed() => false,
                more = reader.work(claim) => more,
            }
        });
        if !done {
            return Ok(());
        }
    }
}

struct Reader<'s> {
    setting: &'s Setting,
    control: Option<Control>,
    types: TypeMap,
    line: Line,
    backoff: Backoff,
}

impl<'s> Reader<'s> {
    fn new(setting: &'s Setting) -> Self {
        Self { setting, control: None, types: TypeMap::default(), line: Line::default(), backoff: Backoff::default() }
    }

    /// Does what was claimed; false if there is nothing more to do, ever.
    async fn work(&mut self, claim: Claim) -> bool {
        match claim {
            Claim::Closed => return false,
            Claim::Survey(survey) => self.survey(survey).await,
            Claim::Chunk(taken) => self.chunk(*taken).await,
        }
        true
    }

    fn table(&self, table: TopicId) -> &'s SnapshotTable {
        self.setting.desk.table(table)
    }

    async fn survey(&mut self, survey: Survey) {
        let (desk, connector, reading) = (&self.setting.desk, &self.setting.connector, survey.reading);
        let (table, is_begun) = (self.table(survey.table), survey.is_begun);
        match self.try_survey(survey).await {
            Ok(Surveyed::Gone) => {
                tracing::warn!(connector, table = table.sql_name, "the table is gone: it is no longer read");
                desk.gone(reading, SnapshotError::Gone { table: table.sql_name.clone() });
            }
            Ok(Surveyed::Heaps(heaps)) => {
                let blocks: u64 = heaps.iter().map(|heap| u64::from(heap.blocks)).sum();
                let (table, heaps_found) = (&table.sql_name, heaps.len());
                tracing::info!(connector, table, heaps = heaps_found, blocks, resumed = is_begun, "reading the table");
                desk.surveyed(reading, heaps);
            }
            Ok(Surveyed::Waits(mut waiting)) => {
                waiting.tell(connector, &table.sql_name);
                desk.survey_later(reading, Some(waiting), WRITERS_PAUSE);
            }
            Err(error) if error.is_transient() => {
                let pause = self.pause(&error);
                desk.survey_later(reading, None, pause);
                tokio::time::sleep(pause).await;
            }
            Err(error) => desk.fail(reading, None, error),
        }
    }

    /// Lists the heaps, once those are done that had begun to write before.
    async fn try_survey(&mut self, survey: Survey) -> Result<Surveyed, SnapshotError> {
        let table = self.table(survey.table);
        let failed = |source| SnapshotError::Postgres { table: table.sql_name.clone(), source };
        let control = self.control().await.map_err(failed)?;
        if !survey.is_begun {
            let mut waiting = match survey.waiting {
                Some(waiting) => waiting,
                None => Waiting::begin(control, table.oid).await.map_err(failed)?,
            };
            if !waiting.is_over(control, table.oid).await.map_err(failed)? {
                return Ok(Surveyed::Waits(waiting));
            }
        }
        Ok(control.heaps(table.oid).await.map_err(failed)?.map_or(Surveyed::Gone, Surveyed::Heaps))
    }

    async fn chunk(&mut self, mut taken: Taken) {
        let desk = &self.setting.desk;
        match self.read(&mut taken).await {
            Ok(high) => {
                self.backoff = Backoff::default();
                desk.hand_in(taken, high);
            }
            Err(Obstacle::TooLarge) => {
                // The rest of the COPY would have to be read to its end.
                self.control = None;
                desk.give_back_halved(taken);
            }
            Err(Obstacle::Rewritten { file_node, blocks }) => {
                let (connector, heap) = (&self.setting.connector, taken.job.name.to_string());
                tracing::info!(connector, heap, "was rewritten (its file node is another one): reading it starts over");
                self.roll_back().await;
                desk.rewritten(taken, file_node, blocks);
            }
            Err(Obstacle::Moved) => {
                self.roll_back().await;
                desk.survey_again(taken);
            }
            // Not for longer: others may be read meanwhile.
            Err(Obstacle::Waits) => desk.give_back_for(taken, WAITS_PAUSE),
            Err(Obstacle::Failed(error)) if error.is_transient() => {
                self.control = None;
                let pause = self.pause(&error);
                desk.give_back(taken);
                tokio::time::sleep(pause).await;
            }
            Err(Obstacle::Failed(error)) => {
                self.control = None;
                desk.fail(taken.job.reading, Some(taken), error);
            }
        }
    }

    /// How long to wait after an error that passes by itself.
    fn pause(&mut self, error: &SnapshotError) -> Duration {
        let pause = self.backoff.failed_after(Duration::ZERO);
        let connector = &self.setting.connector;
        tracing::warn!(connector, %error, retry_in = ?pause, "reading a table was interrupted; it goes on at the chunk");
        pause
    }

    async fn control(&mut self) -> Result<&Control, ControlError> {
        let control = match self.control.take() {
            Some(control) if !control.is_closed() => control,
            _ => Control::connect_with_tls(&self.setting.database, &self.setting.tls).await?,
        };
        Ok(self.control.insert(control))
    }

    async fn roll_back(&mut self) {
        if let Some(control) = &self.control
            && control.execute("ending a transaction", "ROLLBACK").await.is_err()
        {
            self.control = None;
        }
    }

    /// Reads a chunk; gives the place that the stream has to come to before it is merged.
    async fn read(&mut self, taken: &mut Taken) -> Result<Lsn, Obstacle> {
        let table = self.table(taken.job.table);
        let failed = |source| SnapshotError::Postgres { table: table.sql_name.clone(), source };
        let facts = self.snapshot(taken).await?;
        if facts.file_node != taken.job.file_node {
            return Err(Obstacle::Rewritten { file_node: facts.file_node, blocks: facts.blocks });
        }
        let Some((shape, published, encoder)) = self.shape(taken.job.table).await? else {
            self.roll_back().await;
            return Err(Obstacle::Waits);
        };
        let announced = Announced::of(&shape, encoder.plan().key_schema());
        taken.batch.changes.push(Change::Announced { table: table.sql_name.clone(), announced });
        let columns: Vec<&str> = shape.columns.iter().map(|column| column.name.as_str()).collect();
        let sql = query::copy(&taken.job, &table.name.name, &columns, published.row_filter.as_deref());
        self.copy(&sql, columns.len(), &encoder, taken, facts.time).await?;
        let control = self.control().await.map_err(failed)?;
        let (ended, flushed) =
            tokio::join!(control.execute("ending a chunk's transaction", "COMMIT"), control.flush_up_to(facts.high));
        ended.and(flushed).map_err(failed)?;
        Ok(facts.high)
    }

    /// Begins the chunk's transaction with a snapshot that will do.
    async fn snapshot(&mut self, taken: &Taken) -> Result<SnapshotFacts, Obstacle> {
        let table = self.table(taken.job.table);
        let failed = |source| SnapshotError::Postgres { table: table.sql_name.clone(), source };
        let heap = taken.job.heap;
        let mut pause = TOO_OLD_PAUSE.0;
        let began = Instant::now();
        let setting = self.setting;
        let desk = &setting.desk;
        let control = self.control().await.map_err(failed)?;
        loop {
            let begin = query::begin(&table.name, &taken.job.name);
            match control.execute("locking a table for a chunk", &begin).await {
                Err(error) if is_gone(&error) => return Err(Obstacle::Moved),
                locked => locked.map_err(failed)?,
            }
            let facts = control.snapshot_facts(heap, table.oid).await.map_err(failed)?;
            let Some(facts) = facts.filter(|facts| facts.is_of_table && facts.name == taken.job.name) else {
                return Err(Obstacle::Moved);
            };
            let unknown = match desk.judge(taken.window, heap, &facts.in_progress, facts.next_xid) {
                Verdict::Good => return Ok(facts),
                Verdict::TooOld => None,
                Verdict::Unless(unknown) => Some(unknown),
            };
            control.execute("ending a transaction", "ROLLBACK").await.map_err(failed)?;
            if let Some(unknown) = &unknown {
                let writers = control.writers(heap).await.map_err(failed)?;
                let writers: Vec<u32> = writers.into_iter().filter_map(|writer| writer.xid).collect();
                desk.clear(heap, unknown, &writers);
                if !unknown.xids.iter().any(|xid| writers.contains(xid)) {
                    continue;
                }
            }
            if began.elapsed() > WAITS_MAX {
                let (connector, table) = (&setting.connector, &table.sql_name);
                let transactions = unknown.map(|unknown| unknown.xids);
                tracing::debug!(
                    connector,
                    table,
                    ?transactions,
                    "reading the table waits for transactions that are committed but not visible yet, or that wrote to it \
                     before the connector started"
                );
                return Err(Obstacle::Waits);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(TOO_OLD_PAUSE.1);
        }
    }

    /// The table as it is in the chunk's transaction; `None` if it has become another one, which the next run reads, or is
    /// amid a change of its key: between the statements of such, it has none.
    async fn shape(&mut self, topic: TopicId) -> Result<Option<(Shape, Published, Encoder)>, SnapshotError> {
        let table = self.table(topic);
        let failed = |source| SnapshotError::Postgres { table: table.sql_name.clone(), source };
        let control = self.control.as_ref().ok_or(SnapshotError::Panicked)?;
        // In one round trip.
        let (facts, published) = tokio::join!(
            control.tables(&table.name.schema, Some(&table.name.name)),
            control.published(&self.setting.publication, table.oid)
        );
        let (facts, published) = (facts.map_err(failed)?.pop(), published.map_err(failed)?);
        let Some(facts) = facts.filter(|facts| facts.oid == table.oid) else { return Ok(None) };
        let relation = relation_of(&facts, published.columns.as_deref());
        look_up_types(control, &relation, &mut self.types).await.map_err(failed)?;
        let shape = match Shape::new(&relation, &facts, &self.types, &table.options()) {
            Err(error) if error.problem.is_about_the_key() => return Ok(None),
            shape => shape?,
        };
        if shape.key_columns() != table.key {
            return Ok(None);
        }
        let encoder = self.setting.encoders.encoder(&shape, &self.setting.topics[topic.0 as usize]).await;
        let encoder = encoder.map_err(|source| SnapshotError::Encoder { table: table.sql_name.clone(), source })?;
        Ok(Some((shape, published, encoder)))
    }

    /// Encodes what COPY sends.
    async fn copy(
        &mut self,
        sql: &str,
        columns: usize,
        encoder: &Encoder,
        taken: &mut Taken,
        time: i64,
    ) -> Result<(), Obstacle> {
        let table = self.table(taken.job.table);
        let is_single = query::is_single(taken.job.stretch);
        let failed = |source| {
            let source = ControlError::Postgres { doing: "reading a chunk", source };
            // statement_timeout: less of it may be read in time.
            match source.sqlstate() == Some("57014") && !is_single {
                true => Obstacle::TooLarge,
                false => SnapshotError::Postgres { table: table.sql_name.clone(), source }.into(),
            }
        };
        let control = self.control.as_ref().ok_or(SnapshotError::Panicked)?;
        let stream = control.client().copy_out(sql).await.map_err(failed)?;
        let mut stream = std::pin::pin!(stream);
        let batch = &mut taken.batch;
        batch.topics = Arc::clone(&self.setting.topics);
        let bytes_max = 2 * self.setting.desk.chunk_bytes;
        while let Some(line) = poll_fn(|context| stream.as_mut().poll_next(context)).await {
            let line = line.map_err(failed)?;
            self.line.parse(&line);
            let cells = self.line.cells(&line, columns);
            batch.row(taken.job.table, time, encoder, cells.clone()).map_err(|source| SnapshotError::Encode {
                table: table.sql_name.clone(),
                key: encoder.show_key(cells),
                source: Box::new(source),
            })?;
            if batch.weight() > bytes_max && !is_single {
                return Err(Obstacle::TooLarge);
            }
        }
        Ok(())
    }
}

/// Whether it says that the heap isn't where it was: dropped, renamed, or moved to another schema.
fn is_gone(error: &ControlError) -> bool {
    // undefined_table, invalid_schema_name
    matches!(error.sqlstate(), Some("42P01" | "3F000"))
}
