//! The source's RPCs: each decodes, calls the plain work, and encodes.
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::describe;
use pgconvoy_agent_core::progress::{Counters, TaskStream};
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::storage::{self, Access};
use pgconvoy_agent_core::{access, check, count, holdings, narrow, scan, status};
use pgconvoy_proto::identity::{Identity, Role};
use pgconvoy_proto::model::{
    Ask, Buckets, Place, Question, RoleChoice, Selection, Table, bucket_count, object, parse_json,
    required, to_json,
};
use pgconvoy_proto::selection::Unread;
use pgconvoy_proto::serve::admit;
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::source_server::Source;
use pgconvoy_proto::wire::{copy_part_event, digest_progress, sync_table_event};
use tonic::{Request, Response, Status};

use crate::copy::{PartJob, copy_part};
use crate::lanes::{self, Lanes};
use crate::snapshots::Snapshots;
use crate::sync::{SyncJob, sync_table};
use crate::{archive, artefacts, facts, inventory, measure, objects, position, secrets, survey};

pub struct Service {
    database: Database,
    lanes: Lanes,
    snapshots: Snapshots,
    pg_bin: Option<PathBuf>,
    storage: Access,
}

impl Service {
    pub fn new(
        database: Database,
        identity: Identity,
        snapshots: Snapshots,
        pg_bin: Option<PathBuf>,
        storage: Access,
    ) -> Self {
        Self {
            database,
            lanes: Lanes::new(identity),
            snapshots,
            pg_bin,
            storage,
        }
    }
}

impl Service {
    /// Rows of files.
    fn rows_of(
        &self,
        migration: &str,
        snapshot: &str,
        filter: String,
    ) -> Result<objects::Place, Status> {
        let when = match snapshot {
            "" => objects::When::Now(Box::new(self.database.clone())),
            id => objects::When::Under(self.snapshots.get(migration, id)?),
        };
        Ok(objects::Place { when, filter })
    }

    /// A session in a READ ONLY transaction: under the snapshot, where one is named.
    async fn access(&self, migration: &str, snapshot: &str) -> Result<Session, Status> {
        match snapshot {
            "" => access::begin(&self.database).await,
            snapshot => Ok(self.snapshots.get(migration, snapshot)?.unlocked().await?),
        }
    }
}

/// TMPDIR decides where.
fn temporary_files() -> PathBuf {
    std::env::temp_dir()
}

/// Every RPC of the source admits the coordinator only.
fn command<T>(request: Request<T>) -> Result<T, Status> {
    admit(&request, &[Role::Coordinator])?;
    Ok(request.into_inner())
}

#[tonic::async_trait]
impl Source for Service {
    async fn facts(
        &self,
        request: Request<wire::SourceFactsRequest>,
    ) -> Result<Response<wire::SourceFactsResponse>, Status> {
        let request = command(request)?;
        let roles = RoleChoice::try_from(request.roles())?;
        let selection = request.selection.unwrap_or_default().into();
        let (pg_bin, major) = (self.pg_bin.as_deref(), request.target_major);
        let facts = facts::gather(&self.database, pg_bin, &selection, major, roles).await?;
        Ok(Response::new(wire::SourceFactsResponse {
            facts: to_json(&facts),
        }))
    }

    async fn survey(
        &self,
        request: Request<wire::SourceSurveyRequest>,
    ) -> Result<Response<wire::SourceSurveyResponse>, Status> {
        let request = command(request)?;
        let selection = request.selection.unwrap_or_default().into();
        let survey = survey::gather(&self.database, &selection, request.sample_ms).await?;
        Ok(Response::new(wire::SourceSurveyResponse {
            survey: to_json(&survey),
        }))
    }

    async fn measure_link(
        &self,
        request: Request<wire::MeasureLinkRequest>,
    ) -> Result<Response<wire::MeasureLinkResponse>, Status> {
        let request = command(request)?;
        Ok(Response::new(
            lanes::measure(&self.lanes, &request.target).await?,
        ))
    }

    type OpenSnapshotStream = TaskStream<wire::InventoryItem>;

    async fn open_snapshot(
        &self,
        request: Request<wire::OpenSnapshotRequest>,
    ) -> Result<Response<Self::OpenSnapshotStream>, Status> {
        let request = command(request)?;
        let opening = inventory::Opening {
            roles: RoleChoice::try_from(request.roles())?,
            unread: Unread::new(&request.managed_schemas, &request.managed_tables)?,
            migration: request.migration,
            selection: Selection::from(request.selection.unwrap_or_default()),
            lease: (request.lease_seconds > 0)
                .then(|| Duration::from_secs(request.lease_seconds.into())),
        };
        let (database, snapshots) = (self.database.clone(), self.snapshots.clone());
        Ok(Response::new(TaskStream::new(move |items| {
            inventory::open(database, snapshots, opening, items)
        })))
    }

