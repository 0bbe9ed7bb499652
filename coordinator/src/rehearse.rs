//! `rehearse`: the migration as it would be, into a scratch database that the target agent makes beside its own, and drops.
//!
//! The phases, the agents' work and the comparison are those of `migrate`: only the database is another one.
use std::sync::Arc;

use pgconvoy_proto::model::{Finding, Options, REHEARSAL, Severity};
use pgconvoy_proto::wire;
use serde_json::{Value, json};

use crate::cli::{Global, RehearseArgs};
use crate::compare::findings::WERE_THERE;
use crate::drive::Driven;
use crate::ends::{self, Ends, said};
use crate::events::{Event, Reporter};
use crate::inventory::{self, Lease};
use crate::left_out::LeftOut;
use crate::phases::{Run, snapshot};
use crate::plan::Plan;
use crate::platform::{self, Ground, Scope, Settling};
use crate::preflight::{self, Intent};
use crate::run_dir::RunDir;
use crate::text::{columns, duration};
use crate::verdict::Verdict;
use crate::{Ended, effort, migrate};

pub async fn rehearse(args: RehearseArgs, global: &Global, reporter: &Arc<Reporter>) -> Ended {
    let mut ends = ends::connect(&args.ends).await?;
    let id = rehearsal_id();
    let dir = RunDir::create(&global.run_dir, &id)?;
    reporter.log_to(dir.events()?);
    let stated = platform::stated(global.config.as_deref())?;
    let (ground, told) = platform::look(&ends, &args.profile.profile, stated).await?;
    for finding in &told {
        reporter.emit(&Event::Finding(finding.clone()));
    }
    if preflight::is_blocked(&told) {
        return Ok((Verdict::Blocked, json!({ "findings": told })));
    }
    let managed = ground
        .as_ref()
        .map(|ground| ground.platform.managed_schemas.clone());
    let extensions = ground.as_ref().map(Ground::extensions);
    let request = wire::OpenRehearsalRequest {
        migration: id.clone(),
        managed_schemas: managed.unwrap_or_default(),
        extensions: extensions.unwrap_or_default(),
    };
    let opened = ends.target.open_rehearsal(request).await;
    let opened = opened.map_err(said("target"))?.into_inner();
    for what in &opened.removed {
        reporter.note(format!(
            "an earlier rehearsal had left behind, and is gone now: {what}"
        ));
    }
    reporter.line(&format!("rehearsal in database {}", opened.database));
    let closing = ends.clone();
    let ended = Box::pin(run(
        ends,
        &args,
        &id,
        (ground, &opened.refused),
        dir,
        reporter,
    ))
    .await;
    // Also of one that failed: it is not resumed.
    match close(closing, &id).await {
        Ok(()) => reporter.line("the scratch database is dropped; the target is as it was"),
        // Why it failed matters more.
        Err(error) if ended.is_err() => reporter.note(format!(
            "the scratch database stays ({error:#}): the next rehearse, or pgconvoy clean, drops it"
        )),
        Err(error) => return Err(error),
    }
    ended
}

/// Short enough, with what the agents put around it, for the name of a database (63 bytes).
fn rehearsal_id() -> String {
    let unique = uuid::Uuid::now_v7().simple().to_string();
    format!("{REHEARSAL}{}", &unique[..24])
}

