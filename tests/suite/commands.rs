//! The commands against real services: exit status, stdout and stderr.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::support::tablecast::{Connector, Said, signal, wait_until};

#[test]
fn tail_shows_values_as_postgres_reads_them() {
    let shop = Connector::new(
        "CREATE TABLE t (id bigint PRIMARY KEY, n numeric(12, 2), d date, at timestamptz, loc timestamp, clock time,
            u uuid, b bytea, f real, g double precision, j jsonb, none text)",
    );
    let daemon = shop.start();
    shop.database.execute(
        r#"INSERT INTO t VALUES
        (9223372036854775807, 12.50, '2024-02-29', '2024-01-01 12:00:00.000001+00', '10000-01-01 00:00:00', '24:00',
            'b1e7c9a0-0000-4000-8000-0000000000ff', '\x00ff', 0.1, 'NaN', '{"a": [1, null]}', NULL),
        (-1, -0.01, '0044-03-15 BC', 'infinity', '4713-01-01 00:00:00.5 BC', '12:00:00.000001',
            '00000000-0000-0000-0000-000000000000', '', '-Infinity', 5e-324, '"x"', 'é'),
        (0, NULL, '-infinity', '-infinity', '1999-12-31 23:59:59.999999', NULL, NULL, NULL, '-0', -0.5, 'null', '')"#,
    );
    let lines = shop.view("t", 3);
    assert_eq!(lines[0]["key"], serde_json::json!({"id": i64::MAX}));
    let value = &lines[0]["value"];
    assert_eq!(value["n"], "12.50");
    assert_eq!(value["at"], "2024-01-01T12:00:00.000001Z");
    assert_eq!((&value["b"], &value["g"]), (&"\\x00ff".into(), &"NaN".into()));
    assert_eq!(lines[1]["value"]["loc"], "4713-01-01T00:00:00.5 BC");

    // A cast of what is shown gives the row again, whatever the type.
    for line in &lines {
        let json = line["value"].to_string().replace('\'', "''");
        let equal = shop.database.query(&format!(
            "SELECT count(*) FROM t, (SELECT '{json}'::jsonb v) AS shown WHERE t::text = (
                (v->>'id')::bigint, (v->>'n')::numeric, (v->>'d')::date, (v->>'at')::timestamptz,
                (v->>'loc')::timestamp, (v->>'clock')::time, (v->>'u')::uuid, (v->>'b')::bytea, (v->>'f')::real,
                (v->>'g')::double precision, (v->>'j')::jsonb, v->>'none')::text"
        ));
        assert_eq!(equal.as_deref(), Some("1"), "{json}");
    }
    daemon.stop();
}

#[test]
fn tail_shows_every_record_or_folds_them_to_the_live_rows() {
    let shop = Connector::new("CREATE TABLE t (id int PRIMARY KEY, v text)");
    let daemon = shop.start();
    shop.database.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')");
    shop.database.execute("UPDATE t SET v = 'A' WHERE id = 1; DELETE FROM t WHERE id = 2");
    let folded = shop.view("t", 2);
    let ids: Vec<_> = folded.iter().map(|line| (line["value"]["id"].clone(), line["value"]["v"].clone())).collect();
    assert_eq!(ids, [(1.into(), "A".into()), (3.into(), "c".into())]);

    let all = shop.run(&["tail", &shop.topic("t")]).lines();
    let offsets: Vec<_> = all.iter().map(|line| line["offset"].as_i64().unwrap()).collect();
    assert!(all.len() == 5 && offsets.is_sorted(), "{all:?}");
    assert_eq!((&all[4]["key"]["id"], &all[4]["value"]), (&2.into(), &serde_json::Value::Null));
    let line = all[0].to_string();
    assert!(line.contains("\"topic\"") && line.contains("\"partition\":0"), "{line}");
    let timestamp = all[0]["timestamp"].as_str().unwrap();
    assert!(timestamp.len() == "2024-01-01T00:00:00.000Z".len() && timestamp.ends_with('Z'), "{timestamp}");

    let limited = shop.run(&["tail", &shop.topic("t"), "--limit", "2"]);
    assert_eq!((limited.status, limited.lines().len()), (Some(0), 2));
    assert_eq!(shop.run(&["tail", &shop.topic("t"), "--view", "--limit", "1"]).lines().len(), 1);
    daemon.stop();
}

