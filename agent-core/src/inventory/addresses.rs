//! Addresses and keys that are written into functions, triggers and pg_cron's jobs: they go along as they are, and may belong to the place that is left.
//! Hosts are told; keys, and what a URL has before its host and after it, are not.
use pgconvoy_proto::model::{Finding, Severity};
use pgconvoy_proto::selection::Filter;
use tokio_postgres::Error;

use super::foreign_schema;
use crate::session::Session;

/// Of the rest it is told how many they are.
const MOST: usize = 100;

/// JSON web tokens, which Supabase's keys are, begin with an encoded `{"`.
const KEY: &str = "eyJ[A-Za-z0-9_-]{10,}[.][A-Za-z0-9_-]{10,}";

/// Every function and trigger that has one, and every job that the role may read.
pub async fn findings(session: &Session, filter: &Filter) -> Result<Vec<Finding>, Error> {
    let jobs = match jobs_are_readable(session).await? {
        true => JOBS,
        false => "",
    };
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
             WHERE NOT t.tgisinternal AND t.tgnargs > 0 AND NOT {foreign}
             {jobs})
         SELECT schema, object, text ~ '{KEY}',
                (SELECT string_agg(DISTINCT m[2], ', ' ORDER BY m[2])
                 FROM regexp_matches(text, '(?:https?|wss?)://([^/?#[:space:]''\"]*@)?([A-Za-z0-9.-]+)', 'g') m)
         FROM code WHERE text ~ '(https?|wss?)://[A-Za-z0-9]' OR text ~ '{KEY}' ORDER BY 1, 2",
        foreign = foreign_schema("n")
    );
    let rows = session.query(&query, &[]).await?;
    let admitted = rows.iter().filter(|row| filter.admits_schema(row.get(0)));
    let mut found: Vec<Finding> = admitted
        .map(|row| finding(row.get(1), row.get(2), row.get(3)))
        .collect();
    let more = found.len().saturating_sub(MOST);
    found.truncate(MOST);
    if more > 0 {
        let object = format!("{more} more functions, triggers and jobs");
        found.push(told(&object, "addresses or keys are written into them too"));
    }
    Ok(found)
}

const JOBS: &str = "
             UNION ALL
             SELECT 'cron', 'job ' || coalesce(to_jsonb(j) ->> 'jobname', to_jsonb(j) ->> 'jobid'), to_jsonb(j) ->> 'command' FROM cron.job j";

/// By its OID: its name cannot be looked up without USAGE.
async fn jobs_are_readable(session: &Session) -> Result<bool, Error> {
    let readable = session
        .query_opt(
            "SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid)
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'cron' AND c.relname = 'job' AND c.relkind IN ('r', 'p')",
            &[],
        )
        .await?;
    Ok(readable.is_some_and(|row| row.get(0)))
}

fn finding(object: &str, has_key: bool, hosts: Option<&str>) -> Finding {
    let what = match (hosts, has_key) {
        (Some(hosts), false) => format!("{hosts} is written into it"),
        (Some(hosts), true) => format!("{hosts} is written into it, and a key"),
        (None, _) => "a key is written into it".to_owned(),
    };
    told(object, &what)
}

fn told(object: &str, what: &str) -> Finding {
    Finding::new(Severity::Info, "address-in-code", object, what)
        .hint("does it belong to the place that is left? then change it at the target")
}
