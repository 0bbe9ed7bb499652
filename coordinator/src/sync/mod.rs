//! `sync`: brings the target up to what the source is at one new snapshot. Both ends digest; only what differs crosses the network.
//!
//! Nothing is changed before everything was looked at: drifted tables and rows that somebody else has written at the target are found
//! first. From the first change on the migration is unfinished, until what was changed is proven: `resume`, or another sync, goes on.
mod conclude;
mod files;
mod follow;
mod forecast;
mod outcome;
mod proof;
mod scope;
mod without_rows;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use pgconvoy_proto::facts::ServerFacts;
use pgconvoy_proto::model::{
    Finding, RoleChoice, Selection, Severity, SyncUnderWay, Table, to_json,
};
use pgconvoy_proto::selection::Filter;
use pgconvoy_proto::wire;
use serde_json::json;

use crate::cli::{EffortArgs, Global, SyncArgs};
use crate::converge::{Converger, Scanned, Synced};
use crate::digest::{Digester, Held};
use crate::drive::Driven;
use crate::ends::{self, Ends};
use crate::events::{Event, Reporter};
use crate::inventory::{self, Inventory, Lease};
use crate::ledger::Ledger;
use crate::left_out::LeftOut;
use crate::phases::verify::{access, business_checks};
use crate::phases::{Run, snapshot};
use crate::run_dir::RunDir;
use crate::schema::{self, Question, Sequences};
use crate::verdict::Verdict;
use crate::workers::each;
use crate::{Ended, backup, effort, gone, objects, platform, preflight, unknown};
use conclude::conclude;
pub use forecast::forecast;
use outcome::{Outcome, TableOutcome};
use scope::Scope;

/// Code of the findings about what somebody else has changed at the target: a sync makes it as the source has it, by --force alone.
const TARGET_WRITTEN: &str = "target-written";

/// What the user wants.
struct Asked {
    selection: Selection,
    /// Definitions are not compared.
    skip_schema: bool,
    left_out: LeftOut,
    force: bool,
    dry_run: bool,
    /// Files go along, although the migration did not carry them.
    storage_objects: bool,
}

impl Asked {
    /// What the migration has left out of the schema its syncs leave out. Where sequences stand is looked at always: they are brought.
    fn left_out_of_schema(&self, ledger: &Ledger) -> LeftOut {
        LeftOut {
            data: false,
            rls: self.left_out.rls || ledger.options.skip_rls,
        }
    }
}

pub async fn sync(args: SyncArgs, global: &Global, reporter: &Arc<Reporter>) -> Ended {
    let mut ends = ends::connect(&args.ends).await?;
    let ledger = Ledger::read(&mut ends.target, global.migration.as_deref()).await?;
    if ledger.verdict.is_none() && ledger.sync.is_none() {
        anyhow::bail!(
            "migration {} is unfinished, in phase {}: run pgconvoy resume, then sync",
            ledger.id,
            ledger.phase
        );
    }
    args.profile.profile.check(&ledger)?;
    refuse_less(&args, &ledger)?;
    if !args.dry_run && (args.backup || backup::asked_by_environment()?) {
        let id = uuid::Uuid::now_v7().to_string();
        backup::make_and_tell(&mut ends.target, &id, reporter).await?;
    }
    let asked = Asked {
        selection: args.selection(),
        skip_schema: args.skip_schema,
        left_out: LeftOut {
            data: args.skip_data,
            rls: args.skip_rls,
        },
        force: args.force,
        dry_run: args.dry_run,
        storage_objects: args.storage_objects,
    };
    begin(ends, &ledger, asked, &args.effort, global, reporter).await
}

/// What a sync was interrupted in is not proven by one of something less.
fn refuse_less(args: &SyncArgs, ledger: &Ledger) -> anyhow::Result<()> {
    let Some(under_way) = &ledger.sync else {
        return Ok(());
    };
    let selection = args.selection();
    let all = selection == under_way.selection || selection.covers(&under_way.selection);
    anyhow::ensure!(
        args.dry_run || all && (!args.skip_data || under_way.skip_data),
        "a sync of more than that was interrupted: pgconvoy resume goes on with it"
    );
    Ok(())
}

