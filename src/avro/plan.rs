//! A shape, compiled: its schemas, and for each column what to do with its cell.
//!
//! A row is walked once for the value, and once for the key: where the key's order is the table's, too; where it is
//! another, the walk starts over at each step back, which allocates nothing and is rare. What a record starts with,
//! Confluent's header, comes from the ids that the registry gave the two schemas.

use std::sync::Arc;

use super::error::{EncodeError, PlanError};
use super::nulls::Nulls;
use super::schema::Schemas;
use super::text::TextError;
use super::types::{Codec, avro_type};
use crate::pgoutput::Cell;
use crate::relation::{Shape, Unrepresentable};

/// A magic byte, 0, and the id of the schema, big-endian.
const HEADER: usize = 5;

/// The branches of `["null", T]`, as Avro writes their numbers.
const NULL_BRANCH: u8 = 0;
const VALUE_BRANCH: u8 = 2;

/// A shape, compiled.
///
/// Invariant: `schemas` and `columns` were made from the same shape by the same table of types.
#[derive(Clone, Debug)]
pub struct Plan {
    schemas: Schemas,
    /// In the table's order: a tuple has a cell for each.
    columns: Vec<Step>,
    /// In the key's order.
    key: Vec<KeyStep>,
    /// Name and type of each column, for errors; beside the columns, for the walk has no use for them.
    labels: Vec<Label>,
    /// Where a value that its Avro type can't hold becomes null, tells of it. Shared by all copies.
    nulls: Option<Arc<Nulls>>,
}

/// What to do with the cell of a column.
#[derive(Clone, Debug)]
enum Step {
    /// Not captured.
    Skip,
    /// Part of the key: never null.
    Plain(Codec),
    /// Any other: one of `["null", T]`.
    Nullable(Codec),
}

/// A column of the key.
#[derive(Clone, Debug)]
struct KeyStep {
    /// Its place in the table.
    index: usize,
    codec: Codec,
}

#[derive(Clone, Debug)]
struct Label {
    column: String,
    pg_type: String,
}

impl Plan {
    /// Compiles the shape of a table of `connector`.
    pub fn compile(shape: &Shape, connector: &str) -> Result<Plan, PlanError> {
        let schemas =
            Schemas::new(shape, connector).map_err(|source| PlanError::Write { record: "key or value", source })?;
        for (record, schema) in [("key", &schemas.key), ("value", &schemas.value)] {
            apache_avro::Schema::parse_str(schema)
                .map_err(|source| PlanError::Invalid { record, source: Box::new(source) })?;
        }
        let nulls = match shape.unrepresentable {
            Unrepresentable::Error => None,
            Unrepresentable::Null => Some(Arc::new(Nulls::new(connector, shape))),
        };
        let columns = shape.columns.iter().map(|column| match avro_type(&column.pg_type.kind).codec {
            _ if !column.captured => Step::Skip,
            codec if column.in_key => Step::Plain(codec),
            codec => Step::Nullable(codec),
        });
        let key = shape.key.iter().filter_map(|&index| {
            let codec = avro_type(&shape.columns.get(index)?.pg_type.kind).codec;
            Some(KeyStep { index, codec })
        });
        let labels = shape
            .columns
            .iter()
            .map(|column| Label { column: column.name.clone(), pg_type: column.pg_type.name.clone() });
        Ok(Plan { schemas, columns: columns.collect(), key: key.collect(), labels: labels.collect(), nulls })
    }

    /// The schema of the keys, as JSON.
    pub fn key_schema(&self) -> &str {
        &self.schemas.key
    }

    /// The schema of the values, as JSON.
    pub fn value_schema(&self) -> &str {
        &self.schemas.value
    }

    /// Place and name of the key's columns, in the key's order.
    pub(super) fn key_columns(&self) -> impl Iterator<Item = (usize, &str)> {
        self.key.iter().map(|step| (step.index, self.labels.get(step.index).map_or("?", |label| label.column.as_str())))
    }

    /// The plan, with the ids that the registry gave its schemas.
    pub fn with_ids(self, key_id: u32, value_id: u32) -> Encoder {
        Encoder { plan: self, key_header: header(key_id), value_header: header(value_id) }
    }
}

fn header(id: u32) -> [u8; HEADER] {
    let [a, b, c, d] = id.to_be_bytes();
    [0, a, b, c, d]
}

/// Writes the records of one shape, in Confluent's wire format.
///
/// The cells of a row are any iterator that can be cloned: a tuple's of the stream, a line's of COPY, or either with
/// unchanged values [filled in](super::fill_unchanged). They are expected in the table's order, one for each column of
/// the shape, captured or not. On an error nothing is appended.
#[derive(Clone, Debug)]
pub struct Encoder {
    plan: Plan,
    key_header: [u8; HEADER],
    value_header: [u8; HEADER],
}

impl Encoder {
    /// The plan that it follows.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Whether it has written this key, to judge by the schema's id.
    pub(super) fn wrote_key(&self, key: &[u8]) -> bool {
        key.starts_with(&self.key_header)
    }

