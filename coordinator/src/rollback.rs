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
    let ledger = Ledger::read(&mut target, global.migration.as_deref())
        .await
        .context("nothing can be rolled back")?;
    let dir = RunDir::create(&global.run_dir, &ledger.id)?;
    reporter.log_to(dir.events()?);
    let driving = drive::take_over(&mut target, &ledger.id).await?;
    reporter.emit(&Event::Phase {
        phase: pgconvoy_proto::model::ROLLING_BACK.into(),
    });
    let request = wire::RollbackRequest {
        migration: ledger.id.clone(),
        force: args.force,
    };
    let done = tokio::select! {
        done = target.rollback(request) => done.map_err(said("target"))?.into_inner(),
        lost = drive::lost(driving) => return Err(lost),
    };
    if args.ends.source.is_some() {
        close_snapshot(&args, &ledger.id, reporter).await;
    }
    let (verdict, result) = told(&ledger, done, reporter)?;
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
    ledger: &Ledger,
    done: wire::RollbackResponse,
    reporter: &Reporter,
) -> anyhow::Result<(Verdict, Value)> {
    let wire::RollbackResponse { removed, kept, .. } = done;
    let findings: Result<Vec<Finding>, _> =
        done.findings.into_iter().map(TryInto::try_into).collect();
    let findings = findings?;
    for finding in &findings {
        reporter.emit(&Event::Finding(finding.clone()));
    }
    for what in &kept {
        reporter.line(&format!("  stays: {what}, which others use by now"));
    }
    let differences = findings
        .iter()
        .filter(|f| f.severity == Severity::Difference);
    let verdict = match differences.count() {
        0 => Verdict::Proven,
        _ => Verdict::Differs,
    };
    reporter.line(&match verdict {
        Verdict::Proven => format!(
            "migration {} is taken back ({} objects removed): the target is what it was before, by its own catalogs and tables",
            ledger.id,
            removed.len()
        ),
        _ => format!(
            "migration {} is taken back, but the target is not what it was before: see the findings; the ledger stays",
            ledger.id
        ),
    });
    let result = json!({
        "migration": ledger.id, "removed": removed, "kept": kept, "findings": findings,
    });
    Ok((verdict, result))
}
