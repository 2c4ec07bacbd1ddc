//! The tables: each has to be there, to be fit for logical replication, and to have a key that a delete can name.

use super::Look;
use crate::connector::Fault;
use crate::connector::source::{self, Source, Table};
use crate::postgres::catalog::{ReplicaIdentity, ServerFacts, TableName};
use crate::postgres::control::{Control, ControlError};
use crate::postgres::sql::quote_ident;
use crate::relation::{Shape, qualified};

impl Look<'_> {
    /// All tables of the connector; gives those that can be captured.
    pub(super) async fn tables(&mut self, control: &Control, server: &ServerFacts) -> Result<Source, Fault> {
        let (mut source, faults) = source::find(control, self.connector).await?;
        for fault in faults {
            self.fault("tables", fault);
        }
        for table in &mut source.tables {
            let subject = format!("table {}", table.sql_name());
            match source::shape(control, table, &self.connector.publication).await? {
                Ok(shape) => {
                    table.key = shape.key_columns();
                    self.table(control, server, &subject, table, &shape).await?;
                }
                Err(error) => self.fault(&subject, error),
            }
        }
        Ok(source)
    }

    async fn table(
        &mut self,
        control: &Control,
        server: &ServerFacts,
        subject: &str,
        table: &Table,
        shape: &Shape,
    ) -> Result<(), ControlError> {
        // On the table as a whole, and on each partition: they are locked and read by themselves.
        let mut unreadable = Vec::new();
        for heap in control.heaps(table.facts.oid).await?.unwrap_or_default() {
            if !control.has_select_privilege(heap.oid, &[]).await? {
                unreadable.push(heap.name);
            }
        }
        if unreadable.is_empty() {
            self.ok(subject, format!("key ({}), topic {}", table.key.join(", "), table.topic));
            self.first_rows(subject, table);
        } else {
            let user = quote_ident(&server.user);
            let grant = |heap: &TableName| {
                format!(
                    "GRANT USAGE ON SCHEMA {} TO {user};\nGRANT SELECT ON {heap} TO {user};",
                    quote_ident(&heap.schema)
                )
            };
            let remedy = unreadable.iter().map(grant).collect::<Vec<_>>().join("\n");
            self.error(subject, format!("{} may not read it", server.user), remedy);
        }
        self.generated(control, subject, table, shape);
        self.toast(control, server, subject, table, shape).await
    }

    /// A generated column that isn't published is in no record, whichever way the row comes.
    fn generated(&mut self, control: &Control, subject: &str, table: &Table, shape: &Shape) {
        let is_left_out = |name: &str| !shape.columns.iter().any(|column| column.name == name);
        let left_out = table.facts.columns.iter().filter(|column| column.generated && is_left_out(&column.name));
        let left_out: Vec<_> = left_out.map(|column| column.name.as_str()).collect();
        if left_out.is_empty() {
            return;
        }
        let remedy = match control.is_at_least(18) {
            true => {
                let publication = quote_ident(&self.connector.publication);
                format!(
                    "-- if they are STORED, and the topic may begin with other records:\n\
                     ALTER PUBLICATION {publication} SET (publish_generated_columns = stored);"
                )
            }
            false => "from Postgres 18 on, a publication can carry those that are STORED".to_owned(),
        };
        self.note(
            subject,
            format!("generated columns are in no record, since they are not published: {}", left_out.join(", ")),
            remedy,
        );
    }

    fn first_rows(&mut self, subject: &str, table: &Table) {
        let Some(stored) = self.stored() else { return };
        let progress = stored.and_then(|stored| stored.tables.get(&table.sql_name()));
        if let Some(Err(fault)) = progress.map(|progress| table.check_written(progress)) {
            self.fault(subject, fault);
        }
    }

    /// A key is compared by names that have to be found.
    async fn key_schemas(
        &mut self,
        control: &Control,
        server: &ServerFacts,
        subject: &str,
        table: &Table,
    ) -> Result<(), ControlError> {
        let schemas = control.closed_key_schemas(table.facts.oid).await?;
        if !schemas.is_empty() {
            let user = quote_ident(&server.user);
            let grant = |schema: &String| format!("GRANT USAGE ON SCHEMA {} TO {user};", quote_ident(schema));
            let message =
                format!("{} may not use the types of its key, by which large values are looked up", server.user);
            self.error(subject, message, schemas.iter().map(grant).collect::<Vec<_>>().join("\n"));
        }
        Ok(())
    }

    /// An update that leaves a TOASTed value as it is doesn't carry it: that is no fault, but has a price.
    async fn toast(
        &mut self,
        control: &Control,
        server: &ServerFacts,
        subject: &str,
        table: &Table,
        shape: &Shape,
    ) -> Result<(), ControlError> {
        // What the WAL carries follows the partition's identity, not the table's.
        let mut lacking = control.partitions_without_full(table.facts.oid).await?;
        if table.facts.replica_identity != ReplicaIdentity::Full {
            lacking.insert(0, table.facts.table_name());
        }
        if lacking.is_empty() {
            return Ok(());
        }
        let missing = |name: &String| {
            // The key's columns are in the WAL in any case.
            shape.columns.iter().any(|column| column.name == *name && column.captured && !column.in_key)
        };
        let columns = control.toastable_columns(table.facts.oid).await?;
        let columns: Vec<_> = columns.into_iter().filter(missing).collect();
        if !columns.is_empty() {
            let message = format!(
                "large values of {} are not in the WAL of an update that leaves them as they are: they are looked up in \
                 the table by its key; to have them in the WAL instead, which grows by them",
                columns.join(", ")
            );
            let alter = |table: &TableName| {
                format!("ALTER TABLE {} REPLICA IDENTITY FULL;", qualified(&table.schema, &table.name))
            };
            self.note(subject, message, lacking.iter().map(alter).collect::<Vec<_>>().join("\n"));
            self.key_schemas(control, server, subject, table).await?;
        }
        Ok(())
    }
}
