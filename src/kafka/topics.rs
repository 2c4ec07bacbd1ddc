//! The topics: created compacted, and looked at before anything is written to them.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client::{Connection, Context};
use super::error::KafkaFault;

/// How long an administrative request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Segments of the positions topic: small, so that compaction, which spares the newest segment, keeps it small.
const POSITIONS_SEGMENT_BYTES: &str = "4194304";

/// What is wrong with a topic.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the messages say they are")]
pub enum TopicFault {
    /// Its old records would be deleted by age or size, and rows lost with them.
    #[error("topic {topic:?} has cleanup.policy={policy:?}: Kafka would delete rows that still live")]
    NotCompacted { topic: String, policy: String },
    /// It could not be created.
    #[error("topic {topic:?} could not be created: {code}")]
    NotCreated { topic: String, code: RDKafkaErrorCode },
    /// It holds records that no stored position accounts for.
    #[error(
        "topic {topic:?} holds records already, but connector {connector:?} has no stored position for its table: rows \
         deleted meanwhile would live on in it"
    )]
    NotEmpty { topic: String, connector: String },
}

impl TopicFault {
    pub(super) fn code(&self) -> Option<RDKafkaErrorCode> {
        match self {
            TopicFault::NotCreated { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(super) fn remedy(&self) -> Option<String> {
        Some(match self {
            TopicFault::NotCompacted { topic, .. } => format!(
                "kafka-configs.sh --bootstrap-server … --alter --entity-type topics --entity-name {topic} \
                 --add-config cleanup.policy=compact"
            ),
            TopicFault::NotCreated { topic, .. } => format!(
                "create it by hand with cleanup.policy=compact, or look at [topics] partitions and replication_factor \
                 and at the Kafka user's right to CREATE: kafka-topics.sh --bootstrap-server … --create --topic {topic} \
                 --config cleanup.policy=compact"
            ),
            TopicFault::NotEmpty { topic, .. } => format!(
                "map the table to a new topic, or delete this one if nobody needs it: kafka-topics.sh \
                 --bootstrap-server … --delete --topic {topic}"
            ),
        })
    }
}

/// How topics are created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewTopics {
    /// How many partitions.
    pub partitions: i32,
    /// -1 leaves it to the broker.
    pub replication_factor: i32,
}

/// A client for the administration of topics.
pub struct Topics {
    admin: AdminClient<Context>,
}

/// A topic as `check` sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicState {
    /// There is no such topic.
    Missing,
    /// It is as it has to be.
    Compacted,
    /// With its `cleanup.policy`.
    NotCompacted(String),
}

impl Topics {
    /// Makes the client; it connects by itself.
    pub fn new(connection: &Connection) -> Result<Self, KafkaFault> {
        let config = connection.reader_config(&[]);
        let admin = config
            .create_with_context(Context::default())
            .map_err(KafkaFault::call("making the Kafka admin client"))?;
        Ok(Self { admin })
    }

    fn client(&self) -> &Client<Context> {
        self.admin.inner()
    }

    /// The names of all topics; fails if no broker answers. Blocks.
    pub fn names(&self) -> Result<Vec<String>, KafkaFault> {
        const DOING: &str = "asking Kafka for its topics";
        let metadata = self.client().fetch_metadata(None, REQUEST_TIMEOUT).map_err(KafkaFault::call(DOING));
        let metadata = metadata.map_err(|fault| self.client().context().last_error.or(DOING, fault))?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// How each of the topics stands.
    pub async fn states(&self, topics: &[&str]) -> Result<Vec<TopicState>, KafkaFault> {
        let there = self.names()?;
        let known: Vec<_> = topics.iter().filter(|topic| there.iter().any(|name| name == **topic)).collect();
        let specifiers: Vec<_> = known.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let mut policies = std::collections::HashMap::new();
        if !specifiers.is_empty() {
            let described = self.admin.describe_configs(specifiers.iter(), &options()).await;
            let described = described.map_err(KafkaFault::call("asking Kafka for the topics' configuration"))?;
            for (topic, resource) in known.iter().zip(described) {
                let resource = resource.map_err(|code| KafkaFault::Call {
                    doing: format!("asking Kafka for the configuration of topic {topic:?}"),
                    source: KafkaError::AdminOp(code),
                })?;
                let policy = resource.get("cleanup.policy").and_then(|entry| entry.value.clone());
                policies.insert(**topic, policy.unwrap_or_default());
            }
        }
        let state = |topic: &&str| match policies.get(topic) {
            None => TopicState::Missing,
            Some(policy) if policy == "compact" => TopicState::Compacted,
            Some(policy) => TopicState::NotCompacted(policy.clone()),
        };
        Ok(topics.iter().map(state).collect())
    }

    /// Creates those of the topics that are missing, compacted, and refuses any that isn't compacted.
    pub async fn ensure(&self, topics: &[&str], new: NewTopics) -> Result<(), KafkaFault> {
        let mut missing = Vec::new();
        for (topic, state) in topics.iter().zip(self.states(topics).await?) {
            match state {
                TopicState::Compacted => {}
                TopicState::Missing => missing.push(*topic),
                TopicState::NotCompacted(policy) => {
                    return Err(TopicFault::NotCompacted { topic: (*topic).to_owned(), policy }.into());
                }
            }
        }
        let new_topic = |topic| new_topic(topic, new);
        self.create(missing.into_iter().map(new_topic).collect()).await
    }

    /// Creates the positions topic if it is missing.
    pub async fn ensure_positions(&self, new: NewTopics) -> Result<(), KafkaFault> {
        match self.states(&[super::positions::TOPIC]).await?.remove(0) {
            TopicState::Compacted => Ok(()),
            TopicState::NotCompacted(policy) => {
                Err(TopicFault::NotCompacted { topic: super::positions::TOPIC.to_owned(), policy }.into())
            }
            TopicState::Missing => {
                let new = NewTopics { partitions: 1, ..new };
                let topic = new_topic(super::positions::TOPIC, new)
                    .set("segment.bytes", POSITIONS_SEGMENT_BYTES)
                    .set("min.cleanable.dirty.ratio", "0.1");
                self.create(vec![topic]).await
            }
        }
    }

    async fn create(&self, topics: Vec<NewTopic<'_>>) -> Result<(), KafkaFault> {
        if topics.is_empty() {
            return Ok(());
        }
        let created = self.admin.create_topics(&topics, &options()).await;
        for result in created.map_err(KafkaFault::call("creating topics"))? {
            match result {
                // Another connector or the standby was faster.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(TopicFault::NotCreated { topic, code }.into()),
            }
        }
        Ok(())
    }
}

fn new_topic(topic: &str, new: NewTopics) -> NewTopic<'_> {
    NewTopic::new(topic, new.partitions, TopicReplication::Fixed(new.replication_factor))
        .set("cleanup.policy", "compact")
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}
