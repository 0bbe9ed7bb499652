//! Brings the target back to what a backup has of it: all that is there now goes, and what the archive has comes in its place.
//!
//! The backup is read to its end and compared with its digest before anything is dropped. Interrupted, it is run again: it begins by
//! dropping whatever is there.
use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;

use pgconvoy_agent_core::child;
use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::progress::Counters;
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::snapshot::{Scope, Snapshot};
use pgconvoy_agent_core::{scan, status};
use pgconvoy_proto::model::{Digest, Finding, Severity};
use tonic::Status;

use super::Backup;
use crate::before::everything;
use crate::sessions::application_name;

const JOBS: usize = 2;

/// Runs pg_restore into a target that was cleared; `session` looks only.
pub async fn restore(
    session: &Session,
    database: &Database,
    migration: &str,
    backup: &Backup,
) -> Result<(), Status> {
    empty_configuration(session)
        .await
        .map_err(|error| status::postgres("emptying tables of extensions", &error))?;
    let list = wanted(session, backup).await?;
    let libpq = database.libpq(&application_name(migration))?;
    let mut command = child::command(&backup.tool.path);
    libpq.apply(&mut command);
    command
        .args(["--exit-on-error", "--no-password", "--use-list"])
        .arg(list.path())
        .args(["--dbname", &libpq.conninfo])
        .arg(&backup.archive);
    let restored = child::run(command, &mut tokio::io::sink()).await;
    restored.map_err(|error| {
        Status::internal(format!(
            "restoring the backup: {error}; mend that, and run rollback again"
        ))
    })?;
    Ok(())
}

/// Rows that users have put into tables of extensions come with the archive (pg_extension.extconfig).
async fn empty_configuration(session: &Session) -> Result<(), tokio_postgres::Error> {
    let rows = session
        .query(
            "SELECT c.oid::regclass::text, c.condition
             FROM pg_extension e CROSS JOIN LATERAL unnest(e.extconfig, e.extcondition) c (oid, condition)
             JOIN pg_class r ON r.oid = c.oid WHERE r.relkind = 'r'",
            &[],
        )
        .await?;
    for row in rows {
        let (table, condition): (&str, &str) = (row.get(0), row.get(1));
        session
            .batch_execute(&format!("DELETE FROM {table} {condition}"))
            .await?;
    }
    Ok(())
}

/// The archive's list without what was not dropped: extensions, their comments, and schemas.
async fn wanted(session: &Session, backup: &Backup) -> Result<tempfile::NamedTempFile, Status> {
    let rows = session
        .query(
            "SELECT 'EXTENSION - ' || extname || ' ' FROM pg_extension
             UNION ALL SELECT 'COMMENT - EXTENSION ' || extname || ' ' FROM pg_extension
             UNION ALL SELECT 'COMMENT - EXTENSION ' || quote_ident(extname) || ' ' FROM pg_extension
             UNION ALL SELECT 'SCHEMA - ' || nspname || ' ' FROM pg_namespace",
            &[],
        )
        .await
        .map_err(|error| status::postgres("looking at what is there", &error))?;
    let there: HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let mut command = child::command(&backup.tool.path);
    command.arg("--list").arg(&backup.archive);
    let mut listed = Vec::new();
    child::run(command, &mut listed)
        .await
        .map_err(|error| Status::internal(error.to_string()))?;
    let failed =
        |error: std::io::Error| Status::resource_exhausted(format!("writing a list: {error}"));
    let folder = backup.archive.parent().unwrap_or(&backup.archive);
    let mut list = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    for line in String::from_utf8_lossy(&listed).lines() {
        let is_there = crate::archive::Line::parse(line)
            .is_some_and(|line| there.iter().any(|there| line.rest.starts_with(there)));
        if !is_there {
            writeln!(list, "{line}").map_err(failed)?;
        }
    }
    list.flush().map_err(failed)?;
    Ok(list)
}

/// Tables whose rows are not those of the backup, by reading them.
pub async fn rows_differ(database: &Database, backup: &Backup) -> Result<Vec<Finding>, Status> {
    let scope = Scope::Selected(everything());
    let snapshot = Snapshot::open(database, "pgconvoy rollback", &scope).await?;
    let mut findings = Vec::new();
    for (was, digest) in &backup.manifest.rows {
        let name = was.to_string();
        let now = snapshot.tables.iter().find(|now| now.to_string() == name);
        let counted: Option<Digest> = match now {
            None => None,
            Some(now) => {
                let counters = Arc::new(Counters::default());
                let read = scan::digest(&snapshot, now, 0, JOBS, &counters).await?;
                Some(read.digest)
            }
        };
        if counted.unwrap_or_default() != *digest {
            let shown = |d: Digest| format!("{} rows, {}", d.rows, d.hex());
            findings.push(
                Finding::new(
                    Severity::Difference,
                    "not-rolled-back",
                    name,
                    "its rows are not those of the backup",
                )
                .values(shown(*digest), counted.map_or_else(String::new, shown)),
            );
        }
    }
    Ok(findings)
}
