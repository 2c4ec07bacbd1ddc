//! The configuration as meant: validated, defaults filled in, invalid states unrepresentable.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use super::names::{quoted, table_pattern};
use super::written::{list, nearest};
use crate::postgres::tls::TlsMode;
use crate::relation::Unrepresentable;

/// All that the configuration file says.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the records go.
    pub kafka: Kafka,
    /// Where their schemas go.
    pub registry: Registry,
    /// Where metrics, health and status are served; not at all if the file has no `[http]`.
    pub http: Option<Http>,
    /// What a topic is created with.
    pub topics: TopicDefaults,
    /// By name, in the order of the names.
    pub connectors: BTreeMap<String, Connector>,
}

/// How to reach Kafka. Its `Debug` shows the properties' names alone: a value may be a password.
#[derive(Clone)]
pub struct Kafka {
    /// `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// librdkafka properties, passed on as they are, over tablecast's own choices.
    pub properties: BTreeMap<String, String>,
}

/// How to reach the schema registry. Its `Debug` shows no credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Registry {
    /// Base URL of a Confluent-compatible API, without a slash at its end; may carry `user:password@`.
    pub url: String,
    /// Whether schemas are registered; otherwise what is registered is used.
    pub auto_register: bool,
}

/// The HTTP endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// The address and the port.
    pub listen: SocketAddr,
}

/// Defaults for the topics that tablecast creates.
#[derive(Clone, Debug)]
pub struct TopicDefaults {
    /// How many partitions; at least 1.
    pub partitions: i32,
    /// How many brokers hold each partition; -1 is the broker's own default.
    pub replication_factor: i32,
}

/// One connector: one slot, one publication, one `transactional.id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connector {
    /// Lower case letters, digits, `_` and `-`.
    pub name: String,
    /// Where the source is, and who logs in. Its `Debug` shows no password.
    pub database: tokio_postgres::Config,
    /// How the connection is encrypted; `database` knows the part of it that tokio-postgres has.
    pub tls: TlsMode,
    /// The replication slot; a name that Postgres takes.
    pub slot: String,
    /// The publication.
    pub publication: String,
    /// What a consumer may see after a crash.
    pub delivery: Delivery,
    /// Whether a new topic starts with the table's rows, unless the table's mapping says otherwise.
    pub snapshot: SnapshotMode,
    /// What becomes of a value that its Avro type can't hold, unless the table's mapping says otherwise.
    pub unrepresentable: Unrepresentable,
    /// Topic of the tables whose mapping names none.
    pub topic: TopicTemplate,
    /// In the order of the file; an exact name wins over a pattern.
    pub tables: Vec<TableMapping>,
    /// So many connections read tables beside the stream; at least 1.
    pub snapshot_readers: usize,
    /// What one of them reads at a time has about so many bytes of records.
    pub snapshot_chunk_bytes: usize,
    /// A Kafka transaction ends at the next source commit once it holds so many bytes of records.
    pub batch_max_bytes: usize,
    /// A Kafka transaction ends at the next source commit once it is so old, though input goes on.
    pub batch_max_latency: Duration,
    /// At most so often an idle connector stores a keepalive's position.
    pub position_interval: Duration,
    /// So often the tables are compared with the catalog.
    pub catalog_interval: Duration,
}

/// What a consumer may see after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Records and position in one Kafka transaction.
    ExactlyOnce,
    /// Idempotent producer; after a crash the records since the stored position come again.
    AtLeastOnce,
}

/// Whether a new topic starts with what its table holds already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotMode {
    /// It does.
    Initial,
    /// It starts with what changes from now on; the rows of before are never written.
    Never,
}

/// How tables become topics: one entry of `[connectors.NAME.tables]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMapping {
    /// Which tables it is for.
    pub pattern: TablePattern,
    /// `None`: the connector's.
    pub topic: Option<TopicTemplate>,
    /// `None`: primary key or replica identity index.
    pub key: Option<Vec<String>>,
    /// Columns that no record has.
    pub exclude_columns: Vec<String>,
    /// Columns that are written as Postgres's text, whatever their type.
    pub string_columns: Vec<String>,
    /// `None`: the connector's.
    pub snapshot: Option<SnapshotMode>,
    /// `None`: the connector's.
    pub unrepresentable: Option<Unrepresentable>,
}

