//! What the catalog queries say about real tables, types, publications, slots and servers.

use std::time::Duration;

use tablecast::lsn::Lsn;
use tablecast::postgres::catalog::{ReplicaIdentity, TableFacts, TableName, WalStatus};
use tablecast::postgres::control::Control;
use tokio_postgres::types::Type;

use crate::support::postgres::Database;

/// A database with what `sql` makes in it, and a control connection to it.
fn source(sql: &str) -> (Database, Control) {
    let database = Database::create();
    database.execute(sql);
    let control = database.block_on(Control::connect(&database.config())).unwrap();
    (database, control)
}

fn table(database: &Database, control: &Control, name: &str) -> TableFacts {
    let mut tables = database.block_on(control.tables("public", Some(name))).unwrap();
    assert_eq!(tables.len(), 1, "{name}");
    tables.remove(0)
}

fn oid(database: &Database, sql: &str) -> u32 {
    database.query(&format!("SELECT {sql}::oid")).unwrap().parse().unwrap()
}

#[test]
fn a_table_comes_with_its_live_columns_in_order() {
    let (database, control) = source(
        "CREATE TABLE users (id int8 PRIMARY KEY, gone text, name varchar(10), cents numeric(12, 2),
                             shout text GENERATED ALWAYS AS (upper(name)) STORED);
         ALTER TABLE users DROP COLUMN gone",
    );
    let users = table(&database, &control, "users");
    assert_eq!(users.oid, oid(&database, "'users'::regclass"));
    assert_eq!((users.relkind, users.persistence, users.is_partition), ('r', 'p', false));
    assert_eq!(users.replica_identity, ReplicaIdentity::Default);
    let columns: Vec<_> = users.columns.iter().map(|c| (c.name.as_str(), c.type_oid, c.typmod, c.generated)).collect();
    let expected =
        [("id", 20, -1, false), ("name", 1043, 14, false), ("cents", 1700, 786_438, false), ("shout", 25, -1, true)];
    assert_eq!(columns, expected);
}

#[test]
fn key_columns_come_in_the_order_of_the_index_without_those_it_only_includes() {
    let (database, control) = source(
        "CREATE TABLE pair (a int, b int, c int, note text, PRIMARY KEY (c, a) INCLUDE (note));
         CREATE TABLE other (a int NOT NULL, b int NOT NULL, c int, PRIMARY KEY (a));
         CREATE UNIQUE INDEX other_ba ON other (b, a) INCLUDE (c);
         ALTER TABLE other REPLICA IDENTITY USING INDEX other_ba;
         CREATE TABLE late (a int PRIMARY KEY DEFERRABLE);
         CREATE TABLE keyless (a int); ALTER TABLE keyless REPLICA IDENTITY FULL",
    );
    assert_eq!(table(&database, &control, "pair").primary_key, ["c", "a"]);
    let other = table(&database, &control, "other");
    assert_eq!(other.replica_identity, ReplicaIdentity::Index);
    assert_eq!((other.primary_key, other.replica_identity_index), (vec!["a".into()], vec!["b".into(), "a".into()]));
    assert!(table(&database, &control, "late").primary_key.is_empty());
    let keyless = table(&database, &control, "keyless");
    assert_eq!((keyless.replica_identity, keyless.primary_key.len()), (ReplicaIdentity::Full, 0));
}

#[test]
fn an_index_that_was_the_replica_identity_once_is_not_taken_for_it() {
    let (database, control) = source(
        "CREATE TABLE t (a int NOT NULL UNIQUE);
         ALTER TABLE t REPLICA IDENTITY USING INDEX t_a_key; ALTER TABLE t REPLICA IDENTITY DEFAULT",
    );
    assert!(table(&database, &control, "t").replica_identity_index.is_empty());
}

