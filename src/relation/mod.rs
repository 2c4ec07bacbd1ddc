//! What the bytes of a row mean: the shapes of tables, and their versions.
//!
//! A [`Shape`] is one version of a table's shape: which columns it has, of which types, which of them make the key, and
//! which of them are captured. It follows the Relation message that came with the rows in the stream, never a later
//! look at the catalog. The catalog only adds what the stream doesn't tell, and what DDL in between can't falsify:
//! the order of the key's columns (where the message flags the same set), and what lies below a type that isn't built
//! in. Where the catalog contradicts the message about the key, there is no shape but an error, or, if the rows will be
//! written again in any case, a provisional one.
//!
//! Two shapes are equal exactly if their rows mean the same, so a Relation message that is only sent again (after a
//! reconnect, or after DDL that changed nothing here) makes no new version.
//!
//! Every shape can name its key when a row is deleted: all columns of the key are covered by the replica identity and
//! captured. Whatever can't is refused, with the SQL that helps; a provisional shape knows none.

mod error;
mod from_catalog;
mod key;
mod names;
mod shape;
mod table_rows;
mod types;

#[cfg(test)]
mod tests;

pub use error::{ShapeError, ShapeProblem};
pub use from_catalog::relation_of;
pub use names::qualified;
pub use shape::{Column, Shape, ShapeOptions, Unrepresentable};
pub use table_rows::{RowColumn, TableRows};
#[cfg(test)]
pub(crate) use types::built_in_types;
pub use types::{ArrayKind, Kind, NumericLimits, PgType, TypeMap, needed_types};
