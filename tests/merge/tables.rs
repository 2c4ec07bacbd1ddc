//! Random tables, and the SQL that changes some of their rows.
//!
//! A row of any of them is named by one number; each table makes its own kind of key of it. Each row carries a version,
//! and every other column's value is made of the number and the version.

use fastrand::Rng;

/// The versions of the rows that a table has at first begin at multiples of it.
pub const FIRST_VERSIONS: i64 = 10_000;
/// Numbers without a row at first, so that there is something to insert.
const NUMBERS_TO_SPARE: i64 = 60;
/// Of a composite key's rows, so many share the first column.
const SHARED: i64 = 7;

/// What a key is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Int,
    Text,
    Composite,
    Uuid,
}

/// A column beside the key and the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extra {
    Note,
    Amount,
    At,
    /// Some kilobytes, out of line, that most updates leave alone.
    Body,
}

/// How large the tables are, and how many of them there may be.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub tables: (usize, usize),
    pub rows_max: i64,
}

/// A table, and the rows that it has at first.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: String,
    key: Key,
    extras: Vec<Extra>,
    full: bool,
    partitioned: bool,
    fillfactor: u8,
    /// Rows have numbers below it.
    pub numbers: i64,
    /// The first rows' numbers are those below it, but for every third if `holes`.
    rows: i64,
    holes: bool,
    /// In the order of the keys, or scattered.
    scattered: bool,
    first_version: i64,
}

/// Some tables of all kinds.
pub fn random(rng: &mut Rng, size: Size) -> Vec<Table> {
    let count = rng.usize(size.tables.0..=size.tables.1);
    let partitioned = rng.bool().then(|| rng.usize(..count));
    let large = rng.bool().then(|| rng.usize(..count)).filter(|at| Some(*at) != partitioned);
    (0..count).map(|at| Table::random(rng, at, size, partitioned == Some(at), large == Some(at))).collect()
}

impl Table {
    fn random(rng: &mut Rng, at: usize, size: Size, partitioned: bool, has_body: bool) -> Self {
        let keys: &[Key] =
            if partitioned { &[Key::Int, Key::Composite] } else { &[Key::Int, Key::Text, Key::Composite, Key::Uuid] };
        let mut extras = vec![Extra::Note, Extra::Amount, Extra::At];
        extras.retain(|_| rng.bool());
        if has_body {
            extras.push(Extra::Body);
        }
        let rows = match rng.u8(..10) {
            0 => 0,
            1 => rng.i64(1..20),
            2..=6 => rng.i64(1..=size.rows_max / 4),
            _ => rng.i64(1..=size.rows_max),
        };
        let rows = if has_body { rows.min(60) } else { rows };
        Self {
            name: format!("t{at}"),
            key: keys[rng.usize(..keys.len())],
            extras,
            // Without the whole old row, an update that leaves a body alone can't be captured.
            full: has_body || rng.bool(),
            partitioned,
            fillfactor: rng.u8(40..=100),
            numbers: rows + rows / 4 + NUMBERS_TO_SPARE,
            rows,
            holes: rng.bool(),
            scattered: rng.bool(),
            first_version: (at as i64 + 1) * FIRST_VERSIONS,
        }
    }

    /// Creates it with its first rows.
    pub fn create(&self) -> String {
        let Self { name, rows, first_version, .. } = self;
        let definitions: Vec<_> =
            self.key.columns().iter().map(|(column, kind, _)| format!("{column} {kind}")).collect();
        let extras: String = self.extras.iter().map(|extra| format!(", {} {}", extra.name(), extra.kind())).collect();
        let (by, with) = match self.partitioned {
            true => (format!("PARTITION BY RANGE ({})", self.key.columns()[0].0), String::new()),
            false => (String::new(), format!("WITH (fillfactor = {})", self.fillfactor)),
        };
        let mut sql = format!(
            "CREATE TABLE {name} ({}, version bigint NOT NULL{extras}, PRIMARY KEY ({})) {by} {with};",
            definitions.join(", "),
            self.key_columns().join(", ")
        );
        if self.partitioned {
            let [first, second] = [1, 2].map(|nth| self.numbers * nth / 3 / self.key.share());
            sql += &format!(
                "CREATE TABLE {name}_a PARTITION OF {name} FOR VALUES FROM (MINVALUE) TO ({first});
                 CREATE TABLE {name}_b PARTITION OF {name} FOR VALUES FROM ({first}) TO ({second});
                 CREATE TABLE {name}_c PARTITION OF {name} DEFAULT;"
            );
        }
        for heap in self.heaps().into_iter().chain(std::iter::once(name.clone())).filter(|_| self.full) {
            sql += &format!("ALTER TABLE {heap} REPLICA IDENTITY FULL;");
        }
        if self.has_body() {
            sql += &format!("ALTER TABLE {name} ALTER body SET STORAGE EXTERNAL;");
        }
        let order = if self.scattered { "md5(n::text)" } else { "n" };
        sql += &format!(
            "{} FROM (SELECT n, {first_version} + n AS v FROM generate_series(0, {rows} - 1) n ORDER BY {order}) m;",
            self.insert()
        );
        if self.holes {
            sql +=
                &format!("DELETE FROM {name} t USING generate_series(0, {rows} - 1, 3) n WHERE {};", self.key_is("n"));
        }
        sql
    }

