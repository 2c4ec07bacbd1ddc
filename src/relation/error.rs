//! Why a table can't be captured as it is, and what to do about it.

use super::names::list;

/// A table has no [`Shape`](super::Shape). Definite: it stays so until the table or the configuration is changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("table {table}: {problem}")]
pub struct ShapeError {
    /// The table, as SQL writes it.
    pub table: String,
    /// What is wrong with it; its text ends in the remedy.
    pub problem: ShapeProblem,
}

/// What is wrong with a table.
///
/// `table` is in the variants whose remedy is an SQL command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the messages say they are")]
pub enum ShapeProblem {
    /// REPLICA IDENTITY NOTHING.
    #[error(
        "its replica identity is NOTHING, so a delete can't name its key; remedy: \
         ALTER TABLE {table} REPLICA IDENTITY DEFAULT (with a primary key), USING INDEX … or FULL"
    )]
    IdentityNothing { table: String },
    /// REPLICA IDENTITY DEFAULT, and no primary key.
    #[error(
        "it has no primary key that its replica identity carries (a deferrable one doesn't count), so a delete can't \
         name its key; remedy: ALTER TABLE {table} ADD PRIMARY KEY (…), or ALTER TABLE {table} REPLICA IDENTITY \
         USING INDEX … with a unique index over columns that are NOT NULL"
    )]
    NoPrimaryKey { table: String },
    /// REPLICA IDENTITY FULL, no primary key, and the mapping names no key.
    #[error(
        "its replica identity is FULL, but it has no primary key to take as the record's key; remedy: name the \
         columns that identify a row in the table's mapping, key = [\"…\"], or ALTER TABLE {table} ADD PRIMARY KEY (…)"
    )]
    FullWithoutKey { table: String },
    /// REPLICA IDENTITY USING INDEX, and the index is gone.
    #[error(
        "the index of its replica identity is gone, so a delete can't name its key; remedy: \
         ALTER TABLE {table} REPLICA IDENTITY DEFAULT (with a primary key), USING INDEX … or FULL"
    )]
    IdentityIndexGone { table: String },
    /// The mapping's key goes beyond the replica identity.
    #[error(
        "the mapping's key has columns that the replica identity doesn't carry ({}), so a delete can't name its key; \
         remedy: ALTER TABLE {table} REPLICA IDENTITY FULL, or USING INDEX … with a unique index over them",
        list(.columns)
    )]
    KeyNotInIdentity { table: String, columns: Vec<String> },
    /// The catalog and the stream disagree about the key.
    #[error(
        "the primary key or replica identity index changed while the stream was behind: the stream says ({}), the \
         catalog says ({}), and the order of the columns can't be known; remedy: name them in the table's mapping, \
         key = [\"…\"]",
        list(.stream), list(.catalog)
    )]
    KeyChanged { stream: Vec<String>, catalog: Vec<String> },
    /// A column of the key is generated, and not published.
    #[error(
        "the column {column:?} of its key is generated, and the publication doesn't carry it; remedy: from Postgres 18 on, \
         ALTER PUBLICATION … SET (publish_generated_columns = stored), or ALTER TABLE {table} REPLICA IDENTITY USING \
         INDEX … with a unique index over other columns that are NOT NULL"
    )]
    KeyGenerated { table: String, column: String },
    /// `key = []`.
    #[error("the mapping's key is empty; remedy: name the key's columns, or leave the setting out")]
    KeyEmpty,
    /// A column stands twice in the mapping's key.
    #[error("the mapping's key has the column {column:?} twice; remedy: name it once")]
    KeyTwice { column: String },
    /// A column of the key is excluded.
    #[error(
        "the column {column:?} is part of the key and can't be excluded; remedy: take it out of exclude_columns, or \
         name another key in the mapping"
    )]
    KeyExcluded { column: String },
    /// A setting of the mapping names a column that isn't there.
    #[error(
        "the setting `{setting}` names the column {column:?}, which the table (or its publication) doesn't have; \
         its columns are: {}; remedy: correct the name or take it out",
        list(.existing)
    )]
    UnknownColumn { setting: &'static str, column: String, existing: Vec<String> },
}

impl ShapeProblem {
    /// Whether it is the key that can't be known: the table may be amid a change of it, which passes.
    pub fn is_about_the_key(&self) -> bool {
        !matches!(self, ShapeProblem::UnknownColumn { setting, .. } if *setting != "key")
    }
}