    async fn renew_snapshot(
        &self,
        request: Request<wire::RenewSnapshotRequest>,
    ) -> Result<Response<wire::RenewSnapshotResponse>, Status> {
        let request = command(request)?;
        let gone = |status: Status| Status::not_found(status.message());
        let snapshot = match request.snapshot.as_str() {
            "" => self.snapshots.current(&request.migration),
            id => self.snapshots.get(&request.migration, id),
        };
        let snapshot = snapshot.map_err(gone)?;
        if !snapshot.is_alive().await {
            self.snapshots.close(&request.migration);
            return Err(Status::not_found("the snapshot's transaction has ended"));
        }
        if request.resumable {
            self.snapshots.make_resumable(&request.migration);
        }
        Ok(Response::new(wire::RenewSnapshotResponse {}))
    }

    async fn close_snapshot(
        &self,
        request: Request<wire::CloseSnapshotRequest>,
    ) -> Result<Response<wire::CloseSnapshotResponse>, Status> {
        self.snapshots.close(&command(request)?.migration);
        Ok(Response::new(wire::CloseSnapshotResponse {}))
    }

    async fn send_archive(
        &self,
        request: Request<wire::SendArchiveRequest>,
    ) -> Result<Response<wire::SendArchiveResponse>, Status> {
        let request = command(request)?;
        let snapshot = self.snapshots.current(&request.migration)?;
        let job = archive::Job {
            migration: request.migration,
            target: request.target,
            secrets: secrets::Wanted {
                roles: request.roles,
                database: request.database_settings,
            },
        };
        let bytes = archive::send(
            &self.database,
            self.pg_bin.as_deref(),
            &snapshot,
            &self.lanes,
            job,
        )
        .await?;
        Ok(Response::new(wire::SendArchiveResponse { bytes }))
    }

    type CopyPartStream = TaskStream<wire::CopyPartEvent>;

    async fn copy_part(
        &self,
        request: Request<wire::CopyPartRequest>,
    ) -> Result<Response<Self::CopyPartStream>, Status> {
        use copy_part_event::Event;
        let request = command(request)?;
        let snapshot = self.snapshots.get(&request.migration, &request.snapshot)?;
        let job = PartJob {
            migration: request.migration,
            target: request.target,
            table: required(request.table, "table")?.try_into()?,
            part: required(request.part, "part")?.try_into()?,
            compression: request.compression,
            link_share: request.link_share,
        };
        let counters = Arc::new(Counters::default());
        let copy = copy_part(snapshot, self.lanes.clone(), job, counters.clone());
        let event = |event| wire::CopyPartEvent { event: Some(event) };
        Ok(Response::new(TaskStream::with_progress(
            counters,
            |progress| wire::CopyPartEvent {
                event: Some(Event::Progress(progress.into())),
            },
            async move {
                let (digest, already) = copy.await?;
                Ok(event(Event::Done(wire::PartLoaded {
                    digest: Some(digest.into()),
                    already,
                })))
            },
        )))
    }

    type SyncTableStream = TaskStream<wire::SyncTableEvent>;

    async fn sync_table(
        &self,
        request: Request<wire::SourceSyncRequest>,
    ) -> Result<Response<Self::SyncTableStream>, Status> {
        use sync_table_event::Event;
        let request = command(request)?;
        let snapshot = self.snapshots.get(&request.migration, &request.snapshot)?;
        let job = SyncJob {
            migration: request.migration,
            target: request.target,
            table: required(request.table, "table")?.try_into()?,
            source: required(request.source, "source")?.try_into()?,
            buckets: request.buckets.map(TryInto::try_into).transpose()?,
            target_rows: request.target_rows,
            jobs: request.jobs as usize,
            dry_run: request.dry_run,
            compression: request.compression,
            folder: temporary_files(),
        };
        let counters = Arc::new(Counters::default());
        let sync = sync_table(snapshot, self.lanes.clone(), job, counters.clone());
        let event = |event| wire::SyncTableEvent { event: Some(event) };
        let seen = counters.clone();
        Ok(Response::new(TaskStream::with_progress(
            counters,
            |progress| wire::SyncTableEvent {
                event: Some(Event::Progress(progress.into())),
            },
            async move {
                let (counts, already) = sync.await?;
                Ok(event(Event::Done(wire::TableSynced {
                    counts: Some(counts.into()),
                    wire_bytes: seen.read().wire_bytes,
                    already,
                })))
            },
        )))
    }

