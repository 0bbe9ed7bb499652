//! What the two agents share as programs: flags, the health of their database, serving until told to stop.
//!
//! An agent listens and reports itself unhealthy when its database cannot be reached: it does not end.
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use pgconvoy_proto::errors;
use pgconvoy_proto::identity::Identity;
use pgconvoy_proto::serve;
use pgconvoy_proto::settings::LogFormat;
use pgconvoy_proto::signals::Signals;
use preempt_rt::sched::{self, Pid, Scheduler, SchedulerParams};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::database::Database;
use crate::facts;
use crate::session::Session;
use crate::storage::StorageArgs;

/// How long calls in flight may go on after SIGTERM.
const DRAIN: Duration = Duration::from_secs(20);
const HEALTH_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, clap::Args)]
pub struct AgentArgs {
    /// Identity bundle made by `pgconvoy pki init`
    #[arg(long, env = "PGCONVOY_IDENTITY", value_name = "FILE")]
    pub identity: PathBuf,
    /// Database: postgres://user@host:port/db?sslmode=verify-full, or keyword=value; else PGHOST, PGUSER, PGPASSFILE...
    #[arg(
        long,
        env = "PGCONVOY_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_url: Option<String>,
    /// Folder with pg_dump and pg_restore [default: searched on PATH and in the usual places]
    #[arg(long, env = "PGCONVOY_PG_BIN", value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,
    #[command(flatten)]
    pub storage: StorageArgs,
    /// Format of the log on stderr
    #[arg(
        long,
        env = "PGCONVOY_LOG_FORMAT",
        value_enum,
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
    /// Settings file [default: ./pgconvoy.toml if there is one]
    #[arg(long, env = "PGCONVOY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What an agent is and where it serves.
pub struct Serving {
    pub program: &'static str,
    pub listen: SocketAddr,
    pub identity: Identity,
    pub database: Database,
    /// Cancelled when the agent is told to stop.
    pub stop: CancellationToken,
}

impl Serving {
    pub fn new(
        program: &'static str,
        listen: SocketAddr,
        identity: Identity,
        database: Database,
    ) -> Self {
        Self {
            program,
            listen,
            identity,
            database,
            stop: CancellationToken::new(),
        }
    }
}

/// Lets whoever runs finish what he does when rows arrive, PostgreSQL above all: "scheduling [...] without interactivity causing
/// extra preemptions" (sched(7), SCHED_BATCH). Under the usual policy PostgreSQL on a busy machine loses its processor for every
/// 8 KiB that it sends. Threads and programs started later inherit it; who started the agent under another policy keeps his.
fn run_in_batches() {
    let this = Pid::current_thread();
    let batch = SchedulerParams { priority: 0 };
    let set = match sched::get_scheduler(this) {
        Ok(Scheduler::SCHED_NORMAL) => sched::set_scheduler(this, Scheduler::SCHED_BATCH, batch),
        found => found.map(drop),
    };
    if let Err(error) = set {
        tracing::debug!("the scheduling policy stays as it is: {error}");
    }
}

/// Buffers of chunks come and go by the thousand: their memory is to be used again, not to be given back and faulted in anew. When a
/// block is freed, the GNU C library takes its length for the least that is mapped apart, and twice that for what may lie free
/// (mallopt(3), "dynamic mmap threshold"). Of this block nothing is ever touched: it costs address space alone, and not for long.
fn keep_buffers() {
    const BYTES: usize = 16 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(BYTES)));
}

/// Runs an agent on a runtime of its own; what went wrong is said on stderr.
pub fn exit(agent: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    run_in_batches();
    keep_buffers();
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(agent));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = errors::in_words(&error);
            // Where that cannot be written there is nobody left to tell.
            writeln!(std::io::stderr(), "error: {text}").ok();
            ExitCode::FAILURE
        }
    }
}

/// Serves `routes` until SIGTERM, SIGINT or SIGHUP, then drains. Prints one line on stdout when it is ready.
pub async fn run(serving: Serving, mut routes: RoutesBuilder) -> anyhow::Result<()> {
    let Serving {
        program,
        listen,
        identity,
        database,
        stop,
    } = serving;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}: choose another --listen"))?;
    let (reporter, health) = tonic_health::server::health_reporter();
    routes.add_service(health);

    let seen = first_look(&database).await;
    report(&reporter, &seen).await;
    let ready = format!(
        "{program} {} ready: listening on {}, database {} ({}), identity {}",
        env!("CARGO_PKG_VERSION"),
        listener.local_addr()?,
        database.describe(),
        match &seen {
            Ok(version) => format!("PostgreSQL {}", version_text(*version)),
            Err(error) => format!("NOT REACHABLE: {error}"),
        },
        identity.describe(),
    );
    // Who started it may have stopped listening.
    writeln!(std::io::stdout(), "{ready}").ok();

    let watch = tokio::spawn(watch_health(database, reporter, stop.clone()));
    let mut signals = Signals::listen()?;
    let stopper = stop.clone();
    tokio::spawn(async move {
        let told = tokio::select! {
            told = signals.recv() => told,
            () = stopper.cancelled() => return,
        };
        stopper.cancel();
        tracing::info!("{told}: draining");
    });
    let served = serve::serve(listener, &identity, routes.routes(), stop.clone(), DRAIN).await;
    stop.cancel();
    watch.await.context("the health task failed")?;
    tracing::info!("stopped");
    served
}

/// 150020 is "15.20".
fn version_text(version: u32) -> String {
    format!("{}.{}", version / 10_000, version % 10_000)
}

/// A pooler is noticed: what it lends to the application must not keep settings of ours.
async fn first_look(database: &Database) -> Result<u32, String> {
    let session = health_session(database).await?;
    if let Err(error) = facts::has_own_backend(&session, database).await {
        tracing::warn!(%error, "whether this is a transaction pooler cannot be told");
    }
    database
        .refuse_pooler()
        .map_err(|error| error.to_string())?;
    Ok(session.server_version())
}

async fn look(database: &Database) -> Result<u32, String> {
    database
        .refuse_pooler()
        .map_err(|error| error.to_string())?;
    Ok(health_session(database).await?.server_version())
}

async fn health_session(database: &Database) -> Result<Session, String> {
    let session = database.connect("pgconvoy health").await;
    session.map_err(|error| error.to_string())
}

async fn report(reporter: &HealthReporter, seen: &Result<u32, String>) {
    let status = if seen.is_ok() {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    reporter.set_service_status("", status).await;
}

async fn watch_health(database: Database, reporter: HealthReporter, stop: CancellationToken) {
    let mut healthy = true;
    let mut tick = tokio::time::interval(HEALTH_EVERY);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let seen = look(&database).await;
        match &seen {
            Err(error) if healthy => tracing::warn!(%error, "the database cannot be reached"),
            Ok(_) if !healthy => tracing::info!("the database can be reached again"),
            _ => {}
        }
        healthy = seen.is_ok();
        report(&reporter, &seen).await;
    }
}
