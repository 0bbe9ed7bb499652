//! The target's RPCs: each decodes, calls the plain work, and encodes.
use std::path::PathBuf;
use std::sync::Arc;

use pgconvoy_agent_core::progress::{Counters, TaskStream};
use pgconvoy_agent_core::storage;
use pgconvoy_agent_core::{access, check, count, describe, holdings};
use pgconvoy_proto::facts::BuiltIn;
use pgconvoy_proto::identity::Role;
use pgconvoy_proto::model::{Ask, object, parse_json, required, to_json};
use pgconvoy_proto::serve::admit;
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::digest_progress::Event;
use pgconvoy_proto::wire::target_server::Target;
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

use crate::backup::Vault;
use crate::objects::Home;
use crate::sessions::Purpose;
use crate::steps::Runner;
use crate::{
    artefacts, clean, digest, drive, empty, facts, furnish, health, integrity, ledger, load,
    objects, rehearsal, reprint, rollback, survey, sync,
};

pub struct Service {
    pub runner: Runner,
    pub vault: Vault,
    pub home: Home,
    pub pg_bin: Option<PathBuf>,
    /// For temporary files too.
    pub data_dir: PathBuf,
}

impl Service {
    fn means(&self) -> rollback::Means<'_> {
        rollback::Means {
            sessions: &self.runner.sessions,
            store: &self.runner.store,
            vault: &self.vault,
            home: &self.home,
        }
    }
}

/// Commands come from the coordinator.
fn command<T>(request: Request<T>) -> Result<T, Status> {
    admit(&request, &[Role::Coordinator])?;
    Ok(request.into_inner())
}

/// Rows and the archive come from the source agent.
fn pushed<T>(request: Request<Streaming<T>>) -> Result<Streaming<T>, Status> {
    admit(&request, &[Role::Source])?;
    Ok(request.into_inner())
}

#[tonic::async_trait]
impl Target for Service {
    async fn facts(
        &self,
        request: Request<wire::TargetFactsRequest>,
    ) -> Result<Response<wire::TargetFactsResponse>, Status> {
        let managed = command(request)?.managed_schemas;
        let database = &self.runner.sessions.live;
        let facts = facts::gather(database, self.pg_bin.as_deref(), &managed).await?;
        Ok(Response::new(wire::TargetFactsResponse {
            facts: to_json(&facts),
        }))
    }

    async fn survey(
        &self,
        request: Request<wire::TargetSurveyRequest>,
    ) -> Result<Response<wire::TargetSurveyResponse>, Status> {
        command(request)?;
        let survey = survey::gather(&self.runner.sessions.live, &self.data_dir).await?;
        Ok(Response::new(wire::TargetSurveyResponse {
            survey: to_json(&survey),
        }))
    }

    async fn health(
        &self,
        request: Request<wire::HealthRequest>,
    ) -> Result<Response<wire::HealthResponse>, Status> {
        command(request)?;
        let health = health::gather(&self.runner.sessions.live).await?;
        Ok(Response::new(wire::HealthResponse {
            health: to_json(&health),
        }))
    }

    async fn unknown(
        &self,
        request: Request<wire::UnknownRequest>,
    ) -> Result<Response<wire::UnknownResponse>, Status> {
        let built_ins: Vec<BuiltIn> = parse_json(&command(request)?.built_ins)?;
        let positions = facts::unknown(&self.runner.sessions.live, &built_ins).await?;
        Ok(Response::new(wire::UnknownResponse {
            positions: positions.into_iter().map(|at| at as u32).collect(),
        }))
    }

    async fn probe(
        &self,
        request: Request<Streaming<wire::ProbeRequest>>,
    ) -> Result<Response<wire::ProbeResponse>, Status> {
        let mut frames = pushed(request)?;
        let mut bytes = 0;
        while let Some(frame) = frames.next().await {
            bytes += frame?.data.len() as u64;
        }
        Ok(Response::new(wire::ProbeResponse { bytes }))
    }

    async fn create_migration(
        &self,
        request: Request<Streaming<wire::PlanItem>>,
    ) -> Result<Response<wire::CreateMigrationResponse>, Status> {
        let items = command(request)?;
        ledger::write::create(&self.runner.sessions, items).await?;
        Ok(Response::new(wire::CreateMigrationResponse {}))
    }

