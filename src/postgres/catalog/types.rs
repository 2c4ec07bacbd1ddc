//! Types, with all that they are made of.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::{TypeFacts, letter};
use crate::postgres::control::{Control, ControlError};

const DOING: &str = "reading the types from the catalog";

/// An array is what `array_out` writes: other types have a `typelem` too (`point`, `name`, `int2vector`), but their
/// text is their own. UNION, not UNION ALL, ends the recursion.
const TYPES: &str = "
WITH RECURSIVE part(oid, typname, typnamespace, typtype, base, typmod, element, delimiter) AS (
    SELECT t.oid, t.typname, t.typnamespace, t.typtype, nullif(t.typbasetype, 0), t.typtypmod,
           CASE WHEN t.typtype <> 'd' AND t.typoutput = 'pg_catalog.array_out'::regproc
                THEN nullif(t.typelem, 0) END,
           t.typdelim
    FROM pg_catalog.pg_type t
), wanted(oid) AS (
    SELECT unnest($1)
    UNION
    SELECT next.oid FROM wanted
    JOIN part USING (oid)
    CROSS JOIN LATERAL (VALUES (part.base), (part.element)) AS next(oid)
    WHERE next.oid IS NOT NULL
)
SELECT part.oid, n.nspname::text, part.typname::text, part.typtype::text, part.base, part.typmod, part.element,
       part.delimiter::text,
       (SELECT e.extname::text FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
        WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = part.oid AND d.deptype = 'e'
          AND d.refclassid = 'pg_catalog.pg_extension'::regclass)
FROM wanted
JOIN part USING (oid)
JOIN pg_catalog.pg_namespace n ON n.oid = part.typnamespace
ORDER BY part.oid";

impl Control {
    /// The types of these oids, and those below them: of domains the base, of arrays the element; by oid. An oid that
    /// the catalog doesn't know is left out.
    ///
    /// # Errors
    ///
    /// If the query fails.
    pub async fn types(&self, oids: &[u32]) -> Result<Vec<TypeFacts>, ControlError> {
        self.query(DOING, TYPES, &[(&oids, Type::OID_ARRAY)]).await?.iter().map(facts).collect()
    }
}

fn facts(row: &Row) -> Result<TypeFacts, ControlError> {
    Ok(TypeFacts {
        oid: row.get(0),
        schema: row.get(1),
        name: row.get(2),
        typtype: letter(DOING, row.get(3))?,
        base: row.get::<_, Option<u32>>(4).map(|base| (base, row.get(5))),
        element: row.get(6),
        delimiter: letter(DOING, row.get(7))?,
        extension: row.get(8),
    })
}
