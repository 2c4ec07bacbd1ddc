//! What waits in the slots: tables, the changes that were made to them, and what a topic must hold in the end.
//!
//! Every table has a row 0 before anybody reads it, so that each contender's topics exist and its schemas are registered
//! before anything is measured. In every table the row with the highest id is written last.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use crate::report::thousands;
use crate::source::{COLUMNS, TABLE, insert_zero, row};

/// What is drained.
pub struct Workload {
    /// For names of databases, slots and topics.
    pub name: &'static str,
    /// For people.
    pub title: String,
    /// All of the schema `public`, all with a key `id bigint`. The last one gets the last change.
    pub tables: Vec<String>,
    /// Each becomes a record.
    pub changes: u64,
    /// Whether one transaction holds all: then nothing is committed to Kafka before the end.
    pub at_once: bool,
    /// Makes the tables, with their row 0.
    pub schema: String,
    /// Makes the changes; each statement is sent by itself.
    pub fill: Vec<String>,
    /// The ids that each table has in the end, beside row 0.
    pub live: RangeInclusive<u64>,
}

impl Workload {
    /// How many records each topic gets, but for row 0.
    pub fn records_a_table(&self) -> u64 {
        self.changes / self.tables.len() as u64
    }

    /// One-row transactions.
    pub fn row_by_row(rows: u64) -> Self {
        let insert = format!("INSERT INTO {TABLE} VALUES ({})", row("n"));
        Self {
            name: "drain",
            title: format!("{} transactions of one row", thousands(rows as f64)),
            fill: vec![looped(rows, &format!("{insert}; COMMIT;"))],
            ..inserts(rows)
        }
    }

    /// One transaction.
    pub fn at_once(rows: u64) -> Self {
        Self {
            name: "big",
            title: format!("one transaction of {} rows", thousands(rows as f64)),
            at_once: true,
            fill: vec![format!("INSERT INTO {TABLE} SELECT {} FROM generate_series(1, {rows}::bigint) AS n", row("n"))],
            ..inserts(rows)
        }
    }

    /// In rounds of 20 changes, in transactions of 4: 5 rows come, 12 of those there are change, the 3 oldest go. One more
    /// comes at the end.
    pub fn mix(changes: u64) -> Self {
        let rounds = changes / 20;
        let update = format!(
            "UPDATE {TABLE} SET note = 'changed in round ' || n, qty = (n % 1000)::int, at = \
             clock_timestamp() WHERE id = 3 * n - 2 + (n * 7919 + i * 104729) % (2 * n + 2)"
        );
        let round = format!(
            "FOR i IN 1..5 LOOP INSERT INTO {TABLE} VALUES ({}); IF i = 4 THEN COMMIT; END IF; END LOOP;
             FOR i IN 1..12 LOOP {update}; IF i % 4 = 3 THEN COMMIT; END IF; END LOOP;
             FOR i IN 1..3 LOOP DELETE FROM {TABLE} WHERE id = 3 * n - 3 + i; END LOOP; COMMIT;",
            row("(5 * n - 5 + i)")
        );
        let last = 5 * rounds + 1;
        Self {
            name: "mix",
            title: format!(
                "{} changes, 60 % updates, 25 % inserts, 15 % deletes, in transactions of four",
                thousands(changes as f64)
            ),
            changes: rounds * 20 + 1,
            fill: vec![
                looped(rounds, &round),
                format!("INSERT INTO {TABLE} VALUES ({})", row(&format!("{last}::bigint"))),
            ],
            live: 3 * rounds + 1..=last,
            ..inserts(0)
        }
    }

    /// Rows that hold a document of 2 KB each.
    pub fn documents(rows: u64) -> Self {
        // Fifteen texts of 138 characters that no compression makes much smaller, as in documents of people's words.
        let words = "repeat(md5(n::text || k), 2) || md5(k || n::text) || ' of ' || md5((n + k)::text) || k";
        let document = format!(
            "jsonb_build_object('rank', n % 97, 'parts', (SELECT jsonb_agg({words}) FROM generate_series(1, 15) AS k))"
        );
        let schema = "CREATE TABLE documents (id bigint PRIMARY KEY, doc jsonb)";
        let insert = format!("INSERT INTO documents VALUES (n, {document}); COMMIT;");
        Self {
            name: "jsonb",
            title: format!("{} transactions of one row with 2 KB of jsonb", thousands(rows as f64)),
            tables: vec!["documents".to_owned()],
            schema: format!("{schema} WITH (autovacuum_enabled = false); INSERT INTO documents VALUES (0, '{{}}');"),
            fill: vec![looped(rows, &insert)],
            ..inserts(rows)
        }
    }

    /// Rows of a hundred columns.
    pub fn wide(rows: u64) -> Self {
        let (mut columns, mut values) = ("id bigint PRIMARY KEY".to_owned(), "n".to_owned());
        for at in 1..100 {
            // Writing into a string can't fail.
            let (pg_type, value) = match at % 5 {
                0 => ("text", format!("'value ' || n + {at}")),
                1 => ("int", format!("(n % 1000 + {at})::int")),
                2 => ("numeric(12,2)", format!("(n + {at})::numeric / 100")),
                3 => ("timestamptz", format!("timestamptz '2026-01-01' + (n + {at}) * interval '1 second'")),
                _ => ("boolean", format!("(n + {at}) % 2 = 0")),
            };
            let _ = write!(columns, ", c{at} {pg_type}");
            let _ = write!(values, ", {value}");
        }
        Self {
            name: "wide",
            title: format!("{} transactions of one row with 100 columns", thousands(rows as f64)),
            tables: vec!["wide".to_owned()],
            schema: format!(
                "CREATE TABLE wide ({columns}) WITH (autovacuum_enabled = false); INSERT INTO wide (id) VALUES (0);"
            ),
            fill: vec![looped(rows, &format!("INSERT INTO wide VALUES ({values}); COMMIT;"))],
            ..inserts(rows)
        }
    }

    /// One-row transactions that go to many tables in turn.
    pub fn many(tables: u64, rows: u64) -> Self {
        let names: Vec<String> = (1..=tables).map(|table| format!("many_{table:02}")).collect();
        let each = rows / tables;
        let insert: String = names
            .iter()
            .fold(String::new(), |all, name| all + &format!("INSERT INTO {name} VALUES ({}); COMMIT;", row("n")));
        Self {
            name: "many",
            title: format!("{} transactions of one row, {tables} tables in turn", thousands(rows as f64)),
            schema: names.iter().fold(String::new(), |all, name| all + &table(name)),
            tables: names,
            changes: each * tables,
            fill: vec![looped(each, &insert)],
            live: 1..=each,
            ..inserts(0)
        }
    }
}

/// Of the table of eleven columns.
fn inserts(rows: u64) -> Workload {
    Workload {
        name: "",
        title: String::new(),
        tables: vec![TABLE.to_owned()],
        changes: rows,
        at_once: false,
        schema: table(TABLE),
        fill: Vec::new(),
        live: 1..=rows,
    }
}

/// Autovacuum would take CPU at moments of its own choice.
fn table(name: &str) -> String {
    format!("CREATE TABLE {name} ({COLUMNS}) WITH (autovacuum_enabled = false); {}", insert_zero(name))
}

/// Does it for each n, and may commit in between.
fn looped(times: u64, what: &str) -> String {
    format!("DO $$ DECLARE n bigint; BEGIN FOR m IN 1..{times} LOOP n := m; {what} END LOOP; END $$;")
}
