//! By what a row is found again whose update left a TOASTed value as it was: by any key that Postgres takes for a replica
//! identity, through row filters and in partitions; and what becomes of an update whose key, or value, is none any more.

use crate::support::connector::Connector;
use crate::support::view::wait_until_same;
use crate::toast::{TABLE, assert_same, big, shorter, sql_big};

/// Whether the server is of this version, or a later one.
fn is_at_least(connector: &Connector, version: u32) -> bool {
    let sql = format!("SELECT current_setting('server_version_num')::int >= {version}0000");
    connector.database.query(&sql).as_deref() == Some("t")
}

#[test]
fn an_update_that_brings_a_row_into_the_row_filter_brings_its_large_value() {
    let table = "CREATE TABLE t (id int, region text, n int, big text, PRIMARY KEY (id, region));
                 ALTER TABLE t ALTER big SET STORAGE EXTERNAL";
    let connector = Connector::of(table);
    if !is_at_least(&connector, 15) {
        return;
    }
    let publication = format!("CREATE PUBLICATION {} FOR TABLE t WHERE (region = 'eu')", connector.slot());
    connector.database.execute(&publication);
    let daemon = connector.start_streaming();
    connector.database.execute(&format!("INSERT INTO t VALUES (1, 'us', 1, {}), (2, 'eu', 1, 'b')", sql_big("a")));
    connector.database.execute("UPDATE t SET region = 'eu' WHERE id = 1");
    assert_eq!(shorter(&connector.records("t", 2)), ["2 eu: 2 eu 1 b", "1 eu: 1 eu 1 a…"]);
    // Into it and out of it, and gone by the time that the daemon sees it.
    assert!(daemon.terminate().success());
    connector.database.execute(&format!("INSERT INTO t VALUES (3, 'us', 1, {})", sql_big("c")));
    connector
        .database
        .execute("UPDATE t SET region = 'eu' WHERE id = 3; UPDATE t SET region = 'us' WHERE id IN (1, 3)");
    let _daemon = connector.start_streaming();
    connector.wait_until_caught_up();
    assert_eq!(shorter(&connector.records("t", 4)[2..]), ["1 eu: -", "3 eu: -"]);
}

#[test]
fn partitions_without_the_full_identity_of_their_table_are_looked_up() {
    let connector = Connector::configured(
        "CREATE TABLE t (id int PRIMARY KEY, n int, note text, big text) PARTITION BY RANGE (id);
         ALTER TABLE t ALTER big SET STORAGE EXTERNAL; ALTER TABLE t REPLICA IDENTITY FULL;
         CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (100);
         CREATE TABLE high PARTITION OF t FOR VALUES FROM (100) TO (200); ALTER TABLE high REPLICA IDENTITY FULL",
        "",
        "[connectors.NAME.tables.\"public.t\"]",
    );
    let _daemon = connector.start_streaming();
    connector.database.execute(&format!(
        "INSERT INTO t VALUES (1, 1, NULL, {}), (2, 1, 'x', {}), (101, 1, 'y', {})",
        sql_big("a"),
        sql_big("b"),
        sql_big("c")
    ));
    connector.database.execute("UPDATE t SET n = 2");
    // With the old key in the WAL, which the stream says is the whole old row.
    connector.database.execute("UPDATE t SET id = id + 10");
    let records = assert_same(&connector);
    let mut last = shorter(&records[records.len() - 6..]);
    last.sort();
    assert_eq!(last, ["101: -", "111: 111 2 y c…", "11: 11 2 null a…", "12: 12 2 x b…", "1: -", "2: -"]);
}

