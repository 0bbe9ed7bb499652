//! `rollback`: the target as it was before the migration, proven by the target agent's own comparison.
//!
//! It needs the target agent alone: the source was never changed. Where the source agent is named, the snapshot that it holds is closed.
use std::sync::Arc;

use anyhow::Context;
use pgconvoy_proto::model::{Finding, Severity};
use pgconvoy_proto::wire;
use serde_json::{Value, json};

use crate::cli::{Global, RollbackArgs};
use crate::ends::{self, said};
use crate::events::{Event, Reporter};
use crate::ledger::Ledger;
use crate::run_dir::RunDir;
use crate::verdict::Verdict;
use crate::{Ended, drive, inventory};

pub async fn rollback(args: RollbackArgs, global: &Global, reporter: &Arc<Reporter>) -> Ended {
    let mut target = ends::target(&args.ends).await?;
    let asked = global.migration.as_deref();
    let migration = match &args.to_backup {
        Some(_) => Ledger::find(&mut target, asked).await?,
        None => Some(Ledger::read(&mut target, asked).await.context(
            "nothing can be rolled back (a backup of the target: rollback --to-backup ID, by the name of its folder)",
        )?),
    };
    let migration = migration.map(|ledger| ledger.id);
    let named = migration.as_ref().or(args.to_backup.as_ref());
    let id = named.context("neither a migration nor a backup")?;
    let dir = RunDir::create(&global.run_dir, id)?;
    reporter.log_to(dir.events()?);
    let driving = drive::take_over(&mut target, id).await?;
    reporter.emit(&Event::Phase {
        phase: pgconvoy_proto::model::ROLLING_BACK.into(),
    });
    let request = wire::RollbackRequest {
        migration: migration.clone().unwrap_or_default(),
        force: args.force,
        backup: args.to_backup.clone().unwrap_or_default(),
    };
    let done = tokio::select! {
        done = target.rollback(request) => done.map_err(said("target"))?.into_inner(),
        lost = drive::lost(driving) => return Err(lost),
    };
    if let (Some(id), true) = (&migration, args.ends.source.is_some()) {
        close_snapshot(&args, id, reporter).await;
    }
    let what = match (&args.to_backup, &migration) {
        (Some(backup), _) => format!("backup {backup} is restored"),
        (None, _) => format!("migration {id} is taken back"),
    };
    let (verdict, mut result) = told(&what, done, reporter)?;
    result["migration"] = migration.into();
    result["backup"] = args.to_backup.into();
    dir.write("rollback.json", &serde_json::to_string_pretty(&result)?)?;
    Ok((verdict, result))
}

/// The target is rolled back, whether or not the source agent lives.
async fn close_snapshot(args: &RollbackArgs, id: &str, reporter: &Reporter) {
    let close = async {
        let mut ends = ends::connect(&args.ends).await?;
        inventory::close(&mut ends, id).await
    };
    if let Err(error) = close.await {
        reporter.note(format!(
            "the source's snapshot could not be closed ({error:#}): it ends with its lease"
        ));
    }
}

fn told(
    what: &str,
    done: wire::RollbackResponse,
    reporter: &Reporter,
) -> anyhow::Result<(Verdict, Value)> {
    let wire::RollbackResponse {
        removed,
        kept,
        findings,
    } = done;
    let findings: Result<Vec<Finding>, _> = findings.into_iter().map(TryInto::try_into).collect();
    let findings = findings?;
    for finding in &findings {
        reporter.emit(&Event::Finding(finding.clone()));
    }
    for what in &kept {
        reporter.line(&format!("  stays: {what}"));
    }
    let differs = |finding: &Finding| finding.severity == Severity::Difference;
    let verdict = match findings.iter().any(differs) {
        false => Verdict::Proven,
        true => Verdict::Differs,
    };
    reporter.line(&match verdict {
        Verdict::Proven => format!(
            "{what} ({} objects removed): the target is what it was, by its own catalogs and tables",
            removed.len()
        ),
        _ => format!("{what}, but the target is not what it was: see the findings; the ledger stays"),
    });
    let result = json!({ "removed": removed, "kept": kept, "findings": findings });
    Ok((verdict, result))
}
