//! Empties a table that is to be copied again whole, and forgets its parts, in one transaction; large objects in several.
use pgconvoy_agent_core::scan;
use pgconvoy_agent_core::session::{Session, qualified, quote_ident};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Relation, Table};
use tonic::Status;

use crate::steps::{Migration, managed};
use crate::{large_objects, ledger};

/// The table is of no snapshot then: rows that are still on their way are refused until the ledger says which one is expected.
/// Foreign keys of this migration that forbid the TRUNCATE are dropped; their steps are open again. One that is not this
/// migration's is not ours to drop: FAILED_PRECONDITION.
pub async fn empty_table(session: &Session, migration: &str, oid: u32) -> Result<(), Status> {
    let table = ledger::table(session, migration, oid).await?.table;
    let failed =
        |error: tokio_postgres::Error| status::postgres(&format!("emptying {table}"), &error);
    let options = Migration::read(session, migration).await?.options;
    managed::begin(
        session,
        options.tenancy.as_deref().filter(|_| table.managed),
    )
    .await
    .map_err(failed)?;
    // First: it waits for the parts on their way, and no other can begin after it.
    forget(session, migration, oid).await.map_err(failed)?;
    if table.managed {
        let from = scan::from(&table);
        session
            .batch_execute(&format!("DELETE FROM {from}"))
            .await
            .map_err(failed)?;
    } else if table.relation == Relation::Table {
        drop_foreign_keys(session, migration, &table).await?;
        let only = if table.through_root { "" } else { "ONLY " };
        let name = qualified(&table.schema, &table.name);
        session
            .batch_execute(&format!("TRUNCATE {only}{name}"))
            .await
            .map_err(failed)?;
    }
    session.batch_execute("COMMIT").await.map_err(failed)?;
    match table.relation {
        Relation::Table => Ok(()),
        Relation::LargeObjects { .. } => large_objects::unlink(session, migration)
            .await
            .map_err(failed),
    }
}

async fn drop_foreign_keys(
    session: &Session,
    migration: &str,
    table: &Table,
) -> Result<(), Status> {
    let name = qualified(&table.schema, &table.name);
    let failed =
        |error: tokio_postgres::Error| status::postgres(&format!("emptying {table}"), &error);
    // A key of a partition is dropped where it was made: on the topmost table.
    let keys = session
        .query(
            "WITH RECURSIVE up AS (
                 SELECT k.oid, k.conparentid FROM pg_constraint k
                 WHERE k.contype = 'f' AND $1::text::regclass IN (k.conrelid, k.confrelid)
                 UNION SELECT k.oid, k.conparentid FROM pg_constraint k JOIN up ON k.oid = up.conparentid)
             SELECT DISTINCT k.conname::text, n.nspname::text, c.relname::text FROM up
             JOIN pg_constraint k ON k.oid = up.oid
             JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE up.conparentid = 0",
            &[&name],
        )
        .await
        .map_err(failed)?;
    for key in keys {
        let (constraint, schema, on): (&str, &str, &str) = (key.get(0), key.get(1), key.get(2));
        let ours = session
            .execute(
                "UPDATE pgconvoy.steps SET state = 'open', error = NULL
                 WHERE migration = $1 AND kind = 'foreign-key' AND work ->> 'name' = $2
                   AND (work ->> 'schema' = $3 AND work ->> 'table' = $4 OR (work ->> 'partitioned')::bool)",
                &[&migration, &constraint, &schema, &on],
            )
            .await
            .map_err(failed)?;
        let on = qualified(schema, on);
        if ours == 0 {
            return Err(Status::failed_precondition(format!(
                "{table} must be copied again, but the foreign key {constraint} of {on} is not of this \
                 migration: drop it and resume"
            )));
        }
        let drop = format!(
            "ALTER TABLE {on} DROP CONSTRAINT {}",
            quote_ident(constraint)
        );
        session.batch_execute(&drop).await.map_err(failed)?;
    }
    Ok(())
}

/// Of the table the ledger knows no more than that it is planned.
async fn forget(session: &Session, migration: &str, oid: u32) -> Result<(), tokio_postgres::Error> {
    session
        .execute(
            "UPDATE pgconvoy.tables SET snapshot = NULL, source_rows = NULL, source_bytes = NULL, source_digest = NULL,
                 target_rows = NULL, target_bytes = NULL, target_digest = NULL, verified_at = NULL,
                 left_rows = NULL, left_bytes = NULL, left_digest = NULL, converge = false
             WHERE migration = $1 AND oid = $2",
            &[&migration, &oid],
        )
        .await?;
    session
        .execute(
            "DELETE FROM pgconvoy.parts WHERE migration = $1 AND table_oid = $2",
            &[&migration, &oid],
        )
        .await?;
    session
        .execute(
            "DELETE FROM pgconvoy.syncs WHERE migration = $1 AND table_oid = $2",
            &[&migration, &oid],
        )
        .await?;
    Ok(())
}
