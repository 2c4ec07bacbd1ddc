//! The stored position: one record per connector in a compacted topic, written in the same Kafka transaction as the
//! records that it follows.

use std::collections::BTreeMap;

use rdkafka::message::Message;
use serde::{Deserialize, Serialize};

use super::client::Connection;
use super::error::KafkaFault;
use super::progress::Reading;
use super::reader::{self, Reader};
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
    /// How far the rows are in that the table held when the connector began.
    pub snapshot: SnapshotProgress,
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
    /// Makes a change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Snapshot { table, progress } => {
                if let Some(table) = self.tables.get_mut(&table) {
                    table.snapshot = progress;
                }
            }
            Change::Backfill { id, progress: Some(progress) } => {
                self.backfills.insert(id, progress);
            }
            Change::Backfill { id, progress: None } => {
                self.backfills.remove(&id);
            }
        }
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

/// Other connectors' positions are none of this one's business: they may be of another version's making.
fn read_committed(
    connection: &Connection,
    connectors: &[&str],
) -> Result<BTreeMap<String, StoredPosition>, KafkaFault> {
    let mut found: BTreeMap<&str, (i64, Vec<u8>)> = BTreeMap::new();
    Reader::new(connection, TOPIC)?.read_to_end(|message| {
        let key = message.key().unwrap_or_default();
        if let Some(connector) = connectors.iter().find(|connector| connector.as_bytes() == key) {
            match message.payload() {
                Some(value) => found.insert(connector, (message.offset(), value.to_vec())),
                None => found.remove(connector),
            };
        }
        true
    })?;
    let parse = |(connector, (offset, value)): (&str, (i64, Vec<u8>))| {
        let connector = connector.to_owned();
        match serde_json::from_slice(&value) {
            Ok(stored) => Ok((connector, stored)),
            Err(source) => Err(KafkaFault::StoredPosition { connector, topic: TOPIC, offset, source }),
        }
    };
    found.into_iter().map(parse).collect()
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
                },
            )]),
            backfills: BTreeMap::new(),
        };
        let json = concat!(
            r#"{"lsn":"16/B374D848","ordinal":3,"commit_time":1700000000000,"#,
            r#""system_identifier":"7300000000000000001","timeline":1,"database":"shop","slot":"tablecast_shop","#,
            r#""tables":{"public.users":{"oid":16384,"topic":"users","key":["id"],"snapshot":"done"}}}"#
        );
        assert_eq!(String::from_utf8(stored.to_bytes().unwrap()).unwrap(), json);
        assert_eq!(serde_json::from_str::<StoredPosition>(json).unwrap(), stored);
    }
}
