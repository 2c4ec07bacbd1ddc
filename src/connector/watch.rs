//! The watch over the tables: what changes them and leaves no trace in the stream.
//!
//! Every `catalog_interval`, and soon after the stream has announced a table anew, the catalog is asked for all captured
//! tables at once, and each is compared with what its topic was written under ([`changes`](super::changes)). What asks for
//! nothing more is noted in the stored position. What asks for a table to be read again ends the run, and the next one
//! begins the reading ([`renewal`](super::renewal)): there is one place where tables are taken in, and that is the start.
//!
//! # When
//!
//! The reading must not begin, nor a shape be noted, before the stream has brought all that was written under former
//! shapes: a chunk leaves out the rows that the stream has written while it was read, since those are the newer ones, and
//! they would be of the former shape; and what comes after the ends of the topic's partitions were taken isn't swept.
//! So, after a look that shows a shape, it is waited
//!
//! 1. until all have ended that were writing to the table then: most DDL locks them out, but the renaming of an enum's
//!    label, `ALTER PUBLICATION` and the attaching of a partition don't;
//! 2. until the stream's position has reached *high*, the end of the WAL after that.
//!
//! Whatever a transaction has written under a former shape it has then committed before *high*, and the stream has
//! brought it. The next run looks again, and begins only if it sees the same shape: what came in between has to wait for a
//! *high* of its own.
//!
//! A table with `snapshot = "never"` isn't read again by itself: its topic has never been the table. It is told, with the
//! command that has it read. Where changes of it were missed, or its key is another one, the run ends, and the next one
//! refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::changes::{Demand, compare};
use super::look;
use super::source::{self, Key, Source, Table};
use super::start::Setting;
use super::state::{Due, State};
use crate::config::{Connector, SnapshotMode};
use crate::kafka::positions::Change;
use crate::kafka::shapes::TableShape;
use crate::lsn::Lsn;
use crate::postgres::catalog::TableState;
use crate::postgres::control::{Control, ControlError};
use crate::relation::{ShapeError, TypeMap};
use crate::retry::Backoff;
use crate::snapshot::{Desk, Waiting};

/// How soon after a look the next one may come, however often a table is announced.
const LOOKS_APART: Duration = Duration::from_millis(500);
/// How often it is asked whether what is waited for has come.
const WAIT_INTERVAL: Duration = Duration::from_millis(100);

/// A task that watches; it ends with the value.
#[derive(Debug)]
pub struct Watch(AbortHandle);