    type ReadLedgerStream = TaskStream<wire::LedgerItem>;

    async fn read_ledger(
        &self,
        request: Request<wire::ReadLedgerRequest>,
    ) -> Result<Response<Self::ReadLedgerStream>, Status> {
        let migration = command(request)?.migration;
        let session = self
            .runner
            .sessions
            .database(&migration)
            .connect("pgconvoy status")
            .await?;
        let target = self.runner.sessions.database(&migration).describe();
        let store = self.runner.store.clone();
        Ok(Response::new(TaskStream::new(|items| async move {
            ledger::read::send(&session, &store, &migration, &target, &items).await
        })))
    }

    type DriveStream = TaskStream<wire::DriveGranted>;

    async fn drive(
        &self,
        request: Request<wire::DriveRequest>,
    ) -> Result<Response<Self::DriveStream>, Status> {
        let request = command(request)?;
        let sessions = self.runner.sessions.clone();
        Ok(Response::new(TaskStream::new(|granted| {
            drive::drive(sessions, request.migration, request.driver, granted)
        })))
    }

    async fn receive_archive(
        &self,
        request: Request<Streaming<wire::ArchiveFrame>>,
    ) -> Result<Response<wire::ReceiveArchiveResponse>, Status> {
        let (migration, bytes) = self.runner.store.receive(pushed(request)?).await?;
        let session = self
            .runner
            .sessions
            .take(&migration, Purpose::Plain)
            .await?;
        ledger::write::archive_received(&session, &migration).await?;
        self.runner
            .sessions
            .give_back(&migration, Purpose::Plain, session);
        Ok(Response::new(wire::ReceiveArchiveResponse { bytes }))
    }

    async fn load_part(
        &self,
        request: Request<Streaming<wire::PartFrame>>,
    ) -> Result<Response<wire::PartReceipt>, Status> {
        let frames = pushed(request)?;
        Ok(Response::new(
            load::load_part(&self.runner.sessions, frames).await?,
        ))
    }

    async fn plan_sync(
        &self,
        request: Request<wire::PlanSyncRequest>,
    ) -> Result<Response<wire::PlanSyncResponse>, Status> {
        let findings = sync::plan(&self.runner.sessions, command(request)?).await?;
        let findings = findings.into_iter().map(Into::into).collect();
        Ok(Response::new(wire::PlanSyncResponse { findings }))
    }

    type SyncTableStream = TaskStream<wire::SyncAnswer>;

    async fn sync_table(
        &self,
        request: Request<Streaming<wire::SyncFrame>>,
    ) -> Result<Response<Self::SyncTableStream>, Status> {
        let frames = pushed(request)?;
        let (sessions, folder) = (self.runner.sessions.clone(), self.data_dir.clone());
        Ok(Response::new(TaskStream::new(|answers| {
            sync::sync_table(sessions, folder, frames, answers)
        })))
    }

    async fn check_keys(
        &self,
        request: Request<wire::CheckKeysRequest>,
    ) -> Result<Response<wire::CheckKeysResponse>, Status> {
        let findings = sync::check_keys(&self.runner.sessions, command(request)?).await?;
        let findings = findings.into_iter().map(Into::into).collect();
        Ok(Response::new(wire::CheckKeysResponse { findings }))
    }

    async fn run_steps(
        &self,
        request: Request<wire::RunStepsRequest>,
    ) -> Result<Response<wire::RunStepsResponse>, Status> {
        let request = command(request)?;
        let findings = Box::pin(self.runner.run(&request.migration, &request.steps)).await?;
        let findings = findings.into_iter().map(Into::into).collect();
        Ok(Response::new(wire::RunStepsResponse { findings }))
    }

    async fn empty_table(
        &self,
        request: Request<wire::EmptyTableRequest>,
    ) -> Result<Response<wire::EmptyTableResponse>, Status> {
        let request = command(request)?;
        let session = self
            .runner
            .sessions
            .take(&request.migration, Purpose::Load)
            .await?;
        empty::empty_table(&session, &request.migration, request.table).await?;
        self.runner
            .sessions
            .give_back(&request.migration, Purpose::Load, session);
        Ok(Response::new(wire::EmptyTableResponse {}))
    }

