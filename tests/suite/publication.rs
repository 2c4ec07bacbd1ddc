//! The publication is changed behind our back.

use crate::continuity::assert_refused;
use crate::schema_changes::{ALL, SETTINGS, connector, start};
use crate::support::connector::Connector;
use crate::support::view::{rows, wait_until_same};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text, w text);
     INSERT INTO t SELECT g, 'v', 'w' FROM generate_series(1, 50) g";

#[test]
fn a_table_that_is_taken_out_of_the_publication_is_put_back_and_read_again() {
    let connector = connector(TABLE);
    let daemon = start(&connector);
    let publication = connector.slot();
    let behind = format!(
        "ALTER PUBLICATION {publication} DROP TABLE t; DELETE FROM t WHERE id < 10; UPDATE t SET v = 'x' WHERE id = 20;
         INSERT INTO t VALUES (100, 'new', 'w')"
    );
    connector.database.execute(&behind);
    wait_until_same(&connector, "t");
    connector.database.execute("UPDATE t SET v = 'after' WHERE id = 30");
    wait_until_same(&connector, "t");
    assert!(daemon.terminate().success());

    connector.database.execute(&behind.replace("100", "101").replace("id < 10", "id < 20"));
    let daemon = connector.start_streaming();
    wait_until_same(&connector, "t");
    assert!(daemon.terminate().success());

    // Put back by somebody else, before anybody looks.
    connector.database.execute(&behind.replace("100", "102").replace("id < 10", "id < 30"));
    connector.database.execute(&format!("ALTER PUBLICATION {publication} ADD TABLE t"));
    let _daemon = connector.start_streaming();
    wait_until_same(&connector, "t");
}

#[test]
fn a_table_that_is_never_read_and_was_out_of_the_publication_stops_the_connector() {
    let connector = Connector::configured(TABLE, &format!("{SETTINGS}\nsnapshot = \"never\""), ALL);
    let daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (100, 'new', 'w')");
    connector.records("t", 1);
    let publication = connector.slot();
    connector.database.execute(&format!("ALTER PUBLICATION {publication} DROP TABLE t; DELETE FROM t WHERE id = 100"));
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert_refused(&connector, &["is not in publication", "ADD TABLE public.t;"]);
    connector.database.execute(&format!("ALTER PUBLICATION {publication} ADD TABLE t"));
    assert_refused(&connector, &["has been out of its publication", "snapshot = \"initial\""]);
    connector.configure(SETTINGS, ALL);
    let _daemon = connector.start_streaming();
    wait_until_same(&connector, "t");
}

#[test]
fn a_publication_that_left_kinds_of_changes_out_for_a_while_has_its_tables_read_again() {
    let connector = connector(TABLE);
    let _daemon = start(&connector);
    let publication = connector.slot();
    connector.database.execute(&format!("ALTER PUBLICATION {publication} SET (publish = 'insert')"));
    connector.database.execute("DELETE FROM t WHERE id < 10");
    let all = "insert, update, delete, truncate";
    connector.database.execute(&format!("ALTER PUBLICATION {publication} SET (publish = '{all}')"));
    wait_until_same(&connector, "t");
}

#[test]
fn a_row_filter_that_changes_has_rows_come_and_go() {
    let connector = connector(TABLE);
    if connector.database.query("SELECT current_setting('server_version_num')::int >= 150000").as_deref() != Some("t") {
        return;
    }
    let daemon = start(&connector);
    let publication = connector.slot();
    let filtered = |filter: &str| {
        connector.database.execute(&format!("ALTER PUBLICATION {publication} SET TABLE t WHERE ({filter})"));
        let expected = format!("SELECT count(*) FROM t WHERE {filter}");
        let count: usize = connector.database.query(&expected).unwrap().parse().unwrap();
        crate::support::wait_for("the rows of the filter", || {
            (rows(&connector.topic("t"), &["id".to_owned()]).len() == count).then_some(())
        });
    };
    filtered("id > 20");
    filtered("id > 10 AND id < 40");
    assert!(daemon.terminate().success());
}
