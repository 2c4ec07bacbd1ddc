//! Configurations as people write them, and the very messages that they get.

use std::collections::BTreeMap;
use std::env::VarError;
use std::io;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::postgres::tls::TlsMode;
use crate::relation::Unrepresentable;

/// Seven lines, to which the tests append.
const BASE: &str = "\
[kafka]
bootstrap_servers = \"127.0.0.1:9092\"
[registry]
url = \"http://127.0.0.1:8081/\"
[connectors.shop.tables.users]
[connectors.shop]
database_url = \"postgres://u@h/d\"
";

struct Fake;

impl Environment for Fake {
    fn variable(&self, name: &str) -> Result<String, VarError> {
        match name {
            "SECRET" => Ok("s3cr3t@ '\\".to_owned()),
            "LATIN" => Err(VarError::NotUnicode("latin".into())),
            _ => Err(VarError::NotPresent),
        }
    }

    fn file(&self, path: &Path) -> io::Result<String> {
        if path == Path::new("etc/secret") { Ok("s3cr3t\n".to_owned()) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "etc/c.toml", &Fake)
}

fn shop(more: &str) -> Connector {
    let mut config = parse(&format!("{BASE}{more}")).map_err(|error| error.to_string()).unwrap();
    config.connectors.remove("shop").unwrap()
}

/// What is wrong with a whole file, without the file's name.
fn mistakes(text: &str) -> Vec<String> {
    let error = parse(text).err().map(|error| error.to_string()).unwrap_or_default();
    error.lines().map(|line| line.strip_prefix("etc/c.toml:").unwrap_or(line).to_owned()).collect()
}

/// What is wrong with lines from line 8 on, which is in `[connectors.shop]`.
fn mistakes_in(more: &str) -> Vec<String> {
    mistakes(&format!("{BASE}{more}"))
}

#[test]
fn the_example_of_the_contract_means_what_it_says() {
    let text = r#"
[kafka]
bootstrap_servers = "127.0.0.1:9092"
properties = { "client.id" = "tablecast", "linger.ms" = 5, "enable.idempotence" = true }
[registry]
url = "http://127.0.0.1:8081"
[http]
listen = "127.0.0.1:9187"
[topics]
partitions = 3
replication_factor = 2
[connectors.shop]
database_url = "postgres://tablecast:${SECRET}@127.0.0.1:5432/shop"
topic = "{schema}.{table}"
snapshot = "never"
[connectors.shop.tables."public.users"]
topic = "users"
key = ["id"]
exclude_columns = ["password_hash"]
columns = { matrix = "string" }
snapshot = "initial"
[connectors.shop.tables."public.*"]
"#;
    let config = parse(text).map_err(|error| error.to_string()).unwrap();
    assert_eq!(config.kafka.properties["linger.ms"], "5");
    assert_eq!(config.kafka.properties["enable.idempotence"], "true");
    assert_eq!(config.http.unwrap().listen.port(), 9187);
    assert_eq!((config.topics.partitions, config.topics.replication_factor), (3, 2));
    let shop = &config.connectors["shop"];
    assert_eq!(shop.database.get_password(), Some("s3cr3t@ '\\".as_bytes()));
    assert_eq!(shop.snapshot, SnapshotMode::Never);
    let users = shop.mapping_for("public", "users").unwrap();
    assert_eq!(users.key.as_deref(), Some(&["id".to_owned()][..]));
    assert_eq!(users.exclude_columns, ["password_hash"]);
    assert_eq!(users.string_columns, ["matrix"]);
    assert_eq!(users.snapshot, Some(SnapshotMode::Initial));
    assert_eq!(shop.topic_for("public", "users").as_deref(), Some("users"));
    assert_eq!(shop.topic_for("public", "orders").as_deref(), Some("public.orders"));
    assert_eq!(shop.topic_for("private", "orders"), None);
}

#[test]
fn what_is_not_written_has_a_default() {
    let config = parse(BASE).map_err(|error| error.to_string()).unwrap();
    assert_eq!(config.registry.url, "http://127.0.0.1:8081");
    assert!(config.registry.auto_register);
    assert!(config.http.is_none());
    assert_eq!((config.topics.partitions, config.topics.replication_factor), (1, -1));
    let shop = shop("");
    assert_eq!((shop.slot.as_str(), shop.publication.as_str()), ("tablecast_shop", "tablecast_shop"));
    assert_eq!(shop.delivery, Delivery::ExactlyOnce);
    assert_eq!(shop.snapshot, SnapshotMode::Initial);
    assert_eq!(shop.tls, TlsMode::Prefer);
    assert_eq!(shop.batch_max_bytes, 4 << 20);
    assert_eq!(shop.batch_max_latency, Duration::from_millis(100));
    assert_eq!(shop.position_interval, Duration::from_secs(10));
    assert_eq!(shop.catalog_interval, Duration::from_secs(10));
    assert_eq!(shop.topic_for("public", "users").as_deref(), Some("shop.public.users"));
}

#[test]
fn every_setting_of_a_connector_can_be_written() {
    let shop = shop(
        "slot = \"s\"\npublication = \"P\"\ndelivery = \"at-least-once\"\n\
         batch_max_bytes = 4_096\nbatch_max_latency = \"1s\"\nposition_interval = \"5m\"\ncatalog_interval = \"1m\"\n",
    );
    assert_eq!((shop.slot.as_str(), shop.publication.as_str()), ("s", "P"));
    assert_eq!(shop.delivery, Delivery::AtLeastOnce);
    assert_eq!(shop.batch_max_bytes, 4096);
    assert_eq!(shop.batch_max_latency, Duration::from_secs(1));
    assert_eq!(shop.position_interval, Duration::from_secs(300));
    assert_eq!(shop.catalog_interval, Duration::from_secs(60));
}

#[test]
fn an_exact_name_wins_over_a_pattern_wherever_it_stands() {
    let shop = shop("[connectors.shop.tables.\"public.*\"]\ntopic = \"all.{table}\"\n");
    assert_eq!(shop.topic_for("public", "users").as_deref(), Some("shop.public.users"));
    assert_eq!(shop.topic_for("public", "other").as_deref(), Some("all.other"));
}

#[test]
fn unknown_settings_name_the_line_and_the_nearest_known_one() {
    let text = "[kafka]\nbootstrap_server = \"h:1\"\n[registri]\n[connectors.shop]\nsnapshto = \"initial\"\n\
                colour = 1\n[connectors.shop.tables.\"public.a\"]\nexclude_column = [\"a\"]\n";
    assert_eq!(
        mistakes(text),
        [
            " registry: missing; add `[registry]` with `url = \"http://127.0.0.1:8081\"`",
            "1: kafka.bootstrap_servers: missing; add `bootstrap_servers = \"127.0.0.1:9092\"`",
            "2: kafka.bootstrap_server: unknown setting; did you mean `bootstrap_servers`?",
            "3: registri: unknown setting; did you mean `registry`?",
            "4: connectors.shop.database_url: missing; add `database_url = \
             \"postgres://tablecast:${PASSWORD}@127.0.0.1:5432/shop\"`",
            "5: connectors.shop.snapshto: unknown setting; did you mean `snapshot`?",
            "6: connectors.shop.colour: unknown setting; known here: `database_url`, `slot`, `publication`, \
             `delivery`, \
             `snapshot`, `snapshot_readers`, `snapshot_chunk_bytes`, `topic`, `tables`, `unrepresentable`, \
             `batch_max_bytes`, `batch_max_latency`, `position_interval`, `catalog_interval`",
            "8: connectors.shop.tables.\"public.a\".exclude_column: unknown setting; did you mean `exclude_columns`?",
        ]
    );
}

#[test]
fn a_file_that_is_not_toml_is_refused_without_guessing_on() {
    let mistakes = mistakes("[kafka\nbootstrap_servers = s3cr3t\n");
    assert!(mistakes.iter().all(|mistake| mistake.contains("not TOML")), "{mistakes:?}");
    assert!(mistakes.iter().all(|mistake| !mistake.contains("s3cr3t")), "{mistakes:?}");
    assert_eq!(mistakes[0], "1: not TOML: unclosed table, expected `]`");
}

#[test]
fn a_value_of_the_wrong_type_is_refused_without_quoting_it() {
    let text = "[kafka]\nbootstrap_servers = 9092\nproperties = []\n[registry]\nurl = { a = 1 }\n[topics]\n\
                partitions = \"1\"\nreplication_factor = 0\n[connectors]\nshop = true\n";
    assert_eq!(
        mistakes(text),
        [
            "2: kafka.bootstrap_servers: must be a string; this is an integer",
            "3: kafka.properties: must be a table; this is an array",
            "5: registry.url: must be a string; this is a table",
            "7: topics.partitions: must be a whole number; this is a string",
            "8: topics.replication_factor: 0 replicas hold nothing; write 1 or more, or -1 for the broker's default",
            "10: connectors.shop: must be a table; this is a boolean"
        ]
    );
}

#[test]
fn references_that_lead_nowhere_name_the_variable_and_the_setting() {
    assert_eq!(
        mistakes_in("slot = \"${SLOT}\"\ntopic = \"${LATIN}\"\npublication = \"${file:p}${\"\n"),
        [
            "8: connectors.shop.slot: the environment has no variable `SLOT`; set it, or write `$${` where `${` \
             itself is meant",
            "9: connectors.shop.topic: the environment's variable `LATIN` is not UTF-8; set it to text",
            "10: connectors.shop.publication: `${file:p}` cannot be read: entity not found; paths are relative to the \
             configuration file's directory",
            "10: connectors.shop.publication: a `${` has no `}`; write `$${` where `${` itself is meant"
        ]
    );
}

#[test]
fn choices_and_units_are_checked() {
    assert_eq!(
        mistakes_in(
            "delivery = \"exactly_once\"\nsnapshot = \"always\"\nunrepresentable = \"nul\"\n\
             batch_max_bytes = \"1 parsec\"\n\
             batch_max_latency = 100\nposition_interval = \"1ms\"\n"
        ),
        [
            "8: connectors.shop.delivery: `exactly_once` is not a choice; did you mean `exactly-once`?",
            "9: connectors.shop.snapshot: `always` is not a choice; write one of `initial`, `never`",
            "10: connectors.shop.unrepresentable: `nul` is not a choice; did you mean `null`?",
            "11: connectors.shop.batch_max_bytes: `1 parsec` is not a size; write bytes, or a number with a unit, \
             like `4MiB` or `4MB`",
            "12: connectors.shop.batch_max_latency: `100` is not a duration; write a whole number with a unit, like \
             `100ms`, `10s` or `5m`",
            "13: connectors.shop.position_interval: `1ms` is out of range; write a duration between `100ms` and \
             `3600s`"
        ]
    );
    assert_eq!(
        mistakes_in("batch_max_bytes = 12\nbatch_max_latency = \"31s\"\n"),
        [
            "8: connectors.shop.batch_max_bytes: `12` is out of range; write a size between `1KiB` and `1GiB`",
            "9: connectors.shop.batch_max_latency: `31s` is out of range; write a duration between `1ms` and `30s`"
        ]
    );
}

#[test]
fn what_becomes_of_unrepresentable_values_is_the_connectors_unless_a_table_says_otherwise() {
    assert_eq!(shop("").unrepresentable, Unrepresentable::Error);
    let of_table = "unrepresentable = \"null\"\n[connectors.shop.tables.orders]\nunrepresentable = \"error\"\n";
    let connector = shop(of_table);
    assert_eq!(connector.unrepresentable, Unrepresentable::Null);
    let of = |table: &str| connector.mapping_for("public", table).unwrap().unrepresentable;
    assert_eq!((of("users"), of("orders")), (None, Some(Unrepresentable::Error)));
}

#[test]
fn names_must_be_such_as_postgres_takes() {
    let long = "a".repeat(54);
    let text = format!(
        "slot = \"My-Slot\"\npublication = \"\"\n[connectors.Shop]\ndatabase_url = \"postgres://u@h/e\"\n\
         tables = {{ a = {{}} }}\n[connectors.{long}]\ndatabase_url = \"postgres://u@h/f\"\ntables = {{ b = {{}} }}\n"
    );
    assert_eq!(
        mistakes_in(&text),
        [
            "8: connectors.shop.slot: is not a slot's name; use lower case letters, digits and `_`",
            "9: connectors.shop.publication: is not a publication's name; write a name, or leave it out for the \
             default",
            "10: connectors.Shop: is not a connector's name; use lower case letters, digits, `_` and `-`",
            "13: connectors.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: the slot's name is longer than \
             Postgres takes; write a shorter `slot`, at most 63 bytes",
            "13: connectors.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: the publication's name is longer \
             than Postgres takes; write a shorter `publication`, at most 63 bytes"
        ]
    );
}

#[test]
fn two_connectors_on_one_server_need_two_slots_and_two_publications() {
    let other = |url: &str| {
        format!(
            "[connectors.a-b]\ndatabase_url = \"postgres://u@h/d\"\ntables = {{ a = {{}} }}\n[connectors.a_b]\n\
                 database_url = \"{url}\"\ntables = {{ b = {{}} }}\n"
        )
    };
    assert_eq!(
        mistakes_in(&other("postgres://u@h:5432/d")),
        [
            "11: connectors.a_b.slot: its slot `tablecast_a_b` is that of connector `a-b` too; write a `slot` of its \
             own",
            "11: connectors.a_b.publication: its publication is that of connector `a-b` too; write a `publication` of \
             its own"
        ]
    );
    assert_eq!(
        mistakes_in(&other("postgres://u@h/e")),
        ["11: connectors.a_b.slot: its slot `tablecast_a_b` is that of connector `a-b` too; write a `slot` of its own"]
    );
    assert!(mistakes_in(&other("postgres://u@elsewhere/d")).is_empty());
}

#[test]
fn two_tables_never_share_a_topic() {
    let text = "[connectors.shop.tables.orders]\ntopic = \"shop.public.users\"\n[connectors.shop.tables.items]\n\
                topic = \"shop.public_users\"\n[connectors.shop.tables.\"a.*\"]\ntopic = \"a\"\n\
                [connectors.shop.tables.x]\ntopic = \"__x\"\n[connectors.shop.tables.y]\ntopic = \"{tabel}\"\n\
                [connectors.shop.tables.z]\ntopic = \"a b\"\n";
    assert_eq!(
        mistakes_in(text),
        [
            "8: connectors.shop.tables.orders: its topic `shop.public.users` is that of \
             `connectors.shop.tables.users` too; write another `topic` for one of them",
            "10: connectors.shop.tables.items: its topic `shop.public_users` and `shop.public.users`, that of \
             `connectors.shop.tables.users`, collide; write another `topic` for one of them: Kafka takes `.` and `_` \
             for the same",
            "12: connectors.shop.tables.\"a.*\": stands for several tables, and all of them would get one topic; put \
             `{table}` into `topic`",
            "14: connectors.shop.tables.x: its topic is `__x`, which is kept for Kafka's and tablecast's own topics; \
             write another `topic`",
            "17: connectors.shop.tables.y.topic: `{tabel}` is not a placeholder; there are `{connector}`, `{schema}` \
             and `{table}`",
            "19: connectors.shop.tables.z.topic: ' ' cannot stand in a topic's name; use letters, digits, `.`, `_` \
             and `-`"
        ]
    );
}

#[test]
fn tables_are_named_as_in_sql() {
    let text = "[connectors.shop.tables.\"my-table\"]\n[connectors.shop.tables.\"*\"]\n\
                [connectors.shop.tables.\"PUBLIC.Users\"]\n[connectors.shop.tables.'\"Public\".\"Weird.Name\"']\n";
    assert_eq!(
        mistakes_in(text),
        [
            "8: connectors.shop.tables.my-table: is not a table's name as SQL writes it; quote each part that is more \
             than letters, digits and underscores: '\"Weird.Schema\".\"my-table\"'",
            "9: connectors.shop.tables.\"*\": names no schema; write `public.*` for all tables of a schema",
            "10: connectors.shop.tables.\"PUBLIC.Users\": names the same as `connectors.shop.tables.users`; keep one \
             of the two"
        ]
    );
}

#[test]
fn keys_and_columns_do_not_contradict_each_other() {
    let text = "[connectors.shop.tables.a]\nkey = [\"id\", \"id\"]\nexclude_columns = [\"id\", \"x\"]\n\
                columns = { x = \"string\", y = \"int\" }\n[connectors.shop.tables.b]\nkey = []\n\
                [connectors.shop.tables.c]\nkey = \"id\"\nexclude_columns = [1, \"\"]\n";
    assert_eq!(
        mistakes_in(text),
        [
            "9: connectors.shop.tables.a.key[1]: `id` is there twice; keep one of the two",
            "9: connectors.shop.tables.a.key: `id` is excluded, and so cannot be a part of the key; take it out of \
             `key` or of `exclude_columns`",
            "11: connectors.shop.tables.a.columns.x: is excluded, and so cannot be written; take it out of `columns` \
             or of `exclude_columns`",
            "11: connectors.shop.tables.a.columns.y: `int` is not a choice; there is only `\"string\"`: Postgres's \
             own text, whatever the column's type",
            "13: connectors.shop.tables.b.key: is empty: every row would have the same key; name its columns, or \
             leave it out for the primary key",
            "15: connectors.shop.tables.c.key: must be a list of strings, like [\"id\"]; this is a string",
            "16: connectors.shop.tables.c.exclude_columns[0]: must be a string; this is an integer"
        ]
    );
}

#[test]
fn a_connector_without_tables_captures_nothing() {
    let text = "[connectors.b]\ndatabase_url = \"postgres://u@h/d\"\n";
    assert_eq!(
        mistakes_in(text),
        ["8: connectors.b.tables: no table is captured; add `[connectors.b.tables.\"public.*\"]`, or one such \
             entry for each table"]
    );
}

#[test]
fn properties_that_a_promise_rests_on_are_refused() {
    let text = BASE.replace(
        "[registry]",
        "[kafka.properties]\n\"transactional.id\" = \"x\"\n\"enable.idempotence\" = false\nacks = 1\n\
         partitioner = \"random\"\n\"delivery.report.only.error\" = false\n\"bootstrap.servers\" = \"h:1\"\n\
         \"isolation.level\" = \"read_uncommitted\"\n\"linger.mss\" = 1\n\"linger.ms\" = \"s3cr3t\"\n[registry]",
    );
    assert_eq!(
        mistakes(&text),
        [
            "4: kafka.properties.\"transactional.id\": not for you to set: tablecast derives it from the connector's \
             name, so that a second daemon fences the first; leave it out",
            "5: kafka.properties.\"enable.idempotence\": not for you to set: without idempotence records could come \
             twice or out of order; leave it out",
            "6: kafka.properties.acks: not for you to set: records that not all replicas hold could be lost after \
             Postgres has let go of them; leave it out",
            "7: kafka.properties.partitioner: not for you to set: another partitioner would send a key's later \
             records to another partition; leave it out",
            "8: kafka.properties.\"delivery.report.only.error\": not for you to set: a committed transaction is the \
             acknowledgement, and a report for each record would only cost time; leave it out",
            "9: kafka.properties.\"bootstrap.servers\": not for you to set: the brokers have a setting of their own; \
             write `kafka.bootstrap_servers`",
            "10: kafka.properties.\"isolation.level\": not for you to set: a position that was never committed must \
             not be read; leave it out",
            "11: kafka.properties.\"linger.mss\": librdkafka has no such property; see librdkafka's CONFIGURATION.md",
            "12: kafka.properties.\"linger.ms\": librdkafka does not take this value; see librdkafka's \
             CONFIGURATION.md for the values that it takes"
        ]
    );
}

#[test]
fn addresses_are_checked() {
    let text = "[kafka]\nbootstrap_servers = \"a:9092, b\"\n[registry]\nurl = \"ftp://u:s3cr3t@h\"\n[http]\n\
                listen = \":9187\"\n[topics]\npartitions = 0\nreplication_factor = -2\n";
    assert_eq!(
        mistakes(text),
        [
            "2: kafka.bootstrap_servers: `a:9092, b` is not a list of brokers; write `HOST:PORT`, several separated \
             by commas",
            "4: registry.url: is not an http or https URL; write `http://HOST:8081`, or \
             `https://USER:PASSWORD@HOST/apis/ccompat/v7`",
            "6: http.listen: `:9187` is not an IP address with a port; write `127.0.0.1:9187`, or `0.0.0.0:9187` for \
             all addresses",
            "8: topics.partitions: 0 is out of range; write a number between 1 and 100000",
            "9: topics.replication_factor: -2 is out of range; write a number between -1 and 32767"
        ]
    );
    for (url, problem) in [
        ("http://", "names no host"),
        ("http://h/?a=b", "is more than an address and a path"),
        ("http://u:a/b@h", "is more than an address and a path"),
    ] {
        let text = BASE.replace("http://127.0.0.1:8081/", url);
        assert!(mistakes(&text)[0].starts_with(&format!("4: registry.url: {problem}; ")), "{url}");
    }
}

#[test]
fn a_secret_is_in_no_message_and_in_no_debug() {
    // In every string setting at once, whatever becomes of it.
    let text = "[kafka]\nbootstrap_servers = \"${SECRET}\"\nproperties = { \"sasl.password\" = \"${SECRET}\", \
                \"linger.ms\" = \"${SECRET}\" }\n[registry]\nurl = \"${SECRET}\"\n[http]\nlisten = \"${SECRET}\"\n\
                [connectors.a]\ndatabase_url = \"${SECRET}\"\nslot = \"${SECRET}\"\ndelivery = \"${SECRET}\"\n\
                snapshot = \"${file:secret}\"\ntopic = \"${SECRET}\"\nbatch_max_bytes = \"${SECRET}\"\n\
                batch_max_latency = \"${file:secret}\"\ntables = { a = { columns = { x = \"${SECRET}\" } } }\n";
    let error = parse(text).unwrap_err();
    assert!(error.findings().len() >= 11, "{error}");
    assert!(!format!("{error} {error:?}").contains("s3cr3t"), "{error}");

    let text = BASE
        .replace("[registry]", "properties = { \"sasl.password\" = \"${SECRET}\" }\n[registry]")
        .replace("http://", "http://u:${file:secret}@")
        .replace("u@h", "u:${SECRET}@h");
    let config = parse(&text).map_err(|error| error.to_string()).unwrap();
    assert_eq!(config.registry.url, "http://u:s3cr3t@127.0.0.1:8081");
    assert!(!format!("{config:?}").contains("s3cr3t"));
}

#[test]
fn connectors_are_selected_by_name() {
    let config = parse(BASE).map_err(|error| error.to_string()).unwrap();
    let names = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        config.select(&names).map(|connectors| connectors.len()).map_err(|error| error.to_string())
    };
    assert_eq!(names(&[]), Ok(1));
    assert_eq!(names(&["shop", "shop"]), Ok(1));
    assert_eq!(names(&["shp"]), Err("the configuration has no connector `shp`; did you mean `shop`?".to_owned()));
    assert_eq!(names(&["x"]), Err("the configuration has no connector `x`; it has `shop`".to_owned()));
    let empty = Config { connectors: BTreeMap::new(), ..config.clone() };
    assert_eq!(empty.select(&[]).err(), Some(SelectError::NoConnector));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("no/such.toml")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no/such.toml: cannot be read: No such file or directory (os error 2); \
         name the file with `--config FILE` or `TABLECAST_CONFIG`"
    );
}

