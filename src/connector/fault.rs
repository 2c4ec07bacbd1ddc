//! Why a run of a connector ended: every stage's error in one type, and the one table that says which of them pass by
//! themselves and what to do about those that don't.

use super::assembler::AssembleError;
use super::continuity::Gap;
use super::source::TableFault;
use crate::avro::{EncoderError, RegistryError};
use crate::kafka::KafkaFault;
use crate::kafka::sink::Ended;
use crate::pgoutput::DecodeError;
use crate::postgres::control::ControlError;
use crate::postgres::replication::ReplicationError;
use crate::postgres::tls::TlsError;
use crate::relation::ShapeError;
use crate::snapshot::SnapshotError;

/// Why a run ended.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text says what it is")]
pub enum Fault {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Replication(#[from] ReplicationError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    #[error(transparent)]
    Table(#[from] TableFault),
    #[error(transparent)]
    Shape(#[from] ShapeError),
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Gap(#[from] Gap),
    #[error(transparent)]
    Kafka(#[from] KafkaFault),
    #[error("the Kafka sink ended")]
    SinkEnded(#[from] Ended),
    #[error("Kafka did not take what was under way within {seconds} s of the end")]
    SinkStuck { seconds: u64 },
    #[error("table {table} is new to the stream: the connector starts anew to take it in")]
    NewTable { table: String },
    #[error("a captured table has changed: the connector starts anew to take that in")]
    TablesChanged,
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    #[error("a task of the connector ended without a word")]
    TaskGone,
    #[error("the connector was asked to stop")]
    Interrupted,
}

impl Fault {
    /// Whether a new start may succeed with nothing changed by anybody. What isn't transient stops the connector.
    pub fn is_transient(&self) -> bool {
        match self {
            Fault::Control(error) => {
                error.is_transient() || error.sqlstate().is_some_and(|state| CHANGING.contains(&state))
            }
            Fault::Replication(error) => error.is_transient(),
            Fault::Registry(error) => error.is_transient(),
            Fault::Encoder(error) => error.is_transient(),
            Fault::Snapshot(error) => error.is_transient(),
            Fault::Kafka(fault) => fault.is_transient(),
            Fault::SinkEnded(_)
            | Fault::SinkStuck { .. }
            | Fault::NewTable { .. }
            | Fault::TablesChanged
            | Fault::Thread(_)
            | Fault::TaskGone
            | Fault::Interrupted => true,
            Fault::Tls(_)
            | Fault::Decode(_)
            | Fault::Assemble(_)
            | Fault::Table(_)
            | Fault::Shape(_)
            | Fault::Gap(_) => false,
        }
    }

    /// Whether another daemon has the slot: then this one is its standby.
    pub fn is_slot_taken(&self) -> bool {
        matches!(self, Fault::Replication(error) if error.sqlstate() == Some(OBJECT_IN_USE))
    }

    /// What to do about it, where the error's own text doesn't say.
    pub fn remedy(&self, connector: &str) -> Option<String> {
        match self {
            Fault::Kafka(fault) => fault.remedy(),
            Fault::Gap(gap) => Some(gap.remedy(connector)),
            Fault::Table(fault) => Some(fault.remedy()),
            Fault::Snapshot(error) => error.remedy(),
            Fault::Replication(ReplicationError::PublicationGone(_) | ReplicationError::NoPublication { .. }) => {
                sqlstate_remedy(UNDEFINED_OBJECT, connector)
            }
            Fault::Replication(error) => sqlstate_remedy(error.sqlstate()?, connector),
            Fault::Control(error) => sqlstate_remedy(error.sqlstate()?, connector),
            Fault::Decode(_) | Fault::Assemble(AssembleError::OutOfOrder(_) | AssembleError::UnknownRelation(_)) => {
                Some("this is a defect of tablecast: please report it with the message above".to_owned())
            }
            _ => None,
        }
    }
}

/// SQLSTATE `object_in_use`: what START_REPLICATION answers while another has the slot.
const OBJECT_IN_USE: &str = "55006";

/// What a question to the catalog is answered while a table is dropped or renamed beside it: `undefined_table`, since a run
/// knows its tables' names from the catalog, and `internal_error` ("could not open relation"), since functions of the
/// catalog look past the question's snapshot. The next run looks again, and says what is missing if the configuration
/// asks for it.
const CHANGING: &[&str] = &["42P01", "XX000"];

/// SQLSTATE `undefined_object`: what a publication is that doesn't exist.
const UNDEFINED_OBJECT: &str = "42704";

fn sqlstate_remedy(sqlstate: &str, connector: &str) -> Option<String> {
    let remedy = match sqlstate {
        "28P01" | "28000" => "check user and password in database_url, and the server's pg_hba.conf".to_owned(),
        "3D000" => "check the database's name in database_url".to_owned(),
        "42501" => {
            "the login needs the REPLICATION attribute, SELECT on the mapped tables and, to create the publication, \
             CREATE on the database and ownership of the tables: `tablecast check` prints the SQL; and BYPASSRLS where a \
             table has row-level security, or its topic would lack rows"
                .to_owned()
        }
        "53400" => "raise max_replication_slots and max_wal_senders, or drop slots that nobody uses".to_owned(),
        "55000" => {
            "set wal_level = logical on the source and restart it; if that is set, look at the slot: `tablecast status`"
                .to_owned()
        }
        UNDEFINED_OBJECT => format!(
            "the publication is gone, or was made after the WAL that is to be read; start over: `tablecast teardown \
             {connector}`, delete the connector's topics, and run again"
        ),
        _ => return None,
    };
    Some(remedy)
}