    type DigestTableStream = TaskStream<wire::DigestProgress>;

    async fn digest_table(
        &self,
        request: Request<wire::TargetDigestRequest>,
    ) -> Result<Response<Self::DigestTableStream>, Status> {
        let request = command(request)?;
        let sessions = self.runner.sessions.clone();
        let counters = Arc::new(Counters::default());
        let seen = counters.clone();
        Ok(Response::new(TaskStream::with_progress(
            counters,
            |progress| wire::DigestProgress {
                event: Some(Event::Progress(progress.into())),
            },
            async move {
                let digest = digest::table(&sessions, request, &seen).await?;
                Ok(wire::DigestProgress {
                    event: Some(Event::Done(digest.into())),
                })
            },
        )))
    }

    type ReadPairsStream = TaskStream<wire::PairsEvent>;

    async fn read_pairs(
        &self,
        request: Request<wire::TargetPairsRequest>,
    ) -> Result<Response<Self::ReadPairsStream>, Status> {
        let request = command(request)?;
        let (sessions, folder) = (self.runner.sessions.clone(), self.data_dir.clone());
        Ok(Response::new(TaskStream::new(|events| {
            digest::pairs(sessions, request, folder, events)
        })))
    }

    type ReadRowsStream = TaskStream<wire::RowValues>;

    async fn read_rows(
        &self,
        request: Request<wire::TargetRowsRequest>,
    ) -> Result<Response<Self::ReadRowsStream>, Status> {
        let request = command(request)?;
        let sessions = self.runner.sessions.clone();
        Ok(Response::new(TaskStream::new(|rows| {
            digest::rows(sessions, request, rows)
        })))
    }

    async fn run_check(
        &self,
        request: Request<wire::CheckRequest>,
    ) -> Result<Response<wire::CheckResponse>, Status> {
        let ask = Ask::try_from(command(request)?)?;
        let session = check::begin(&self.runner.sessions.live).await?;
        let answer = check::run(session, &ask).await?;
        Ok(Response::new(answer.into()))
    }

    async fn rights(
        &self,
        request: Request<wire::RightsRequest>,
    ) -> Result<Response<wire::RightsResponse>, Status> {
        let request = command(request)?;
        let asked = parse_json(&request.asked)?;
        let database = self.runner.sessions.database(&request.migration);
        let rights = access::rights(access::begin(&database).await?, &asked).await?;
        Ok(Response::new(wire::RightsResponse {
            rights: to_json(&rights),
        }))
    }

    async fn probe_access(
        &self,
        request: Request<wire::ProbeAccessRequest>,
    ) -> Result<Response<wire::ProbeAccessResponse>, Status> {
        let request = command(request)?;
        let asked = parse_json(&request.asked)?;
        let database = self.runner.sessions.database(&request.migration);
        let probed = access::probe(access::begin(&database).await?, &asked).await?;
        Ok(Response::new(wire::ProbeAccessResponse {
            probed: to_json(&probed),
        }))
    }

    async fn count_rows(
        &self,
        request: Request<wire::CountRequest>,
    ) -> Result<Response<wire::CountResponse>, Status> {
        let table = required(command(request)?.table, "table")?.try_into()?;
        let database = &self.runner.sessions.live;
        let session = database.connect("pgconvoy verify").await?;
        let rows = count::rows(&session, &table).await?;
        Ok(Response::new(wire::CountResponse { rows }))
    }

    async fn check_integrity(
        &self,
        request: Request<wire::IntegrityRequest>,
    ) -> Result<Response<wire::IntegrityResponse>, Status> {
        let selections = command(request)?.selections.into_iter().map(Into::into);
        let database = &self.runner.sessions.live;
        let found = integrity::check(database, selections.collect()).await?;
        Ok(Response::new(found))
    }

    type DescribeStream = TaskStream<wire::DescribeItem>;

