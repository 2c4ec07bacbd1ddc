//! What pgoutput can say, borrowed from the bytes in which it was said.
//!
//! A [`Tuple`] is not taken apart when it is decoded: it is the stretch of bytes that holds its cells, walked once by
//! the decoder. So a row costs no allocation, and [`Tuple::cells`] can't fail: every kind and every length on its way
//! was seen by the decoder, which is the only one that can make a `Tuple`.

use crate::lsn::Lsn;
use crate::postgres::catalog::ReplicaIdentity;

/// One message of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction starts; all that follows up to its Commit belongs to it.
    Begin(Begin),
    /// The transaction ends.
    Commit(Commit),
    /// The transaction came from another node by replication.
    Origin {
        /// Where the commit record starts on the node that the transaction came from.
        commit_lsn: Lsn,
        /// The name of the replication origin.
        name: &'a str,
    },
    /// The shape of a table: comes before its first change, and again after each change of the shape.
    Relation(RelationMessage<'a>),
    /// A type that is not built in: comes before the relation that uses it.
    Type {
        /// `pg_type.oid`.
        oid: u32,
        /// The type's schema; empty stands for `pg_catalog`.
        schema: &'a str,
        /// The type's name.
        name: &'a str,
    },
    /// A row was inserted.
    Insert {
        /// The table, as its Relation message announced it.
        relation: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// A row was updated.
    Update {
        /// The table, as its Relation message announced it.
        relation: u32,
        /// What the row was: there if the replica identity's columns changed or are TOASTed, or the identity is FULL.
        old: Option<OldTuple<'a>>,
        /// What the row is now.
        new: Tuple<'a>,
    },
    /// A row was deleted.
    Delete {
        /// The table, as its Relation message announced it.
        relation: u32,
        /// What of the row the replica identity carries.
        old: OldTuple<'a>,
    },
    /// Tables were emptied by TRUNCATE.
    Truncate {
        /// The tables, all that the publication holds of those that the command emptied.
        relations: Vec<u32>,
        /// TRUNCATE … CASCADE.
        cascade: bool,
        /// TRUNCATE … RESTART IDENTITY.
        restart_identity: bool,
    },
    /// A message of `pg_logical_emit_message` (comes only where the stream was started with `messages`).
    Logical {
        /// Whether it belongs to the transaction that it comes in; otherwise it comes between two.
        transactional: bool,
        /// Where it stands in the WAL.
        lsn: Lsn,
        /// Who it is for.
        prefix: &'a str,
        /// What it says: any bytes.
        content: &'a [u8],
    },
}

/// The first message of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Where the transaction's commit record starts.
    pub commit_lsn: Lsn,
    /// Commit time, in microseconds since 2000-01-01 00:00:00 UTC.
    pub commit_time: i64,
    /// The transaction's id.
    pub xid: u32,
}

/// The last message of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Where the transaction's commit record starts.
    pub commit_lsn: Lsn,
    /// Where the commit record ends.
    pub end_lsn: Lsn,
    /// Commit time, in microseconds since 2000-01-01 00:00:00 UTC.
    pub commit_time: i64,
}

/// What of an old row the WAL carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldTuple<'a> {
    /// `K`: the columns of the replica identity; the others are null.
    Key(Tuple<'a>),
    /// `O`: the whole row, under REPLICA IDENTITY FULL.
    Full(Tuple<'a>),
}

impl<'a> OldTuple<'a> {
    /// The tuple, whichever of the two it is.
    pub fn tuple(&self) -> &Tuple<'a> {
        match self {
            OldTuple::Key(tuple) | OldTuple::Full(tuple) => tuple,
        }
    }
}

/// The shape of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationMessage<'a> {
    /// `pg_class.oid`.
    pub oid: u32,
    /// The table's schema; empty stands for `pg_catalog`.
    pub schema: &'a str,
    /// The table's name.
    pub name: &'a str,
    /// What of an old row the WAL carries.
    pub replica_identity: ReplicaIdentity,
    /// The published columns in the table's order.
    pub columns: Vec<RelationColumn<'a>>,
}

/// A column of a [`RelationMessage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    /// Whether it is part of the replica identity.
    pub in_replica_identity: bool,
    /// The column's name.
    pub name: &'a str,
    /// `pg_attribute.atttypid`.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`; -1 for none.
    pub typmod: i32,
}

/// A row, or the part of it that the WAL carries, with a [`Cell`] per column of the relation.
///
/// Invariant: `bytes` holds `columns` well-formed cells and nothing else. The decoder has walked them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    pub(super) columns: u16,
    pub(super) bytes: &'a [u8],
}

impl<'a> Tuple<'a> {
    /// How many columns it has.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.columns)
    }

    /// Whether it has no column at all (a table can have none).
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// The values, in the order of the relation's columns.
    #[inline]
    pub fn cells(&self) -> Cells<'a> {
        Cells { left: self.columns, bytes: self.bytes }
    }

    /// How many bytes of the frame its cells take.
    #[inline]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }
}

impl<'a> IntoIterator for &Tuple<'a> {
    type Item = Cell<'a>;
    type IntoIter = Cells<'a>;

    #[inline]
    fn into_iter(self) -> Cells<'a> {
        self.cells()
    }
}

/// The cells of a [`Tuple`], in the order of the relation's columns.
#[derive(Clone, Debug)]
pub struct Cells<'a> {
    left: u16,
    bytes: &'a [u8],
}

impl<'a> Iterator for Cells<'a> {
    type Item = Cell<'a>;

    /// Ends where the bytes end, which by [`Tuple`]'s invariant is after the last column; the checks on the way cost
    /// nothing that can be measured and leave no way to panic.
    #[inline]
    fn next(&mut self) -> Option<Cell<'a>> {
        let (cell, rest) = Cell::split_first(self.bytes)?;
        self.bytes = rest;
        self.left = self.left.saturating_sub(1);
        Some(cell)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

impl ExactSizeIterator for Cells<'_> {}

impl std::iter::FusedIterator for Cells<'_> {}

/// One column's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// SQL's null, or in [`OldTuple::Key`] a column that is not part of the replica identity.
    Null,
    /// A TOASTed value that the update left as it was: not in the WAL.
    Unchanged,
    /// The value as the type's output function writes it. Not checked for UTF-8: the server is asked for nothing else
    /// (`client_encoding`), and most encoders never look at it as a string.
    Text(&'a [u8]),
    /// The value as the type's send function writes it (never asked for).
    Binary(&'a [u8]),
}

impl<'a> Cell<'a> {
    /// The first of the cells that a tuple's bytes hold, and the bytes behind it. `None` at their end.
    #[inline]
    pub(crate) fn split_first(bytes: &'a [u8]) -> Option<(Cell<'a>, &'a [u8])> {
        let (&kind, rest) = bytes.split_first()?;
        Some(match kind {
            b'n' => (Cell::Null, rest),
            b'u' => (Cell::Unchanged, rest),
            _ => {
                let (length, rest) = rest.split_first_chunk()?;
                let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
                (if kind == b't' { Cell::Text(value) } else { Cell::Binary(value) }, rest)
            }
        })
    }
}
