//! Who is asked: some users of each kind, the others spread over the range of ids. The same users give the same sample.
use pgconvoy_proto::model::{AccessRules, AskedTable, Identity, Sample, SampleAsked};
use tokio_postgres::Error;
use tokio_postgres::types::Type;
use tonic::Status;

use super::{failed, refusal};
use crate::session::Session;

/// Listing the users may read a large table once.
const LISTING_MS: u32 = 60_000;

/// In the READ ONLY transaction that the session is in; the session is closed.
pub async fn sample(session: Session, asked: &SampleAsked) -> Result<Sample, Status> {
    let rules = &asked.rules;
    let mut sample = Sample {
        roots: roots(&session, &asked.tables).await.map_err(failed)?,
        ..Sample::default()
    };
    if !rules.users.is_empty() && rules.sample > 0 {
        match users(&session, rules).await {
            Ok(Ok((identities, all))) => {
                sample.identities = identities;
                sample.users = all;
            }
            Ok(Err(problem)) => sample.unread = Some(problem),
            Err(error) => {
                let timeout = super::is_timeout(&error);
                sample.unread = Some(match timeout {
                    true => format!("they were not listed within {} s", LISTING_MS / 1000),
                    false => refusal(error)?.told,
                });
            }
        }
    }
    let besides = rules.identities.iter().map(|one| Identity {
        id: String::new(),
        role: one.role.clone(),
        claims: one.claims.clone(),
    });
    sample.identities.splice(0..0, besides);
    session.close().await;
    Ok(sample)
}

/// The first of each kind, up to half of the sample, the largest kinds first; then every so-manieth of the others.
fn spread(users: &str) -> String {
    format!(
        "WITH users AS MATERIALIZED (
             SELECT id::text AS id, row_number() OVER (ORDER BY id::text) AS at,
                 row_number() OVER (PARTITION BY kind ORDER BY id::text) AS of_kind, count(*) OVER (PARTITION BY kind) AS alike
             FROM ({users}) AS listed(id, kind)),
         kinds AS MATERIALIZED (
             SELECT id, at FROM users WHERE of_kind = 1 ORDER BY alike DESC, at LIMIT ($1 + 1) / 2),
         others AS MATERIALIZED (
             SELECT id, at, row_number() OVER (ORDER BY at) - 1 AS n, count(*) OVER () AS total
             FROM users WHERE at NOT IN (SELECT at FROM kinds)),
         wanted AS (SELECT $1 - count(*) AS count FROM kinds)
         SELECT id, (SELECT count(*) FROM users) FROM (
             SELECT id, at FROM kinds
             UNION ALL
             SELECT id, at FROM others, wanted WHERE n = 0 AND count > 0 OR n * count / total > (n - 1) * count / total
         ) AS chosen ORDER BY at"
    )
}

/// Identities, and how many users there are; or what is wrong with the platform's queries.
async fn users(
    session: &Session,
    rules: &AccessRules,
) -> Result<Result<(Vec<Identity>, u64), String>, Error> {
    let limit = format!("SET LOCAL statement_timeout = {LISTING_MS}");
    session.batch_execute(&limit).await?;
    let wanted = i64::from(rules.sample);
    let rows = session
        .query_typed(&spread(&rules.users), &[(&wanted, Type::INT8)])
        .await?;
    let all = rows.first().map_or(0, |row| row.get::<_, i64>(1) as u64);
    let mut identities = Vec::new();
    for row in rows {
        let id: String = row.get(0);
        let found = session
            .query_typed(&rules.claims, &[(&id, Type::TEXT)])
            .await?;
        let Some(row) = found.first() else {
            return Ok(Err(format!("the query for claims finds no user {id}")));
        };
        let role: Option<Option<String>> = row.try_get(0).ok();
        let claims: Option<Option<String>> = row.try_get(1).ok();
        let (Some(Some(role)), Some(Some(claims))) = (role, claims) else {
            return Ok(Err(format!(
                "the query for claims does not return role and claims as two texts (user {id})"
            )));
        };
        identities.push(Identity { id, role, claims });
    }
    Ok(Ok((identities, all)))
}

/// Applications name a partitioned table, not its partitions.
async fn roots(session: &Session, tables: &[(String, String)]) -> Result<Vec<AskedTable>, Error> {
    let (schemas, names): (Vec<&String>, Vec<&String>) =
        tables.iter().map(|(schema, name)| (schema, name)).unzip();
    let rows = session
        .query(
            "SELECT DISTINCT n.nspname::text, p.relname::text, ARRAY(
                 SELECT a.attname::text FROM pg_catalog.pg_attribute a
                 WHERE a.attrelid = p.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
             FROM unnest($1::text[], $2::text[]) t(schema, name)
             JOIN pg_catalog.pg_namespace s ON s.nspname = t.schema
             JOIN pg_catalog.pg_class c ON c.relnamespace = s.oid AND c.relname = t.name AND c.relispartition
             CROSS JOIN LATERAL pg_catalog.pg_partition_ancestors(c.oid) a
             JOIN pg_catalog.pg_class p ON p.oid = a.relid AND p.oid <> c.oid
             JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace
             ORDER BY 1, 2",
            &[&schemas, &names],
        )
        .await?;
    let root = |row: &tokio_postgres::Row| AskedTable {
        schema: row.get(0),
        name: row.get(1),
        columns: row.get(2),
        filter: None,
    };
    Ok(rows.iter().map(root).collect())
}
