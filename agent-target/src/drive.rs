//! One driver per migration: whoever holds the advisory lock. Before it is granted, the backends that an earlier
//! driver left behind are ended, so that nothing commits behind the new one's back.
use std::time::Duration;

use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use pgconvoy_proto::wire;
use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;
use tonic::Status;

use crate::sessions::{Sessions, application_name};

/// How long a backend gets to end, milliseconds (pg_terminate_backend's second argument).
const END_WITHIN_MS: i64 = 30_000;
/// PostgreSQL's notation.
const LOCK_WAIT: &str = "10s";
const ASK_EVERY: Duration = Duration::from_secs(2);
/// The backends of a migration ($1 is their application_name).
const ORPHANS: &str = "SELECT pid FROM pg_stat_activity
    WHERE application_name = $1 AND pid <> pg_backend_pid() AND datname = current_database()";

/// Grants the migration to the caller, and holds it until the caller leaves.
pub async fn drive(
    sessions: Sessions,
    migration: String,
    driver: String,
    granted: mpsc::Sender<Result<wire::DriveGranted, Status>>,
) -> Result<(), Status> {
    let session = sessions
        .database(&migration)
        .connect(&format!("pgconvoy drive {driver}"))
        .await?;
    let failed =
        |error: tokio_postgres::Error| status::postgres("taking over the migration", &error);
    if !lock(&session, &migration).await.map_err(failed)? {
        let other = holder(&session, &migration).await.map_err(failed)?;
        return Err(Status::aborted(format!(
            "migration {migration} is being driven by {other}: wait for it, or stop it"
        )));
    }
    sessions.close_idle(&migration);
    end_orphans(&session, &migration).await?;
    let _left = Left {
        sessions: &sessions,
        migration: &migration,
    };
    if granted.send(Ok(wire::DriveGranted {})).await.is_err() {
        return Ok(());
    }
    tracing::info!(migration, driver, "driven");
    tokio::select! {
        () = granted.closed() => Ok(()),
        error = watch(&session) => Err(error),
    }
}

/// When the driver has left, which may end this call anywhere, nobody needs the migration's idle sessions.
struct Left<'a> {
    sessions: &'a Sessions,
    migration: &'a str,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.sessions.close_idle(self.migration);
        tracing::info!(migration = self.migration, "left");
    }
}

/// Takes the migration's advisory lock. A driver that has just died may have it for a moment longer: waits for that.
pub async fn lock(session: &Session, migration: &str) -> Result<bool, tokio_postgres::Error> {
    session
        .batch_execute(&format!("SET lock_timeout = '{LOCK_WAIT}'"))
        .await?;
    let locked = session
        .execute(
            "SELECT pg_advisory_lock(hashtext('pgconvoy'), hashtext($1))",
            &[&migration],
        )
        .await;
    session.batch_execute("SET lock_timeout = 0").await?;
    match locked {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Ends only when the session does: the lock is lost then. Between its questions the session is idle, so that the lock
/// goes at once when the driver leaves.
async fn watch(session: &Session) -> Status {
    let mut tick = tokio::time::interval(ASK_EVERY);
    loop {
        tick.tick().await;
        if let Err(error) = session.batch_execute("SELECT").await {
            return status::postgres("the target database was lost", &error);
        }
    }
}

async fn holder(session: &Session, migration: &str) -> Result<String, tokio_postgres::Error> {
    let row = session
        .query_opt(
            "SELECT a.application_name || ', since ' || to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SS TZ')
             FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
             WHERE l.locktype = 'advisory' AND l.granted AND l.database = (SELECT oid FROM pg_database
                       WHERE datname = current_database())
               AND l.classid = (hashtext('pgconvoy')::int8 & 4294967295)::oid
               AND l.objid = (hashtext($1)::int8 & 4294967295)::oid",
            &[&migration],
        )
        .await?;
    Ok(row.map_or_else(|| "somebody else".to_owned(), |row| row.get(0)))
}

/// Ends the backends of earlier runs. `pg_terminate_backend` is false as well for one that ended by itself between
/// its listing and its signal (PostgreSQL manual, 9.28.2), so what counts is who is still there afterwards.
async fn end_orphans(session: &Session, migration: &str) -> Result<(), Status> {
    let failed = |error: tokio_postgres::Error| {
        status::postgres("ending this migration's orphan backends", &error)
    };
    let application_name = application_name(migration);
    let ended = session
        .query(
            &format!("SELECT pid, pg_terminate_backend(pid, $2) FROM ({ORPHANS}) AS orphans"),
            &[&application_name, &END_WITHIN_MS],
        )
        .await
        .map_err(failed)?;
    for row in &ended {
        let (pid, ended): (i32, bool) = (row.get(0), row.get(1));
        tracing::info!(pid, ended, "orphan backend");
    }
    let left = session
        .query(ORPHANS, &[&application_name])
        .await
        .map_err(failed)?;
    match left.first() {
        Some(row) => Err(Status::aborted(format!(
            "backend {} of an earlier run did not end within {} s: end it and resume",
            row.get::<_, i32>(0),
            END_WITHIN_MS / 1000
        ))),
        None => Ok(()),
    }
}
