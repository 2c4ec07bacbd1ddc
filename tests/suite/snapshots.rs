//! The first rows of tables: what a table held before is in its topic, beside what changes meanwhile.

use std::collections::BTreeMap;

use crate::support::connector::{Connector, Daemon};
use crate::support::topic::{self, Record, short};
use crate::support::wait_for;

const T: &str = "[connectors.NAME.tables.\"public.t\"]";

/// The table's rows as the topic's records would show them, by key.
fn rows(connector: &Connector, table: &str, columns: &str) -> BTreeMap<String, String> {
    let sql = format!("SELECT coalesce(string_agg(concat_ws(' ', {columns}), E'\\x01'), '') FROM {table}");
    let all = connector.database.query(&sql).unwrap();
    let row = |row: &str| (row.split(' ').next().unwrap().to_owned(), row.to_owned());
    all.split('\x01').filter(|row| !row.is_empty()).map(row).collect()
}

/// The topic, folded.
fn fold(records: &[Record]) -> BTreeMap<String, String> {
    let mut view = BTreeMap::new();
    for record in records {
        let line = record.short();
        let (key, value) = line.split_once(": ").unwrap();
        match &record.value {
            Some(_) => view.insert(key.to_owned(), value.to_owned()),
            None => view.remove(key),
        };
    }
    view
}

/// Waits until the topic, folded, is the table.
fn wait_until_equal(connector: &Connector, table: &str, columns: &str) -> Vec<Record> {
    let mut records = Vec::new();
    let equal = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for("topic = table", || {
            records = topic::read(&connector.topic(table));
            (fold(&records) == rows(connector, table, columns)).then_some(())
        });
    }));
    assert!(equal.is_ok(), "topic: {:#?}\ntable: {:#?}", fold(&records), rows(connector, table, columns));
    records
}

fn wait_for_snapshot(daemon: &Daemon, tables: usize) {
    daemon.wait_for_log_times("snapshot done", tables);
}

#[test]
fn a_table_that_holds_rows_already_is_in_its_topic_and_so_is_what_changes_meanwhile() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, b text); INSERT INTO t SELECT i, 'row' || i FROM generate_series(1, 5000) i",
    );
    let daemon = connector.start();
    for id in 1..50 {
        connector.database.execute(&format!(
            "UPDATE t SET b = 'new' WHERE id = {id}; DELETE FROM t WHERE id = {0}; UPDATE t SET id = -{0} WHERE id = {1}",
            id + 100,
            id + 200
        ));
    }
    wait_for_snapshot(&daemon, 1);
    connector.wait_until_caught_up();
    wait_until_equal(&connector, "t", "id, b");
    assert!(daemon.terminate().success());
}

#[test]
fn what_a_snapshot_shows_is_what_the_stream_would_have_shown() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, b text, n int); INSERT INTO t VALUES
         (1, NULL, 1), (2, '', NULL), (3, E'tab\\there', 3), (4, E'line\\nfeed', 4), (5, E'back\\\\slash \\\\N', 5), (6, '\\N', 6)",
    );
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 1);
    let snapshot = connector.records("t", 6);
    connector.database.execute("UPDATE t SET n = n");
    let all = connector.records("t", 12);
    assert_eq!(short(&snapshot), short(&all[6..]));
}

#[test]
fn tables_of_all_sizes_and_names_are_read() {
    let connector = Connector::configured(
        "CREATE TABLE empty (id int PRIMARY KEY);
         CREATE TABLE one (id int PRIMARY KEY); INSERT INTO one VALUES (1);
         CREATE TABLE dead (id int PRIMARY KEY, b text);
         INSERT INTO dead SELECT i, repeat('x', 500) FROM generate_series(1, 5000) i; DELETE FROM dead WHERE id % 1000 <> 0;
         CREATE TABLE \"Se lect\" (id int PRIMARY KEY, \"Ord\"\"er\" text); INSERT INTO \"Se lect\" VALUES (1, 'x');
         CREATE TABLE parts (id int, b text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
         CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id);
         CREATE TABLE parts_2a PARTITION OF parts_2 FOR VALUES FROM (100) TO (150);
         CREATE TABLE parts_3 PARTITION OF parts DEFAULT;
         INSERT INTO parts SELECT i, 'p' FROM generate_series(0, 149) i; INSERT INTO parts VALUES (500, 'd')",
        "topic = \"{connector}.{schema}.{table}\"",
        "[connectors.NAME.tables.\"public.*\"]\n[connectors.NAME.tables.'public.\"Se lect\"']\ntopic = \"NAME.public.quoted\"",
    );
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 4);
    connector.records("empty", 0);
    connector.records("one", 1);
    assert_eq!(short(&connector.records("quoted", 1)), ["1: 1 x"]);
    connector.records("dead", 5);
    assert_eq!(fold(&connector.records("parts", 151)), rows(&connector, "parts", "id, b"));
}

