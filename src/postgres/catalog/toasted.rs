//! The SQL by which rows are found again for the TOASTed values that an update left as they were.
//!
//! All of it is one string of commands, one round trip: the tables are locked against DDL, then it is told what is true
//! of them now and which transactions are visible, then the rows are sent, one for each that was asked for and in that
//! order, be it that it has no value. Each command takes a snapshot of its own, none older than the one before, so what
//! was visible to the facts is visible to the rows; and the lock precedes both, so catalog and rows agree.
//!
//! A row is found by a unique index whose columns are all known, by the index's own operators: then it is one row, and
//! the index serves. Keys are written as literals of the columns' types, which the types' input functions read: they
//! take whatever the output functions wrote, but for what was made of the type since (an enum's label that was renamed).
//! All of them are read before the first row is sent. A value that was TOASTed goes out as the index scan finds it: the sort
//! passes on the pointer, and only what is being sent is in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Deserialize;

use super::reading::snapshot;
use super::{TableName, not_understood};
use crate::lsn::Lsn;
use crate::postgres::control::ControlError;
use crate::postgres::sql::{quote_ident, quote_literal};

const DOING: &str = "looking up TOASTed values";

/// How long a look-up may take. It takes as long as Kafka takes to write its rows, so this isn't a server's trouble yet.
const STATEMENT_TIMEOUT: &str = "10min";

/// Only columns of variable length can be TOASTed. Unique indexes that aren't whole, or not immediate as that of a
/// deferrable constraint, are unique in what a snapshot sees all the same; those with a condition or an expression find
/// no row by equality. A key WITHOUT OVERLAPS, which is a GiST index, is unique all the more: it is asked for by what
/// its columns' types take for equal.
///
/// A key is read as what lies below its domain, whose checks may have changed since it was written.
const FACTS: &str = "
SELECT pg_catalog.json_build_object(
    'snapshot', pg_catalog.pg_current_snapshot()::text,
    'replayed', CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()::text END,
    'table', (
        SELECT pg_catalog.json_build_object('schema', n.nspname, 'name', c.relname,
            'columns', (
                SELECT pg_catalog.json_object_agg(
                    a.attname, pg_catalog.json_build_array(a.atttypid::pg_catalog.int8, a.atttypmod))
                FROM pg_catalog.pg_attribute a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attlen = -1),
            'keys', (
                SELECT pg_catalog.json_agg(key.columns ORDER BY i.indisprimary DESC, i.indexrelid)
                FROM pg_catalog.pg_index i CROSS JOIN LATERAL (
                    SELECT count(*) AS count, pg_catalog.json_agg(pg_catalog.json_build_object(
                        'name', a.attname, 'type_oid', a.atttypid::pg_catalog.int8,
                        'type', (
                            WITH RECURSIVE t(oid, below) AS (
                                SELECT oid, typbasetype FROM pg_catalog.pg_type WHERE oid = a.atttypid
                                UNION ALL SELECT b.oid, b.typbasetype FROM t JOIN pg_catalog.pg_type b ON b.oid = t.below)
                            SELECT pg_catalog.format_type(oid, -1) FROM t WHERE below = 0),
                        'operator', pg_catalog.format('%I.%s', opn.nspname, op.oprname)) ORDER BY k.place) AS columns
                    FROM unnest(i.indkey::pg_catalog.int2[], i.indclass::pg_catalog.oid[]) WITH ORDINALITY
                      AS k(attnum, opclass, place)
                    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
                    JOIN pg_catalog.pg_opclass own ON own.oid = k.opclass
                    JOIN pg_catalog.pg_am am ON am.amname = 'btree'
                    JOIN pg_catalog.pg_opclass oc ON oc.opcmethod = am.oid AND CASE WHEN own.opcmethod = am.oid
                        THEN oc.oid = own.oid ELSE oc.opcdefault AND oc.opcintype = own.opcintype END
                    JOIN pg_catalog.pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amoplefttype = oc.opcintype
                      AND ao.amoprighttype = oc.opcintype AND ao.amopstrategy = 3
                    JOIN pg_catalog.pg_operator op ON op.oid = ao.amopopr
                    JOIN pg_catalog.pg_namespace opn ON opn.oid = op.oprnamespace
                    WHERE k.place <= i.indnkeyatts) key
                WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND key.count = i.indnkeyatts),
            'identity', CASE c.relreplident WHEN 'f' THEN '[]'::pg_catalog.json ELSE (
                SELECT pg_catalog.json_agg(a.attname)
                FROM pg_catalog.pg_index i CROSS JOIN unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k(attnum, place)
                JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
                WHERE i.indrelid = c.oid AND k.place <= i.indnkeyatts
                  AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END) END)
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = q.oid))::text
FROM (VALUES ";

/// Which transactions are visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    next_xid: u32,
    in_progress: Vec<u32>,
    /// On a standby: how far the WAL had been replayed before what came after was looked at.
    replayed: Option<Lsn>,
}

