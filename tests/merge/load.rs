//! Sessions that change the tables at the same time, each transaction at random.
//!
//! Before a statement changes rows it takes an advisory lock on the number of each, and then takes versions: so a key's
//! versions grow in the order in which its transactions commit. What they have written is told by RETURNING. Deadlocks
//! come of it, and are rolled back like what is rolled back on purpose.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage};

use super::history::Rows;
use super::ledger::{Ledger, Row};
use super::patience::let_pass;
use super::tables::{FIRST_VERSIONS, Table, list};

/// Settings of a session: an advisory lock in a circle is to be noticed soon.
const SETTINGS: &str = "SET deadlock_timeout = '20ms'; SET timezone = 'UTC'";
const PAUSE_MS: std::ops::Range<u64> = 0..15;
/// How long a transaction stays open in between, if it does.
const HOLD_MS: std::ops::Range<u64> = 10..400;
const MAINTENANCE_PAUSE_MS: std::ops::Range<u64> = 0..40;
/// A table that is not captured.
const NOISE: &str = "noise.rows";
const NOISE_ROWS: usize = 30_000;
const HELD_UP_MS: std::ops::Range<u64> = 10..60;
/// Numbers below it are changed more often than others.
const HOT: i64 = 12;

/// The sessions.
pub struct Load {
    shared: Arc<Shared>,
    sessions: Vec<JoinHandle<()>>,
    runtime: Runtime,
}

struct Shared {
    config: Config,
    tables: Vec<Table>,
    ledger: Mutex<Ledger>,
    next_version: AtomicI64,
    /// The slot is there.
    streams: AtomicBool,
    stop: AtomicBool,
    counts: Counts,
    /// Tables are truncated, and rewritten only by that: what a rewrite breaks, a TRUNCATE mends.
    truncates: bool,
    /// How many more TRUNCATEs there may be in transactions.
    truncates_left: AtomicUsize,
    to_rewrite: Mutex<Option<usize>>,
    /// The longest COMMIT, in milliseconds.
    slowest_commit: AtomicUsize,
}

/// What has been done, for people.
#[derive(Debug, Default)]
pub struct Counts {
    pub rolled_back: AtomicUsize,
    pub deadlocks: AtomicUsize,
    pub truncates: AtomicUsize,
    pub rewrites: AtomicUsize,
    pub vacuums: AtomicUsize,
}

impl Load {
    /// Creates the tables with their first rows.
    pub fn prepare(config: Config, tables: Vec<Table>, rng: &mut Rng) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut ledger = Ledger::default();
        for (place, table) in tables.iter().enumerate() {
            for (number, version) in table.first_rows() {
                ledger.first(Row { table: place, number }, version);
            }
        }
        let noise = format!("CREATE SCHEMA noise; CREATE TABLE {NOISE} (n int);");
        let create: String = tables.iter().map(Table::create).chain([noise]).collect();
        runtime.block_on(async { connect(&config).await.batch_execute(&create).await }).unwrap();
        let truncates = rng.u8(..3) == 0;
        let shared = Shared {
            config,
            next_version: AtomicI64::new((tables.len() as i64 + 1) * FIRST_VERSIONS),
            tables,
            ledger: Mutex::new(ledger),
            streams: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            counts: Counts::default(),
            truncates,
            truncates_left: AtomicUsize::new(if truncates { rng.usize(..4) } else { 0 }),
            to_rewrite: Mutex::default(),
            slowest_commit: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared), sessions: Vec::new(), runtime }
    }

    /// Starts so many sessions, and one more for maintenance.
    pub fn start(&mut self, sessions: usize, rng: &mut Rng) {
        for at in 0..=sessions {
            let (shared, rng) = (Arc::clone(&self.shared), rng.fork());
            self.sessions.push(self.runtime.spawn(async move {
                let client = connect(&shared.config).await;
                let session = Session { shared, client, rng, written: Vec::new(), touched: Vec::new() };
                if at < sessions { session.run().await } else { session.maintain().await }
            }));
        }
    }

    /// The slot is there: what begins from now on must come down the stream.
    pub fn slot_is_there(&self) {
        self.shared.streams.store(true, Ordering::SeqCst);
    }

    /// Has a table rewritten soon, or truncated.
    pub fn rewrite(&self, table: usize) {
        *self.shared.to_rewrite.lock().unwrap() = Some(table);
    }

    pub fn check_alive(&self) {
        assert!(!self.sessions.iter().any(JoinHandle::is_finished), "a session has died");
    }

    /// Waits for the end of the transactions under way.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for session in self.sessions.drain(..) {
            self.runtime.block_on(session).unwrap();
        }
    }

    pub fn tables(&self) -> &[Table] {
        &self.shared.tables
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.shared.ledger.lock().unwrap()
    }

    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    pub fn slowest_commit(&self) -> Duration {
        Duration::from_millis(self.shared.slowest_commit.load(Ordering::Relaxed) as u64)
    }

    /// The table as it is.
    pub fn rows(&self, table: &Table) -> Rows {
        let answer = self.runtime.block_on(async {
            let client = connect(&self.shared.config).await;
            client.simple_query(&table.select()).await
        });
        let answer = answer.unwrap();
        let rows = answer.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let texts =
            |row: &tokio_postgres::SimpleQueryRow| (1..row.len()).map(|at| row.get(at).map(str::to_owned)).collect();
        rows.map(|row| (row.get(0).unwrap().to_owned(), texts(row))).collect()
    }
}

