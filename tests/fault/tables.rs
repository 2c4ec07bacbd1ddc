//! The tables under load, and the SQL of a change to some of their rows.
//!
//! A row of any of them is named by one number; each table makes its own kind of key of it: a bigint, a text with an
//! integer, a uuid. So the load plans in numbers and never looks at a key.

/// A table, its key, and the topic it goes to.
pub struct Table {
    pub name: &'static str,
    pub partitions: i32,
    /// Columns of the key, each with the SQL that makes it of a row's number, which stands as `$n`.
    key: &'static [(&'static str, &'static str)],
    definition: &'static str,
    /// The key as the checker writes it: the columns' texts with `/` between them.
    key_text: fn(i64) -> String,
    /// No statement changes more rows: large rows come in small numbers.
    pub most_rows: usize,
    /// A last column of several kilobytes, out of line, that most updates leave alone.
    has_body: bool,
}

/// Rows that all writers change, by `version = version + 1`: Postgres decides who is first.
pub const COUNTERS: usize = 4;
pub const COUNTER_ROWS: i64 = 5;

/// The value columns that all tables have: which transaction wrote the row, by the how-manieth of its key's versions.
const COMMON: &str = "tx bigint NOT NULL, version bigint NOT NULL, payload text, amount numeric(12,2), at timestamptz";

pub const TABLES: [Table; 5] = [
    Table {
        name: "items",
        partitions: 3,
        key: &[("id", "$n")],
        definition: "id bigint PRIMARY KEY",
        key_text: |n| n.to_string(),
        most_rows: usize::MAX,
        has_body: false,
    },
    Table {
        name: "lines",
        partitions: 1,
        key: &[("order_no", "'o' || $n / 10"), ("line", "($n % 10)::int")],
        definition: "order_no text, line int, PRIMARY KEY (order_no, line)",
        key_text: |n| format!("o{}/{}", n / 10, n % 10),
        most_rows: usize::MAX,
        has_body: false,
    },
    Table {
        name: "devices",
        partitions: 1,
        key: &[("id", "('00000000-0000-4000-8000-' || lpad(to_hex($n), 12, '0'))::uuid")],
        definition: "id uuid PRIMARY KEY",
        key_text: |n| format!("00000000-0000-4000-8000-{n:012x}"),
        most_rows: usize::MAX,
        has_body: false,
    },
    Table {
        name: "documents",
        partitions: 1,
        key: &[("id", "$n")],
        definition: "id bigint PRIMARY KEY",
        key_text: |n| n.to_string(),
        most_rows: 60,
        has_body: true,
    },
    Table {
        name: "counters",
        partitions: 1,
        key: &[("id", "$n")],
        definition: "id bigint PRIMARY KEY",
        key_text: |n| n.to_string(),
        most_rows: usize::MAX,
        has_body: false,
    },
];

/// What happens to rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Insert,
    Update,
    Delete,
    /// The primary key of each row becomes another.
    Rekey,
}

/// One statement that changes rows of one table.
#[derive(Clone, Debug)]
pub struct Statement {
    pub table: usize,
    pub change: Change,
    pub rows: Vec<i64>,
    /// The rows' new numbers, one each; only for [`Change::Rekey`].
    pub becoming: Vec<i64>,
    pub version: i64,
}

impl Table {
    pub fn key_text(&self, n: i64) -> String {
        (self.key_text)(n)
    }

    pub fn create(&self) -> String {
        let Self { name, definition, .. } = self;
        let create = format!("CREATE TABLE {name} ({definition}, {COMMON});");
        if !self.has_body {
            return create;
        }
        format!(
            "{create} ALTER TABLE {name} ADD body text; \
             ALTER TABLE {name} REPLICA IDENTITY FULL, ALTER body SET STORAGE EXTERNAL;"
        )
    }

