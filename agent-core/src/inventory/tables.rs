//! The tables whose rows are copied, with their columns, key and format.
use std::collections::HashMap;

use pgconvoy_proto::model::{Format, Oid, Relation, Table};
use pgconvoy_proto::selection::Filter;
use tokio_postgres::Error;

use super::{FIRST_NORMAL_OID, foreign_schema};
use crate::session::Session;

/// Types whose binary form is the same in every PostgreSQL from 14 on and carries no OID: of built-in, hand-assigned OID, with
/// send and receive functions that round-trip (src/include/catalog/pg_type.dat). Left out on purpose: reg*
/// types, oidvector, aclitem, xml (its binary form carries an encoding), tsquery (an empty one is refused when received),
/// and pg_* internals.
const BINARY_TYPES: &[&str] = &[
    "bool",
    "bytea",
    "char",
    "name",
    "int8",
    "int2",
    "int4",
    "text",
    "oid",
    "json",
    "jsonb",
    "point",
    "lseg",
    "path",
    "box",
    "polygon",
    "line",
    "circle",
    "float4",
    "float8",
    "money",
    "macaddr",
    "macaddr8",
    "inet",
    "cidr",
    "bpchar",
    "varchar",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "interval",
    "timetz",
    "bit",
    "varbit",
    "numeric",
    "uuid",
    "pg_lsn",
    "tsvector",
    "int4range",
    "numrange",
    "tsrange",
    "tstzrange",
    "daterange",
    "int8range",
    "int4multirange",
    "nummultirange",
    "tsmultirange",
    "tstzmultirange",
    "datemultirange",
    "int8multirange",
];

/// The relations to copy, as the session's transaction sees them, without columns. Leaves of partitioned tables are
/// relations of their own; a partition tree with a hash level on a user type (the hash depends on OIDs) is one, through its root.
pub async fn relations(session: &Session, filter: &Filter) -> Result<Vec<Table>, Error> {
    let query = format!(
        "WITH odd AS (
             SELECT p.partrelid FROM pg_partitioned_table p
             WHERE p.partstrat = 'h' AND (0 = ANY (p.partattrs::int2[]) OR EXISTS (
                 SELECT FROM pg_attribute a WHERE a.attrelid = p.partrelid
                 AND a.attnum = ANY (p.partattrs::int2[]) AND a.atttypid >= {FIRST_NORMAL_OID}))
         ), config AS (
             SELECT unnest(extconfig) AS oid, unnest(extcondition) AS condition FROM pg_extension
         )
         SELECT c.oid, n.nspname, c.relname, c.relpersistence = 'u', c.relkind = 'p',
                regexp_replace(coalesce(config.condition, ''), '^\\s*where\\s', '', 'i'), config.oid IS NOT NULL
         FROM pg_class c
         JOIN pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN config ON config.oid = c.oid
         WHERE NOT {foreign} AND c.relpersistence <> 't'
           AND (c.relkind = 'r' AND NOT EXISTS (
                    SELECT FROM pg_partition_ancestors(c.oid) a JOIN odd ON odd.partrelid = a.relid)
                OR c.relkind = 'p' AND c.oid IN (SELECT partrelid FROM odd) AND NOT EXISTS (
                    SELECT FROM pg_partition_ancestors(c.oid) a JOIN odd ON odd.partrelid = a.relid
                    WHERE a.relid <> c.oid))
           AND (config.oid IS NOT NULL OR NOT EXISTS (
                    SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                    AND d.deptype = 'e'))
         ORDER BY 2, 3",
        foreign = foreign_schema("n"),
    );
    let tables = session.query(&query, &[]).await?.into_iter().map(|row| {
        let filter: String = row.get(5);
        Table {
            oid: row.get(0),
            schema: row.get(1),
            name: row.get(2),
            relation: Relation::Table,
            columns: Vec::new(),
            key_columns: 0,
            format: Format::Text,
            filter: (!filter.trim().is_empty()).then_some(filter),
            size_bytes: 0,
            blocks: 0,
            through_root: row.get(4),
            unlogged: row.get(3),
            generated: Vec::new(),
            padded: Vec::new(),
            arrays: Vec::new(),
            fixed: Vec::new(),
            managed: false,
            of_extension: row.get(6),
        }
    });
    Ok(tables
        .filter(|table| filter.admits(&table.schema, &table.name))
        .collect())
}