    async fn describe(
        &self,
        request: Request<wire::DescribeRequest>,
    ) -> Result<Response<Self::DescribeStream>, Status> {
        let request = command(request)?;
        let database = self.runner.sessions.database(&request.migration);
        Ok(Response::new(TaskStream::new(|items| {
            describe::describe(database, request, items)
        })))
    }

    type HoldingsStream = TaskStream<wire::HoldingsResponse>;

    async fn holdings(
        &self,
        request: Request<wire::HoldingsRequest>,
    ) -> Result<Response<Self::HoldingsStream>, Status> {
        let request = command(request)?;
        let database = self.runner.sessions.database(&request.migration);
        Ok(Response::new(TaskStream::new(|pieces| {
            holdings::send(database, request, pieces)
        })))
    }

    async fn reprint(
        &self,
        request: Request<wire::ReprintRequest>,
    ) -> Result<Response<wire::ReprintResponse>, Status> {
        let request = command(request)?;
        let asked = request.definitions.into_iter().map(Into::into);
        let database = &self.runner.sessions.database(&request.migration);
        let printed = reprint::reprint(database, asked.collect()).await?;
        let definitions = printed.into_iter().map(Into::into).collect();
        Ok(Response::new(wire::ReprintResponse { definitions }))
    }

    async fn record(
        &self,
        request: Request<wire::RecordRequest>,
    ) -> Result<Response<wire::RecordResponse>, Status> {
        let request = command(request)?;
        let migration = request.migration.clone();
        let session = self
            .runner
            .sessions
            .take(&migration, Purpose::Plain)
            .await?;
        let written = ledger::write::record(&session, request).await?;
        self.runner
            .sessions
            .give_back(&migration, Purpose::Plain, session);
        Ok(Response::new(wire::RecordResponse {
            not_written: !written,
        }))
    }

    type ArtefactsStream = TaskStream<wire::Artefact>;

    async fn artefacts(
        &self,
        request: Request<wire::ArtefactsRequest>,
    ) -> Result<Response<Self::ArtefactsStream>, Status> {
        let migration = command(request)?.migration;
        let session = self
            .runner
            .sessions
            .database(&migration)
            .connect("pgconvoy artefacts")
            .await?;
        let runner = self.runner.clone();
        Ok(Response::new(TaskStream::new(|out| {
            artefacts::send(runner, session, migration, out)
        })))
    }

    async fn clean(
        &self,
        request: Request<wire::CleanRequest>,
    ) -> Result<Response<wire::CleanResponse>, Status> {
        let migration = command(request)?.migration;
        let Runner { sessions, store } = &self.runner;
        let session = sessions.database(&migration);
        let session = session.connect("pgconvoy clean").await?;
        let cleaned = clean::clean(&session, sessions, store, &migration).await?;
        let mut removed = cleaned.removed;
        if migration.is_empty() {
            removed.extend(rehearsal::clear(&self.runner).await?);
        }
        Ok(Response::new(wire::CleanResponse {
            removed,
            kept: cleaned.kept,
        }))
    }

    async fn rollback(
        &self,
        request: Request<wire::RollbackRequest>,
    ) -> Result<Response<wire::RollbackResponse>, Status> {
        let wire::RollbackRequest {
            migration,
            force,
            backup,
        } = command(request)?;
        let asked = rollback::Asked {
            migration,
            force,
            backup,
        };
        let done = Box::pin(rollback::roll_back(&self.means(), &asked)).await?;
        Ok(Response::new(wire::RollbackResponse {
            removed: done.removed,
            kept: done.kept,
            findings: done.findings.into_iter().map(Into::into).collect(),
        }))
    }

    async fn backup(
        &self,
        request: Request<wire::BackupRequest>,
    ) -> Result<Response<wire::BackupResponse>, Status> {
        let id = command(request)?.id;
        let database = &self.runner.sessions.live;
        let (manifest, folder) = Box::pin(self.vault.make(database, &id)).await?;
        Ok(Response::new(wire::BackupResponse {
            folder,
            bytes: manifest.bytes,
            tables: manifest.rows.len() as u64,
            rows: manifest.rows.iter().map(|(_, digest)| digest.rows).sum(),
            digest: manifest.digest,
        }))
    }

