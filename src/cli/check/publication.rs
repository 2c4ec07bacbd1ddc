//! The publication: complete, or one that `run` can create.

use super::Look;
use crate::connector::publication;
use crate::connector::source::{Source, Table, TableFault};
use crate::postgres::catalog::{PublicationFacts, ServerFacts, create_publication_sql};
use crate::postgres::control::{Control, ControlError};

impl Look<'_> {
    pub(super) async fn publication(
        &mut self,
        control: &Control,
        server: &ServerFacts,
        source: &Source,
    ) -> Result<(), ControlError> {
        let name = &self.connector.publication;
        let subject = format!("publication {name}");
        if let Some(publication) = control.publication(name).await? {
            let faults = publication::faults(&publication, source);
            let (there, missing): (Vec<_>, Vec<_>) =
                source.tables.iter().partition(|table| publication::has(&publication, table));
            if faults.is_empty() && !there.is_empty() {
                self.ok(&subject, format!("carries all changes of {} tables", there.len()));
            }
            for fault in faults {
                self.fault(&subject, fault);
            }
            for table in missing {
                self.missing(control, server, &subject, &publication, table).await?;
            }
            return Ok(());
        }
        let tables: Vec<_> = source.tables.iter().map(|table| table.facts.table_name()).collect();
        let oids: Vec<_> = source.tables.iter().map(|table| table.facts.oid).collect();
        let owns = control.owns(&oids).await?;
        if server.may_create && owns && !server.in_recovery {
            self.ok(&subject, "will be created");
            return Ok(());
        }
        let why = match (server.in_recovery, server.may_create) {
            (true, _) => "the source is a standby".to_owned(),
            (false, false) => format!("{} may not CREATE in database {:?}", server.user, server.database),
            (false, true) => format!("{} does not own all tables", server.user),
        };
        let remedy = format!("-- as the owner of the tables:\n{};", create_publication_sql(name, &tables));
        self.error(&subject, format!("is missing, and `run` can't create it: {why}"), remedy);
        Ok(())
    }

    /// A table that the publication lacks: `run` adds it, if it may.
    async fn missing(
        &mut self,
        control: &Control,
        server: &ServerFacts,
        subject: &str,
        publication: &PublicationFacts,
        table: &Table,
    ) -> Result<(), ControlError> {
        let name = &publication.name;
        let stored = self.stored().flatten().and_then(|stored| stored.tables.get(&table.sql_name()));
        let may = publication.owner == server.user || server.is_superuser;
        let fault = TableFault::NotPublished { table: table.sql_name(), publication: name.clone() };
        if may && control.owns(&[table.facts.oid]).await? && !server.in_recovery {
            let then = if stored.is_some() { ", and read again" } else { "" };
            self.ok(subject, format!("{} will be added{then}", table.sql_name()));
        } else if !table.is_mapped_by_name() && stored.is_none() {
            self.warning(subject, format!("left out: {fault}"), fault.remedy());
        } else {
            self.fault(subject, fault);
        }
        Ok(())
    }
}
