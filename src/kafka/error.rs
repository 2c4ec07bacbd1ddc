//! What can go wrong with Kafka, and whether it passes by itself.
//!
//! The kind is decided by librdkafka's error codes alone, never by the text of a message.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// A failure of Kafka.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the messages say they are")]
pub enum KafkaFault {
    /// A call failed.
    #[error("{doing}: {source}")]
    Call {
        /// What was being done.
        doing: String,
        source: KafkaError,
    },
    /// librdkafka reported the reason of a failed call apart from the call.
    #[error("{doing}: {reason} ({code})")]
    Reported { doing: String, code: Code, reason: String },
    /// Nothing moved for too long.
    #[error("{doing}: no progress for {seconds} s; {last}")]
    Stalled { doing: String, seconds: u64, last: String },
    /// A broker refused a record.
    #[error("topic {topic:?} did not take a record of {bytes} bytes, key {key}: {code}")]
    Record {
        topic: String,
        /// In words.
        key: String,
        /// As it was written.
        key_bytes: Vec<u8>,
        bytes: usize,
        code: Code,
    },
    /// What is stored in the positions topic can't be read.
    #[error("the stored position of connector {connector:?} at offset {offset} of {topic} can't be read: {source}")]
    StoredPosition { connector: String, topic: &'static str, offset: i64, source: serde_json::Error },
    /// A topic isn't as it has to be.
    #[error("{0}")]
    Topic(#[from] super::topics::TopicFault),
    /// A defect: a record lacks a value that is still to be looked up.
    #[error(
        "a batch was to be written while values of it were still missing; this is a defect of tablecast: please report it"
    )]
    Incomplete,
    /// The sink's thread ended without a word.
    #[error("the Kafka sink ended unexpectedly")]
    SinkGone,
}

impl KafkaFault {
    /// Names what was being done when `source` came up.
    pub fn call(doing: impl Into<String>) -> impl FnOnce(KafkaError) -> KafkaFault {
        let doing = doing.into();
        move |source| KafkaFault::Call { doing, source }
    }

    /// The same, with a record's key as `show` reads it: here it is only bytes.
    #[must_use]
    pub fn with_key(mut self, show: impl FnOnce(&[u8]) -> Option<String>) -> KafkaFault {
        if let KafkaFault::Record { key, key_bytes, .. } = &mut self
            && let Some(shown) = show(key_bytes)
        {
            *key = shown;
        }
        self
    }

    /// librdkafka's code, where there is one.
    pub fn code(&self) -> Option<Code> {
        match self {
            KafkaFault::Call { source: KafkaError::Transaction(error), .. } => Some(error.code()),
            KafkaFault::Call { source, .. } => source.rdkafka_error_code(),
            KafkaFault::Reported { code, .. } | KafkaFault::Record { code, .. } => Some(*code),
            KafkaFault::Topic(fault) => fault.code(),
            _ => None,
        }
    }

    /// Whether a new start may succeed with nothing changed by anybody.
    pub fn is_transient(&self) -> bool {
        match self {
            KafkaFault::StoredPosition { .. } | KafkaFault::Incomplete => false,
            KafkaFault::Topic(fault) if fault.code().is_none() => false,
            KafkaFault::Call { source: KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_), .. } => false,
            _ => self.code().is_none_or(|code| !is_definite(code)),
        }
    }

    /// Whether it is that the topic isn't there.
    pub fn is_missing_topic(&self) -> bool {
        matches!(self.code(), Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition))
    }

    /// Whether it may be that the topic was created a moment ago: not every broker knows it, or who leads it.
    pub(super) fn is_new_topic(&self) -> bool {
        let no_leader = matches!(self.code(), Some(Code::LeaderNotAvailable | Code::NotLeaderForPartition));
        no_leader || self.is_missing_topic()
    }

    /// What to do about it, for the codes that have an answer.
    pub fn remedy(&self) -> Option<String> {
        if let KafkaFault::Topic(fault) = self {
            return fault.remedy();
        }
        if let KafkaFault::StoredPosition { connector, .. } = self {
            return Some(format!(
                "another version of tablecast, or another program, wrote it: run that version, or start over with \
                 `tablecast teardown {connector}` and empty topics"
            ));
        }
        let remedy = match self.code()? {
            Code::Authentication | Code::SaslAuthenticationFailed => {
                "check sasl.username, sasl.password and sasl.mechanism in [kafka] properties"
            }
            Code::TopicAuthorizationFailed => {
                "grant the Kafka user DESCRIBE, CREATE, READ and WRITE on the topic, and on _tablecast_positions"
            }
            Code::TransactionalIdAuthorizationFailed => {
                "grant the Kafka user DESCRIBE and WRITE on the transactional id tablecast-<connector>"
            }
            Code::ClusterAuthorizationFailed => "grant the Kafka user IDEMPOTENT_WRITE and CREATE on the cluster",
            Code::InvalidTransactionTimeout => {
                "the broker's transaction.max.timeout.ms is lower than tablecast's: set \"transaction.timeout.ms\" in \
                 [kafka] properties to at most the broker's value"
            }
            Code::MessageSizeTooLarge => {
                "raise max.message.bytes of the topic (and replica.fetch.max.bytes of the brokers), or leave the \
                 large column out with exclude_columns"
            }
            Code::SSL => "check the ssl.* settings in [kafka] properties",
            _ => return None,
        };
        Some(remedy.to_owned())
    }
}

/// Codes that stay until somebody changes something.
fn is_definite(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::InvalidTransactionTimeout
            | Code::MessageSizeTooLarge
            | Code::InvalidTopic
            | Code::InvalidReplicationFactor
            | Code::InvalidPartitions
            | Code::PolicyViolation
            | Code::InvalidRecord
            | Code::UnsupportedVersion
            | Code::UnsupportedCompressionType
            | Code::SSL
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(code: Code) -> KafkaFault {
        KafkaFault::Call { doing: "test".into(), source: KafkaError::Global(code) }
    }

    #[test]
    fn a_broker_that_is_away_passes_by_itself() {
        assert!(call(Code::AllBrokersDown).is_transient());
        assert!(call(Code::OperationTimedOut).is_transient());
        assert!(KafkaFault::SinkGone.is_transient());
    }

    #[test]
    fn a_missing_right_does_not_and_has_a_remedy() {
        let fault = call(Code::TopicAuthorizationFailed);
        assert!(!fault.is_transient());
        assert!(fault.remedy().unwrap().contains("WRITE"));
    }
}