async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(SETTINGS).await.unwrap();
    client
}

struct Session {
    shared: Arc<Shared>,
    client: Client,
    rng: Rng,
    /// By the transaction that is under way.
    written: Vec<(i64, Row)>,
    touched: Vec<Row>,
}

impl Session {
    async fn run(mut self) {
        while !self.shared.stop.load(Ordering::SeqCst) {
            self.transact().await;
            let_pass(Duration::from_millis(self.rng.u64(PAUSE_MS))).await;
        }
    }

    /// What moves rows and is not in the stream.
    async fn maintain(mut self) {
        let shared = Arc::clone(&self.shared);
        while !shared.stop.load(Ordering::SeqCst) {
            let_pass(Duration::from_millis(self.rng.u64(MAINTENANCE_PAUSE_MS))).await;
            let to_rewrite = shared.to_rewrite.lock().unwrap().take();
            let table = &shared.tables[to_rewrite.unwrap_or_else(|| self.rng.usize(..shared.tables.len()))];
            let heaps = table.heaps();
            let heap = &heaps[self.rng.usize(..heaps.len())];
            let counts = &shared.counts;
            let (command, count) = match (to_rewrite, self.rng.u8(..6)) {
                (Some(_), _) if shared.truncates => (format!("TRUNCATE {}", table.name), &counts.truncates),
                (Some(_), 0..=2) => (format!("VACUUM FULL {}", table.name), &counts.rewrites),
                (Some(_), _) => (format!("CLUSTER {heap} USING {heap}_pkey"), &counts.rewrites),
                (None, 0) => (format!("VACUUM {heap}"), &counts.vacuums),
                (None, _) => continue,
            };
            // A rewrite has to come before the rest of the table is read.
            if to_rewrite.is_some() && shared.truncates {
                self.hold_the_stream_up().await;
            }
            match self.client.batch_execute(&command).await {
                Ok(()) => _ = count.fetch_add(1, Ordering::Relaxed),
                Err(error) => self.only_a_deadlock(&error),
            }
        }
    }

    /// Postgres takes a while to decode this, though nothing of it is in the stream: what is read until then waits.
    async fn hold_the_stream_up(&mut self) {
        self.client
            .batch_execute(&format!("INSERT INTO {NOISE} SELECT generate_series(1, {NOISE_ROWS})"))
            .await
            .unwrap();
        let_pass(Duration::from_millis(self.rng.u64(HELD_UP_MS))).await;
    }

    async fn transact(&mut self) {
        let streamed = self.shared.streams.load(Ordering::SeqCst);
        self.written.clear();
        self.touched.clear();
        match self.attempt().await {
            Ok(true) => self.shared.ledger.lock().unwrap().committed(std::mem::take(&mut self.written), streamed),
            Ok(false) => {
                self.shared.counts.rolled_back.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                self.only_a_deadlock(&error);
                self.client.batch_execute("ROLLBACK").await.unwrap();
            }
        }
    }

    fn only_a_deadlock(&self, error: &Error) {
        assert_eq!(error.code(), Some(&SqlState::T_R_DEADLOCK_DETECTED), "{error:?}");
        self.shared.counts.deadlocks.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it was committed.
    async fn attempt(&mut self) -> Result<bool, Error> {
        self.client.batch_execute("BEGIN").await?;
        for _ in 0..self.rng.usize(1..=5) {
            match self.rng.u8(..100) {
                0..=9 => {
                    let before = self.written.len();
                    self.client.batch_execute("SAVEPOINT s").await?;
                    self.step().await?;
                    self.client.batch_execute("ROLLBACK TO s; RELEASE s").await?;
                    self.written.truncate(before);
                }
                10..=19 => {
                    self.client.batch_execute("SAVEPOINT s").await?;
                    self.step().await?;
                    self.client.batch_execute("RELEASE s").await?;
                }
                _ => self.step().await?,
            }
            if self.rng.u8(..100) < 4 {
                let_pass(Duration::from_millis(self.rng.u64(HOLD_MS))).await;
            }
        }
        if self.rng.u8(..100) < 8 {
            self.client.batch_execute("ROLLBACK").await?;
            return Ok(false);
        }
        let began = Instant::now();
        self.client.batch_execute("COMMIT").await?;
        self.shared.slowest_commit.fetch_max(began.elapsed().as_millis() as usize, Ordering::Relaxed);
        Ok(true)
    }

    async fn step(&mut self) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        if self.rng.u8(..100) < 2 && take_one(&shared.truncates_left) {
            return self.truncate().await;
        }
        let place = self.rng.usize(..shared.tables.len());
        let table = &shared.tables[place];
        let numbers = self.numbers(place);
        self.lock(place, &numbers).await?;
        let versions = self.versions(numbers.len());
        match self.rng.u8(..100) {
            0..=39 => self.write(place, &table.update(&numbers, &versions), &numbers, &versions).await,
            40..=57 => self.write(place, &table.insert_new(&numbers, &versions), &numbers, &versions).await,
            58..=64 => self.write(place, &table.upsert(&numbers, &versions), &numbers, &versions).await,
            65..=79 => self.client.batch_execute(&table.delete(&numbers)).await,
            80..=87 => {
                self.client.batch_execute(&table.delete(&numbers)).await?;
                self.write(place, &table.insert_new(&numbers, &versions), &numbers, &versions).await
            }
            _ => {
                let becoming = self.becoming(place, &numbers);
                self.lock(place, &becoming).await?;
                // Taken when both keys are ours.
                let versions = self.versions(numbers.len());
                self.write(place, &table.rekey(&numbers, &becoming, &versions), &becoming, &versions).await
            }
        }
    }