impl Watch {
    /// Begins to watch the tables of a run.
    pub fn start(setting: &Setting, source: &Source, desk: &Arc<Desk>) -> Self {
        let watcher = Watcher {
            connector: setting.connector.clone(),
            state: Arc::clone(&setting.state),
            desk: Arc::clone(desk),
            tables: source.tables.clone(),
            pending: BTreeMap::new(),
            told: BTreeSet::new(),
            unfit: BTreeSet::new(),
            looked_at: None,
        };
        Watch(setting.runtime.spawn(watcher.run()).abort_handle())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A table that has become another one.
struct Pending {
    place: usize,
    shape: TableShape,
    /// Those that were writing to it when it was seen.
    waiting: Waiting,
    /// Where the stream has to be, once those have ended.
    high: Option<Lsn>,
}

struct Watcher {
    connector: Connector,
    state: Arc<State>,
    desk: Arc<Desk>,
    tables: Vec<Table>,
    /// By the table's name.
    pending: BTreeMap<String, Pending>,
    /// What has been said is not said again.
    told: BTreeSet<String>,
    /// Tables that could not be captured at the last look: it may be amid a change of its key.
    unfit: BTreeSet<u32>,
    looked_at: Option<Instant>,
}

impl Watcher {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut control = None;
        loop {
            let pause = match self.step(&mut control).await {
                Ok(()) => {
                    backoff = Backoff::default();
                    match self.pending.is_empty() {
                        true => self.connector.catalog_interval,
                        false => WAIT_INTERVAL,
                    }
                }
                Err(error) => {
                    control = None;
                    let pause = backoff.failed_after(Duration::ZERO).max(LOOKS_APART);
                    let connector = &self.connector.name;
                    tracing::warn!(connector, %error, retry_in = ?pause, "the tables can't be compared with the catalog");
                    pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.state.asked_to_look() => {
                    let since = self.looked_at.map_or(LOOKS_APART, |at| at.elapsed());
                    tokio::time::sleep(LOOKS_APART.saturating_sub(since)).await;
                    self.looked_at = None;
                }
            }
        }
    }

    async fn step(&mut self, control: &mut Option<Control>) -> Result<(), ControlError> {
        let control = match control.take().filter(|control| !control.is_closed()) {
            Some(kept) => control.insert(kept),
            None => {
                let (database, tls) = (&self.connector.database, &self.connector.tls);
                control.insert(Control::connect_with_tls(database, tls).await?)
            }
        };
        if self.looked_at.is_none_or(|at| at.elapsed() >= self.connector.catalog_interval) {
            self.look(control).await?;
            self.looked_at = Some(Instant::now());
        }
        self.attend(control).await
    }

    async fn look(&mut self, control: &Control) -> Result<(), ControlError> {
        let (found, _) = source::find(control, &self.connector).await?;
        let states = look::states(control, &self.connector.publication, &self.tables).await?;
        let mut types = TypeMap::default();
        for place in 0..self.tables.len() {
            let table = self.tables[place].clone();
            let now = found.tables.iter().find(|now| now.facts.oid == table.facts.oid);
            match states.get(&table.facts.oid) {
                None if found.tables.iter().any(|now| now.facts.table_name() == table.facts.table_name()) => {
                    self.start_anew(&table, "it was dropped and created anew");
                }
                None => self.tell_gone(&table),
                Some(state) if state.name != table.facts.table_name() => {
                    self.start_anew(&table, &format!("it is called {} now", state.name));
                }
                Some(state) => {
                    let key = match now {
                        Some(now) => {
                            let (connector, published) = (&self.connector.name, look::published(state));
                            Some(source::key(control, connector, now, &published, &mut types).await?)
                        }
                        None => None,
                    };
                    self.compare(control, place, key, state).await?;
                }
            }
        }
        Ok(())
    }

    async fn compare(
        &mut self,
        control: &Control,
        place: usize,
        key: Option<Result<Key, ShapeError>>,
        state: &TableState,
    ) -> Result<(), ControlError> {
        let table = self.tables[place].clone();
        let (name, oid) = (table.sql_name(), table.facts.oid);
        let key = match key {
            Some(Ok(key)) => key,
            unfit => {
                if !self.unfit.insert(oid) {
                    self.tell_unfit(&table, unfit.and_then(Result::err), state);
                }
                return Ok(());
            }
        };
        self.unfit.remove(&oid);
        let Some(shape) = look::shape(&table, &key, state) else {
            self.start_anew(&table, "it was taken out of the publication");
            return Ok(());
        };
        let demand = demand(self.state.shape(&name).as_ref(), &shape);
        if demand == Demand::Nothing {
            self.pending.remove(&name);
            return Ok(());
        }
        if self.pending.get(&name).is_some_and(|pending| pending.shape == shape) {
            return Ok(());
        }
        let connector = &self.connector.name;
        match &demand {
            Demand::Read { reason, .. } | Demand::Sweep(reason) => {
                tracing::info!(connector, table = name, %reason, "the table has changed: what follows waits for the stream");
            }
            Demand::Nothing | Demand::Note => {}
        }
        let waiting = Waiting::begin(control, oid).await?;
        self.pending.insert(name, Pending { place, shape, waiting, high: None });
        Ok(())
    }

    async fn attend(&mut self, control: &Control) -> Result<(), ControlError> {
        let connector = self.connector.name.clone();
        let mut pending = std::mem::take(&mut self.pending);
        for (name, pending) in &mut pending {
            let oid = self.tables[pending.place].facts.oid;
            if pending.high.is_none() {
                if !pending.waiting.is_over(control, oid).await? {
                    pending.waiting.tell(&connector, name);
                    continue;
                }
                pending.high = Some(control.wal_end().await?);
            }
            let Some(high) = pending.high else { continue };
            self.follow(name, pending, high);
        }
        pending.retain(|_, pending| pending.high.is_none_or(|high| self.state.stored_lsn() < high));
        pending.append(&mut self.pending);
        self.pending = pending;
        Ok(())
    }

    /// Does what follows, if the stream has come so far, or asks for it.
    fn follow(&mut self, name: &str, pending: &Pending, high: Lsn) {
        let table = self.tables[pending.place].clone();
        // Once: what is announced from here on has not been compared, and is not to be noted as if it were.
        let was = self.state.shape(name);
        let demand = demand(was.as_ref(), &pending.shape);
        match demand {
            Demand::Nothing => {}
            Demand::Read { .. } | Demand::Sweep(_) if table.snapshot != SnapshotMode::Never => {
                self.state.set_due(name, Due { shape: pending.shape.clone(), at: high });
                self.desk.start_anew_at(high);
            }
            Demand::Sweep(_) if pending.shape.key != table.key => {
                self.start_anew(&table, "its key has changed");
            }
            Demand::Sweep(reason) if reason.is_of_missed_changes() => self.start_anew(&table, &reason.to_string()),
            Demand::Note | Demand::Read { .. } | Demand::Sweep(_) => {
                if self.state.stored_lsn() >= high {
                    self.note(name, pending, was.unwrap_or_default(), &demand);
                }
            }
        }
    }

    /// Stores the shape as what the topic agrees with, or is told to agree with.
    fn note(&mut self, name: &str, pending: &Pending, was: TableShape, demand: &Demand) {
        let connector = &self.connector.name;
        if let Demand::Read { reason, .. } | Demand::Sweep(reason) = demand {
            let remedy = format!("tablecast backfill {connector} {name}");
            tracing::warn!(
                connector,
                table = name,
                %reason,
                remedy,
                "the table has changed, and with snapshot = \"never\" it isn't read again by itself"
            );
        }
        let shape = Box::new(pending.shape.clone().after(&was));
        self.desk.change(Change::Shape { table: name.to_owned(), shape, announced: was.announced });
    }

    /// Ends the run at the next place between two transactions.
    fn start_anew(&mut self, table: &Table, why: &str) {
        let (connector, table) = (&self.connector.name, table.sql_name());
        tracing::info!(connector, table, why, "the table has changed: the connector starts anew");
        self.desk.start_anew_at(Lsn::ZERO);
    }

    /// A table whose key can't be told goes on for as long as the publication has it: to start anew would stop the
    /// connector, and somebody may be about to give it its next key.
    fn tell_unfit(&mut self, table: &Table, error: Option<ShapeError>, state: &TableState) {
        let Some(error) = error.filter(|_| state.membership.is_some()) else {
            return self.start_anew(table, "it can't be captured any more");
        };
        if self.told.insert(error.to_string()) {
            let connector = &self.connector.name;
            tracing::warn!(connector, %error, "the table can't be compared with the catalog; what it had goes on");
        }
    }

    fn tell_gone(&mut self, table: &Table) {
        let name = table.sql_name();
        if self.told.insert(name.clone()) {
            let (connector, topic) = (&self.connector.name, &table.topic);
            tracing::warn!(connector, table = name, topic, "the table was dropped; its topic stays as it is");
        }
    }
}

/// What follows from the shape, by what is known of the topic.
fn demand(was: Option<&TableShape>, now: &TableShape) -> Demand {
    was.map_or(Demand::Note, |was| compare(was, now))
}
