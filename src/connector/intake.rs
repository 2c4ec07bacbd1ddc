//! The intake: the thread that reads the replication stream, and turns frames into batches.
//!
//! It is never away from the socket for long. Whatever it has to wait for (an empty batch, a look-up, the sink's end)
//! it waits for in [`tick`](Intake::tick)s, in which it acknowledges what is stored and keeps Postgres from dropping
//! the connection (`wal_sender_timeout`). While it waits it doesn't read, so back-pressure reaches the socket, and by
//! it the walsender.
//!
//! It is eager when idle and lazy when behind: [`Pace`] says how.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::acknowledger::Acknowledger;
use super::assembler::{Assembler, Step};
use super::fault::Fault;
use super::pace::Pace;
use super::relations::{Found, Relations};
use super::start::{Goal, Setting};
use super::state::State;
use super::toast::{PENDINGS_MAX, Toast};
use crate::kafka::Batch;
use crate::kafka::positions::Change;
use crate::kafka::sink::{Ended, Sink};
use crate::lsn::Lsn;
use crate::pgoutput::{self, Message};
use crate::postgres::replication::{Fill, Frame, ReplicationError, ReplicationStream};
use crate::shutdown::Shutdown;
use crate::snapshot::Desk;

/// A batch that has grown to this is handed over at the next commit: as much as one request to Kafka takes.
const BATCH_BYTES: usize = 800_000;
/// A batch that has grown to this is handed over at once, within a transaction.
pub(super) const BATCH_BYTES_WITHIN: usize = BATCH_BYTES + (256 << 10);
/// With fewer bytes that wait for the sink, few rows more may lie in the socket.
const CALM_BYTES: usize = 64 << 10;
/// How long to wait for data while there is nothing else to do.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// The same while a table is read: what was read may have to be merged.
const MERGE_WAIT: Duration = Duration::from_millis(2);
/// How long to wait for data while rows are due, and lack no more than an empty batch to take in exchange.
const HELD_WAIT: Duration = Duration::from_millis(1);
/// How long to wait between two ticks.
pub(super) const TICK: Duration = Duration::from_millis(20);
/// How often Postgres, asking for an answer, makes an idle connector store its position out of turn. In a fast
/// shutdown Postgres asks and asks, and ends only when all that it has sent is acknowledged.
const URGENT_INTERVAL: Duration = Duration::from_millis(200);
/// How long the sink may take to write what it has been handed when the daemon is to end.
const CLOSE_LIMIT: Duration = Duration::from_secs(15);
/// The same when a new run is to follow: longer than any wait of the sink, since two sinks must never be at work.
const CLOSE_LIMIT_BEFORE_NEXT_RUN: Duration = Duration::from_secs(150);
/// How long the last rows may wait for values that have to be looked up.
const LAST_VALUES_LIMIT: Duration = Duration::from_secs(5);
/// Postgres is asked to answer every few seconds: when nothing has come for so long, the connection is dead.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How long Postgres may take to say goodbye.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

/// The reading end of a connector.
pub struct Intake {
    stream: ReplicationStream,
    pub(super) assembler: Assembler,
    pub(super) sink: Sink,
    pub(super) batch: Batch,
    pub(super) state: Arc<State>,
    acknowledger: Acknowledger,
    shutdown: Shutdown,
    /// Postgres waits for an answer to this place.
    awaited: Lsn,
    /// When a position was last handed to the sink.
    handed_at: Instant,
    handed: Lsn,
    /// Records in the batches that were handed over.
    handed_rows: usize,
    /// Frames that were taken.
    frames: usize,
    /// The last batch that was handed over ended within a transaction.
    pub(super) within: bool,
    /// How long nothing has come while the intake was reading.
    silence: Duration,
    pace: Pace,
    /// Where what was read of the tables waits to be merged.
    pub(super) desk: Arc<Desk>,
    /// Versions of tables that the stream has announced, and no row is in a batch of yet: by the relation's oid.
    announced: Vec<(u32, Change)>,
    /// The run is over when there is nothing more to be read of the tables.
    ends_when_read: bool,
    /// Looks up what records lack; `None` while it does.
    pub(super) toast: Option<Toast>,
    /// The end has begun, and waits no longer than until then.
    closes_by: Option<Instant>,
}