    async fn position(
        &self,
        request: Request<wire::PositionRequest>,
    ) -> Result<Response<wire::PositionResponse>, Status> {
        let request = command(request)?;
        let then = self
            .snapshots
            .position(&request.migration, &request.snapshot)?;
        let application = format!("pgconvoy {}", request.migration);
        let session = self.database.connect(&application).await?;
        let since = position::since(&session, &then).await;
        Ok(Response::new(since.map_err(|error| {
            status::postgres("looking at what was written since the snapshot", &error)
        })?))
    }

    type DigestTableStream = TaskStream<wire::DigestProgress>;

    async fn digest_table(
        &self,
        request: Request<wire::SourceDigestRequest>,
    ) -> Result<Response<Self::DigestTableStream>, Status> {
        use digest_progress::Event;
        let request = command(request)?;
        let snapshot = self.snapshots.get(&request.migration, &request.snapshot)?;
        let table = Table::try_from(required(request.table, "table")?)?;
        let buckets = bucket_count(request.buckets)?;
        let counters = Arc::new(Counters::default());
        let seen = counters.clone();
        Ok(Response::new(TaskStream::with_progress(
            counters,
            |progress| wire::DigestProgress {
                event: Some(Event::Progress(progress.into())),
            },
            async move {
                let jobs = request.jobs as usize;
                let digest = scan::digest(&snapshot, &table, buckets, jobs, &seen).await?;
                Ok(wire::DigestProgress {
                    event: Some(Event::Done(digest.into())),
                })
            },
        )))
    }

    type ReadPairsStream = TaskStream<wire::PairsEvent>;

    async fn read_pairs(
        &self,
        request: Request<wire::SourcePairsRequest>,
    ) -> Result<Response<Self::ReadPairsStream>, Status> {
        let request = command(request)?;
        let snapshot = self.snapshots.get(&request.migration, &request.snapshot)?;
        let table = Table::try_from(required(request.table, "table")?)?;
        let buckets = Buckets::try_from(required(request.buckets, "buckets")?)?;
        let jobs = request.jobs as usize;
        let folder = temporary_files();
        Ok(Response::new(TaskStream::new(move |events| async move {
            narrow::send_pairs(&snapshot, &table, &buckets, jobs, &folder, events).await
        })))
    }

    type ReadRowsStream = TaskStream<wire::RowValues>;

    async fn read_rows(
        &self,
        request: Request<wire::SourceRowsRequest>,
    ) -> Result<Response<Self::ReadRowsStream>, Status> {
        let request = command(request)?;
        let snapshot = self.snapshots.get(&request.migration, &request.snapshot)?;
        let table = Table::try_from(required(request.table, "table")?)?;
        let places: Result<Vec<Place>, _> =
            request.places.into_iter().map(Place::try_from).collect();
        let (places, show) = (places?, request.show_values);
        Ok(Response::new(TaskStream::new(move |rows| async move {
            let reader = snapshot.reader(&table).await?;
            narrow::send_rows(&reader, &table, &places, show, &rows).await?;
            Ok(snapshot.give_back(reader).await?)
        })))
    }

    async fn run_check(
        &self,
        request: Request<wire::CheckRequest>,
    ) -> Result<Response<wire::CheckResponse>, Status> {
        let request = command(request)?;
        let session = match request.snapshot.as_str() {
            "" => check::begin(&self.database).await?,
            snapshot => {
                let held = self.snapshots.get(&request.migration, snapshot)?;
                held.unlocked().await?
            }
        };
        let answer = check::run(session, &Ask::try_from(request)?).await?;
        Ok(Response::new(answer.into()))
    }

    async fn sample_users(
        &self,
        request: Request<wire::SampleUsersRequest>,
    ) -> Result<Response<wire::SampleUsersResponse>, Status> {
        let request = command(request)?;
        let asked = parse_json(&request.asked)?;
        let session = self.access(&request.migration, &request.snapshot).await?;
        let sample = access::sample(session, &asked).await?;
        Ok(Response::new(wire::SampleUsersResponse {
            sample: to_json(&sample),
        }))
    }

    async fn rights(
        &self,
        request: Request<wire::RightsRequest>,
    ) -> Result<Response<wire::RightsResponse>, Status> {
        let request = command(request)?;
        let asked = parse_json(&request.asked)?;
        let session = self.access(&request.migration, &request.snapshot).await?;
        let rights = access::rights(session, &asked).await?;
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
        let session = self.access(&request.migration, &request.snapshot).await?;
        let probed = access::probe(session, &asked).await?;
        Ok(Response::new(wire::ProbeAccessResponse {
            probed: to_json(&probed),
        }))
    }

