//! What would falsify a topic in silence is refused before anything is written; and neither the size of a record nor
//! that of a transaction gets in the way of the promises.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;

use crate::continuity::{assert_refused, stopped};
use crate::support::connector::{Connector, variable};
use crate::support::topic::{self, short};
use crate::support::wait_for;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";
const T: &str = "[connectors.NAME.tables.\"public.t\"]";
const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a shutdown may take, whatever is under way.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(15);
/// How long a reader may be held up after it; far below the timeout of a Kafka transaction.
const READABLE_WITHIN: Duration = Duration::from_secs(20);
/// How much more memory a transaction may take that is twenty times as large.
const MEMORY_MARGIN_KIB: usize = 24 * 1024;

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", variable("TABLECAST_KAFKA")).create().unwrap()
}

/// Creates a compacted topic that takes batches of at most so many bytes.
fn create_topic(connector: &Connector, topic: &str, max_message_bytes: &str) {
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1))
        .set("cleanup.policy", "compact")
        .set("max.message.bytes", max_message_bytes);
    let created = connector.database.block_on(admin().create_topics([&new], &AdminOptions::new())).unwrap();
    assert!(created.iter().all(Result::is_ok), "{created:?}");
}

/// Deletes a topic and waits until no broker knows it.
fn delete_topic(connector: &Connector, topic: &str) {
    let deleted = connector.database.block_on(admin().delete_topics(&[topic], &AdminOptions::new())).unwrap();
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    let consumer = topic::consumer("read_committed");
    wait_for("the topic to be gone", || {
        let metadata = consumer.fetch_metadata(None, KAFKA_TIMEOUT).unwrap();
        metadata.topics().iter().all(|there| there.name() != topic).then_some(())
    });
}

/// The sum of the ends of a topic's partitions: the high watermarks, or, `read_committed`, the last stable offsets.
fn end(topic: &str, isolation: &str) -> i64 {
    let consumer = topic::consumer(isolation);
    let metadata = consumer.fetch_metadata(Some(topic), KAFKA_TIMEOUT).unwrap();
    let partitions = metadata.topics()[0].partitions().iter();
    partitions.map(|partition| consumer.fetch_watermarks(topic, partition.id(), KAFKA_TIMEOUT).unwrap().1).sum()
}

/// How many committed records a topic holds, each of another key.
fn count_once(topic: &str) -> usize {
    let mut keys = HashSet::new();
    let mut count = 0;
    topic::read_raw(topic, |message| {
        keys.insert(message.key().unwrap().to_vec());
        count += 1;
    });
    assert_eq!(count, keys.len(), "some came twice");
    count
}

/// Inserts rows of some 200 bytes, all in one transaction.
fn insert(connector: &Connector, rows: std::ops::RangeInclusive<usize>) {
    let (first, last) = rows.into_inner();
    let sql = format!("INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series({first}, {last}) g");
    connector.database.execute(&sql);
}

/// A value of so many kilobytes that hardly compresses.
fn random_text(kilobytes: usize) -> String {
    let words = kilobytes * 1000 / 32;
    format!("(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, {words}))")
}

#[test]
fn a_topic_that_is_gone_is_not_created_anew_without_its_rows() {
    let connector = stopped();
    let topic = connector.topic("t");
    delete_topic(&connector, &topic);
    assert_refused(&connector, &["is gone, but the stored position says that it holds", &topic]);
    // A second try must not find the topic that the first has created.
    assert_refused(&connector, &["is gone, but the stored position says that it holds", &topic]);
}

#[test]
fn a_table_that_is_mapped_to_another_topic_than_before_is_refused() {
    let connector = stopped();
    connector.configure("", &format!("{T}\ntopic = \"NAME.elsewhere\""));
    assert_refused(&connector, &["was written to topic", &connector.topic("t")]);
    connector.configure("", T);
    let _daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (2, 'b')");
    assert_eq!(short(&connector.records("t", 2)), ["1: 1 a", "2: 2 b"]);
}

#[test]
fn a_table_that_was_dropped_and_created_anew_is_refused_where_no_table_is_read() {
    for back in [false, true] {
        let connector = stopped();
        connector.database.execute(&format!("DROP TABLE t; {TABLE}"));
        if back {
            connector.database.execute(&format!("ALTER PUBLICATION tablecast_{} ADD TABLE t", connector.name()));
        }
        connector.configure("snapshot = \"never\"", T);
        assert_refused(&connector, &["public.t", "is another table than its topic was written from"]);
        connector.records("t", 1);
    }
}

#[test]
fn a_table_that_comes_back_into_the_configuration_is_refused_while_its_topic_holds_old_rows() {
    let both = format!("{T}\n[connectors.NAME.tables.\"public.u\"]");
    let connector = Connector::configured(&format!("{TABLE}; CREATE TABLE u (id int PRIMARY KEY)"), "", &both);
    let daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t VALUES (1, 'a'); INSERT INTO u VALUES (1)");
    connector.records("u", 1);
    assert!(daemon.terminate().success());

    connector.configure("", T);
    let daemon = connector.start_streaming();
    // Nothing tells the topic of that.
    connector.database.execute("DELETE FROM u; INSERT INTO t VALUES (2, 'b')");
    connector.records("t", 2);
    connector.wait_until_caught_up();
    assert!(daemon.terminate().success());

    connector.configure("", &both);
    assert_refused(&connector, &["holds records already", &connector.topic("u")]);
}

