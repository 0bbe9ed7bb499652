//! pgconvoy-target: the agent beside the target database. It loads, builds, digests, and keeps the ledger.
use std::net::SocketAddr;
use std::path::PathBuf;
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
use pgconvoy_proto::wire::target_server::TargetServer;
use tonic::service::RoutesBuilder;

use crate::archive::Store;
use crate::backup::Vault;
use crate::objects::Home;
use crate::service::Service;
use crate::sessions::Sessions;
use crate::steps::Runner;

mod archive;
mod artefacts;
mod backup;
mod before;
mod clean;
mod copy_in;
mod digest;
mod drive;
mod empty;
mod facts;
mod furnish;
mod health;
mod integrity;
mod landing;
mod large_objects;
mod ledger;
mod load;
mod objects;
mod rehearsal;
mod reprint;
mod restore;
mod rights;
mod rollback;
mod service;
mod sessions;
mod steps;
mod survey;
mod sync;
mod tuning;
mod unvalidated;
mod wal_writer;

/// A step of the plan may name every function and policy of a schema.
const MAX_PLAN_MESSAGE_BYTES: usize = 64 << 20;

/// The agent beside the target database: loads what the source agent sends, builds indexes, digests, keeps the ledger.
///
/// Example: pgconvoy-target --listen 0.0.0.0:7402 --identity target.pem --database-url postgres://postgres@localhost/app
///          --data-dir /var/lib/pgconvoy
#[derive(Debug, Parser)]
#[command(name = "pgconvoy-target", version)]
struct Args {
    /// Address to listen on; port 0 takes a free one
    #[arg(
        long,
        env = "PGCONVOY_LISTEN",
        value_name = "ADDR",
        default_value = "0.0.0.0:7402"
    )]
    listen: SocketAddr,
    #[command(flatten)]
    agent: AgentArgs,
    /// Folder for schema archives, one folder per migration, and for temporary files
    #[arg(long, env = "PGCONVOY_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
}

fn main() -> ExitCode {
    child::become_child_if_asked();
    let args: Args = settings::parse("target-agent");
    settings::init_logging(args.agent.log_format);
    agent::exit(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    let database = Database::resolve_target(args.agent.database_url.as_deref(), |name| {
        std::env::var(name).ok()
    })
    .context("--database-url")?;
    let identity = Identity::load(&args.agent.identity)?.require(Role::Target)?;
    std::fs::create_dir_all(&args.data_dir).with_context(|| {
        let folder = args.data_dir.display();
        format!("--data-dir {folder}: name a folder that this user may write to, or have it made")
    })?;
    let sessions = Sessions::new(database.clone());
    let vault = Vault::new(&args.data_dir, args.agent.pg_bin.clone());
    vault.remove_unfinished();
    let service = Service {
        runner: Runner {
            sessions: sessions.clone(),
            store: Store::new(args.data_dir.clone(), args.agent.pg_bin.clone()),
        },
        home: Home::new(Access::resolve(&args.agent.storage)?),
        vault,
        pg_bin: args.agent.pg_bin,
        data_dir: args.data_dir,
    };
    let mut routes = RoutesBuilder::default();
    routes.add_service(
        TargetServer::new(service)
            .max_decoding_message_size(MAX_PLAN_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_PLAN_MESSAGE_BYTES),
    );
    let serving = Serving::new("pgconvoy-target", args.listen, identity, database);
    let unused = sessions.close_unused(Duration::from_secs(5), serving.stop.clone());
    let unused = tokio::spawn(unused);
    agent::run(serving, routes).await?;
    unused.await.context("the sessions' task failed")
}
