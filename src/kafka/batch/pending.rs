//! Records that lack a value: an update left a TOASTed column as it was, and the WAL doesn't carry it.
//!
//! Such a record has its place and its key in the batch like any other, so that all that goes by keys and places holds:
//! windows, marks, splits. Its row waits in a side buffer. Once the values have been looked up, the batch is written out
//! into others, record by record, in the same order ([`Batch::rest`]); one whose row is gone is left out.

use std::sync::Arc;

use super::{Batch, Entry, Mark, NO_TOPIC, PENDING, TOMBSTONE, TopicId};
use crate::avro::{EncodeError, Encoder};
use crate::lsn::Lsn;
use crate::pgoutput::Cell;
use crate::position::Position;
use crate::relation::TableRows;

/// A relation version whose rows may lack values.
#[derive(Debug)]
pub struct RelationVersion {
    /// `schema.table`, as SQL writes it.
    pub table: String,
    /// How they are found again.
    pub rows: TableRows,
    /// What writes them.
    pub encoder: Encoder,
}

/// Where a record comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// The source transaction.
    pub xid: u32,
    /// Where its commit record starts.
    pub commit_lsn: Lsn,
    /// The position once the record is in.
    pub position: Position,
}

/// A record that lacks a value.
#[derive(Clone, Debug)]
pub struct Pending {
    /// What the row is of.
    pub version: Arc<RelationVersion>,
    /// Where it comes from.
    pub from: Provenance,
    /// Its place among the entries.
    entry: usize,
    /// Its row's place in the side buffer.
    kept: (usize, usize),
}

/// How long the side buffer may stay when a batch is emptied.
const KEEP_KEPT_BYTES: usize = 1 << 20;

/// What a batch holds of the records that lack a value.
#[derive(Debug, Default)]
pub(super) struct Pendings {
    list: Vec<Pending>,
    /// Their rows, cell by cell, as in a tuple of the protocol.
    kept: Vec<u8>,
    /// Where source transactions end among the entries, and the positions there.
    boundaries: Vec<(usize, Position)>,
}

impl Pendings {
    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.boundaries.clear();
        self.kept.clear();
        self.kept.shrink_to(KEEP_KEPT_BYTES);
    }

    pub(super) fn weight(&self) -> usize {
        self.kept.len()
    }

    /// How many are of the first so many entries.
    fn before(&self, entries: usize) -> usize {
        self.list.partition_point(|pending| pending.entry < entries)
    }

    /// Drops those from an entry on.
    pub(super) fn truncate(&mut self, entries: usize) {
        let count = self.before(entries);
        if let Some(first) = self.list.get(count) {
            self.kept.truncate(first.kept.0);
        }
        self.list.truncate(count);
        self.boundaries.truncate(self.boundaries.partition_point(|(place, _)| *place <= entries));
    }

    /// Appends those from an entry on to those of another batch, in which that entry has the place `to`.
    pub(super) fn copy_after(&self, entries: usize, rest: &mut Pendings, to: usize) {
        let moved = &self.list[self.before(entries)..];
        let Some(first) = moved.first() else { return };
        let (from, base) = (first.kept.0, rest.kept.len());
        rest.kept.extend_from_slice(&self.kept[from..]);
        rest.list.extend(moved.iter().map(|pending| Pending {
            entry: pending.entry - entries + to,
            kept: (pending.kept.0 - from + base, pending.kept.1 - from + base),
            ..pending.clone()
        }));
    }
}

impl Batch {
    /// Appends a row that lacks a value: its key now, its value later.
    ///
    /// # Errors
    ///
    /// If its key can't be encoded; then nothing is appended.
    #[cold]
    pub fn pend<'a>(
        &mut self,
        topic: TopicId,
        timestamp: i64,
        version: &Arc<RelationVersion>,
        from: Provenance,
        cells: impl Iterator<Item = Cell<'a>> + Clone,
    ) -> Result<(), EncodeError> {
        let entry = self.entries.len();
        let mut writer = self.record(topic, timestamp);
        version.encoder.encode_key(cells.clone(), writer.bytes())?;
        writer.pending();
        let start = self.pendings.kept.len();
        cells.for_each(|cell| keep(cell, &mut self.pendings.kept));
        let kept = (start, self.pendings.kept.len());
        self.pendings.list.push(Pending { version: Arc::clone(version), from, entry, kept });
        Ok(())
    }

    /// The records that lack a value, in order.
    pub fn pendings(&self) -> &[Pending] {
        &self.pendings.list
    }

    /// The row of a record that lacks a value: what it lacks is [`Cell::Unchanged`].
    pub fn kept(&self, pending: &Pending) -> Kept<'_> {
        Kept { bytes: &self.pendings.kept[pending.kept.0..pending.kept.1] }
    }

    /// Notes that a source transaction ended at `mark`: for the batch to be cut there when it is written out in parts,
    /// and so only where it is.
    #[inline]
    pub fn note_boundary(&mut self, boundary: Option<(Mark, Position)>) {
        if let Some((mark, position)) = boundary
            && !self.pendings.list.is_empty()
        {
            self.pendings.boundaries.push((mark.entries, position));
        }
    }

    /// The records from the first on, to be written out into other batches.
    pub fn rest(&self) -> Rest<'_> {
        Rest { batch: self, entry: 0, byte: 0, pending: 0, passed: 0, boundary: None }
    }
}

