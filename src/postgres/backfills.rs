//! `tablecast.backfills`: what tables somebody wants read again, and how far that is.
//!
//! A command asks, a daemon does it and mirrors how far it is, and people look. The table is a letter-box and a mirror,
//! never the truth: what a daemon goes by after a crash is in Kafka. So a row only goes forward (requested, running,
//! then one of three ends), whoever writes to it; a daemon that is late with its word about a row that has ended, or
//! that somebody has deleted, is told so and changes nothing.
//!
//! Each method is one statement, and needs the control schema ([`super::migrate`]).

use serde::Serialize;
use tokio_postgres::Row;
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::types::{ToSql, Type};

use super::catalog::TableName;
use super::control::{Control, ControlError};
use super::sql::quote_ident;

/// Rows in the order of the tables, and ids in the order of the rows.
const REQUEST: &str = "
INSERT INTO tablecast.backfills (connector, schema_name, table_name, \"where\")
SELECT $1, wanted.schema_name, wanted.table_name, $4
FROM unnest($2, $3) WITH ORDINALITY AS wanted(schema_name, table_name, place)
ORDER BY wanted.place
RETURNING id";

const OPEN: &str = "
SELECT id, schema_name, table_name, \"where\", state, cancel
FROM tablecast.backfills WHERE connector = $1 AND state IN ('requested', 'running') ORDER BY id";

const FACTS: &str = "
SELECT id, schema_name, table_name, \"where\", state, cancel, connector, requested_by,
       floor(extract(epoch FROM requested_at) * 1000)::int8, floor(extract(epoch FROM started_at) * 1000)::int8,
       floor(extract(epoch FROM updated_at) * 1000)::int8, floor(extract(epoch FROM finished_at) * 1000)::int8,
       rows_written, bytes_read, bytes_total, rows_estimated, error, remedy
FROM tablecast.backfills WHERE id = ANY($1) ORDER BY id";

const MIRROR: &str = "
UPDATE tablecast.backfills
SET state = 'running', started_at = coalesce(started_at, now()), updated_at = now(),
    rows_written = $2, bytes_read = $3, bytes_total = $4, rows_estimated = $5
WHERE id = $1 AND state IN ('requested', 'running')
RETURNING id";

const FINISH: &str = "
UPDATE tablecast.backfills
SET state = $6, error = $7, remedy = $8, finished_at = now(), updated_at = now(),
    rows_written = $2, bytes_read = $3, bytes_total = $4, rows_estimated = $5
WHERE id = $1 AND state IN ('requested', 'running')
RETURNING id";

const CANCEL: &str = "
UPDATE tablecast.backfills SET cancel = true
WHERE connector = $1 AND id = ANY($2) AND state IN ('requested', 'running')
RETURNING id";

const FORGET: &str = "DELETE FROM tablecast.backfills WHERE connector = $1 RETURNING id";

const FORGETTABLE: &str = "
SELECT count(*) FROM tablecast.backfills
WHERE connector = $1 AND has_table_privilege('tablecast.backfills', 'DELETE')";

const DOING: &str = "reading the requested backfills";

/// Where a backfill is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BackfillState {
    /// No daemon has taken it up.
    Requested,
    /// Its rows are being written.
    Running,
    /// All its rows are in the topic.
    Done,
    /// It ended with an error.
    Failed,
    /// Somebody wanted it to end, and it has.
    Cancelled,
}

impl BackfillState {
    /// As the table has it.
    pub fn name(self) -> &'static str {
        match self {
            BackfillState::Requested => "requested",
            BackfillState::Running => "running",
            BackfillState::Done => "done",
            BackfillState::Failed => "failed",
            BackfillState::Cancelled => "cancelled",
        }
    }

    /// Whether there is nothing more to come.
    pub fn is_ended(self) -> bool {
        matches!(self, BackfillState::Done | BackfillState::Failed | BackfillState::Cancelled)
    }

    fn from_name(name: &str) -> Result<BackfillState, ControlError> {
        use BackfillState::{Cancelled, Done, Failed, Requested, Running};
        let state = [Requested, Running, Done, Failed, Cancelled].into_iter().find(|state| state.name() == name);
        state.ok_or_else(|| ControlError::NotUnderstood { doing: DOING, value: name.to_owned() })
    }
}

/// A table that is to be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Names it; a connector takes them up in this order.
    pub id: i64,
    /// The table.
    pub table: TableName,
    /// An SQL condition: only rows that it holds for are wanted.
    pub where_sql: Option<String>,
    /// Where it is.
    pub state: BackfillState,
    /// Somebody wants it to end.
    pub cancel: bool,
}

/// How far a backfill is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// How many of the table's rows are in the topic.
    pub rows_written: u64,
    /// How much of the table has been read.
    pub bytes_read: u64,
    /// Of how much.
    pub bytes_total: Option<u64>,
    /// How many rows there are, by the statistics.
    pub rows_estimated: Option<u64>,
}