#[test]
fn column_lists_row_filters_and_excluded_columns_hold_for_the_first_rows_too() {
    let connector = Connector::configured(
        "CREATE TABLE t (id int PRIMARY KEY, b text, secret text, paid bool NOT NULL, g int GENERATED ALWAYS AS (id * 2) STORED);
         ALTER TABLE t REPLICA IDENTITY FULL;
         INSERT INTO t SELECT i, 'b', 's', i % 2 = 0 FROM generate_series(1, 10) i",
        "",
        &format!("{T}\nexclude_columns = [\"b\"]"),
    );
    let publication = format!("tablecast_{}", connector.name());
    // Row filters came with Postgres 15.
    let is_15 = connector.database.query("SELECT current_setting('server_version_num')::int >= 150000");
    let (filter, rows, first) = match is_15.as_deref() {
        Some("t") => (" WHERE (paid)", 5, "2: 2 s true"),
        _ => ("", 10, "1: 1 s false"),
    };
    connector.database.execute(&format!("CREATE PUBLICATION {publication} FOR TABLE t{filter}"));
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 1);
    assert_eq!(short(&connector.records("t", rows))[0], first);
}

#[test]
fn a_daemon_that_is_killed_goes_on_at_the_chunk() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, b text);
         INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 20000) i",
    );
    connector.reconfigure("database_url", "snapshot_chunk_bytes = \"16KiB\"\ndatabase_url");
    let mut records = 0;
    for _ in 0..3 {
        let before = records;
        let daemon = connector.start_streaming();
        wait_for("another chunk", || {
            records = topic::read(&connector.topic("t")).len();
            (records > before).then_some(())
        });
        daemon.kill();
    }
    assert!(topic::read(&connector.topic("t")).len() < 20_000, "it was killed on the way");
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 1);
    let records = topic::read(&connector.topic("t"));
    assert_eq!(fold(&records).len(), 20_000);
    assert_eq!(records.len(), 20_000, "what was committed is not read again");
}

#[test]
fn a_rewrite_of_the_table_loses_no_row() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, b text);
         INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 60000) i; DELETE FROM t WHERE id % 3 = 0",
    );
    // Chunks so small that the reading lasts until the last rewrite.
    connector.reconfigure("database_url", "snapshot_chunk_bytes = \"16KiB\"\nsnapshot_readers = 1\ndatabase_url");
    let daemon = connector.start_streaming();
    for command in [
        "VACUUM FULL t",
        "CLUSTER t USING t_pkey",
        "ALTER TABLE t ALTER b TYPE varchar(1000), ADD c float DEFAULT random()",
    ] {
        let before = topic::read(&connector.topic("t")).len();
        wait_for("another chunk", || {
            (topic::read(&connector.topic("t")).len() > before || daemon.log().contains("snapshot done")).then_some(())
        });
        connector.database.execute(command);
    }
    wait_for_snapshot(&daemon, 1);
    assert!(daemon.log().contains("was rewritten"), "{}", daemon.log());
    connector.wait_until_caught_up();
    assert_eq!(fold(&topic::read(&connector.topic("t"))).len(), 40_000);
}

#[test]
fn a_table_that_is_added_to_the_configuration_gets_its_own_snapshot_and_the_publication_follows() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);
               CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1), (2)";
    let connector = Connector::configured(sql, "", T);
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 1);
    assert!(daemon.terminate().success());
    connector.configure("", &format!("{T}\n[connectors.NAME.tables.\"public.u\"]"));
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 1);
    connector.database.execute("INSERT INTO t VALUES (3); INSERT INTO u VALUES (3)");
    connector.records("u", 3);
    assert_eq!(short(&connector.records("t", 2)), ["1: 1", "3: 3"]);
}

