//! Publications: what comes down the stream at all.

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::TableName;
use crate::postgres::control::{Control, ControlError};
use crate::postgres::sql::quote_ident;

const DOING: &str = "reading the publication from the catalog";

const PUBLICATION: &str = "
SELECT puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, pg_get_userbyid(pubowner)::text
FROM pg_catalog.pg_publication WHERE pubname = $1";

/// From 15 on, with column lists and row filters. Postgres 15 lists generated columns, though before 18 (`$2`) none is
/// ever published.
const TABLES: &str = "
SELECT p.schemaname::text, p.tablename::text,
       ARRAY(SELECT a.attname::text
             FROM pg_catalog.pg_attribute a
             JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relname = p.tablename
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = p.schemaname
             WHERE a.attnum > 0 AND a.attname = ANY (p.attnames) AND ($2 OR a.attgenerated = '')
             ORDER BY a.attnum),
       p.rowfilter
FROM pg_catalog.pg_publication_tables p WHERE p.pubname = $1 ORDER BY p.schemaname, p.tablename";

const TABLES_14: &str = "
SELECT schemaname::text, tablename::text, NULL::text[], NULL::text
FROM pg_catalog.pg_publication_tables WHERE pubname = $1 ORDER BY schemaname, tablename";

/// A publication as the catalog has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicationFacts {
    /// Its name.
    pub name: String,
    /// FOR ALL TABLES: tables that are created later are in it too.
    pub all_tables: bool,
    /// Whether it publishes INSERT.
    pub insert: bool,
    /// Whether it publishes UPDATE.
    pub update: bool,
    /// Whether it publishes DELETE.
    pub delete: bool,
    /// Whether it publishes TRUNCATE.
    pub truncate: bool,
    /// `publish_via_partition_root`: changes of a partition come as the root's.
    pub via_root: bool,
    /// Who may alter it.
    pub owner: String,
    /// The tables in it, by schema and name; with `via_root` the roots, otherwise the partitions.
    pub tables: Vec<PublishedTable>,
}

/// A table in a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTable {
    /// The schema's name.
    pub schema: String,
    /// The table's name.
    pub name: String,
    /// The columns that are published, in the table's order: those of its column list, or all but the generated ones
    /// that the publication leaves out. `None` before Postgres 15: all but the generated ones.
    pub columns: Option<Vec<String>>,
    /// The row filter as SQL, names qualified; `None`: all rows.
    pub row_filter: Option<String>,
}

impl Control {
    /// The publication of that name, if there is one.
    ///
    /// # Errors
    ///
    /// If a query fails.
    pub async fn publication(&self, name: &str) -> Result<Option<PublicationFacts>, ControlError> {
        let by_name: (&(dyn ToSql + Sync), Type) = (&name, Type::TEXT);
        let row = self.query(DOING, PUBLICATION, std::slice::from_ref(&by_name)).await?.pop();
        let Some(row) = row else { return Ok(None) };
        let tables = if self.is_at_least(15) {
            self.query(DOING, TABLES, &[by_name, (&self.is_at_least(18), Type::BOOL)]).await?
        } else {
            self.query(DOING, TABLES_14, &[by_name]).await?
        };
        Ok(Some(facts(name, &row, tables.iter().map(published).collect())))
    }

    /// Creates a publication as tablecast wants it, of these tables.
    ///
    /// # Errors
    ///
    /// If it exists already, a table doesn't, or we may not.
    pub async fn create_publication(&self, name: &str, tables: &[TableName]) -> Result<(), ControlError> {
        self.execute("creating the publication", &create_publication_sql(name, tables)).await
    }

    /// Adds tables to a publication; with none, does nothing.
    ///
    /// # Errors
    ///
    /// If one is in it already, or we may not.
    pub async fn add_tables_to_publication(&self, name: &str, tables: &[TableName]) -> Result<(), ControlError> {
        if tables.is_empty() {
            return Ok(());
        }
        self.execute("adding tables to the publication", &add_tables_sql(name, tables)).await
    }

    /// Takes a table out of a publication.
    ///
    /// # Errors
    ///
    /// If it isn't in it by its own name, or we may not.
    pub async fn drop_table_from_publication(&self, name: &str, table: &TableName) -> Result<(), ControlError> {
        let sql = format!("ALTER PUBLICATION {} DROP TABLE ONLY {table}", quote_ident(name));
        self.execute("taking a table out of the publication", &sql).await
    }

    /// Drops a publication, if there is one.
    ///
    /// # Errors
    ///
    /// If we may not.
    pub async fn drop_publication(&self, name: &str) -> Result<(), ControlError> {
        self.execute("dropping the publication", &format!("DROP PUBLICATION IF EXISTS {}", quote_ident(name))).await
    }
}

/// The command that creates a publication as tablecast wants it; `check` shows it to who has to run it.
pub fn create_publication_sql(name: &str, tables: &[TableName]) -> String {
    let tables = if tables.is_empty() { String::new() } else { format!(" FOR TABLE {}", list(tables)) };
    let options = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true";
    format!("CREATE PUBLICATION {}{tables} WITH ({options})", quote_ident(name))
}

/// The command that adds tables to a publication; `check` shows it to who has to run it.
pub fn add_tables_sql(name: &str, tables: &[TableName]) -> String {
    format!("ALTER PUBLICATION {} ADD TABLE {}", quote_ident(name), list(tables))
}

/// ONLY, since without it tables that inherit would come along unasked; partitions do in any case.
fn list(tables: &[TableName]) -> String {
    tables.iter().map(|table| format!("ONLY {table}")).collect::<Vec<_>>().join(", ")
}

fn facts(name: &str, row: &Row, tables: Vec<PublishedTable>) -> PublicationFacts {
    PublicationFacts {
        name: name.to_owned(),
        all_tables: row.get(0),
        insert: row.get(1),
        update: row.get(2),
        delete: row.get(3),
        truncate: row.get(4),
        via_root: row.get(5),
        owner: row.get(6),
        tables,
    }
}

fn published(row: &Row) -> PublishedTable {
    PublishedTable { schema: row.get(0), name: row.get(1), columns: row.get(2), row_filter: row.get(3) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_quote_every_name() {
        let tables = [TableName::new("public", "users"), TableName::new("Shop", "order")];
        assert_eq!(
            create_publication_sql("tablecast_shop", &tables),
            "CREATE PUBLICATION \"tablecast_shop\" FOR TABLE ONLY \"public\".\"users\", ONLY \"Shop\".\"order\" \
             WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)"
        );
        assert_eq!(add_tables_sql("p", &tables[..1]), "ALTER PUBLICATION \"p\" ADD TABLE ONLY \"public\".\"users\"");
        assert!(create_publication_sql("p", &[]).starts_with("CREATE PUBLICATION \"p\" WITH"));
    }
}