impl Moment {
    /// Whether it sees a transaction that has come down the stream, whose commit record starts at `commit_lsn`.
    ///
    /// On a primary a commit is decoded before it is visible, for long where replication is synchronous. A standby, which
    /// may be another server than the one that sends the stream, shows what it has replayed.
    pub fn sees(&self, xid: u32, commit_lsn: Lsn) -> bool {
        match self.replayed {
            Some(replayed) => commit_lsn < replayed,
            // Ids wrap around.
            None => xid.wrapping_sub(self.next_xid).cast_signed() < 0 && !self.in_progress.contains(&xid),
        }
    }
}

/// A table as it is while rows of it are looked up.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TableNow {
    schema: String,
    name: String,
    /// Type and typmod of its columns of variable length.
    columns: Option<BTreeMap<String, (u32, i32)>>,
    /// The columns of its unique indexes.
    keys: Option<Vec<Vec<KeyColumn>>>,
    /// The columns of its replica identity index; none of FULL.
    identity: Option<BTreeSet<String>>,
}

impl TableNow {
    /// Type and typmod of a column, if there is such a one and it is of variable length.
    pub fn column(&self, name: &str) -> Option<(u32, i32)> {
        self.columns.as_ref()?.get(name).copied()
    }

    /// The columns of a unique index, all of which are among those that `is_known` says.
    pub fn unique_key(&self, is_known: impl Fn(&str) -> bool) -> Option<&[KeyColumn]> {
        let mut keys = self.keys.as_deref().unwrap_or_default().iter();
        keys.find(|key| key.iter().all(|column| is_known(&column.name))).map(Vec::as_slice)
    }

    /// Whether its replica identity has just these columns; none stand for FULL.
    pub fn has_identity<'c>(&self, columns: impl Iterator<Item = &'c str>) -> bool {
        self.identity.as_ref().is_some_and(|identity| columns.collect::<BTreeSet<_>>().into_iter().eq(identity))
    }

    fn sql_name(&self) -> TableName {
        TableName::new(&self.schema, &self.name)
    }
}

/// A column of a unique index.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KeyColumn {
    /// Its name.
    pub name: String,
    /// `pg_attribute.atttypid`.
    pub type_oid: u32,
    /// Its type, or what lies below its domain, as SQL.
    #[serde(rename = "type")]
    pg_type: String,
    /// What the index takes for equal, as SQL.
    operator: String,
}

#[derive(Deserialize)]
struct Facts {
    snapshot: String,
    replayed: Option<String>,
    table: Option<TableNow>,
}

/// Asks for the facts of these tables: a row for each, which [`facts`] reads.
pub fn facts_sql(tables: &[u32]) -> String {
    let mut sql = FACTS.to_owned();
    for (place, oid) in tables.iter().enumerate() {
        let comma = if place > 0 { ", " } else { "" };
        let _ = write!(sql, "{comma}({place}, {oid}::pg_catalog.oid)");
    }
    sql.push_str(") q(place, oid) ORDER BY q.place");
    sql
}

/// What a row of [`facts_sql`] says; of the table nothing if it is gone.
///
/// # Errors
///
/// If it isn't understood.
pub fn facts(row: &str) -> Result<(Moment, Option<TableNow>), ControlError> {
    let error = || not_understood(DOING, row);
    let facts: Facts = serde_json::from_str(row).map_err(|_| error())?;
    let (next_xid, in_progress) = snapshot(&facts.snapshot).ok_or_else(error)?;
    let replayed = facts.replayed.map(|lsn| super::lsn(DOING, &lsn)).transpose()?;
    Ok((Moment { next_xid, in_progress, replayed }, facts.table))
}