    type ArtefactsStream = TaskStream<wire::Artefact>;

    async fn artefacts(
        &self,
        request: Request<wire::SourceArtefactsRequest>,
    ) -> Result<Response<Self::ArtefactsStream>, Status> {
        let selection = command(request)?.selection.unwrap_or_default().into();
        let database = self.database.clone();
        Ok(Response::new(TaskStream::new(move |out| {
            artefacts::send(database, selection, out)
        })))
    }

    async fn count_rows(
        &self,
        request: Request<wire::CountRequest>,
    ) -> Result<Response<wire::CountResponse>, Status> {
        let request = command(request)?;
        let snapshot = self.snapshots.get(&request.migration, &request.snapshot)?;
        let table = Table::try_from(required(request.table, "table")?)?;
        let reader = snapshot.reader(&table).await?;
        let rows = count::rows(&reader, &table).await?;
        snapshot.give_back(reader).await?;
        Ok(Response::new(wire::CountResponse { rows }))
    }

    async fn measure(
        &self,
        request: Request<wire::MeasureRequest>,
    ) -> Result<Response<wire::MeasureResponse>, Status> {
        let questions: Vec<Question> = parse_json(&command(request)?.questions)?;
        let counted = measure::measure(&self.database, &questions).await?;
        Ok(Response::new(wire::MeasureResponse {
            counted: to_json(&counted),
        }))
    }

    type HoldingsStream = TaskStream<wire::HoldingsResponse>;

    async fn holdings(
        &self,
        request: Request<wire::HoldingsRequest>,
    ) -> Result<Response<Self::HoldingsStream>, Status> {
        let request = command(request)?;
        let database = self.database.clone();
        Ok(Response::new(TaskStream::new(|pieces| {
            holdings::send(database, request, pieces)
        })))
    }

    type DescribeStream = TaskStream<wire::DescribeItem>;

    async fn describe(
        &self,
        request: Request<wire::DescribeRequest>,
    ) -> Result<Response<Self::DescribeStream>, Status> {
        let request = command(request)?;
        let database = self.database.clone();
        Ok(Response::new(TaskStream::new(|items| {
            describe::describe(database, request, items)
        })))
    }

    async fn storage_facts(
        &self,
        request: Request<wire::StorageFactsRequest>,
    ) -> Result<Response<wire::StorageFactsResponse>, Status> {
        command(request)?;
        let facts = storage::facts(&self.storage, &self.database).await?;
        Ok(Response::new(wire::StorageFactsResponse {
            facts: to_json(&facts),
        }))
    }

    type ListObjectsStream = TaskStream<wire::SourceObjects>;

    async fn list_objects(
        &self,
        request: Request<wire::SourceObjectsRequest>,
    ) -> Result<Response<Self::ListObjectsStream>, Status> {
        let request = command(request)?;
        let place = self.rows_of(&request.migration, &request.snapshot, request.filter)?;
        Ok(Response::new(TaskStream::new(|out| {
            objects::list(place, out)
        })))
    }

    type CopyObjectsStream = TaskStream<wire::CopyObjectsEvent>;

    async fn copy_objects(
        &self,
        request: Request<wire::CopyObjectsRequest>,
    ) -> Result<Response<Self::CopyObjectsStream>, Status> {
        let request = command(request)?;
        let storage = self.storage.ready()?.clone();
        let lanes = self.lanes.clone();
        let job = objects::Job {
            place: self.rows_of(&request.migration, &request.snapshot, request.filter)?,
            columns: request.columns,
            migration: request.migration,
            target: request.target,
            objects: object::objects(request.objects)?,
            compression: request.compression,
        };
        Ok(Response::new(TaskStream::new(|events| {
            objects::copy(storage, lanes, job, events)
        })))
    }

    type ReadObjectsStream = TaskStream<wire::ReadObjectsEvent>;

    async fn read_objects(
        &self,
        request: Request<wire::ReadObjectsRequest>,
    ) -> Result<Response<Self::ReadObjectsStream>, Status> {
        let request = command(request)?;
        let storage = self.storage.ready()?.clone();
        let asked = object::objects(request.objects)?;
        Ok(Response::new(TaskStream::new(|events| async move {
            storage::read_objects(&storage, asked, events, |_, _| async { Ok(()) }).await
        })))
    }
}
