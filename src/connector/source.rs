//! What a connector finds at its source before it starts: the mapped tables, whether each can be captured, and the
//! publication. `run` refuses the first finding, `check` lists them all.

use crate::avro::key_schema;
use crate::config::{Connector, SnapshotMode, TableMapping, TablePattern};
use crate::kafka::positions::{SnapshotProgress, TableProgress};
use crate::kafka::progress::Reading;
use crate::kafka::shapes::fingerprint;
use crate::postgres::catalog::TableFacts;
use crate::postgres::control::{Control, ControlError};
use crate::postgres::sql::quote_ident;
use crate::relation::{Shape, ShapeError, ShapeOptions, TypeMap, Unrepresentable, qualified, relation_of};
use crate::snapshot::look_up_types;

/// What is wrong with a table, a publication or their mapping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text says what it is")]
pub enum TableFault {
    #[error("table {table} doesn't exist")]
    Missing { table: String },
    #[error("no table matches {pattern}")]
    NoMatch { pattern: String },
    #[error("table {table} is {what}: its changes are not in the WAL")]
    NotReplicated { table: String, what: &'static str },
    #[error("table {table} is a partition: Postgres publishes its changes as those of the partitioned table")]
    Partition { table: String },
    #[error("tables {first} and {second} are both mapped to topic {topic:?}")]
    SameTopic { topic: String, first: String, second: String },
    #[error("table {table} is not in publication {publication:?}: its changes would never arrive")]
    NotPublished { table: String, publication: String },
    #[error("publication {publication:?} is gone")]
    NoPublication { publication: String },
    #[error("publication {publication:?} leaves out {missing}: such changes would never arrive")]
    NotAllChanges { publication: String, missing: String },
    #[error("publication {publication:?} publishes partitions by themselves, and {table} is partitioned")]
    NotViaRoot { table: String, publication: String },
    #[error("topic {topic:?} of table {table} is gone, but the stored position says that it holds the table's rows")]
    TopicGone { table: String, topic: String },
    #[error(
        "table {table} was written to topic {stored:?}, the configuration names {now:?}: its rows are not in that one"
    )]
    TopicChanged { table: String, stored: String, now: String },
    #[error("table {table} is called {now} now, and the configuration doesn't map it by that name")]
    Renamed { table: String, now: String },
    #[error(
        "table {table} is another table than its topic was written from (it was dropped and created anew), and with \
         snapshot = \"never\" it isn't read again: the old rows would live on in the topic"
    )]
    OtherTable { table: String },
    #[error(
        "table {table} has been out of its publication, or that has carried not all of its changes, and with snapshot = \
         \"never\" it isn't read again: what was missed would be missing from the topic"
    )]
    ChangesMissed { table: String },
    #[error(
        "table {table} has the key ({now}), but its topic was written with ({stored}), and with snapshot = \"never\" it \
         isn't read again: the old keys would live on"
    )]
    KeyChanged { table: String, stored: String, now: String },
}

const START_OVER: &str = "start over: `tablecast teardown CONNECTOR`, delete the connector's topics, and run again";

impl TableFault {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            TableFault::Missing { .. } | TableFault::NoMatch { .. } => {
                "create it, or correct the name in [connectors.….tables]; names are folded and quoted as in SQL".into()
            }
            TableFault::NotReplicated { .. } => "take it out of [connectors.….tables]".into(),
            TableFault::Partition { .. } => "map the partitioned table instead".into(),
            TableFault::SameTopic { .. } => {
                "give one of them a topic of its own: [connectors.….tables.\"…\"] topic = \"…\"".into()
            }
            TableFault::NotPublished { table, publication } => {
                format!("ALTER PUBLICATION {} ADD TABLE {table};", quote_ident(publication))
            }
            TableFault::NoPublication { .. } => "run again: it is created where it is missing".to_owned(),
            TableFault::NotAllChanges { publication, .. } => format!(
                "ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate');",
                quote_ident(publication)
            ),
            TableFault::NotViaRoot { publication, .. } => {
                format!("ALTER PUBLICATION {} SET (publish_via_partition_root = true);", quote_ident(publication))
            }
            TableFault::TopicChanged { stored, .. } => format!("set topic = {stored:?} again, or {START_OVER}"),
            TableFault::Renamed { table, now } => format!(
                "map it by its new name, [connectors.….tables.'{now}'] instead of '{table}', with topic = \"…\" as it was: \
                 its rows stay; or with another topic, which starts anew"
            ),
            TableFault::KeyChanged { stored, .. } => format!(
                "set snapshot = \"initial\" for the table, and it is read again and the old keys are removed; or go back to \
                 the key ({stored})"
            ),
            TableFault::OtherTable { .. } => {
                "set snapshot = \"initial\" for the table, and it is read again and the old rows are removed".to_owned()
            }
            TableFault::ChangesMissed { .. } => {
                "set snapshot = \"initial\" for the table, and it is read again and what is older is removed".to_owned()
            }
            TableFault::TopicGone { .. } => START_OVER.to_owned(),
        }
    }
}

