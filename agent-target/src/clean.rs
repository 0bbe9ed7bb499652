//! Removes a migration's ledger and archive, and the ledger's schema with the last one. The rows, objects and roles that were
//! migrated stay; memberships that the agent had given itself do not.
use pgconvoy_agent_core::session::{Session, quote_ident};
use tonic::Status;

use crate::archive::Store;
use crate::ledger;
use crate::sessions::Sessions;
use crate::steps::attempt;

/// For people.
#[derive(Debug, Default)]
pub struct Cleaned {
    pub removed: Vec<String>,
    pub kept: Vec<String>,
}

/// An empty `migration` means all.
pub async fn clean(
    session: &Session,
    sessions: &Sessions,
    store: &Store,
    migration: &str,
) -> Result<Cleaned, Status> {
    let rows = session
        .query(
            "SELECT id FROM pgconvoy.migrations WHERE $1 IN ('', id)",
            &[&migration],
        )
        .await;
    let ids: Vec<String> = match rows.map_err(ledger::failed) {
        Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
        Err(status) if status.code() == tonic::Code::NotFound && migration.is_empty() => {
            return Ok(Cleaned::default());
        }
        Err(status) => return Err(status),
    };
    if ids.is_empty() && !migration.is_empty() {
        return Err(Status::not_found(format!(
            "there is no migration {migration}"
        )));
    }
    session
        .batch_execute("BEGIN")
        .await
        .map_err(ledger::failed)?;
    let mut removed = give_back_roles(session, &ids).await?;
    let mut kept = created_roles(session, &ids).await?;
    kept.extend(backups(session, &ids).await?);
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
        // Not before: what goes with a migration is deleted by triggers, which this silences too.
        silence_event_triggers(session).await?;
        session
            .batch_execute(
                "DROP TABLE pgconvoy.before, pgconvoy.unlogged_parts, pgconvoy.syncs, pgconvoy.large_objects, pgconvoy.objects, pgconvoy.findings, pgconvoy.roles, pgconvoy.steps, pgconvoy.parts, pgconvoy.tables, pgconvoy.migrations;
                 DROP SCHEMA pgconvoy",
            )
            .await
            .map_err(ledger::failed)?;
        removed.push("schema pgconvoy".into());
    }
    // When nothing of the ledger can be refused any more: one that stays needs its archive, for `rollback` and `resume`.
    for id in &ids {
        if store.remove(id)? {
            removed.push(format!("archive of migration {id}"));
        }
    }
    session
        .batch_execute("COMMIT")
        .await
        .map_err(ledger::failed)?;
    for id in &ids {
        sessions.close_idle(id);
    }
    Ok(Cleaned { removed, kept })
}

/// One that came with the migration may refuse DROP to everybody. Only a superuser may make one, and may say that it is not to fire.
/// For this transaction, where the role may.
pub async fn silence_event_triggers(session: &Session) -> Result<(), Status> {
    let quiet = attempt(session, "SET LOCAL session_replication_role = replica").await;
    if let Some(reason) = quiet.map_err(ledger::failed)? {
        tracing::debug!(reason, "event triggers fire");
    }
    Ok(())
}

/// Roles of these migrations that are still there. They own things, and other databases may use them by now.
async fn created_roles(session: &Session, ids: &[String]) -> Result<Vec<String>, Status> {
    let rows = session
        .query(
            "SELECT 'role ' || quote_ident(r.name) FROM pgconvoy.roles r JOIN pg_roles p ON p.rolname = r.name
             WHERE r.migration = ANY ($1) ORDER BY 1",
            &[&ids],
        )
        .await
        .map_err(ledger::failed)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Backups are worth more than the ledger: who made one removes it.
async fn backups(session: &Session, ids: &[String]) -> Result<Vec<String>, Status> {
    let rows = session
        .query(
            "SELECT 'backup ' || backup FROM pgconvoy.before WHERE migration = ANY ($1) AND backup IS NOT NULL ORDER BY 1",
            &[&ids],
        )
        .await
        .map_err(ledger::failed)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Takes back the memberships that the agent had given itself (see steps/roles.rs), as far as they are there.
async fn give_back_roles(session: &Session, ids: &[String]) -> Result<Vec<String>, Status> {
    let rows = session
        .query(
            "SELECT DISTINCT r.name, r.lent_to FROM pgconvoy.roles r
             JOIN pg_roles p ON p.rolname = r.name JOIN pg_roles u ON u.rolname = r.lent_to
             JOIN pg_auth_members m ON m.roleid = p.oid AND m.member = u.oid AND m.grantor = u.oid
             WHERE r.migration = ANY ($1) ORDER BY 1",
            &[&ids],
        )
        .await
        .map_err(ledger::failed)?;
    let mut taken = Vec::with_capacity(rows.len());
    for row in rows {
        let (role, member): (String, String) = (row.get(0), row.get(1));
        let revoke = format!(
            "REVOKE {} FROM {}",
            quote_ident(&role),
            quote_ident(&member)
        );
        session
            .batch_execute(&revoke)
            .await
            .map_err(ledger::failed)?;
        taken.push(format!("membership of {member} in {role}"));
    }
    Ok(taken)
}
