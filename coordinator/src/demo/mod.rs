//! `pgconvoy demo`: the whole product on one machine, on servers that are thrown away afterwards.
//!
//! Whatever way it ends, Ctrl-C included, nothing of it stays behind: every process and folder belongs to a value, and
//! [`Stage`] is dropped before [`run`] returns. Only `--keep` leaves them.
pub mod agent;
pub mod installation;
mod interrupt;
pub mod server;
mod stage;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::{Child, Command};
use tokio::task::block_in_place;

use self::interrupt::Interrupt;
use self::stage::Stage;

/// The shop that the demo moves. `psql -v scale=N` multiplies its orders and events.
pub const SAMPLE: &str = include_str!("sample.sql");
pub const DATABASE: &str = "shop";
/// What must hold in the shop, whoever moves it.
pub const CHECKS: &str = include_str!("checks.toml");

/// Exit code of a command that was interrupted.
const INTERRUPTED: u8 = 130;
const CHILD_DEADLINE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Leave the servers and agents running afterwards, and say how to look at them
    #[arg(long)]
    pub keep: bool,

    /// How much sample data: 1 is some 300,000 rows
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub scale: u32,

    /// Folder with the PostgreSQL programs [default: the newest installation found]
    #[arg(long, value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,
}

/// Answers the exit code of `migrate`. Needs the runtime with several threads.
pub async fn run(options: Options) -> Result<u8> {
    let mut interrupt = Interrupt::listen()?;
    let keep = options.keep;
    // In place and not on another thread: whoever drops this future then waits until all of it is cleaned up.
    let stage = block_in_place(|| set_up(&options));
    // Ctrl-C reached initdb or psql too: their failure is then no news.
    if interrupt.seen() {
        return Ok(INTERRUPTED);
    }
    let stage = stage?;

    say(4, "migrating: pgconvoy migrate --checks checks.toml");
    let code = pgconvoy(&stage, "migrate", &mut interrupt).await?;
    if code != INTERRUPTED {
        say(5, "the report: pgconvoy report");
        pgconvoy(&stage, "report", &mut interrupt).await?;
    }

    if keep && !interrupt.seen() {
        say(6, "everything is left running");
        eprint!("{}", stage.how_to_look()?);
        stage.keep();
    } else {
        say(
            6,
            "stopping the servers and the agents, removing their files",
        );
        block_in_place(|| stage.stop())?;
    }
    Ok(code)
}

fn set_up(options: &Options) -> Result<Stage> {
    say(1, "starting two throw-away PostgreSQL servers");
    let mut stage = Stage::with_servers(options.pg_bin.clone())?;
    eprint!("{}", stage.describe_servers());

    say(2, "loading the sample data at the source");
    let rows = stage.load_sample(options.scale)?;
    eprintln!("      database `{DATABASE}`: {rows} rows");

    say(3, "making a CA and certificates, starting both agents");
    stage.start_agents()?;
    eprint!("{}", stage.describe_agents());
    Ok(stage)
}

/// Runs a command of this very program, as a person would, with our terminal.
async fn pgconvoy(stage: &Stage, command: &str, interrupt: &mut Interrupt) -> Result<u8> {
    let program = std::env::current_exe().context("where this program lives is unknown")?;
    let mut child = Command::from(agent::clean_command(&program))
        .args(stage.arguments(command))
        // A pgconvoy.toml of the caller's is none of ours.
        .current_dir(stage.folder())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{} could not be started", shown(&program)))?;
    tokio::select! {
        status = child.wait() => Ok(code(status?)),
        () = interrupt.wait() => {
            interrupt.pass_on(&child);
            end(child).await?;
            Ok(INTERRUPTED)
        }
    }
}

/// It has been told to end: it may take its time, but not forever.
async fn end(mut child: Child) -> Result<()> {
    if tokio::time::timeout(CHILD_DEADLINE, child.wait())
        .await
        .is_err()
    {
        child.kill().await?;
    }
    Ok(())
}

/// A process that a signal ended has no code of its own.
fn code(status: ExitStatus) -> u8 {
    status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1)
}

fn say(step: u8, what: &str) {
    eprintln!("\n[{step}/6] {what}");
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