#[test]
fn a_partition_names_the_topmost_table() {
    let (database, control) = source(
        "CREATE TABLE events (id int, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
         CREATE TABLE events_eu PARTITION OF events FOR VALUES IN ('eu') PARTITION BY RANGE (id);
         CREATE TABLE events_eu_1 PARTITION OF events_eu FOR VALUES FROM (0) TO (9)",
    );
    let root = table(&database, &control, "events");
    assert_eq!((root.relkind, root.is_partition, root.partition_root), ('p', false, None));
    let leaf = table(&database, &control, "events_eu_1");
    assert_eq!((leaf.relkind, leaf.is_partition), ('r', true));
    assert_eq!(leaf.partition_root, Some(TableName::new("public", "events")));
    assert_eq!(leaf.primary_key, ["id", "region"]);
}

#[test]
fn a_schema_yields_its_tables_of_every_kind_and_no_views() {
    let (database, control) = source(
        r#"CREATE SCHEMA "Shop"; CREATE TABLE "Shop"."b" (); CREATE UNLOGGED TABLE "Shop"."A ""x""" ();
           CREATE VIEW "Shop".v AS SELECT 1; CREATE SEQUENCE "Shop".s; CREATE TABLE elsewhere ()"#,
    );
    let tables = database.block_on(control.tables("Shop", None)).unwrap();
    let found: Vec<_> = tables.iter().map(|t| (t.name.as_str(), t.persistence, t.columns.len())).collect();
    assert_eq!(found, [("A \"x\"", 'u', 0), ("b", 'p', 0)]);
    assert_eq!(database.block_on(control.tables("public", Some("b"))).unwrap(), []);
}

#[test]
fn types_come_with_all_that_is_below_them() {
    let (database, control) = source(
        "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN cents AS numeric(12, 2);
         CREATE DOMAIN price AS cents; CREATE DOMAIN prices AS price[]; CREATE TYPE pair AS (a int, b int)",
    );
    let [mood, prices, pair] = ["mood[]", "prices", "pair"].map(|name| oid(&database, &format!("'{name}'::regtype")));
    let types = database.block_on(control.types(&[mood, prices, pair, 600, 22, 4_000_000_000])).unwrap();
    let named = |name: &str| types.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no {name}: {types:?}"));

    let oid_of = |name: &str| named(name).oid;
    assert_eq!(named("_mood").element, Some(oid_of("mood")));
    assert_eq!((named("mood").typtype, named("mood").schema.as_str()), ('e', "public"));
    assert_eq!((named("prices").typtype, named("prices").element), ('d', None));
    assert_eq!(named("prices").base, Some((oid_of("_price"), -1)));
    assert_eq!(named("_price").element, Some(oid_of("price")));
    assert_eq!(named("price").base, Some((oid_of("cents"), -1)));
    assert_eq!(named("cents").base, Some((1700, 786_438)));
    assert_eq!((named("numeric").typtype, named("numeric").base), ('b', None));
    assert_eq!(named("pair").typtype, 'c');
    assert_eq!((named("point").element, named("int2vector").element), (None, None));
    assert_eq!(types.len(), 10);
}

#[test]
fn a_publication_that_was_created_is_as_tablecast_wants_it() {
    let (database, control) = source(
        r#"CREATE TABLE users (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
           CREATE SCHEMA "Shop"; CREATE TABLE "Shop"."order" (id int PRIMARY KEY);
           CREATE TABLE child () INHERITS (users);
           CREATE TABLE events (id int PRIMARY KEY) PARTITION BY RANGE (id);
           CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (9)"#,
    );
    let users = TableName::new("public", "users");
    let more = [TableName::new("Shop", "order"), TableName::new("public", "events")];
    database.block_on(async {
        assert_eq!(control.publication("my pub").await.unwrap(), None);
        control.create_publication("my pub", &[users]).await.unwrap();
        control.add_tables_to_publication("my pub", &more).await.unwrap();
        control.add_tables_to_publication("my pub", &[]).await.unwrap();
    });
    let publication = database.block_on(control.publication("my pub")).unwrap().unwrap();
    assert_eq!(publication.name, "my pub");
    assert!(publication.insert && publication.update && publication.delete && publication.truncate);
    assert!(publication.via_root && !publication.all_tables);
    assert_eq!(Some(publication.owner), database.query("SELECT current_user"));
    let names: Vec<_> = publication.tables.iter().map(|t| format!("{}.{}", t.schema, t.name)).collect();
    assert_eq!(names, ["Shop.order", "public.events", "public.users"]);
    let expected = control.is_at_least(15).then(|| vec!["id".to_owned()]);
    assert!(publication.tables.iter().all(|table| table.columns == expected && table.row_filter.is_none()));

    database.block_on(async {
        control.drop_publication("my pub").await.unwrap();
        control.drop_publication("my pub").await.unwrap();
        assert_eq!(control.publication("my pub").await.unwrap(), None);
    });
}