impl Intake {
    /// An intake that goes on from the assembler's position.
    pub fn new(
        stream: ReplicationStream,
        acknowledger: Acknowledger,
        assembler: Assembler,
        sink: Sink,
        pace: Pace,
        setting: &Setting,
        desk: Arc<Desk>,
    ) -> io::Result<Self> {
        let now = Instant::now();
        let batch = sink.empty_batch(Duration::ZERO).ok().flatten().unwrap_or_default();
        Ok(Self {
            stream,
            handed: assembler.position().lsn,
            assembler,
            sink,
            batch,
            state: Arc::clone(&setting.state),
            acknowledger,
            shutdown: setting.shutdown.clone(),
            awaited: Lsn::ZERO,
            handed_at: now,
            handed_rows: 0,
            frames: 0,
            within: false,
            silence: Duration::ZERO,
            pace,
            desk,
            announced: Vec::new(),
            ends_when_read: setting.goal != Goal::Stream,
            toast: Some(Toast::new(setting)?),
            closes_by: None,
        })
    }

    /// Reads until the shutdown, or until something fails. Whatever the end, what is whole is written and acknowledged
    /// as far as that is still possible.
    pub fn run(mut self, relations: &mut Relations) -> Result<(), Fault> {
        self.batch.topics = relations.topics();
        let ended = self.read(relations);
        let closed = self.close();
        match ended {
            Err(Fault::Interrupted) => closed,
            // What the sink has to say is the reason, if it has anything to say.
            ended => closed.and(ended),
        }
    }

    fn read(&mut self, relations: &mut Relations) -> Result<(), Fault> {
        // What came with the answer to START_REPLICATION.
        self.take_frames(relations)?;
        loop {
            self.fill(relations)?;
            self.merge()?;
            self.offer()?;
            self.tick()?;
        }
    }

    /// What is done again and again, whatever else is waited for.
    pub(super) fn tick(&mut self) -> Result<(), Fault> {
        if let Some(error) = self.desk.take_failure() {
            return Err(error.into());
        }
        let is_read = self.ends_when_read && !self.desk.is_active();
        let is_over = match self.closes_by {
            Some(until) => Instant::now() >= until,
            None => self.shutdown.is_requested() || (is_read && self.assembler.is_between_transactions()),
        };
        if is_over {
            return Err(Fault::Interrupted);
        }
        if self.sink.is_finished() {
            return Err(Ended.into());
        }
        self.acknowledger.tick(&mut self.stream, &self.state)
    }

    /// Takes every frame that is in the buffer.
    fn take_frames(&mut self, relations: &mut Relations) -> Result<(), Fault> {
        while let Some(frame) = self.stream.next_frame()? {
            self.frames += 1;
            match frame {
                Frame::XLogData { data, .. } => {
                    let message = pgoutput::decode(data)?;
                    match self.assembler.message(&message, &mut self.batch)? {
                        Step::Done => {}
                        Step::Announce => {
                            let announcement = data.to_vec();
                            self.announce(relations, &announcement)?;
                        }
                        Step::Truncate(tables) => self.truncate(&tables)?,
                    }
                    if self.is_full() {
                        self.hand_over()?;
                    }
                    if self.desk.is_due(self.assembler.position().lsn) {
                        self.merge()?;
                    }
                }
                Frame::KeepAlive { wal_end, reply_requested, .. } => {
                    self.assembler.keepalive(wal_end);
                    self.state.note_wal_end(wal_end);
                    if reply_requested {
                        self.acknowledger.urgent = true;
                        self.awaited = wal_end;
                    }
                }
            }
        }
        Ok(())
    }

    /// Looks up what a Relation message announces, while the connection is kept alive.
    fn announce(&mut self, relations: &mut Relations, announcement: &[u8]) -> Result<(), Fault> {
        let Message::Relation(relation) = pgoutput::decode(announcement)? else { return Ok(()) };
        let lookup = relations.look_up(&relation, announcement);
        let Found { route, announced } = loop {
            if let Some(found) = lookup.wait(TICK) {
                break found?;
            }
            self.tick()?;
        };
        self.batch.topics = relations.topics();
        self.assembler.announce(relation.oid, route);
        if self.batch.is_empty() {
            // Of what is in Kafka already, the stream tells only to be understood.
            self.announced.retain(|(oid, _)| *oid != relation.oid);
        }
        self.announced.extend(announced.map(|change| (relation.oid, change)));
        self.state.look_at_once();
        Ok(())
    }

