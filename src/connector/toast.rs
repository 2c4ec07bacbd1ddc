//! Values that an update left as they were, and that the WAL doesn't carry, are looked up in the table.
//!
//! Postgres keeps a large value beside its row (TOAST), and logs it again only when it changes. The record of such an
//! update waits in its batch, at its place and with its key, until the batch is handed over. Then all that wait are looked
//! up by the columns of the replica identity, in one round trip for as many as may be, and the batch is written out in
//! order, in several if the values make it grow past its bounds.
//!
//! # Why it is right
//!
//! Say that T is the source transaction of the update, K the identity of the row that it left, and S the snapshot by which
//! the row is read. S sees T: a commit is decoded before it is visible, so S is asked, and taken again until it does
//! ([`Moment::sees`]).
//!
//! **The value is that of T or a newer one.** Whoever writes a row of K waits until the one before has ended and is
//! visible, by the row's lock or by the unique index; so S sees the first of those that wrote K up to some point, in the
//! order in which they committed, and T is among them. If the value is newer than T, a change that comes later in the
//! stream made it. That one brings the whole row; so until then the topic may have the new value with T's other columns,
//! and then it has what is right. Look-ups never bring an older value than an earlier one did: their snapshots are taken
//! one after the other. A chunk of the table may, for a moment, since it is read beside them: then the change that made
//! the newer value is still to come.
//!
//! **A row that is gone is skipped.** T left a row under K, S sees T and no row; so one that comes later in the stream
//! deleted it, gave it another identity or emptied the table: and its tombstones come after. Of a table that was dropped
//! nothing more comes, but its rows are gone. What holds under K in S may also be another row than T's, where T's was
//! moved away since; then too both changes are still to come.
//!
//! **What can't be had is not made up.** If the column was dropped or renamed or has another type by now, or no unique
//! index is left by which the row is found, the record is skipped, with a warning, and that is stored with what follows it:
//! the table is read again for it ([`watch`](super::watch)). So it is with a key that can't be read any more: whose column
//! has another type, or whose enum's label was renamed. That verdict too takes a snapshot which sees T, since T itself may
//! have changed the shape. A table that has the identity it had, and no unique index to go with it, stops the connector: to
//! read it again would change nothing.
//!
//! **Windows, positions, splits** know the record by its place and its key, whether or not it comes to anything: a chunk
//! that is read meanwhile leaves K to the stream. A batch that is written out in parts is cut where a source transaction
//! ends, if one does in that part; else behind a completed record, at the position that it had.
//!
//! The lock comes before the facts and both before the rows, each with a snapshot that isn't older; so catalog and rows
//! agree. What was true of a table at the last look-up is taken for true until the answer, which tells anew, says
//! otherwise; then the rows are thrown away and asked for again. Where commits are slow to become visible, the facts are
//! asked for first.
//!
//! The connection is driven by the intake's own thread, in a runtime of its own: rows that come one by one cost no switch
//! of threads.

mod plan;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_core::Stream;
use tokio::runtime::Runtime;
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow, SimpleQueryStream};

use plan::{Plan, Verdict, groups, is_lacking, sql};

use super::assembler::AssembleError;
use super::fault::Fault;
use super::intake::{BATCH_BYTES_WITHIN, Intake, TICK};
use super::start::Setting;
use crate::config::Connector;
use crate::kafka::positions::Change;
use crate::kafka::shapes::Announced;
use crate::kafka::{Batch, Kept, Pending, RelationVersion};
use crate::pgoutput::Cell;
use crate::postgres::catalog::{Moment, TableNow, facts, facts_sql};
use crate::postgres::control::{Control, ControlError};
use crate::relation::RowColumn;

/// A batch with so many records that lack a value is handed over: so many are looked up at once at most.
pub(super) const PENDINGS_MAX: usize = 1_000;
/// The first look-ups are smaller, since nothing is known of how large the values are.
const FIRST_PENDINGS: usize = 64;
/// One look-up shall bring about so many bytes at most: it is a transaction of the source, and lasts as long as Kafka
/// takes to write them.
const LOOK_UP_BYTES: usize = 32 << 20;
/// The first pause before it is looked again whether a transaction is visible, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(200));
/// After so long without a look-up the connection may have been closed.
const IDLE: Duration = Duration::from_secs(1);
/// So many times in a row a table may turn out to be another one than it was just before.
const CHANGES_MAX: usize = 20;
/// How often to tell what is waited for.
const TELL_INTERVAL: Duration = Duration::from_secs(10);
const DOING: &str = "looking up TOASTed values";

