//! Foreign keys between tables that were synced and others: nobody but us looks for rows that refer to nothing, since keys do not fire
//! while rows are loaded.
use std::collections::HashSet;

use pgconvoy_agent_core::inventory::built;
use pgconvoy_agent_core::session::{Session, qualified};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Finding, ForeignKey, SYNC_ORPHANS, Severity};
use pgconvoy_proto::wire;
use tonic::Status;

use crate::sessions::{Purpose, Sessions};
use crate::steps::foreign_key;

/// Validated keys of which not every table at both of their ends was synced, but some were. $1: the migration, $2: the synced tables.
const CROSSING: &str = "
    WITH synced AS (
        SELECT c.oid FROM pgconvoy.tables s
        JOIN pg_namespace n ON n.nspname = s.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = s.name
        WHERE s.migration = $1 AND s.oid = ANY ($2)
    ), keys AS (
        SELECT oid, conname, conrelid, unnest(ARRAY[conrelid, confrelid]) AS ends FROM pg_constraint
        WHERE contype = 'f' AND conparentid = 0 AND convalidated
    ), tables AS (
        SELECT k.oid, k.conname, k.conrelid, leaf, leaf IN (SELECT oid FROM synced) OR k.ends IN (SELECT oid FROM synced) AS synced
        FROM keys k CROSS JOIN LATERAL (
            SELECT relid FROM pg_partition_tree(k.ends) WHERE isleaf
            UNION SELECT k.ends FROM pg_class c WHERE c.oid = k.ends AND c.relkind <> 'p') l (leaf)
    )
    SELECT t.conname::text, n.nspname::text, c.relname::text
    FROM tables t JOIN pg_class c ON c.oid = t.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    GROUP BY t.oid, 1, 2, 3 HAVING bool_or(t.synced) AND NOT bool_and(t.synced)";

pub async fn check_keys(
    sessions: &Sessions,
    request: wire::CheckKeysRequest,
) -> Result<Vec<Finding>, Status> {
    let migration = &request.migration;
    let failed = |error: tokio_postgres::Error| status::postgres("looking at foreign keys", &error);
    let session = sessions.take(migration, Purpose::Plain).await?;
    let crossing: HashSet<(String, String, String)> = session
        .query(CROSSING, &[&migration, &request.tables])
        .await
        .map_err(failed)?
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    let (keys, _) = built::foreign_keys(&session, &HashSet::new())
        .await
        .map_err(failed)?;
    let is_crossing = |key: &&ForeignKey| {
        crossing.contains(&(key.name.clone(), key.schema.clone(), key.table.clone()))
            || request.again.contains(&object(key))
    };
    let mut findings = Vec::new();
    for key in keys.iter().filter(is_crossing) {
        findings.extend(orphans(&session, key).await.map_err(failed)?);
    }
    sessions.give_back(migration, Purpose::Plain, session);
    Ok(findings)
}

fn object(key: &ForeignKey) -> String {
    format!("{}.{}: {}", key.schema, key.table, key.name)
}

async fn orphans(
    session: &Session,
    key: &ForeignKey,
) -> Result<Option<Finding>, tokio_postgres::Error> {
    let table = qualified(&key.schema, &key.table);
    let (count, sample) = foreign_key::orphans(session, key, &table).await?;
    if count == 0 {
        return Ok(None);
    }
    let message = format!(
        "{count} rows refer to nothing in {}.{}: only one of the two tables was synced (for example {sample})",
        key.referenced_schema, key.referenced_table
    );
    Ok(Some(
        Finding::new(Severity::Difference, SYNC_ORPHANS, object(key), message)
            .hint("sync both tables together"),
    ))
}
