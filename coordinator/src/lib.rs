//! pgconvoy, the coordinator: the operator's program. It sequences the phases, schedules the work, compares digests and reports.
//!
//! It has no database credentials and links no PostgreSQL client; it keeps no state but the run folder's artefacts.
mod access;
mod backup;
mod checks;
pub mod cli;
mod compare;
mod converge;
pub mod demo;
mod digest;
mod drive;
mod effort;
mod ends;
mod events;
mod gone;
mod inventory;
mod ledger;
mod left_out;
mod live;
mod migrate;
mod monitor;
mod narrow;
mod objects;
mod phases;
mod plan;
mod platform;
mod preflight;
mod rehearse;
mod report;
mod rollback;
mod run_dir;
mod schedule;
mod schema;
mod sync;
mod text;
mod unknown;
mod verdict;
mod verify;
mod watch;
mod workers;

use std::sync::Arc;

use anyhow::Context;
use clap::CommandFactory;
use pgconvoy_proto::signals::Signals;
use pgconvoy_proto::{errors, pki, wire};
use serde_json::{Value, json};

use crate::cli::{CleanArgs, Cli, Command, Ends, PkiCommand};
use crate::ends::{Usage, said};
use crate::events::Reporter;
use crate::ledger::Ledger;
pub use crate::verdict::Verdict;

/// A command's end: the verdict, and what the last JSON line says beside it.
type Ended = anyhow::Result<(Verdict, Value)>;

/// Runs a command to its end, or until it is interrupted; the exit code.
pub async fn run(cli: Cli) -> u8 {
    let reporter = Arc::new(Reporter::new(cli.global.json));
    // The demo has servers and agents to stop first: it answers interruptions itself.
    let alone = matches!(cli.command, Command::Demo(_));
    let goes_on = goes_on(&cli.command);
    let ended = tokio::select! {
        ended = command(cli, &reporter) => ended,
        () = interrupted(), if !alone => {
            reporter.line(&format!("interrupted: {goes_on}"));
            Ok((Verdict::Interrupted, Value::Null))
        }
    };
    let (verdict, mut result, code) = match ended {
        Ok((verdict, result)) => (verdict, result, verdict.code()),
        Err(error) => {
            reporter.quiet();
            let usage = error.downcast_ref::<Usage>().is_some();
            let text = errors::in_words(&error);
            reporter.line(&format!("error: {text}"));
            let code = if usage { 2 } else { Verdict::Failed.code() };
            (Verdict::Failed, json!({ "error": text }), code)
        }
    };
    if !result.is_object() {
        result = json!({});
    }
    // Beside how this command ended: what the ledger says of the migration, null while it is unfinished.
    if let Some(of_migration) = result.get("verdict").cloned() {
        result["migration_verdict"] = of_migration;
    }
    result["event"] = "result".into();
    result["verdict"] = verdict.as_str().into();
    reporter.result(&result);
    code
}

/// What there is to know, and to do, when the command is interrupted.
fn goes_on(command: &Command) -> &'static str {
    match command {
        Command::Migrate(_) | Command::Resume(_) | Command::Sync(_) => {
            "what is done is kept; pgconvoy resume goes on"
        }
        Command::Rollback(_) => {
            "what is done is done; pgconvoy rollback --migration ID goes on, with the ID above"
        }
        Command::Rehearse(_) => {
            "the next pgconvoy rehearse, or pgconvoy clean, drops the scratch database"
        }
        Command::Backup(_) => "there is no backup of this run",
        _ => "nothing was left half done",
    }
}

async fn interrupted() {
    match Signals::listen() {
        Ok(mut signals) => {
            signals.recv().await;
        }
        // Without handlers the signals end the process by themselves.
        Err(_) => std::future::pending().await,
    }
}