/// Goes on with a sync that was interrupted: `resume`.
pub async fn carry_on(
    ends: Ends,
    ledger: &Ledger,
    under_way: SyncUnderWay,
    effort: &EffortArgs,
    global: &Global,
    reporter: &Arc<Reporter>,
) -> Ended {
    reporter.note("a sync was interrupted: it is done again");
    let asked = Asked {
        selection: under_way.selection,
        skip_schema: under_way.skip_schema,
        left_out: LeftOut {
            data: under_way.skip_data,
            rls: under_way.skip_rls,
        },
        force: under_way.force,
        dry_run: false,
        storage_objects: under_way.storage_objects,
    };
    begin(ends, ledger, asked, effort, global, reporter).await
}

async fn begin(
    mut ends: Ends,
    ledger: &Ledger,
    asked: Asked,
    effort: &EffortArgs,
    global: &Global,
    reporter: &Arc<Reporter>,
) -> Ended {
    // A wrong glob is told before anything is asked of the ends.
    Filter::new(&asked.selection)?;
    let dir = RunDir::create(&global.run_dir, &ledger.id)?;
    reporter.log_to(dir.events()?);
    let target = ends.target_facts(&[]).await?.server;
    let effort = effort::unmeasured(effort, &target);
    let driven = Driven {
        ends,
        id: &ledger.id,
        effort,
        dir,
        reporter,
    };
    let ended = driven.drive(async |run| match asked.left_out.data {
        true => without_rows::sync(run, &asked).await,
        false => run_sync(run, &asked, &target).await,
    });
    let ended = ended.await;
    ended.map_err(|error| {
        error.context(
            "the sync stopped; every table is as it was or as it is to be: sync again, or resume",
        )
    })
}

/// All of it.
async fn run_sync(run: &mut Run, asked: &Asked, target: &ServerFacts) -> Ended {
    let started = Instant::now();
    if let Some(open) = scope::opened(run, asked) {
        return blocked(run, vec![open]).await;
    }
    run.ledger.options.storage_objects |= asked.storage_objects;
    let carried = objects::are_carried(&run.ledger.options, &asked.selection)?;
    if carried {
        let selection = &run.ledger.options.selection;
        let mut found = preflight::storage::findings(&run.ends, selection).await?;
        found.retain(|finding| finding.severity == Severity::Blocker);
        if !found.is_empty() {
            return blocked(run, found).await;
        }
    }
    phase(run, "sync: the schema");
    // Where sequences stand must be known also where definitions are left out.
    let coming = compare_definitions(run, asked, Sequences::Coming).await?;
    let moved = without_rows::moved_by_others(run, asked, &coming);
    let schema = match is_compared(run, asked) {
        true => coming,
        false => schema::Compared::default(),
    };
    let again = platform::again(&run.ends, &run.ledger, &asked.selection).await?;
    if let Some(again) = &again {
        if !again.news.is_empty() && !asked.force && !asked.dry_run {
            return blocked(run, again.news.clone()).await;
        }
        run.ledger.options.tenancy = Some(Box::new(again.tenancy.clone()));
    }
    let inventory = open(run).await?;
    let (streams, source) = (run.effort.streams, inventory.machine.as_deref());
    run.effort.scan_sessions = effort::scan_sessions(streams, source, target);
    let _lease = snapshot::keep_alive(run.ends.source.clone(), run.ledger.id.clone(), Lease::Short);
    let unknown = unknown::findings(&run.ledger, &asked.selection, &inventory)?;
    if !unknown.is_empty() {
        return blocked(run, unknown).await;
    }
    let scope = scope::find(run, asked, &inventory, &schema).await?;
    if scope.is_blocked(asked.force) {
        return blocked(run, scope.findings).await;
    }
    phase(run, "sync: both ends are compared");
    let converger = converger(run, &inventory, asked.dry_run);
    let scanned = scan(&converger, &scope.tables).await?;
    let mut others = scope::written_by_others(&run.ledger, &converger.digester, &scanned).await?;
    if carried && run.ledger.sync.is_some() {
        // The Storage API has written there for a sync that was interrupted.
        others.retain(|finding| !files::is_about_rows(finding));
    }
    others.extend(moved);
    if asked.dry_run {
        let outcomes = apply(&converger, scanned).await?;
        if carried {
            files::count(run, &inventory).await?;
        }
        inventory::close(&mut run.ends, &run.ledger.id).await?;
        let news = again.into_iter().flat_map(|again| again.news);
        let mut findings = proof::generated_of_equal(&outcomes);
        findings.extend(scope.findings.into_iter().chain(others).chain(news));
        return Ok(outcome::dry_run(run, &outcomes, findings));
    }
    if !others.is_empty() && !asked.force {
        return blocked(run, others).await;
    }
    let resumed = run.ledger.sync.is_some();
    mark_begun(run, asked, &scope).await?;
    phase(run, "sync: what differs is brought over");
    if carried {
        files::remove(run, &inventory).await?;
    }
    let mut outcomes = apply(&converger, scanned).await?;
    let mut findings = Vec::new();
    if carried {
        phase(run, "sync: files");
        findings.extend(files::bring(run, &inventory).await?);
    }
    follow::record_equal(run, &inventory, &outcomes).await?;
    follow::follow(run, asked, &inventory, &outcomes, resumed).await?;
    phase(run, "sync: proof");
    findings.extend(proof::generated_of_equal(&outcomes));
    findings.extend(proof::prove(&converger, &mut outcomes).await?);
    if carried {
        findings.extend(files::prove(run, &converger, &outcomes, &inventory).await?);
    }
    let orphaned = proof::earlier_orphans(&run.ledger);
    findings.extend(proof::check_keys(run, &outcomes, orphaned).await?);
    let position = proof::position(run, &inventory).await?;
    let held = &converger.held;
    business_checks(run, Some(held)).await?;
    if !asked.left_out.rls {
        access(run, Some(held), &findings, &asked.selection).await?;
    }
    inventory::close(&mut run.ends, &run.ledger.id).await?;
    let schema = compare_schema(run, asked, Sequences::AtSnapshot).await?;
    findings.extend(scope.findings);
    findings.extend(others);
    let mut about = Vec::new();
    if let Some(again) = again {
        findings.extend(again.losses);
        about = again.objects;
    }
    let outcome = Outcome {
        snapshot: inventory.snapshot,
        position,
        tables: outcomes,
        seconds: started.elapsed().as_secs_f64(),
        sequences: None,
    };
    conclude(run, asked, outcome, findings, about, &schema).await
}