/// Looks up what records lack.
pub(super) struct Toast {
    connector: Connector,
    /// Made at the first look-up, and again when it broke. Dropped before the runtime that drives it.
    control: Option<Control>,
    runtime: Runtime,
    /// When it was driven last.
    driven: Instant,
    /// What was true of the tables, by their oids, at the last look-up; `None` of one that was gone.
    known: HashMap<u32, Option<TableNow>>,
    /// How many records are looked up at once.
    at_once: usize,
    /// The last source transactions that were asked about were not visible at once.
    is_late: bool,
    /// What a batch is exchanged for that is written out.
    spare: Batch,
    /// The tables for which it was said that values can't be had.
    warned: HashSet<String>,
}

impl Intake {
    /// The batch with what its records lack; what doesn't fit has been handed over before. While Postgres is asked, the
    /// connection is kept alive.
    pub(super) fn completed(&mut self, full: Batch) -> Result<Batch, Fault> {
        if full.pendings().is_empty() {
            return Ok(full);
        }
        let Some(mut toast) = self.toast.take() else { return Ok(full) };
        let completed = toast.complete(self, full)?;
        self.toast = Some(toast);
        Ok(completed)
    }
}

impl Toast {
    /// For a run's intake.
    pub(super) fn new(setting: &Setting) -> std::io::Result<Self> {
        Ok(Self {
            connector: setting.connector.clone(),
            control: None,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            driven: Instant::now(),
            known: HashMap::new(),
            at_once: FIRST_PENDINGS,
            is_late: false,
            spare: Batch::default(),
            warned: HashSet::new(),
        })
    }

    fn complete(&mut self, intake: &mut Intake, mut full: Batch) -> Result<Batch, Fault> {
        let mut out = std::mem::take(&mut self.spare);
        out.topics = Arc::clone(&full.topics);
        // With the first part: what they say holds for its rows.
        out.changes.append(&mut full.changes);
        let mut rest = full.rest();
        let mut left = full.pendings();
        let (mut found, mut gone, mut unknown) = (0, 0, 0);
        let mut ticked = Instant::now();
        while !left.is_empty() {
            let (now, later) = left.split_at(left.len().min(self.at_once));
            let began = Instant::now();
            let mut bytes = 0;
            let mut answer = match self.ask(intake, &full, now)? {
                Some(answer) => answer,
                // A key among them can't be read: which one shows when it is asked for alone.
                None if now.len() > 1 => {
                    self.at_once = now.len() / 2;
                    continue;
                }
                None => Answer::unknown(),
            };
            for place in 0..now.len() {
                if ticked.elapsed() >= TICK {
                    intake.tick()?;
                    ticked = Instant::now();
                }
                let Some(waiting) = rest.next(&mut out) else { break };
                match self.next_row(intake, &mut answer, place)? {
                    Answered::Gone => gone += 1,
                    Answered::Unknown => {
                        unknown += 1;
                        let table = &waiting.pending.version.table;
                        self.warn(table);
                        let announced = Announced::skipped();
                        out.changes.push(Change::Announced { table: table.clone(), announced });
                        intake.state.look_at_once();
                    }
                    Answered::Row(row) => {
                        found += 1;
                        let before = out.byte_len();
                        let cells = Completed::new(full.kept(waiting.pending), &waiting.pending.version, &row);
                        waiting.complete(cells.clone(), &mut out).map_err(|source| {
                            let RelationVersion { table, encoder, .. } = &*waiting.pending.version;
                            let (table, key) = (table.clone(), encoder.show_key(cells));
                            AssembleError::Encode { table, key, source: Box::new(source) }
                        })?;
                        bytes += out.byte_len() - before;
                        if out.weight() >= BATCH_BYTES_WITHIN {
                            let mut part = intake.empty_batch()?;
                            part.topics = Arc::clone(&full.topics);
                            std::mem::swap(&mut part, &mut out);
                            part.end = waiting.pending.from.position;
                            rest.split_at_boundary(&mut part, &mut out);
                            intake.pass_on(part)?;
                        }
                    }
                }
            }
            self.finish(intake, answer)?;
            let took = began.elapsed().as_secs_f64();
            metrics::histogram!("tablecast_toast_lookup_seconds", "connector" => self.connector.name.clone())
                .record(took);
            self.at_once = next_size(self.at_once, now.len(), bytes);
            left = later;
        }
        rest.next(&mut out);
        self.count(found, gone, unknown);
        out.end = full.end;
        out.at_boundary = full.at_boundary;
        out.commit_time = full.commit_time;
        out.transactions = full.transactions;
        full.clear(2 * BATCH_BYTES_WITHIN);
        self.spare = full;
        self.driven = Instant::now();
        Ok(out)
    }