    async fn clear(
        &self,
        request: Request<wire::ClearRequest>,
    ) -> Result<Response<wire::ClearResponse>, Status> {
        let migration = command(request)?.migration;
        let removed = Box::pin(rollback::clear(&self.means(), &migration)).await?;
        Ok(Response::new(wire::ClearResponse { removed }))
    }

    async fn open_rehearsal(
        &self,
        request: Request<wire::OpenRehearsalRequest>,
    ) -> Result<Response<wire::OpenRehearsalResponse>, Status> {
        let wire::OpenRehearsalRequest {
            migration,
            managed_schemas,
            extensions,
        } = command(request)?;
        let removed = rehearsal::clear(&self.runner).await?;
        let sessions = &self.runner.sessions;
        let database = rehearsal::open(sessions, &migration).await?;
        let scratch = sessions.database(&migration);
        furnish::furnish(
            &sessions.live,
            &scratch,
            &managed_schemas,
            self.pg_bin.as_deref(),
            &self.data_dir,
        )
        .await?;
        let refused = furnish::refused(&scratch, &extensions).await?.into_iter();
        Ok(Response::new(wire::OpenRehearsalResponse {
            database,
            removed,
            refused: refused
                .map(|(name, reason)| wire::RefusedExtension { name, reason })
                .collect(),
        }))
    }

    async fn close_rehearsal(
        &self,
        request: Request<wire::CloseRehearsalRequest>,
    ) -> Result<Response<wire::CloseRehearsalResponse>, Status> {
        let migration = command(request)?.migration;
        rehearsal::close(&self.runner, &migration).await?;
        Ok(Response::new(wire::CloseRehearsalResponse {}))
    }

    async fn storage_facts(
        &self,
        request: Request<wire::StorageFactsRequest>,
    ) -> Result<Response<wire::StorageFactsResponse>, Status> {
        command(request)?;
        let facts = storage::facts(self.home.access(), &self.runner.sessions.live).await?;
        Ok(Response::new(wire::StorageFactsResponse {
            facts: to_json(&facts),
        }))
    }

    type ListObjectsStream = TaskStream<wire::TargetObjects>;

    async fn list_objects(
        &self,
        request: Request<wire::TargetObjectsRequest>,
    ) -> Result<Response<Self::ListObjectsStream>, Status> {
        let request = command(request)?;
        let sessions = self.runner.sessions.clone();
        Ok(Response::new(TaskStream::new(|out| {
            objects::list(sessions, request, out)
        })))
    }

    async fn put_object(
        &self,
        request: Request<Streaming<wire::ObjectFrame>>,
    ) -> Result<Response<wire::ObjectReceipt>, Status> {
        let frames = pushed(request)?;
        let sessions = &self.runner.sessions;
        let receipt = Box::pin(objects::put(sessions, &self.home, frames)).await?;
        Ok(Response::new(receipt))
    }

    async fn remove_objects(
        &self,
        request: Request<wire::RemoveObjectsRequest>,
    ) -> Result<Response<wire::RemoveObjectsResponse>, Status> {
        let request = command(request)?;
        let asked = object::objects(request.objects)?;
        let sessions = &self.runner.sessions;
        objects::remove(sessions, &self.home, &request.migration, &asked).await?;
        Ok(Response::new(wire::RemoveObjectsResponse {}))
    }

    type ReadObjectsStream = TaskStream<wire::ReadObjectsEvent>;

    async fn read_objects(
        &self,
        request: Request<wire::ReadObjectsRequest>,
    ) -> Result<Response<Self::ReadObjectsStream>, Status> {
        let request = command(request)?;
        let storage = self.home.access().ready()?.clone();
        let sessions = self.runner.sessions.clone();
        let asked = object::objects(request.objects)?;
        Ok(Response::new(TaskStream::new(|events| async move {
            let migration = request.migration;
            let session = sessions.take(&migration, Purpose::Plain).await?;
            let (session, of) = (&session, &migration);
            let keep =
                |object, read| async move { objects::keep_read(session, of, &object, read).await };
            storage::read_objects(&storage, asked, events, keep).await
        })))
    }
}