    /// Whether the batch has to go now. At a commit it goes sooner: only a batch that ends between two transactions
    /// lets Kafka's end, and one that carries the end of a transaction begun in an earlier batch is waited for.
    pub(super) fn is_full(&self) -> bool {
        let bytes = self.batch.weight();
        if self.batch.pendings().len() >= PENDINGS_MAX {
            return true;
        }
        match self.assembler.is_between_transactions() {
            true => bytes >= BATCH_BYTES || self.within,
            false => bytes >= BATCH_BYTES_WITHIN,
        }
    }

    /// Hands the batch over, and waits for an empty one.
    pub(super) fn hand_over(&mut self) -> Result<(), Fault> {
        let empty = self.empty_batch()?;
        self.replace_batch(empty)
    }

    /// Waits for an empty batch.
    pub(super) fn empty_batch(&mut self) -> Result<Batch, Fault> {
        loop {
            if let Some(empty) = self.sink.empty_batch(TICK)? {
                return Ok(empty);
            }
            self.tick()?;
        }
    }

    fn replace_batch(&mut self, mut empty: Batch) -> Result<(), Fault> {
        empty.topics = Arc::clone(&self.batch.topics);
        let mut full = std::mem::replace(&mut self.batch, empty);
        self.assembler.seal(&mut full);
        self.send(full)
    }

    /// Hands a batch over whose end is set, once its records lack nothing. Where that fails, the run is over, and nothing
    /// that came later is in the batch that [`close`](Self::close) finds.
    pub(super) fn send(&mut self, mut full: Batch) -> Result<(), Fault> {
        self.tell_versions(&mut full);
        self.handed_rows += full.len();
        let full = self.completed(full)?;
        self.pace.handed_over();
        Ok(self.pass_on(full)?)
    }

    /// The versions under which the batch's rows are written become known with it.
    fn tell_versions(&mut self, batch: &mut Batch) {
        if !batch.is_empty() {
            batch.changes.extend(self.announced.drain(..).map(|(_, change)| change));
        }
    }

    /// Gives a batch to the sink: one of the stream, or a chunk, which says nothing of how fast rows come.
    pub(super) fn pass_on(&mut self, full: Batch) -> Result<(), Ended> {
        self.within = !full.at_boundary;
        if full.at_boundary {
            self.handed = full.end.lsn;
            self.handed_at = Instant::now();
        }
        self.sink.send(full)
    }

    /// Merges what was read of the tables, as far as the stream has come to it: between two transactions, behind all
    /// that came before.
    fn merge(&mut self) -> Result<(), Fault> {
        let position = self.assembler.position();
        let may = self.assembler.is_between_transactions() && position.ordinal == 0;
        if may && self.desk.is_to_start_anew(position.lsn) {
            // The next run has to find a position that is not before the place where this one ends.
            self.hand_over()?;
            return Err(Fault::TablesChanged);
        }
        while may && self.desk.is_due(position.lsn) {
            let Some(mut chunk) = self.desk.take_merge(position.lsn) else { break };
            if !self.batch.is_empty() {
                self.hand_over()?;
            }
            self.assembler.seal(&mut chunk);
            self.pass_on(chunk)?;
        }
        while may && let Some(table) = self.desk.take_sweep() {
            self.sweep(table)?;
            self.desk.swept(table);
        }
        self.acknowledger.wanted = self.desk.is_waiting(position.lsn);
        Ok(())
    }

    /// The input has run dry: offers the sink what is whole, if it is hungry and has an empty batch to give back.
    fn offer(&mut self) -> Result<(), Fault> {
        let due = match self.batch.is_empty() {
            true => self.position_is_due(),
            false => self.pace.wait(Instant::now()).is_zero(),
        };
        if due
            && self.assembler.is_between_transactions()
            && self.may_hand_over()
            && let Some(empty) = self.sink.empty_batch(Duration::ZERO)?
        {
            self.replace_batch(empty)?;
        }
        Ok(())
    }

