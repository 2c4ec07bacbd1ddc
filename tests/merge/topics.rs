//! What is in the topics, as an independent `read_committed` consumer sees it.

use rdkafka::Message;

use super::decode::Decoder;
use super::history::{Histories, Rows, Seen};
use super::support::connector::variable;
use super::support::topic::read_raw;

/// A topic from its beginning to its end.
pub struct Topic {
    pub histories: Histories,
    /// The last value of each key.
    pub folded: Rows,
    pub records: usize,
}

/// Reads a topic whose values have these columns.
pub fn read(topic: &str, columns: &[&str]) -> Topic {
    let mut decoder = Decoder::new(variable("TABLECAST_REGISTRY"));
    let mut read = Topic { histories: Histories::new(), folded: Rows::new(), records: 0 };
    read_raw(topic, |message| {
        let key = decoder.decode(message.key().expect("a record has a key"));
        let key: Vec<_> = key.into_iter().map(|(_, text)| text.expect("no column of a key is null")).collect();
        let key = key.join("/");
        let mut version = None;
        match message.payload().map(|payload| decoder.decode(payload)) {
            None => drop(read.folded.remove(&key)),
            Some(value) => {
                let names: Vec<_> = value.iter().map(|(name, _)| name.as_str()).collect();
                assert_eq!(names, columns, "the fields of a value in {topic}");
                version =
                    value.iter().find(|(name, _)| name == "version").and_then(|(_, text)| text.as_ref()?.parse().ok());
                assert!(version.is_some(), "a value has a version: {value:?}");
                read.folded.insert(key.clone(), value.into_iter().map(|(_, text)| text).collect());
            }
        }
        let seen = Seen { partition: message.partition(), offset: message.offset(), version };
        read.histories.entry(key).or_default().push(seen);
        read.records += 1;
    });
    read
}
