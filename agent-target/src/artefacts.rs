//! The schema as SQL for people. Entries whose options may hold secrets are left out and named.
use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use pgconvoy_agent_core::child;
use pgconvoy_agent_core::session::Session;
use pgconvoy_proto::wire;
use tokio::sync::mpsc;
use tonic::Status;

use crate::archive::Line;
use crate::steps::{Migration, Runner};

/// Their options may hold passwords and keys.
const SECRET: &[&str] = &[
    "USER MAPPING",
    "SUBSCRIPTION",
    "SERVER",
    "FOREIGN DATA WRAPPER",
    "FOREIGN TABLE",
];
const FRAME_BYTES: usize = 256 << 10;

pub async fn send(
    runner: Runner,
    session: Session,
    id: String,
    out: mpsc::Sender<Result<wire::Artefact, Status>>,
) -> Result<(), Status> {
    let migration = Migration::read(&session, &id).await?;
    let major = session.server_version() / 10_000;
    let Some(opened) = runner.store.open(&id, &migration.skipped, major).await? else {
        return Ok(());
    };
    let contents = &opened.contents;
    let all: Vec<&Line> = contents
        .pre_data
        .iter()
        .chain(&contents.post_data)
        .collect();
    let (secret, open): (Vec<&Line>, Vec<&Line>) = all.iter().partition(|line| line.is_any(SECRET));
    let sql = script(&opened.tool.path, &opened.path, &open, &secret).await?;
    for data in sql.chunks(FRAME_BYTES) {
        let artefact = wire::Artefact {
            name: "schema.sql".into(),
            data: Bytes::copy_from_slice(data),
        };
        if out.send(Ok(artefact)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn script(
    restore: &Path,
    archive: &Path,
    lines: &[&Line],
    left_out: &[&Line],
) -> Result<Vec<u8>, Status> {
    let failed =
        |error: std::io::Error| Status::internal(format!("writing pg_restore's list: {error}"));
    let mut list =
        tempfile::NamedTempFile::new_in(archive.parent().unwrap_or(archive)).map_err(failed)?;
    for line in lines {
        writeln!(list, "{}", line.text).map_err(failed)?;
    }
    list.flush().map_err(failed)?;
    let mut sql = Vec::new();
    for line in left_out {
        writeln!(sql, "-- left out, it may hold a secret: {}", line.rest).map_err(failed)?;
    }
    let mut command = child::command(restore);
    command
        .arg("--use-list")
        .arg(list.path())
        .arg("--file=-")
        .arg(archive);
    child::run(command, &mut sql)
        .await
        .map_err(|error| Status::internal(error.to_string()))?;
    Ok(sql)
}
