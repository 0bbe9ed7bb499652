//! `rollback`: the target as it was before the migration, proven by the target agent's own comparison.
//!
//! It needs the target agent alone: the source was never changed. Where the source agent is named, the snapshot that it holds is closed.
use std::sync::Arc;

use anyhow::{Context, bail};
use pgconvoy_proto::model::{Finding, ROLLING_BACK, SUPERSEDED, Severity};
use pgconvoy_proto::wire;
use serde_json::{Value, json};
use tonic::Code;

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
    if let (Some(ledger), None, None) = (&migration, asked, &args.to_backup) {
        refuse_superseded(ledger)?;
    }
    let migration = migration.map(|ledger| ledger.id);
    let named = migration.as_ref().or(args.to_backup.as_ref());
    let id = named.context("neither a migration nor a backup")?;
    let dir = RunDir::create(&global.run_dir, id)?;
    reporter.log_to(dir.events()?);
    let driving = drive::take_over(&mut target, id).await?;
    reporter.emit(&Event::Phase {
        phase: ROLLING_BACK.into(),
    });
    let goes_on = goes_on(migration.as_deref(), args.to_backup.as_deref());
    reporter.note(format!("interrupted, {goes_on}"));
    let request = wire::RollbackRequest {
        migration: migration.clone().unwrap_or_default(),
        force: args.force,
        backup: args.to_backup.clone().unwrap_or_default(),
    };
    let done = tokio::select! {
        done = target.rollback(request) => match done {
            Ok(done) => done.into_inner(),
            // Nothing was changed: there is nothing to go on with.
            Err(status) if status.code() == Code::FailedPrecondition => return Err(said("target")(status)),
            Err(status) => return Err(said("target")(status).context(stopped(&goes_on))),
        },
        lost = drive::lost(driving) => return Err(lost.context(stopped(&goes_on))),
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
    dir.write_result("rollback.json", &result, reporter);
    Ok((verdict, result))
}

/// One that is not named, and is the latest only because the later ones are not in the ledger any more: the last of them was perhaps taken
/// back a moment ago, and its answer was lost.
fn refuse_superseded(ledger: &Ledger) -> anyhow::Result<()> {
    if ledger.phase != SUPERSEDED {
        return Ok(());
    }
    bail!(
        "nothing was changed: the migration that came after {id} is taken back already, or was cleaned away. What is in the ledger is the \
         earlier migration {id}: pgconvoy rollback --migration {id} takes that one back, too",
        id = ledger.id
    )
}

/// By its name: without it another run would be about an earlier migration, once this one is taken back.
fn goes_on(migration: Option<&str>, backup: Option<&str>) -> String {
    let named = [("migration", migration), ("to-backup", backup)];
    let flags: String = named
        .iter()
        .filter_map(|(flag, id)| Some(format!(" --{flag} {}", (*id)?)))
        .collect();
    let done = match migration {
        Some(_) => " (where there is no such migration any more, it is done)",
        None => "",
    };
    format!("pgconvoy rollback{flags} goes on{done}")
}

fn stopped(goes_on: &str) -> String {
    format!("the rollback stopped; what is done is done: {goes_on}")
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
