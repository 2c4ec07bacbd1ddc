//! The sink: a thread that writes batches to Kafka, and the position with them.
//!
//! Exactly once: a Kafka transaction begins with the first batch after a commit and ends at a batch that ends between
//! two source transactions: as soon as no other batch waits, or at the limits of bytes and age. The last position in it
//! counts; a small one states where it ends at its beginning, too (`kafka::open`). Only a source transaction that would
//! outlive the Kafka transaction's timeout is split, with the ordinal that says where.
//!
//! At least once: the position is written after every record before it has arrived.
//!
//! The thread does nothing but this, so a commit under way never holds up reading, decoding and encoding. Batches
//! come through a bounded channel and go back emptied through another: that is the back-pressure, and the bound on
//! memory. [`Appetite`] tells when a small batch is best handed over: not while a commit is under way.
//!
//! Whoever wants to read what was written asks for it to be *settled* ([`Sink::settle`]): the answer comes when every
//! record before has arrived at the broker, and is committed if it is whole.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::appetite::Appetite;
use super::batch::Batch;
use super::client::Connection;
use super::error::KafkaFault;
use super::markers::Markers;
use super::open::{Limits, Open};
use super::positions::{self, StoredPosition};
use super::producer::Producer;
use super::shapes::TableShape;
use crate::position::Position;

/// How many batches exist: the one that is filled, the one that is written, and those that wait in between.
const BATCHES: usize = 4;
/// A batch's buffer is cut down to this after a large value had made it grow.
const KEEP_BATCH_BYTES: usize = 4 << 20;
/// At most so many bytes and so many records wait for the broker, whatever the size of a transaction (P5), but for a
/// single record. Waiting until all of them have arrived costs a round trip; but to hand librdkafka more than one request
/// of a partition takes (`batch.size`, `batch.num.messages`) costs more: as long as one is in flight and records wait,
/// its broker thread doesn't wait, it spins.
const WINDOW_BYTES: usize = 900_000;
/// The same in records.
const WINDOW_RECORDS: usize = 9_900;
/// How often librdkafka's events are served while nothing comes.
const IDLE_POLL: Duration = Duration::from_millis(200);
/// A Kafka transaction is split when it has lived for this share of its timeout.
const SPLIT_AT: f64 = 0.7;
/// How long aborting the open transaction may hold up a shutdown.
const ABORT_LIMIT: Duration = Duration::from_secs(5);

/// How the sink writes.
#[derive(Clone, Debug)]
pub struct SinkOptions {
    /// How to reach Kafka.
    pub connection: Connection,
    /// The key of the stored position.
    pub connector: String,
    /// Records and position in one Kafka transaction.
    pub exactly_once: bool,
    /// A Kafka transaction ends at the next boundary once it holds so many bytes.
    pub batch_max_bytes: usize,
    /// A Kafka transaction ends at the next boundary once it is so old.
    pub batch_max_latency: Duration,
}

/// What the sink tells while it works; called in the sink's thread.
pub trait SinkObserver: Send + Sync + 'static {
    /// The position is in Kafka: it may be acknowledged to Postgres.
    fn stored(&self, stored: &StoredPosition, committed: Committed);
    /// What is stored besides the position has changed; [`stored`](Self::stored) follows.
    fn changed(&self, stored: &StoredPosition);
    /// A source transaction had to be split.
    fn split(&self, position: Position);
}

/// What a Kafka transaction held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Records, without the position.
    pub records: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Source transactions.
    pub transactions: u64,
    /// From asking for the commit to its end.
    pub commit_took: Duration,
}

/// The way into the sink's thread.
pub struct Sink {
    /// Bounded by how many batches there are; `None` once the sink has been asked to end.
    work: Option<Sender<Work>>,
    emptied: Receiver<Batch>,
    appetite: Arc<Appetite>,
    thread: JoinHandle<Result<(), KafkaFault>>,
    connection: Connection,
}

/// What the sink's thread is given.
#[expect(clippy::large_enum_variant, reason = "nearly all of it is batches, which must not cost an allocation")]
enum Work {
    Write(Batch),
    Settle(SyncSender<()>),
}

/// A producer that has taken over the transactional id, and what was stored then.
pub struct Ready {
    producer: Producer,
    /// What the connector stored last, by this or an earlier producer.
    pub stored: Option<StoredPosition>,
}