fn phase(run: &Run, name: &str) {
    run.reporter.emit(&Event::Phase { phase: name.into() });
}

async fn compare_schema(
    run: &Run,
    asked: &Asked,
    sequences: Sequences,
) -> anyhow::Result<schema::Compared> {
    match is_compared(run, asked) {
        true => compare_definitions(run, asked, sequences).await,
        false => Ok(schema::Compared::default()),
    }
}

fn is_compared(run: &Run, asked: &Asked) -> bool {
    !asked.skip_schema && !run.ledger.options.skip_schema
}

/// Whether or not they are a part of the proof: see [`compare_schema`].
async fn compare_definitions(
    run: &Run,
    asked: &Asked,
    sequences: Sequences,
) -> anyhow::Result<schema::Compared> {
    let question = Question {
        ledger: &run.ledger,
        selection: &asked.selection,
        left_out: asked.left_out_of_schema(&run.ledger),
        sequences,
    };
    schema::compare_ends(&run.ends, &question, &run.reporter).await
}

async fn open(run: &mut Run) -> anyhow::Result<Inventory> {
    let options = run.ledger.options.clone();
    inventory::open(
        &mut run.ends,
        &run.ledger.id,
        &options,
        RoleChoice::None,
        Lease::Short,
    )
    .await
}

/// Nothing was changed.
async fn blocked(run: &mut Run, findings: Vec<Finding>) -> Ended {
    inventory::close(&mut run.ends, &run.ledger.id).await?;
    let findings: Vec<Finding> = findings
        .into_iter()
        .map(|finding| Finding {
            severity: Severity::Blocker,
            ..finding
        })
        .collect();
    for finding in &findings {
        run.reporter.emit(&Event::Finding(finding.clone()));
    }
    run.reporter.note("nothing was changed");
    Ok((Verdict::Blocked, json!({ "findings": findings })))
}

fn converger(run: &Run, inventory: &Inventory, dry_run: bool) -> Converger {
    Converger {
        digester: Digester::of(run),
        held: Held {
            key: run.ledger.id.clone(),
            snapshot: inventory.snapshot.clone(),
        },
        compression: run.effort.compression,
        dry_run,
    }
}

