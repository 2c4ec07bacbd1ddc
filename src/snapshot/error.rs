//! Why a table can't be read.

use crate::avro::{EncodeError, EncoderError};
use crate::postgres::control::ControlError;
use crate::relation::ShapeError;

/// The reading of a table failed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Postgres, or the way to it, failed.
    #[error("table {table} can't be read: {source}")]
    Postgres {
        /// As SQL writes it.
        table: String,
        /// Why.
        source: ControlError,
    },
    /// It can't be captured as it is now.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// It was dropped.
    #[error("table {table} is gone")]
    Gone {
        /// As SQL wrote it.
        table: String,
    },
    /// Its schemas can't be made, or not be registered.
    #[error("table {table}: {source}")]
    Encoder {
        /// As SQL writes it.
        table: String,
        /// Why.
        source: EncoderError,
    },
    /// A defect.
    #[error("a reader of tables panicked; this is a defect of tablecast: please report it")]
    Panicked,
    /// A row can't be encoded.
    #[error("table {table}, key {key}: {source}")]
    Encode {
        /// As SQL writes it.
        table: String,
        /// The key in words.
        key: String,
        /// Why.
        source: Box<EncodeError>,
    },
}

impl SnapshotError {
    /// Whether it may pass by itself.
    pub fn is_transient(&self) -> bool {
        match self {
            SnapshotError::Postgres { source, .. } => source.is_transient(),
            SnapshotError::Encoder { source, .. } => source.is_transient(),
            SnapshotError::Shape(_)
            | SnapshotError::Encode { .. }
            | SnapshotError::Gone { .. }
            | SnapshotError::Panicked => false,
        }
    }

    /// What to do about it, where the text doesn't say.
    pub fn remedy(&self) -> Option<String> {
        match self {
            SnapshotError::Postgres { table, source } => match source.sqlstate()? {
                "42501" => Some(format!(
                    "GRANT SELECT ON {table} to the login of database_url (on the table, not on columns: to lock it \
                     while a chunk is read takes that), and USAGE on its schema; where the table has row-level security, \
                     the login needs BYPASSRLS, or the topic would lack rows"
                )),
                _ => None,
            },
            _ => None,
        }
    }
}