    /// The numbers and the versions of the first rows.
    pub fn first_rows(&self) -> impl Iterator<Item = (i64, i64)> {
        (0..self.rows).filter(|n| !self.holes || n % 3 != 0).map(|n| (n, self.first_version + n))
    }

    /// Where the rows are: itself, or its partitions.
    pub fn heaps(&self) -> Vec<String> {
        let partition = |letter| format!("{}_{letter}", self.name);
        if self.partitioned { ["a", "b", "c"].map(partition).to_vec() } else { vec![self.name.clone()] }
    }

    /// The most rows that one statement is to change: large rows come in small numbers.
    pub fn rows_at_once(&self) -> usize {
        if self.has_body() { 20 } else { 400 }
    }

    /// Whether the rows have a few kilobytes each.
    pub fn has_body(&self) -> bool {
        self.extras.contains(&Extra::Body)
    }

    /// A row's key as it is shown.
    pub fn key_text(&self, n: i64) -> String {
        match self.key {
            Key::Int => n.to_string(),
            Key::Text => format!("k{n}"),
            Key::Composite => format!("{}/x{}", n / SHARED, n % SHARED),
            Key::Uuid => format!("00000000-0000-4000-8000-{n:012x}"),
        }
    }

    /// The columns in the order of [`Self::select`].
    pub fn columns(&self) -> Vec<&'static str> {
        let extras = self.extras.iter().map(|extra| extra.name());
        self.key_columns().into_iter().chain(["version"]).chain(extras).collect()
    }

    /// All rows: the key as it is shown, then the columns as a reader of the topic sees them.
    pub fn select(&self) -> String {
        let as_text = |column: &str| match column {
            // An Avro timestamp is a number of microseconds.
            "at" => "(extract(epoch FROM at) * 1000000)::bigint::text".to_owned(),
            column => format!("{column}::text"),
        };
        let key: Vec<_> = self.key_columns().into_iter().map(as_text).collect();
        let columns: Vec<_> = self.columns().into_iter().map(as_text).collect();
        format!("SELECT {}, {} FROM {}", key.join(" || '/' || "), columns.join(", "), self.name)
    }

    fn key_columns(&self) -> Vec<&'static str> {
        self.key.columns().iter().map(|(column, ..)| *column).collect()
    }

    fn key_of<'a>(&self, number: &'a str) -> impl Iterator<Item = String> + use<'a> {
        self.key.columns().iter().map(move |(.., sql)| sql.replace("$n", number))
    }

    /// Of the row `t`.
    fn key_is(&self, number: &str) -> String {
        let equal = self.key_columns().into_iter().zip(self.key_of(number));
        equal.map(|(column, is)| format!("t.{column} = {is}")).collect::<Vec<_>>().join(" AND ")
    }

    /// Of a row `m` with `n` and `v`.
    fn insert(&self) -> String {
        let values =
            self.key_of("n").chain(["v".to_owned()]).chain(self.extras.iter().map(|extra| extra.is().to_owned()));
        let (columns, values) = (self.columns().join(", "), values.collect::<Vec<_>>().join(", "));
        format!("INSERT INTO {} ({columns}) SELECT {values}", self.name)
    }

    fn set(&self, versions: &[i64]) -> String {
        // Bodies are made anew now and then only.
        let with_body = versions.first().is_some_and(|version| version % 5 == 0);
        let extras = self.extras.iter().filter(|extra| with_body || **extra != Extra::Body);
        let set = extras.map(|extra| format!(", {} = {}", extra.name(), extra.is()));
        format!("version = v{}", set.collect::<String>())
    }
}