#[test]
fn tail_follows_until_it_is_interrupted() {
    let shop = Connector::new("CREATE TABLE t (id int PRIMARY KEY)");
    let daemon = shop.start();
    let mut tail = shop
        .command(&["tail", "--follow", &shop.topic("t")])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    for id in 1..=2 {
        shop.database.execute(&format!("INSERT INTO t VALUES ({id})"));
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains(&format!(r#""value":{{"id":{id}}}"#)), "{line}");
    }
    signal(&tail, "-INT");
    assert_eq!(tail.wait().unwrap().code(), Some(0));
    daemon.stop();
}

#[test]
fn tail_from_the_end_shows_only_what_comes_later() {
    let shop = Connector::new("CREATE TABLE t (id int PRIMARY KEY)");
    let daemon = shop.start();
    shop.database.execute("INSERT INTO t VALUES (0)");
    shop.view("t", 1);
    let mut tail = shop
        .command(&["tail", "--follow", "--from-end", "--limit", "1", &shop.topic("t")])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut id = 0;
    wait_until("tail has seen a record", || {
        id += 1;
        shop.database.execute(&format!("INSERT INTO t VALUES ({id})"));
        tail.try_wait().unwrap().is_some()
    });
    let said = Said::from(tail.wait_with_output().unwrap());
    assert_eq!((said.status, said.lines().len()), (Some(0), 1));
    assert!(said.lines()[0]["key"]["id"].as_i64().unwrap() > 0, "{said:?}");
    daemon.stop();
}

#[test]
fn tail_reads_all_partitions() {
    let shop = Connector::with_settings("CREATE TABLE t (id int PRIMARY KEY)", "[topics]\npartitions = 3\n");
    let daemon = shop.start();
    shop.database.execute("INSERT INTO t SELECT generate_series(1, 50)");
    let mut partitions: Vec<_> = shop.view("t", 50).iter().map(|line| line["partition"].as_i64().unwrap()).collect();
    partitions.sort_unstable();
    partitions.dedup();
    assert_eq!(partitions, [0, 1, 2]);
    daemon.stop();
}

#[test]
fn tail_ends_quietly_when_its_reader_has_gone() {
    let shop = Connector::new("CREATE TABLE t (id int PRIMARY KEY)");
    let daemon = shop.start();
    shop.database.execute("INSERT INTO t SELECT generate_series(1, 100)");
    shop.view("t", 100);
    let mut tail =
        shop.command(&["tail", &shop.topic("t")]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(tail.stdout.take());
    let said = Said::from(tail.wait_with_output().unwrap());
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""));
    daemon.stop();
}

#[test]
fn tail_shows_what_it_does_not_understand_as_it_is() {
    let shop = Connector::new("CREATE TABLE t (id int PRIMARY KEY)");
    shop.start().stop();
    let said = shop.run(&["tail", "_tablecast_positions"]);
    assert_eq!(said.status, Some(0));
    let hex: String = shop.name.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(said.lines().iter().any(|line| line["key"]["raw_hex"] == hex.as_str()), "{said:?}");
}

#[test]
fn tail_of_a_topic_that_is_not_there_names_it() {
    let shop = Connector::new("");
    let said = shop.run(&["tail", "no.such.topic"]);
    assert_eq!((said.status, said.stdout.as_str()), (Some(1), ""));
    assert!(said.stderr.starts_with("error: Kafka has no topic \"no.such.topic\""), "{said:?}");
}

#[test]
fn status_shows_where_a_connector_is() {
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let shop = Connector::with_settings(
        "CREATE TABLE t (id int PRIMARY KEY)",
        &format!("position_interval = \"100ms\"\n[http]\nlisten = \"{listen}\"\n"),
    );
    let before = shop.run(&["status", "--json"]);
    let connector = &before.json()["connectors"][0];
    assert_eq!((before.status, &connector["phase"]), (Some(0), &"not running".into()), "{before:?}");
    assert!(connector["lsn"].is_null() && connector["slot"].is_null(), "{before:?}");

    let daemon = shop.start();
    shop.database.execute("INSERT INTO t VALUES (1)");
    shop.view("t", 1);
    let status = || shop.run(&["status", "--json"]).json()["connectors"][0].clone();
    wait_until("the lag is gone", || status()["lag_seconds"] == 0);
    let now = status();
    let text = now.to_string();
    assert_eq!((&now["name"], &now["phase"]), (&shop.name.as_str().into(), &"streaming".into()), "{text}");
    assert!(now["lsn"].as_str().unwrap().contains('/') && now["ordinal"] == 0, "{text}");
    assert!(now["commit_time"].as_str().unwrap().ends_with('Z') && now["lag_bytes"].is_u64(), "{text}");
    assert!(now["slot"]["active"] == true && now["slot"]["wal_status"] == "reserved", "{text}");
    assert_eq!(now["tables"][0]["topic"], shop.topic("t").as_str(), "{text}");
    assert_eq!(now["tables"][0]["snapshot"], "done", "{text}");

    daemon.stop();
    wait_until("the slot is free", || status()["slot"]["active"] == false);
    let said = shop.run(&["status"]);
    assert_eq!(said.status, Some(0));
    assert!(said.stdout.starts_with(&format!("{}: not running\n  position  ", shop.name)), "{said:?}");
}

#[test]
fn status_shows_the_error_of_what_it_cannot_look_at_and_the_rest() {
    let shop = Connector::new("CREATE TABLE t (id int PRIMARY KEY)");
    shop.start().stop();
    shop.configure("postgres://nobody@127.0.0.1:1/nothing", "");
    let said = shop.run(&["status", "--json"]);
    let connector = &said.json()["connectors"][0];
    assert_eq!(said.status, Some(1));
    assert!(connector["error"].as_str().unwrap().contains("connecting to Postgres"), "{said:?}");
    assert!(connector["lsn"].is_string() && connector["slot"].is_null(), "{said:?}");
}

/// The findings of `check --json`, as (severity, subject without the connector's name, message, remedy).
fn findings(shop: &Connector) -> Vec<[String; 4]> {
    let report = shop.run(&["check", "--json"]).json();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let finding = |finding: &serde_json::Value| {
        let subject = text(&finding["subject"]).replace(&format!("{}: ", shop.name), "");
        [text(&finding["severity"]), subject, text(&finding["message"]), text(&finding["remedy"])]
    };
    report["findings"].as_array().unwrap().iter().map(finding).collect()
}

fn of<'f>(findings: &'f [[String; 4]], severity: &str, subject: &str) -> &'f [String; 4] {
    let found = findings.iter().find(|finding| finding[0] == severity && finding[1] == subject);
    found.unwrap_or_else(|| panic!("no {severity} on {subject}: {findings:#?}"))
}

