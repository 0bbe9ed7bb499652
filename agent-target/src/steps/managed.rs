//! Steps on tables of a platform, which were there before: their rows alone are ours, and only where the plan says so.
use std::collections::HashSet;

use pgconvoy_agent_core::inventory::built;
use pgconvoy_agent_core::session::{Session, qualified, quote_ident, quote_literal};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Derived, Finding, Severity, Tenancy};
use tokio_postgres::Error;
use tonic::Status;

use super::{Migration, attempt, foreign_key};

/// Begins a transaction in which the platform's triggers and foreign keys do not fire, where the role may say so, and its protection
/// against DELETE is off.
pub async fn begin(session: &Session, tenancy: Option<&Tenancy>) -> Result<(), Error> {
    session.batch_execute("BEGIN").await?;
    if let Some(reason) = attempt(session, "SET LOCAL session_replication_role = replica").await? {
        tracing::debug!(reason, "triggers and foreign keys fire");
    }
    let settings = tenancy.iter().flat_map(|of| &of.platform.delete_settings);
    for (name, value) in settings {
        let set = format!(
            "SELECT pg_catalog.set_config({}, {}, true)",
            quote_literal(name),
            quote_literal(value)
        );
        session.batch_execute(&set).await?;
    }
    Ok(())
}

/// Rows that were there when the plan was written go. Where a part of the migration is in, the table holds nothing else.
pub async fn vacate(
    session: &Session,
    migration: &Migration,
    tables: &[(String, String)],
) -> Result<(), Status> {
    let vacate = async {
        begin(session, migration.options.tenancy.as_deref()).await?;
        for (schema, name) in tables {
            let begun = session
                .query_opt(
                    "SELECT FROM pgconvoy.tables t JOIN pgconvoy.parts p ON p.migration = t.migration AND p.table_oid = t.oid
                     WHERE t.migration = $1 AND t.schema = $2 AND t.name = $3 LIMIT 1",
                    &[&migration.id, schema, name],
                )
                .await?;
            if begun.is_none() {
                let delete = format!("DELETE FROM {}", qualified(schema, name));
                session.batch_execute(&delete).await?;
            }
        }
        session.batch_execute("COMMIT").await
    };
    vacate
        .await
        .map_err(|error: Error| status::postgres("emptying tables of the platform", &error))
}

/// Where that is refused, the service's own functions are other ones than the platform's description knows.
pub async fn derive(
    session: &Session,
    migration: &Migration,
    derived: &Derived,
) -> Result<Option<Finding>, Status> {
    let fill = async {
        begin(session, migration.options.tenancy.as_deref()).await?;
        let schema = derived.of.split('.').next().unwrap_or_default();
        let path = format!("SET LOCAL search_path = {}, public", quote_ident(schema));
        session.batch_execute(&path).await?;
        let mut refused = None;
        for statement in &derived.statements {
            refused = attempt(session, statement).await?;
            if refused.is_some() {
                break;
            }
        }
        let end = if refused.is_none() {
            "COMMIT"
        } else {
            "ROLLBACK"
        };
        session.batch_execute(end).await?;
        Ok::<_, Error>(refused)
    };
    let refused = fill
        .await
        .map_err(|error| status::postgres(&format!("filling {}", derived.of), &error))?;
    Ok(refused.map(|reason| {
        Finding::new(Severity::Warning, "derived-not-filled", &derived.of, reason)
            .hint("fill it as the target's service does: its own functions are in that schema")
    }))
}

/// Where rows were left out, others may refer to them.
pub async fn orphans(session: &Session, migration: &Migration) -> Result<Vec<Finding>, Status> {
    let Some(tenancy) = migration.options.tenancy.as_deref() else {
        return Ok(Vec::new());
    };
    let look = async {
        let (keys, _) = built::foreign_keys(session, &HashSet::new()).await?;
        let loaded = keys
            .iter()
            .filter(|key| tenancy.shape(&key.schema, &key.table).is_some());
        let mut findings = Vec::new();
        for key in loaded {
            let table = qualified(&key.schema, &key.table);
            let (count, sample) = foreign_key::orphans(session, key, &table).await?;
            if count > 0 {
                let object = format!("{}.{}: {}", key.schema, key.table, key.name);
                let message = format!(
                    "{count} rows refer to rows of {}.{} that were left out, or that the source has not got either (for example {sample})",
                    key.referenced_schema, key.referenced_table
                );
                findings.push(
                    Finding::new(Severity::Warning, "managed-orphans", object, message)
                        .hint("delete them at the target, or bring both ends to one level of the platform and sync"),
                );
            }
        }
        Ok::<_, Error>(findings)
    };
    look.await
        .map_err(|error| status::postgres("looking at foreign keys of the platform", &error))
}
