//! The ecosystem reads what we write: `confluent-kafka`'s `AvroDeserializer`, as it comes, reads every topic.

use std::process::{Command, Stdio};

use super::cases::CASES;
use super::round_trip::Tables;

#[test]
fn the_deserializer_of_confluent_kafka_reads_every_type_without_special_settings() {
    let tables = Tables::streamed(CASES);
    let topics = tables.topics();
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/dev/consumer"));
    let output = command.args(topics.iter().map(|(topic, _)| topic)).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect::<Vec<_>>();
    assert_eq!(lines.len(), topics.len());
    for ((topic, records), line) in topics.iter().zip(&lines) {
        assert_eq!((line["topic"].as_str(), line["records"].as_u64()), (Some(topic.as_str()), Some(*records)));
    }
    // Each value is of the type that a reader in Python expects of the Avro type.
    let first = &lines[0]["first"];
    for (column, expected) in [
        ("boolean", "True"),
        ("int8", "0"),
        ("numeric_12_2", "Decimal('0.00')"),
        ("numeric", "'0'"),
        ("bytea", "b''"),
        ("uuid", "UUID('00000000-0000-0000-0000-000000000000')"),
        ("date", "datetime.date(1970, 1, 1)"),
        ("time", "datetime.time(0, 0)"),
        ("timestamptz", "datetime.datetime(1970, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)"),
        ("timestamp", "datetime.datetime(1970, 1, 1, 0, 0)"),
        ("interval", "'PT0S'"),
        ("hstore", "{}"),
        ("mood", "'sad'"),
    ] {
        assert_eq!(first[column], expected, "{column}");
    }
    let all = &lines[1]["second"];
    assert_eq!(all["boolean"], "[True, False, None]");
    assert_eq!(all["price"], "[Decimal('0.01'), Decimal('-999.99'), None]");
}
