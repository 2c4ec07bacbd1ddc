//! The publication: complete, and following the configuration.
//!
//! It is created where it is missing. A table that the configuration maps and the publication lacks is added. One whose
//! rows a topic holds already has been taken out behind our back, or was dropped and created anew, and its changes since
//! then are lost: so it is read again, which follows from its membership being another one (`changes`), or refused where it
//! isn't to be read. A table that the connector has written and the configuration no longer maps is taken out again.

use std::collections::BTreeMap;

use super::fault::Fault;
use super::source::{Source, Table, TableFault};
use crate::config::{Connector, SnapshotMode};
use crate::kafka::positions::TableProgress;
use crate::postgres::catalog::{PublicationFacts, PublishedTable, TableName};
use crate::postgres::control::Control;
use crate::relation::qualified;

/// SQLSTATE `insufficient_privilege`.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// What keeps the publication from carrying all changes of the tables that it has.
pub fn faults(publication: &PublicationFacts, source: &Source) -> Vec<TableFault> {
    let name = || publication.name.clone();
    let mut faults = Vec::new();
    let published = [
        ("inserts", publication.insert),
        ("updates", publication.update),
        ("deletes", publication.delete),
        ("truncates", publication.truncate),
    ];
    let missing: Vec<&str> = published.iter().filter(|(_, there)| !there).map(|(what, _)| *what).collect();
    if !missing.is_empty() {
        faults.push(TableFault::NotAllChanges { publication: name(), missing: missing.join(", ") });
    }
    let partitioned = source.tables.iter().filter(|table| table.facts.relkind == 'p' && !publication.via_root);
    faults.extend(partitioned.map(|table| TableFault::NotViaRoot { table: table.sql_name(), publication: name() }));
    faults
}

/// Whether the publication has the table.
pub fn has(publication: &PublicationFacts, table: &Table) -> bool {
    let facts = &table.facts;
    // Without `publish_via_partition_root` a partitioned table isn't listed, whatever was added.
    let hidden = facts.relkind == 'p' && !publication.via_root;
    hidden
        || publication.tables.iter().any(|published| published.schema == facts.schema && published.name == facts.name)
}

/// Brings the publication in line with the configuration. A table that only a pattern maps and that can't be added is
/// left out of `source`, if it is new: one that somebody creates beside the others must not stop them.
pub async fn follow(
    control: &Control,
    connector: &Connector,
    source: &mut Source,
    stored: &BTreeMap<String, TableProgress>,
) -> Result<(), Fault> {
    let name = &connector.publication;
    let Some(publication) = control.publication(name).await? else {
        let publication = name.clone();
        return Err(TableFault::NoPublication { publication }.into());
    };
    for table in std::mem::take(&mut source.tables) {
        if has(&publication, &table) {
            source.tables.push(table);
            continue;
        }
        let is_new = !stored.contains_key(&table.sql_name());
        let (shown, fault) =
            (table.sql_name(), TableFault::NotPublished { table: table.sql_name(), publication: name.clone() });
        if !is_new && table.snapshot == SnapshotMode::Never {
            // What was missed meanwhile wouldn't be read.
            return Err(fault.into());
        }
        match control.add_tables_to_publication(name, &[table.facts.table_name()]).await {
            Ok(()) => {
                tracing::info!(
                    connector = connector.name,
                    publication = name,
                    table = shown,
                    "added to the publication"
                );
                source.tables.push(table);
            }
            Err(error) if error.sqlstate() != Some(INSUFFICIENT_PRIVILEGE) => return Err(error.into()),
            Err(_) if table.is_mapped_by_name() || !is_new => return Err(fault.into()),
            Err(_) => {
                let remedy = fault.remedy();
                tracing::warn!(connector = connector.name, table = shown, remedy, "left out: {fault}");
            }
        }
    }
    drop_unmapped(control, connector, &publication, stored).await;
    Ok(())
}

/// To go on sending what nobody wants costs the source; but nothing is wrong if it can't be helped.
async fn drop_unmapped(
    control: &Control,
    connector: &Connector,
    publication: &PublicationFacts,
    stored: &BTreeMap<String, TableProgress>,
) {
    let is_dropped = |table: &&PublishedTable| {
        connector.mapping_for(&table.schema, &table.name).is_none()
            && stored.contains_key(&qualified(&table.schema, &table.name))
    };
    for table in publication.tables.iter().filter(is_dropped) {
        let (name, shown) = (&publication.name, qualified(&table.schema, &table.name));
        match control.drop_table_from_publication(name, &TableName::new(&table.schema, &table.name)).await {
            Ok(()) => tracing::info!(
                connector = connector.name,
                publication = name,
                table = shown,
                "taken out of the publication: the configuration doesn't map it any more"
            ),
            Err(error) => tracing::warn!(
                connector = connector.name,
                publication = name,
                table = shown,
                %error,
                "the configuration doesn't map the table any more, but it stays in the publication"
            ),
        }
    }
}