    /// All rows, in the words in which the topic's values are compared with them: the key first, then the columns.
    pub fn select(&self) -> String {
        let key: Vec<_> = self.key.iter().map(|(column, _)| format!("{column}::text")).collect();
        format!("SELECT {}, {} FROM {}", key.join(" || '/' || "), self.columns_as_text().join(", "), self.name)
    }

    /// The value's columns in the order of [`Self::select`].
    pub fn columns(&self) -> Vec<&'static str> {
        let key = self.key.iter().map(|(column, _)| *column);
        let body = self.has_body.then_some("body");
        key.chain(["tx", "version", "payload", "amount", "at"]).chain(body).collect()
    }

    fn columns_as_text(&self) -> Vec<String> {
        let as_text = |column: &str| match column {
            // An Avro timestamp is a number of microseconds.
            "at" => "(extract(epoch FROM at) * 1000000)::bigint::text".to_owned(),
            column => format!("{column}::text"),
        };
        self.columns().into_iter().map(as_text).collect()
    }

    fn key_of(&self, number: &str) -> Vec<String> {
        self.key.iter().map(|(_, sql)| sql.replace("$n", number)).collect()
    }

    fn key_is(&self, number: &str) -> String {
        let equal = self.key.iter().zip(self.key_of(number)).map(|((column, _), is)| format!("t.{column} = {is}"));
        equal.collect::<Vec<_>>().join(" AND ")
    }
}

impl Statement {
    pub fn sql(&self, tx: u64) -> String {
        let table = &TABLES[self.table];
        let name = table.name;
        let rows = array(&self.rows);
        let values = self.values(tx);
        let set = values.iter().map(|(column, is)| format!("{column} = {is}"));
        match self.change {
            Change::Insert => {
                let key = table.key.iter().map(|(column, _)| *column).zip(table.key_of("n"));
                let values = values.iter().map(|(column, is)| (*column, is.clone()));
                let (columns, values): (Vec<_>, Vec<_>) = key.chain(values).unzip();
                let (columns, values) = (columns.join(", "), values.join(", "));
                format!("INSERT INTO {name} ({columns}) SELECT {values} FROM unnest({rows}) n")
            }
            Change::Update => {
                let set = set.collect::<Vec<_>>().join(", ");
                format!("UPDATE {name} t SET {set} FROM unnest({rows}) n WHERE {}", table.key_is("n"))
            }
            Change::Delete => format!("DELETE FROM {name} t USING unnest({rows}) n WHERE {}", table.key_is("n")),
            Change::Rekey => {
                let key = table.key.iter().zip(table.key_of("n")).map(|((column, _), is)| format!("{column} = {is}"));
                let set = key.chain(set).collect::<Vec<_>>().join(", ");
                let (from, old) = (format!("unnest({rows}, {}) m(old, n)", array(&self.becoming)), table.key_is("old"));
                format!("UPDATE {name} t SET {set} FROM {from} WHERE {old}")
            }
        }
    }

    fn values(&self, tx: u64) -> Vec<(&'static str, String)> {
        let version = self.version;
        let mut values = vec![
            ("tx", tx.to_string()),
            ("version", version.to_string()),
            (
                "payload",
                format!("CASE WHEN n % 7 > 0 THEN left(repeat(md5((n + {version})::text), 3), (n % 90)::int) END"),
            ),
            ("amount", format!("((n * 37 + {version}) % 1000000) / 100.0 - 5000")),
            (
                "at",
                format!(
                    "timestamptz '2020-02-29 12:00Z' + {version} * interval '1 hour' + n * interval '1 microsecond'"
                ),
            ),
        ];
        if TABLES[self.table].has_body && (self.change == Change::Insert || version % 5 == 0) {
            let body = format!("(SELECT string_agg(md5(concat(n, {version}, i)), '') FROM generate_series(1, 100) i)");
            values.push(("body", body));
        }
        values
    }
}

fn array(numbers: &[i64]) -> String {
    let numbers: Vec<_> = numbers.iter().map(i64::to_string).collect();
    format!("'{{{}}}'::bigint[]", numbers.join(","))
}