#[test]
fn every_setting_is_documented() {
    let docs = include_str!("../../docs/configuration.md");
    for settings in [written::ROOT, written::KAFKA, written::REGISTRY, written::HTTP, written::TOPICS] {
        settings.iter().for_each(|setting| assert!(docs.contains(setting), "{setting}"));
    }
    for setting in written::CONNECTOR.iter().chain(written::TABLE) {
        assert!(docs.contains(&format!("`{setting}`")), "{setting}");
    }
}

/// Pieces of configurations, so that the property test gets past the syntax.
fn piece() -> impl Strategy<Value = String> {
    let known = "(\\[kafka\\]|\\[connectors\\.a\\]|\\[connectors\\.a\\.tables\\.b\\]|\\[\\[topics\\]\\]|\n|=|\"|'|\
                 \\$\\{|\\}|database_url|postgres://|@|\\?|%|key|topic|tables|properties|partitions|-?[0-9]{1,20}\
                 |true|\\[|\\]|\\{|,| )";
    prop_oneof![4 => proptest::string::string_regex(known).unwrap(), 1 => "\\PC{0,4}"]
}

proptest! {
    #[test]
    fn parsing_never_panics(pieces in proptest::collection::vec(piece(), 0..60)) {
        let _ = parse(&pieces.concat());
    }

    #[test]
    fn no_value_of_a_setting_panics(value in "\\PC{0,40}", key in proptest::sample::select(written::CONNECTOR)) {
        let value = toml::Value::String(value);
        let _ = parse(&format!("{BASE}[connectors.b]\n{key} = {value}\n"));
        let _ = parse(&BASE.replace("\"postgres://u@h/d\"", &value.to_string()));
    }
}