#[test]
fn column_lists_and_row_filters_are_told_from_version_15_on() {
    let (database, control) = source("CREATE TABLE users (id int PRIMARY KEY, name text, secret text)");
    if !control.is_at_least(15) {
        return;
    }
    database.execute("CREATE PUBLICATION p FOR TABLE users (name, id) WHERE (id > 5) WITH (publish = 'insert')");
    let publication = database.block_on(control.publication("p")).unwrap().unwrap();
    assert!(publication.insert && !publication.update && !publication.delete && !publication.truncate);
    let users = &publication.tables[0];
    assert_eq!(users.columns.as_deref().unwrap(), ["id", "name"]);
    assert_eq!(users.row_filter.as_deref(), Some("(id > 5)"));
}

#[test]
fn generated_columns_are_listed_where_the_publication_has_them() {
    let (database, control) = source("CREATE TABLE t (id int, twice int GENERATED ALWAYS AS (id * 2) STORED)");
    if !control.is_at_least(18) {
        return;
    }
    database.execute("CREATE PUBLICATION p FOR TABLE t WITH (publish_generated_columns = stored)");
    let publication = database.block_on(control.publication("p")).unwrap().unwrap();
    assert_eq!(publication.tables[0].columns.as_deref().unwrap(), ["id", "twice"]);
}

#[test]
fn a_publication_for_all_tables_says_so_and_lists_them() {
    let (database, control) = source("CREATE TABLE t (id int); CREATE PUBLICATION p FOR ALL TABLES");
    let publication = database.block_on(control.publication("p")).unwrap().unwrap();
    assert!(publication.all_tables && !publication.via_root);
    assert_eq!(publication.tables.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["t"]);
}

