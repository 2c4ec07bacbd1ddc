//! What the reading of a table asks beside its rows: heaps, snapshots, who writes to a table, what of it is published.

use tokio_postgres::types::{ToSql, Type};

use super::{TableName, lsn, not_understood};
use crate::lsn::Lsn;
use crate::postgres::control::{Control, ControlError};

/// A partitioned table has no rows of its own. Foreign partitions are never published.
const HEAPS: &str = "
SELECT c.oid, n.nspname::text, c.relname::text, coalesce(pg_relation_filenode(c.oid), 0),
       coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::int8, greatest(c.reltuples, 0)::int8
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND (c.oid = $1 OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree($1) WHERE isleaf))
ORDER BY c.oid";

/// The snapshot is taken before any part of the query runs: the WAL's end is asked for after it.
const SNAPSHOT: &str = "
SELECT pg_current_snapshot()::text, pg_is_in_recovery(),
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END)::text,
       (extract(epoch FROM clock_timestamp()) * 1000)::int8,
       current_setting('wal_block_size')::int8, current_setting('block_size')::int8,
       n.nspname::text, c.relname::text, coalesce(pg_relation_filenode(c.oid), 0), coalesce(pg_relation_size(c.oid), 0),
       c.oid = $2 OR EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(c.oid) WHERE relid = $2)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";

/// What writes to a table takes one of these locks, and holds it until it is visible.
const WRITERS: &str = "
SELECT DISTINCT w.virtualtransaction::text, coalesce(w.pid, 0), x.transactionid::text
FROM pg_catalog.pg_locks w LEFT JOIN pg_catalog.pg_locks x
  ON x.virtualtransaction = w.virtualtransaction AND x.locktype = 'transactionid' AND x.mode = 'ExclusiveLock' AND x.granted
WHERE w.locktype = 'relation' AND w.granted AND w.pid IS DISTINCT FROM pg_backend_pid()
  AND w.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND (w.relation = $1 OR w.relation IN (SELECT relid FROM pg_catalog.pg_partition_tree($1)))
  AND w.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')";

/// A table that is published by FOR ALL TABLES or with its schema has no row of its own there.
const PUBLISHED: &str = "
SELECT (SELECT array_agg(a.attname::text) FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = $2 AND a.attnum = ANY (r.prattrs::int2[])),
       pg_get_expr(r.prqual, r.prrelid)
FROM pg_catalog.pg_publication p JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = $2
WHERE p.pubname = $1";

/// From Postgres 18 on, a publication may carry stored generated columns without naming them.
const GENERATED: &str = "
SELECT ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = $2 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated IN ('', 's'))
FROM pg_catalog.pg_publication p WHERE p.pubname = $1 AND p.pubgencols::text = 's'";

/// A file of rows: a table without partitions, or a partition without such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeapFacts {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Its name.
    pub name: TableName,
    /// `pg_relation_filenode`: another one after each rewrite.
    pub file_node: u32,
    /// How many blocks it has now.
    pub blocks: u32,
    /// How many rows it has, by the statistics; 0 where there are none.
    pub rows: u64,
}

/// A snapshot, and what is true of a heap with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFacts {
    /// The transactions before `next_xid` that are in progress in it; none on a standby, where a transaction is visible
    /// before its commit can be decoded.
    pub in_progress: Vec<u32>,
    /// The one after the newest that had ended: from it on, transactions may be in progress, and none is visible.
    pub next_xid: u32,
    /// What is visible was committed before it: no commit record of it lies at or after it.
    pub high: Lsn,
    /// When it was taken, in milliseconds since 1970-01-01 UTC.
    pub time: i64,
    /// The heap's name.
    pub name: TableName,
    /// `pg_relation_filenode`.
    pub file_node: u32,
    /// How many blocks it has.
    pub blocks: u32,
    /// It is the table, or a partition of it: not one that was detached.
    pub is_of_table: bool,
}

/// Which transactions have ended, as a snapshot has it; ids of 64 bits, which don't wrap around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The server is a standby.
    pub in_recovery: bool,
    /// All before it have ended.
    pub xmin: u64,
    /// None from it on has.
    pub xmax: u64,
}

/// A transaction that has written to a table and isn't over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Names the transaction for as long as it lives.
    pub virtual_transaction: String,
    /// The backend; 0 for a prepared transaction.
    pub pid: i32,
    /// The transaction's id, if it has one.
    pub xid: Option<u32>,
}

