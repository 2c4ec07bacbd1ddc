//! The control schema: `tablecast` in the source's database, where backfills are asked for.
//!
//! It is made and upgraded by the migrations in `migrations/`, which the binary carries; `tablecast.migrations` says
//! which of them a database has. Nothing but [`Control::migrate`] changes it. Two that run at once take turns, by an
//! advisory lock of the session, so that the second finds the work done; a session that dies gives the lock back.
//!
//! A database may be ahead of the binary (a newer one has migrated it) and then is left alone: what an old binary
//! writes to a new table is for the new binary to judge, but that an old one changes the table never helps.

use std::error::Error;

use refinery::{Migration, Runner};
use tokio_postgres::types::Type;

use super::control::{Control, ControlError, describe};
use super::sql::quote_ident;

mod embedded {
    //! The files of `migrations/`.
    refinery::embed_migrations!("migrations");
}

/// Which of the migrations a database has.
const HISTORY: &str = "tablecast.migrations";

/// For the advisory lock: "tablecas" in ASCII. Such locks are the database's: a migration elsewhere is no hindrance.
const LOCK: i64 = 0x7461_626c_6563_6173;

const COMMENT: &str = "What people and tablecast tell each other: backfills that are asked for, and how far they are. \
                       See tablecast.backfills.";

const DOING: &str = "looking at the schema tablecast";

/// Catalog alone: it may be read without any privilege on the schema.
const EXISTS: &str = "
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'tablecast'),
       EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'tablecast' AND c.relname = 'migrations')";

/// SQLSTATE `insufficient_privilege`.
const NO_PRIVILEGE: &str = "42501";

/// What there is of the control schema in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlSchema {
    /// Nothing that could be used.
    Missing,
    /// An earlier version than this binary needs.
    Old(i32),
    /// The version that this binary knows.
    Current,
    /// A later version, made by a later tablecast.
    Newer(i32),
}

/// What [`Control::migrate`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigrationReport {
    /// The version that it found; none if there was no schema.
    pub was: Option<i32>,
    /// The version that there is now.
    pub version: i32,
}

/// Why the control schema could not be made or upgraded.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The server can't be asked.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Nothing can be written.
    #[error("the server is a standby, where no schema can be made")]
    Standby,
    /// There is no schema, and we may not make it.
    #[error("{user} may not create a schema in database {database:?}")]
    MayNotCreate {
        /// Who we are.
        user: String,
        /// Where.
        database: String,
    },
    /// A later tablecast was here.
    #[error("the schema tablecast is at version {found}, and this tablecast knows only version {known}")]
    Newer {
        /// The version that is there.
        found: i32,
        /// The version that we know.
        known: i32,
    },
    /// A migration failed, and changed nothing.
    #[error("migrating the schema tablecast: {}", failed(.0))]
    Migration(refinery::Error),
}

impl MigrateError {
    /// What to do about it.
    pub fn remedy(&self, connector: &str) -> Option<String> {
        let by_hand = format!("let who may run what `tablecast migrate {connector} --sql` prints");
        match self {
            MigrateError::Standby => Some("name the primary in database_url".to_owned()),
            MigrateError::MayNotCreate { user, database } => Some(format!(
                "GRANT CREATE ON DATABASE {} TO {}; or {by_hand}",
                quote_ident(database),
                quote_ident(user)
            )),
            MigrateError::Newer { .. } => Some("use the tablecast that made it, or a later one".to_owned()),
            MigrateError::Control(error) => (error.sqlstate() == Some(NO_PRIVILEGE)).then_some(by_hand),
            MigrateError::Migration(error) => {
                let state = postgres_error(error).and_then(|error| error.code());
                state.is_some_and(|state| state.code() == NO_PRIVILEGE).then_some(by_hand)
            }
        }
    }
}

/// The version that this binary knows.
pub fn known_version() -> i32 {
    migrations().last().map(Migration::version).unwrap_or_default()
}

impl Control {
    /// What there is of the control schema.
    ///
    /// # Errors
    ///
    /// If a query fails: with SQLSTATE 42501 if the schema is there and we may not look into it.
    pub async fn control_schema(&self) -> Result<ControlSchema, ControlError> {
        let known = known_version();
        Ok(match self.control_schema_version().await? {
            None => ControlSchema::Missing,
            Some(version) if version < known => ControlSchema::Old(version),
            Some(version) if version > known => ControlSchema::Newer(version),
            Some(_) => ControlSchema::Current,
        })
    }

    /// None also if there is a schema, but no migration has been completed.
    async fn control_schema_version(&self) -> Result<Option<i32>, ControlError> {
        if !self.query_one(DOING, EXISTS, &[]).await?.get::<_, bool>(1) {
            return Ok(None);
        }
        Ok(self.query_one(DOING, &format!("SELECT max(version) FROM {HISTORY}"), &[]).await?.get(0))
    }

    /// Makes the control schema, or upgrades it; does nothing where it is as it should be.
    ///
    /// # Errors
    ///
    /// If the server can't be written to, we may not, or the schema is later than this binary.
    pub async fn migrate(&mut self) -> Result<MigrationReport, MigrateError> {
        if self.server().await?.in_recovery {
            return Err(MigrateError::Standby);
        }
        let doing = "waiting for another migration of the schema tablecast";
        self.query(doing, "SELECT pg_advisory_lock($1)", &[(&LOCK, Type::INT8)]).await?;
        let migrated = self.migrate_alone().await;
        // Where this fails the session has ended, and the lock with it; there may be a better reason to tell.
        let unlocked = self.query(doing, "SELECT pg_advisory_unlock($1)", &[(&LOCK, Type::INT8)]).await;
        let report = migrated?;
        unlocked?;
        Ok(report)
    }

