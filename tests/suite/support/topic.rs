//! Topics read back by a consumer that shares no code with the daemon but the Avro library.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::connector::variable;

/// A committed record, decoded: its fields in the schema's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub partition: i32,
    /// Milliseconds since 1970-01-01 UTC.
    pub timestamp: i64,
    pub key: Vec<(String, Value)>,
    /// `None` is a tombstone.
    pub value: Option<Vec<(String, Value)>>,
}

impl Record {
    /// The key and the value in short: `7` and `7 ann null`, or `-` for a tombstone.
    pub fn short(&self) -> String {
        let words =
            |fields: &[(String, Value)]| fields.iter().map(|(_, value)| word(value)).collect::<Vec<_>>().join(" ");
        format!("{}: {}", words(&self.key), self.value.as_ref().map_or("-".to_owned(), |value| words(value)))
    }
}

/// The records in short.
pub fn short(records: &[Record]) -> Vec<String> {
    records.iter().map(Record::short).collect()
}

/// A value in short.
pub fn word(value: &Value) -> String {
    match value {
        Value::Union(_, inner) => word(inner),
        Value::Null => "null".to_owned(),
        Value::Boolean(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Long(value) => value.to_string(),
        Value::String(value) => value.clone(),
        Value::Uuid(value) => value.to_string(),
        Value::Bytes(value) => value.iter().fold("\\x".to_owned(), |hex, byte| format!("{hex}{byte:02x}")),
        other => format!("{other:?}"),
    }
}

/// The client properties of a `read_committed` consumer.
pub fn consumer(isolation: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", variable("TABLECAST_KAFKA"))
        .set("group.id", "tests")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation)
        .set("fetch.wait.max.ms", "20")
        .create()
        .unwrap()
}

/// All committed records of a topic; none if there is no such topic.
pub fn read(topic: &str) -> Vec<Record> {
    let mut schemas = HashMap::new();
    let mut records = Vec::new();
    read_raw(topic, |message| {
        records.push(Record {
            partition: message.partition(),
            timestamp: message.timestamp().to_millis().unwrap(),
            key: decode(message.key().unwrap(), &mut schemas),
            value: message.payload().map(|payload| decode(payload, &mut schemas)),
        });
    });
    records
}

/// Gives each committed record of a topic as it is.
pub fn read_raw(topic: &str, mut each: impl FnMut(&BorrowedMessage<'_>)) {
    let consumer = consumer("read_committed");
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
    let mut assignment = TopicPartitionList::new();
    let mut open: Vec<i32> = metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect();
    for partition in &open {
        assignment.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    while !open.is_empty() {
        match consumer.poll(Duration::from_secs(10)) {
            Some(Ok(message)) => each(&message),
            Some(Err(KafkaError::PartitionEOF(ended))) => open.retain(|partition| *partition != ended),
            Some(Err(error)) => panic!("{error}"),
            None => panic!("{topic} can't be read to its end"),
        }
    }
}

/// The fields of a key or a value.
pub fn decode(bytes: &[u8], schemas: &mut HashMap<u32, Schema>) -> Vec<(String, Value)> {
    let (header, mut datum) = bytes.split_at(5);
    assert_eq!(header[0], 0, "Confluent's magic byte");
    let id = u32::from_be_bytes(header[1..].try_into().unwrap());
    let schema = schemas.entry(id).or_insert_with(|| Schema::parse_str(&schema(id)).unwrap());
    let Value::Record(fields) = GenericDatumReader::builder(schema).build().unwrap().read_value(&mut datum).unwrap()
    else {
        panic!("not a record");
    };
    assert!(datum.is_empty(), "bytes after the record");
    fields
}

/// A schema from the registry, by HTTP alone.
pub fn schema(id: u32) -> String {
    let url = format!("{}/schemas/ids/{id}", variable("TABLECAST_REGISTRY"));
    let output = std::process::Command::new("curl").args(["-sf", &url]).output().unwrap();
    let body: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    body["schema"].as_str().unwrap().to_owned()
}

/// The newest value of each key.
pub fn fold(records: &[Record]) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    for record in records {
        let short = record.short();
        let (key, value) = short.split_once(": ").unwrap();
        match record.value {
            Some(_) => rows.insert(key.to_owned(), value.to_owned()),
            None => rows.remove(key),
        };
    }
    rows
}

/// Leaves nothing behind: a broker with thousands of topics is slow.
#[allow(dead_code, reason = "for tests that leave nothing behind")]
pub async fn delete(topics: &[String]) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", variable("TABLECAST_KAFKA")).create().unwrap();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    admin.delete_topics(&names, &AdminOptions::new()).await.unwrap();
}
