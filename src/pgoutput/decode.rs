//! From the bytes of one pgoutput message to a [`Message`].
//!
//! [`decode`] is total: every byte is taken through [`Reader`], which checks the bounds, and a number that stands for
//! a length or a count is used only after it was compared with what is left. So no input panics, and none makes it
//! allocate more than a small multiple of the input (a row's messages allocate nothing). It is strict: what it doesn't
//! know is an error that names the place, since to guess would be to lose data silently. Bytes after the message's end
//! are an error too: they would mean that the format isn't what this module takes it for.

use std::fmt;

use super::message::{Begin, Commit, Message, OldTuple, RelationColumn, RelationMessage, Tuple};
use crate::lsn::Lsn;
use crate::postgres::catalog::ReplicaIdentity;

/// The fewest bytes that a column takes in a Relation message: flags, an empty name's NUL, type, typmod.
const LEAST_RELATION_COLUMN: usize = 1 + 1 + 4 + 4;

/// Bit of a Relation column's flags: part of the replica identity. Like Postgres's own subscriber, no other is looked at.
const IN_REPLICA_IDENTITY: u8 = 1;

/// Bit of Truncate's options.
const CASCADE: u8 = 1;

/// Bit of Truncate's options.
const RESTART_IDENTITY: u8 = 2;

/// Bit of a logical message's flags.
const TRANSACTIONAL: u8 = 1;

/// The bytes are not a message of pgoutput, protocol version 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed pgoutput message ({message}): {field} at byte {offset}: {problem}")]
pub struct DecodeError {
    /// Which message it was taken for.
    pub message: &'static str,
    /// Which part of it was expected.
    pub field: &'static str,
    /// Where that part starts, counted in bytes from the message's first.
    pub offset: usize,
    /// What was there instead.
    pub problem: Problem,
}

/// What was found where a part of a message was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The message ends before the part does.
    TooShort {
        /// How many bytes the part takes.
        expected: usize,
        /// How many are left.
        left: usize,
    },
    /// A string without the NUL that ends it.
    Unterminated,
    /// A string that is not UTF-8.
    NotUtf8,
    /// A length or a count below zero.
    Negative(i32),
    /// A byte that stands for nothing known here.
    Unknown {
        /// What would have been known.
        expected: &'static str,
        /// The byte.
        found: u8,
    },
    /// So many bytes too many.
    Trailing(usize),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::TooShort { expected, left } => write!(f, "expected {expected} bytes, only {left} are left"),
            Problem::Unterminated => write!(f, "expected a string that ends in NUL, found none to the message's end"),
            Problem::NotUtf8 => write!(f, "expected a string in UTF-8, found other bytes"),
            Problem::Negative(value) => write!(f, "expected a number not below zero, found {value}"),
            Problem::Unknown { expected, found } => {
                write!(f, "expected {expected}, found 0x{found:02X} ('{}')", found.escape_ascii())
            }
            Problem::Trailing(count) => write!(f, "expected the message to end, found {count} more bytes"),
        }
    }
}

/// Decodes one message: what an XLogData frame carries after its header.
///
/// # Errors
///
/// If the bytes are not exactly one message of protocol version 1.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut reader = Reader { message: "unknown", bytes, offset: 0 };
    let kind = reader.byte("message kind")?;
    reader.message = name_of(kind);
    let message = match kind {
        b'B' => begin(&mut reader),
        b'C' => commit(&mut reader),
        b'O' => origin(&mut reader),
        b'R' => relation(&mut reader),
        b'Y' => r#type(&mut reader),
        b'I' => insert(&mut reader),
        b'U' => update(&mut reader),
        b'D' => delete(&mut reader),
        b'T' => truncate(&mut reader),
        b'M' => logical(&mut reader),
        _ => Err(reader.unknown("message kind", "one of B C O R Y I U D T M", kind)),
    }?;
    reader.end()?;
    Ok(message)
}