#[test]
fn check_finds_nothing_in_the_way_before_and_while_the_daemon_runs() {
    let shop = Connector::new("CREATE TABLE t (id int PRIMARY KEY, n int)");
    let said = shop.run(&["check"]);
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    assert!(said.stdout.contains("0 errors") && said.stdout.ends_with(": `run` can start\n"), "{said:?}");
    let before = findings(&shop);
    let slot = format!("slot tablecast_{}", shop.name);
    let topic = format!("topic {}", shop.topic("t"));
    assert_eq!(of(&before, "info", &slot)[2], "will be created");
    assert_eq!(of(&before, "info", &topic)[2], "will be created");
    assert_eq!(of(&before, "info", &format!("publication tablecast_{}", shop.name))[2], "will be created");
    // It has changed nothing.
    assert_eq!(shop.database.query("SELECT count(*) FROM pg_publication").as_deref(), Some("0"));

    let daemon = shop.start();
    shop.database.execute("INSERT INTO t VALUES (1, 1)");
    shop.view("t", 1);
    let now = findings(&shop);
    assert!(now.iter().all(|finding| finding[0] != "error"), "{now:#?}");
    let found = &of(&now, "info", &slot)[2];
    assert!(found.contains("in use by process") && found.contains("goes on from the stored position"), "{found}");
    assert_eq!(of(&now, "info", &topic)[2], "compacted");
    daemon.stop();
}

#[test]
fn what_check_says_mends_what_it_finds() {
    let shop = Connector::new("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE SCHEMA hidden");
    let login = format!("{}_login", shop.name);
    shop.database.execute(&format!("CREATE ROLE {login} LOGIN PASSWORD 'secret'"));
    shop.configure_as(&login, "secret");
    let said = shop.run(&["check"]);
    assert_eq!(said.status, Some(3));
    let found = findings(&shop);
    assert_eq!(of(&found, "error", "login")[3], format!("ALTER ROLE \"{login}\" REPLICATION;"));
    assert!(of(&found, "error", "table public.t")[3].contains("GRANT SELECT ON"), "{found:#?}");
    let toast = of(&found, "info", "table public.t");
    assert!(toast[3].ends_with("REPLICA IDENTITY FULL;"), "{toast:?}");
    assert!(of(&found, "error", &format!("publication tablecast_{}", shop.name))[3].contains("CREATE PUBLICATION"));

    for finding in found.iter().filter(|finding| finding[0] == "error" || finding[1].starts_with("table")) {
        shop.database.execute(&finding[3]);
    }
    let mended = findings(&shop);
    assert!(mended.iter().all(|finding| finding[0] != "error"), "{mended:#?}");
    assert!(!mended.iter().any(|finding| finding[0] == "warning" && finding[1].starts_with("table")), "{mended:#?}");
    shop.start().stop();
}

