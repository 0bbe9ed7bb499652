//! What a platform's schemas hold, and what is of the whole database: every object that an archive may have an entry for, with its owner
//! and with what it is part of; tables with their columns. The same query at both ends.
use std::collections::HashMap;

use pgconvoy_proto::model::{
    Entry, HeldColumn, HeldTable, Holding, Holdings, HoldingsAsked, Malformed,
};
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};

use super::{
    constraints, default_privileges, foreign_schema, identity, query_quoted, trigger_definition,
};
use crate::session::{Session, qualified, quote_ident};

/// Publications of whole schemas are known from here on.
const SCHEMA_PUBLICATIONS_SINCE: u32 = 150_000;

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Postgres(#[from] Error),
}

/// In a transaction of its own.
pub async fn read(session: &Session, asked: &HoldingsAsked) -> Result<Holdings, ReadError> {
    session
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    let schemas = managed(session, &asked.schemas).await?;
    let holdings = Holdings {
        objects: objects(session, &schemas).await?,
        tables: tables(session, &schemas).await?,
        roles: names(session, "SELECT rolname::text FROM pg_roles ORDER BY 1").await?,
        extensions: extensions(session).await?,
        default_privileges: default_privileges::read(session).await?,
        versions: versions(session, &asked.versions).await?,
        schemas,
    };
    session.batch_execute("COMMIT").await?;
    Ok(holdings)
}