/// Which tables an entry is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TablePattern {
    /// `public.users`
    Table {
        /// As the catalog has it: folded already.
        schema: String,
        /// As the catalog has it: folded already.
        name: String,
    },
    /// `public.*`
    Schema {
        /// As the catalog has it: folded already.
        schema: String,
    },
}

/// A topic's name with `{connector}`, `{schema}` and `{table}` to be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTemplate(pub(super) String);

impl TablePattern {
    /// Whether the entry is for this table.
    pub fn matches(&self, in_schema: &str, table: &str) -> bool {
        match self {
            TablePattern::Table { schema, name } => schema == in_schema && name == table,
            TablePattern::Schema { schema } => schema == in_schema,
        }
    }
}

/// A table's name, or a pattern, that SQL would not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {remedy}")]
pub struct BadName {
    /// What is wrong; a predicate without its subject.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl FromStr for TablePattern {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        table_pattern(text)
    }
}

/// As SQL writes it, quoted where it has to be.
impl fmt::Display for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TablePattern::Table { schema, name } => write!(f, "{}.{}", quoted(schema), quoted(name)),
            TablePattern::Schema { schema } => write!(f, "{}.*", quoted(schema)),
        }
    }
}

impl Connector {
    /// Whether the configuration maps a table of this name, as SQL writes it.
    pub fn maps(&self, table: &str) -> bool {
        match super::names::table_pattern(table) {
            Ok(TablePattern::Table { schema, name }) => self.mapping_for(&schema, &name).is_some(),
            _ => false,
        }
    }

    /// What the file says of a table: its own entry, or else the first pattern that takes it.
    pub fn mapping_for(&self, schema: &str, table: &str) -> Option<&TableMapping> {
        let matching = || self.tables.iter().filter(|mapping| mapping.pattern.matches(schema, table));
        matching().find(|mapping| matches!(mapping.pattern, TablePattern::Table { .. })).or_else(|| matching().next())
    }

    /// The topic of a table; `None` if the connector doesn't capture it.
    pub fn topic_for(&self, schema: &str, table: &str) -> Option<String> {
        let mapping = self.mapping_for(schema, table)?;
        Some(mapping.topic.as_ref().unwrap_or(&self.topic).render(&self.name, schema, table))
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.properties.keys().collect();
        f.debug_struct("Kafka").field("bootstrap_servers", &self.bootstrap_servers).field("properties", &names).finish()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.url.rsplit_once('@').map_or(self.url.as_str(), |(_, address)| address);
        f.debug_struct("Registry").field("url", &address).field("auto_register", &self.auto_register).finish()
    }
}

/// The command line names a connector that the file doesn't have, or the file has none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// There is nothing to choose from.
    #[error("the configuration has no connector; add `[connectors.NAME]`")]
    NoConnector,
    /// There is no connector of this name.
    #[error("the configuration has no connector `{name}`; {remedy}")]
    Unknown {
        /// The name as asked for.
        name: String,
        /// The nearest name, or all of them.
        remedy: String,
    },
}

impl Config {
    /// The connectors of these names, once each, in the order of the names; all of them if no name is given.
    pub fn select(&self, names: &[String]) -> Result<Vec<&Connector>, SelectError> {
        if self.connectors.is_empty() {
            return Err(SelectError::NoConnector);
        }
        for name in names {
            self.connector(name)?;
        }
        let is_asked_for = |connector: &&Connector| names.is_empty() || names.contains(&connector.name);
        Ok(self.connectors.values().filter(is_asked_for).collect())
    }

    /// The connector of this name.
    pub fn connector(&self, name: &str) -> Result<&Connector, SelectError> {
        if self.connectors.is_empty() {
            return Err(SelectError::NoConnector);
        }
        self.connectors.get(name).ok_or_else(|| {
            let known: Vec<_> = self.connectors.keys().map(String::as_str).collect();
            let remedy = match nearest(name, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it has {}", list(&known)),
            };
            SelectError::Unknown { name: name.to_owned(), remedy }
        })
    }
}
