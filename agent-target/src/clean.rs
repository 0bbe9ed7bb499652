//! Removes a migration's ledger and archive, and the ledger's schema with the last one. The rows and objects that were migrated
//! stay.
use pgconvoy_agent_core::session::Session;
use tonic::Status;

use crate::archive::Store;
use crate::ledger;

/// What was removed, for people. An empty `migration` means all.
pub async fn clean(
    session: &Session,
    store: &Store,
    migration: &str,
) -> Result<Vec<String>, Status> {
    let rows = session
        .query(
            "SELECT id FROM pgconvoy.migrations WHERE $1 IN ('', id)",
            &[&migration],
        )
        .await;
    let ids: Vec<String> = match rows.map_err(ledger::failed) {
        Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
        Err(status) if status.code() == tonic::Code::NotFound && migration.is_empty() => {
            return Ok(Vec::new());
        }
        Err(status) => return Err(status),
    };
    if ids.is_empty() && !migration.is_empty() {
        return Err(Status::not_found(format!(
            "there is no migration {migration}"
        )));
    }
    let mut removed = Vec::new();
    for id in &ids {
        if store.remove(id)? {
            removed.push(format!("archive of migration {id}"));
        }
    }
    session
        .batch_execute("BEGIN")
        .await
        .map_err(ledger::failed)?;
    session
        .execute(
            "DELETE FROM pgconvoy.migrations WHERE id = ANY ($1)",
            &[&ids],
        )
        .await
        .map_err(ledger::failed)?;
    removed.extend(ids.iter().map(|id| format!("ledger of migration {id}")));
    let left: i64 = session
        .query_one("SELECT count(*) FROM pgconvoy.migrations", &[])
        .await
        .map_err(ledger::failed)?
        .get(0);
    if left == 0 {
        session
            .batch_execute(
                "DROP TABLE pgconvoy.unlogged_parts, pgconvoy.large_objects, pgconvoy.findings, pgconvoy.steps, pgconvoy.parts, pgconvoy.tables, pgconvoy.migrations;
                 DROP SCHEMA pgconvoy",
            )
            .await
            .map_err(ledger::failed)?;
        removed.push("schema pgconvoy".into());
    }
    session
        .batch_execute("COMMIT")
        .await
        .map_err(ledger::failed)?;
    Ok(removed)
}
