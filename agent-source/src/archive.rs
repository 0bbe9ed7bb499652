//! The schema: pg_dump at the migration's snapshot, its custom archive streamed to the target agent as it is made; before it the
//! secrets of roles and of the database.
//!
//! The archive may hold secrets too (user mappings, subscriptions): all of it travels from agent to agent only.
use std::path::Path;

use bytes::{Bytes, BytesMut};
use pgconvoy_agent_core::child::{self, Running};
use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::session::{Session, qualified};
use pgconvoy_agent_core::snapshot::Snapshot;
use pgconvoy_agent_core::status;
use pgconvoy_agent_core::tools::Tools;
use pgconvoy_proto::secrets::Secrets;
use pgconvoy_proto::wire;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_postgres::Row;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use xxhash_rust::xxh3::Xxh3;

use crate::lanes::{Lanes, from_target};
use crate::secrets;

const FRAME_BYTES: usize = 256 << 10;
const FRAMES: usize = 4;

/// A TRUNCATE that waits for the snapshot's locks would make pg_dump wait for ever: give up, and open another snapshot.
const LOCK_WAIT: &str = "20s";

pub struct Job {
    pub migration: String,
    pub target: String,
    pub secrets: secrets::Wanted,
}

/// Sends the archive; its length in bytes.
pub async fn send(
    database: &Database,
    pg_bin: Option<&Path>,
    snapshot: &Snapshot,
    lanes: &Lanes,
    job: Job,
) -> Result<u64, Status> {
    let tools = Tools::find(pg_bin).await;
    let (server, secrets, unreadable) = {
        let holder = snapshot.holder().await?;
        let unreadable = unreadable(&holder, snapshot)
            .await
            .map_err(|error| status::postgres("looking for tables that may not be read", &error))?;
        let secrets = secrets::read(&holder, &job.secrets)
            .await
            .map_err(|error| status::postgres("reading passwords and settings", &error))?;
        (holder.server_version() / 10_000, secrets, unreadable)
    };
    let tool = tools
        .pick_dump(server)
        .map_err(|e| Status::internal(e.to_string()))?;
    let libpq = database
        .libpq(&format!("pgconvoy {}", job.migration))
        .await?;
    let mut command = child::command(&tool.path);
    libpq.apply(&mut command);
    command
        .args([
            "--format=custom",
            "--schema-only",
            // As our sessions: the target agent may have to read the entries.
            "--encoding=UTF8",
            "--no-password",
            "--exclude-schema=pgconvoy",
        ])
        .args(
            unreadable
                .iter()
                .map(|name| format!("--exclude-table={name}")),
        )
        .arg(format!("--lock-wait-timeout={LOCK_WAIT}"))
        .arg(format!("--snapshot={}", snapshot.exported))
        .args(["--dbname", &libpq.conninfo]);
    let running = Running::start(command)
        .await
        .map_err(|e| Status::internal(e.to_string()))?;

    let mut lane = lanes.take(&job.target).await?;
    let (sender, frames) = mpsc::channel(FRAMES);
    let (dumped, received) = tokio::join!(
        dump(running, &job.migration, &secrets, sender),
        lane.receive_archive(ReceiverStream::new(frames))
    );
    dumped?;
    let bytes = received.map_err(from_target)?.into_inner().bytes;
    lanes.give_back(&job.target, lane);
    Ok(bytes)
}

/// Tables that were not selected and that the role may not lock: pg_dump, which locks what it describes, would end at the first. Quoted
/// patterns, as pg_dump takes them.
async fn unreadable(
    session: &Session,
    snapshot: &Snapshot,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let selected: Vec<u32> = snapshot.tables.iter().map(|table| table.oid).collect();
    let rows = session
        .query(
            "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND NOT c.oid = ANY ($1) AND c.oid >= 16384
               AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))
               AND NOT EXISTS (SELECT FROM pg_depend d
                               WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')",
            &[&selected],
        )
        .await?;
    let pattern = |row: &Row| qualified(row.get(0), row.get(1));
    Ok(rows.iter().map(pattern).collect())
}

/// The secrets, then pg_dump's output, as frames. The digest, which the target waits for, is sent only after pg_dump ended well.
async fn dump(
    mut running: Running,
    migration: &str,
    secrets: &Secrets,
    frames: mpsc::Sender<wire::ArchiveFrame>,
) -> Result<(), Status> {
    let mut frame = wire::ArchiveFrame {
        migration: migration.to_owned(),
        ..Default::default()
    };
    let mut hash = Xxh3::new();
    for piece in secrets.encode().chunks(FRAME_BYTES) {
        hash.update(piece);
        frame.secrets = Bytes::copy_from_slice(piece);
        if frames.send(std::mem::take(&mut frame)).await.is_err() {
            return Ok(());
        }
    }
    loop {
        let mut data = BytesMut::with_capacity(FRAME_BYTES);
        let read = running.stdout().read_buf(&mut data).await;
        if read.map_err(|e| Status::internal(format!("reading pg_dump's output: {e}")))? == 0 {
            break;
        }
        hash.update(&data);
        frame.data = data.freeze();
        if frames.send(std::mem::take(&mut frame)).await.is_err() {
            // The target agent ended the stream: its answer says why.
            return Ok(());
        }
    }
    let warnings = running.finish().await.map_err(explain)?;
    if !warnings.trim().is_empty() {
        tracing::warn!(%warnings, "pg_dump");
    }
    frame.digest = Bytes::copy_from_slice(&hash.digest128().to_be_bytes());
    frames.send(frame).await.ok();
    Ok(())
}

fn explain(error: child::Error) -> Status {
    let text = error.to_string();
    if text.contains("lock timeout") {
        return Status::aborted(format!(
            "pg_dump could not lock a table within {LOCK_WAIT}: somebody waits for an exclusive lock. {text}"
        ));
    }
    // What is not read is not locked: a platform's services drop tables of their own.
    if has_vanished(&text) {
        return Status::aborted(format!(
            "a table was dropped before pg_dump had locked it: {text}"
        ));
    }
    Status::internal(text)
}

/// `text`: what pg_dump says; the query that failed is not in it.
fn has_vanished(text: &str) -> bool {
    text.contains("ERROR:  relation ") && text.contains(" does not exist")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_went_before_it_was_locked_is_known() {
        let failed = |what: &str| format!("pg_dump: error: query failed: ERROR:  {what}");
        assert!(has_vanished(&failed(
            "relation \"live.message\" does not exist"
        )));
        assert!(!has_vanished(&failed(
            "permission denied for table message"
        )));
    }
}