/// Rows of a table that are looked up together.
#[derive(Debug)]
pub struct Rows<'r> {
    /// The table.
    pub table: &'r TableNow,
    /// It has no rows of its own: its partitions have them. Of any other table, those that inherit from it are not meant.
    pub is_partitioned: bool,
    /// What is asked for.
    pub columns: Vec<&'r str>,
    /// The columns of a unique index.
    pub key: &'r [KeyColumn],
    /// The values of these columns, row after row.
    pub values: Vec<&'r str>,
}

impl Rows<'_> {
    fn only(&self) -> &'static str {
        if self.is_partitioned { "" } else { "ONLY " }
    }

    /// A cursor over the rows that are asked for: whether there is such a one, then its columns.
    fn declare(&self, cursor: usize, sql: &mut String) {
        let _ = write!(sql, "DECLARE tablecast_{cursor} NO SCROLL CURSOR FOR SELECT f.* FROM (VALUES ");
        for (place, values) in self.values.chunks(self.key.len().max(1)).enumerate() {
            let _ = write!(sql, "{}({place}", if place > 0 { ", " } else { "" });
            for (value, column) in values.iter().zip(self.key) {
                let _ = write!(sql, ", {}::{}", quote_literal(value), column.pg_type);
            }
            sql.push(')');
        }
        sql.push_str(") AS k(place");
        for column in 0..self.key.len() {
            let _ = write!(sql, ", k{column}");
        }
        sql.push_str(") LEFT JOIN LATERAL (SELECT true");
        for column in &self.columns {
            let _ = write!(sql, ", x.{}", quote_ident(column));
        }
        let _ = write!(sql, " FROM {}{} AS x WHERE ", self.only(), self.table.sql_name());
        for (place, KeyColumn { name, operator, .. }) in self.key.iter().enumerate() {
            let and = if place > 0 { " AND " } else { "" };
            let _ = write!(sql, "{and}x.{} OPERATOR({operator}) k.k{place}", quote_ident(name));
        }
        sql.push_str(" LIMIT 1) f ON true ORDER BY k.place;\n");
    }
}