#[test]
fn check_and_run_agree_on_a_table_that_cannot_be_captured() {
    for (sql, words) in [("CREATE TABLE t (id int)", "has no primary key"), ("", "no table matches")] {
        let shop = Connector::new(sql);
        let checked = shop.run(&["check", "--json"]);
        assert_eq!(checked.status, Some(3), "{checked:?}");
        assert!(findings(&shop).iter().any(|found| found[0] == "error" && found[2].contains(words)), "{checked:?}");
        let ran = shop.run(&["run"]);
        assert_eq!(ran.status, Some(1));
        assert!(ran.stderr.contains(words), "{ran:?}");
    }
}

#[test]
fn check_proves_continuity_as_run_does() {
    let shop = Connector::new("CREATE TABLE t (id int PRIMARY KEY)");
    shop.start().stop();
    let slot = format!("tablecast_{}", shop.name);
    wait_until("the slot is free", || {
        shop.database.query(&format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}'")).as_deref()
            == Some("f")
    });
    shop.database.execute(&format!("SELECT pg_drop_replication_slot('{slot}')"));
    let found = findings(&shop);
    let gap = of(&found, "error", &format!("slot {slot}"));
    assert!(gap[2].contains("is gone") && gap[3].contains(&format!("tablecast teardown {}", shop.name)), "{gap:?}");
    assert!(shop.run(&["run"]).stderr.contains("is gone"));
}

#[test]
fn schema_shows_what_a_table_gets_as_it_is_now() {
    let shop = Connector::new(
        "CREATE TABLE t (id uuid PRIMARY KEY, price numeric(10, 2));
         CREATE TABLE \"Weird.Name\" (z int PRIMARY KEY, a text)",
    );
    let said = shop.run(&["schema", &shop.name, "t", "--json"]);
    assert_eq!(said.status, Some(0), "{said:?}");
    let schemas = said.json();
    let topic = shop.topic("t");
    assert_eq!(schemas["key"]["subject"], format!("{topic}-key"));
    assert_eq!(schemas["value"]["subject"], format!("{topic}-value"));
    assert_eq!(schemas["value"]["schema"]["namespace"], topic);
    let price = &schemas["value"]["schema"]["fields"][1];
    assert_eq!((&price["type"][1]["scale"], &price["postgres.type"]), (&2.into(), &"numeric(10,2)".into()));

    let all = shop.run(&["schema", &shop.name]);
    assert!(all.stdout.starts_with("-- public.\"Weird.Name\"\n"), "{all:?}");
    assert!(
        all.stdout.contains(&format!("{topic}-value\n{{\n  \"type\": \"record\",\n  \"name\": \"Value\",")),
        "{all:?}"
    );
    let one = shop.run(&["schema", &shop.name, "\"Weird.Name\"", "--json"]);
    assert_eq!(one.json()["value"]["schema"]["fields"][0]["name"], "z");

    let missing = shop.run(&["schema", &shop.name, "nothing"]);
    assert_eq!((missing.status, missing.stdout.as_str()), (Some(2), ""));
    assert!(missing.stderr.contains("no table public.nothing") && missing.stderr.contains("public.t"), "{missing:?}");
}

#[test]
fn teardown_drops_what_the_connector_has_so_that_it_can_start_over() {
    let shop = Connector::new("CREATE TABLE t (id int PRIMARY KEY)");
    let daemon = shop.start();
    let in_use = shop.run(&["teardown", &shop.name, "--yes"]);
    assert_eq!(in_use.status, Some(1), "{in_use:?}");
    assert!(in_use.stderr.contains("is in use by process") && in_use.stderr.contains("stop the daemon"), "{in_use:?}");
    daemon.stop();
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    wait_until("the slot is free", || shop.database.query(&format!("{slots} AND active")).as_deref() == Some("0"));

    let asked = shop.run(&["teardown", &shop.name]);
    assert_eq!(asked.status, Some(2), "{asked:?}");
    assert!(asked.stdout.contains("of WAL kept for it") && asked.stderr.contains("--yes"), "{asked:?}");
    assert_eq!(shop.database.query(slots).as_deref(), Some("1"));

    let done = shop.run(&["teardown", &shop.name, "--yes"]);
    assert_eq!((done.status, done.stderr.as_str()), (Some(0), ""), "{done:?}");
    assert!(done.stdout.contains(&format!("--delete --topic {}", shop.topic("t"))), "{done:?}");
    assert_eq!(shop.database.query(slots).as_deref(), Some("0"));
    assert_eq!(shop.database.query("SELECT count(*) FROM pg_publication").as_deref(), Some("0"));

    let again = shop.run(&["teardown", &shop.name, "--yes"]);
    assert_eq!(again.status, Some(0));
    assert!(again.stdout.contains("no slot, no publication and no stored position"), "{again:?}");
    // The topic is empty, so nothing is in the way of a new beginning.
    shop.start().stop();
}
