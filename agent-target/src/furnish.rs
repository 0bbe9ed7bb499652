//! Furnishes the scratch database of a rehearsal with the schemas of a platform, as its services have made them in the target: without rows.
use std::io::Write;
use std::path::Path;

use pgconvoy_agent_core::child;
use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::session::{Session, quote_ident};
use pgconvoy_agent_core::status;
use pgconvoy_agent_core::tools::Tools;
use tonic::Status;

use crate::archive::Line;
use crate::facts;
use crate::steps::attempt;

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
    let text = String::from_utf8_lossy(&listed);
    let lines = text.lines().filter_map(Line::parse);
    let (houses, others): (Vec<Line>, Vec<Line>) = lines
        .filter(|line| !line.is_any(USERS))
        .partition(|line| line.is("SCHEMA"));
    let libpq = scratch.libpq(APPLICATION).await?;
    let restore = async |lines: &[Line]| {
        let mut list = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        for line in lines {
            writeln!(list, "{}", line.text).map_err(failed)?;
        }
        list.flush().map_err(failed)?;
        let mut command = child::command(&restore.path);
        libpq.apply(&mut command);
        command
            .args(["--exit-on-error", "--no-password", "--no-tablespaces"])
            .args(["--dbname", &libpq.conninfo, "--use-list"])
            .arg(list.path())
            .arg(archive.path());
        run(command, &mut tokio::io::sink()).await
    };
    restore(&houses).await?;
    extensions(&session, &schemas, scratch).await?;
    restore(&others).await
}

/// What the schemas' tables may call. pg_dump leaves extensions out of chosen schemas, and those that one database of the server alone may
/// have (pg_cron) are refused: what needs one of these is then refused too, and says so.
async fn extensions(
    target: &Session,
    schemas: &[String],
    scratch: &Database,
) -> Result<(), Status> {
    let failed = |error| status::postgres("making extensions in the scratch database", &error);
    // Each after those that it needs.
    let query = "SELECT e.extname::text, n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                 WHERE e.extname <> 'plpgsql' AND (n.nspname = ANY ($1) OR n.nspname IN ('public', 'pg_catalog')) ORDER BY e.oid";
    let rows = target.query(query, &[&schemas]).await.map_err(failed)?;
    let session = scratch.connect(APPLICATION).await?;
    session.batch_execute("BEGIN").await.map_err(failed)?;
    for row in rows {
        let (name, schema): (String, String) = (row.get(0), row.get(1));
        let create = format!("CREATE EXTENSION {}", quote_ident(&name));
        let there = format!("{create} SCHEMA {}", quote_ident(&schema));
        let mut refused = attempt(&session, &there).await.map_err(failed)?;
        if refused.is_some() {
            // One that makes its schema itself.
            refused = attempt(&session, &create).await.map_err(failed)?;
        }
        if let Some(reason) = refused {
            tracing::warn!(extension = name, reason, "not made in the scratch database");
        }
    }
    session.batch_execute("COMMIT").await.map_err(failed)
}

/// Of these the ones that the database cannot have, and why. Nothing is made.
pub async fn refused(
    scratch: &Database,
    extensions: &[String],
) -> Result<Vec<(String, String)>, Status> {
    let failed = |error| status::postgres("trying extensions in the scratch database", &error);
    let session = scratch.connect(APPLICATION).await?;
    let mut refused = Vec::new();
    for name in extensions {
        let create = format!(
            "CREATE EXTENSION IF NOT EXISTS {} CASCADE",
            quote_ident(name)
        );
        session.batch_execute("BEGIN").await.map_err(failed)?;
        let reason = attempt(&session, &create).await.map_err(failed)?;
        session.batch_execute("ROLLBACK").await.map_err(failed)?;
        refused.extend(reason.map(|reason| (name.clone(), reason)));
    }
    Ok(refused)
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
