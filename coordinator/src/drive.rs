//! One driver per migration: takes it over, and works for as long as nobody else does.
use std::sync::Arc;

use anyhow::anyhow;
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::target_client::TargetClient;
use tokio_stream::StreamExt;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::Ended;
use crate::effort::Effort;
use crate::ends::{Ends, said};
use crate::events::{Event, Reporter};
use crate::ledger::Ledger;
use crate::live::{self, Live};
use crate::phases::Run;
use crate::run_dir::RunDir;

/// A migration that is to be driven.
pub struct Driven<'a> {
    pub ends: Ends,
    pub id: &'a str,
    pub effort: Effort,
    pub dir: RunDir,
    pub reporter: &'a Arc<Reporter>,
}

impl Driven<'_> {
    /// Takes the migration over and does the work; an error when it is lost meanwhile.
    pub async fn drive(mut self, work: impl AsyncFnOnce(&mut Run) -> Ended) -> Ended {
        let driving = take_over(&mut self.ends.target, self.id).await?;
        // Only now: what an earlier driver left behind cannot change it any more.
        let ledger = Ledger::read(&mut self.ends.target, Some(self.id)).await?;
        self.reporter.emit(&Event::Migration {
            id: self.id.into(),
            source: ledger.source.clone(),
            target: ledger.target.clone(),
        });
        let live = Arc::new(Live::traced(self.reporter.clone()));
        let mut run = Run {
            ends: self.ends,
            ledger,
            effort: self.effort,
            reporter: self.reporter.clone(),
            live: live.clone(),
            dir: self.dir,
            timed: Vec::new(),
            files: None,
        };
        let _display = live::show(live, self.reporter.clone());
        tokio::select! {
            ended = work(&mut run) => ended,
            lost = lost(driving) => Err(lost),
        }
    }
}

fn driver() -> String {
    let host = rustix::system::uname();
    format!(
        "{} pid {}",
        host.nodename().to_string_lossy(),
        std::process::id()
    )
}

/// For as long as the answer lives, nobody else drives the migration.
pub async fn take_over(
    target: &mut TargetClient<Channel>,
    id: &str,
) -> anyhow::Result<Streaming<wire::DriveGranted>> {
    let request = wire::DriveRequest {
        migration: id.into(),
        driver: driver(),
    };
    let mut driving = target
        .drive(request)
        .await
        .map_err(said("target"))?
        .into_inner();
    match driving.next().await {
        Some(Ok(_)) => Ok(driving),
        Some(Err(status)) => Err(said("target")(status)),
        None => Err(anyhow!("the target agent ended the call")),
    }
}

/// Ends when the migration is not ours any more: the target database or its agent was lost.
pub async fn lost(mut driving: Streaming<wire::DriveGranted>) -> anyhow::Error {
    match driving.next().await {
        Some(Err(status)) => said("target")(status),
        Some(Ok(_)) | None => anyhow!("the target agent gave the migration up"),
    }
}