    /// Nobody else migrates meanwhile.
    async fn migrate_alone(&mut self) -> Result<MigrationReport, MigrateError> {
        let known = known_version();
        let was = self.control_schema_version().await?;
        match was {
            Some(found) if found > known => return Err(MigrateError::Newer { found, known }),
            Some(found) if found == known => return Ok(MigrationReport { was, version: known }),
            _ => self.make_schema().await?,
        }
        runner().run_async(self.client_mut()).await.map_err(MigrateError::Migration)?;
        Ok(MigrationReport { was, version: known })
    }

    /// One that is there already is taken as it is: CREATE SCHEMA IF NOT EXISTS would ask for a privilege all the same.
    async fn make_schema(&self) -> Result<(), MigrateError> {
        if self.query_one(DOING, EXISTS, &[]).await?.get(0) {
            return Ok(());
        }
        let server = self.server().await?;
        if !server.may_create {
            return Err(MigrateError::MayNotCreate { user: server.user, database: server.database });
        }
        Ok(self.execute("creating the schema tablecast", &make_schema_sql()).await?)
    }

    /// What [`Control::migrate`] would do, as a script for somebody who may; none if there is nothing to do. It also
    /// grants our login what it needs, since then the schema is somebody else's.
    ///
    /// # Errors
    ///
    /// If the server can't be asked, or the schema is later than this binary.
    pub async fn migration_sql(&self) -> Result<Option<String>, MigrateError> {
        let known = known_version();
        let was = self.control_schema_version().await?.unwrap_or_default();
        if was > known {
            return Err(MigrateError::Newer { found: was, known });
        }
        if was == known {
            return Ok(None);
        }
        let exists: bool = self.query_one(DOING, EXISTS, &[]).await?.get(0);
        Ok(Some(script(exists, was, &self.server().await?.user)))
    }
}

fn migrations() -> Vec<Migration> {
    let mut migrations = runner().get_migrations().clone();
    migrations.sort();
    migrations
}

/// All that is missing is one transaction.
fn runner() -> Runner {
    let mut runner = embedded::migrations::runner().set_grouped(true);
    runner.set_migration_table_name(HISTORY);
    runner
}

fn make_schema_sql() -> String {
    format!("CREATE SCHEMA tablecast;\nCOMMENT ON SCHEMA tablecast IS '{COMMENT}';\n")
}

/// The migrations later than a version, and their history as the migrating library would write it.
fn script(exists: bool, was: i32, login: &str) -> String {
    let mut sql = "BEGIN;\n".to_owned();
    if !exists {
        sql.push_str(&make_schema_sql());
    }
    sql.push_str(&format!(
        "CREATE TABLE IF NOT EXISTS {HISTORY} (\n    \
         version int4 PRIMARY KEY, name varchar(255), applied_on varchar(255), checksum varchar(255));\n"
    ));
    for migration in migrations().iter().filter(|migration| migration.version() > was) {
        let (version, name, checksum) = (migration.version(), migration.name(), migration.checksum());
        sql.push_str(&format!(
            "\n{}\nINSERT INTO {HISTORY} VALUES ({version}, '{name}',\n    \
             to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), '{checksum}');\n",
            migration.sql().unwrap_or_default().trim_end()
        ));
    }
    sql.push_str(&format!("\n{}\nCOMMIT;", grants(login)));
    sql
}

/// What a login needs of a schema that is somebody else's.
pub fn grants(login: &str) -> String {
    let login = quote_ident(login);
    format!(
        "GRANT USAGE ON SCHEMA tablecast TO {login};\nGRANT SELECT ON {HISTORY} TO {login};\n\
         GRANT SELECT, INSERT, UPDATE, DELETE ON tablecast.backfills TO {login};"
    )
}

/// Postgres's reason, which the library buries.
fn failed(error: &refinery::Error) -> String {
    postgres_error(error).map_or_else(|| error.to_string(), describe)
}

fn postgres_error(error: &refinery::Error) -> Option<&tokio_postgres::Error> {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = cause {
        if let Some(postgres) = error.downcast_ref() {
            return Some(postgres);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_no_gaps_and_the_last_is_known() {
        let versions: Vec<_> = migrations().iter().map(Migration::version).collect();
        assert_eq!(versions, (1..=known_version()).collect::<Vec<_>>());
    }

    /// A database that has a migration refuses a binary whose text of it differs.
    #[test]
    fn a_migration_that_was_released_never_changes() {
        let checksums: Vec<_> = migrations().iter().map(Migration::checksum).collect();
        assert_eq!(checksums, [13_345_077_132_492_487_054]);
    }

    #[test]
    fn a_script_has_only_what_is_missing() {
        let all = script(false, 0, "Shop login");
        assert!(all.starts_with("BEGIN;\nCREATE SCHEMA tablecast;\n") && all.ends_with("COMMIT;"), "{all}");
        assert!(all.contains("CREATE TABLE tablecast.backfills") && all.contains("TO \"Shop login\";"), "{all}");
        let none = script(true, known_version(), "shop");
        assert!(!none.contains("CREATE SCHEMA") && !none.contains("backfills ("), "{none}");
    }
}
