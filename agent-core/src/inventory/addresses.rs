//! Addresses and keys that are written into functions and triggers: they go along as they are, and may belong to the place that is left.
//! Hosts are told; keys, and what a URL has before its host and after it, are not.
use pgconvoy_proto::model::{Finding, Severity};
use pgconvoy_proto::selection::Filter;
use tokio_postgres::Error;

use super::foreign_schema;
use crate::session::Session;

/// The rest is in schema.sql.
const MOST: usize = 100;

/// JSON web tokens, which Supabase's keys are, begin with an encoded `{"`.
const KEY: &str = "eyJ[A-Za-z0-9_-]{10,}[.][A-Za-z0-9_-]{10,}";

/// Every function and trigger that has one.
pub async fn findings(session: &Session, filter: &Filter) -> Result<Vec<Finding>, Error> {
    let query = format!(
        "WITH code (schema, object, text) AS (
             SELECT n.nspname::text, 'function ' || p.oid::regprocedure::text,
                    coalesce(pg_get_function_sqlbody(p.oid), p.prosrc)
             FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
             WHERE NOT {foreign} AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass
                                                 AND d.objid = p.oid AND d.deptype = 'e')
             UNION ALL
             SELECT n.nspname::text, format('trigger %I on %s', t.tgname, t.tgrelid::regclass), encode(t.tgargs, 'escape')
             FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE NOT t.tgisinternal AND t.tgnargs > 0 AND NOT {foreign})
         SELECT schema, object, text ~ '{KEY}',
                (SELECT string_agg(DISTINCT m[2], ', ' ORDER BY m[2])
                 FROM regexp_matches(text, '(?:https?|wss?)://([^/?#[:space:]''\"]*@)?([A-Za-z0-9.-]+)', 'g') m)
         FROM code WHERE text ~ '(https?|wss?)://[A-Za-z0-9]' OR text ~ '{KEY}' ORDER BY 1, 2",
        foreign = foreign_schema("n")
    );
    let rows = session.query(&query, &[]).await?;
    let admitted = rows.iter().filter(|row| filter.admits_schema(row.get(0)));
    Ok(admitted
        .take(MOST)
        .map(|row| finding(row.get(1), row.get(2), row.get(3)))
        .collect())
}

fn finding(object: &str, has_key: bool, hosts: Option<&str>) -> Finding {
    let what = match (hosts, has_key) {
        (Some(hosts), false) => format!("{hosts} is written into it"),
        (Some(hosts), true) => format!("{hosts} is written into it, and a key"),
        (None, _) => "a key is written into it".to_owned(),
    };
    Finding::new(Severity::Info, "address-in-code", object, what)
        .hint("does it belong to the place that is left? then change it at the target")
}