/// The manual's name of a message, for errors.
fn name_of(kind: u8) -> &'static str {
    match kind {
        b'B' => "Begin",
        b'C' => "Commit",
        b'O' => "Origin",
        b'R' => "Relation",
        b'Y' => "Type",
        b'I' => "Insert",
        b'U' => "Update",
        b'D' => "Delete",
        b'T' => "Truncate",
        b'M' => "Message",
        _ => "unknown",
    }
}

fn begin<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Begin(Begin {
        commit_lsn: reader.lsn("commit LSN")?,
        commit_time: reader.i64("commit time")?,
        xid: reader.u32("transaction id")?,
    }))
}

fn commit<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let flags = reader.byte("flags")?;
    if flags != 0 {
        return Err(reader.unknown("flags", "0", flags));
    }
    Ok(Message::Commit(Commit {
        commit_lsn: reader.lsn("commit LSN")?,
        end_lsn: reader.lsn("end LSN")?,
        commit_time: reader.i64("commit time")?,
    }))
}

fn origin<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Origin { commit_lsn: reader.lsn("origin's commit LSN")?, name: reader.string("origin's name")? })
}

fn relation<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let oid = reader.u32("relation id")?;
    let schema = reader.string("schema")?;
    let name = reader.string("relation name")?;
    let code = reader.byte("replica identity")?;
    let replica_identity =
        ReplicaIdentity::from_code(code).ok_or_else(|| reader.unknown("replica identity", "one of d n f i", code))?;
    let count = reader.count16("number of columns")?;
    let mut columns = Vec::with_capacity(usize::from(count).min(reader.left() / LEAST_RELATION_COLUMN));
    for _ in 0..count {
        columns.push(RelationColumn {
            in_replica_identity: reader.byte("column flags")? & IN_REPLICA_IDENTITY != 0,
            name: reader.string("column name")?,
            type_oid: reader.u32("column type")?,
            typmod: reader.i32("column typmod")?,
        });
    }
    Ok(Message::Relation(RelationMessage { oid, schema, name, replica_identity, columns }))
}

fn r#type<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Type {
        oid: reader.u32("type id")?,
        schema: reader.string("schema")?,
        name: reader.string("type name")?,
    })
}

fn insert<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = reader.u32("relation id")?;
    match reader.byte("tuple kind")? {
        b'N' => Ok(Message::Insert { relation, new: reader.tuple()? }),
        other => Err(reader.unknown("tuple kind", "N", other)),
    }
}

fn update<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = reader.u32("relation id")?;
    let old = match reader.byte("tuple kind")? {
        b'N' => return Ok(Message::Update { relation, old: None, new: reader.tuple()? }),
        b'K' => OldTuple::Key(reader.tuple()?),
        b'O' => OldTuple::Full(reader.tuple()?),
        other => return Err(reader.unknown("tuple kind", "one of K O N", other)),
    };
    match reader.byte("tuple kind")? {
        b'N' => Ok(Message::Update { relation, old: Some(old), new: reader.tuple()? }),
        other => Err(reader.unknown("tuple kind", "N", other)),
    }
}

fn delete<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = reader.u32("relation id")?;
    let old = match reader.byte("tuple kind")? {
        b'K' => OldTuple::Key(reader.tuple()?),
        b'O' => OldTuple::Full(reader.tuple()?),
        other => return Err(reader.unknown("tuple kind", "one of K O", other)),
    };
    Ok(Message::Delete { relation, old })
}

fn truncate<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let count = reader.count32("number of relations")?;
    let options = reader.byte("options")?;
    if options & !(CASCADE | RESTART_IDENTITY) != 0 {
        return Err(reader.unknown("options", "0, 1, 2 or 3", options));
    }
    let relations = reader.take("relation ids", count.saturating_mul(4))?;
    Ok(Message::Truncate {
        relations: relations.as_chunks().0.iter().map(|id| u32::from_be_bytes(*id)).collect(),
        cascade: options & CASCADE != 0,
        restart_identity: options & RESTART_IDENTITY != 0,
    })
}

