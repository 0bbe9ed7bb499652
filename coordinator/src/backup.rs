//! `backup`, and the backup that a migration begins with: made, checked and kept by the target agent.
use anyhow::Context;
use pgconvoy_proto::model::{Finding, Severity};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::target_client::TargetClient;
use serde_json::json;
use tonic::transport::Channel;

use crate::Ended;
use crate::cli::{BackupArgs, Global};
use crate::ends::{self, Usage, said};
use crate::events::{Event, Reporter};
use crate::run_dir::RunDir;
use crate::text::bytes;
use crate::verdict::Verdict;

/// The runbook's own switch.
const BEFORE_IMPORT: &str = "BACKUP_BEFORE_IMPORT";

pub async fn backup(args: BackupArgs, global: &Global, reporter: &Reporter) -> Ended {
    let mut target = ends::target(&args.ends).await?;
    let id = uuid::Uuid::now_v7().to_string();
    let dir = RunDir::create(&global.run_dir, &id)?;
    let made = make(&mut target, &id).await?;
    reporter.line(&format!(
        "{}\nback to it: pgconvoy rollback --to-backup {id}",
        text(&id, &made)
    ));
    let result = json!({
        "backup": id, "folder": made.folder, "bytes": made.bytes, "digest": made.digest,
        "tables": made.tables, "rows": made.rows,
    });
    dir.write_result("backup.json", &result, reporter);
    Ok((Verdict::Ok, result))
}

async fn make(
    target: &mut TargetClient<Channel>,
    id: &str,
) -> anyhow::Result<wire::BackupResponse> {
    let request = wire::BackupRequest { id: id.into() };
    let made = target.backup(request).await.map_err(said("target"));
    Ok(made.context("the backup")?.into_inner())
}

fn text(id: &str, made: &wire::BackupResponse) -> String {
    format!(
        "backup {id}: {} tables, {} rows, {} in {} at the target agent's host; read back; XXH3-128 {}",
        made.tables,
        made.rows,
        bytes(made.bytes),
        made.folder,
        made.digest
    )
}

/// Before a command changes the target: makes one and tells of it. For the ledger and the report.
pub async fn make_and_tell(
    target: &mut TargetClient<Channel>,
    id: &str,
    reporter: &Reporter,
) -> anyhow::Result<Finding> {
    let finding = finding(id, &make(target, id).await?);
    reporter.emit(&Event::Finding(finding.clone()));
    Ok(finding)
}

fn finding(id: &str, made: &wire::BackupResponse) -> Finding {
    Finding::new(Severity::Info, "backup", "target", text(id, made))
        .hint("it stays until somebody removes the folder")
}

/// Whether the runbook's environment asks for a backup.
pub fn asked_by_environment() -> Result<bool, Usage> {
    match std::env::var(BEFORE_IMPORT).as_deref().unwrap_or_default() {
        "" | "false" | "0" | "no" => Ok(false),
        "true" | "1" | "yes" => Ok(true),
        other => Err(Usage(format!("{BEFORE_IMPORT}={other}: true or false"))),
    }
}
