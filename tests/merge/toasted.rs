//! TOASTed values that are looked up where commits are decoded long before they are visible: a snapshot that lacks the
//! update would show the value of before, or no row at all.

use fastrand::Rng;

use super::late::LateServer;
use super::support::connector::Connector;
use super::support::postgres::Database;

const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, n int, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL";
const ROUNDS: usize = 5;

#[test]
fn a_value_is_not_looked_up_before_the_update_that_left_it_is_visible() {
    let server = LateServer::up(&mut Rng::new());
    let database = Database::create_on(&server.url);
    database.execute(TABLE);
    let connector = Connector::on(database, "", "[connectors.NAME.tables.\"public.t\"]");
    let _daemon = connector.start_streaming();
    let big = |word: &str, round: usize| format!("{word}{round}{}", "x".repeat(10_000));
    let mut expected = Vec::new();
    for round in 0..ROUNDS {
        let [new, changed] = ["new", "changed"].map(|word| big(word, round));
        connector
            .database
            .execute(&format!("INSERT INTO t VALUES ({round}, 1, '{new}'); UPDATE t SET n = 2 WHERE id = {round}"));
        connector.database.execute(&format!(
            "UPDATE t SET big = '{changed}' WHERE id = {round}; UPDATE t SET n = 3 WHERE id = {round}"
        ));
        expected.push(format!("{round}: {round} 1 {new}"));
        // What is read may be newer, where both had been committed by then.
        expected.push(format!("{round}: {round} 2 "));
        expected.push(format!("{round}: {round} 2 {changed}"));
        expected.push(format!("{round}: {round} 3 {changed}"));
    }
    let records = connector.records("t", expected.len());
    for (record, expected) in records.iter().zip(&expected) {
        let record = record.short();
        assert!(record.starts_with(expected.as_str()), "{} instead of {}", &record[..30], &expected[..6]);
        assert!(!record.ends_with("null"), "{record}");
    }
}