#[test]
fn a_full_identity_that_has_no_unique_index_stops_the_connector_with_the_remedy() {
    let connector = Connector::configured(
        "CREATE TABLE t (id int NOT NULL, n int, big text) PARTITION BY RANGE (id);
         ALTER TABLE t ALTER big SET STORAGE EXTERNAL; ALTER TABLE t REPLICA IDENTITY FULL;
         CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (100);
         CREATE UNIQUE INDEX low_id ON low (id); ALTER TABLE low REPLICA IDENTITY USING INDEX low_id",
        "",
        "[connectors.NAME.tables.\"public.t\"]\nkey = [\"id\"]",
    );
    let daemon = connector.start_streaming();
    connector.database.execute(&format!("INSERT INTO t VALUES (1, 1, {})", sql_big("a")));
    connector.database.execute("UPDATE t SET n = 2");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("remedy: CREATE UNIQUE INDEX"), "{log}");
    connector.database.execute("CREATE UNIQUE INDEX t_id ON t (id)");
    let _daemon = connector.start_streaming();
    assert_same(&connector);
}

#[test]
fn a_key_without_overlaps_finds_the_row() {
    let connector = Connector::of("CREATE EXTENSION btree_gist");
    if !is_at_least(&connector, 18) {
        return;
    }
    connector.database.execute(
        "CREATE TABLE t (id int, valid_at daterange, n int, big text, PRIMARY KEY (id, valid_at WITHOUT OVERLAPS));
         ALTER TABLE t ALTER big SET STORAGE EXTERNAL",
    );
    let _daemon = connector.start_streaming();
    connector.database.execute(&format!(
        "INSERT INTO t VALUES (1, '[2024-01-01,2024-02-01)', 1, {}), (1, '[2024-02-01,2024-03-01)', 1, {})",
        sql_big("a"),
        sql_big("b")
    ));
    connector.database.execute("UPDATE t SET n = 2");
    assert_eq!(
        shorter(&connector.records("t", 4)[2..]),
        [
            "1 [2024-01-01,2024-02-01): 1 [2024-01-01,2024-02-01) 2 a…",
            "1 [2024-02-01,2024-03-01): 1 [2024-02-01,2024-03-01) 2 b…"
        ]
    );
}

#[test]
fn a_column_that_only_became_longer_is_looked_up() {
    let connector = Connector::of(
        "CREATE TABLE t (id int PRIMARY KEY, n int, big varchar(20000)); ALTER TABLE t ALTER big SET STORAGE EXTERNAL",
    );
    let daemon = connector.start_streaming();
    connector.database.execute(&format!("INSERT INTO t VALUES (1, 1, {})", sql_big("a")));
    connector.records("t", 1);
    assert!(daemon.terminate().success());
    connector.database.execute("UPDATE t SET n = 2; ALTER TABLE t ALTER big TYPE varchar(30000)");
    connector.database.execute("UPDATE t SET n = 3");
    let daemon = connector.start_streaming();
    assert_eq!(shorter(&connector.records("t", 3)[1..]), ["1: 1 2 a…", "1: 1 3 a…"]);
    assert!(!daemon.log().contains("read again"), "{}", daemon.log());
}