/// Looks rows up. First come the facts of `tables`, as [`facts_sql`] asks for them, then a row for each of `order`, which
/// says of which of `rows` the next row is: `t` and its columns as text, or nulls if there is no such row.
pub fn rows_sql(tables: &[u32], rows: &[Rows<'_>], order: &[usize]) -> String {
    let mut sql = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}';\n"
    );
    for (place, rows) in rows.iter().enumerate() {
        let (lock, name) = (if place > 0 { ", " } else { "LOCK TABLE " }, rows.table.sql_name());
        let _ = write!(sql, "{lock}ONLY {name}");
    }
    if !rows.is_empty() {
        sql.push_str(" IN ACCESS SHARE MODE;");
    }
    sql.push_str(&facts_sql(tables));
    sql.push_str(";\n");
    for (cursor, rows) in rows.iter().enumerate() {
        rows.declare(cursor, &mut sql);
    }
    for run in order.chunk_by(|a, b| a == b) {
        let _ = write!(sql, "FETCH FORWARD {} FROM tablecast_{};", run.len(), run[0]);
    }
    sql.push_str("COMMIT");
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(facts_row: &str) -> Moment {
        facts(facts_row).unwrap().0
    }

    #[test]
    fn a_primary_shows_what_has_ended_and_nothing_from_the_next_id_on() {
        let moment = moment(r#"{"snapshot": "10:20:10,14", "replayed": null, "table": null}"#);
        let seen: Vec<u32> = (8..23).filter(|xid| moment.sees(*xid, Lsn(1))).collect();
        assert_eq!(seen, [8, 9, 11, 12, 13, 15, 16, 17, 18, 19]);
    }

    #[test]
    fn transaction_ids_wrap_around() {
        let moment = moment(r#"{"snapshot": "4294967290:4294967298:4294967297", "replayed": null, "table": null}"#);
        let seen = [u32::MAX - 1, u32::MAX, 0, 1, 2, 3].map(|xid| moment.sees(xid, Lsn(1)));
        assert_eq!(seen, [true, true, true, false, false, false]);
    }

    #[test]
    fn a_standby_shows_what_it_has_replayed_whatever_its_snapshot_lists() {
        let moment = moment(r#"{"snapshot": "10:20:", "replayed": "0/64", "table": null}"#);
        assert_eq!([99, 100, 101].map(|lsn| moment.sees(15, Lsn(lsn))), [true, false, false]);
    }

    fn table() -> TableNow {
        let row = r#"{"snapshot": "1:1:", "replayed": null, "table": {"schema": "Shop", "name": "or\"ders",
            "columns": {"big": [25, -1], "price": [1700, 655366]},
            "keys": [[{"name": "id", "type_oid": 23, "type": "integer", "operator": "pg_catalog.="}],
                     [{"name": "a\"b", "type_oid": 20001, "type": "public.citext", "operator": "public.="},
                      {"name": "n", "type_oid": 1042, "type": "bpchar", "operator": "pg_catalog.="}]],
            "identity": ["n", "a\"b"]}}"#;
        facts(row).unwrap().1.unwrap()
    }

    #[test]
    fn a_key_serves_if_all_its_columns_are_known() {
        let table = table();
        let names = |known: &[&str]| {
            let key = table.unique_key(|name| known.contains(&name));
            key.map(|key| key.iter().map(|column| column.name.clone()).collect::<Vec<_>>())
        };
        assert_eq!(names(&["n", "a\"b", "id"]).unwrap(), ["id"]);
        assert_eq!(names(&["n", "a\"b"]).unwrap(), ["a\"b", "n"]);
        assert_eq!(names(&["n"]), None);
        assert_eq!(table.column("price"), Some((1700, 655_366)));
        assert_eq!(table.column("id"), None);
    }

    #[test]
    fn an_identity_is_the_same_if_it_has_the_same_columns_in_any_order() {
        let table = table();
        let is_same = |columns: &[&str]| table.has_identity(columns.iter().copied());
        assert!(is_same(&["a\"b", "n"]) && is_same(&["n", "a\"b"]));
        assert!(!is_same(&["n"]) && !is_same(&["n", "a\"b", "id"]) && !is_same(&[]));
    }

    #[test]
    fn rows_are_asked_for_with_every_name_and_value_quoted_and_fetched_in_order() {
        let table = table();
        let both = Rows {
            table: &table,
            is_partitioned: false,
            columns: vec!["big", "B\"ig"],
            key: table.unique_key(|name| name != "id").unwrap(),
            values: vec!["it's", "x", "a\\b", ""],
        };
        let one = Rows {
            table: &table,
            is_partitioned: true,
            columns: vec!["big"],
            key: table.unique_key(|name| name == "id").unwrap(),
            values: vec!["7"],
        };
        let sql = rows_sql(&[1, 2], &[both, one], &[0, 1, 0]);
        let (begin, rest) = sql.split_once("SELECT pg_catalog.json_build_object").unwrap();
        assert!(begin.ends_with(
            "LOCK TABLE ONLY \"Shop\".\"or\"\"ders\", ONLY \"Shop\".\"or\"\"ders\" IN ACCESS SHARE MODE;\n"
        ));
        let (_, rows) = rest.split_once("FROM (VALUES (0, 1::pg_catalog.oid), (1, 2::pg_catalog.oid)) q").unwrap();
        assert_eq!(
            rows,
            "(place, oid) ORDER BY q.place;\n\
             DECLARE tablecast_0 NO SCROLL CURSOR FOR SELECT f.* FROM (VALUES (0, 'it''s'::public.citext, 'x'::bpchar), \
             (1, E'a\\\\b'::public.citext, ''::bpchar)) AS k(place, k0, k1) LEFT JOIN LATERAL (SELECT true, x.\"big\", \
             x.\"B\"\"ig\" FROM ONLY \"Shop\".\"or\"\"ders\" AS x WHERE x.\"a\"\"b\" OPERATOR(public.=) k.k0 AND \
             x.\"n\" OPERATOR(pg_catalog.=) k.k1 LIMIT 1) f ON true ORDER BY k.place;\n\
             DECLARE tablecast_1 NO SCROLL CURSOR FOR SELECT f.* FROM (VALUES (0, '7'::integer)) AS k(place, k0) \
             LEFT JOIN LATERAL (SELECT true, x.\"big\" FROM \"Shop\".\"or\"\"ders\" AS x WHERE x.\"id\" \
             OPERATOR(pg_catalog.=) k.k0 LIMIT 1) f ON true ORDER BY k.place;\n\
             FETCH FORWARD 1 FROM tablecast_0;FETCH FORWARD 1 FROM tablecast_1;FETCH FORWARD 1 FROM tablecast_0;COMMIT"
        );
    }
}
