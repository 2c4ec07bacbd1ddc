//! The publication: complete, or one that `run` can create.

use super::Look;
use crate::connector::source::{self, Source};
use crate::postgres::catalog::{ServerFacts, create_publication_sql};
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
            let faults = source::publication_faults(&publication, source);
            if faults.is_empty() {
                self.ok(&subject, format!("carries all changes of {} tables", source.tables.len()));
            }
            for fault in faults {
                self.fault(&subject, fault);
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
}
