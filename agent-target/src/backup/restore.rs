//! Brings the target back to what a backup has of it: all that is there now goes, and what the archive has comes in its place.
//!
//! The backup is read to its end and compared with its digest before anything is dropped. Interrupted, it is run again: it begins by
//! dropping whatever is there.
use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::sync::Arc;

use pgconvoy_agent_core::child;
use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::progress::Counters;
use pgconvoy_agent_core::session::{Session, quote_ident};
use pgconvoy_agent_core::snapshot::Snapshot;
use pgconvoy_agent_core::{scan, status};
use pgconvoy_proto::model::{Digest, Finding, Severity, Table};
use tonic::Status;

use super::Backup;
use crate::archive::Line;
use crate::before::every_table;
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
    let libpq = database.libpq(&application_name(migration)).await?;
    let mut command = child::command(&backup.tool.path);
    libpq.apply(&mut command);
    command
        .args(["--no-password", "--use-list"])
        .arg(list.path())
        .args(["--dbname", &libpq.conninfo])
        .arg(&backup.archive);
    let restored = child::run(command, &mut tokio::io::sink()).await;
    went_through(restored)?;
    event_triggers(session, database, migration, backup).await
}

/// pg_restore's last words after it has met refusals and gone on.
const WENT_ON: &str = "errors ignored on restore";

/// What was there could be there without being made again (rows that break a foreign key were loaded around it): where pg_restore is
/// refused it goes on, and the comparison that follows names what is not back.
fn went_through(restored: Result<String, child::Error>) -> Result<(), Status> {
    match restored {
        Err(child::Error::Failed { stderr, .. }) if stderr.contains(WENT_ON) => {
            tracing::warn!(%stderr, "restoring the backup: not everything was taken");
            Ok(())
        }
        Err(error) => Err(Status::internal(format!(
            "restoring the backup: {error}; mend that, and run rollback again"
        ))),
        Ok(_) => Ok(()),
    }
}

/// PostgreSQL gives an event trigger to superusers only, but one may belong to a role that is none any more (Supabase demotes `postgres`).
/// pg_restore stops there: these are made as the agent's role, and then given, in a transaction in which their owner is a superuser.
async fn event_triggers(
    session: &Session,
    database: &Database,
    migration: &str,
    backup: &Backup,
) -> Result<(), Status> {
    let failed =
        |error: tokio_postgres::Error| status::postgres("restoring event triggers", &error);
    let demoted = demoted(session, backup).await.map_err(failed)?;
    if demoted.is_empty() {
        return Ok(());
    }
    let list = listed(backup, |line| is_of(line, &demoted)).await?;
    let libpq = database.libpq(&application_name(migration)).await?;
    let mut command = child::command(&backup.tool.path);
    libpq.apply(&mut command);
    command
        .args(["--no-password", "--no-owner", "--use-list"])
        .arg(list.path())
        .args(["--dbname", &libpq.conninfo])
        .arg(&backup.archive);
    let restored = child::run(command, &mut tokio::io::sink()).await;
    went_through(restored)?;
    for (name, owner) in &demoted {
        let (name, owner) = (quote_ident(name), quote_ident(owner));
        let give = format!(
            "BEGIN; ALTER ROLE {owner} SUPERUSER; ALTER EVENT TRIGGER {name} OWNER TO {owner}; ALTER ROLE {owner} NOSUPERUSER; COMMIT"
        );
        if let Err(error) = session.batch_execute(&give).await {
            // The comparison that follows tells of it.
            tracing::warn!(%error, name, "its owner cannot be given back");
            session.batch_execute("ROLLBACK").await.map_err(failed)?;
        }
    }
    Ok(())
}

/// Event triggers whose owners are no superusers: name and owner.
async fn demoted(
    session: &Session,
    backup: &Backup,
) -> Result<Vec<(String, String)>, tokio_postgres::Error> {
    let rows = session
        .query("SELECT rolname::text FROM pg_roles WHERE NOT rolsuper", &[])
        .await?;
    let ordinary: HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let triggers = backup.manifest.before.access.iter();
    let triggers = triggers.filter(|access| access.owner_keyword == "EVENT TRIGGER");
    let demoted = triggers.filter(|access| ordinary.contains(&access.owner));
    let unquoted = |name: &str| name.trim_matches('"').replace("\"\"", "\"");
    Ok(demoted
        .map(|access| (unquoted(&access.identity), access.owner.clone()))
        .collect())
}

/// The entry is one of these event triggers, or about one.
fn is_of(line: &Line, triggers: &[(String, String)]) -> bool {
    let about = |word: &str, name: &str| line.rest.starts_with(&format!("{word} - {name} "));
    let is_it = |(name, _): &(String, String)| {
        about("EVENT TRIGGER", name)
            || about("COMMENT", &format!("EVENT TRIGGER {name}"))
            || about("COMMENT", &format!("EVENT TRIGGER {}", quote_ident(name)))
    };
    triggers.iter().any(is_it)
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
    let demoted = demoted(session, backup)
        .await
        .map_err(|error| status::postgres("looking at roles", &error))?;
    let is_wanted = |line: &Line| {
        !there.iter().any(|there| line.rest.starts_with(there)) && !is_of(line, &demoted)
    };
    listed(backup, is_wanted).await
}

/// Lines of the archive's list, for `--use-list`.
async fn listed(
    backup: &Backup,
    is_wanted: impl Fn(&Line) -> bool,
) -> Result<tempfile::NamedTempFile, Status> {
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
        if Line::parse(line).is_none_or(|line| is_wanted(&line)) {
            writeln!(list, "{line}").map_err(failed)?;
        }
    }
    list.flush().map_err(failed)?;
    Ok(list)
}

/// Tables whose rows are not those of the backup, by reading them.
pub async fn rows_differ(database: &Database, backup: &Backup) -> Result<Vec<Finding>, Status> {
    let snapshot = Snapshot::open(database, "pgconvoy rollback", &every_table()).await?;
    let mut findings = Vec::new();
    let tables = snapshot.tables.iter();
    let tables: HashMap<String, &Table> = tables.map(|now| (now.to_string(), now)).collect();
    for (was, digest) in &backup.manifest.rows {
        let name = was.to_string();
        let now = tables.get(&name).map(|now| read_as(was, now));
        let counted: Option<Digest> = match now {
            None => None,
            Some(now) => {
                let counters = Arc::new(Counters::default());
                let read = scan::digest(&snapshot, &now, 0, JOBS, &counters).await?;
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

/// The table as it is now, read as it was read for the backup: its key, which comes first, may be another of its indexes by now.
fn read_as(was: &Table, now: &Table) -> Table {
    let names = |columns: &[String]| columns.iter().cloned().collect::<HashSet<String>>();
    if !now.has_columns_of(was) || names(&was.generated) != names(&now.generated) {
        return now.clone();
    }
    Table {
        generated: was.generated.clone(),
        ..now.clone().in_order_of(was)
    }
}