/// Takes over the connector's transactional id, which fences any earlier producer and settles its last transaction,
/// and reads what is stored. Blocks.
pub fn take_over(options: &SinkOptions) -> Result<Ready, KafkaFault> {
    let producer = producer(options)?;
    let stored = positions::read(&options.connection, &options.connector)?;
    Ok(Ready { producer, stored })
}

fn producer(options: &SinkOptions) -> Result<Producer, KafkaFault> {
    let id = options.exactly_once.then(|| format!("tablecast-{}", options.connector));
    let producer = Producer::new(&options.connection, id.as_deref())?;
    producer.init()?;
    Ok(producer)
}

/// Removes the stored position, whether or not it can be read: a tombstone takes its place. Blocks.
pub fn forget(options: &SinkOptions) -> Result<(), KafkaFault> {
    let producer = producer(options)?;
    let tables = positions::tables_with_shapes(&options.connection, &options.connector)?;
    producer.begin()?;
    producer.send(positions::TOPIC, options.connector.as_bytes(), None, None)?;
    for table in tables {
        producer.send(positions::TOPIC, positions::shape_key(&options.connector, &table).as_bytes(), None, None)?;
    }
    producer.commit()
}

impl Ready {
    /// Stores a position by itself, with no records.
    pub fn store(&self, options: &SinkOptions, stored: &StoredPosition) -> Result<(), KafkaFault> {
        let known = self.stored.as_ref().map(|known| &known.shapes);
        let is_known = |table: &String, shape: &TableShape| known.and_then(|known| known.get(table)) == Some(shape);
        let changed = stored.shapes.iter().filter(|(table, shape)| !is_known(table, shape)).map(|(table, _)| table);
        let gone = known.into_iter().flatten().map(|(table, _)| table);
        let gone = gone.filter(|table| !stored.shapes.contains_key(*table));
        self.producer.begin()?;
        send_position(&self.producer, &options.connector, stored)?;
        // Without Kafka transactions: that a reading begins is known before it is forgotten what it is for.
        if !self.producer.is_transactional() {
            self.producer.drain()?;
        }
        for table in changed.chain(gone) {
            send_shape(&self.producer, &options.connector, stored, table)?;
        }
        self.producer.commit()
    }

    /// Starts the thread, which goes on from `stored`.
    pub fn start(
        self,
        options: SinkOptions,
        stored: StoredPosition,
        observer: Arc<dyn SinkObserver>,
    ) -> std::io::Result<Sink> {
        let (work, incoming) = channel();
        let (outgoing, emptied) = channel();
        for _ in 0..BATCHES {
            // The receiver is at hand: this can't fail.
            let _ = outgoing.send(Batch::default());
        }
        let appetite = Arc::new(Appetite::new()?);
        let limits = Limits {
            bytes: options.batch_max_bytes as u64,
            age: options.batch_max_latency,
            split_after: self.producer.transaction_timeout().mul_f64(SPLIT_AT),
        };
        let worker = Worker {
            producer: self.producer,
            connector: options.connector.clone(),
            stored,
            observer,
            limits,
            outgoing,
            appetite: Arc::clone(&appetite),
            begun: false,
            open: None,
            window: Window::default(),
            markers: Markers::default(),
            committed_at: None,
        };
        let name = format!("sink-{}", options.connector);
        let thread = std::thread::Builder::new().name(name).spawn(move || worker.run(&incoming))?;
        Ok(Sink { work: Some(work), emptied, appetite, thread, connection: options.connection })
    }
}

/// The sink's thread has ended: [`Sink::join`] tells why.
#[derive(Debug, thiserror::Error)]
#[error("the Kafka sink has ended")]
pub struct Ended;

impl Sink {
    /// Hands a batch over. Never blocks: back-pressure is the want of an empty batch.
    pub fn send(&self, batch: Batch) -> Result<(), Ended> {
        self.give(Work::Write(batch))
    }

    /// Asks for all that was handed over to arrive at the broker, and to be committed if it ends between two source
    /// transactions; the answer says that it has. Not to be asked again before the answer is there.
    pub fn settle(&self) -> Result<Receiver<()>, Ended> {
        let (answer, settled) = sync_channel(1);
        self.give(Work::Settle(answer))?;
        Ok(settled)
    }

    fn give(&self, work: Work) -> Result<(), Ended> {
        self.work.as_ref().ok_or(Ended)?.send(work).map_err(|_| Ended)
    }

    /// How to reach the Kafka that it writes to.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether a batch would be written soon, and a bell that says when.
    pub fn appetite(&self) -> &Appetite {
        &self.appetite
    }