#[test]
fn a_key_that_its_type_does_not_read_any_more_skips_its_own_record_and_the_table_is_read_again() {
    let (keys, others) = ((1..=20).map(|key| key.to_string()), ["3000000000".to_owned()]);
    let small: String = keys.clone().map(|key| format!("ALTER TYPE mood ADD VALUE '{key}';")).collect();
    for (name, before, pg_type, change) in [
        ("an enum's label", small.as_str(), "mood", "ALTER TYPE mood RENAME VALUE '3000000000' TO 'other'"),
        ("a domain's check", "", "d", "DELETE FROM t WHERE k = 3000000000; ALTER DOMAIN d ADD CHECK (VALUE < 100)"),
        ("a smaller type", "", "bigint", "DELETE FROM t WHERE k = 3000000000; ALTER TABLE t ALTER k TYPE int"),
        ("another type", "", "text", "ALTER TABLE t ALTER k TYPE uuid USING lpad(k, 32, '0')::uuid"),
    ] {
        let connector =
            Connector::of(&format!("CREATE TYPE mood AS ENUM ('3000000000'); CREATE DOMAIN d AS bigint; {before}"));
        connector.database.execute(&format!(
            "CREATE TABLE t (k {pg_type} PRIMARY KEY, n int, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
             CREATE TABLE u (k int PRIMARY KEY, n int, big text); ALTER TABLE u ALTER big SET STORAGE EXTERNAL"
        ));
        let daemon = connector.start_streaming();
        for key in keys.clone().chain(others.clone()) {
            connector.database.execute(&format!("INSERT INTO t VALUES ('{key}', 1, {})", sql_big(&key)));
        }
        connector.database.execute(&format!("INSERT INTO u VALUES (1, 1, {})", sql_big("u")));
        connector.records("t", 21);
        assert!(daemon.terminate().success(), "{name}");
        connector.database.execute("BEGIN; UPDATE t SET n = 2; UPDATE u SET n = 2; COMMIT");
        connector.database.execute(change);
        let _daemon = connector.start_streaming();
        // Another table's rows are looked up with them, and are not skipped.
        assert_eq!(connector.records("u", 2)[1].short(), format!("1: 1 2 {}", big("u")), "{name}");
        wait_until_same(&connector, "t");
    }
}

#[test]
fn a_table_whose_records_were_skipped_becomes_the_table_again() {
    for change in ["DROP COLUMN big", "RENAME COLUMN big TO other", "ALTER COLUMN big TYPE bytea USING big::bytea"] {
        let connector = Connector::of(TABLE);
        let daemon = connector.start_streaming();
        connector.database.execute(&format!("INSERT INTO t VALUES (1, 1, {}), (2, 1, 'b')", sql_big("a")));
        connector.records("t", 2);
        assert!(daemon.terminate().success());
        connector.database.execute("UPDATE t SET n = 2");
        connector.database.execute(&format!("ALTER TABLE t {change}"));
        let _daemon = connector.start_streaming();
        wait_until_same(&connector, "t");
    }
}

/// What `check` says on stdout.
fn check(connector: &Connector) -> String {
    let output = connector.command().arg("check").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn check_names_each_partition_whose_wal_lacks_large_values() {
    let connector = Connector::configured(
        "CREATE TABLE t (id int PRIMARY KEY, big text) PARTITION BY RANGE (id); ALTER TABLE t REPLICA IDENTITY FULL;
         CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (100);
         CREATE TABLE high PARTITION OF t FOR VALUES FROM (100) TO (200); ALTER TABLE high REPLICA IDENTITY FULL",
        "",
        "[connectors.NAME.tables.\"public.t\"]",
    );
    let said = check(&connector);
    assert!(said.contains("ALTER TABLE public.low REPLICA IDENTITY FULL;"), "{said}");
    assert!(!said.contains("public.t REPLICA") && !said.contains("public.high"), "{said}");
}

#[test]
fn check_names_the_schemas_of_a_keys_types_that_the_login_may_not_use() {
    let connector = Connector::of(
        "CREATE SCHEMA \"Types\"; CREATE TYPE \"Types\".mood AS ENUM ('sad');
         CREATE DOMAIN d AS \"Types\".mood; CREATE TABLE t (id d PRIMARY KEY, big text)",
    );
    let role = format!("{}_login", connector.name());
    connector.database.execute(&format!("CREATE ROLE {role} LOGIN REPLICATION; GRANT SELECT ON t TO {role}"));
    connector.reconfigure("postgres://postgres@", &format!("postgres://{role}@"));
    let grant = format!("GRANT USAGE ON SCHEMA \"Types\" TO \"{role}\";");
    let said = check(&connector);
    assert!(said.contains(&grant), "{said}");
    connector.database.execute(&grant);
    let said = check(&connector);
    assert!(!said.contains("GRANT USAGE"), "{said}");
    connector.database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}
