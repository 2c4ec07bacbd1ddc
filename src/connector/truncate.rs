//! TRUNCATE: a tombstone for every key that lives in the tables' topics, at the TRUNCATE's place in the stream.
//!
//! Which rows were in a table, no message says: the topic itself is read for its keys ([`keys::live`]), and the
//! tombstones repeat their bytes. It is right because
//!
//! - all that precedes the TRUNCATE has arrived in the topic before it is read ([`Sink::settle`]), so no key that lives
//!   is missed, be it of the same source transaction; and nothing that follows has been sent, so what is inserted
//!   later, be it in the same source transaction, comes after the tombstones and lives;
//! - the position counts the TRUNCATE only once its last tombstone is in a batch: who takes the stream up amid them
//!   reads the topic and writes all of them again, and a second tombstone for a key harms nobody.
//!
//! Reading a large topic takes long. It is done in a thread beside, whose keys come through a short channel, so the
//! intake goes on telling Postgres that we live, memory is bounded, and what holds the tombstones up holds up the
//! reading. What is whole before the source transaction is committed first; a Kafka transaction that this one has begun
//! before stays open, and the sink splits it if the reading takes too long for it.
//!
//! [`Sink::settle`]: crate::kafka::Sink::settle

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::assembler::Truncated;
use super::fault::Fault;
use super::intake::{Intake, TICK};
use crate::kafka::keys::{self, Found};
use crate::kafka::sink::Ended;
use crate::kafka::{Connection, KafkaFault};

/// How many portions of keys wait for the intake.
const PORTIONS: usize = 4;
/// How often to tell how far it is.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

impl Intake {
    /// Writes the tombstones of a TRUNCATE, which the assembler has just met.
    pub(super) fn truncate(&mut self, tables: &[Truncated]) -> Result<(), Fault> {
        self.settle_what_precedes()?;
        for table in tables {
            self.empty(table)?;
        }
        self.assembler.truncated();
        Ok(())
    }

    /// Waits until all that precedes the TRUNCATE has arrived in the topics. What is whole is committed first, in a
    /// Kafka transaction of its own, so that as little as possible is open while a topic is read.
    fn settle_what_precedes(&mut self) -> Result<(), Fault> {
        if self.assembler.has_boundary() {
            let mut whole = self.empty_batch()?;
            whole.topics = Arc::clone(&self.batch.topics);
            std::mem::swap(&mut whole, &mut self.batch);
            self.assembler.split_at_boundary(&mut whole, &mut self.batch);
            self.send(whole)?;
        }
        if !self.within {
            self.settle()?;
        }
        if !self.batch.is_empty() {
            self.hand_over()?;
        }
        if self.within {
            self.settle()?;
        }
        Ok(())
    }

    pub(super) fn settle(&mut self) -> Result<(), Fault> {
        let settled = self.sink.settle()?;
        loop {
            match settled.recv_timeout(TICK) {
                Ok(()) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err(Ended.into()),
                Err(RecvTimeoutError::Timeout) => self.tick()?,
            }
        }
    }

    /// Writes a tombstone for each key that lives in the table's topic.
    fn empty(&mut self, table: &Truncated) -> Result<(), Fault> {
        let topic = Arc::clone(&self.batch.topics[table.topic.0 as usize]);
        let (connector, table_name) = (self.state.snapshot().connector, &table.table);
        tracing::info!(connector, table = table_name, %topic, "table was truncated; its topic is read for live keys");
        let began = Instant::now();
        let reading = Reading::start(self.sink.connection().clone(), Arc::clone(&topic), keys::live)?;
        let tombstones = self.bury(table, &reading)?;
        let took = began.elapsed();
        tracing::info!(connector, table = table_name, %topic, tombstones, ?took, "every live key has its tombstone");
        Ok(())
    }

    /// Writes a tombstone for each key that is found; tells how many those were.
    pub(super) fn bury(&mut self, table: &Truncated, reading: &Reading) -> Result<u64, Fault> {
        let (connector, table_name) = (self.state.snapshot().connector, &table.table);
        let (mut records, mut tombstones) = (0_u64, 0_u64);
        let mut told = Instant::now();
        loop {
            match reading.wait(TICK)? {
                Some(Told::Ended) => break,
                Some(Told::Found(Found::Records(read))) => records = read,
                Some(Told::Found(Found::Keys(keys))) => {
                    for key in &keys {
                        self.batch.tombstone(table.topic, table.timestamp, key);
                        tombstones += 1;
                        if self.is_full() {
                            self.hand_over()?;
                        }
                    }
                }
                None => {}
            }
            self.tick()?;
            if told.elapsed() >= TELL_INTERVAL {
                told = Instant::now();
                tracing::info!(connector, table = table_name, records, tombstones, "still emptying the topic");
            }
        }
        Ok(tombstones)
    }
}

/// What the thread that reads tells.
enum Told {
    Found(Found),
    /// The topic has been read to where it ended.
    Ended,
}

/// A topic that is being read for its keys; given up when it is dropped.
pub(super) struct Reading {
    told: Receiver<Result<Told, KafkaFault>>,
}

/// Told of what is found; false if nobody listens any more.
pub(super) type Tell<'t> = &'t mut dyn FnMut(Found) -> bool;

impl Reading {
    /// Starts to look for keys.
    pub(super) fn start(
        connection: Connection,
        topic: Arc<str>,
        find: impl FnOnce(&Connection, &str, Tell<'_>) -> Result<(), KafkaFault> + Send + 'static,
    ) -> Result<Self, Fault> {
        let (tell, told) = sync_channel(PORTIONS);
        std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
            let ended = find(&connection, &topic, &mut |found| pass_on(&tell, found));
            // Nobody waits for it when the intake has ended.
            let _ = tell.send(ended.map(|()| Told::Ended));
        })?;
        Ok(Self { told })
    }

    /// The next word, if it comes within `wait`.
    fn wait(&self, wait: Duration) -> Result<Option<Told>, Fault> {
        match self.told.recv_timeout(wait) {
            Ok(told) => Ok(Some(told?)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Fault::TaskGone),
        }
    }
}

/// False if nobody listens any more. Only keys are worth waiting for.
fn pass_on(tell: &SyncSender<Result<Told, KafkaFault>>, found: Found) -> bool {
    match found {
        Found::Keys(_) => tell.send(Ok(Told::Found(found))).is_ok(),
        Found::Records(_) => !matches!(tell.try_send(Ok(Told::Found(found))), Err(TrySendError::Disconnected(_))),
    }
}
