//! The stored position: one record per connector in a compacted topic, written in the same Kafka transaction as the
//! records that it follows. Beside it stands a record for each table with what its topic was written under
//! ([`shapes`](super::shapes)), which is written only when it changes. Where there are no Kafka transactions, a crash
//! between the two must leave a table to be read once more rather than once too little; the sink orders them by that.

use std::collections::BTreeMap;

use rdkafka::message::Message;
use serde::{Deserialize, Serialize};

use super::client::Connection;
use super::error::KafkaFault;
use super::progress::Reading;
use super::reader::{self, Reader};
use super::shapes::{Announced, TableShape};
use crate::position::Position;

/// The compacted topic of the positions, keyed by connector.
pub const TOPIC: &str = "_tablecast_positions";

/// What is stored of a connector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPosition {
    /// All before it is in the topics.
    #[serde(flatten)]
    pub position: Position,
    /// Commit time of the last source transaction that is in, in milliseconds since 1970-01-01 UTC.
    pub commit_time: Option<i64>,
    /// Where the position was read.
    #[serde(flatten)]
    pub origin: Origin,
    /// Per table (`schema.table`, as in the catalog): what of it the topic started with.
    pub tables: BTreeMap<String, TableProgress>,
    /// Backfills that are under way, or that ended and whose request doesn't say so yet; by the request's id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub backfills: BTreeMap<i64, BackfillProgress>,
    /// Per table: what the rows of its topic were written under. In records of their own.
    #[serde(skip)]
    pub shapes: BTreeMap<String, TableShape>,
}

/// The stream to which a position belongs: in any other it means nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// `IDENTIFY_SYSTEM`'s, unique to a cluster and its standbys.
    pub system_identifier: String,
    /// `IDENTIFY_SYSTEM`'s: a promotion starts a new one.
    pub timeline: u32,
    /// The database that the slot is of.
    pub database: String,
    /// The replication slot.
    pub slot: String,
}

/// What of a table is in its topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableProgress {
    /// `pg_class.oid`: a table that was created anew has another.
    pub oid: u32,
    /// The topic that holds its rows.
    pub topic: String,
    /// The columns of the records' key, in the key's order: under another key, the old keys would live on.
    pub key: Vec<String>,
    /// How far the rows are in that the table held when the connector began, or when its reading began anew.
    pub snapshot: SnapshotProgress,
    /// Where the topic's partitions ended when the reading began, if what is older than that has to go when it is done:
    /// every row that the table has is written anew by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Vec<i64>>,
}

/// How far a table's first rows are in the topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotProgress {
    /// All rows that the table held when the connector began are in.
    Done,
    /// The configuration asked for none.
    Never,
    /// So far.
    Reading(Reading),
}

/// How far a backfill is in the topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillProgress {
    /// The table's name, as SQL writes it.
    pub table: String,
    /// `pg_class.oid`.
    pub oid: u32,
    /// How far.
    pub state: BackfillState,
}

/// How far a backfill is in the topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackfillState {
    /// All rows that were asked for are in: so many.
    Done {
        /// Rows that were written.
        rows: u64,
    },
    /// So far.
    Reading(Reading),
}

/// A change of what is stored besides the position; it travels with the batch that makes it true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Of a table's first rows.
    Snapshot {
        /// The table's name, as SQL writes it.
        table: String,
        /// How far they are.
        progress: SnapshotProgress,
    },
    /// Of a backfill.
    Backfill {
        /// The request's id.
        id: i64,
        /// How far it is; `None`: forget it, its request says how it ended.
        progress: Option<BackfillProgress>,
    },
    /// All rows of a topic agree with this shape: it takes the place of the former one, unless more versions have been
    /// announced since.
    Shape {
        /// The table's name, as SQL writes it.
        table: String,
        /// As the catalog has it.
        shape: Box<TableShape>,
        /// The versions that had been announced when it was compared.
        announced: Vec<Announced>,
    },
    /// Rows of a table are written under this version.
    Announced {
        /// The table's name, as SQL writes it.
        table: String,
        /// The version.
        announced: Announced,
    },
}

impl SnapshotProgress {
    /// Whether rows are missing.
    pub fn is_to_be_read(&self) -> bool {
        matches!(self, SnapshotProgress::Reading(_))
    }

    /// One word, for people.
    pub fn name(&self) -> &'static str {
        match self {
            SnapshotProgress::Done => "done",
            SnapshotProgress::Never => "never",
            SnapshotProgress::Reading(_) => "reading",
        }
    }
}

impl StoredPosition {
    /// Makes a change; gives the table whose shape has become another one.
    pub fn apply(&mut self, change: Change) -> Option<String> {
        match change {
            Change::Snapshot { table, progress } => {
                if let Some(table) = self.tables.get_mut(&table) {
                    if progress == SnapshotProgress::Done {
                        table.sweep = None;
                    }
                    table.snapshot = progress;
                }
            }
            Change::Shape { table, shape, announced } => {
                let known = self.shapes.get(&table).map_or(&[][..], |known| &known.announced);
                if known == announced {
                    self.shapes.insert(table.clone(), *shape);
                    return Some(table);
                }
            }
            Change::Announced { table, announced } => {
                return self.shapes.get_mut(&table)?.announce(&announced).then_some(table);
            }
            Change::Backfill { id, progress: Some(progress) } => {
                self.backfills.insert(id, progress);
            }
            Change::Backfill { id, progress: None } => {
                self.backfills.remove(&id);
            }
        }
        None
    }

