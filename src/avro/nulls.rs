//! Null in the place of what an Avro type can't hold, where the configuration asks for it: counted, and told.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics::Counter;

use crate::relation::Shape;

/// Counts the nulls of one shape's rows, and warns of each column once: every shape of a run is compiled once.
#[derive(Debug)]
pub(super) struct Nulls {
    connector: String,
    table: String,
    columns: Vec<Column>,
    /// Made at the first null: a shape may be compiled where nothing is counted.
    counter: OnceLock<Counter>,
}

#[derive(Debug)]
struct Column {
    name: String,
    pg_type: String,
    is_told: AtomicBool,
}

impl Nulls {
    /// None yet.
    pub fn new(connector: &str, shape: &Shape) -> Self {
        let columns = shape.columns.iter().map(|column| Column {
            name: column.name.clone(),
            pg_type: column.pg_type.name.clone(),
            is_told: AtomicBool::new(false),
        });
        Self {
            connector: connector.to_owned(),
            table: shape.sql_name(),
            columns: columns.collect(),
            counter: OnceLock::new(),
        }
    }

    /// The column `index` has been made null in a row.
    pub fn tell(&self, index: usize, what: &'static str) {
        let counter = self.counter.get_or_init(|| {
            let labels = [("connector", self.connector.clone()), ("table", self.table.clone())];
            metrics::counter!("tablecast_unrepresentable_total", &labels)
        });
        counter.increment(1);
        let Some(column) = self.columns.get(index) else { return };
        if !column.is_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                connector = self.connector,
                table = self.table,
                column = column.name,
                pg_type = column.pg_type,
                "its Avro type can't hold {what}: null is written in its place; said once for each column, and \
                 tablecast_unrepresentable_total counts on"
            );
        }
    }
}
