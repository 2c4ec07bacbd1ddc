//! `tablecast backfill` and `tablecast migrate` from outside; the test stands in for the daemon.

use std::process::{Child, Command, Stdio};

use tablecast::postgres::backfills::{Outcome, Progress, Request};
use tablecast::postgres::control::Control;

use crate::support::tablecast::{Connector, Said, signal, wait_until};

const TABLES: &str =
    "CREATE TABLE users (id int PRIMARY KEY, v text); CREATE TABLE \"Weird.Name\" (id int PRIMARY KEY)";

/// A connector whose source has the control schema, and what its daemon would have.
fn migrated() -> (Connector, Control) {
    let shop = Connector::new(TABLES);
    let said = shop.run(&["migrate", &shop.name]);
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    let control = shop.database.block_on(Control::connect(&shop.database.config())).unwrap();
    (shop, control)
}

fn open(shop: &Connector, control: &Control) -> Vec<Request> {
    shop.database.block_on(control.open_backfills(&shop.name)).unwrap()
}

/// Starts the command, and waits until so many backfills are open.
fn start(shop: &Connector, control: &Control, arguments: &[&str], count: usize) -> (Child, Vec<Request>) {
    let mut command: Command = shop.command(&["backfill", &shop.name]);
    let child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the backfills are requested", || open(shop, control).len() == count);
    (child, open(shop, control))
}

fn end(child: Child) -> Said {
    child.wait_with_output().unwrap().into()
}

fn mirror(shop: &Connector, control: &Control, id: i64, rows_written: u64) {
    let progress = progress(rows_written);
    assert!(shop.database.block_on(control.mirror_backfill(id, &progress)).unwrap());
}

fn finish(shop: &Connector, control: &Control, id: i64, outcome: &Outcome, rows_written: u64) {
    let progress = progress(rows_written);
    assert!(shop.database.block_on(control.finish_backfill(id, outcome, &progress)).unwrap());
}

fn progress(rows_written: u64) -> Progress {
    let bytes_read = rows_written * 100;
    Progress { rows_written, bytes_read, bytes_total: Some(1000), rows_estimated: Some(10) }
}

#[test]
fn migrate_says_what_it_did_and_backfill_says_that_it_is_needed() {
    let shop = Connector::new(TABLES);
    let said = shop.run(&["backfill", &shop.name, "users"]);
    assert_eq!(said.status, Some(1));
    assert!(said.stderr.contains(&format!("run `tablecast migrate {}`", shop.name)), "{said:?}");
    let checked = shop.run(&["check"]);
    assert_eq!(checked.status, Some(0));
    assert!(checked.stdout.contains("schema tablecast"), "{checked:?}");
    assert!(checked.stdout.contains(&format!("\n         tablecast migrate {}\n", shop.name)), "{checked:?}");

    let script = shop.run(&["migrate", &shop.name, "--sql"]);
    assert!(script.stdout.starts_with("BEGIN;\nCREATE SCHEMA tablecast;\n"), "{script:?}");
    assert_eq!(shop.run(&["migrate", &shop.name]).stdout, "schema tablecast is at version 1 (was: none)\n");
    assert_eq!(shop.run(&["migrate", &shop.name]).stdout, "schema tablecast is at version 1 already\n");
    let json = shop.run(&["migrate", &shop.name, "--json"]).json();
    assert_eq!(json, serde_json::json!({"version": 1, "was": 1}));
    assert!(shop.run(&["migrate", &shop.name, "--sql"]).stdout.starts_with("-- nothing to do"));
    assert!(shop.run(&["check"]).stdout.contains("is there, for `tablecast backfill`"));
}