async fn names(session: &Session, query: &str) -> Result<Vec<String>, Error> {
    let rows = session.query(query, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn extensions(session: &Session) -> Result<Vec<(String, String)>, Error> {
    let query = "SELECT extname::text, extversion FROM pg_extension ORDER BY 1";
    let rows = session.query(query, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Schemas of this database that one of the globs matches.
pub async fn managed(session: &Session, globs: &[String]) -> Result<Vec<String>, ReadError> {
    let set = pgconvoy_proto::selection::schemas(globs)?;
    let query = format!(
        "SELECT nspname::text FROM pg_namespace n WHERE NOT {} ORDER BY 1",
        foreign_schema("n")
    );
    let mut schemas = names(session, &query).await?;
    schemas.retain(|schema| set.is_match(schema));
    Ok(schemas)
}

/// Columns: class, OID, schema, class and OID of what it is part of, owner, OID of a trigger's function, definition.
fn objects_query(version: u32) -> String {
    let in_schema = |class: &str, prefix: &str| {
        format!(
            "SELECT o.tableoid, o.oid, o.{prefix}namespace, NULL::oid, NULL::oid, o.{prefix}owner, NULL::oid, NULL::text
             FROM {class} o JOIN managed n ON n.oid = o.{prefix}namespace"
        )
    };
    let of_relation = |class: &str, relation: &str, more: &str, definition: &str| {
        format!(
            "SELECT o.tableoid, o.oid, c.relnamespace, c.tableoid, c.oid, c.relowner, NULL, {definition}
             FROM {class} o JOIN pg_class c ON c.oid = o.{relation} JOIN managed n ON n.oid = c.relnamespace WHERE {more}"
        )
    };
    let of_database = |class: &str, owner: &str, more: &str| {
        format!(
            "SELECT o.tableoid, o.oid, NULL, NULL, NULL, {owner}, NULL, NULL FROM {class} o WHERE {more}"
        )
    };
    let mut queries = vec![
        format!(
            "SELECT n.tableoid, n.oid, n.oid, NULL::oid, NULL::oid, n.nspowner, NULL::oid, NULL::text FROM pg_namespace n WHERE NOT {}",
            foreign_schema("n")
        ),
        // A sequence that a column owns is part of its table.
        "SELECT c.tableoid, c.oid, c.relnamespace, CASE WHEN d.objid IS NOT NULL THEN c.tableoid END, d.refobjid, c.relowner, NULL, NULL
         FROM pg_class c JOIN managed n ON n.oid = c.relnamespace
         LEFT JOIN pg_depend d ON c.relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
             AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')"
            .to_owned(),
        "SELECT x.tableoid, x.oid, x.relnamespace, c.tableoid, c.oid, c.relowner, NULL, pg_get_indexdef(x.oid)
         FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
         JOIN managed n ON n.oid = c.relnamespace
         WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.oid AND k.contype IN ('p', 'u', 'x'))"
            .to_owned(),
        of_relation("pg_attrdef", "adrelid", "true", "NULL"),
        of_relation(
            "pg_constraint",
            "conrelid",
            "o.contype <> 'n'",
            "format('ALTER TABLE %s ADD CONSTRAINT %I %s', c.oid::regclass, o.conname, pg_get_constraintdef(o.oid))",
        ),
        "SELECT o.tableoid, o.oid, t.typnamespace, t.tableoid, t.oid, t.typowner, NULL, NULL
         FROM pg_constraint o JOIN pg_type t ON t.oid = o.contypid JOIN managed n ON n.oid = t.typnamespace"
            .to_owned(),
        format!(
            "SELECT o.tableoid, o.oid, c.relnamespace, c.tableoid, c.oid, c.relowner, o.tgfoid,
                    {}
             FROM pg_trigger o JOIN pg_class c ON c.oid = o.tgrelid JOIN managed n ON n.oid = c.relnamespace WHERE NOT o.tgisinternal",
            trigger_definition("o"),
        ),
        of_relation("pg_policy", "polrelid", "true", "NULL"),
        of_relation(
            "pg_rewrite",
            "ev_class",
            "o.rulename <> '_RETURN'",
            "pg_get_ruledef(o.oid)",
        ),
        of_relation(
            "pg_statistic_ext",
            "stxrelid",
            "true",
            "pg_get_statisticsobjdef(o.oid)",
        ),
        of_relation("pg_publication_rel", "prrelid", "true", "NULL"),
        in_schema("pg_proc", "pro"),
        // Those of relations and arrays come with what they are of.
        "SELECT t.tableoid, t.oid, t.typnamespace, NULL, NULL, t.typowner, NULL, NULL
         FROM pg_type t JOIN managed n ON n.oid = t.typnamespace LEFT JOIN pg_class r ON r.oid = t.typrelid
         WHERE (t.typrelid = 0 OR r.relkind = 'c') AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)"
            .to_owned(),
        in_schema("pg_operator", "opr"),
        in_schema("pg_opclass", "opc"),
        in_schema("pg_opfamily", "opf"),
        in_schema("pg_collation", "coll"),
        in_schema("pg_conversion", "con"),
        in_schema("pg_ts_dict", "dict"),
        in_schema("pg_ts_config", "cfg"),
        of_database("pg_extension", "o.extowner", "true"),
        // to_jsonb(): what it does with generated columns is known from 18 on.
        "SELECT o.tableoid, o.oid, NULL, NULL, NULL, o.pubowner, NULL,
                format('CREATE PUBLICATION %I%s WITH (publish = %L, publish_via_partition_root = %s%s)', o.pubname,
                       CASE WHEN o.puballtables THEN ' FOR ALL TABLES' END,
                       concat_ws(', ', CASE WHEN o.pubinsert THEN 'insert' END, CASE WHEN o.pubupdate THEN 'update' END,
                                 CASE WHEN o.pubdelete THEN 'delete' END, CASE WHEN o.pubtruncate THEN 'truncate' END),
                       o.pubviaroot,
                       CASE to_jsonb(o) ->> 'pubgencols' WHEN 's' THEN ', publish_generated_columns = stored' END)
         FROM pg_publication o"
            .to_owned(),
        "SELECT o.tableoid, o.oid, NULL, NULL, NULL, o.evtowner, o.evtfoid, NULL FROM pg_event_trigger o"
            .to_owned(),
        "SELECT o.tableoid, o.oid, nullif(o.defaclnamespace, 0), NULL, NULL, o.defaclrole, NULL, NULL FROM pg_default_acl o"
            .to_owned(),
        of_database("pg_foreign_data_wrapper", "o.fdwowner", "o.oid >= 16384"),
        of_database("pg_foreign_server", "o.srvowner", "true"),
        of_database("pg_language", "o.lanowner", "o.oid >= 16384"),
    ];
    if version >= SCHEMA_PUBLICATIONS_SINCE {
        queries.push(
            "SELECT o.tableoid, o.oid, n.oid, NULL, NULL, p.pubowner, NULL, NULL FROM pg_publication_namespace o
             JOIN pg_publication p ON p.oid = o.pnpubid JOIN managed n ON n.oid = o.pnnspid"
                .to_owned(),
        );
    }
    queries.join("\n UNION ALL ")
}

async fn objects(session: &Session, schemas: &[String]) -> Result<Vec<Holding>, Error> {
    let query = format!(
        "WITH managed AS MATERIALIZED (SELECT oid, nspname FROM pg_namespace WHERE nspname = ANY ($1)),
         o (class, oid, schema, of_class, of_oid, owner, fn, definition) AS MATERIALIZED ({})
         SELECT o.class, o.oid, i.type, {}, n.nspname::text, o.of_class, o.of_oid, pg_get_userbyid(o.owner)::text,
                fn.nspname::text, p.proname::text, pg_get_userbyid(p.proowner)::text, e.extname::text, o.definition,
                ARRAY(SELECT pg_get_userbyid(r)::text FROM pg_policy y, unnest(y.polroles) r
                      WHERE o.class = 'pg_policy'::regclass AND y.oid = o.oid AND r <> 0),
                ARRAY(SELECT a.adrelid FROM pg_depend u JOIN pg_attrdef a ON a.oid = u.objid
                      WHERE i.type = 'sequence' AND o.of_oid IS NULL AND u.classid = 'pg_attrdef'::regclass
                        AND u.refclassid = o.class AND u.refobjid = o.oid)
         FROM o CROSS JOIN LATERAL pg_identify_object(o.class, o.oid, 0) i
         LEFT JOIN pg_namespace n ON n.oid = o.schema
         LEFT JOIN pg_proc p ON p.oid = o.fn LEFT JOIN pg_namespace fn ON fn.oid = p.pronamespace
         LEFT JOIN pg_depend d ON d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e'
             AND d.refclassid = 'pg_extension'::regclass
         LEFT JOIN pg_extension e ON e.oid = d.refobjid
         WHERE i.identity IS NOT NULL ORDER BY 3, 4",
        objects_query(session.server_version()),
        identity("i.identity"),
    );
    let rows = query_quoted(session, &query, &[&schemas]).await?;
    Ok(rows.iter().map(holding).collect())
}

fn holding(row: &Row) -> Holding {
    let of: (Option<u32>, Option<u32>) = (row.get(5), row.get(6));
    let class: u32 = row.get(0);
    let feeds: Vec<u32> = row.get(14);
    let function = (|| Some((row.get::<_, Option<_>>(8)?, row.get(9), row.get(10))))();
    Holding {
        entry: Entry {
            class,
            oid: row.get(1),
        },
        kind: row.get(2),
        identity: row.get(3),
        schema: row.get(4),
        // Sequences and tables are in one catalog.
        feeds: feeds.into_iter().map(|oid| Entry { class, oid }).collect(),
        of: of.0.zip(of.1).map(|(class, oid)| Entry { class, oid }),
        owner: row.get(7),
        function,
        extension: row.get(11),
        definition: row.get(12),
        roles: row.get(13),
    }
}

async fn tables(session: &Session, schemas: &[String]) -> Result<Vec<HeldTable>, Error> {
    let rows = session
        .query(
            "SELECT c.tableoid, c.oid, n.nspname::text, c.relname::text, c.relrowsecurity
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p') AND n.nspname = ANY ($1) ORDER BY 3, 4",
            &[&schemas],
        )
        .await?;
    let mut tables: Vec<HeldTable> = rows
        .iter()
        .map(|row| HeldTable {
            entry: Entry {
                class: row.get(0),
                oid: row.get(1),
            },
            schema: row.get(2),
            name: row.get(3),
            row_security: row.get(4),
            columns: Vec::new(),
            constraints: Vec::new(),
        })
        .collect();
    let oids: Vec<u32> = tables.iter().map(|table| table.entry.oid).collect();
    let query = "SELECT a.attrelid, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull OR t.typnotnull,
                        pg_get_expr(d.adbin, d.adrelid), a.attgenerated <> '', a.attidentity <> '',
                        ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = a.atttypid ORDER BY e.enumsortorder),
                        CASE t.typtype WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod) ELSE '' END
                 FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                 LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                 WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum";
    let places: HashMap<u32, usize> = oids
        .iter()
        .enumerate()
        .map(|(at, oid)| (*oid, at))
        .collect();
    for row in session.query(query, &[&oids]).await? {
        let of: u32 = row.get(0);
        if let Some(at) = places.get(&of) {
            tables[*at].columns.push(HeldColumn {
                name: row.get(1),
                data_type: row.get(2),
                not_null: row.get(3),
                default: row.get(4),
                generated: row.get(5),
                identity: row.get(6),
                labels: row.get(7),
                domain_of: row.get(8),
            });
        }
    }
    for (oid, constraint) in constraints::read(session, &oids).await? {
        if let Some(at) = places.get(&oid) {
            tables[*at].constraints.push(constraint);
        }
    }
    Ok(tables)
}

/// `schema.table.column`, of those that are there and may be read.
async fn versions(session: &Session, asked: &[String]) -> Result<Vec<(String, String)>, Error> {
    let mut found = Vec::new();
    for column in asked {
        let parts: Vec<&str> = column.split('.').collect();
        let [schema, table, name] = parts.as_slice() else {
            continue;
        };
        let there = "SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2 AND a.attname = $3 AND c.relkind IN ('r', 'p') AND NOT a.attisdropped
               AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid)";
        let of = [
            (schema as _, Type::TEXT),
            (table as _, Type::TEXT),
            (name as _, Type::TEXT),
        ];
        if session.query_typed(there, &of).await?.is_empty() {
            continue;
        }
        let highest = format!(
            "SELECT max({})::text FROM {}",
            quote_ident(name),
            qualified(schema, table)
        );
        let version: Option<String> = session.query_one(&highest, &[]).await?.get(0);
        found.extend(version.map(|version| (column.clone(), version)));
    }
    Ok(found)
}