#[test]
fn a_table_that_is_new_in_the_schema_does_not_stop_a_connector_whose_publication_lacks_it() {
    let connector = stopped();
    connector.database.execute("CREATE TABLE stranger (a int); INSERT INTO stranger VALUES (1)");
    let daemon = connector.start_streaming();
    daemon.wait_for_log("not in publication");
    assert!(daemon.log().contains("public.stranger"), "{}", daemon.log());
    connector.database.execute("INSERT INTO stranger VALUES (2); INSERT INTO t VALUES (2, 'b')");
    assert_eq!(short(&connector.records("t", 2)), ["1: 1 a", "2: 2 b"]);
    assert!(daemon.terminate().success());
}

#[test]
fn a_record_that_is_larger_than_its_topic_takes_stops_the_connector_with_the_setting() {
    let connector = Connector::of(TABLE);
    let topic = connector.topic("t");
    create_topic(&connector, &topic, "100000");
    let daemon = connector.start_streaming();
    connector.database.execute(&format!("INSERT INTO t VALUES (1, {})", random_text(300)));
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&topic) && log.contains("max.message.bytes"), "{log}");
    assert!(log.contains(r#"key {"id":1}"#) || log.contains(r#"key {\"id\":1}"#), "{log}");
    connector.records("t", 0);
}

#[test]
fn a_record_that_is_larger_than_all_buffers_arrives_where_its_topic_takes_it() {
    let connector = Connector::of(TABLE);
    let topic = connector.topic("t");
    create_topic(&connector, &topic, "30000000");
    let _daemon = connector.start_streaming();
    connector.database.execute(&format!("INSERT INTO t VALUES (1, {})", random_text(12_000)));
    connector.database.execute("INSERT INTO t VALUES (2, 'small')");
    let lengths = wait_for("both records", || {
        let mut lengths = Vec::new();
        topic::read_raw(&topic, |message| lengths.push(message.payload().unwrap().len()));
        (lengths.len() == 2).then_some(lengths)
    });
    assert!(lengths[0] > 12_000_000 && lengths[1] < 100, "{lengths:?}");
    let text = connector.database.query("SELECT v FROM t WHERE id = 1").unwrap();
    assert!(connector.records("t", 2)[0].short() == format!("1: 1 {text}"), "another text");
}

#[test]
fn sigterm_within_a_large_transaction_leaves_nothing_open_that_holds_up_readers() {
    const ROWS: usize = 400_000;
    let connector = Connector::of(TABLE);
    let topic = connector.topic("t");
    let daemon = connector.start_streaming();
    insert(&connector, 1..=ROWS);
    wait_for("the first rows", || (end(&topic, "read_uncommitted") > 0).then_some(()));
    assert_eq!(end(&topic, "read_committed"), 0, "no transaction is open");
    let began = Instant::now();
    assert_eq!(daemon.terminate().code(), Some(0));
    assert!(began.elapsed() < SHUTDOWN_WITHIN, "the shutdown took {:?}", began.elapsed());

    let ended = Instant::now();
    wait_for("the last stable offset to be the end", || {
        (end(&topic, "read_committed") == end(&topic, "read_uncommitted")).then_some(())
    });
    assert!(ended.elapsed() < READABLE_WITHIN, "readers were held up for {:?}", ended.elapsed());
    assert_eq!(count_once(&topic), 0, "the transaction was through already, or half of it is to be seen");

    let _daemon = connector.start_streaming();
    connector.wait_until_caught_up();
    assert_eq!(count_once(&topic), ROWS);
}

/// The most memory that a daemon has had that has seen one transaction of so many rows.
fn peak_memory_kib(rows: usize) -> usize {
    let connector = Connector::of(TABLE);
    let daemon = connector.start_streaming();
    insert(&connector, 1..=rows);
    connector.wait_until_caught_up();
    assert_eq!(count_once(&connector.topic("t")), rows);
    daemon.peak_memory_kib()
}

#[test]
fn memory_does_not_grow_with_the_size_of_a_transaction() {
    let (small, large) = (peak_memory_kib(20_000), peak_memory_kib(400_000));
    assert!(large < small + MEMORY_MARGIN_KIB, "{small} KiB with 20,000 rows, {large} KiB with 400,000");
}

/// The commit times in the stored positions of a connector: where its Kafka transactions ended.
fn stored_commit_times(connector: &Connector) -> BTreeSet<i64> {
    let mut times = BTreeSet::new();
    topic::read_raw("_tablecast_positions", |message| {
        if message.key() == Some(connector.name().as_bytes()) {
            let stored: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
            times.extend(stored["commit_time"].as_i64());
        }
    });
    times
}

#[test]
fn large_transactions_in_a_row_come_in_several_kafka_transactions_and_none_is_split() {
    const TRANSACTIONS: usize = 5;
    const ROWS: usize = 60_000;
    let connector = Connector::of(TABLE);
    assert!(connector.start_streaming().terminate().success());
    for number in 0..TRANSACTIONS {
        insert(&connector, number * ROWS + 1..=(number + 1) * ROWS);
    }
    let daemon = connector.start_streaming();
    connector.wait_until_caught_up();
    assert_eq!(count_once(&connector.topic("t")), TRANSACTIONS * ROWS);
    let ends = stored_commit_times(&connector);
    assert!(ends.len() >= TRANSACTIONS - 1, "{ends:?}");
    assert!(!daemon.log().contains("is split"), "{}", daemon.log());
}