/// What of a table a publication carries, beyond the common case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The columns, in no order; `None`: all but the generated ones.
    pub columns: Option<Vec<String>>,
    /// The row filter as SQL; `None`: all rows.
    pub row_filter: Option<String>,
}

impl Control {
    /// The heaps of a table, by oid: its own, or those of its partitions, which may be none. `None` if the table is gone.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn heaps(&self, table: u32) -> Result<Option<Vec<HeapFacts>>, ControlError> {
        const DOING: &str = "listing a table's heaps";
        let rows = self.query(DOING, HEAPS, &[(&table, Type::OID)]).await?;
        if rows.is_empty() {
            let exists = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = $1)";
            let exists: bool = self.query_one(DOING, exists, &[(&table, Type::OID)]).await?.get(0);
            return Ok(exists.then(Vec::new));
        }
        let heap = |row: &tokio_postgres::Row| HeapFacts {
            oid: row.get(0),
            name: TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
            file_node: row.get(3),
            blocks: u32::try_from(row.get::<_, i64>(4)).unwrap_or(u32::MAX),
            rows: row.get::<_, i64>(5).unsigned_abs(),
        };
        Ok(Some(rows.iter().map(heap).collect()))
    }

    /// The current snapshot, which in a REPEATABLE READ transaction is the one of its first query. `None` if there is
    /// no such heap in it.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn snapshot_facts(&self, heap: u32, table: u32) -> Result<Option<SnapshotFacts>, ControlError> {
        const DOING: &str = "taking a snapshot";
        let row = self.query(DOING, SNAPSHOT, &[(&heap, Type::OID), (&table, Type::OID)]).await?.pop();
        let Some(row) = row else { return Ok(None) };
        let text: &str = row.get(0);
        let (next_xid, in_progress) = snapshot(text).ok_or_else(|| not_understood(DOING, text))?;
        let in_recovery: bool = row.get(1);
        let blocks = row.get::<_, i64>(9) / row.get::<_, i64>(5);
        Ok(Some(SnapshotFacts {
            in_progress: if in_recovery { Vec::new() } else { in_progress },
            next_xid,
            high: without_page_header(lsn(DOING, row.get(2))?, row.get::<_, i64>(4).unsigned_abs()),
            time: row.get(3),
            name: TableName::new(row.get::<_, String>(6), row.get::<_, String>(7)),
            file_node: row.get(8),
            blocks: u32::try_from(blocks).unwrap_or(u32::MAX),
            is_of_table: row.get(10),
        }))
    }

    /// The newest transaction id: every transaction that has begun to write has one that isn't later. A snapshot doesn't
    /// tell it, since it counts from the newest that has *ended*: so one is taken. It ends here, and from now on every
    /// snapshot lists what is older and in progress. On a standby, what hasn't ended can't have been decoded.
    ///
    /// # Errors
    ///
    /// If a query fails.
    pub async fn newest_xid(&self) -> Result<u32, ControlError> {
        const DOING: &str = "asking for the newest transaction id";
        let ended = self.ended().await?;
        if ended.in_recovery {
            return Ok((ended.xmax as u32).wrapping_sub(1));
        }
        self.execute(DOING, "BEGIN READ WRITE").await?;
        let row = self.query_one(DOING, "SELECT pg_current_xact_id()::text", &[]).await?;
        self.execute(DOING, "ROLLBACK").await?;
        let text: &str = row.get(0);
        text.parse::<u64>().map(|xid| xid as u32).map_err(|_| not_understood(DOING, text))
    }

    /// Which transactions have ended.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn ended(&self) -> Result<Ended, ControlError> {
        const DOING: &str = "taking a snapshot";
        let sql = "SELECT pg_is_in_recovery(), pg_snapshot_xmin(s)::text, pg_snapshot_xmax(s)::text FROM pg_current_snapshot() s";
        let row = self.query_one(DOING, sql, &[]).await?;
        let xid = |column: usize| {
            let text: &str = row.get(column);
            text.parse::<u64>().map_err(|_| not_understood(DOING, text))
        };
        Ok(Ended { in_recovery: row.get(0), xmin: xid(1)?, xmax: xid(2)? })
    }

    /// The transactions that have written to a table, or to a partition of it, and aren't over yet: visible to all, or
    /// rolled back.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn writers(&self, table: u32) -> Result<Vec<Writer>, ControlError> {
        let rows = self.query("asking who writes to a table", WRITERS, &[(&table, Type::OID)]).await?;
        let writer = |row: &tokio_postgres::Row| Writer {
            virtual_transaction: row.get(0),
            pid: row.get(1),
            xid: row.get::<_, Option<&str>>(2).and_then(|xid| xid.parse().ok()),
        };
        Ok(rows.iter().map(writer).collect())
    }

    /// What of a table the publication carries.
    ///
    /// # Errors
    ///
    /// If a query fails.
    pub async fn published(&self, publication: &str, table: u32) -> Result<Published, ControlError> {
        const DOING: &str = "asking what of a table is published";
        if !self.is_at_least(15) {
            return Ok(Published::default());
        }
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&publication, Type::TEXT), (&table, Type::OID)];
        let row = self.query(DOING, PUBLISHED, &parameters).await?.pop();
        let mut published =
            row.map_or_else(Published::default, |row| Published { columns: row.get(0), row_filter: row.get(1) });
        if published.columns.is_none() && self.is_at_least(18) {
            published.columns = self.query(DOING, GENERATED, &parameters).await?.pop().map(|row| row.get(0));
        }
        Ok(published)
    }

    /// Sees to it that all that is visible now is flushed, and so sent down the stream: what a transaction that doesn't
    /// wait for its commit has written otherwise lies in memory for a while, and what reading itself writes (pruning)
    /// for longer. Does nothing on a standby, which replays only what is flushed.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub async fn flush_up_to(&self, high: Lsn) -> Result<(), ControlError> {
        const DOING: &str = "asking how far the WAL is flushed";
        let flushed = "SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn()::text END";
        let row = self.query_one(DOING, flushed, &[]).await?;
        match row.get::<_, Option<&str>>(0).map(|text| lsn(DOING, text)).transpose()? {
            Some(flushed) if flushed < high => {
                let message = "BEGIN READ WRITE; SET LOCAL synchronous_commit = local; \
                               SELECT pg_logical_emit_message(true, 'tablecast', ''); COMMIT";
                self.execute("flushing the WAL", message).await
            }
            _ => Ok(()),
        }
    }
}

