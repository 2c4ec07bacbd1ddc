//! Tables: shape, keys, partitions, and what may be read of them.

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::{ColumnFacts, ReplicaIdentity, TableFacts, TableName, letter, not_understood};
use crate::postgres::control::{Control, ControlError};

const DOING: &str = "reading the tables from the catalog";

/// The keys are looked for table by table: a catalog may have thousands of others.
///
/// `indkey` lists the INCLUDE columns too, after the first `indnkeyatts`: they are no part of the key.
const TABLES: &str = "
WITH key AS NOT MATERIALIZED (
    SELECT i.indrelid, i.indisprimary, i.indisreplident,
           array_agg(a.attname::text ORDER BY k.place) AS columns
    FROM pg_catalog.pg_index i
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indisvalid AND i.indimmediate AND k.place <= i.indnkeyatts AND (i.indisprimary OR i.indisreplident)
    GROUP BY i.indexrelid, i.indrelid, i.indisprimary, i.indisreplident
)
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, c.relreplident::text,
       c.relispartition, rn.nspname::text, r.relname::text,
       coalesce((SELECT columns FROM key WHERE indrelid = c.oid AND indisprimary), '{}'),
       coalesce((SELECT columns FROM key WHERE indrelid = c.oid AND indisreplident AND c.relreplident = 'i'), '{}'),
       a.names, a.types, a.typmods, a.generated
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_class r ON c.relispartition AND r.oid = pg_catalog.pg_partition_root(c.oid)
LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(attname::text ORDER BY attnum), '{}') AS names,
           coalesce(array_agg(atttypid ORDER BY attnum), '{}') AS types,
           coalesce(array_agg(atttypmod ORDER BY attnum), '{}') AS typmods,
           coalesce(array_agg(attgenerated <> '' ORDER BY attnum), '{}') AS generated
    FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
) a
WHERE c.relkind IN ('r', 'p', 'f') AND n.nspname = $1 AND ($2 IS NULL OR c.relname = $2)
ORDER BY c.relname";

/// The privilege on the table, or on each of the columns.
const MAY_SELECT: &str = "
SELECT has_schema_privilege(c.relnamespace, 'USAGE') AND (
    has_table_privilege(c.oid, 'SELECT')
    OR (cardinality($2) > 0 AND (SELECT bool_and(has_column_privilege(c.oid, name, 'SELECT')) FROM unnest($2) name)))
FROM pg_catalog.pg_class c WHERE c.oid = $1";

/// A publication may only be made by the owner of its tables.
const OWNS: &str = "
SELECT coalesce(bool_and(pg_has_role(c.relowner, 'USAGE')), true) FROM pg_catalog.pg_class c WHERE c.oid = ANY($1)";

/// Postgres gives a table a TOAST table only if a row could grow too large for a page without one; the partitions have
/// those of a partitioned table. Storage `x` and `e` leaves the row first, `m` when that isn't enough: PostGIS's types, and
/// the built-in ones of numbers and addresses, which hardly ever grow so large; a domain is what lies below it.
const TOASTABLE: &str = "
WITH RECURSIVE base AS (
    SELECT a.attnum, t.oid, t.typbasetype FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid WHERE a.attrelid = $1 AND a.attnum > 0
    UNION ALL
    SELECT b.attnum, t.oid, t.typbasetype FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.typbasetype
)
SELECT a.attname::text FROM pg_catalog.pg_attribute a
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND (a.attstorage IN ('x', 'e')
    OR a.attstorage = 'm' AND NOT EXISTS (SELECT FROM base b WHERE b.attnum = a.attnum
        AND b.oid IN ('numeric'::regtype, 'inet'::regtype, 'cidr'::regtype))) AND EXISTS (
    SELECT FROM pg_catalog.pg_class c WHERE c.reltoastrelid <> 0
    AND (c.oid = $1 OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree($1))))
ORDER BY a.attnum";

/// An ALTER of a partitioned table's replica identity leaves those of its partitions as they are.
const NOT_FULL: &str = "
SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_partition_tree($1) p
JOIN pg_catalog.pg_class c ON c.oid = p.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE p.isleaf AND c.relkind = 'r' AND c.oid <> $1 AND c.relreplident <> 'f' ORDER BY 1, 2";

