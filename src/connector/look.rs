//! The captured tables as the catalog has them now, in the form in which they are stored and compared.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Key, Table};
use crate::kafka::shapes::{ShapeColumn, TableShape};
use crate::postgres::catalog::TableState;
use crate::postgres::control::{Control, ControlError};
use crate::relation::qualified;

/// The states of these tables, by oid; those that are gone are missing.
pub async fn states<'t>(
    control: &Control,
    publication: &str,
    tables: impl IntoIterator<Item = &'t Table>,
) -> Result<BTreeMap<u32, TableState>, ControlError> {
    let oids: Vec<u32> = tables.into_iter().map(|table| table.facts.oid).collect();
    let states = control.table_states(publication, &oids).await?;
    Ok(states.into_iter().map(|state| (state.oid, state)).collect())
}

/// The published columns.
pub fn published(state: &TableState) -> Vec<String> {
    state.columns.iter().map(|column| column.name.clone()).collect()
}

/// What the rows of the table's topic should be written under; `None` if the publication lacks the table.
pub fn shape(table: &Table, key: &Key, state: &TableState) -> Option<TableShape> {
    let mapping = &table.mapping;
    let columns = state.columns.iter().filter(|column| !mapping.exclude_columns.contains(&column.name));
    let columns = columns.map(|column| ShapeColumn {
        number: column.number,
        name: column.name.clone(),
        type_oid: column.type_oid,
        typmod: column.typmod,
        as_text: mapping.string_columns.contains(&column.name),
        has_missing: column.has_missing,
        version: column.version.clone(),
    });
    Some(TableShape {
        oid: state.oid,
        name: qualified(&state.name.schema, &state.name.name),
        natts: state.natts,
        columns: columns.collect(),
        former: BTreeSet::new(),
        key: key.columns.clone(),
        key_schema: key.schema,
        partitioned: state.is_partitioned,
        heaps: state.heaps.clone(),
        links: state.links.clone(),
        labels: state.labels.clone(),
        composites: state.composites.clone(),
        membership: state.membership.clone()?,
        row_filter: state.row_filter.clone(),
        announced: Vec::new(),
    })
}
