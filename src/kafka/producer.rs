//! The producer: librdkafka's, transactional or idempotent, with its traps walked around.
//!
//! The trap: rdkafka's `commit_transaction` calls its own `flush`, which polls in steps of 100 ms and sits each step
//! out. So [`Producer::drain`] first waits, with polls that don't block, until nothing is in flight; the commit then
//! takes well below a millisecond.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig};

use super::client::{Connection, Context, LastError, log};
use super::error::KafkaFault;

/// How long init, commit and abort may take before the connector starts anew.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long records may be in flight without any of them arriving.
const STALL_TIMEOUT: Duration = Duration::from_secs(45);
/// How long to look away while records are in flight: a share of the time that it has taken, so that a short wait isn't
/// made long, and a long one doesn't cost many wake-ups.
const DRAIN_PAUSE_SHARE: u32 = 8;
/// No shorter than this: it is short against a commit's 2 ms.
const DRAIN_PAUSE_MIN: Duration = Duration::from_micros(100);
/// No longer than this.
const DRAIN_PAUSE_MAX: Duration = Duration::from_millis(1);
/// The first time, no longer than this, whatever it took before: a small transaction may follow large ones.
const DRAIN_FIRST_MAX: Duration = Duration::from_millis(5);
/// The share by which what a fast drain takes follows what takes longer.
const FAST_RISES_BY: u32 = 8;
/// How long to look away while librdkafka's queue is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(1);
/// At most so many bytes of a key are shown in an error.
const SHOWN_KEY_BYTES: usize = 64;

/// How long a Kafka transaction may live, unless the configuration says otherwise: long, since a source transaction
/// that takes longer must be split, and well below what brokers allow by default (`transaction.max.timeout.ms`, 15 min).
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(300);

/// What tablecast chooses; the configuration's `properties` may choose otherwise.
const CHOICES: [(&str, &str); 7] = [
    ("client.id", "tablecast"),
    ("compression.type", "lz4"),
    // Batches come in bursts already; and a linger makes librdkafka spin through its last millisecond.
    ("linger.ms", "0"),
    // The sink bounds what waits for the broker (P5); librdkafka's own bound would also refuse any larger record.
    ("queue.buffering.max.kbytes", "2097151"),
    ("queue.buffering.max.messages", "1000000"),
    // The largest that librdkafka allows: the topic's own limit decides, and is told apart by its error.
    ("message.max.bytes", "1000000000"),
    ("socket.nagle.disable", "true"),
];

/// What the promises rest on; the configuration can't change it.
const FIXED: [(&str, &str); 4] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    ("partitioner", "murmur2_random"),
    ("delivery.report.only.error", "true"),
];

struct DeliveryContext {
    client: Context,
    failed: Arc<Mutex<Option<KafkaFault>>>,
}

impl ClientContext for DeliveryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.client.error(error, reason);
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        let Err((error, record)) = result else { return };
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        // After the first failure librdkafka purges what else is queued: those reports only follow from it.
        let follows = matches!(code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight);
        if failed.is_none() && !follows {
            let key = record.key().unwrap_or_default();
            *failed = Some(KafkaFault::Record {
                topic: record.topic().to_owned(),
                key: show_key(key),
                key_bytes: key.to_vec(),
                bytes: record.key_len() + record.payload_len(),
                code,
            });
        }
    }
}

fn show_key(key: &[u8]) -> String {
    let shown = &key[..key.len().min(SHOWN_KEY_BYTES)];
    let dots = if shown.len() < key.len() { "…" } else { "" };
    format!("\"{}\"{dots}", shown.escape_ascii())
}

/// A producer, transactional if it was made with a transactional id.
pub struct Producer {
    inner: BaseProducer<DeliveryContext>,
    last_error: LastError,
    failed: Arc<Mutex<Option<KafkaFault>>>,
    /// How long it took lately until all records had arrived, when it went fast.
    fast: Cell<Duration>,
    transactional: bool,
    transaction_timeout: Duration,
}

impl Producer {
    /// Makes a producer; it connects by itself. With a `transactional_id` it still needs [`init`](Self::init).
    pub fn new(connection: &Connection, transactional_id: Option<&str>) -> Result<Self, KafkaFault> {
        let timeout_ms = TRANSACTION_TIMEOUT.as_millis().to_string();
        let mut ours = CHOICES.to_vec();
        let mut fixed = FIXED.to_vec();
        if let Some(id) = transactional_id {
            ours.push(("transaction.timeout.ms", &timeout_ms));
            fixed.push(("transactional.id", id));
        }
        let config = connection.client_config(&ours, &fixed);
        let set = config.get("transaction.timeout.ms").and_then(|ms| ms.parse().ok());
        let client = Context::default();
        let last_error = client.last_error.clone();
        let failed = Arc::default();
        let context = DeliveryContext { client, failed: Arc::clone(&failed) };
        let inner = config.create_with_context(context).map_err(KafkaFault::call("making the Kafka producer"))?;
        Ok(Self {
            inner,
            last_error,
            failed,
            fast: Cell::default(),
            transactional: transactional_id.is_some(),
            transaction_timeout: set.map_or(TRANSACTION_TIMEOUT, Duration::from_millis),
        })
    }

    /// Whether it writes in transactions.
    pub fn is_transactional(&self) -> bool {
        self.transactional
    }

    /// How long a Kafka transaction may live.
    pub fn transaction_timeout(&self) -> Duration {
        self.transaction_timeout
    }

