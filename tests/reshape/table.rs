//! A table as the catalog has it, from which its next change is made.

use serde::Deserialize;

use super::session::Session;

/// A row's number: the one column that stays, by which rows are told.
pub const ROW: &str = "rid";

/// What the catalog says.
#[derive(Debug, Deserialize)]
pub struct Table {
    /// Its name in SQL, with the schema.
    pub sql: String,
    /// Whether it goes by the name that is captured in the end.
    pub is_home: bool,
    pub partitioned: bool,
    pub columns: Vec<Column>,
    /// The primary key's constraint.
    pub constraint: Option<String>,
    /// The columns of the key of its topic, in the key's order.
    pub key: Vec<String>,
    pub partitions: Vec<String>,
    /// Tables that were partitions.
    pub detached: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Column {
    pub name: String,
    /// As `format_type` has it.
    pub kind: String,
    pub not_null: bool,
    pub has_default: bool,
    /// Neither written nor captured.
    pub generated: bool,
    /// By an index: it can't go without it.
    pub indexed: bool,
}

const QUERY: &str = "
SELECT json_build_object(
  'sql', format('%I.%I', n.nspname, c.relname),
  'is_home', n.nspname = 'public' AND c.relname = '$t',
  'partitioned', c.relkind = 'p',
  'columns', (SELECT json_agg(json_build_object('name', attname, 'kind', format_type(atttypid, atttypmod),
      'not_null', attnotnull, 'has_default', atthasdef OR attidentity <> '', 'generated', attgenerated <> '',
      'indexed', EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND attnum = ANY (i.indkey::int2[])))
      ORDER BY attnum)
    FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
  'constraint', (SELECT conname FROM pg_constraint WHERE conrelid = c.oid AND contype = 'p'),
  'key', coalesce((SELECT json_agg(a.attname ORDER BY k.place)
    FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY k(number, place), pg_attribute a
    WHERE i.indrelid = c.oid AND a.attrelid = c.oid AND a.attnum = k.number
      AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END), '[]'),
  'partitions', coalesce((SELECT json_agg(p.oid::regclass::text ORDER BY p.oid)
    FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhrelid WHERE h.inhparent = c.oid), '[]'),
  'detached', coalesce((SELECT json_agg(p.oid::regclass::text ORDER BY p.oid) FROM pg_class p
    WHERE p.relnamespace = 'parts'::regnamespace AND p.relkind = 'r' AND p.relname LIKE '$t!_%' ESCAPE '!'
      AND NOT p.relispartition), '[]'))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = coalesce(to_regclass('public.$t'), to_regclass('parked.$t'), to_regclass('public.$t_away'))";

impl Table {
    /// As the session sees it now, wherever it is; `None` if it is dropped.
    pub fn look(session: &Session, name: &str) -> Option<Self> {
        let json = session.one(&QUERY.replace("$t", name))?;
        Some(serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}")))
    }

    /// The columns that a row is written with.
    pub fn written(&self) -> Vec<Column> {
        self.columns.iter().filter(|column| !column.generated).cloned().collect()
    }

    /// Those that may be changed: all but the row's number.
    pub fn others(&self) -> Vec<Column> {
        self.written().into_iter().filter(|column| column.name != ROW).collect()
    }
}