/// Tables that belong to an extension, are none of its configuration tables and hold rows, each with its extension: these rows are not
/// copied. Some extensions make tables of their users' their members (ALTER EXTENSION ... ADD TABLE).
pub async fn of_extensions(
    session: &Session,
    filter: &Filter,
) -> Result<Vec<(String, String)>, Error> {
    let query = format!(
        "SELECT n.nspname::text, c.relname::text, c.oid::regclass::text, quote_ident(e.extname)
         FROM pg_depend d
         JOIN pg_extension e ON e.oid = d.refobjid
         JOIN pg_class c ON c.oid = d.objid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
           AND c.relkind = 'r' AND NOT {} AND c.oid <> ALL (coalesce(e.extconfig, '{{}}')) AND pg_relation_size(c.oid) > 0
         ORDER BY 1, 2",
        foreign_schema("n"),
    );
    let rows = session.query(&query, &[]).await?;
    let admitted = rows
        .iter()
        .filter(|row| filter.admits(row.get(0), row.get(1)));
    Ok(admitted.map(|row| (row.get(2), row.get(3))).collect())
}

/// Fills in columns, key, format and size.
pub async fn describe(session: &Session, tables: &mut [Table]) -> Result<(), Error> {
    let oids: Vec<Oid> = tables.iter().map(|table| table.oid).collect();
    let mut columns = columns(session, &oids).await?;
    let keys = keys(session, &oids).await?;
    let sizes = sizes(session, &oids).await?;
    for table in tables {
        let (mut own, generated): (Vec<Column>, Vec<Column>) = columns
            .remove(&table.oid)
            .unwrap_or_default()
            .into_iter()
            .partition(|column| !column.generated);
        let candidates = keys.get(&table.oid).map(Vec::as_slice).unwrap_or_default();
        let usable = candidates.iter().find(|key| {
            key.iter()
                .all(|number| own.iter().any(|c| c.number == *number && c.not_null))
        });
        if let Some(key) = usable {
            own.sort_by_key(|c| key.iter().position(|n| *n == c.number).unwrap_or(key.len()));
            table.key_columns = key.len();
        }
        let mut all = own.iter().chain(&generated);
        let binary = !own.is_empty() && all.all(|column| column.binary);
        table.format = if binary { Format::Binary } else { Format::Text };
        let padded = own.iter().filter(|column| column.padded);
        table.padded = padded.map(|column| column.name.clone()).collect();
        let arrays = own.iter().chain(&generated).filter(|column| column.array);
        table.arrays = arrays.map(|column| column.name.clone()).collect();
        table.columns = own.into_iter().map(|column| column.name).collect();
        table.generated = generated.into_iter().map(|column| column.name).collect();
        (table.blocks, table.size_bytes) = sizes.get(&table.oid).copied().unwrap_or_default();
    }
    Ok(())
}

struct Column {
    number: i16,
    name: String,
    not_null: bool,
    binary: bool,
    /// Stored: computed at both ends.
    generated: bool,
    /// `character(n)`: a `bpchar` of no length, and a domain, keep what they are given.
    padded: bool,
    /// Of a type that may travel in binary.
    array: bool,
}

