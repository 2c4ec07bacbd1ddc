//! The steady mixed load: writers, each with rows of its own, and counters that all of them want.
//!
//! A transaction whose outcome got lost with its connection is looked up: its number stands in `source_transactions`,
//! written by the transaction itself. So the ledger knows of every transaction whether it is committed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::checker::Rows;
use super::ledger::{Entry, Ledger, Place};
use super::patience::let_pass;
use super::plan::{End, Planner, Step, records};
use super::tables::{COUNTER_ROWS, COUNTERS, Statement, TABLES};

const WRITERS: i64 = 3;
/// What a debug build keeps up with, with as much again to catch up.
const PAUSE_PER_ROW: Duration = Duration::from_micros(900);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const RECONNECT: Duration = Duration::from_millis(50);

/// The writers at work.
pub struct Load {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<()>>,
    runtime: Runtime,
}

struct Shared {
    url: String,
    ledger: Mutex<Ledger>,
    next_tx: AtomicU64,
    rolled_back: AtomicU64,
    outcomes_lost: AtomicU64,
    stop: AtomicBool,
    /// Held by a writer from a transaction's beginning until its outcome is known; whoever has it for writing finds
    /// the ledger complete.
    gate: Arc<RwLock<()>>,
}

/// What became of a transaction.
enum Outcome {
    Committed,
    RolledBack,
    /// The connection was lost before COMMIT was sent: nothing can have been committed.
    Lost,
    /// It was lost when COMMIT was under way.
    Unknown,
}

/// A transaction's share of the ledger.
#[derive(Default)]
struct Account {
    row_changes: usize,
    records: Vec<(Place, Entry)>,
}

type Fault = tokio_postgres::Error;

impl Load {
    /// Creates the tables and their first rows; nothing is under load yet.
    pub fn prepare(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let shared = Arc::new(Shared {
            url: url.to_owned(),
            ledger: Mutex::default(),
            next_tx: AtomicU64::new(1),
            rolled_back: AtomicU64::new(0),
            outcomes_lost: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            gate: Arc::default(),
        });
        let create: String = TABLES.iter().map(super::tables::Table::create).collect();
        let create = format!("CREATE TABLE source_transactions (tx bigint PRIMARY KEY); {create}");
        runtime.block_on(async { connect(url).await.batch_execute(&create).await }).unwrap();
        Self { shared, writers: Vec::new(), runtime }
    }

    /// The counters' rows: the first records that there are.
    pub fn first_rows(&self) {
        let tx = self.shared.next_tx.fetch_add(1, Ordering::Relaxed);
        let rows: Vec<i64> = (1..=COUNTER_ROWS).collect();
        let change = super::tables::Change::Insert;
        let statement = Statement { table: COUNTERS, change, rows, becoming: Vec::new(), version: 0 };
        let url = &self.shared.url;
        self.runtime.block_on(async { connect(url).await.batch_execute(&statement.sql(tx)).await }).unwrap();
        self.shared.ledger.lock().unwrap().committed(statement.rows.len(), records(&statement, tx));
    }

    pub fn start(&mut self, rng: &mut Rng) {
        for writer in 0..WRITERS {
            let planner = Planner::new(writer, rng.fork());
            self.writers.push(self.runtime.spawn(write(Arc::clone(&self.shared), planner)));
        }
    }

    /// No transaction is under way while the result lives.
    pub fn hold(&self) -> OwnedRwLockWriteGuard<()> {
        self.check_alive();
        let gate = Arc::clone(&self.shared.gate);
        self.runtime.block_on(gate.write_owned())
    }

    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            self.runtime.block_on(writer).unwrap();
        }
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.shared.ledger.lock().unwrap()
    }

    pub fn handle(&self) -> &Handle {
        self.runtime.handle()
    }

    /// Transactions that were rolled back on purpose, and those whose outcome had to be looked up.
    pub fn others(&self) -> (u64, u64) {
        (self.shared.rolled_back.load(Ordering::Relaxed), self.shared.outcomes_lost.load(Ordering::Relaxed))
    }

    /// The table as it is.
    pub fn rows(&self, table: usize) -> Rows {
        let url = &self.shared.url;
        let sql = TABLES[table].select();
        let answer = self.runtime.block_on(async { connect(url).await.simple_query(&sql).await }).unwrap();
        let rows = answer.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let texts =
            |row: &tokio_postgres::SimpleQueryRow| (1..row.len()).map(|at| row.get(at).map(str::to_owned)).collect();
        rows.map(|row| (row.get(0).unwrap().to_owned(), texts(row))).collect()
    }

    fn check_alive(&self) {
        assert!(!self.writers.iter().any(JoinHandle::is_finished), "a writer has died");
    }
}

async fn connect(url: &str) -> Client {
    loop {
        if let Ok((client, connection)) = tokio_postgres::connect(url, NoTls).await {
            tokio::spawn(connection);
            // What is committed must survive a crash, or the ledger would know of more than Postgres does.
            if client.batch_execute("SET synchronous_commit = on; SET timezone = 'UTC'").await.is_ok() {
                return client;
            }
        }
        let_pass(RECONNECT).await;
    }
}