#[test]
fn a_program_gets_a_line_for_each_change_and_one_at_the_end() {
    let (shop, control) = migrated();
    let (child, requests) = start(&shop, &control, &["public.*", "--where", "id > 5", "--json"], 2);
    assert_eq!(requests[0].where_sql.as_deref(), Some("id > 5"));
    let tables: Vec<&str> = requests.iter().map(|request| request.table.name.as_str()).collect();
    assert_eq!(tables, ["Weird.Name", "users"]);
    mirror(&shop, &control, requests[0].id, 1);
    finish(&shop, &control, requests[0].id, &Outcome::Done, 3);
    finish(&shop, &control, requests[1].id, &Outcome::Done, 10);
    let said = end(child);
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    let lines = said.lines();
    let last = lines.last().unwrap();
    assert_eq!((&last["ended"], &last["rows_written"]), (&true.into(), &13.into()), "{last}");
    assert_eq!(last["tables"][0]["table"], "public.\"Weird.Name\"");
    let of_users: Vec<_> = lines.iter().filter(|line| line["table"] == "public.users").collect();
    let end = of_users.last().unwrap();
    assert_eq!((&end["state"], &end["rows_written"], &end["id"]), (&"done".into(), &10.into(), &requests[1].id.into()));
    assert!(of_users.windows(2).all(|pair| pair[0] != pair[1]), "{of_users:?}");
}

#[test]
fn people_get_lines_and_the_status_tells_what_failed() {
    let (shop, control) = migrated();
    let (child, requests) = start(&shop, &control, &["users", "\"Weird.Name\""], 2);
    mirror(&shop, &control, requests[0].id, 1);
    finish(&shop, &control, requests[0].id, &Outcome::Done, 3);
    let failed = Outcome::Failed { error: "no disk".to_owned(), remedy: Some("buy one".to_owned()) };
    finish(&shop, &control, requests[1].id, &failed, 0);
    let said = end(child);
    assert_eq!(said.status, Some(1));
    assert!(said.stderr.contains(&format!("requested: backfill {} of public.users", requests[1].id)), "{said:?}");
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(
        lines[..2],
        ["public.\"Weird.Name\": done, 3 rows", "public.users: failed after 0 rows: no disk; buy one"]
    );
    assert!(lines[2].starts_with("all: 1 of 2 tables done, 3 rows in "), "{said:?}");
}

#[test]
fn what_is_asked_for_wrongly_is_not_asked_for() {
    let (shop, control) = migrated();
    let condition = shop.run(&["backfill", &shop.name, "users", "--where", "id > 5 AND nmae = 'x'"]);
    assert_eq!((condition.status, condition.stdout.as_str()), (Some(2), ""));
    let expected = "error: --where can't choose rows of public.users: column \"nmae\" does not exist\n  \
                    id > 5 AND nmae = 'x'\n             ^\n";
    assert_eq!(condition.stderr, expected);
    let missing = shop.run(&["backfill", &shop.name, "nothing"]);
    assert_eq!(missing.status, Some(2));
    assert!(
        missing.stderr.contains("no table public.nothing") && missing.stderr.contains("public.users"),
        "{missing:?}"
    );
    // A table that a pattern maps and the publication lacks is not captured either.
    shop.database.execute(&format!("CREATE PUBLICATION tablecast_{} FOR TABLE \"Weird.Name\"", shop.name));
    let left_out = shop.run(&["backfill", &shop.name, "users"]);
    assert_eq!(left_out.status, Some(2), "{left_out:?}");
    assert_eq!(shop.run(&["backfill", &shop.name]).status, Some(2));
    assert_eq!(open(&shop, &control), []);
}

#[test]
fn an_interrupted_command_leaves_the_backfill_and_says_how_to_end_it() {
    let (shop, control) = migrated();
    let (child, requests) = start(&shop, &control, &["\"Weird.Name\""], 1);
    mirror(&shop, &control, requests[0].id, 1);
    signal(&child, "-INT");
    let said = end(child);
    assert_eq!((said.status, said.stdout.as_str()), (Some(0), ""), "{said:?}");
    let how = format!("`tablecast backfill {} 'public.\"Weird.Name\"' --cancel`", shop.name);
    assert!(said.stderr.contains(&how), "{said:?}");
    assert!(!open(&shop, &control)[0].cancel);
}