#[test]
fn a_slot_tells_where_it_stands_and_can_be_dropped_once() {
    let (database, control) = source("CREATE TABLE t (id int)");
    let name = format!("{}_slot", database.name);
    assert_eq!(database.block_on(control.slot(&name)).unwrap(), None);
    database.query(&format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')"));
    database.execute("INSERT INTO t SELECT generate_series(1, 1000)");

    let slot = database.block_on(control.slot(&name)).unwrap().unwrap();
    assert_eq!((slot.plugin.as_deref(), slot.slot_type.as_str()), (Some("pgoutput"), "logical"));
    assert_eq!(slot.database.as_ref(), Some(&database.name));
    assert!(!slot.active && slot.active_pid.is_none() && !slot.temporary && !slot.two_phase);
    assert_eq!((slot.wal_status, slot.invalidation_reason), (Some(WalStatus::Reserved), None));
    assert!(slot.restart_lsn.unwrap() <= slot.confirmed_flush_lsn.unwrap());
    assert!(slot.retained_bytes.unwrap() > 10_000);

    assert!(database.block_on(control.drop_slot(&name)).unwrap());
    assert!(!database.block_on(control.drop_slot(&name)).unwrap());
}

#[test]
fn the_server_tells_who_it_is_and_how_it_is_set_up() {
    let (database, control) = source("");
    let server = database.block_on(control.server()).unwrap();
    assert_eq!(Some(server.version_num.to_string()), database.query("SHOW server_version_num"));
    let identifier = database.query("SELECT system_identifier FROM pg_control_system()");
    assert_eq!(Some(server.system_identifier.to_string()), identifier);
    assert_eq!((server.timeline, server.in_recovery, server.wal_level.as_str()), (1, false, "logical"));
    assert!(server.current_wal_lsn > Lsn::ZERO);
    assert!(server.replication_slots <= server.max_replication_slots && server.max_replication_slots > 0);
    assert!(server.wal_senders <= server.max_wal_senders && server.max_wal_senders > 0);
    assert!(server.wal_sender_timeout.is_none_or(|timeout| timeout >= Duration::from_millis(1)));
    assert_eq!(server.max_slot_wal_keep_size, None);
    assert_eq!(server.database, database.name);
    assert!(server.is_superuser && server.may_replicate && server.may_create);
}

#[test]
fn whoever_is_not_superuser_sees_the_same_and_learns_what_is_missing() {
    let (database, control) = source(
        "CREATE TABLE open (id int PRIMARY KEY, secret text); CREATE TABLE closed (id int);
         CREATE PUBLICATION p FOR TABLE open",
    );
    let role = format!("{}_reader", database.name);
    database.execute(&format!("CREATE ROLE {role} LOGIN; GRANT SELECT (id) ON open TO {role}"));
    let mut config = database.config();
    config.user(&role);
    let reader = database.block_on(Control::connect(&config)).unwrap();
    let server = database.block_on(reader.server()).unwrap();
    assert_eq!((server.user.as_str(), server.is_superuser, server.may_replicate), (role.as_str(), false, false));
    assert!(!server.may_create && server.system_identifier > 0);
    assert!(database.block_on(reader.publication("p")).unwrap().is_some());

    let [open, closed] = ["open", "closed"].map(|name| table(&database, &reader, name));
    assert_eq!(open, table(&database, &control, "open"));
    let may = |table: &TableFacts, columns: &[&str]| {
        let columns: Vec<_> = columns.iter().map(|&name| name.to_owned()).collect();
        database.block_on(reader.has_select_privilege(table.oid, &columns)).unwrap()
    };
    assert!(may(&open, &["id"]));
    assert!(!may(&open, &["id", "secret"]) && !may(&open, &[]) && !may(&closed, &["id"]));
    let refused = database.block_on(reader.is_empty(&closed)).unwrap_err();
    assert_eq!((refused.sqlstate(), refused.is_transient()), (Some("42501"), false));

    drop(reader);
    database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn a_table_is_empty_until_a_row_is_in_it_or_in_a_partition() {
    let (database, control) = source(
        "CREATE TABLE parent (id int); CREATE TABLE child () INHERITS (parent); INSERT INTO child VALUES (1);
         CREATE TABLE events (id int) PARTITION BY RANGE (id);
         CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (9)",
    );
    let empty = |name: &str| {
        let table = table(&database, &control, name);
        database.block_on(control.is_empty(&table)).unwrap()
    };
    assert!(empty("parent") && !empty("child") && empty("events"));
    database.execute("INSERT INTO events VALUES (1)");
    assert!(!empty("events") && !empty("events_1"));
}

#[test]
fn columns_whose_values_may_be_out_of_the_row_are_told() {
    let (database, control) = source(
        "CREATE DOMAIN place AS text; CREATE DOMAIN price AS numeric(12, 2); CREATE DOMAIN net_price AS price;
         CREATE TABLE t (id int PRIMARY KEY, n numeric, p price, net net_price, addr inet, plain text, at place, body text,
             raw bytea);
         ALTER TABLE t ALTER plain SET STORAGE PLAIN, ALTER at SET STORAGE MAIN, ALTER raw SET STORAGE EXTERNAL;
         CREATE TABLE small (id int PRIMARY KEY, n numeric)",
    );
    let toastable = |name: &str| {
        let table = table(&database, &control, name).oid;
        database.block_on(control.toastable_columns(table)).unwrap()
    };
    assert_eq!(toastable("t"), ["at", "body", "raw"]);
    assert_eq!(toastable("small"), [""; 0]);
}

#[test]
fn a_query_takes_parameters_as_values() {
    let (database, control) = source("");
    let text = "it's; \"quoted\" \\";
    let row = database.block_on(control.query_one("testing", "SELECT $1", &[(&text, Type::TEXT)])).unwrap();
    assert_eq!(row.get::<_, &str>(0), text);
}
