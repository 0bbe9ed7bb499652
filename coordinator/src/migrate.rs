//! `plan`, `migrate` and `resume`: from preflight to the verdict.
mod shown;

use std::sync::Arc;

use anyhow::bail;
use pgconvoy_proto::model::{Named, Options, REHEARSAL, ROLLING_BACK};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::plan_item::Item;
use serde_json::{Value, json};

use crate::cli::{Global, MigrateArgs, ResumeArgs};
use crate::drive::Driven;
use crate::ends::{self, Ends, Usage, said};
use crate::events::{Event, Reporter};
use crate::inventory::{self, Inventory, Lease};
use crate::ledger::Ledger;
use crate::left_out::LeftOut;
use crate::phases::{Run, snapshot, wal};
use crate::plan::Plan;
use crate::platform::{self, Scope, Settled, Settling};
use crate::preflight::{self, Facts, Intent};
use crate::run_dir::RunDir;
use crate::verdict::Verdict;
use crate::{Ended, backup, checks, effort, report, sync, unknown};

/// The whole migration.
pub async fn migrate(args: MigrateArgs, global: &Global, reporter: &Arc<Reporter>) -> Ended {
    check_usage(&args, global)?;
    let mut options = options(&args)?;
    let mut ends = ends::connect(&args.ends).await?;
    let wants_backup = args.backup || !args.no_backup && backup::asked_by_environment()?;
    let stated = platform::stated(global.config.as_deref())?;
    let (ground, of_platform) = platform::look(&ends, &args.profile.profile, stated).await?;
    let (selection, roles) = (&options.selection, options.roles);
    let mut facts = preflight::gather(&mut ends, selection, roles, ground.as_ref()).await?;
    options.replace = intent(&args).replace && facts.target.is_in_use();
    if !args.dry_run
        && let Some(ended) = earlier(&mut ends, &facts, args.force, reporter).await?
    {
        return Ok(ended);
    }
    let mut findings = of_platform;
    let mut settled = None;
    if let Some(ground) = &ground {
        let earlier = earlier_carried(&mut ends, &facts, args.force).await?;
        let target = &mut facts.target;
        let scope = Scope::new(&options.selection, LeftOut::by_migration(&options))?
            .skip_schema(options.skip_schema);
        let asked = Settling {
            ends: &ends,
            scope: &scope,
            force: args.force,
            earlier: &earlier,
            shared: ground
                .look_at_shared(&ends, &scope, args.force, reporter)
                .await?,
        };
        let now = ground.settle(target, asked).await?;
        findings.extend(now.findings.iter().cloned());
        options.tenancy = Some(Box::new(now.tenancy.clone()));
        // What is replaced comes back with the backup, as everything else does.
        options.replace |= args.force && now.replaces();
        settled = Some(now);
    }
    let intent = Intent {
        comes_back: options.replace && (facts.target.is_in_use() || !args.no_backup),
        ..intent(&args)
    };
    findings.extend(preflight::findings(&facts, intent));
    findings.extend(unknown::at_source(&facts, &options.selection));
    if let Some(ground) = &ground {
        ground.settle_findings(&mut findings);
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings.extend(checks::parse_all(&ends, &options.checks, reporter).await?);
    if options.storage_objects {
        findings.extend(preflight::storage::findings(&ends, &options.selection).await?);
    }
    for finding in &findings {
        reporter.emit(&Event::Finding(finding.clone()));
    }
    let blocked = preflight::is_blocked(&findings);
    if blocked && !args.dry_run {
        reporter.note("nothing was changed");
        return Ok((Verdict::Blocked, json!({ "findings": findings })));
    }
    let effort = effort::of(&args.effort, &facts);
    let id = global
        .migration
        .clone()
        .unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    if args.dry_run {
        let settled = settled.as_ref();
        let key = inventory::own_key("plan");
        let inventory = inventory(&mut ends, &key, &options, &facts, settled, Lease::Short).await?;
        inventory::close(&mut ends, &key).await?;
        let options = effort::with_part_size(options, &inventory, effort, &facts);
        let mut plan = Plan::new(inventory, options);
        plan.findings.extend(findings);
        let shown = shown::show(&plan, &facts, effort, args.then_sync, reporter);
        let verdict = if blocked {
            Verdict::Blocked
        } else {
            Verdict::Ok
        };
        return Ok((verdict, shown));
    }
    // First: a folder that cannot be written must not leave a migration behind.
    let dir = RunDir::create(&global.run_dir, &id)?;
    reporter.log_to(dir.events()?);
    let mut backup = None;
    if wants_backup || options.replace && !args.no_backup {
        findings.push(backup::make_and_tell(&mut ends.target, &id, reporter).await?);
        backup = Some(id.clone());
    }
    let settled = settled.as_ref();
    // Until the plan is written nothing can be resumed.
    let lease = Lease::Short;
    let inventory = inventory(&mut ends, &id, &options, &facts, settled, lease).await?;
    let _lease = snapshot::keep_alive(ends.source.clone(), id.clone(), lease);
    let options = effort::with_part_size(options, &inventory, effort, &facts);
    let mut plan = Plan::new(inventory, options);
    plan.findings.extend(findings);
    if let Err(error) = create(&mut ends, &id, plan, backup).await {
        inventory::close(&mut ends, &id).await?;
        return Err(error);
    }
    let driven = Driven {
        ends,
        id: &id,
        effort,
        dir,
        reporter,
    };
    let then_sync = args.then_sync;
    drive(driven, async |run| {
        let (verdict, mut result) = carry_out(run, false).await?;
        if then_sync {
            // The migration is done, whether or not that can be told.
            match sync::forecast(run).await {
                Ok(forecast) => result["then_sync"] = forecast,
                Err(error) => run
                    .reporter
                    .note(format!("what a sync takes was not measured: {error:#}")),
            }
        }
        Ok((verdict, result))
    })
    .await
}

/// Carries an unfinished migration to its end.
pub async fn resume(args: ResumeArgs, global: &Global, reporter: &Arc<Reporter>) -> Ended {
    let mut ends = ends::connect(&args.ends).await?;
    let ledger = Ledger::read(&mut ends.target, global.migration.as_deref()).await?;
    if let Some(verdict) = ledger.verdict {
        reporter.note(format!("migration {} is finished: {verdict}", ledger.id));
        return Ok((verdict, report::json(&ledger)));
    }
    if ledger.phase == ROLLING_BACK {
        bail!(
            "migration {} is being taken back: run pgconvoy rollback to its end",
            ledger.id
        );
    }
    if let Some(under_way) = ledger.sync.clone() {
        return sync::carry_on(ends, &ledger, under_way, &args.effort, global, reporter).await;
    }
    let options = &ledger.options;
    let facts = preflight::gather(&mut ends, &options.selection, options.roles, None).await?;
    let effort = effort::of(&args.effort, &facts);
    let dir = RunDir::create(&global.run_dir, &ledger.id)?;
    reporter.log_to(dir.events()?);
    let driven = Driven {
        ends,
        id: &ledger.id,
        effort,
        dir,
        reporter,
    };
    drive(driven, async |run| carry_out(run, true).await).await
}

/// With the words around it, it must fit into an application_name (63 bytes).
const LONGEST_ID: usize = 40;

fn check_usage(args: &MigrateArgs, global: &Global) -> Result<(), Usage> {
    if args.no_backup && !args.force {
        return Err(Usage(
            "--no-backup is for --force, which replaces what is in the target".into(),
        ));
    }
    if args.storage_objects && args.skip_data {
        return Err(Usage(
            "--storage-objects: files go with their rows, which --skip-data leaves out".into(),
        ));
    }
    if args.skip_schema && args.skip_data {
        return Err(Usage(
            "--skip-schema and --skip-data together leave nothing to do".into(),
        ));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match &global.migration {
        Some(id) if id.is_empty() || id.len() > LONGEST_ID || !id.chars().all(plain) => Err(Usage(
            format!("--migration {id:?}: letters, digits, - and _, at most {LONGEST_ID} of them"),
        )),
        Some(id) if id.starts_with(REHEARSAL) => Err(Usage(format!(
            "--migration {id:?}: {REHEARSAL} begins the ids of rehearsals"
        ))),
        _ => Ok(()),
    }
}

fn options(args: &MigrateArgs) -> anyhow::Result<Options> {
    let checks = args.checks.as_deref().map(checks::read).transpose()?;
    Ok(Options {
        selection: args.filters.selection(),
        skip_schema: args.skip_schema,
        skip_data: args.skip_data,
        skip_rls: args.skip_rls,
        no_verify: args.no_verify,
        roles: args.roles,
        // 0: not said.
        part_bytes: args.part_size.unwrap_or(0) << 20,
        checks: checks.unwrap_or_default(),
        replace: false,
        storage_objects: args.storage_objects,
        tenancy: None,
    })
}

fn intent(args: &MigrateArgs) -> Intent {
    Intent {
        skip_schema: args.skip_schema,
        skip_data: args.skip_data,
        skip_rls: args.skip_rls,
        force: args.force,
        replace: args.force && !args.skip_schema && args.filters.selection().leaves_nothing_out(),
        roles: args.roles,
        streams: args.effort.streams,
        ..Intent::default()
    }
}

/// What is to be migrated: of the roles those that the target lacks.
pub async fn inventory(
    ends: &mut Ends,
    id: &str,
    options: &Options,
    facts: &Facts,
    settled: Option<&Settled>,
    lease: Lease,
) -> anyhow::Result<Inventory> {
    let opened = inventory::open(ends, id, options, options.roles, lease).await?;
    let mut opened = opened.without_roles_of(&facts.target.roles);
    if let Some(settled) = settled {
        settled.apply(&mut opened);
    }
    Ok(opened)
}

/// What a migration that is to be replaced has brought into the platform's schemas.
async fn earlier_carried(
    ends: &mut Ends,
    facts: &Facts,
    force: bool,
) -> anyhow::Result<Vec<Named>> {
    match &facts.target.finished {
        Some((id, _)) if force => {
            let ledger = Ledger::read(&mut ends.target, Some(id)).await?;
            let tenancy = ledger.options.tenancy;
            Ok(tenancy.map_or_else(Vec::new, |tenancy| tenancy.carried))
        }
        _ => Ok(Vec::new()),
    }
}

/// An unfinished migration asks for `resume`; on a finished one nothing is done without --force.
async fn earlier(
    ends: &mut Ends,
    facts: &Facts,
    force: bool,
    reporter: &Reporter,
) -> anyhow::Result<Option<(Verdict, Value)>> {
    if let Some((id, phase)) = &facts.target.unfinished {
        bail!(
            "migration {id} is unfinished, in phase {phase}: run pgconvoy resume, or pgconvoy rollback"
        );
    }
    match &facts.target.finished {
        Some((id, _)) if !force => {
            let ledger = Ledger::read(&mut ends.target, Some(id)).await?;
            reporter.line(&report::status_text(&ledger));
            reporter.note("it is finished: nothing was done (pgconvoy verify compares again)");
            Ok(ledger
                .verdict
                .map(|verdict| (verdict, report::json(&ledger))))
        }
        _ => Ok(None),
    }
}

/// Writes the plan into the ledger.
pub async fn create(
    ends: &mut Ends,
    id: &str,
    plan: Plan,
    backup: Option<String>,
) -> anyhow::Result<()> {
    let skipped = plan.skipped.iter();
    let header = wire::MigrationHeader {
        id: id.into(),
        options: pgconvoy_proto::model::to_json(&plan.options),
        snapshot: plan.snapshot,
        source: plan.source,
        source_version: plan.source_version,
        skipped: skipped.map(|entry| (*entry).into()).collect(),
        backup: backup.unwrap_or_default(),
    };
    let items: Vec<Item> = std::iter::once(Item::Header(header))
        .chain(
            plan.tables
                .into_iter()
                .map(|table| Item::Table(table.into())),
        )
        .chain(plan.steps.into_iter().map(|step| Item::Step(step.into())))
        .chain(
            plan.findings
                .into_iter()
                .map(|finding| Item::Finding(finding.into())),
        )
        .collect();
    let items = items
        .into_iter()
        .map(|item| wire::PlanItem { item: Some(item) });
    ends.target
        .create_migration(tokio_stream::iter(items))
        .await
        .map_err(said("target"))?;
    Ok(())
}

/// Runs the phases, under the migration's snapshot or, when that is gone, a new one.
pub async fn carry_out(run: &mut Run, resumed: bool) -> Ended {
    if resumed {
        snapshot::ensure(run).await?;
    }
    let _lease = snapshot::keep_alive(
        run.ends.source.clone(),
        run.ledger.id.clone(),
        Lease::of(&run.ledger.id),
    );
    run.dir
        .fetch_source_artefacts(&mut run.ends.source, &run.ledger.options.selection)
        .await?;
    let wal = wal::Watch::begin(&mut run.ends).await?;
    let verdict = run.phases().await?;
    let written = wal.end(&mut run.ends).await?;
    run.record_findings(vec![written]).await?;
    finish(run, verdict).await
}

/// Takes the migration over and runs it to its end.
async fn drive(driven: Driven<'_>, work: impl AsyncFnOnce(&mut Run) -> Ended) -> Ended {
    let ended = driven.drive(work).await;
    ended.map_err(|error| {
        error.context("the migration stopped; what is done is kept: pgconvoy resume goes on")
    })
}

async fn finish(run: &mut Run, verdict: Verdict) -> Ended {
    let request = wire::RecordRequest {
        phase: "done".into(),
        verdict: verdict.as_str().into(),
        ..Default::default()
    };
    run.record(request).await?;
    run.refresh_ledger().await?;
    // The migration is done, whether or not the source agent still lives; a snapshot that stays open ends with its lease.
    if let Err(error) = inventory::close(&mut run.ends, &run.ledger.id).await {
        run.reporter.note(format!(
            "the snapshot could not be closed ({error}): it ends with its lease"
        ));
    }
    let json = report::json(&run.ledger);
    run.dir.write_report(&run.ledger, &json, &run.reporter);
    run.reporter.quiet();
    run.reporter.line(&report::text(&run.ledger));
    run.reporter
        .line(&format!("artefacts in {}", run.dir.path().display()));
    Ok((verdict, json))
}
