//! The control schema on a real Postgres: made, upgraded, written and read.

use tablecast::postgres::backfills::{BackfillState, ConditionError, Outcome, Progress, Request};
use tablecast::postgres::catalog::TableName;
use tablecast::postgres::control::Control;
use tablecast::postgres::migrate::{ControlSchema, MigrateError, MigrationReport, known_version};

use crate::support::postgres::Database;

fn connect(database: &Database) -> Control {
    database.block_on(Control::connect(&database.config())).unwrap()
}

/// A database with the control schema.
fn migrated() -> (Database, Control) {
    let database = Database::create();
    let mut control = connect(&database);
    database.block_on(control.migrate()).unwrap();
    (database, control)
}

/// A connection as a role of its own, with nothing but what `sql` grants it; ROLE stands for its name.
fn login(database: &Database, sql: &str) -> (String, Control) {
    let role = format!("{}_login", database.name);
    database.execute(&format!("CREATE ROLE {role} LOGIN; {}", sql.replace("ROLE", &role)));
    let mut config = database.config();
    config.user(&role);
    (role, database.block_on(Control::connect(&config)).unwrap())
}

fn users() -> TableName {
    TableName::new("public", "users")
}

const SOME: Progress =
    Progress { rows_written: 5, bytes_read: 8192, bytes_total: Some(16_384), rows_estimated: Some(10) };

#[test]
fn a_schema_is_made_once_and_then_left_alone() {
    let database = Database::create();
    let mut control = connect(&database);
    let version = known_version();
    assert_eq!(database.block_on(control.control_schema()).unwrap(), ControlSchema::Missing);
    let first = database.block_on(control.migrate()).unwrap();
    assert_eq!(first, MigrationReport { was: None, version });
    assert_eq!(database.block_on(control.control_schema()).unwrap(), ControlSchema::Current);
    let second = database.block_on(control.migrate()).unwrap();
    assert_eq!(second, MigrationReport { was: Some(version), version });
    assert_eq!(database.query("SELECT count(*) FROM tablecast.migrations"), Some(version.to_string()));
    // Nothing holds the lock, and nothing lies outside of the schema.
    assert_eq!(database.query("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").as_deref(), Some("0"));
    let elsewhere = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!(database.query(elsewhere).as_deref(), Some("0"));
}

#[test]
fn everything_in_the_schema_says_what_it_is() {
    let (database, _control) = migrated();
    let silent = "SELECT coalesce(string_agg(c.relname || '.' || a.attname, ', '), '')
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'tablecast'::regnamespace AND c.relname = 'backfills' AND a.attnum > 0
        AND col_description(c.oid, a.attnum) IS NULL";
    assert_eq!(database.query(silent).as_deref(), Some(""));
    let silent = "SELECT coalesce(string_agg(relname, ', '), '') FROM pg_class
        WHERE relnamespace = 'tablecast'::regnamespace AND relkind = 'r' AND obj_description(oid, 'pg_class') IS NULL";
    assert_eq!(database.query(silent).as_deref(), Some(""));
    assert!(database.query("SELECT obj_description('tablecast'::regnamespace)").is_some());
}

#[test]
fn of_migrations_at_the_same_time_one_does_the_work() {
    let database = Database::create();
    let controls: Vec<Control> = (0..4).map(|_| connect(&database)).collect();
    let version = known_version();
    let reports = database.block_on(async {
        let tasks = controls.into_iter().map(|mut control| tokio::spawn(async move { control.migrate().await }));
        let mut reports = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            reports.push(task.await.unwrap().unwrap());
        }
        reports
    });
    assert!(reports.iter().all(|report| report.version == version), "{reports:?}");
    assert_eq!(reports.iter().filter(|report| report.was.is_none()).count(), 1, "{reports:?}");
}

#[test]
fn a_migration_that_failed_leaves_nothing_and_can_be_repeated() {
    let database = Database::create();
    database.execute("CREATE SCHEMA tablecast; CREATE TABLE tablecast.backfills (mine int)");
    let mut control = connect(&database);
    let error = database.block_on(control.migrate()).unwrap_err();
    assert!(error.to_string().contains("relation \"backfills\" already exists (SQLSTATE 42P07)"), "{error}");
    assert_eq!(database.block_on(control.control_schema()).unwrap(), ControlSchema::Missing);
    database.execute("DROP TABLE tablecast.backfills");
    database.block_on(control.migrate()).unwrap();
    assert_eq!(database.block_on(control.control_schema()).unwrap(), ControlSchema::Current);
}