async fn write(shared: Arc<Shared>, mut planner: Planner) {
    let mut client = connect(&shared.url).await;
    while !shared.stop.load(Ordering::Relaxed) {
        let open = shared.gate.read().await;
        let changed = transact(&shared, &mut client, &mut planner).await;
        drop(open);
        let pause = Duration::from_millis(planner.pause_ms()) + PAUSE_PER_ROW * changed as u32;
        let_pass(pause.min(LONGEST_PAUSE)).await;
    }
}

/// One transaction, until it is known what became of it. Returns the number of rows that it changed.
async fn transact(shared: &Shared, client: &mut Client, planner: &mut Planner) -> usize {
    let before = planner.clone();
    let plan = planner.next();
    let tx = shared.next_tx.fetch_add(1, Ordering::Relaxed);
    let mut account = Account::default();
    let committed = match attempt(client, tx, &plan.steps, plan.end, &mut account).await {
        Outcome::Committed => true,
        Outcome::RolledBack => {
            shared.rolled_back.fetch_add(1, Ordering::Relaxed);
            false
        }
        Outcome::Lost => {
            *client = connect(&shared.url).await;
            false
        }
        Outcome::Unknown => {
            shared.outcomes_lost.fetch_add(1, Ordering::Relaxed);
            look_up(&shared.url, client, tx).await
        }
    };
    let changed = account.row_changes;
    if committed {
        shared.ledger.lock().unwrap().committed(changed, account.records);
    } else {
        planner.forget(before);
    }
    changed
}

async fn attempt(client: &Client, tx: u64, steps: &[Step], end: End, account: &mut Account) -> Outcome {
    if let Err(fault) = work(client, tx, steps, account).await {
        return lost(client, &fault, Outcome::Lost);
    }
    let (sql, outcome) = match end {
        End::Commit => ("COMMIT", Outcome::Committed),
        End::Rollback => ("ROLLBACK", Outcome::RolledBack),
    };
    match client.batch_execute(sql).await {
        Ok(()) => outcome,
        Err(_) if end == End::Rollback => Outcome::Lost,
        Err(fault) => lost(client, &fault, Outcome::Unknown),
    }
}

/// The connection is gone; any other failure is a mistake in the plan.
fn lost(client: &Client, fault: &Fault, outcome: Outcome) -> Outcome {
    // Class 57: the server is being shut down, or comes up again after a crash.
    let shutdown = fault.code().is_some_and(|code| code.code().starts_with("57"));
    assert!(shutdown || fault.is_closed() || fault.as_db_error().is_none() || client.is_closed(), "{fault:?}");
    outcome
}

async fn work(client: &Client, tx: u64, steps: &[Step], account: &mut Account) -> Result<(), Fault> {
    client.batch_execute(&format!("BEGIN; INSERT INTO source_transactions VALUES ({tx})")).await?;
    for step in steps {
        match step {
            Step::Do(statement) => execute(client, tx, statement, "", account).await?,
            Step::Nested(statement) => execute(client, tx, statement, "RELEASE s", account).await?,
            Step::Undone(statement) => {
                execute(client, tx, statement, "ROLLBACK TO s; RELEASE s", &mut Account::default()).await?;
            }
            Step::Count(ids) => count(client, tx, ids, account).await?,
        }
    }
    Ok(())
}

/// `after` ends the savepoint around the statement, if there is to be one.
async fn execute(
    client: &Client,
    tx: u64,
    statement: &Statement,
    after: &str,
    account: &mut Account,
) -> Result<(), Fault> {
    let before = if after.is_empty() { "" } else { "SAVEPOINT s;" };
    let answer = client.simple_query(&format!("{before} {}; {after}", statement.sql(tx))).await?;
    let changed = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
        _ => None,
    });
    assert_eq!(changed.sum::<u64>(), statement.rows.len() as u64, "rows changed by {statement:?}");
    account.row_changes += statement.rows.len();
    account.records.extend(records(statement, tx));
    Ok(())
}

async fn count(client: &Client, tx: u64, ids: &[i64], account: &mut Account) -> Result<(), Fault> {
    for id in ids {
        let sql = format!("UPDATE counters SET version = version + 1, tx = {tx} WHERE id = {id} RETURNING version");
        let row = client.query_one(&sql, &[]).await?;
        let place = Place::new(COUNTERS, TABLES[COUNTERS].key_text(*id));
        account.records.push((place, Entry { tx, version: Some(row.get(0)) }));
        account.row_changes += 1;
    }
    Ok(())
}

/// Whether the transaction is committed. The insert waits for a transaction that still goes on, so the answer is final.
async fn look_up(url: &str, client: &mut Client, tx: u64) -> bool {
    let sql = format!("INSERT INTO source_transactions VALUES ({tx}) ON CONFLICT DO NOTHING");
    loop {
        *client = connect(url).await;
        if let Ok(inserted) = client.execute(&sql, &[]).await {
            return inserted == 0;
        }
    }
}
