//! Fills what an update left unchanged, as far as the old row has it.
//!
//! The WAL doesn't carry a TOASTed value that an update left as it was. Under REPLICA IDENTITY FULL the old row has it.
//! Under the other identities the old row has it if it is part of the identity: Postgres sends the old key along
//! whenever a column of it is TOASTed. Then every other column of the old row is null, whatever its value was, and no
//! column of the identity can be null: so there a null means "not known", and nothing is filled with it.
//!
//! Nor is it where the stream says that the old row is whole. It says so by the identity of the table that it publishes,
//! and the WAL follows that of the partition, which may be another one. Under a true FULL nothing is lost: what was null
//! is no TOASTed value that was left as it was.

use crate::pgoutput::Cell;

/// The new row with unchanged values taken from the old one; made by [`fill_unchanged`].
#[derive(Clone, Debug)]
pub struct Filled<N, O> {
    new: N,
    old: O,
}

/// The new row, with the values that it left unchanged taken from what the WAL carries of the old one. What that lacks
/// too stays [`Cell::Unchanged`].
pub fn fill_unchanged<'a, N, O>(new: N, old: O) -> Filled<N, O>
where
    N: Iterator<Item = Cell<'a>> + Clone,
    O: Iterator<Item = Cell<'a>> + Clone,
{
    Filled { new, old }
}

impl<'a, N, O> Iterator for Filled<N, O>
where
    N: Iterator<Item = Cell<'a>>,
    O: Iterator<Item = Cell<'a>>,
{
    type Item = Cell<'a>;

    #[inline]
    fn next(&mut self) -> Option<Cell<'a>> {
        let new = self.new.next()?;
        match (new, self.old.next()) {
            (Cell::Unchanged, Some(Cell::Null)) => Some(Cell::Unchanged),
            (Cell::Unchanged, Some(old)) => Some(old),
            (new, _) => Some(new),
        }
    }
}