/// A table that is captured.
#[derive(Clone, Debug)]
pub struct Table {
    /// What the catalog knew when the run began.
    pub facts: TableFacts,
    /// What the configuration says of it.
    pub mapping: TableMapping,
    /// The topic it becomes.
    pub topic: String,
    /// Whether its topic is to start with the rows that it holds.
    pub snapshot: SnapshotMode,
    /// What becomes of a value that its Avro type can't hold.
    pub unrepresentable: Unrepresentable,
    /// The columns of the records' key, in the key's order, once its shape is known.
    pub key: Vec<String>,
}

impl Table {
    /// The name as SQL writes it.
    pub fn sql_name(&self) -> String {
        qualified(&self.facts.schema, &self.facts.name)
    }

    /// Whether the configuration maps it by its name, and not only by a pattern.
    pub fn is_mapped_by_name(&self) -> bool {
        matches!(self.mapping.pattern, TablePattern::Table { .. })
    }

    /// Refuses to go on with a topic that isn't this one, or, where the table isn't read again by itself, that was written
    /// from another table or with another key.
    pub fn check_written(&self, stored: &TableProgress) -> Result<(), TableFault> {
        let table = self.sql_name();
        if stored.topic != self.topic {
            return Err(TableFault::TopicChanged { table, stored: stored.topic.clone(), now: self.topic.clone() });
        }
        if self.snapshot != SnapshotMode::Never {
            return Ok(());
        }
        if stored.oid != self.facts.oid {
            return Err(TableFault::OtherTable { table });
        }
        if stored.key != self.key {
            let (stored, now) = (stored.key.join(", "), self.key.join(", "));
            return Err(TableFault::KeyChanged { table, stored, now });
        }
        Ok(())
    }

    /// The options that its mapping gives its shape.
    pub fn shape_options(&self) -> ShapeOptions<'_> {
        ShapeOptions {
            key: self.mapping.key.as_deref(),
            exclude_columns: &self.mapping.exclude_columns,
            string_columns: &self.mapping.string_columns,
            unrepresentable: self.unrepresentable,
        }
    }
}

/// What a connector captures.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// In the order of their names.
    pub tables: Vec<Table>,
}

impl Source {
    /// The names of the tables' topics.
    pub fn topics(&self) -> Vec<&str> {
        self.tables.iter().map(|table| table.topic.as_str()).collect()
    }
}

/// Finds the mapped tables; what can't be captured is left out and told.
pub async fn find(control: &Control, connector: &Connector) -> Result<(Source, Vec<TableFault>), ControlError> {
    let mut found: Vec<Table> = Vec::new();
    let mut faults = Vec::new();
    for mapping in &connector.tables {
        let (schema, name, by_name) = match &mapping.pattern {
            TablePattern::Table { schema, name } => (schema, Some(name.as_str()), true),
            TablePattern::Schema { schema } => (schema, None, false),
        };
        let candidates = control.tables(schema, name).await?;
        match (candidates.is_empty(), name) {
            (true, Some(name)) => faults.push(TableFault::Missing { table: qualified(schema, name) }),
            (true, None) => faults.push(TableFault::NoMatch { pattern: format!("{}.*", quote_ident(schema)) }),
            _ => {}
        }
        for facts in candidates {
            let winner = connector.mapping_for(&facts.schema, &facts.name);
            if winner.is_none_or(|winner| winner.pattern != mapping.pattern) {
                continue;
            }
            match unfit(&facts) {
                // A pattern takes what it can.
                Some(fault) if by_name => faults.push(fault),
                Some(fault) => tracing::debug!(connector = connector.name, %fault, "left out"),
                None => found.push(table(connector, mapping, facts)),
            }
        }
    }
    found.sort_by(|a, b| (&a.facts.schema, &a.facts.name).cmp(&(&b.facts.schema, &b.facts.name)));
    faults.extend(same_topic(&found));
    Ok((Source { tables: found }, faults))
}