#[test]
fn a_schema_that_is_later_than_the_binary_is_left_alone() {
    let (database, mut control) = migrated();
    let later = known_version() + 1;
    database
        .execute(&format!("INSERT INTO tablecast.migrations VALUES ({later}, 'later', '2030-01-01T00:00:00Z', '1')"));
    assert_eq!(database.block_on(control.control_schema()).unwrap(), ControlSchema::Newer(later));
    let error = database.block_on(control.migrate()).unwrap_err();
    assert!(matches!(error, MigrateError::Newer { found, .. } if found == later), "{error}");
    assert!(error.remedy("shop").unwrap().contains("a later one"));
}

#[test]
fn who_may_not_create_the_schema_gets_the_script_for_who_may() {
    let database = Database::create();
    let (role, mut control) = login(&database, "");
    let error = database.block_on(control.migrate()).unwrap_err();
    let remedy = error.remedy("shop").unwrap();
    assert!(remedy.starts_with(&format!("GRANT CREATE ON DATABASE \"{}\" TO \"{role}\";", database.name)), "{remedy}");
    assert!(remedy.contains("`tablecast migrate shop --sql`"), "{remedy}");

    let script = database.block_on(control.migration_sql()).unwrap().unwrap();
    database.execute(&script);
    assert_eq!(database.block_on(control.control_schema()).unwrap(), ControlSchema::Current);
    assert_eq!(database.block_on(control.migration_sql()).unwrap(), None);
    let again = database.block_on(control.migrate()).unwrap();
    assert_eq!(again.was, Some(known_version()));
    // It may do all that a connector does, though the tables are another's.
    let asked = database.block_on(control.request_backfill("shop", &[users()], None)).unwrap();
    assert!(database.block_on(control.mirror_backfill(asked[0], &SOME)).unwrap());
    assert!(database.block_on(control.finish_backfill(asked[0], &Outcome::Done, &SOME)).unwrap());
    assert_eq!(database.block_on(control.forget_backfills("shop")).unwrap(), 1);
    // The history is what the migrating library would have written.
    let history = "SELECT string_agg(concat_ws(' ', version, name, checksum), ', ') FROM tablecast.migrations";
    let written = database.query(history);
    database.execute("DROP SCHEMA tablecast CASCADE");
    database.block_on(connect(&database).migrate()).unwrap();
    assert_eq!(database.query(history), written);
    database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn a_schema_that_was_made_for_the_login_is_all_that_it_needs() {
    let database = Database::create();
    let (role, mut control) = login(&database, "CREATE SCHEMA tablecast AUTHORIZATION ROLE");
    assert_eq!(database.block_on(control.migrate()).unwrap().was, None);
    database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn a_request_goes_forward_until_it_ends() {
    let (database, control) = migrated();
    let before = database.block_on(control.open_backfills("shop")).unwrap();
    assert_eq!(before, []);
    let tables = [users(), TableName::new("Shop", "or\"der")];
    let ids = database.block_on(control.request_backfill("shop", &tables, Some("id > 5"))).unwrap();
    database.block_on(control.request_backfill("other", &tables[..1], None)).unwrap();
    let open = database.block_on(control.open_backfills("shop")).unwrap();
    let request = |at: usize| Request {
        id: ids[at],
        table: tables[at].clone(),
        where_sql: Some("id > 5".to_owned()),
        state: BackfillState::Requested,
        cancel: false,
    };
    assert_eq!(open, [request(0), request(1)]);

    assert!(database.block_on(control.mirror_backfill(ids[0], &SOME)).unwrap());
    let facts = &database.block_on(control.backfills(&ids)).unwrap()[0];
    assert_eq!((facts.request.state, facts.progress), (BackfillState::Running, SOME));
    assert_eq!((facts.connector.as_str(), facts.requested_by.as_str()), ("shop", "postgres"));
    assert!(facts.started_at.unwrap() >= facts.requested_at && facts.finished_at.is_none(), "{facts:?}");
    let started = facts.started_at;

    let all = Progress { rows_written: 10, bytes_read: 16_384, ..SOME };
    assert!(database.block_on(control.mirror_backfill(ids[0], &all)).unwrap());
    assert!(database.block_on(control.finish_backfill(ids[0], &Outcome::Done, &all)).unwrap());
    let facts = &database.block_on(control.backfills(&ids)).unwrap()[0];
    assert_eq!((facts.request.state, facts.progress), (BackfillState::Done, all));
    assert!(facts.started_at == started && facts.finished_at >= started && facts.error.is_none(), "{facts:?}");
    assert_eq!(database.block_on(control.open_backfills("shop")).unwrap(), [request(1)]);

    let failed = Outcome::Failed { error: "no disk".to_owned(), remedy: Some("buy one".to_owned()) };
    assert!(database.block_on(control.finish_backfill(ids[1], &failed, &SOME)).unwrap());
    let facts = &database.block_on(control.backfills(&ids[1..])).unwrap()[0];
    assert_eq!(facts.request.state, BackfillState::Failed);
    assert_eq!((facts.error.as_deref(), facts.remedy.as_deref()), (Some("no disk"), Some("buy one")));
}

#[test]
fn a_word_about_what_has_ended_changes_nothing() {
    let (database, control) = migrated();
    let ids = database.block_on(control.request_backfill("shop", &[users(), users()], None)).unwrap();
    assert!(database.block_on(control.finish_backfill(ids[0], &Outcome::Cancelled, &SOME)).unwrap());
    assert!(!database.block_on(control.mirror_backfill(ids[0], &SOME)).unwrap());
    assert!(!database.block_on(control.finish_backfill(ids[0], &Outcome::Done, &SOME)).unwrap());
    let facts = &database.block_on(control.backfills(&ids[..1])).unwrap()[0];
    assert_eq!(facts.request.state, BackfillState::Cancelled);

    database.execute("DELETE FROM tablecast.backfills");
    assert!(!database.block_on(control.mirror_backfill(ids[1], &SOME)).unwrap());
    assert_eq!(database.block_on(control.backfills(&ids)).unwrap(), []);
}

#[test]
fn cancelling_asks_only_those_of_the_connector_that_are_open() {
    let (database, control) = migrated();
    let ids = database.block_on(control.request_backfill("shop", &[users(), users(), users()], None)).unwrap();
    let others = database.block_on(control.request_backfill("other", &[users()], None)).unwrap();
    database.block_on(control.mirror_backfill(ids[0], &SOME)).unwrap();
    database.block_on(control.finish_backfill(ids[1], &Outcome::Done, &SOME)).unwrap();
    let asked = [ids[0], ids[1], others[0]];
    assert_eq!(database.block_on(control.cancel_backfills("shop", &asked)).unwrap(), ids[..1]);
    let open = database.block_on(control.open_backfills("shop")).unwrap();
    assert_eq!(open.iter().map(|request| request.cancel).collect::<Vec<_>>(), [true, false]);

    assert_eq!(database.block_on(control.forgettable_backfills("shop")).unwrap(), 3);
    assert_eq!(database.block_on(control.forget_backfills("shop")).unwrap(), 3);
    assert_eq!(database.block_on(control.forgettable_backfills("other")).unwrap(), 1);
}

#[test]
fn a_condition_is_looked_at_without_being_run() {
    let (database, control) = migrated();
    database.execute("CREATE TABLE users (id int PRIMARY KEY, größe int)");
    let check = |condition: &str| database.block_on(control.check_condition(&users(), condition));
    check("id > 5 AND größe IS NOT NULL").unwrap();
    check("pg_sleep(600) IS NULL").unwrap();
    let refused = |condition: &str| match check(condition) {
        Err(ConditionError::Refused { message, position, .. }) => (message, position),
        other => panic!("{condition}: {other:?}"),
    };
    assert_eq!(refused("größe > 1 AND nmae = 'x'"), ("column \"nmae\" does not exist".to_owned(), Some(14)));
    assert_eq!(refused("id >").0, "syntax error at or near \")\"");
    assert_eq!(refused("id").0, "argument of WHERE must be type boolean, not type integer");
    assert!(refused("true); DROP TABLE users; SELECT (1").0.contains("multiple commands"));
    assert!(matches!(check("id = $1"), Err(ConditionError::Parameter)));
    let gone = database.block_on(control.check_condition(&TableName::new("public", "gone"), "true"));
    assert!(matches!(gone, Err(ConditionError::Refused { position: None, .. })), "{gone:?}");
}

#[test]
fn without_the_schema_a_query_says_so_by_its_sqlstate() {
    let database = Database::create();
    let control = connect(&database);
    let error = database.block_on(control.open_backfills("shop")).unwrap_err();
    assert_eq!((error.sqlstate(), error.is_transient()), (Some("42P01"), false));
}
