//! What of many tables tells whether a topic is still the table: asked for all of them in one query, again and again.
//!
//! Nothing is locked for it: a partition tree is followed by `pg_inherits`, since `pg_partition_tree` would wait for DDL.

use std::collections::BTreeMap;

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::{TableName, lsn};
use crate::lsn::Lsn;
use crate::postgres::control::{Control, ControlError};

const DOING: &str = "comparing the tables with the catalog";

/// Types below this oid are built in: nobody changes them.
///
/// A partition that is being detached (`inhdetachpending`) is no part of what queries see. Of one that was detached and
/// attached again, the link is another row, with another `xmin`.
///
/// Values that rows of before a column have in it all the same are kept by the tables that have rows, so a partitioned
/// table never has any: its partitions do, where the column may have another number.
const STATES: &str = "
WITH RECURSIVE wanted(oid) AS (
    SELECT unnest($1::oid[])
), tree(root, oid, links) AS (
    SELECT c.oid, c.oid, '' FROM wanted JOIN pg_catalog.pg_class c USING (oid)
    UNION ALL
    SELECT t.root, i.inhrelid, concat(t.links, ' ', i.xmin) FROM tree t
    JOIN pg_catalog.pg_class p ON p.oid = t.oid AND p.relkind = 'p'
    JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid AND NOT i.inhdetachpending
), used(relid, type) AS (
    SELECT a.attrelid, a.atttypid FROM wanted
    JOIN pg_catalog.pg_attribute a ON a.attrelid = wanted.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE a.atttypid >= 16384
    UNION
    SELECT u.relid, next.type FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.type
    CROSS JOIN LATERAL (
        SELECT t.typbasetype UNION ALL SELECT t.typelem
        UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
        UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
                  WHERE t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) next(type) WHERE next.type >= 16384
)
SELECT c.oid, n.nspname::text, c.relname::text, c.relnatts, c.relkind = 'p',
       a.nums, a.names, a.types, a.typmods, a.missing, h.oids, h.nodes, l.oids, l.labels, f.types, f.fields,
       p.membership, p.filter, a.versions, h.links
FROM wanted JOIN pg_catalog.pg_class c USING (oid)
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (MEMBERSHIP) p ON true
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(attnum ORDER BY attnum), '{}') AS nums,
           coalesce(array_agg(attname::text ORDER BY attnum), '{}') AS names,
           coalesce(array_agg(atttypid ORDER BY attnum), '{}') AS types,
           coalesce(array_agg(atttypmod ORDER BY attnum), '{}') AS typmods,
           coalesce(array_agg(own.xmin::text ORDER BY attnum), '{}') AS versions,
           coalesce(array_agg(atthasmissing OR (c.relkind = 'p' AND EXISTS (
               SELECT FROM tree t JOIN pg_catalog.pg_attribute la ON la.attrelid = t.oid AND la.attname = own.attname
               WHERE t.root = c.oid AND la.atthasmissing)) ORDER BY attnum), '{}') AS missing
    FROM pg_catalog.pg_attribute own WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
      AND CASE WHEN p.columns IS NULL THEN attgenerated = '' OR (p.generated AND attgenerated = 's')
               ELSE attnum = ANY (p.columns) END
) a
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(leaf.oid ORDER BY leaf.oid), '{}') AS oids,
           coalesce(array_agg(coalesce(pg_relation_filenode(leaf.oid), 0) ORDER BY leaf.oid), '{}') AS nodes,
           coalesce(array_agg(ltrim(t.links) ORDER BY leaf.oid), '{}') AS links
    FROM tree t JOIN pg_catalog.pg_class leaf ON leaf.oid = t.oid AND leaf.relkind = 'r' WHERE t.root = c.oid
) h
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(e.oid ORDER BY e.oid), '{}') AS oids,
           coalesce(array_agg(e.enumlabel::text ORDER BY e.oid), '{}') AS labels
    FROM used u JOIN pg_catalog.pg_enum e ON e.enumtypid = u.type WHERE u.relid = c.oid
) l
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(t.oid ORDER BY t.oid), '{}') AS types,
           coalesce(array_agg(t.fields ORDER BY t.oid), '{}') AS fields
    FROM (SELECT t.oid, (SELECT string_agg(format('%s %s %s', b.attnum, b.atttypid, b.atttypmod), ', ' ORDER BY b.attnum)
                         FROM pg_catalog.pg_attribute b
                         WHERE b.attrelid = t.typrelid AND b.attnum > 0 AND NOT b.attisdropped) AS fields
          FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.type AND t.typtype = 'c' WHERE u.relid = c.oid) t
) f";

/// How the table is in the publication: the oids of all that puts it there, and who last changed the publication's
/// options. A table that was taken out and put back has another.
const MEMBERSHIP: &str = "
SELECT concat_ws(' ', p.oid, p.xmin, r.oid, s.oid) AS membership, r.prattrs::int2[] AS columns,
       pg_get_expr(r.prqual, r.prrelid) AS filter, GENERATED AS generated
FROM pg_catalog.pg_publication p
LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
LEFT JOIN pg_catalog.pg_publication_namespace s ON s.pnpubid = p.oid AND s.pnnspid = c.relnamespace
WHERE p.pubname = $2 AND (p.puballtables OR r.oid IS NOT NULL OR s.oid IS NOT NULL)";

