//! Backfills: tables that somebody wants read again, while the stream goes on.
//!
//! What is wanted stands in the control schema of the source, which is asked every moment. How far it is stands in the
//! stored position, which is what a restart goes by; the control schema mirrors it. So a backfill ends in three steps,
//! each of which may be the last before a crash: its last chunk is stored with *done*; its row is told so; and the
//! stored position forgets it, once the row has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::fault::Fault;
use super::start::Setting;
use super::state::State;
use crate::config::Connector;
use crate::kafka::positions::{BackfillState, Change};
use crate::kafka::progress::Reading;
use crate::postgres::backfills::{Outcome, Progress, Request};
use crate::postgres::control::{Control, ControlError};
use crate::postgres::migrate::ControlSchema;
use crate::relation::qualified;
use crate::retry::Backoff;
use crate::snapshot::{Desk, ReadingId};

/// How often it is asked what is wanted, and, while something is, how far it is mirrored.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often the desk is told which transactions everybody sees: often enough that their ids can't have wrapped around.
const FORGET_INTERVAL: Duration = Duration::from_secs(600);
/// How often it is asked whether the control schema is there meanwhile.
const SCHEMA_INTERVAL: Duration = Duration::from_secs(5);

/// A task that carries requests to the desk and progress back; it ends with the value.
#[derive(Debug)]
pub struct Backfills(AbortHandle);

impl Backfills {
    /// Begins to look for requests.
    pub fn start(setting: &Setting, desk: &Arc<Desk>) -> Self {
        let watch = Watch {
            connector: setting.connector.clone(),
            state: Arc::clone(&setting.state),
            desk: Arc::clone(desk),
            begun: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            last: BTreeMap::new(),
            failed: Vec::new(),
            forgot_at: Instant::now(),
        };
        Backfills(setting.runtime.spawn(watch.run()).abort_handle())
    }
}