/// Runs `work` for every one of `items`, several at once, and gathers what comes of it.
async fn gather<I, T, F>(
    items: Vec<I>,
    jobs: usize,
    work: impl Fn(I) -> F,
) -> anyhow::Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let gathered: Arc<Mutex<Vec<T>>> = Arc::default();
    let into = gathered.clone();
    each(items, jobs, |item| {
        let (working, into) = (work(item), into.clone());
        async move {
            let found = working.await?;
            let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
            into.push(found);
            Ok(())
        }
    })
    .await?;
    let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *gathered))
}

/// Of a table below this size the way to the agents and back takes longer than the scan.
const SMALL_SCAN: u64 = 1 << 20;
/// Of these so many are scanned at once.
const SMALL_AT_ONCE: usize = 8;

async fn scan(converger: &Converger, tables: &[Table]) -> anyhow::Result<Vec<Scanned>> {
    let work = |table| {
        let converger = converger.clone();
        async move { converger.scan(table).await }
    };
    let (small, large) = tables
        .iter()
        .cloned()
        .partition(|table: &Table| table.size_bytes < SMALL_SCAN);
    let (mut scanned, more) = tokio::try_join!(
        gather(large, converger.digester.jobs, work),
        gather(small, SMALL_AT_ONCE, work)
    )?;
    scanned.extend(more);
    Ok(scanned)
}

/// Largest first, as everywhere. Tables that are equal cost nothing. One that is refused a row waits for the others, for as long as that
/// brings any table over.
async fn apply(
    converger: &Converger,
    mut scanned: Vec<Scanned>,
) -> anyhow::Result<Vec<TableOutcome>> {
    scanned.sort_by_key(|scanned| std::cmp::Reverse(scanned.table.size_bytes));
    let mut outcomes = Vec::new();
    while !scanned.is_empty() {
        let asked = scanned.len();
        let brought = gather(
            std::mem::take(&mut scanned),
            converger.digester.jobs,
            |scanned| {
                let converger = converger.clone();
                async move { bring(&converger, scanned).await }
            },
        )
        .await?;
        let mut reasons = Vec::new();
        for one in brought {
            match one {
                Ok(outcome) => outcomes.push(outcome),
                Err((table, reason)) => {
                    scanned.push(table);
                    reasons.push(reason);
                }
            }
        }
        anyhow::ensure!(
            scanned.len() < asked,
            "{} tables are refused, also with all others synced: {}. A check that is NOT VALID at both ends and that old rows break is put \
             aside while they come, unless it is inherited or a domain's, or somebody goes on reading the table: drop it at the target, \
             sync, and add it again. Foreign keys do not fire where the target agent's role may set session_replication_role",
            reasons.len(),
            reasons.join("; ")
        );
    }
    outcomes.sort_by_cached_key(|outcome: &TableOutcome| outcome.scanned.table.to_string());
    Ok(outcomes)
}

/// One table; or the table again, and why it was refused.
async fn bring(
    converger: &Converger,
    scanned: Scanned,
) -> anyhow::Result<Result<TableOutcome, (Scanned, String)>> {
    let mut synced = Synced::default();
    if !scanned.is_equal() {
        synced = match converger.try_sync(&scanned).await? {
            Ok(synced) => synced,
            Err(reason) => return Ok(Err((scanned, reason))),
        };
        converger.digester.reporter.emit(&Event::Synced {
            table: scanned.table.to_string(),
            counts: synced.counts,
            wire_bytes: synced.wire_bytes,
        });
    }
    Ok(Ok(TableOutcome { scanned, synced }))
}

/// From here on the ledger says that a sync is under way.
async fn mark_begun(run: &mut Run, asked: &Asked, scope: &Scope) -> anyhow::Result<()> {
    let under_way = SyncUnderWay {
        selection: asked.selection.clone(),
        skip_schema: asked.skip_schema,
        skip_data: asked.left_out.data,
        skip_rls: asked.left_out.rls,
        force: asked.force,
        storage_objects: asked.storage_objects,
    };
    run.record(wire::RecordRequest {
        phase: "sync".into(),
        sync: to_json(&under_way),
        options: to_json(&run.ledger.options),
        ..gone::entry(&scope.forgotten)
    })
    .await?;
    scope::plan(run, &scope.tables, false).await?;
    Ok(())
}