/// The first transaction id from which on it sees nothing, and those in progress before that, of
/// `xmin:xmax:xip,xip,…`; as 32 bits, as the stream has them.
pub(super) fn snapshot(text: &str) -> Option<(u32, Vec<u32>)> {
    let mut parts = text.split(':');
    let (_, xmax, in_progress) = (parts.next()?, parts.next()?, parts.next()?);
    let xid = |text: &str| text.parse::<u64>().ok().map(|xid| xid as u32);
    let in_progress = in_progress.split(',').filter(|xid| !xid.is_empty()).map(xid);
    Some((xid(xmax)?, in_progress.collect::<Option<_>>()?))
}

/// An insert position right behind a page's header is the page's beginning: nothing starts between the two, and an idle
/// source never gets there, since it counts without the header of a page that it hasn't begun.
pub(super) fn without_page_header(high: Lsn, block_size: u64) -> Lsn {
    // SizeOfXLogShortPHD, and SizeOfXLogLongPHD at the beginning of a segment.
    const HEADERS: [u64; 2] = [24, 40];
    match high.0 % block_size {
        header if HEADERS.contains(&header) => Lsn(high.0 - header),
        _ => high,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_read_and_cut_down_to_the_ids_that_the_stream_has() {
        assert_eq!(snapshot("10:20:10,14,15"), Some((20, vec![10, 14, 15])));
        assert_eq!(snapshot("10:10:"), Some((10, vec![])));
        assert_eq!(snapshot("4294967300:4294967302:4294967301"), Some((6, vec![5])));
        assert_eq!(snapshot("10:"), None);
    }

    #[test]
    fn a_position_behind_a_page_header_is_the_beginning_of_the_page() {
        assert_eq!(without_page_header(Lsn(8192 * 3 + 24), 8192), Lsn(8192 * 3));
        assert_eq!(without_page_header(Lsn((16 << 20) + 40), 8192), Lsn(16 << 20));
        assert_eq!(without_page_header(Lsn(8192 * 3 + 72), 8192), Lsn(8192 * 3 + 72));
    }
}