#[test]
fn no_snapshot_is_taken_where_none_is_asked_for() {
    let connector = Connector::configured(
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1)",
        "snapshot = \"never\"",
        &format!("{T}\n[connectors.NAME.tables.\"public.u\"]\nsnapshot = \"initial\""),
    );
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 1);
    connector.database.execute("INSERT INTO t VALUES (2)");
    assert_eq!(short(&connector.records("t", 1)), ["2: 2"]);
    connector.records("u", 1);
}

#[test]
fn a_long_row_is_a_chunk_of_its_own() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, b text);
         INSERT INTO t SELECT i, repeat('y', 700000) FROM generate_series(1, 40) i",
    );
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 1);
    connector.records("t", 40);
}

fn run(connector: &Connector, arguments: &[&str]) -> String {
    let output = connector.command().args(arguments).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

#[test]
fn a_backfill_writes_the_rows_again_that_are_asked_for_and_nothing_older_than_the_stream() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, b text); INSERT INTO t SELECT i, 'a' FROM generate_series(1, 10) i",
    );
    run(&connector, &["migrate", connector.name()]);
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 1);
    connector.database.execute("UPDATE t SET b = 'b' WHERE id = 3");
    connector.records("t", 11);
    let said = run(&connector, &["backfill", connector.name(), "public.t", "--where", "t.id <= 4 AND b <> 'x'"]);
    assert!(said.contains("done"), "{said}");
    assert_eq!(
        short(&connector.records("t", 15)[11..]),
        ["1: 1 a", "2: 2 a", "4: 4 a", "3: 3 b"],
        "as they lie in the table"
    );
    let state = "SELECT string_agg(state || ' ' || rows_written, ',') FROM tablecast.backfills";
    assert_eq!(connector.database.query(state).unwrap(), "done 4");
}

#[test]
fn a_backfill_goes_on_after_a_crash_and_ends_when_it_is_cancelled() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, b text);
         INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 6000) i",
    );
    run(&connector, &["migrate", connector.name()]);
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 1);
    assert!(daemon.terminate().success());
    connector.reconfigure("database_url", "snapshot_chunk_bytes = \"8KiB\"\nsnapshot_readers = 1\ndatabase_url");
    let daemon = connector.start_streaming();
    run(&connector, &["backfill", connector.name(), "public.t", "--detach"]);
    let rows = "SELECT coalesce(max(rows_written), 0) > 0 FROM tablecast.backfills";
    wait_for("the backfill to begin", || (connector.database.query(rows)? == "t").then_some(()));
    daemon.kill();
    let daemon = connector.start_streaming();
    daemon.wait_for_log("backfill begins, or goes on");
    let second = run(&connector, &["backfill", connector.name(), "public.t", "--detach"]);
    let id = "SELECT max(id) FROM tablecast.backfills";
    let id = connector.database.query(id).unwrap();
    assert!(second.contains(&id), "{second}");
    let first = "SELECT state || ' ' || rows_written FROM tablecast.backfills ORDER BY id LIMIT 1";
    wait_for("the first backfill to end", || (connector.database.query(first)? == "done 6000").then_some(()));
    run(&connector, &["backfill", connector.name(), "--cancel"]);
    let states = "SELECT string_agg(state, ',' ORDER BY id) FROM tablecast.backfills";
    assert_eq!(connector.database.query(states).unwrap(), "done,cancelled");
    let records = topic::read(&connector.topic("t")).len();
    assert!((12_000..18_000).contains(&records), "{records}");
}

#[test]
fn a_backfill_that_can_not_be_done_says_why() {
    let connector = Connector::of("CREATE TABLE t (id int PRIMARY KEY, n numeric(5,2)); INSERT INTO t VALUES (1, 1)");
    run(&connector, &["migrate", connector.name()]);
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 1);
    let insert = format!(
        "INSERT INTO tablecast.backfills (connector, schema_name, table_name, \"where\")
         VALUES ('{0}', 'public', 'nowhere', NULL), ('{0}', 'public', 't', 'id / 0 = 1')",
        connector.name()
    );
    connector.database.execute(&insert);
    let errors = "SELECT string_agg(state || ': ' || error, E'\\n' ORDER BY id) FROM tablecast.backfills";
    let errors = wait_for("both to fail", || {
        let errors = connector.database.query(errors)?;
        (errors.matches("failed").count() == 2).then_some(errors)
    });
    assert!(errors.contains("public.nowhere is not captured") && errors.contains("division by zero"), "{errors}");
    connector.database.execute("INSERT INTO t VALUES (2, 2)");
    connector.records("t", 2);
}

