//! The source database: the table of eleven columns, its rows, the slots that hold a backlog.

use anyhow::{Context, Result};
use postgres::{Client, NoTls};

use crate::services::{Services, Via};

/// The table that everything is measured with; a record of it has about 150 bytes.
pub const TABLE: &str = "bench_rows";

/// One beside it, of the same columns, for rows that come while the other is read.
pub const BESIDE: &str = "bench_beside";

/// Autovacuum would take CPU at moments of its own choice.
const SCHEMA: &str = "
CREATE TABLE bench_rows (
    id bigserial PRIMARY KEY, ref uuid, name text, note text, qty int, big bigint, price numeric(12,2),
    active boolean, at timestamptz, day date, doc jsonb
) WITH (autovacuum_enabled = false);
CREATE TABLE bench_beside (LIKE bench_rows INCLUDING INDEXES) WITH (autovacuum_enabled = false);
CREATE TABLE bench_end (at timestamptz);
";

/// The row whose id is `n`.
macro_rules! row {
    () => {
        "n, gen_random_uuid(), 'customer ' || n, 'a note of the row ' || n * 7919 % 1000003, (n % 1000)::int,
        n * 1000003, (n % 100000)::numeric / 100, n % 3 = 0, clock_timestamp(), date '2024-01-01' + (n % 1000)::int,
        jsonb_build_object('rank', n % 97, 'tags', jsonb_build_array('blue', n % 7))"
    };
}

/// Writes rows 1 to its parameter, each in a transaction of its own.
const FILL_PROCEDURE: &str = concat!(
    "CREATE PROCEDURE bench_fill(rows bigint) LANGUAGE plpgsql AS $$ DECLARE n bigint; BEGIN
    FOR i IN 1..rows LOOP n := i; INSERT INTO bench_rows VALUES (",
    row!(),
    "); COMMIT; END LOOP; END $$"
);

/// Writes the row whose id is its parameter into a table.
pub fn insert(table: &str) -> String {
    format!(concat!("INSERT INTO {} SELECT ", row!(), " FROM (SELECT $1::bigint AS n) AS one"), table)
}

/// A database of its own for one measurement.
pub struct Source {
    pub database: String,
    client: Client,
}

impl Source {
    /// Creates the database and its empty table.
    pub fn create(services: &Services, name: &str, tag: &str) -> Result<Self> {
        let database = format!("bench_{name}_{tag}");
        let mut client = Client::connect(&services.database("postgres", Via::Unix), NoTls)?;
        client.batch_execute(&format!("CREATE DATABASE {database}"))?;
        let mut client = Client::connect(&services.database(&database, Via::Unix), NoTls)?;
        client.batch_execute(SCHEMA).context("could not create the table")?;
        client.batch_execute(FILL_PROCEDURE).context("could not create the procedure")?;
        Ok(Self { database, client })
    }

    /// Another slot with the same backlog.
    pub fn copy_slot(&mut self, from: &str, to: &str) -> Result<()> {
        self.client.execute("SELECT pg_copy_logical_replication_slot($1, $2)", &[&from, &to])?;
        Ok(())
    }

    /// A slot that has been used up would hold WAL, and the walsender of a process that has just ended may have it still.
    pub fn drop_slot(&mut self, slot: &str) -> Result<()> {
        let idle = "SELECT NOT active FROM pg_replication_slots WHERE slot_name = $1";
        crate::wait_until(std::time::Duration::from_secs(30), || {
            Ok(self.client.query_opt(idle, &[&slot])?.is_none_or(|row| row.get(0)))
        })?;
        self.client.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1",
            &[&slot],
        )?;
        Ok(())
    }

    /// The process that sends a slot's changes.
    pub fn walsender(&mut self, slot: &str) -> Result<Option<i32>> {
        let row =
            self.client.query_one("SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1", &[&slot])?;
        Ok(row.get(0))
    }

    /// One transaction a row.
    pub fn fill_row_by_row(&mut self, rows: u64) -> Result<Backlog> {
        self.client.batch_execute("SET synchronous_commit = off")?;
        self.fill(&format!("CALL bench_fill({rows})"))
    }

    /// All rows in one transaction.
    pub fn fill_at_once(&mut self, rows: u64) -> Result<Backlog> {
        self.fill(&format!(
            concat!("INSERT INTO bench_rows SELECT ", row!(), " FROM generate_series(1, {}::bigint) AS n"),
            rows
        ))
    }

    /// The rows as a table has them that is long there: vacuumed, so that whoever reads it first pays no more than the
    /// next one (the first reader of new rows marks them as committed, and so writes every page anew).
    pub fn settle(&mut self) -> Result<()> {
        self.client.batch_execute(&format!("VACUUM (ANALYZE) {TABLE}"))?;
        Ok(self.client.batch_execute("CHECKPOINT")?)
    }

    /// Writes the rows; the WAL then goes on past them and is flushed, so that every reader can reach the end, and
    /// no checkpoint is due while one reads.
    fn fill(&mut self, statement: &str) -> Result<Backlog> {
        let begin = self.insert_lsn()?;
        self.client.batch_execute(statement)?;
        let end = self.insert_lsn()?;
        self.client.batch_execute("SET synchronous_commit = on")?;
        self.client.batch_execute("INSERT INTO bench_end VALUES (now())")?;
        self.client.batch_execute("CHECKPOINT")?;
        Ok(Backlog { end: end.clone(), wal_mib: self.distance(&begin, &end)? / f64::from(1 << 20) })
    }

    fn insert_lsn(&mut self) -> Result<String> {
        Ok(self.client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[])?.get(0))
    }

    fn distance(&mut self, from: &str, to: &str) -> Result<f64> {
        let row = self
            .client
            .query_one("SELECT pg_wal_lsn_diff($1::text::pg_lsn, $2::text::pg_lsn)::float8", &[&to, &from])?;
        Ok(row.get(0))
    }
}

/// What waits in the slots.
pub struct Backlog {
    /// The WAL's end when the last row was in.
    pub end: String,
    pub wal_mib: f64,
}