/// Without column lists, row filters and schemas.
const MEMBERSHIP_14: &str = "
SELECT concat_ws(' ', p.oid, p.xmin, r.oid) AS membership, NULL::int2[] AS columns, NULL::text AS filter,
       false AS generated
FROM pg_catalog.pg_publication p
LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
WHERE p.pubname = $2 AND (p.puballtables OR r.oid IS NOT NULL)";

/// What of a table tells whether its topic is still the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableState {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Its name now.
    pub name: TableName,
    /// `pg_class.relnatts`: how many columns it has ever had.
    pub natts: i16,
    /// Whether it is partitioned.
    pub is_partitioned: bool,
    /// The columns that are published, in the table's order.
    pub columns: Vec<ColumnState>,
    /// The file node of its heap, or those of its partitions, by oid.
    pub heaps: BTreeMap<u32, u32>,
    /// Of each partition that has rows, what makes it one: the `xmin` of each row of `pg_inherits` from the table down to it.
    pub links: BTreeMap<u32, String>,
    /// The labels of the enums that its columns are made of, by `pg_enum.oid`.
    pub labels: BTreeMap<u32, String>,
    /// The attributes of the composite types that its columns are made of, by the type's oid.
    pub composites: BTreeMap<u32, String>,
    /// What puts it into the publication; `None`: it isn't in it.
    pub membership: Option<String>,
    /// The publication's row filter, as SQL.
    pub row_filter: Option<String>,
}

/// A published column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnState {
    /// `pg_attribute.attnum`: a column that was dropped and added again has another.
    pub number: i16,
    /// Its name.
    pub name: String,
    /// `pg_attribute.atttypid`.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`.
    pub typmod: i32,
    /// `pg_attribute.atthasmissing`: rows of before it was added have a value all the same.
    pub has_missing: bool,
    /// The `xmin` of its row of `pg_attribute`: who last changed the column.
    pub version: String,
}

impl Control {
    /// The states of the tables of these oids, as far as they are there.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn table_states(&self, publication: &str, tables: &[u32]) -> Result<Vec<TableState>, ControlError> {
        let membership = match self.is_at_least(15) {
            true => MEMBERSHIP.replace("GENERATED", if self.is_at_least(18) { "p.pubgencols = 's'" } else { "false" }),
            false => MEMBERSHIP_14.to_owned(),
        };
        let sql = STATES.replace("MEMBERSHIP", &membership);
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&tables, Type::OID_ARRAY), (&publication, Type::TEXT)];
        Ok(self.query(DOING, &sql, &parameters).await?.iter().map(state).collect())
    }

    /// The name that a table goes by now; `None` if there is none of this oid.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn name_of(&self, table: u32) -> Result<Option<TableName>, ControlError> {
        let sql = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c \
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";
        let row = self.query("looking for a table by its oid", sql, &[(&table, Type::OID)]).await?.pop();
        Ok(row.map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))))
    }

    /// The end of the WAL now: all that is visible lies before it. What isn't flushed yet is, when this returns.
    ///
    /// # Errors
    ///
    /// If a query fails.
    pub async fn wal_end(&self) -> Result<Lsn, ControlError> {
        const DOING: &str = "asking for the end of the WAL";
        let sql = "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                   ELSE pg_current_wal_insert_lsn() END)::text, current_setting('wal_block_size')::int8";
        let row = self.query_one(DOING, sql, &[]).await?;
        let high = super::reading::without_page_header(lsn(DOING, row.get(0))?, row.get::<_, i64>(1).unsigned_abs());
        self.flush_up_to(high).await?;
        Ok(high)
    }
}

fn state(row: &Row) -> TableState {
    let numbers: Vec<i16> = row.get(5);
    let names: Vec<String> = row.get(6);
    let types: Vec<u32> = row.get(7);
    let typmods: Vec<i32> = row.get(8);
    let missing: Vec<bool> = row.get(9);
    let versions: Vec<String> = row.get(18);
    let rest = names.into_iter().zip(types).zip(typmods).zip(missing).zip(versions);
    let columns =
        numbers.into_iter().zip(rest).map(|(number, ((((name, type_oid), typmod), has_missing), version))| {
            ColumnState { number, name, type_oid, typmod, has_missing, version }
        });
    let is_partition = |link: &(u32, String)| !link.1.is_empty();
    let links = by_oid(row.get(10), row.get::<_, Vec<String>>(19)).into_iter().filter(is_partition);
    TableState {
        oid: row.get(0),
        name: TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
        natts: row.get(3),
        is_partitioned: row.get(4),
        columns: columns.collect(),
        heaps: by_oid(row.get(10), row.get::<_, Vec<u32>>(11)),
        links: links.collect(),
        labels: by_oid(row.get(12), row.get::<_, Vec<String>>(13)),
        composites: by_oid(
            row.get(14),
            row.get::<_, Vec<Option<String>>>(15).into_iter().map(Option::unwrap_or_default),
        ),
        membership: row.get(16),
        row_filter: row.get(17),
    }
}

fn by_oid<T>(oids: Vec<u32>, values: impl IntoIterator<Item = T>) -> BTreeMap<u32, T> {
    oids.into_iter().zip(values).collect()
}