    /// An empty batch to fill, waiting at most `wait`; `Ok(None)` if none came back in time.
    pub fn empty_batch(&self, wait: Duration) -> Result<Option<Batch>, Ended> {
        match self.emptied.recv_timeout(wait) {
            Ok(batch) => Ok(Some(batch)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Ended),
        }
    }

    /// Asks the sink to write what it has been handed, to commit what is whole, and to end.
    pub fn close(&mut self) {
        self.work = None;
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end of the thread and tells how it ended.
    pub fn join(mut self) -> Result<(), KafkaFault> {
        self.close();
        self.thread.join().unwrap_or(Err(KafkaFault::SinkGone))
    }
}

/// What was handed to librdkafka since it last held nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    bytes: usize,
    records: usize,
}

impl Window {
    fn has_room_for(self, bytes: usize) -> bool {
        self.records == 0 || (self.bytes + bytes <= WINDOW_BYTES && self.records < WINDOW_RECORDS)
    }

    fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.records += 1;
    }
}

struct Worker {
    producer: Producer,
    connector: String,
    stored: StoredPosition,
    observer: Arc<dyn SinkObserver>,
    limits: Limits,
    outgoing: Sender<Batch>,
    appetite: Arc<Appetite>,
    /// The producer's transaction has begun, of which Kafka knows when the first record comes.
    begun: bool,
    open: Option<Open>,
    window: Window,
    markers: Markers,
    committed_at: Option<Instant>,
}

impl Worker {
    fn run(mut self, incoming: &Receiver<Work>) -> Result<(), KafkaFault> {
        let done = self.write_until_closed(incoming);
        if self.open.is_some() {
            self.producer.abort(ABORT_LIMIT);
        }
        done
    }

    fn write_until_closed(&mut self, incoming: &Receiver<Work>) -> Result<(), KafkaFault> {
        loop {
            let more = match incoming.try_recv() {
                Ok(work) => {
                    self.take(work)?;
                    true
                }
                Err(TryRecvError::Empty) => false,
                Err(TryRecvError::Disconnected) => return self.finish(),
            };
            let now = Instant::now();
            if self.open.as_ref().is_some_and(|open| open.is_due(more, now, &self.limits)) {
                self.commit(now)?;
            } else if !more {
                self.wait_for_work(incoming)?;
            }
        }
    }

    /// Gets ready for the next Kafka transaction, says so, and waits for what it is to hold.
    fn wait_for_work(&mut self, incoming: &Receiver<Work>) -> Result<(), KafkaFault> {
        let mut came = None;
        let mut wait = IDLE_POLL;
        match &self.open {
            None => {
                self.begin()?;
                came = incoming.recv_timeout(self.markers_still_take(Instant::now())).ok();
            }
            Some(open) => wait = open.takes_for(Instant::now()).unwrap_or(IDLE_POLL),
        }
        if came.is_none() {
            self.appetite.wants();
            came = incoming.recv_timeout(wait).ok();
        }
        match came {
            Some(work) => self.take(work),
            // The next look at the channel sees it, if it has been closed.
            None => self.producer.poll(),
        }
    }

    fn begin(&mut self) -> Result<(), KafkaFault> {
        if !self.begun {
            self.producer.begin()?;
            self.begun = true;
        }
        Ok(())
    }

    /// How long the first record of a Kafka transaction is still to wait.
    fn markers_still_take(&self, now: Instant) -> Duration {
        let committed = self.committed_at.filter(|_| self.producer.is_transactional());
        committed.map_or(Duration::ZERO, |at| self.markers.wait(now.saturating_duration_since(at)))
    }

    fn finish(&mut self) -> Result<(), KafkaFault> {
        match &self.open {
            Some(open) if open.at_boundary => self.commit(Instant::now()),
            _ => Ok(()),
        }
    }

    fn take(&mut self, work: Work) -> Result<(), KafkaFault> {
        match work {
            Work::Write(batch) => self.write(batch),
            Work::Settle(answer) => {
                match &self.open {
                    Some(open) if open.at_boundary => self.commit(Instant::now())?,
                    _ => self.drain()?,
                }
                // Nobody waits for it any more when the encoder has ended.
                let _ = answer.send(());
                Ok(())
            }
        }
    }

    fn drain(&mut self) -> Result<(), KafkaFault> {
        self.producer.drain()?;
        self.window = Window::default();
        Ok(())
    }

