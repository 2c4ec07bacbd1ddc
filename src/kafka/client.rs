//! How to reach Kafka: librdkafka's configuration, and what it says apart from its answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// How to reach Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// librdkafka properties of the configuration.
    pub properties: BTreeMap<String, String>,
}

impl Connection {
    /// librdkafka's configuration: `ours`, over it what the user set, over that `fixed`, which promises rest on.
    pub(super) fn client_config(&self, ours: &[(&str, &str)], fixed: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in ours {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        for (name, value) in fixed {
            config.set(*name, *value);
        }
        config.set("bootstrap.servers", &self.bootstrap_servers);
        config
    }

    /// The same, with only those of the user's properties that a consumer or an admin client knows.
    pub(super) fn reader_config(&self, fixed: &[(&str, &str)]) -> ClientConfig {
        let properties = self.properties.iter().filter(|(name, _)| !is_for_producers(name));
        let properties = properties.map(|(name, value)| (name.clone(), value.clone())).collect();
        Connection { bootstrap_servers: self.bootstrap_servers.clone(), properties }.client_config(&[], fixed)
    }
}

fn is_for_producers(property: &str) -> bool {
    const PREFIXES: [&str; 9] = [
        "queue.buffering.",
        "compression.",
        "transaction",
        "batch.",
        "linger.",
        "message.timeout.",
        "message.send.",
        "enable.idempotence",
        "retries",
    ];
    PREFIXES.iter().any(|prefix| property.starts_with(prefix))
}

/// The last error that librdkafka reported apart from any call, which often is the reason of a later timeout.
#[derive(Clone, Debug, Default)]
pub struct LastError(Arc<Mutex<Option<(RDKafkaErrorCode, String)>>>);

impl LastError {
    /// The error, if there was one.
    pub fn get(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets it: what is reported from now on belongs to the next call.
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Notes an error. One that passes by itself doesn't cover up one that doesn't.
    pub(super) fn set(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_telling = |code| !matches!(code, RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::Resolve);
        if is_telling(code) || !last.as_ref().is_some_and(|(code, _)| is_telling(*code)) {
            *last = Some((code, reason.to_owned()));
        }
    }

    /// In words, for the end of a message.
    pub(super) fn in_words(&self) -> String {
        self.get().map_or_else(|| "no broker answered".to_owned(), |(_, reason)| reason)
    }

    /// The fault to report where a call of ours has timed out: the reported error if there is one, else `otherwise`.
    pub(super) fn or(&self, doing: &str, otherwise: super::KafkaFault) -> super::KafkaFault {
        let timed_out = matches!(
            otherwise.code(),
            None | Some(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::BrokerTransportFailure)
        );
        match self.get() {
            Some((code, reason)) if timed_out => super::KafkaFault::Reported { doing: doing.to_owned(), code, reason },
            _ => otherwise,
        }
    }
}

/// librdkafka's callbacks, for any client.
#[derive(Clone, Debug, Default)]
pub struct Context {
    pub(super) last_error: LastError,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "tablecast::librdkafka", %error, reason);
        self.last_error.set(&error, reason);
    }
}

impl ConsumerContext for Context {}

/// librdkafka reports each attempt to connect; what matters reaches the user as a fault, so its log is for debugging.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "tablecast::librdkafka", facility, message);
        }
        _ => tracing::debug!(target: "tablecast::librdkafka", facility, message),
    }
}