impl Drop for Backfills {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Watch {
    connector: Connector,
    state: Arc<State>,
    desk: Arc<Desk>,
    /// On the desk, or done.
    begun: BTreeSet<i64>,
    /// The stored position is about to forget them.
    forgotten: BTreeSet<i64>,
    /// The last that was known of each.
    last: BTreeMap<i64, Progress>,
    /// To be told to their rows.
    failed: Vec<(i64, Outcome)>,
    /// When the desk was last told which transactions are no matter any more.
    forgot_at: Instant,
}

impl Watch {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut control = None;
        loop {
            let pause = match self.try_look(&mut control).await {
                Ok(pause) => {
                    backoff = Backoff::default();
                    pause
                }
                Err(error) => {
                    control = None;
                    let pause = backoff.failed_after(Duration::ZERO).max(INTERVAL);
                    let connector = &self.connector.name;
                    tracing::warn!(connector, %error, retry_in = ?pause, "the control schema can't be asked for backfills");
                    pause
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_look(&mut self, control: &mut Option<Control>) -> Result<Duration, ControlError> {
        let control = match control {
            Some(control) => control,
            None => {
                let (database, tls) = (&self.connector.database, &self.connector.tls);
                control.insert(Control::connect_with_tls(database, tls).await?)
            }
        };
        if self.forgot_at.elapsed() > FORGET_INTERVAL {
            self.forgot_at = Instant::now();
            // 32 bits, as the stream has them.
            self.desk.all_see(control.ended().await?.xmin as u32);
        }
        match control.control_schema().await? {
            // A newer one still has what this one knows.
            ControlSchema::Current | ControlSchema::Newer(_) => self.look(control).await.map(|()| INTERVAL),
            ControlSchema::Missing | ControlSchema::Old(_) => Ok(SCHEMA_INTERVAL),
        }
    }

    async fn look(&mut self, control: &Control) -> Result<(), ControlError> {
        let requests = control.open_backfills(&self.connector.name).await?;
        for request in &requests {
            if !self.begun.contains(&request.id) && !request.cancel {
                self.begin(request);
            }
        }
        for report in self.desk.reports() {
            if let ReadingId::Backfill(id) = report.reading {
                self.last.insert(id, report.progress);
            }
        }
        self.note_failures();
        for request in requests {
            self.attend(control, &request).await?;
        }
        self.forget_ended(control).await
    }

    /// Puts a request on the desk, or goes on with one.
    fn begin(&mut self, request: &Request) {
        let table = qualified(&request.table.schema, &request.table.name);
        let (connector, id) = (&self.connector.name, request.id);
        self.begun.insert(id);
        let Some(topic) = self.desk.topic_of(&table) else {
            let error = format!("table {table} is not captured by connector {connector}");
            let remedy = Some("map it in the configuration, and restart or reload the daemon".to_owned());
            self.failed.push((id, Outcome::Failed { error, remedy }));
            return;
        };
        let reading = match self.state.backfills().remove(&id) {
            None => Reading::default(),
            // Of another request, before the control schema was made anew.
            Some(stored) if stored.oid != self.desk.table(topic).oid => Reading::default(),
            Some(stored) => match stored.state {
                BackfillState::Reading(reading) => reading,
                // Its row will be told.
                BackfillState::Done { .. } => return,
            },
        };
        tracing::info!(connector, table, backfill = id, rows = reading.rows, "backfill begins, or goes on");
        self.desk.add(ReadingId::Backfill(id), topic, request.where_sql.clone(), reading);
    }

    fn note_failures(&mut self) {
        for (id, error) in self.desk.take_failed_backfills() {
            let fault = Fault::from(error);
            let (connector, remedy) = (&self.connector.name, fault.remedy(&self.connector.name));
            tracing::error!(connector, backfill = id, error = %fault, ?remedy, "backfill failed");
            self.failed.push((id, Outcome::Failed { error: fault.to_string(), remedy }));
        }
    }

    /// Tells the row how far its backfill is, or how it ended.
    async fn attend(&mut self, control: &Control, request: &Request) -> Result<(), ControlError> {
        let id = request.id;
        let mut progress = self.last.get(&id).copied().unwrap_or_default();
        if let Some(at) = self.failed.iter().position(|(failed, _)| *failed == id) {
            control.finish_backfill(id, &self.failed[at].1, &progress).await?;
            self.failed.swap_remove(at);
            return Ok(());
        }
        if let Some(BackfillState::Done { rows }) = self.state.backfills().get(&id).map(|stored| &stored.state) {
            progress.rows_written = *rows;
            progress.bytes_read = progress.bytes_total.unwrap_or(progress.bytes_read);
            control.finish_backfill(id, &Outcome::Done, &progress).await?;
            tracing::info!(connector = self.connector.name, backfill = id, rows, "backfill done");
            return Ok(());
        }
        if request.cancel {
            self.desk.remove(ReadingId::Backfill(id));
            control.finish_backfill(id, &Outcome::Cancelled, &progress).await?;
            tracing::info!(connector = self.connector.name, backfill = id, "backfill cancelled");
            return Ok(());
        }
        if self.last.contains_key(&id) && !control.mirror_backfill(id, &progress).await? {
            self.desk.remove(ReadingId::Backfill(id));
        }
        Ok(())
    }

    /// Lets the stored position forget what has ended. Asked for once more: a row may have ended since.
    async fn forget_ended(&mut self, control: &Control) -> Result<(), ControlError> {
        let stored = self.state.backfills();
        self.forgotten.retain(|id| stored.contains_key(id));
        if stored.keys().all(|id| self.forgotten.contains(id)) {
            return Ok(());
        }
        let open = control.open_backfills(&self.connector.name).await?;
        for id in stored.into_keys().filter(|id| !open.iter().any(|request| request.id == *id)) {
            if self.forgotten.insert(id) {
                self.desk.remove(ReadingId::Backfill(id));
                self.desk.change(Change::Backfill { id, progress: None });
                self.last.remove(&id);
            }
        }
        Ok(())
    }
}
