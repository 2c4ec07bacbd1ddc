//! The configuration: one TOML file, as written → as meant ([`Config`]).
//!
//! Everything that can be known without a server is checked here, and every complaint names the line, the setting and
//! the remedy; all of them come at once. What needs a server to be checked is the business of `tablecast check`.
//!
//! A value that `${NAME}` or `${file:PATH}` brings in may be a secret: no message and no `Debug` shows it.

mod connector;
mod database;
mod error;
mod expand;
mod meant;
mod names;
mod services;
mod topic;
mod units;
mod written;

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::DeTable;

pub use error::{ConfigError, Mistake};
pub use expand::{Environment, ProcessEnvironment};
pub use meant::{
    BadName, Config, Connector, Delivery, Http, Kafka, Registry, SelectError, SnapshotMode, TableMapping, TablePattern,
    TopicDefaults, TopicTemplate,
};

use written::{Reader, Section};

impl Config {
    /// Reads the configuration file, with this process's environment.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let remedy = "name the file with `--config FILE` or `TABLECAST_CONFIG`";
            ConfigError::of_file(&name, format!("cannot be read: {error}"), remedy)
        })?;
        Config::parse(&text, &name, &ProcessEnvironment)
    }

    /// Reads a configuration. `file_name` is for messages, and relative paths start in its directory.
    pub fn parse(text: &str, file_name: &str, environment: &dyn Environment) -> Result<Config, ConfigError> {
        let directory = Path::new(file_name).parent().unwrap_or(Path::new(""));
        let mut reader = Reader::new(text, directory, environment);
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // What could be read of a broken file would only give findings that mislead.
            errors.iter().for_each(|error| reader.reject_syntax(error));
            return Err(ConfigError::new(file_name, reader.mistakes));
        }
        let config = mean(&mut reader, table.get_ref());
        match config {
            Some(config) if reader.mistakes.is_empty() => Ok(config),
            _ => Err(ConfigError::new(file_name, reader.mistakes)),
        }
    }
}

/// Reads all sections before it gives up, so that every mistake is found. `None` only if there is one.
fn mean(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Option<Config> {
    let root = Section::root(reader, table);
    let kafka = services::kafka(reader, &root);
    let registry = services::registry(reader, &root);
    let http = services::http(reader, &root);
    let topics = services::topics(reader, &root);
    let connectors = match root.named(reader, "connectors") {
        Some(section) => connector::connectors(reader, &section),
        None => BTreeMap::new(),
    };
    Some(Config { kafka: kafka?, registry: registry?, http, topics, connectors })
}

#[cfg(test)]
mod tests;
