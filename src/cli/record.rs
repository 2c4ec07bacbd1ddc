//! A record of a topic as a line of JSON.

use std::collections::HashMap;

use rdkafka::message::Message;
use serde::Serialize;
use tokio::runtime::Handle;

use crate::avro::read::{Decoded, WriterSchema, schema_id};
use crate::avro::{Registry, RegistryError};
use crate::calendar::rfc3339;

/// What `tail` writes of a record.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    topic: String,
    partition: i32,
    offset: i64,
    /// RFC 3339, in UTC.
    timestamp: Option<String>,
    key: Option<Shown>,
    /// `None`: a tombstone.
    value: Option<Shown>,
}

/// A key or a value.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Shown {
    /// As the schema says that it was written with.
    Decoded(Decoded),
    /// Nobody knows what it is.
    Raw {
        /// The bytes, in hexadecimal digits.
        raw_hex: String,
    },
}

/// Decodes records with the schemas that they were written with.
pub(super) struct Decoder {
    registry: Registry,
    runtime: Handle,
    /// By id; `None`: the registry has no such Avro schema.
    schemas: HashMap<u32, Option<WriterSchema>>,
}

impl Decoder {
    pub fn new(registry: Registry, runtime: Handle) -> Decoder {
        Decoder { registry, runtime, schemas: HashMap::new() }
    }

    /// The line of a record. Fails only if the registry can't be asked: bytes that nobody understands are shown as they
    /// are.
    pub fn line(&mut self, message: &impl Message) -> Result<Line, RegistryError> {
        Ok(Line {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis().map(rfc3339),
            key: message.key().map(|key| self.show(key)).transpose()?,
            value: message.payload().map(|value| self.show(value)).transpose()?,
        })
    }

    fn show(&mut self, bytes: &[u8]) -> Result<Shown, RegistryError> {
        if let Some((id, datum)) = schema_id(bytes)
            && let Some(schema) = self.schema(id)?
            && let Ok(decoded) = schema.read(datum)
        {
            return Ok(Shown::Decoded(decoded));
        }
        Ok(Shown::Raw { raw_hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect() })
    }

    fn schema(&mut self, id: u32) -> Result<Option<&WriterSchema>, RegistryError> {
        if !self.schemas.contains_key(&id) {
            let schema = match self.runtime.block_on(self.registry.fetch(id)) {
                Ok(json) => WriterSchema::parse(&json).ok(),
                Err(RegistryError::Refused { .. }) => None,
                Err(error) => return Err(error),
            };
            self.schemas.insert(id, schema);
        }
        Ok(self.schemas.get(&id).and_then(Option::as_ref))
    }
}