    /// Runs a statement that returns versions, which are those of the numbers at their places.
    async fn write(&mut self, place: usize, sql: &str, numbers: &[i64], versions: &[i64]) -> Result<(), Error> {
        for message in self.client.simple_query(sql).await? {
            let SimpleQueryMessage::Row(row) = message else { continue };
            let version: i64 = row.get(0).unwrap().parse().unwrap();
            let number = numbers[(version - versions[0]) as usize];
            self.written.push((version, Row { table: place, number }));
        }
        Ok(())
    }

    async fn truncate(&mut self) -> Result<(), Error> {
        let tables = &self.shared.tables;
        let two = self.rng.bool();
        let first = self.rng.usize(..tables.len());
        let second = (first + 1) % tables.len();
        let names =
            if two { format!("{}, {}", tables[first].name, tables[second].name) } else { tables[first].name.clone() };
        self.client.batch_execute(&format!("TRUNCATE {names}")).await?;
        self.shared.counts.truncates.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// In ascending order, each once: some of a table's numbers, often those that the transaction has changed already.
    fn numbers(&mut self, place: usize) -> Vec<i64> {
        let table = &self.shared.tables[place];
        let again: Vec<i64> = self.touched.iter().filter(|row| row.table == place).map(|row| row.number).collect();
        let count = match self.rng.u8(..100) {
            0..=64 => self.rng.usize(1..=4),
            65..=91 => self.rng.usize(5..=40),
            _ => self.rng.usize(41..=400),
        };
        let count = count.min(table.rows_at_once()).min(table.numbers as usize);
        let mut numbers: Vec<i64> = match self.rng.u8(..100) {
            0..=34 if !again.is_empty() => again,
            0..=44 => (0..count.min(3)).map(|_| self.rng.i64(0..HOT)).collect(),
            45..=69 => {
                let first = self.rng.i64(0..=table.numbers - count as i64);
                (first..first + count as i64).collect()
            }
            _ => (0..count).map(|_| self.rng.i64(0..table.numbers)).collect(),
        };
        numbers.sort_unstable();
        numbers.dedup();
        self.touched.extend(numbers.iter().map(|number| Row { table: place, number: *number }));
        numbers
    }

    /// As many other numbers, each once, in no order.
    fn becoming(&mut self, place: usize, numbers: &[i64]) -> Vec<i64> {
        let all = self.shared.tables[place].numbers;
        let step = self.rng.i64(1..all);
        let mut becoming: Vec<i64> = numbers.iter().map(|number| (number + step) % all).collect();
        // One that is both would depend on the order in which the statement takes the rows; it keeps its number.
        for at in 0..becoming.len() {
            if numbers.binary_search(&becoming[at]).is_ok() {
                becoming[at] = numbers[at];
            }
        }
        let mut seen = std::collections::HashSet::new();
        assert!(becoming.iter().all(|number| seen.insert(*number)), "each once");
        becoming
    }

    async fn lock(&self, place: usize, numbers: &[i64]) -> Result<(), Error> {
        let numbers = list(numbers);
        let sql = format!("SELECT count(pg_advisory_xact_lock({place}, n)) FROM unnest('{{{numbers}}}'::int[]) n");
        self.client.batch_execute(&sql).await
    }

    /// New ones, in a row. Only to be taken when the rows are locked.
    fn versions(&self, count: usize) -> Vec<i64> {
        let first = self.shared.next_version.fetch_add(count as i64, Ordering::SeqCst);
        (first..first + count as i64).collect()
    }
}

/// Whether there was one.
fn take_one(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}