fn logical<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let flags = reader.byte("flags")?;
    if flags & !TRANSACTIONAL != 0 {
        return Err(reader.unknown("flags", "0 or 1", flags));
    }
    let lsn = reader.lsn("LSN")?;
    let prefix = reader.string("prefix")?;
    let length = reader.count32("content length")?;
    let content = reader.take("content", length)?;
    Ok(Message::Logical { transactional: flags & TRANSACTIONAL != 0, lsn, prefix, content })
}

/// The bytes, and how far they are read.
struct Reader<'a> {
    /// Named in errors.
    message: &'static str,
    bytes: &'a [u8],
    /// Always ≤ `bytes.len()`.
    offset: usize,
}

impl<'a> Reader<'a> {
    #[inline]
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.offset..).unwrap_or_default()
    }

    #[inline]
    fn left(&self) -> usize {
        self.rest().len()
    }

    #[inline]
    fn take(&mut self, field: &'static str, length: usize) -> Result<&'a [u8], DecodeError> {
        match self.rest().get(..length) {
            Some(taken) => {
                self.offset += length;
                Ok(taken)
            }
            None => Err(self.too_short(field, length)),
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        match self.rest().first_chunk() {
            Some(taken) => {
                self.offset += N;
                Ok(*taken)
            }
            None => Err(self.too_short(field, N)),
        }
    }

    #[inline]
    fn byte(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    #[inline]
    fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    #[inline]
    fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.array(field).map(i32::from_be_bytes)
    }

    fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.array(field).map(i64::from_be_bytes)
    }

    fn lsn(&mut self, field: &'static str) -> Result<Lsn, DecodeError> {
        self.array(field).map(|bytes| Lsn(u64::from_be_bytes(bytes)))
    }

    #[inline]
    fn count16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        let count = i16::from_be_bytes(self.array(field)?);
        u16::try_from(count).map_err(|_| self.error(field, 2, Problem::Negative(count.into())))
    }

    #[inline]
    fn count32(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        let count = self.i32(field)?;
        usize::try_from(count).map_err(|_| self.error(field, 4, Problem::Negative(count)))
    }

    /// A string up to its NUL.
    fn string(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let rest = self.rest();
        let Some(length) = rest.iter().position(|&byte| byte == 0) else {
            return Err(self.error(field, 0, Problem::Unterminated));
        };
        let text = std::str::from_utf8(&rest[..length]).map_err(|_| self.error(field, 0, Problem::NotUtf8))?;
        self.offset += length + 1;
        Ok(text)
    }

    /// Walks a tuple's cells, so that [`super::Cells`] needn't look out any more.
    #[inline]
    fn tuple(&mut self) -> Result<Tuple<'a>, DecodeError> {
        let columns = self.count16("number of columns")?;
        let cells = self.rest();
        let start = self.offset;
        for _ in 0..columns {
            match self.byte("cell kind")? {
                b'n' | b'u' => {}
                b't' | b'b' => {
                    let length = self.count32("cell length")?;
                    self.take("cell value", length)?;
                }
                other => return Err(self.unknown("cell kind", "one of n u t b", other)),
            }
        }
        Ok(Tuple { columns, bytes: &cells[..self.offset - start] })
    }

    fn end(&self) -> Result<(), DecodeError> {
        match self.left() {
            0 => Ok(()),
            left => Err(self.error("end", 0, Problem::Trailing(left))),
        }
    }

    #[cold]
    fn too_short(&self, field: &'static str, expected: usize) -> DecodeError {
        self.error(field, 0, Problem::TooShort { expected, left: self.left() })
    }

    /// The byte just read stands for nothing known.
    #[cold]
    fn unknown(&self, field: &'static str, expected: &'static str, found: u8) -> DecodeError {
        self.error(field, 1, Problem::Unknown { expected, found })
    }

    /// An error in a field of which `read` bytes are already behind.
    #[cold]
    fn error(&self, field: &'static str, read: usize, problem: Problem) -> DecodeError {
        DecodeError { message: self.message, field, offset: self.offset - read, problem }
    }
}