    /// Fences any earlier producer with the same transactional id and settles its last transaction.
    pub fn init(&self) -> Result<(), KafkaFault> {
        if !self.transactional {
            return Ok(());
        }
        const DOING: &str = "taking over the transactional id";
        self.last_error.clear();
        let done = self.inner.init_transactions(CALL_TIMEOUT).map_err(KafkaFault::call(DOING));
        done.map_err(|fault| {
            self.inner.poll(Duration::ZERO);
            self.last_error.or(DOING, fault)
        })
    }

    /// Begins a transaction.
    pub fn begin(&self) -> Result<(), KafkaFault> {
        if !self.transactional {
            return Ok(());
        }
        self.inner.begin_transaction().map_err(KafkaFault::call("beginning a Kafka transaction"))
    }

    /// Hands a record to librdkafka, waiting while its queue is full.
    pub fn send(
        &self,
        topic: &str,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: Option<i64>,
    ) -> Result<(), KafkaFault> {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).key(key);
        record.payload = value;
        record.timestamp = timestamp;
        let mut waiting: Option<Stall> = None;
        loop {
            let (error, back) = match self.inner.send(record) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                self.check()?;
                return Err(self.refusal(topic, key, value, error));
            }
            record = back;
            self.poll()?;
            waiting.get_or_insert_with(|| Stall::new("writing to Kafka")).check(self)?;
            std::thread::sleep(QUEUE_FULL_PAUSE);
        }
    }

    fn refusal(&self, topic: &str, key: &[u8], value: Option<&[u8]>, source: KafkaError) -> KafkaFault {
        match source.rdkafka_error_code() {
            Some(code @ RDKafkaErrorCode::MessageSizeTooLarge) => KafkaFault::Record {
                topic: topic.to_owned(),
                key: show_key(key),
                key_bytes: key.to_vec(),
                bytes: key.len() + value.map_or(0, <[u8]>::len),
                code,
            },
            _ => KafkaFault::Call { doing: format!("writing to topic {topic:?}"), source },
        }
    }

    /// Serves librdkafka's events; an error if a record was refused.
    pub fn poll(&self) -> Result<(), KafkaFault> {
        self.inner.poll(Duration::ZERO);
        self.check()
    }

    fn check(&self) -> Result<(), KafkaFault> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    /// Waits until every record has arrived.
    pub fn drain(&self) -> Result<(), KafkaFault> {
        self.poll()?;
        if self.inner.in_flight_count() == 0 {
            return self.check();
        }
        let mut stall = Stall::new("waiting for Kafka to take the records");
        let (began, mut looks) = (Instant::now(), 0);
        // Nothing tells when the last of them is there. Before it has ever been there, there is no need to look.
        let fast = self.fast.get().max(DRAIN_PAUSE_MIN);
        let first = fast - fast / DRAIN_PAUSE_SHARE;
        let mut pause = first;
        while self.inner.in_flight_count() > 0 {
            stall.check(self)?;
            std::thread::sleep(pause);
            pause = (began.elapsed() / DRAIN_PAUSE_SHARE).clamp(DRAIN_PAUSE_MIN, DRAIN_PAUSE_MAX);
            self.poll()?;
            looks += 1;
        }
        // There at the first look: since when, nobody knows.
        let took = if looks == 1 { first / 2 } else { began.elapsed() };
        self.fast.set(took.min(fast + fast / FAST_RISES_BY).min(DRAIN_FIRST_MAX));
        self.check()
    }

    /// Waits until every record has arrived, and commits. When it fails, whether the transaction is in is unknown
    /// until the next [`init`](Self::init).
    pub fn commit(&self) -> Result<(), KafkaFault> {
        self.drain()?;
        if !self.transactional {
            return Ok(());
        }
        let doing = "committing a Kafka transaction";
        let done = self.inner.commit_transaction(CALL_TIMEOUT).map_err(KafkaFault::call(doing));
        done.map_err(|fault| self.poll().err().unwrap_or(fault))
    }

    /// Aborts, as far as it can be done within `limit`: what stays open, the next [`init`](Self::init) aborts.
    pub fn abort(&self, limit: Duration) {
        if !self.transactional {
            return;
        }
        // What is queued or in flight has to be gone first: the abort itself waits for that, but doesn't poll.
        self.inner.purge(PurgeConfig::default().queue().inflight());
        let deadline = Instant::now() + limit;
        while self.inner.in_flight_count() > 0 && Instant::now() < deadline {
            self.inner.poll(DRAIN_PAUSE_MAX);
        }
        if let Err(error) = self.inner.abort_transaction(deadline.saturating_duration_since(Instant::now())) {
            tracing::debug!(%error, "the open Kafka transaction could not be aborted; the next start does it");
        }
    }
}

/// Notices that no record has arrived for too long.
struct Stall {
    doing: &'static str,
    in_flight: i32,
    since: Instant,
}

impl Stall {
    fn new(doing: &'static str) -> Self {
        Self { doing, in_flight: i32::MAX, since: Instant::now() }
    }

    fn check(&mut self, producer: &Producer) -> Result<(), KafkaFault> {
        let in_flight = producer.inner.in_flight_count();
        if in_flight != self.in_flight {
            self.in_flight = in_flight;
            self.since = Instant::now();
        } else if self.since.elapsed() > STALL_TIMEOUT {
            let last = producer.last_error.in_words();
            return Err(KafkaFault::Stalled { doing: self.doing.to_owned(), seconds: STALL_TIMEOUT.as_secs(), last });
        }
        Ok(())
    }
}
