//! What the readers know of a table before they look, and how its types are looked up.

use crate::pgoutput::RelationMessage;
use crate::postgres::catalog::TableName;
use crate::postgres::control::{Control, ControlError};
use crate::relation::{ShapeOptions, TypeMap, Unrepresentable, needed_types};

/// A table that may be read.
#[derive(Clone, Debug)]
pub struct SnapshotTable {
    /// As the catalog has it.
    pub name: TableName,
    /// The name as SQL writes it, for messages.
    pub sql_name: String,
    /// `pg_class.oid`.
    pub oid: u32,
    /// The columns of its topic's key, in the key's order.
    pub key: Vec<String>,
    /// The key that its mapping names.
    pub mapped_key: Option<Vec<String>>,
    /// Columns that are not captured.
    pub exclude_columns: Vec<String>,
    /// Columns that are captured as text.
    pub string_columns: Vec<String>,
    /// What becomes of a value that its Avro type can't hold.
    pub unrepresentable: Unrepresentable,
}

impl SnapshotTable {
    /// The options that its mapping gives its shape.
    pub fn options(&self) -> ShapeOptions<'_> {
        ShapeOptions {
            key: self.mapped_key.as_deref(),
            exclude_columns: &self.exclude_columns,
            string_columns: &self.string_columns,
            unrepresentable: self.unrepresentable,
        }
    }
}

/// Adds the types to `types` that a relation needs and that aren't known yet, with those below them.
///
/// # Errors
///
/// If the catalog can't be asked.
pub async fn look_up_types(
    control: &Control,
    relation: &RelationMessage<'_>,
    types: &mut TypeMap,
) -> Result<(), ControlError> {
    loop {
        let needed: Vec<u32> = needed_types(relation, types).into_iter().collect();
        let found = if needed.is_empty() { Vec::new() } else { control.types(&needed).await? };
        if found.is_empty() {
            return Ok(());
        }
        types.extend(found.into_iter().map(|facts| (facts.oid, facts)));
    }
}
