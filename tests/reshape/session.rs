//! The session that changes the tables, and what it has done.

use std::cell::RefCell;
use std::fmt::Write;

use tokio::runtime::Runtime;
use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage};

use super::logs::time_of_day;

/// DDL may wait for whoever reads the table, not for ever.
const SETTINGS: &str = "SET search_path = public; SET lock_timeout = '20s'; SET timezone = 'UTC'";

/// A connection, and the story of all its statements.
pub struct Session {
    client: Client,
    runtime: Runtime,
    story: RefCell<String>,
}

impl Session {
    pub fn open(config: &Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (client, connection) = runtime.block_on(config.connect(NoTls)).unwrap();
        runtime.spawn(connection);
        let session = Self { client, runtime, story: RefCell::default() };
        session.must(SETTINGS);
        session
    }

    /// What must succeed.
    pub fn must(&self, sql: &str) {
        self.runtime.block_on(self.client.batch_execute(sql)).unwrap_or_else(|error| panic!("{error:?}: {sql}"));
    }

    /// What Postgres may refuse: then it is noted why.
    pub fn attempt(&self, sql: &str) -> Result<(), Error> {
        let done = self.runtime.block_on(self.client.batch_execute(sql));
        let refused = done.as_ref().err().map(|error| match error.as_db_error() {
            Some(error) => format!("  -- refused: {}", error.message()),
            None => format!("  -- {error}"),
        });
        self.note(&format!("{sql};{}", refused.unwrap_or_default()));
        done
    }

    /// The rows of an answer, as text.
    pub fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.try_rows(sql).unwrap_or_else(|error| panic!("{error:?}: {sql}"))
    }

    /// The same of a question that Postgres may refuse.
    pub fn try_rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        let answer = self.runtime.block_on(self.client.simple_query(sql))?;
        let row = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
            _ => None,
        };
        Ok(answer.iter().filter_map(row).collect())
    }

    /// The first row's first column.
    pub fn one(&self, sql: &str) -> Option<String> {
        self.rows(sql).into_iter().next()?.into_iter().next()?
    }

    /// Tells the story what happened besides.
    pub fn note(&self, what: &str) {
        let _ = writeln!(self.story.borrow_mut(), "{} {what}", time_of_day());
    }

    pub fn story(&self) -> String {
        self.story.borrow().clone()
    }
}