#[test]
fn the_snapshot_command_reads_the_tables_and_a_later_run_goes_on_from_there() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100);
         CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1)",
    );
    let said = run(&connector, &["snapshot", connector.name(), "public.t"]);
    assert!(said.contains("100"), "{said}");
    connector.records("t", 100);
    connector.records("u", 0);
    connector.database.execute("INSERT INTO t VALUES (101)");
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 1);
    connector.records("t", 101);
    connector.records("u", 1);
    let output = connector.command().args(["snapshot", connector.name()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("is in use") && said.contains("tablecast backfill"), "{said}");
}

#[test]
fn sighup_takes_over_what_the_configuration_adds_and_changes_and_lets_the_rest_alone() {
    let connector = Connector::configured(
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1)",
        "",
        T,
    );
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 1);

    connector.reconfigure("[connectors.", "[conectors.");
    daemon.hang_up();
    daemon.wait_for_log("nothing changes");
    assert!(daemon.log().contains("conectors"), "{}", daemon.log());

    connector.configure("", &format!("{T}\n[connectors.NAME.tables.\"public.u\"]"));
    daemon.hang_up();
    wait_for_snapshot(&daemon, 2);
    connector.records("u", 1);

    // What is not changed is not started anew.
    daemon.hang_up();
    daemon.wait_for_log_times("configuration taken over", 2);
    connector.configure("", "[connectors.NAME.tables.\"public.u\"]");
    daemon.hang_up();
    daemon.wait_for_log("taken out of the publication");
    daemon.wait_for_log_times(" streaming ", 3);
    connector.database.execute("INSERT INTO t VALUES (2); INSERT INTO u VALUES (2)");
    connector.records("u", 2);
    connector.records("t", 1);
    assert!(daemon.terminate().success());
}

#[test]
fn a_table_that_is_dropped_or_may_no_longer_be_read_amid_its_snapshot_is_told() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, b text); INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 20000) i;
         CREATE TABLE u (id int PRIMARY KEY)",
    );
    connector.reconfigure("database_url", "snapshot_chunk_bytes = \"4KiB\"\nsnapshot_readers = 1\ndatabase_url");
    let daemon = connector.start_streaming();
    wait_for("a chunk", || (!topic::read(&connector.topic("t")).is_empty()).then_some(()));
    connector.database.execute("DROP TABLE t");
    daemon.wait_for_log("the table is gone");
    connector.database.execute("INSERT INTO u VALUES (1)");
    connector.records("u", 1);
    assert!(daemon.terminate().success());
}

#[test]
fn a_snapshot_gives_way_to_ddl_and_holds_no_transaction_for_long() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, b text);
         INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 10000) i",
    );
    connector.reconfigure("database_url", "snapshot_chunk_bytes = \"8KiB\"\nsnapshot_readers = 1\ndatabase_url");
    let daemon = connector.start_streaming();
    wait_for("a chunk", || (!topic::read(&connector.topic("t")).is_empty()).then_some(()));
    connector.database.execute("SET lock_timeout = '5s'; ALTER TABLE t ADD COLUMN c int");
    assert!(!daemon.log().contains("snapshot done"), "the table was read before it could be altered");
    connector.database.execute("UPDATE t SET c = 1 WHERE id = 10000");
    wait_for_snapshot(&daemon, 1);
    connector.wait_until_caught_up();
    let records = topic::read(&connector.topic("t"));
    assert_eq!(fold(&records).len(), 10_000);
    assert!(fold(&records)["10000"].ends_with(" 1"));
}

#[test]
fn row_level_security_stops_the_snapshot_rather_than_leave_rows_out() {
    let connector = Connector::of("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)");
    let login = format!("rls_{}", connector.name());
    connector.database.execute(&format!(
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY one_row ON t USING (id = 1);
         CREATE ROLE {login} LOGIN REPLICATION; GRANT SELECT ON t TO {login};
         CREATE PUBLICATION tablecast_{} FOR TABLE t",
        connector.name()
    ));
    let url = connector.database.url();
    let (_, address) = url.rsplit_once('@').unwrap();
    connector.reconfigure(&url, &format!("postgres://{login}@{address}"));
    let (status, log) = connector.start().wait();
    connector.database.execute(&format!("DROP OWNED BY {login}; DROP ROLE {login}"));
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("row-level security") && log.contains("BYPASSRLS"), "{log}");
    connector.records("t", 0);
}

