//! The SQL of a chunk.

use super::work::Job;
use crate::kafka::progress::Stretch;
use crate::postgres::catalog::TableName;
use crate::postgres::sql::quote_ident;

/// Begins a chunk's transaction. The lock comes first: LOCK TABLE takes no snapshot, so that the one which the next
/// query takes sees what the last DDL before the lock has done.
///
/// The table comes before its partition, as DDL locks them: it can't be detached meanwhile.
pub fn begin(table: &TableName, heap: &TableName) -> String {
    let both = if table == heap { format!("ONLY {heap}") } else { format!("ONLY {table}, ONLY {heap}") };
    format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE {both} IN ACCESS SHARE MODE")
}

/// Reads a stretch: a TID range scan (Postgres 14 and later), of the published rows, as far as they were asked for. A
/// partition goes by the name of its table, which a condition may use.
pub fn copy(job: &Job, table: &str, columns: &[&str], row_filter: Option<&str>) -> String {
    let columns: Vec<String> = columns.iter().map(|column| quote_ident(column)).collect();
    let mut sql = format!(
        "COPY (SELECT {} FROM ONLY {} AS {} WHERE ctid >= '{}'::pg_catalog.tid AND ctid < '{}'::pg_catalog.tid",
        columns.join(", "),
        job.name,
        quote_ident(table),
        job.stretch.from,
        job.stretch.to
    );
    for condition in [row_filter, job.filter.as_deref()].into_iter().flatten() {
        // On lines of its own: a condition may end in a comment.
        sql.push_str(&format!(" AND (\n{condition}\n)"));
    }
    sql.push_str(") TO STDOUT");
    sql
}

/// Whether no more than one row can be in it.
pub fn is_single(stretch: Stretch) -> bool {
    stretch.from.0 == stretch.to.0 && stretch.to.1.saturating_sub(stretch.from.1) <= 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::TopicId;
    use crate::kafka::progress::Ctid;
    use crate::snapshot::ReadingId;

    #[test]
    fn a_stretch_is_read_with_all_conditions_and_every_name_quoted() {
        let job = Job {
            reading: ReadingId::Backfill(1),
            table: TopicId(0),
            heap: 1,
            name: TableName::new("Shop", "or\"ders"),
            file_node: 1,
            stretch: Stretch::of_blocks(0, 64),
            filter: Some("total > 5 -- dear ones".into()),
        };
        assert_eq!(
            copy(&job, "orders", &["id", "To Tal"], Some("(paid)")),
            "COPY (SELECT \"id\", \"To Tal\" FROM ONLY \"Shop\".\"or\"\"ders\" AS \"orders\" \
             WHERE ctid >= '(0,0)'::pg_catalog.tid AND ctid < '(64,0)'::pg_catalog.tid \
             AND (\n(paid)\n) AND (\ntotal > 5 -- dear ones\n)) TO STDOUT"
        );
    }

    #[test]
    fn only_a_stretch_of_one_line_pointer_is_single() {
        assert!(is_single(Stretch { from: Ctid(3, 0), to: Ctid(3, 1) }));
        assert!(!is_single(Stretch { from: Ctid(3, 0), to: Ctid(3, 2) }));
        assert!(!is_single(Stretch { from: Ctid(3, 0), to: Ctid(4, 0) }));
    }
}
