//! A run's encoders: each shape is compiled and registered once, whoever asks for it, the stream or the reading of a
//! table. Two that ask at the same moment both register it, which gives the same ids; then the first one's is taken.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;

use super::error::PlanError;
use super::plan::{Encoder, Plan};
use super::registry::{Registry, RegistryError};
use crate::relation::Shape;

/// So many shapes of a table are remembered: the stream may be behind what the catalog has.
const SHAPES_A_TABLE: usize = 4;

/// A shape can't be encoded, or not be registered.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    /// It has no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The registry doesn't take it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl EncoderError {
    /// Whether it may pass by itself.
    pub fn is_transient(&self) -> bool {
        matches!(self, EncoderError::Registry(error) if error.is_transient())
    }
}

/// The encoders of one run of a connector. A run has its own, since a registry may have forgotten what an earlier one
/// registered.
#[derive(Debug)]
pub struct Encoders {
    connector: String,
    registry: Registry,
    /// Where the registry's connections live: whoever asks may have a runtime of its own that sleeps.
    runtime: Handle,
    /// By relation. Not locked while the registry is asked, or whoever needs no answer would wait for one.
    shapes: Mutex<HashMap<u32, Vec<(Shape, Encoder)>>>,
}

impl Encoders {
    /// None yet.
    pub fn new(connector: String, registry: Registry, runtime: Handle) -> Self {
        Self { connector, registry, runtime, shapes: Mutex::default() }
    }

    /// The encoder of a shape that goes to `topic`.
    ///
    /// # Errors
    ///
    /// If the shape has no plan, or the registry doesn't take its schemas.
    pub async fn encoder(&self, shape: &Shape, topic: &str) -> Result<Encoder, EncoderError> {
        if let Some(encoder) = self.known(shape) {
            return Ok(encoder);
        }
        let plan = Plan::compile(shape, &self.connector)?;
        let key = self.register(format!("{topic}-key"), plan.key_schema().to_owned()).await?;
        let value = self.register(format!("{topic}-value"), plan.value_schema().to_owned()).await?;
        let encoder = plan.with_ids(key, value);
        let mut shapes = self.shapes();
        let shapes = shapes.entry(shape.oid).or_default();
        if let Some((_, first)) = shapes.iter().find(|(same, _)| same == shape) {
            return Ok(first.clone());
        }
        let (connector, table) = (&self.connector, shape.sql_name());
        tracing::info!(connector, table, topic, key_schema = key, value_schema = value, "table's shape is registered");
        if shapes.len() == SHAPES_A_TABLE {
            shapes.remove(0);
        }
        shapes.push((shape.clone(), encoder.clone()));
        Ok(encoder)
    }

    /// A key that one of them has written, in words; `None` if it wasn't one of them.
    pub fn show_key(&self, key: &[u8]) -> Option<String> {
        let encoder = self
            .shapes()
            .values()
            .flatten()
            .find_map(|(_, encoder)| encoder.wrote_key(key).then(|| encoder.clone()))?;
        encoder.show_written_key(key)
    }

    fn known(&self, shape: &Shape) -> Option<Encoder> {
        let shapes = self.shapes();
        let (_, encoder) = shapes.get(&shape.oid)?.iter().find(|(same, _)| same == shape)?;
        Some(encoder.clone())
    }

    fn shapes(&self) -> MutexGuard<'_, HashMap<u32, Vec<(Shape, Encoder)>>> {
        self.shapes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn register(&self, subject: String, schema: String) -> Result<u32, RegistryError> {
        let registry = self.registry.clone();
        let action = format!("registering {subject}");
        let task = self.runtime.spawn(async move { registry.register(&subject, &schema).await });
        task.await.unwrap_or_else(|gone| Err(RegistryError::Transient { action, reason: gone.to_string() }))
    }
}