/// How a backfill ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All its rows are in the topic.
    Done,
    /// It can't be done.
    Failed {
        /// Why.
        error: String,
        /// What to do about it.
        remedy: Option<String>,
    },
    /// Somebody wanted it to end.
    Cancelled,
}

impl Outcome {
    /// The state that it leads to.
    pub fn state(&self) -> BackfillState {
        match self {
            Outcome::Done => BackfillState::Done,
            Outcome::Failed { .. } => BackfillState::Failed,
            Outcome::Cancelled => BackfillState::Cancelled,
        }
    }
}

/// All that a row says. Moments are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackfillFacts {
    /// What was asked for.
    pub request: Request,
    /// The connector that was asked.
    pub connector: String,
    /// The login that asked.
    pub requested_by: String,
    /// When.
    pub requested_at: i64,
    /// When a daemon took it up first.
    pub started_at: Option<i64>,
    /// When a daemon wrote to the row last.
    pub updated_at: Option<i64>,
    /// When it ended.
    pub finished_at: Option<i64>,
    /// How far it is.
    pub progress: Progress,
    /// Why it failed.
    pub error: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// Why a condition is none that a table's rows can be chosen by.
#[derive(Debug, thiserror::Error)]
pub enum ConditionError {
    /// It could not be looked at.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Postgres refuses it.
    #[error("{message}{}", hint.as_ref().map(|hint| format!(" (hint: {hint})")).unwrap_or_default())]
    Refused {
        /// Why.
        message: String,
        /// What Postgres says to do about it.
        hint: Option<String>,
        /// At which character of the condition, from 0.
        position: Option<usize>,
    },
    /// It has `$1`.
    #[error("it has a parameter such as $1, and nothing gives it a value")]
    Parameter,
}

impl Control {
    /// Asks a connector to read tables again, all or none of them; gives their ids, in the same order.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn request_backfill(
        &self,
        connector: &str,
        tables: &[TableName],
        where_sql: Option<&str>,
    ) -> Result<Vec<i64>, ControlError> {
        let (schemas, names): (Vec<&str>, Vec<&str>) =
            tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())).unzip();
        let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
            (&connector, Type::TEXT),
            (&schemas, Type::TEXT_ARRAY),
            (&names, Type::TEXT_ARRAY),
            (&where_sql, Type::TEXT),
        ];
        ids(self.query("requesting a backfill", REQUEST, &parameters).await)
    }

    /// What a connector has still to do, in the order in which it is to be done.
    ///
    /// # Errors
    ///
    /// If the query fails: with SQLSTATE 42P01 where the control schema is missing.
    pub async fn open_backfills(&self, connector: &str) -> Result<Vec<Request>, ControlError> {
        self.query(DOING, OPEN, &[(&connector, Type::TEXT)]).await?.iter().map(request).collect()
    }

    /// All about these backfills, by id. One whose row was deleted is left out.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn backfills(&self, ids: &[i64]) -> Result<Vec<BackfillFacts>, ControlError> {
        self.query(DOING, FACTS, &[(&ids, Type::INT8_ARRAY)]).await?.iter().map(facts).collect()
    }

    /// Says how far a backfill is, which makes it a running one; false if it has ended or its row was deleted.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn mirror_backfill(&self, id: i64, progress: &Progress) -> Result<bool, ControlError> {
        let numbers = Numbers::of(progress);
        let mut parameters = vec![(&id as &(dyn ToSql + Sync), Type::INT8)];
        parameters.extend(numbers.parameters());
        Ok(!self.query("saying how far a backfill is", MIRROR, &parameters).await?.is_empty())
    }

    /// Says how a backfill ended; false if it had ended before or its row was deleted.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn finish_backfill(&self, id: i64, outcome: &Outcome, progress: &Progress) -> Result<bool, ControlError> {
        let numbers = Numbers::of(progress);
        let state = outcome.state().name();
        let (error, remedy) = match outcome {
            Outcome::Failed { error, remedy } => (Some(error), remedy.as_ref()),
            Outcome::Done | Outcome::Cancelled => (None, None),
        };
        let mut parameters = vec![(&id as &(dyn ToSql + Sync), Type::INT8)];
        parameters.extend(numbers.parameters());
        parameters.extend([
            (&state as &(dyn ToSql + Sync), Type::TEXT),
            (&error as &(dyn ToSql + Sync), Type::TEXT),
            (&remedy as &(dyn ToSql + Sync), Type::TEXT),
        ]);
        Ok(!self.query("saying that a backfill has ended", FINISH, &parameters).await?.is_empty())
    }

    /// Wants these backfills of a connector to end; gives the ids of those that hadn't. The daemon ends them: only it
    /// knows when the last of their rows is written.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn cancel_backfills(&self, connector: &str, backfills: &[i64]) -> Result<Vec<i64>, ControlError> {
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&connector, Type::TEXT), (&backfills, Type::INT8_ARRAY)];
        ids(self.query("cancelling backfills", CANCEL, &parameters).await)
    }

    /// How many backfills a connector has, ended or not, if we may delete them; else 0.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn forgettable_backfills(&self, connector: &str) -> Result<i64, ControlError> {
        Ok(self.query_one("counting the backfills", FORGETTABLE, &[(&connector, Type::TEXT)]).await?.get(0))
    }

    /// Deletes all backfills of a connector, ended or not; gives how many there were.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn forget_backfills(&self, connector: &str) -> Result<usize, ControlError> {
        Ok(self.query("deleting the backfills", FORGET, &[(&connector, Type::TEXT)]).await?.len())
    }

    /// Has Postgres look whether a table's rows can be chosen by a condition, without reading any.
    ///
    /// What passes is text that stands in parentheses after WHERE. It protects from mistakes, not from harm: who may
    /// write to the table of requests is trusted with the login that they are run as.
    ///
    /// # Errors
    ///
    /// If they can't, or Postgres can't be asked.
    pub async fn check_condition(&self, table: &TableName, where_sql: &str) -> Result<(), ConditionError> {
        let before = format!("SELECT FROM ONLY {table} AS {} WHERE (\n", quote_ident(&table.name));
        let prepared = self.client().prepare(&format!("{before}{where_sql}\n)")).await;
        let source = match prepared {
            Ok(statement) if statement.params().is_empty() => return Ok(()),
            Ok(_) => return Err(ConditionError::Parameter),
            Err(source) => source,
        };
        let fault = ControlError::Postgres { doing: "looking at the condition", source };
        match fault.database_error() {
            Some(error) if !fault.is_transient() => Err(ConditionError::Refused {
                message: error.message().to_owned(),
                hint: error.hint().map(str::to_owned),
                position: match error.position() {
                    Some(ErrorPosition::Original(at)) => place(*at, &before, where_sql),
                    _ => None,
                },
            }),
            _ => Err(fault.into()),
        }
    }
}