/// The types that lie below those of the keys, and what the indexes take for equal: both are called by name.
const KEY_SCHEMAS: &str = "
WITH RECURSIVE key AS (
    SELECT a.atttypid, k.opclass
    FROM pg_catalog.pg_index i
    CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) WITH ORDINALITY AS k(attnum, opclass, place)
    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indrelid = $1 AND (i.indisprimary OR i.indisreplident) AND k.place <= i.indnkeyatts
), base(below, namespace) AS (
    SELECT t.typbasetype, t.typnamespace FROM key JOIN pg_catalog.pg_type t ON t.oid = key.atttypid
    UNION SELECT t.typbasetype, t.typnamespace FROM base JOIN pg_catalog.pg_type t ON t.oid = base.below
)
SELECT n.nspname::text FROM pg_catalog.pg_namespace n
WHERE NOT has_schema_privilege(n.oid, 'USAGE') AND (
    n.oid IN (SELECT namespace FROM base WHERE below = 0)
    OR n.oid IN (
        SELECT op.oprnamespace FROM key JOIN pg_catalog.pg_opclass oc ON oc.oid = key.opclass
        JOIN pg_catalog.pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
          AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
        JOIN pg_catalog.pg_operator op ON op.oid = ao.amopopr))
ORDER BY 1";

impl Control {
    /// The tables of a schema, or the one of that name; by name. Partitioned tables and their partitions are all there.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn tables(&self, schema: &str, name: Option<&str>) -> Result<Vec<TableFacts>, ControlError> {
        let rows = self.query(DOING, TABLES, &[(&schema, Type::TEXT), (&name, Type::TEXT)]).await?;
        rows.iter().map(table).collect()
    }

    /// Whether the table has no row that we could see. Of a partitioned table all partitions count; of an ordinary
    /// one that others inherit from, only its own rows.
    ///
    /// # Errors
    ///
    /// If the query fails: the table is gone or we may not read it.
    pub async fn is_empty(&self, table: &TableFacts) -> Result<bool, ControlError> {
        let only = if table.relkind == 'p' { "" } else { "ONLY " };
        let sql = format!("SELECT NOT EXISTS (SELECT FROM {only}{})", table.table_name());
        Ok(self.query_one("looking whether a table is empty", &sql, &[]).await?.get(0))
    }

    /// Whether we may read these columns of the table, by a privilege on it or on each of them. A partition is asked
    /// about by itself: read directly, it doesn't inherit what may be done with its root.
    ///
    /// # Errors
    ///
    /// If the query fails: the table or a column is gone.
    pub async fn has_select_privilege(&self, table: u32, columns: &[String]) -> Result<bool, ControlError> {
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&table, Type::OID), (&columns, Type::TEXT_ARRAY)];
        Ok(self.query_one("looking at a table's privileges", MAY_SELECT, &parameters).await?.get(0))
    }

    /// Whether all these tables are ours, by ourselves or by a role that we are in.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn owns(&self, tables: &[u32]) -> Result<bool, ControlError> {
        Ok(self.query_one("looking at the tables' owners", OWNS, &[(&tables, Type::OID_ARRAY)]).await?.get(0))
    }

    /// The partitions of a table whose replica identity isn't FULL.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn partitions_without_full(&self, table: u32) -> Result<Vec<TableName>, ControlError> {
        let rows = self.query(DOING, NOT_FULL, &[(&table, Type::OID)]).await?;
        Ok(rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
    }

    /// The schemas that it takes USAGE on to look rows of a table up by its key, and that we have it not on.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn closed_key_schemas(&self, table: u32) -> Result<Vec<String>, ControlError> {
        let rows = self.query(DOING, KEY_SCHEMAS, &[(&table, Type::OID)]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// The columns whose values may be TOASTed, and so be missing in the WAL of an update that leaves them as they are.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn toastable_columns(&self, table: u32) -> Result<Vec<String>, ControlError> {
        let rows = self.query(DOING, TOASTABLE, &[(&table, Type::OID)]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

fn table(row: &Row) -> Result<TableFacts, ControlError> {
    let identity: &str = row.get(5);
    let root = row.get::<_, Option<String>>(7).zip(row.get::<_, Option<String>>(8));
    Ok(TableFacts {
        oid: row.get(0),
        schema: row.get(1),
        name: row.get(2),
        relkind: letter(DOING, row.get(3))?,
        persistence: letter(DOING, row.get(4))?,
        replica_identity: identity
            .bytes()
            .next()
            .and_then(ReplicaIdentity::from_code)
            .ok_or_else(|| not_understood(DOING, identity))?,
        is_partition: row.get(6),
        partition_root: root.map(|(schema, name)| TableName { schema, name }),
        primary_key: row.get(9),
        replica_identity_index: row.get(10),
        columns: columns(row),
    })
}

fn columns(row: &Row) -> Vec<ColumnFacts> {
    let names: Vec<String> = row.get(11);
    let types: Vec<u32> = row.get(12);
    let typmods: Vec<i32> = row.get(13);
    let generated: Vec<bool> = row.get(14);
    let rest = types.into_iter().zip(typmods).zip(generated);
    names
        .into_iter()
        .zip(rest)
        .map(|(name, ((type_oid, typmod), generated))| ColumnFacts { name, type_oid, typmod, generated })
        .collect()
}
