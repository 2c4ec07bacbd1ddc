//! Kafka: whether it answers, the stored positions, the tables' topics.

use std::collections::BTreeMap;

use tokio::runtime::Handle;

use super::Look;
use crate::cli::finding::Finding;
use crate::cli::look;
use crate::connector::source::Source;
use crate::kafka::positions::{self, StoredPosition};
use crate::kafka::topics::{TopicFault, TopicState, Topics};
use crate::kafka::{Connection, KafkaFault, reader};

const SUBJECT: &str = "kafka";

/// Looks at what all connectors share, and gives the stored positions if they can be known.
pub(super) async fn look(
    connection: &Connection,
    connectors: impl IntoIterator<Item = &String>,
) -> (Vec<Finding>, Option<BTreeMap<String, StoredPosition>>) {
    let state = match states(connection, vec![positions::TOPIC.to_owned()]).await {
        Ok(mut states) => states.pop().unwrap_or(TopicState::Missing),
        Err(fault) => return (vec![of_fault(SUBJECT, &fault, connection)], None),
    };
    let mut findings = vec![Finding::ok(SUBJECT, format!("{} answers", connection.bootstrap_servers))];
    let subject = format!("kafka: topic {}", positions::TOPIC);
    findings.push(match state {
        TopicState::Missing => Finding::ok(&subject, "will be created"),
        TopicState::Compacted => Finding::ok(&subject, "compacted"),
        TopicState::NotCompacted(policy) => of_fault(&subject, &not_compacted(positions::TOPIC, policy), connection),
    });
    match look::positions(connection, connectors).await {
        Ok(positions) => (findings, Some(positions)),
        Err(fault) => {
            findings.push(of_fault(&subject, &fault, connection));
            (findings, None)
        }
    }
}

fn not_compacted(topic: &str, policy: String) -> KafkaFault {
    TopicFault::NotCompacted { topic: topic.to_owned(), policy }.into()
}

fn of_fault(subject: &str, fault: &KafkaFault, connection: &Connection) -> Finding {
    let unreachable = || format!("see that a broker listens at {} (bootstrap_servers)", connection.bootstrap_servers);
    let remedy = fault.remedy().map_or_else(unreachable, |remedy| with_servers(&remedy, connection));
    Finding::error(subject, fault.to_string(), remedy)
}

/// The command with the brokers filled in.
pub(super) fn with_servers(remedy: &str, connection: &Connection) -> String {
    remedy.replace("--bootstrap-server …", &format!("--bootstrap-server {}", connection.bootstrap_servers))
}

async fn states(connection: &Connection, topics: Vec<String>) -> Result<Vec<TopicState>, KafkaFault> {
    let (connection, handle) = (connection.clone(), Handle::current());
    look::blocking("asking Kafka for its topics", move || {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        handle.block_on(Topics::new(&connection)?.states(&names))
    })
    .await
}

impl Look<'_> {
    /// The tables' topics: compacted, or still to be created; and without a stored position, empty.
    pub(super) async fn topics(&mut self, source: &Source) {
        // What is wrong with Kafka has been said.
        let Some(stored) = self.stored() else { return };
        let must_be_empty = stored.is_none();
        let topics: Vec<String> = source.topics().into_iter().map(str::to_owned).collect();
        let states = match states(&self.shared.kafka, topics.clone()).await {
            Ok(states) => states,
            Err(fault) => return self.fault("topics", fault),
        };
        for (topic, state) in topics.into_iter().zip(states) {
            let subject = format!("topic {topic}");
            match state {
                TopicState::Missing => self.ok(&subject, "will be created"),
                TopicState::NotCompacted(policy) => self.fault(&subject, not_compacted(&topic, policy)),
                TopicState::Compacted if must_be_empty => self.emptiness(&subject, topic).await,
                TopicState::Compacted => self.ok(&subject, "compacted"),
            }
        }
    }

    async fn emptiness(&mut self, subject: &str, topic: String) {
        let (connection, name) = (self.shared.kafka.clone(), topic.clone());
        let is_empty = move || Ok(reader::first_with_records(&connection, &[&name])?.is_none());
        match look::blocking("reading a topic", is_empty).await {
            Ok(true) => self.ok(subject, "compacted, and empty"),
            Ok(false) => {
                let connector = self.connector.name.clone();
                self.fault(subject, KafkaFault::from(TopicFault::NotEmpty { topic, connector }));
            }
            Err(fault) => self.fault(subject, fault),
        }
    }
}