/// Postgres counts characters from 1, and from the statement's beginning. None if it is not in the condition.
fn place(at: u32, before: &str, condition: &str) -> Option<usize> {
    let at = usize::try_from(at).ok()?.checked_sub(1 + before.chars().count())?;
    Some(at.min(condition.chars().count()))
}

/// The catalog's numbers are signed.
struct Numbers {
    rows_written: i64,
    bytes_read: i64,
    bytes_total: Option<i64>,
    rows_estimated: Option<i64>,
}

impl Numbers {
    fn of(progress: &Progress) -> Numbers {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Numbers {
            rows_written: signed(progress.rows_written),
            bytes_read: signed(progress.bytes_read),
            bytes_total: progress.bytes_total.map(signed),
            rows_estimated: progress.rows_estimated.map(signed),
        }
    }

    fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 4] {
        [
            (&self.rows_written, Type::INT8),
            (&self.bytes_read, Type::INT8),
            (&self.bytes_total, Type::INT8),
            (&self.rows_estimated, Type::INT8),
        ]
    }
}

fn ids(rows: Result<Vec<Row>, ControlError>) -> Result<Vec<i64>, ControlError> {
    Ok(rows?.iter().map(|row| row.get(0)).collect())
}

fn request(row: &Row) -> Result<Request, ControlError> {
    Ok(Request {
        id: row.get(0),
        table: TableName::new(row.get::<_, &str>(1), row.get::<_, &str>(2)),
        where_sql: row.get(3),
        state: BackfillState::from_name(row.get(4))?,
        cancel: row.get(5),
    })
}

fn facts(row: &Row) -> Result<BackfillFacts, ControlError> {
    // People may write to the table too; a negative number is none.
    let number = |index: usize| row.get::<_, Option<i64>>(index).and_then(|number| u64::try_from(number).ok());
    Ok(BackfillFacts {
        request: request(row)?,
        connector: row.get(6),
        requested_by: row.get(7),
        requested_at: row.get(8),
        started_at: row.get(9),
        updated_at: row.get(10),
        finished_at: row.get(11),
        progress: Progress {
            rows_written: number(12).unwrap_or_default(),
            bytes_read: number(13).unwrap_or_default(),
            bytes_total: number(14),
            rows_estimated: number(15),
        },
        error: row.get(16),
        remedy: row.get(17),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_placed_in_the_condition() {
        let before = "SELECT FROM ONLY \"größe\" WHERE (";
        let start = u32::try_from(before.chars().count()).unwrap() + 1;
        assert_eq!(place(start, before, "x > 5"), Some(0));
        assert_eq!(place(start + 4, before, "é > x"), Some(4));
        assert_eq!(place(start + 99, before, "x >"), Some(3));
        assert_eq!(place(start - 1, before, "x"), None);
    }

    #[test]
    fn a_state_is_what_its_name_says() {
        for name in ["requested", "running", "done", "failed", "cancelled"] {
            assert_eq!(BackfillState::from_name(name).unwrap().name(), name);
        }
        assert!(BackfillState::from_name("paused").unwrap_err().to_string().contains("\"paused\""));
    }
}