fn table(connector: &Connector, mapping: &TableMapping, facts: TableFacts) -> Table {
    let template = mapping.topic.as_ref().unwrap_or(&connector.topic);
    Table {
        topic: template.render(&connector.name, &facts.schema, &facts.name),
        snapshot: mapping.snapshot.unwrap_or(connector.snapshot),
        unrepresentable: mapping.unrepresentable.unwrap_or(connector.unrepresentable),
        key: Vec::new(),
        mapping: mapping.clone(),
        facts,
    }
}

/// Why a table can't be captured, whatever its shape.
pub fn unfit(facts: &TableFacts) -> Option<TableFault> {
    let table = qualified(&facts.schema, &facts.name);
    let what = match (facts.relkind, facts.persistence) {
        ('f', _) => "a foreign table",
        ('r' | 'p', 'u') => "unlogged",
        ('r' | 'p', 't') => "temporary",
        ('r' | 'p', _) if facts.is_partition => return Some(TableFault::Partition { table }),
        ('r' | 'p', _) => return None,
        _ => "not a table",
    };
    Some(TableFault::NotReplicated { table, what })
}

fn same_topic(tables: &[Table]) -> Vec<TableFault> {
    let mut first_of = std::collections::HashMap::new();
    let mut faults = Vec::new();
    for table in tables {
        if let Some(first) = first_of.insert(&table.topic, table) {
            let (first, second) = (first.sql_name(), table.sql_name());
            faults.push(TableFault::SameTopic { topic: table.topic.clone(), first, second });
        }
    }
    faults
}

/// The shape that the table's next Relation message will announce, if nothing changes until then. A publication that isn't
/// there yet will carry all columns but the generated ones.
pub async fn shape(
    control: &Control,
    table: &Table,
    publication: &str,
) -> Result<Result<Shape, ShapeError>, ControlError> {
    let published = control.published(publication, table.facts.oid).await?;
    let relation = relation_of(&table.facts, published.columns.as_deref());
    let mut types = TypeMap::default();
    look_up_types(control, &relation, &mut types).await?;
    Ok(Shape::new(&relation, &table.facts, &types, &table.shape_options()))
}

/// The records' key as the catalog has the table now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its columns, in its order.
    pub columns: Vec<String>,
    /// The fingerprint of its schema, if that is known.
    pub schema: Option<u64>,
}

/// The key of a table of which these columns are published. The catalog is asked only for types that aren't built in, and
/// that `types` lacks.
pub async fn key(
    control: &Control,
    connector: &str,
    table: &Table,
    published: &[String],
    types: &mut TypeMap,
) -> Result<Result<Key, ShapeError>, ControlError> {
    let relation = relation_of(&table.facts, Some(published));
    look_up_types(control, &relation, types).await?;
    let shape = Shape::new(&relation, &table.facts, types, &table.shape_options());
    Ok(shape.map(|shape| Key {
        columns: shape.key_columns(),
        schema: key_schema(&shape, connector).as_deref().map(fingerprint),
    }))
}

/// What of a table that is new to the connector is in its topic.
pub fn first_progress(table: &Table) -> TableProgress {
    let snapshot = match table.snapshot {
        SnapshotMode::Never => SnapshotProgress::Never,
        SnapshotMode::Initial => SnapshotProgress::Reading(Reading::default()),
    };
    TableProgress { oid: table.facts.oid, topic: table.topic.clone(), key: table.key.clone(), snapshot, sweep: None }
}