    /// The record's value.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

/// The stored position of a connector, or `None`. Reads to the end of the topic, so what a fenced producer had
/// committed before is seen. Blocks.
pub fn read(connection: &Connection, connector: &str) -> Result<Option<StoredPosition>, KafkaFault> {
    reader::wait_until_settled(connection, TOPIC)?;
    Ok(read_committed(connection, &[connector])?.remove(connector))
}

/// What is committed of the connectors' stored positions now, without waiting for a transaction that is open; none if
/// the topic isn't there yet. For whoever only looks. Blocks.
pub fn look(connection: &Connection, connectors: &[&str]) -> Result<BTreeMap<String, StoredPosition>, KafkaFault> {
    match read_committed(connection, connectors) {
        Err(fault) if fault.is_missing_topic() => Ok(BTreeMap::new()),
        answer => answer,
    }
}

/// The key of the record of a table's shape. A connector's name has no slash.
pub fn shape_key(connector: &str, table: &str) -> String {
    format!("{connector}/{table}")
}

/// The tables of which a connector has a record. Blocks.
pub fn tables_with_shapes(connection: &Connection, connector: &str) -> Result<Vec<String>, KafkaFault> {
    let found = newest(connection, &[connector])?;
    Ok(found.into_keys().filter_map(|(_, table)| table).collect())
}

/// Other connectors' positions are none of this one's business: they may be of another version's making.
fn read_committed(
    connection: &Connection,
    connectors: &[&str],
) -> Result<BTreeMap<String, StoredPosition>, KafkaFault> {
    let mut positions: BTreeMap<String, StoredPosition> = BTreeMap::new();
    // In order: a connector's own record comes before those of its tables.
    for ((connector, table), (offset, value)) in newest(connection, connectors)? {
        let unreadable =
            |source| KafkaFault::StoredPosition { connector: connector.clone(), topic: TOPIC, offset, source };
        match table {
            None => {
                let position = serde_json::from_slice(&value).map_err(unreadable)?;
                positions.insert(connector, position);
            }
            Some(table) => {
                if let Some(stored) = positions.get_mut(&connector) {
                    stored.shapes.insert(table, serde_json::from_slice(&value).map_err(unreadable)?);
                }
            }
        }
    }
    Ok(positions)
}

/// By connector and, for a shape, table: the offset and the value of the newest record.
type Newest = BTreeMap<(String, Option<String>), (i64, Vec<u8>)>;

fn newest(connection: &Connection, connectors: &[&str]) -> Result<Newest, KafkaFault> {
    let mut found = Newest::new();
    Reader::new(connection, TOPIC)?.read_to_end(|message| {
        let Ok(key) = std::str::from_utf8(message.key().unwrap_or_default()) else { return true };
        let (connector, table) = match key.split_once('/') {
            Some((connector, table)) => (connector, Some(table.to_owned())),
            None => (key, None),
        };
        if connectors.contains(&connector) {
            let key = (connector.to_owned(), table);
            match message.payload() {
                Some(value) => found.insert(key, (message.offset(), value.to_vec())),
                None => found.remove(&key),
            };
        }
        true
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;

    #[test]
    fn is_stored_as_json_that_a_person_can_read() {
        let stored = StoredPosition {
            position: Position { lsn: Lsn(0x16_B374_D848), ordinal: 3 },
            commit_time: Some(1_700_000_000_000),
            origin: Origin {
                system_identifier: "7300000000000000001".into(),
                timeline: 1,
                database: "shop".into(),
                slot: "tablecast_shop".into(),
            },
            tables: BTreeMap::from([(
                "public.users".into(),
                TableProgress {
                    oid: 16_384,
                    topic: "users".into(),
                    key: vec!["id".into()],
                    snapshot: SnapshotProgress::Done,
                    sweep: None,
                },
            )]),
            backfills: BTreeMap::new(),
            shapes: BTreeMap::new(),
        };
        let json = concat!(
            r#"{"lsn":"16/B374D848","ordinal":3,"commit_time":1700000000000,"#,
            r#""system_identifier":"7300000000000000001","timeline":1,"database":"shop","slot":"tablecast_shop","#,
            r#""tables":{"public.users":{"oid":16384,"topic":"users","key":["id"],"snapshot":"done"}}}"#
        );
        assert_eq!(String::from_utf8(stored.to_bytes().unwrap()).unwrap(), json);
        assert_eq!(serde_json::from_str::<StoredPosition>(json).unwrap(), stored);
    }

    fn announced(name: &str) -> Announced {
        Announced { columns: vec![(name.into(), 23, -1)], key: vec!["id".into()], ..Announced::default() }
    }

    #[test]
    fn a_shape_takes_the_place_of_the_former_one_only_if_all_that_was_announced_was_compared() {
        let mut stored: StoredPosition = serde_json::from_str(concat!(
            r#"{"lsn":"0/1","commit_time":null,"system_identifier":"7","timeline":1,"database":"d","slot":"s","#,
            r#""tables":{}}"#
        ))
        .unwrap();
        stored.shapes.insert("t".into(), TableShape { natts: 1, ..TableShape::default() });
        let note = |announced: &[Announced]| Change::Shape {
            table: "t".into(),
            shape: Box::new(TableShape { natts: 2, ..TableShape::default() }),
            announced: announced.to_vec(),
        };
        let changed = stored.apply(Change::Announced { table: "t".into(), announced: announced("a") });
        assert_eq!(changed.as_deref(), Some("t"));
        assert_eq!(stored.apply(note(&[])), None);
        assert_eq!(stored.shapes["t"].natts, 1);
        assert_eq!(stored.apply(note(&[announced("a")])).as_deref(), Some("t"));
        assert_eq!((stored.shapes["t"].natts, stored.shapes["t"].announced.len()), (2, 0));
        assert_eq!(stored.apply(Change::Announced { table: "gone".into(), announced: announced("a") }), None);
    }
}