    /// Opens the Kafka transaction that this batch is the first of.
    fn open_with(&mut self, batch: &Batch) -> Result<(), KafkaFault> {
        let since = Instant::now();
        self.begin()?;
        std::thread::sleep(self.markers_still_take(since));
        let now = Instant::now();
        let begun_after = self.committed_at.map(|at| now.saturating_duration_since(at));
        let mut open = Open::new(since, now, begun_after);
        if self.producer.is_transactional() && Open::is_to_be_stated_first(batch) {
            self.state_position(batch.end, batch.commit_time)?;
            open.stated(batch);
        }
        self.open = Some(open);
        self.appetite.wants();
        Ok(())
    }

    fn write(&mut self, mut batch: Batch) -> Result<(), KafkaFault> {
        if !batch.pendings().is_empty() {
            return Err(KafkaFault::Incomplete);
        }
        if self.open.as_ref().is_some_and(|open| !open.takes(&batch)) {
            self.commit(Instant::now())?;
        }
        if self.open.is_none() {
            self.open_with(&batch)?;
        }
        for record in batch.records() {
            let topic = &batch.topics[record.topic.0 as usize];
            let bytes = record.key.len() + record.value.map_or(0, <[u8]>::len);
            if !self.window.has_room_for(bytes) {
                self.drain()?;
            }
            self.window.add(bytes);
            self.producer.send(topic, record.key, record.value, Some(record.timestamp))?;
        }
        self.producer.poll()?;
        let Some(open) = &mut self.open else { return Ok(()) };
        open.add(&mut batch);
        let home = batch.home.take();
        batch.clear(KEEP_BATCH_BYTES);
        match home {
            Some(home) => home.take_back(batch),
            // Nobody waits for it any more when the encoder has ended.
            None => drop(self.outgoing.send(batch)),
        }
        Ok(())
    }

    /// Moves to a position, and sends it.
    fn state_position(&mut self, end: Position, commit_time: Option<i64>) -> Result<(), KafkaFault> {
        self.stored.position = end;
        self.stored.commit_time = commit_time.or(self.stored.commit_time);
        send_position(&self.producer, &self.connector, &self.stored)
    }

    /// Commits what is open; `now` is when that was found to be due.
    fn commit(&mut self, now: Instant) -> Result<(), KafkaFault> {
        self.appetite.has_enough();
        let Some(open) = &mut self.open else { return Ok(()) };
        if !open.at_boundary {
            self.observer.split(open.end);
        }
        let lacks_position = open.lacks_position();
        let changed = !open.changes.is_empty();
        let shapes: BTreeSet<String> = open.changes.drain(..).filter_map(|change| self.stored.apply(change)).collect();
        let (end, commit_time, begun_after, held) = (open.end, open.commit_time, open.begun_after, open.held);
        // Without Kafka transactions: a version is known to be in the topic before the position passes its first row.
        if !self.producer.is_transactional() {
            self.producer.drain()?;
        }
        for table in &shapes {
            send_shape(&self.producer, &self.connector, &self.stored, table)?;
        }
        if !self.producer.is_transactional() && !shapes.is_empty() {
            self.producer.drain()?;
        }
        if lacks_position {
            self.state_position(end, commit_time)?;
        }
        self.drain()?;
        self.markers.arrived(held.bytes, begun_after, now.elapsed());
        self.producer.commit()?;
        (self.open, self.begun) = (None, false);
        self.committed_at = Some(Instant::now());
        if changed {
            self.observer.changed(&self.stored);
        }
        self.observer.stored(&self.stored, Committed { commit_took: now.elapsed(), ..held });
        Ok(())
    }
}

/// What a table's topic was written under, or a tombstone if that is forgotten.
fn send_shape(producer: &Producer, connector: &str, stored: &StoredPosition, table: &str) -> Result<(), KafkaFault> {
    let key = positions::shape_key(connector, table);
    let value = stored.shapes.get(table).map(serde_json::to_vec).transpose().map_err(unwritable(connector))?;
    producer.send(positions::TOPIC, key.as_bytes(), value.as_deref(), None)
}

fn unwritable(connector: &str) -> impl FnOnce(serde_json::Error) -> KafkaFault {
    move |source| KafkaFault::StoredPosition {
        connector: connector.to_owned(),
        topic: positions::TOPIC,
        offset: -1,
        source,
    }
}

fn send_position(producer: &Producer, connector: &str, stored: &StoredPosition) -> Result<(), KafkaFault> {
    let value = stored.to_bytes().map_err(unwritable(connector))?;
    producer.send(positions::TOPIC, connector.as_bytes(), Some(&value), None)
}