async fn command(cli: Cli, reporter: &Arc<Reporter>) -> Ended {
    let global = &cli.global;
    let migration = global.migration.as_deref();
    match cli.command {
        Command::Pki(PkiCommand::Init {
            dir,
            source_name,
            target_name,
            days,
        }) => {
            let files = pki::init(&dir, &source_name, &target_name, days)?;
            for file in &files {
                reporter.line(&format!("  {}", file.display()));
            }
            reporter.line("keep ca.key off both hosts; give each program its own bundle");
            Ok((Verdict::Ok, json!({ "files": files })))
        }
        Command::Preflight(args) => Box::pin(preflight::preflight(args, global, reporter)).await,
        Command::Plan(mut args) => {
            args.dry_run = true;
            Box::pin(migrate::migrate(args, global, reporter)).await
        }
        Command::Migrate(args) => Box::pin(migrate::migrate(args, global, reporter)).await,
        Command::Resume(args) => Box::pin(migrate::resume(args, global, reporter)).await,
        Command::Sync(args) => Box::pin(sync::sync(args, global, reporter)).await,
        Command::Verify(args) => verify::verify(args, global, reporter).await,
        Command::Status(ends) => {
            let ledger = read_ledger(&ends, migration).await?;
            show(reporter, &report::status_text(&ledger));
            Ok((Verdict::Ok, report::json(&ledger)))
        }
        Command::Watch(args) => watch::watch(args, migration, reporter).await,
        Command::Report(args) => {
            let ledger = read_ledger(&args.ends, migration).await?;
            if let Some(file) = &args.html {
                std::fs::write(file, report::html(&ledger))
                    .with_context(|| format!("--html {}", file.display()))?;
                reporter.line(&format!("  {}", file.display()));
            } else {
                show(reporter, &report::text(&ledger));
            }
            // An unfinished one is to be resumed: nobody may take its report for a success.
            let verdict = ledger.verdict.unwrap_or(Verdict::Interrupted);
            Ok((verdict, report::json(&ledger)))
        }
        Command::Monitor(ends) => Box::pin(monitor::monitor(ends, migration, reporter)).await,
        Command::Rehearse(args) => Box::pin(rehearse::rehearse(args, global, reporter)).await,
        Command::Backup(args) => backup::backup(args, global, reporter).await,
        Command::Rollback(args) => rollback::rollback(args, global, reporter).await,
        Command::Clean(args) => clean(args, migration, reporter).await,
        Command::Demo(options) => {
            let code = demo::run(options).await?;
            let verdict = [
                Verdict::Proven,
                Verdict::Differs,
                Verdict::Blocked,
                Verdict::Interrupted,
            ]
            .into_iter()
            .find(|verdict| verdict.code() == code);
            Ok((verdict.unwrap_or(Verdict::Failed), Value::Null))
        }
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "pgconvoy",
                &mut std::io::stdout(),
            );
            Ok((Verdict::Ok, Value::Null))
        }
    }
}

/// What a command is asked to show goes to stdout, unless JSON does.
fn show(reporter: &Reporter, text: &str) {
    if reporter.json() {
        events::complain(text);
    } else {
        events::print(text);
    }
}

async fn read_ledger(ends: &Ends, migration: Option<&str>) -> anyhow::Result<Ledger> {
    Ledger::read(&mut ends::target(ends).await?, migration).await
}

async fn clean(args: CleanArgs, migration: Option<&str>, reporter: &Reporter) -> Ended {
    let mut target = ends::target(&args.ends).await?;
    // Without a ledger there is nothing that could be unfinished, and no snapshot.
    let ledger = Ledger::find(&mut target, migration).await?;
    if let Some(ledger) = ledger.as_ref().filter(|ledger| ledger.verdict.is_none())
        && !args.force
    {
        anyhow::bail!(
            "migration {} is unfinished: resume it, or clean --force (what it created stays in the target)",
            ledger.id
        );
    }
    let request = wire::CleanRequest {
        migration: migration.unwrap_or_default().into(),
    };
    let wire::CleanResponse { mut removed, kept } = target
        .clean(request)
        .await
        .map_err(said("target"))?
        .into_inner();
    if let (Some(ledger), true) = (&ledger, args.ends.source.is_some()) {
        let mut ends = ends::connect(&args.ends).await?;
        inventory::close(&mut ends, &ledger.id)
            .await
            .context("closing the snapshot")?;
        removed.push(format!(
            "snapshot of migration {}, if it was open",
            ledger.id
        ));
    }
    for what in &removed {
        reporter.line(&format!("  removed: {what}"));
    }
    for what in &kept {
        reporter.line(&format!("  stays: {what}, which the migration created"));
    }
    if removed.is_empty() {
        reporter.line("there was nothing to remove");
    }
    Ok((Verdict::Ok, json!({ "removed": removed, "kept": kept })))
}