    /// Rows gather while the sink commits; but values that have to be looked up are, meanwhile.
    fn may_hand_over(&self) -> bool {
        self.sink.appetite().is_hungry() || !self.batch.pendings().is_empty()
    }

    /// Whether a position without records is to be stored, so that idle tables pin no WAL.
    fn position_is_due(&self) -> bool {
        let interval = if self.handed < self.awaited { URGENT_INTERVAL } else { self.acknowledger.position_interval };
        self.assembler.position().lsn > self.handed && self.handed_at.elapsed() >= interval
    }

    /// How many records have been made since the beginning.
    fn rows(&self) -> usize {
        self.handed_rows + self.batch.len()
    }

    /// Reads what is there, or waits: for data, and while rows are due also for the sink's hunger.
    fn read_or_wait(&mut self, now: Instant) -> Result<bool, Fault> {
        let wait = match self.batch.is_empty() {
            true if self.desk.is_active() => MERGE_WAIT,
            true => IDLE_WAIT,
            false => self.pace.wait(now),
        };
        let fill = if wait.is_zero() {
            let appetite = self.sink.appetite();
            let is_soon = appetite.ask() || self.may_hand_over() || self.desk.is_active();
            if !is_soon && self.pace.is_calm() && self.batch.weight() < CALM_BYTES {
                // What comes now goes no sooner than what will have come by then (but for values to be looked up).
                self.stream.pause_until(appetite.bell(), TICK)?;
                appetite.bell().silence();
                return Ok(self.stream.fill(Duration::ZERO)? != Fill::Nothing);
            }
            let wait = if is_soon { HELD_WAIT } else { TICK };
            let fill = self.stream.fill_or_hear(wait, Some(appetite.bell()))?;
            if fill == Fill::Nothing {
                appetite.bell().silence();
            }
            fill
        } else {
            self.stream.fill(wait)?
        };
        Ok(fill != Fill::Nothing)
    }

    /// Waits for data, and takes it.
    fn fill(&mut self, relations: &mut Relations) -> Result<(), Fault> {
        let now = Instant::now();
        let away = self.pace.look_away(now);
        if !away.is_zero() {
            self.stream.pause(away);
        }
        let came = self.read_or_wait(now)?;
        if came {
            let (rows, frames) = (self.rows(), self.frames);
            self.take_frames(relations)?;
            self.pace.came(self.frames - frames, self.rows() - rows, Instant::now());
            self.silence = Duration::ZERO;
        } else {
            self.silence += now.elapsed();
            if self.silence > SILENCE_LIMIT {
                let silent = format!("nothing came from Postgres for {} s", SILENCE_LIMIT.as_secs());
                return Err(ReplicationError::Io(io::Error::new(io::ErrorKind::TimedOut, silent)).into());
            }
        }
        Ok(())
    }

    /// Lets the sink write what is whole, acknowledges it, and takes leave of Postgres.
    fn close(mut self) -> Result<(), Fault> {
        let mut last = std::mem::take(&mut self.batch);
        if self.assembler.seal_at_boundary(&mut last) && !last.is_empty() {
            self.tell_versions(&mut last);
            self.closes_by = Some(Instant::now() + LAST_VALUES_LIMIT);
            // What can't be completed now, the next run will bring. If the sink has ended, joining it tells why.
            let _ = self.completed(last).map(|last| self.sink.send(last));
        }
        self.sink.close();
        let started = Instant::now();
        let limit = || if self.shutdown.is_of_the_whole() { CLOSE_LIMIT } else { CLOSE_LIMIT_BEFORE_NEXT_RUN };
        while !self.sink.is_finished() && started.elapsed() < limit() {
            // The connection may be what failed: the sink's result matters more.
            let _ = self.acknowledger.tick(&mut self.stream, &self.state);
            std::thread::sleep(TICK);
        }
        if !self.sink.is_finished() {
            return Err(Fault::SinkStuck { seconds: limit().as_secs() });
        }
        self.sink.join()?;
        let _ = self.acknowledger.acknowledge(&mut self.stream, &self.state, false);
        // The slot is free when the server has closed the connection; if it doesn't, it will notice by itself.
        let _ = self.stream.finish(FAREWELL_LIMIT);
        Ok(())
    }
}
