//! Furnishes the scratch database of a rehearsal with the schemas of a platform, as its services have made them in the target: without rows.
use std::io::Write;
use std::path::Path;

use pgconvoy_agent_core::child;
use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::session::quote_ident;
use pgconvoy_agent_core::tools::Tools;
use tonic::Status;

use crate::archive::Line;
use crate::facts;

const APPLICATION: &str = "pgconvoy rehearse";
/// They may refer to what is not of the platform; a rehearsal needs none of them.
const USERS: &[&str] = &["TRIGGER", "POLICY", "RULE", "COMMENT"];

/// `globs`: the schemas. The target is read, and nothing else of it is touched.
pub async fn furnish(
    target: &Database,
    scratch: &Database,
    globs: &[String],
    pg_bin: Option<&Path>,
    folder: &Path,
) -> Result<(), Status> {
    let session = target.connect(APPLICATION).await?;
    let schemas = facts::managed_schemas(&session, globs).await?;
    if schemas.is_empty() {
        return Ok(());
    }
    let server = session.server_version() / 10_000;
    let tools = Tools::find(pg_bin).await;
    let missing = |error: pgconvoy_agent_core::tools::Error| {
        Status::failed_precondition(format!("a rehearsal on a platform: {error}"))
    };
    let dump = tools.pick_dump(server).map_err(missing)?;
    let restore = tools
        .pick_restore(dump.version.0, server)
        .map_err(missing)?;
    let failed = |error: std::io::Error| {
        Status::resource_exhausted(format!("writing in {}: {error}", folder.display()))
    };
    let archive = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;

    let libpq = target.libpq(APPLICATION).await?;
    let mut command = child::command(&dump.path);
    libpq.apply(&mut command);
    command
        .args([
            "--format=custom",
            "--schema-only",
            "--no-password",
            "--file",
        ])
        .arg(archive.path())
        .args(
            schemas
                .iter()
                // A pattern that is this name and no other (psql's patterns).
                .map(|schema| format!("--schema={}", quote_ident(schema))),
        )
        .args(["--dbname", &libpq.conninfo]);
    run(command, &mut tokio::io::sink()).await?;

    let mut command = child::command(&restore.path);
    command.arg("--list").arg(archive.path());
    let mut listed = Vec::new();
    run(command, &mut listed).await?;
    let mut list = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    let text = String::from_utf8_lossy(&listed);
    for line in text
        .lines()
        .filter_map(Line::parse)
        .filter(|line| !line.is_any(USERS))
    {
        writeln!(list, "{}", line.text).map_err(failed)?;
    }
    list.flush().map_err(failed)?;

    let libpq = scratch.libpq(APPLICATION).await?;
    let mut command = child::command(&restore.path);
    libpq.apply(&mut command);
    command
        .args(["--exit-on-error", "--no-password", "--no-tablespaces"])
        .args(["--dbname", &libpq.conninfo, "--use-list"])
        .arg(list.path())
        .arg(archive.path());
    run(command, &mut tokio::io::sink()).await
}

async fn run(
    command: tokio::process::Command,
    output: &mut (impl tokio::io::AsyncWrite + Unpin + Send),
) -> Result<(), Status> {
    let ended = child::run(command, output).await;
    ended.map_err(|error| {
        Status::failed_precondition(format!(
            "the platform's schemas cannot be made in the scratch database: {error}"
        ))
    })?;
    Ok(())
}