async fn run(
    mut ends: Ends,
    args: &RehearseArgs,
    id: &str,
    (ground, refused): (Option<Ground>, &[wire::RefusedExtension]),
    dir: RunDir,
    reporter: &Arc<Reporter>,
) -> Ended {
    // Not before: roles that an earlier rehearsal had left behind are gone now.
    let selection = args.filters.selection();
    let mut facts = preflight::gather(&mut ends, &selection, args.roles, ground.as_ref()).await?;
    // Into the scratch database it goes whatever the target holds: nothing of that is dropped, or has to come back.
    let intent = Intent {
        replace: true,
        roles: args.roles,
        streams: args.effort.streams,
        ..Intent::default()
    };
    let mut findings = preflight::findings(&facts, intent);
    findings.retain(|finding| finding.code != preflight::TARGET_REPLACED);
    let mut settled = None;
    if let Some(ground) = ground {
        ground.settle_findings(&mut findings);
        // Of the target itself nothing is in the way; what would be lost is told, and the rest is rehearsed.
        facts.target.tables.clear();
        let scope = Scope::new(&selection, LeftOut::default())?;
        let shared = ground.look_at_shared(&ends, &scope, true, reporter).await?;
        let names: Vec<String> = refused.iter().map(|refused| refused.name.clone()).collect();
        let scratch = ground.of_scratch(&ends, id, &names).await?;
        let asked = Settling {
            ends: &ends,
            scope: &scope,
            force: true,
            earlier: &[],
            shared,
        };
        let now = scratch.settle(&mut facts.target, asked).await?;
        findings.extend(now.findings.iter().cloned());
        findings.extend(refused.iter().map(not_rehearsed));
        settled = Some(now);
    }
    for finding in &findings {
        reporter.emit(&Event::Finding(finding.clone()));
    }
    if preflight::is_blocked(&findings) {
        return Ok((Verdict::Blocked, json!({ "findings": findings })));
    }
    let options = Options {
        selection,
        roles: args.roles,
        tenancy: settled.as_ref().map(|now| Box::new(now.tenancy.clone())),
        ..Options::default()
    };
    let effort = effort::of(&args.effort, &facts);
    let settled = settled.as_ref();
    let lease = Lease::of(id);
    let inventory = migrate::inventory(&mut ends, id, &options, &facts, settled, lease).await?;
    let _lease = snapshot::keep_alive(ends.source.clone(), id.to_owned(), lease);
    let options = effort::with_part_size(options, &inventory, effort, &facts);
    let mut plan = Plan::new(inventory, options);
    // What the scratch database has of the target's: its comparison goes by what the plan has told.
    let were_there = |f: &&Finding| WERE_THERE.iter().any(|(_, code)| f.code == *code);
    plan.findings
        .extend(findings.iter().filter(were_there).cloned());
    migrate::create(&mut ends, id, plan, None).await?;
    let driven = Driven {
        ends,
        id,
        effort,
        dir,
        reporter,
    };
    let timed = async |run: &mut Run| {
        let (verdict, mut result) = migrate::carry_out(run, false).await?;
        told(run, &mut result);
        run.dir
            .write_result("rehearsal.json", &result, &run.reporter);
        Ok((verdict, result))
    };
    driven.drive(timed).await
}

fn not_rehearsed(refused: &wire::RefusedExtension) -> Finding {
    let message = format!(
        "the scratch database cannot have it: {}: the rehearsal is without it and its tables, the migration is not",
        refused.reason
    );
    let object = format!("extension {}", refused.name);
    Finding::new(Severity::Warning, "not-rehearsed", object, message)
}

/// How long each phase took: what the real run will take, into this server over this link.
fn told(run: &Run, result: &mut Value) {
    let mut rows = Vec::new();
    let mut phases = Vec::new();
    let mut all = 0.0;
    for (phase, took) in &run.timed {
        let seconds = took.as_secs_f64();
        all += seconds;
        rows.push(vec![phase.name().to_owned(), format!("{seconds:.1} s")]);
        phases.push(json!({ "phase": phase.name(), "seconds": seconds }));
    }
    run.reporter.line(&columns(&rows));
    run.reporter.line(&format!(
        "the migration will take about {} from its plan to its verdict",
        duration(all)
    ));
    result["phases"] = phases.into();
    result["predicted_seconds"] = all.into();
}

/// The driver has left: the scratch database is nobody's.
async fn close(mut ends: Ends, id: &str) -> anyhow::Result<()> {
    inventory::close(&mut ends, id).await?;
    let request = wire::CloseRehearsalRequest {
        migration: id.into(),
    };
    let closed = ends.target.close_rehearsal(request).await;
    closed.map_err(said("target"))?;
    Ok(())
}
