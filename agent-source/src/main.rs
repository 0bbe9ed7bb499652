//! pgconvoy-source: the agent beside the source database. It reads, digests, compresses and pushes; it never writes.
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use pgconvoy_agent_core::agent::{self, AgentArgs, Serving};
use pgconvoy_agent_core::child;
use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::storage::Access;
use pgconvoy_proto::identity::{Identity, Role};
use pgconvoy_proto::settings;
use pgconvoy_proto::wire::source_server::SourceServer;
use tonic::service::RoutesBuilder;

mod archive;
mod artefacts;
mod chunks;
mod copy;
mod facts;
mod inventory;
mod lanes;
mod measure;
mod objects;
mod position;
mod secrets;
mod service;
mod snapshots;
mod steering;
mod survey;
mod sync;

/// The agent beside the source database: reads it under one snapshot and pushes it to the target agent.
///
/// Example: pgconvoy-source --listen 0.0.0.0:7401 --identity source.pem --database-url postgres://postgres@localhost/app
#[derive(Debug, Parser)]
#[command(name = "pgconvoy-source", version)]
struct Args {
    /// Address to listen on; port 0 takes a free one
    #[arg(
        long,
        env = "PGCONVOY_LISTEN",
        value_name = "ADDR",
        default_value = "0.0.0.0:7401"
    )]
    listen: SocketAddr,
    #[command(flatten)]
    agent: AgentArgs,
    /// How long the snapshot is kept after the coordinator was last heard of
    #[arg(
        long,
        env = "PGCONVOY_SNAPSHOT_LEASE",
        value_name = "TIME",
        default_value = "30m"
    )]
    snapshot_lease: humantime::Duration,
}

fn main() -> ExitCode {
    child::become_child_if_asked();
    let args: Args = settings::parse("source-agent");
    settings::init_logging(args.agent.log_format);
    agent::exit(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    let database = Database::resolve(args.agent.database_url.as_deref(), |name| {
        std::env::var(name).ok()
    })
    .context("--database-url")?;
    let identity = Identity::load(&args.agent.identity)?.require(Role::Source)?;
    let serving = Serving::new(
        "pgconvoy-source",
        args.listen,
        identity.clone(),
        database.clone(),
    );
    let snapshots = snapshots::Snapshots::new(*args.snapshot_lease);
    let storage = Access::resolve(&args.agent.storage)?;
    let service = service::Service::new(
        database,
        identity,
        snapshots.clone(),
        args.agent.pg_bin,
        storage,
    );
    let reaper = tokio::spawn(snapshots.reap(Duration::from_secs(5), serving.stop.clone()));
    let mut routes = RoutesBuilder::default();
    routes.add_service(SourceServer::new(service));
    agent::run(serving, routes).await?;
    reaper.await.context("the lease task failed")
}