    fn count(&self, found: u64, gone: u64, unknown: u64) {
        let name = &self.connector.name;
        metrics::counter!("tablecast_toast_looked_up_total", "connector" => name.clone()).increment(found);
        for (reason, count) in [("gone", gone), ("unknown", unknown)] {
            let labels = [("connector", name.clone()), ("reason", reason.to_owned())];
            metrics::counter!("tablecast_toast_skipped_total", &labels).increment(count);
        }
    }

    /// A value can't be had: this is the one place that says what becomes of its record, which is nothing.
    fn warn(&mut self, table: &str) {
        if self.warned.insert(table.to_owned()) {
            tracing::warn!(
                connector = self.connector.name,
                table,
                "updates left large values as they were that can't be looked up any more: their column was dropped, renamed \
                 or given another type since, or the table has lost its key, or that can't be read any more; the records \
                 of these updates are skipped, and the table is read again"
            );
        }
    }

    /// Sends for the rows, until the snapshot by which they are read will do. `None` if a key can't be read.
    fn ask(&mut self, intake: &mut Intake, batch: &Batch, pendings: &[Pending]) -> Result<Option<Answer>, Fault> {
        let (groups, group_of) = groups(batch, pendings);
        let oids: BTreeSet<u32> = groups.iter().map(|group| group.version.rows.oid).collect();
        let oids: Vec<u32> = oids.into_iter().collect();
        let (mut patience, mut changes, mut is_late) = (Patience::new(), 0, false);
        loop {
            if self.is_late || !oids.iter().all(|oid| self.known.contains_key(oid)) {
                let mut stream = self.send(intake, &facts_sql(&oids))?;
                let (moment, tables) = self.facts(intake, &mut stream, oids.len())?;
                if !sees_all(&moment, pendings) {
                    (self.is_late, is_late) = (true, true);
                    patience.wait(&self.runtime, intake, "the source transactions are not visible yet")?;
                    continue;
                }
                // As long as they have to be waited for, the rows are not asked for in vain.
                self.is_late = is_late;
                self.known.extend(oids.iter().copied().zip(tables));
            }
            let plans = groups.iter().map(|group| group.plan(&self.known)).collect::<Result<Vec<_>, _>>()?;
            let sql = sql(batch, pendings, &groups, &group_of, &oids, &plans)?;
            let is_read: Vec<Verdict> = plans.iter().map(Plan::verdict).collect();
            let mut stream = self.send(intake, &sql)?;
            match self.facts(intake, &mut stream, oids.len()) {
                Ok((moment, tables)) => {
                    let is_same = oids.iter().map(|oid| self.known.get(oid)).eq(tables.iter().map(Some));
                    let is_seen = sees_all(&moment, pendings);
                    if is_same && is_seen {
                        let verdicts = group_of.into_iter().map(|group| is_read[group]).collect();
                        return self.first_row(intake, stream, verdicts);
                    }
                    (self.is_late, is_late) = (self.is_late || !is_seen, is_late || !is_seen);
                    changes += 1;
                }
                Err(Fault::Control(error)) if is_changed(&error) && changes < CHANGES_MAX => {
                    changes += 1;
                    self.roll_back(intake)?;
                }
                Err(Fault::Control(error)) if error.sqlstate() == Some(LOCK_NOT_AVAILABLE) => {
                    self.roll_back(intake)?;
                    patience.wait(&self.runtime, intake, "somebody holds a lock on the table, or waits for one")?;
                }
                Err(fault) => return Err(fault),
            }
            self.known.clear();
        }
    }