#[test]
fn a_table_of_1600_columns_and_a_row_of_50_mb_are_read() {
    let columns: String = (1..1_600).map(|n| format!(", c{n} int")).collect();
    let connector = Connector::of(&format!(
        "CREATE TABLE wide (id int PRIMARY KEY{columns}); INSERT INTO wide (id, c1599) VALUES (1, 7), (2, 8);
         CREATE TABLE long (id int PRIMARY KEY, b text); INSERT INTO long VALUES (1, repeat('y', 50000000)), (2, 'short')"
    ));
    let daemon = connector.start_streaming();
    wait_for_snapshot(&daemon, 2);
    let wide = connector.records("wide", 2);
    assert_eq!(wide[0].value.as_ref().unwrap().len(), 1_600);
    assert!(wide.iter().any(|record| record.short().ends_with(" null 8")));
    let long = connector.records("long", 2);
    assert_eq!(long.iter().map(|record| record.short().len()).max(), Some("1: 1 ".len() + 50_000_000));
    assert!(daemon.peak_memory_kib() < 512 << 10, "{} KiB", daemon.peak_memory_kib());
}

#[test]
fn a_table_that_may_no_longer_be_read_amid_its_snapshot_stops_the_connector_with_the_sql() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, b text); INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 20000) i",
    );
    let login = format!("revoked_{}", connector.name());
    connector.database.execute(&format!(
        "CREATE ROLE {login} LOGIN REPLICATION; GRANT SELECT ON t TO {login}; CREATE PUBLICATION tablecast_{} FOR TABLE t",
        connector.name()
    ));
    let url = connector.database.url();
    let (_, address) = url.rsplit_once('@').unwrap();
    connector.reconfigure(&url, &format!("postgres://{login}@{address}"));
    connector.reconfigure("database_url", "snapshot_chunk_bytes = \"4KiB\"\nsnapshot_readers = 1\ndatabase_url");
    let daemon = connector.start_streaming();
    wait_for("a chunk", || (!topic::read(&connector.topic("t")).is_empty()).then_some(()));
    connector.database.execute(&format!("REVOKE SELECT ON t FROM {login}"));
    let (status, log) = daemon.wait();
    connector.database.execute(&format!("DROP OWNED BY {login}; DROP ROLE {login}"));
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("permission denied") && log.contains("GRANT SELECT ON public.t"), "{log}");
}

#[test]
fn a_table_that_is_truncated_amid_its_snapshot_is_empty_in_its_topic_but_for_what_came_later() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, b text); INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 20000) i",
    );
    connector.reconfigure("database_url", "snapshot_chunk_bytes = \"8KiB\"\ndatabase_url");
    let daemon = connector.start_streaming();
    wait_for("a chunk", || (!topic::read(&connector.topic("t")).is_empty()).then_some(()));
    connector
        .database
        .execute("INSERT INTO t VALUES (0, 'before'); TRUNCATE t; INSERT INTO t VALUES (-1, 'after'), (7, 'again')");
    wait_for_snapshot(&daemon, 1);
    connector.wait_until_caught_up();
    wait_until_equal(&connector, "t", "id, b");
}

#[test]
fn a_partition_that_is_detached_amid_the_snapshot_is_read_no_more() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, b text) PARTITION BY RANGE (id);
         CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (20000); CREATE TABLE t_2 PARTITION OF t DEFAULT;
         INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(0, 39999) i",
    );
    connector.reconfigure("database_url", "snapshot_chunk_bytes = \"8KiB\"\nsnapshot_readers = 1\ndatabase_url");
    let daemon = connector.start_streaming();
    wait_for("a chunk", || (!topic::read(&connector.topic("t")).is_empty()).then_some(()));
    connector.database.execute("BEGIN; ALTER TABLE t DETACH PARTITION t_2; DELETE FROM t; COMMIT");
    wait_for_snapshot(&daemon, 1);
    let read = fold(&topic::read(&connector.topic("t")));
    assert!(!read.contains_key("39999"), "a row of the detached partition was read");
}