/// What happens to rows; each is an SQL statement that returns the versions which it wrote.
impl Table {
    /// Of those rows that are there.
    pub fn update(&self, numbers: &[i64], versions: &[i64]) -> String {
        let (name, set) = (&self.name, self.set(versions));
        let rows = rows(&[numbers, versions], "n, v");
        format!("UPDATE {name} t SET {set} FROM {rows} WHERE {} RETURNING t.version", self.key_is("n"))
    }

    /// Of those that aren't.
    pub fn insert_new(&self, numbers: &[i64], versions: &[i64]) -> String {
        let rows = rows(&[numbers, versions], "n, v");
        format!("{} FROM {rows} ON CONFLICT DO NOTHING RETURNING version", self.insert())
    }

    /// Of all.
    pub fn upsert(&self, numbers: &[i64], versions: &[i64]) -> String {
        let rows = rows(&[numbers, versions], "n, v");
        let extras = self.extras.iter().map(|extra| format!(", {0} = EXCLUDED.{0}", extra.name()));
        format!(
            "{} FROM {rows} ON CONFLICT ({}) DO UPDATE SET version = EXCLUDED.version{} RETURNING version",
            self.insert(),
            self.key_columns().join(", "),
            extras.collect::<String>()
        )
    }

    /// The rows that are there get other numbers, as far as these are free. The versions are the new ones'.
    pub fn rekey(&self, numbers: &[i64], becoming: &[i64], versions: &[i64]) -> String {
        let name = &self.name;
        let key = self.key_columns().into_iter().zip(self.key_of("n"));
        let key: String = key.map(|(column, is)| format!("{column} = {is}, ")).collect();
        let rows = rows(&[numbers, becoming, versions], "o, n, v");
        format!(
            "UPDATE {name} t SET {key}{} FROM {rows} WHERE {} AND NOT EXISTS (SELECT FROM {name} t WHERE {}) \
             RETURNING t.version",
            self.set(versions),
            self.key_is("o"),
            self.key_is("n")
        )
    }

    /// Returns nothing.
    pub fn delete(&self, numbers: &[i64]) -> String {
        let rows = rows(&[numbers], "n");
        format!("DELETE FROM {} t USING {rows} WHERE {}", self.name, self.key_is("n"))
    }
}

impl Key {
    /// Each with its type and the SQL that makes it of a row's number, which stands as `$n`.
    fn columns(self) -> &'static [(&'static str, &'static str, &'static str)] {
        match self {
            Key::Int => &[("id", "int", "($n)::int")],
            Key::Text => &[("code", "text", "'k' || $n")],
            Key::Composite => &[("a", "int", "($n / 7)::int"), ("b", "varchar(9)", "'x' || $n % 7")],
            Key::Uuid => &[("id", "uuid", "('00000000-0000-4000-8000-' || lpad(to_hex($n), 12, '0'))::uuid")],
        }
    }

    /// How many numbers have the same first column.
    fn share(self) -> i64 {
        if self == Key::Composite { SHARED } else { 1 }
    }
}

impl Extra {
    fn name(self) -> &'static str {
        match self {
            Extra::Note => "note",
            Extra::Amount => "amount",
            Extra::At => "at",
            Extra::Body => "body",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Extra::Note => "text",
            Extra::Amount => "numeric(12,2)",
            Extra::At => "timestamptz",
            Extra::Body => "varchar",
        }
    }

    /// Its value in SQL.
    fn is(self) -> &'static str {
        match self {
            Extra::Note => "CASE WHEN v % 5 > 0 THEN left(repeat(md5((n + v)::text), 3), (v % 90)::int) END",
            Extra::Amount => "((n * 37 + v) % 1000000) / 100.0 - 5000",
            Extra::At => "timestamptz '2020-02-29 12:00Z' + v * interval '1 second' + n * interval '1 microsecond'",
            Extra::Body => "(SELECT string_agg(md5(concat(n, v, i)), '') FROM generate_series(1, 70) i)",
        }
    }
}

/// A relation `m` of these columns.
fn rows(columns: &[&[i64]], names: &str) -> String {
    let arrays: Vec<_> = columns.iter().map(|numbers| format!("'{{{}}}'::bigint[]", list(numbers))).collect();
    format!("unnest({}) m({names})", arrays.join(", "))
}

/// With commas between them.
pub fn list(numbers: &[i64]) -> String {
    numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}