    /// The answer, once its first row is there: before it, all keys have been read. `None` if one can't be.
    fn first_row(
        &self,
        intake: &mut Intake,
        mut stream: Rowstream,
        verdicts: Vec<Verdict>,
    ) -> Result<Option<Answer>, Fault> {
        if !verdicts.iter().any(|verdict| matches!(verdict, Verdict::Read)) {
            return Ok(Some(Answer { stream: Some(stream), first: None, verdicts }));
        }
        match self.row(intake, &mut stream) {
            Ok(first) => Ok(Some(Answer { stream: Some(stream), first, verdicts })),
            Err(Fault::Control(error)) if is_unreadable(&error) => {
                self.roll_back(intake)?;
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }

    /// Sends commands; their rows come one by one.
    fn send(&mut self, intake: &mut Intake, sql: &str) -> Result<Rowstream, Fault> {
        if self.driven.elapsed() >= IDLE {
            // The server may have closed the connection meanwhile; nobody has looked.
            wait(&self.runtime, intake, async { tokio::time::sleep(PAUSE.0).await })?;
        }
        let control = match self.control.take() {
            Some(control) if !control.is_closed() => control,
            _ => {
                let connecting = Control::connect_with_tls(&self.connector.database, &self.connector.tls);
                wait(&self.runtime, intake, connecting)??
            }
        };
        let control = self.control.insert(control);
        let sent = wait(&self.runtime, intake, control.client().simple_query_raw(sql))?;
        Ok(Box::pin(sent.map_err(failed)?))
    }

    fn roll_back(&self, intake: &mut Intake) -> Result<(), Fault> {
        let Some(control) = &self.control else { return Ok(()) };
        Ok(wait(&self.runtime, intake, control.execute("ending a transaction", "ROLLBACK"))??)
    }

    /// The facts, which come before the rows.
    fn facts(
        &self,
        intake: &mut Intake,
        stream: &mut Rowstream,
        count: usize,
    ) -> Result<(Moment, Vec<Option<TableNow>>), Fault> {
        let mut tables = Vec::new();
        loop {
            let row = self.row(intake, stream)?.ok_or(Fault::TaskGone)?;
            let (moment, table) = facts(row.get(0).unwrap_or_default())?;
            tables.push(table);
            if tables.len() == count {
                return Ok((moment, tables));
            }
        }
    }

    /// The next row; `None` if there is none.
    fn row(&self, intake: &mut Intake, stream: &mut Rowstream) -> Result<Option<SimpleQueryRow>, Fault> {
        loop {
            let next = poll_fn(|context| stream.as_mut().poll_next(context));
            match wait(&self.runtime, intake, next)?.transpose().map_err(failed)? {
                Some(SimpleQueryMessage::Row(row)) => return Ok(Some(row)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// What became of the row of the record at this place.
    fn next_row(&self, intake: &mut Intake, answer: &mut Answer, place: usize) -> Result<Answered, Fault> {
        match answer.verdicts[place] {
            Verdict::Gone => Ok(Answered::Gone),
            Verdict::Unknown => Ok(Answered::Unknown),
            Verdict::Read => {
                let row = match (answer.first.take(), &mut answer.stream) {
                    (Some(first), _) => first,
                    (None, Some(stream)) => self.row(intake, stream)?.ok_or(Fault::TaskGone)?,
                    (None, None) => return Err(Fault::TaskGone),
                };
                Ok(if row.get(0).is_some() { Answered::Row(row) } else { Answered::Gone })
            }
        }
    }

    fn finish(&self, intake: &mut Intake, answer: Answer) -> Result<(), Fault> {
        let Some(mut stream) = answer.stream else { return Ok(()) };
        while self.row(intake, &mut stream)?.is_some() {}
        Ok(())
    }
}

type Rowstream = Pin<Box<SimpleQueryStream>>;

/// SQLSTATE `lock_not_available`: `lock_timeout` has passed.
const LOCK_NOT_AVAILABLE: &str = "55P03";

fn failed(source: tokio_postgres::Error) -> Fault {
    ControlError::Postgres { doing: DOING, source }.into()
}

/// Whether a name was not found that was there before: of a table, its schema, a column, a type, an operator.
fn is_changed(error: &ControlError) -> bool {
    matches!(error.sqlstate(), Some("42P01" | "3F000" | "42703" | "42704" | "42883"))
}

/// Whether a key's text is none of its type's any more: a data exception, or a check of a domain that lies within the type.
fn is_unreadable(error: &ControlError) -> bool {
    error.sqlstate().is_some_and(|state| state.starts_with("22") || state == "23514")
}

/// Waits, while the connection of the stream is kept alive.
fn wait<F: Future>(runtime: &Runtime, intake: &mut Intake, future: F) -> Result<F::Output, Fault> {
    let mut future = std::pin::pin!(future);
    loop {
        if let Ok(done) = runtime.block_on(async { tokio::time::timeout(TICK, future.as_mut()).await }) {
            return Ok(done);
        }
        intake.tick()?;
    }
}

/// How many to look up next.
fn next_size(last: usize, count: usize, bytes: usize) -> usize {
    let fit = LOOK_UP_BYTES / (bytes / count.max(1)).max(1);
    fit.min(if count == last { 2 * last } else { last }).clamp(1, PENDINGS_MAX)
}

/// How long something is waited for that passes by itself.
struct Patience {
    pause: Duration,
    told: Instant,
}

impl Patience {
    fn new() -> Self {
        Self { pause: PAUSE.0, told: Instant::now() }
    }

    fn wait(&mut self, runtime: &Runtime, intake: &mut Intake, what: &str) -> Result<(), Fault> {
        if self.told.elapsed() >= TELL_INTERVAL {
            self.told = Instant::now();
            let connector = intake.state.snapshot().connector;
            tracing::warn!(connector, reason = what, "the stream waits for values that have to be looked up");
        }
        intake.tick()?;
        wait(runtime, intake, async { tokio::time::sleep(self.pause).await })?;
        self.pause = (self.pause * 2).min(PAUSE.1);
        Ok(())
    }
}

fn sees_all(moment: &Moment, pendings: &[Pending]) -> bool {
    // Those of one source transaction follow each other.
    let mut transactions = pendings.chunk_by(|a, b| a.from.commit_lsn == b.from.commit_lsn);
    transactions.all(|of_one| moment.sees(of_one[0].from.xid, of_one[0].from.commit_lsn))
}

/// Rows on their way.
struct Answer {
    /// `None` if nothing was asked for.
    stream: Option<Rowstream>,
    first: Option<SimpleQueryRow>,
    /// Of each record that was asked for.
    verdicts: Vec<Verdict>,
}

impl Answer {
    /// Of one record, whose key can't be read.
    fn unknown() -> Self {
        Self { stream: None, first: None, verdicts: vec![Verdict::Unknown] }
    }
}

/// What became of a row.
enum Answered {
    Row(SimpleQueryRow),
    Gone,
    Unknown,
}

/// A row with what it lacked.
#[derive(Clone)]
struct Completed<'a> {
    kept: Kept<'a>,
    columns: std::slice::Iter<'a, RowColumn>,
    row: &'a SimpleQueryRow,
    /// Where in `row` the next value is that it lacks.
    next: usize,
}

impl<'a> Completed<'a> {
    fn new(kept: Kept<'a>, version: &'a RelationVersion, row: &'a SimpleQueryRow) -> Self {
        // What comes first says that there is such a row.
        Self { kept, columns: version.rows.columns.iter(), row, next: 1 }
    }
}

impl<'a> Iterator for Completed<'a> {
    type Item = Cell<'a>;

    fn next(&mut self) -> Option<Cell<'a>> {
        let cell = self.kept.next()?;
        if !self.columns.next().is_some_and(|column| is_lacking(cell, column)) {
            return Some(cell);
        }
        let value = self.row.try_get(self.next);
        self.next += 1;
        // What isn't UTF-8, though it was asked for, is still lacking, and so an error.
        Some(value.map_or(Cell::Unchanged, |value| value.map_or(Cell::Null, |text| Cell::Text(text.as_bytes()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_ups_grow_while_values_are_small_and_shrink_with_large_ones() {
        assert_eq!(next_size(64, 64, 64 * 8_192), 128);
        assert_eq!(next_size(64, 3, 3 * 8_192), 64);
        assert_eq!(next_size(800, 800, 800 * 8_192), PENDINGS_MAX);
        assert_eq!(next_size(800, 800, 800 << 20), 32);
        assert_eq!(next_size(1, 1, 100 << 20), 1);
        assert_eq!(next_size(64, 64, 0), 128);
    }
}