async fn columns(session: &Session, oids: &[Oid]) -> Result<HashMap<Oid, Vec<Column>>, Error> {
    let rows = session
        .query(
            "SELECT a.attrelid, a.attnum, a.attname, a.attnotnull,
                    t.oid < 16384 AND t.typnamespace = 'pg_catalog'::regnamespace
                    AND (t.typname = ANY ($2) OR e.typname = ANY ($2) AND t.typcategory = 'A'),
                    a.attgenerated = 's',
                    a.atttypid = 'bpchar'::regtype AND a.atttypmod > 0,
                    e.typname = ANY ($2) AND t.typcategory = 'A'
             FROM pg_attribute a
             JOIN pg_type t ON t.oid = a.atttypid
             LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
             WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated IN ('', 's')
             ORDER BY a.attrelid, a.attnum",
            &[&oids, &BINARY_TYPES],
        )
        .await?;
    let mut columns: HashMap<Oid, Vec<Column>> = HashMap::new();
    for row in rows {
        columns.entry(row.get(0)).or_default().push(Column {
            number: row.get(1),
            name: row.get(2),
            not_null: row.get(3),
            binary: row.get::<_, Option<bool>>(4).unwrap_or(false),
            generated: row.get(5),
            padded: row.get(6),
            array: row.get::<_, Option<bool>>(7).unwrap_or(false),
        });
    }
    Ok(columns)
}

/// Candidates for the key, best first: valid, immediate, non-partial, non-expression unique indexes; the primary key before others, then
/// the narrowest.
async fn keys(session: &Session, oids: &[Oid]) -> Result<HashMap<Oid, Vec<Vec<i16>>>, Error> {
    let rows = session
        .query(
            "SELECT indrelid, (indkey::int2[])[0:indnkeyatts - 1]
             FROM pg_index
             WHERE indrelid = ANY ($1) AND indisunique AND indisvalid AND indimmediate
               AND indpred IS NULL AND indexprs IS NULL
             ORDER BY indrelid, indisprimary DESC, indnkeyatts, indexrelid",
            &[&oids],
        )
        .await?;
    let mut keys: HashMap<Oid, Vec<Vec<i16>>> = HashMap::new();
    for row in rows {
        keys.entry(row.get(0)).or_default().push(row.get(1));
    }
    Ok(keys)
}

/// A CTE: relations that somebody else waits for to have alone, where this session has no lock yet. Whoever asks for their size queues behind
/// him, and he may be waiting for a snapshot that is held for the very migration that is to be resumed.
pub const WAITED_FOR: &str = "waited_for AS (
    SELECT DISTINCT w.relation FROM pg_locks w
    WHERE NOT w.granted AND w.mode = 'AccessExclusiveLock' AND w.relation IS NOT NULL
      AND w.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND NOT EXISTS (SELECT FROM pg_locks own WHERE own.pid = pg_backend_pid() AND own.granted AND own.relation = w.relation))";

/// Heap blocks (of the longest leaf, for a root) and bytes with TOAST; of tables in [`WAITED_FOR`] what the statistics know.
async fn sizes(session: &Session, oids: &[Oid]) -> Result<HashMap<Oid, (u32, u64)>, Error> {
    let rows = session
        .query(
            &format!(
                "WITH {WAITED_FOR}, block (size) AS (SELECT current_setting('block_size')::int8)
                 SELECT r.oid,
                        max(CASE WHEN w.relation IS NULL THEN pg_relation_size(l.oid) / b.size ELSE c.relpages END)::int8,
                        sum(CASE WHEN w.relation IS NULL THEN pg_table_size(l.oid) ELSE c.relpages * b.size END)::int8
                 FROM unnest($1::oid[]) AS r (oid)
                 CROSS JOIN LATERAL (SELECT r.oid UNION SELECT relid::oid FROM pg_partition_tree(r.oid)) AS l
                 CROSS JOIN block b
                 LEFT JOIN pg_class c ON c.oid = l.oid
                 LEFT JOIN waited_for w ON w.relation = l.oid
                 GROUP BY 1"
            ),
            &[&oids],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| {
            let blocks: Option<i64> = row.get(1);
            let bytes: Option<i64> = row.get(2);
            (
                row.get(0),
                (blocks.unwrap_or(0) as u32, bytes.unwrap_or(0) as u64),
            )
        })
        .collect())
}
