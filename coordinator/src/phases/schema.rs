//! The schema: the archive goes from agent to agent, then roles are made and pre-data is restored.
use pgconvoy_proto::model::{Properties, Work};
use pgconvoy_proto::wire;
use tonic::Code;

use super::{Phase, Run, snapshot, steps};
use crate::ends::{retry, said};
use crate::live::End;

/// How often another snapshot is opened because pg_dump could not lock a table at the last one.
const SNAPSHOTS: usize = 3;

/// The archive, and the secrets of what the plan has of roles and of the database.
fn request(run: &Run) -> wire::SendArchiveRequest {
    let mut request = wire::SendArchiveRequest {
        migration: run.ledger.id.clone(),
        target: run.ends.target_address.clone(),
        ..Default::default()
    };
    for entry in &run.ledger.steps {
        match &entry.step.work {
            Work::Roles(roles) => request.roles.extend(roles.names()),
            Work::Database(Properties {
                settings,
                role_settings,
                ..
            }) => request.database_settings = !settings.is_empty() || !role_settings.is_empty(),
            _ => {}
        }
    }
    request
}

pub async fn run(run: &mut Run) -> anyhow::Result<()> {
    if run.ledger.options.replace && !run.ledger.archive_received {
        clear(run).await?;
    }
    for attempt in 1.. {
        if run.ledger.archive_received {
            break;
        }
        let request = request(run);
        let running = run.live.start(End::Source, "pg_dump: the schema".into());
        let sent = {
            let source = run.ends.source.clone();
            retry(&run.reporter, "sending the schema", || {
                let (mut source, request) = (source.clone(), request.clone());
                async move {
                    // A lock that cannot be had needs another snapshot, not another try.
                    let sent = source.send_archive(request).await;
                    match sent {
                        Err(status) if status.code() == Code::Aborted => Ok(Err(status)),
                        other => other.map(Ok),
                    }
                }
            })
            .await
            .map_err(said("source"))?
        };
        drop(running);
        match sent {
            Ok(_) => run.refresh_ledger().await?,
            Err(status) if attempt < SNAPSHOTS => {
                run.reporter
                    .note(format!("{}; opening another snapshot", status.message()));
                snapshot::renew(run).await?;
            }
            Err(status) => return Err(said("source")(status)),
        }
    }
    steps::in_order(run, Phase::Schema).await?;
    run.dir
        .fetch_artefacts(&mut run.ends.target, &run.ledger.id)
        .await
}

/// What was in the target goes: the plan is written, and a backup is made unless it was not wanted.
async fn clear(run: &mut Run) -> anyhow::Result<()> {
    let running = run
        .live
        .start(End::Target, "dropping what is replaced".into());
    let request = wire::ClearRequest {
        migration: run.ledger.id.clone(),
    };
    let cleared = run.ends.target.clear(request).await;
    drop(running);
    let removed = cleared.map_err(said("target"))?.into_inner().removed;
    run.reporter
        .note(format!("{} objects are dropped", removed.len()));
    Ok(())
}