/// What is still to be written out of a batch.
#[derive(Debug)]
pub struct Rest<'b> {
    batch: &'b Batch,
    entry: usize,
    byte: usize,
    pending: usize,
    /// How many boundaries have been passed.
    passed: usize,
    /// The last of them in what has been written out since the last split.
    boundary: Option<(Mark, Position)>,
}

/// A record that lacks a value, at its place.
#[derive(Clone, Copy, Debug)]
pub struct Waiting<'b> {
    /// What it lacks, and where it comes from.
    pub pending: &'b Pending,
    entry: Entry,
    key: &'b [u8],
}

impl<'b> Rest<'b> {
    /// Copies what is whole up to the next record that lacks a value, and gives that one. `None` when all is written out.
    pub fn next(&mut self, out: &mut Batch) -> Option<Waiting<'b>> {
        let batch = self.batch;
        let pending = batch.pendings.list.get(self.pending);
        let end = pending.map_or(batch.entries.len(), |pending| pending.entry);
        self.pass(end, out);
        self.copy(end, out);
        let pending = pending?;
        let entry = batch.entries[end];
        let key = &batch.bytes[self.byte..self.byte + entry.key_bytes as usize];
        self.byte += key.len();
        self.entry += 1;
        self.pending += 1;
        Some(Waiting { pending, entry, key })
    }

    /// Ends `out`, which has all that has been written out since the last split, where the last source transaction in it
    /// ends, and moves what follows to `rest`. Without one, everything stays.
    pub fn split_at_boundary(&mut self, out: &mut Batch, rest: &mut Batch) {
        self.pass(self.entry, out);
        let Some((mark, position)) = self.boundary.take() else { return };
        out.move_after(mark, rest);
        out.end = position;
        out.at_boundary = true;
    }

    /// Copies what is whole up to the last boundary that isn't behind this entry.
    fn pass(&mut self, end: usize, out: &mut Batch) {
        while let Some((place, position)) = self.batch.pendings.boundaries.get(self.passed)
            && *place <= end
        {
            self.copy(*place, out);
            self.boundary = Some((out.mark(), *position));
            self.passed += 1;
        }
    }

    /// Copies what is whole up to this entry.
    fn copy(&mut self, end: usize, out: &mut Batch) {
        let batch = self.batch;
        let entries = &batch.entries[self.entry..end];
        let bytes: usize = entries.iter().map(|entry| entry.key_bytes as usize + entry.value_len()).sum();
        out.bytes.extend_from_slice(&batch.bytes[self.byte..self.byte + bytes]);
        out.dropped += entries.iter().filter(|entry| entry.topic == NO_TOPIC).count();
        out.entries.extend_from_slice(entries);
        self.byte += bytes;
        self.entry = end;
    }
}

impl Waiting<'_> {
    /// Writes it out, with the row that it has now.
    ///
    /// # Errors
    ///
    /// If the row can't be encoded, be it that it still lacks a value; then nothing is appended.
    pub fn complete<'a>(
        &self,
        cells: impl Iterator<Item = Cell<'a>> + Clone,
        out: &mut Batch,
    ) -> Result<(), EncodeError> {
        let mut writer = out.record(self.entry.topic, self.entry.timestamp);
        writer.bytes().extend_from_slice(self.key);
        writer.value(|bytes| self.pending.version.encoder.encode_value(cells, bytes))
    }
}

impl Entry {
    /// How many bytes of value it has in the buffer.
    pub(super) fn value_len(&self) -> usize {
        if matches!(self.value_bytes, TOMBSTONE | PENDING) { 0 } else { self.value_bytes as usize }
    }
}

fn keep(cell: Cell<'_>, kept: &mut Vec<u8>) {
    match cell {
        Cell::Null => kept.push(b'n'),
        Cell::Unchanged => kept.push(b'u'),
        Cell::Text(text) | Cell::Binary(text) => {
            kept.push(if matches!(cell, Cell::Text(_)) { b't' } else { b'b' });
            // A cell is a part of a message of the protocol, of at most 1 GB.
            kept.extend_from_slice(&(text.len() as u32).to_be_bytes());
            kept.extend_from_slice(text);
        }
    }
}

/// The cells of a row that lacks a value.
#[derive(Clone, Debug)]
pub struct Kept<'b> {
    bytes: &'b [u8],
}

impl<'b> Iterator for Kept<'b> {
    type Item = Cell<'b>;

    fn next(&mut self) -> Option<Cell<'b>> {
        let (cell, rest) = Cell::split_first(self.bytes)?;
        self.bytes = rest;
        Some(cell)
    }
}