    /// Appends the key of a row: of a new one, or of what the WAL carries of an old one.
    #[inline]
    pub fn encode_key<'a, C>(&self, cells: C, out: &mut Vec<u8>) -> Result<(), EncodeError>
    where
        C: Iterator<Item = Cell<'a>> + Clone,
    {
        let start = out.len();
        out.extend_from_slice(&self.key_header);
        self.plan.write_key(cells, out).inspect_err(|_| out.truncate(start))
    }

    /// Appends the value of a row.
    #[inline]
    pub fn encode_value<'a, C>(&self, cells: C, out: &mut Vec<u8>) -> Result<(), EncodeError>
    where
        C: Iterator<Item = Cell<'a>> + Clone,
    {
        let start = out.len();
        out.extend_from_slice(&self.value_header);
        self.plan.write_value(cells, out).inspect_err(|_| out.truncate(start))
    }
}

impl Plan {
    #[inline]
    fn write_value<'a, C>(&self, mut cells: C, out: &mut Vec<u8>) -> Result<(), EncodeError>
    where
        C: Iterator<Item = Cell<'a>> + Clone,
    {
        for (index, step) in self.columns.iter().enumerate() {
            let Some(cell) = cells.next() else {
                return Err(self.column_count(index));
            };
            let start = out.len();
            let (codec, text) = match (step, cell) {
                (Step::Skip, _) => continue,
                (Step::Nullable(_), Cell::Null) => {
                    out.push(NULL_BRANCH);
                    continue;
                }
                (Step::Nullable(codec), Cell::Text(text)) => {
                    out.push(VALUE_BRANCH);
                    (codec, text)
                }
                (Step::Plain(codec), Cell::Text(text)) => (codec, text),
                _ => return Err(self.no_text(index, cell)),
            };
            if let Err(reason) = codec.encode(text, out) {
                self.null_instead(index, start, reason, cells.clone(), out)?;
            }
        }
        self.expect_end(self.columns.len(), cells)
    }

    #[inline]
    fn write_key<'a, C>(&self, cells: C, out: &mut Vec<u8>) -> Result<(), EncodeError>
    where
        C: Iterator<Item = Cell<'a>> + Clone,
    {
        let mut rest = cells.clone();
        // How many cells `rest` is behind those of `cells`.
        let mut behind = 0;
        for KeyStep { index, codec } in &self.key {
            if *index < behind {
                rest = cells.clone();
                behind = 0;
            }
            let Some(cell) = rest.nth(index - behind) else {
                return Err(self.column_count(cells.count()));
            };
            behind = index + 1;
            let Cell::Text(text) = cell else {
                return Err(self.no_text(*index, cell));
            };
            codec.encode_key(text, out).map_err(|reason| self.value_error(*index, reason))?;
        }
        self.expect_end(behind, rest)
    }

    /// Checks that a row of which `seen` cells were taken has as many in all as the shape has columns.
    #[inline]
    fn expect_end<'a>(&self, seen: usize, rest: impl Iterator<Item = Cell<'a>>) -> Result<(), EncodeError> {
        let found = seen + rest.count();
        if found == self.columns.len() { Ok(()) } else { Err(self.column_count(found)) }
    }

    #[cold]
    fn column_count(&self, found: usize) -> EncodeError {
        EncodeError::ColumnCount { expected: self.columns.len(), found }
    }

    fn label(&self, index: usize) -> (String, String) {
        let label = self.labels.get(index);
        label.map(|label| (label.column.clone(), label.pg_type.clone())).unwrap_or_default()
    }

    /// The column `index`, whose field starts at `start`, failed: makes it null if that is what was asked for. `rest` are
    /// the cells behind it: with a value that is to be looked up among them, the row will be encoded again, and is told
    /// of then.
    #[cold]
    fn null_instead<'a>(
        &self,
        index: usize,
        start: usize,
        reason: TextError,
        rest: impl Iterator<Item = Cell<'a>>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        match (&self.nulls, self.columns.get(index), reason) {
            (Some(nulls), Some(Step::Nullable(_)), TextError::Unrepresentable(what)) => {
                out.truncate(start);
                out.push(NULL_BRANCH);
                let steps = self.columns.iter().skip(index + 1);
                if !steps.zip(rest).any(|(step, cell)| cell == Cell::Unchanged && !matches!(step, Step::Skip)) {
                    nulls.tell(index, what);
                }
                Ok(())
            }
            _ => Err(self.value_error(index, reason)),
        }
    }

    #[cold]
    fn value_error(&self, index: usize, reason: TextError) -> EncodeError {
        let (column, pg_type) = self.label(index);
        match (reason, self.columns.get(index)) {
            (TextError::Unrepresentable(what), Some(Step::Nullable(_))) => {
                EncodeError::Unrepresentable { column, pg_type, what }
            }
            _ => EncodeError::Value { column, pg_type, reason },
        }
    }

    /// A cell that has no text, where one is needed.
    #[cold]
    fn no_text(&self, index: usize, cell: Cell<'_>) -> EncodeError {
        let (column, pg_type) = self.label(index);
        match cell {
            Cell::Null => EncodeError::NullKey { column, pg_type },
            Cell::Unchanged => EncodeError::UnchangedToast { column },
            Cell::Text(_) | Cell::Binary(_) => EncodeError::Binary { column },
        }
    }
}
