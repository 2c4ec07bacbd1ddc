//! The source database: the table of eleven columns, its rows, the slots that hold a backlog.

use anyhow::{Context, Result};
use postgres::{Client, NoTls};

use crate::services::{Services, Via};
use crate::workload::Workload;

/// The table that everything is measured with; a record of it has about 150 bytes.
pub const TABLE: &str = "bench_rows";

/// One beside it, of the same columns, for rows that come while the other is read.
pub const BESIDE: &str = "bench_beside";

/// Of both, and of the tables of [`Workload`]s.
pub const COLUMNS: &str = "id bigserial PRIMARY KEY, ref uuid, name text, note text, qty int, big bigint,
    price numeric(12,2), active boolean, at timestamptz, day date, doc jsonb";

/// The row whose id is `n`, a bigint's expression.
pub fn row(n: &str) -> String {
    format!(
        "{n}, gen_random_uuid(), 'customer ' || {n}, 'a note of the row ' || {n} * 7919 % 1000003, ({n} % 1000)::int,
        {n} * 1000003, ({n} % 100000)::numeric / 100, {n} % 3 = 0, clock_timestamp(),
        date '2024-01-01' + ({n} % 1000)::int,
        jsonb_build_object('rank', {n} % 97, 'tags', jsonb_build_array('blue', {n} % 7))"
    )
}

/// Writes the row whose id is its parameter into a table.
pub fn insert(table: &str) -> String {
    format!("INSERT INTO {table} SELECT {} FROM (SELECT $1::bigint AS n) AS one", row("n"))
}

/// Writes row 0.
pub fn insert_zero(table: &str) -> String {
    format!("INSERT INTO {table} SELECT {};", row("0::bigint"))
}

/// The publication for readers that make none of their own.
pub const PUBLICATION: &str = "bench";

/// A database of its own for one measurement.
pub struct Source {
    pub database: String,
    client: Client,
}

impl Source {
    /// Creates the database and its empty tables.
    pub fn create(services: &Services, name: &str, tag: &str) -> Result<Self> {
        // Autovacuum would take CPU at moments of its own choice.
        let schema = format!(
            "CREATE TABLE {TABLE} ({COLUMNS}) WITH (autovacuum_enabled = false);
             CREATE TABLE {BESIDE} (LIKE {TABLE} INCLUDING INDEXES) WITH (autovacuum_enabled = false);"
        );
        Self::with_schema(services, name, tag, &schema, &[TABLE.to_owned()])
    }

    /// Creates the database and the workload's tables, with their row 0.
    pub fn of(services: &Services, workload: &Workload, tag: &str) -> Result<Self> {
        Self::with_schema(services, workload.name, tag, &workload.schema, &workload.tables)
    }

    fn with_schema(services: &Services, name: &str, tag: &str, schema: &str, tables: &[String]) -> Result<Self> {
        let database = format!("bench_{name}_{tag}");
        let mut client = Client::connect(&services.database("postgres", Via::Unix), NoTls)?;
        client.batch_execute(&format!("CREATE DATABASE {database}"))?;
        let mut client = Client::connect(&services.database(&database, Via::Unix), NoTls)?;
        client.batch_execute(schema).context("could not create the tables")?;
        client.batch_execute("CREATE TABLE bench_end (at timestamptz)")?;
        client.batch_execute(&format!("CREATE PUBLICATION {PUBLICATION} FOR TABLE {}", tables.join(", ")))?;
        Ok(Self { database, client })
    }

    /// A slot for a reader that makes none of its own.
    pub fn create_slot(&mut self, slot: &str) -> Result<()> {
        self.client.execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", &[&slot])?;
        Ok(())
    }

    /// Runs this.
    pub fn execute(&mut self, sql: &str) -> Result<()> {
        Ok(self.client.batch_execute(sql)?)
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

    /// So many rows in one transaction, into [`TABLE`].
    pub fn fill_at_once(&mut self, rows: u64) -> Result<Backlog> {
        self.fill(&Workload::at_once(rows).fill)
    }

    /// The rows as a table has them that is long there: vacuumed, so that whoever reads it first pays no more than the
    /// next one (the first reader of new rows marks them as committed, and so writes every page anew).
    pub fn settle(&mut self) -> Result<()> {
        self.client.batch_execute(&format!("VACUUM (ANALYZE) {TABLE}"))?;
        Ok(self.client.batch_execute("CHECKPOINT")?)
    }

    /// Writes the rows; the WAL then goes on past them and is flushed, so that every reader can reach the end, and
    /// no checkpoint is due while one reads.
    pub fn fill(&mut self, statements: &[String]) -> Result<Backlog> {
        self.client.batch_execute("SET synchronous_commit = off")?;
        let begin = self.insert_lsn()?;
        for statement in statements {
            self.client.batch_execute(statement)?;
        }
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