#[test]
fn what_is_detached_can_be_cancelled() {
    let (shop, control) = migrated();
    let asked = shop.run(&["backfill", &shop.name, "public.*", "--detach", "--json"]);
    assert_eq!(asked.status, Some(0));
    let requests = open(&shop, &control);
    assert_eq!(asked.json()["tables"][1]["id"], requests[1].id);
    assert_eq!(asked.json()["ended"], false);

    let mut command = shop.command(&["backfill", &shop.name, "users", "--cancel"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("it is cancelled", || open(&shop, &control)[1].cancel);
    assert!(!open(&shop, &control)[0].cancel);
    finish(&shop, &control, requests[1].id, &Outcome::Cancelled, 4);
    let said = end(child);
    assert_eq!((said.status, said.stdout.as_str()), (Some(0), "public.users: cancelled after 4 rows\n"), "{said:?}");

    let all = shop.run(&["backfill", &shop.name, "--cancel", "--detach"]);
    assert!(all.stderr.contains(&format!("cancelling backfill {} of", requests[0].id)), "{all:?}");
    assert!(open(&shop, &control)[0].cancel);
    finish(&shop, &control, requests[0].id, &Outcome::Cancelled, 0);
    let none = shop.run(&["backfill", &shop.name, "--cancel"]);
    assert_eq!(none.status, Some(0));
    assert!(none.stderr.contains("no open backfill to cancel"), "{none:?}");
}

#[test]
fn what_somebody_else_ends_is_a_failure() {
    let (shop, control) = migrated();
    let (child, requests) = start(&shop, &control, &["users"], 1);
    finish(&shop, &control, requests[0].id, &Outcome::Cancelled, 4);
    assert_eq!(end(child).status, Some(1));
    let (child, _) = start(&shop, &control, &["users"], 1);
    shop.database.execute("DELETE FROM tablecast.backfills");
    let said = end(child);
    assert_eq!(said.status, Some(1));
    assert!(said.stdout.contains("deleted its row"), "{said:?}");
}

#[test]
fn a_source_that_is_away_for_a_while_ends_nothing() {
    let (shop, control) = migrated();
    let (child, requests) = start(&shop, &control, &["users"], 1);
    let name = format!("tablecast-{}", shop.name);
    shop.database.execute(&format!(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = '{name}'"
    ));
    let again = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND query LIKE '%tablecast.backfills%'"
    );
    wait_until("it is there again", || shop.database.query(&again).as_deref() == Some("1"));
    finish(&shop, &control, requests[0].id, &Outcome::Done, 4);
    let said = end(child);
    assert_eq!(said.status, Some(0), "{said:?}");
    assert!(said.stderr.contains("the source does not answer"), "{said:?}");
}

#[test]
fn who_waits_for_no_daemon_is_told() {
    let (shop, control) = migrated();
    let (mut child, requests) = start(&shop, &control, &["users"], 1);
    let stderr = child.stderr.take().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(stderr)).map(Result::unwrap);
    let told = lines.filter(|line| line.contains("is not in use: is `tablecast run` running?")).take(1).count();
    assert_eq!(told, 1);
    finish(&shop, &control, requests[0].id, &Outcome::Done, 0);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn teardown_forgets_the_backfills_of_its_connector_alone() {
    let (shop, control) = migrated();
    shop.run(&["backfill", &shop.name, "users", "--detach"]);
    shop.database
        .execute("INSERT INTO tablecast.backfills (connector, schema_name, table_name) VALUES ('x', 'a', 'b')");
    let said = shop.run(&["teardown", &shop.name, "--yes"]);
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    assert!(said.stdout.contains("forgotten: 1 in tablecast.backfills"), "{said:?}");
    assert_eq!(open(&shop, &control), []);
    assert_eq!(shop.database.query("SELECT count(*) FROM tablecast.backfills").as_deref(), Some("1"));
    assert_eq!(shop.run(&["teardown", &shop.name, "--yes"]).status, Some(0));
}
