//! Reads the target's tables back: digests, the pairs of a difference, single rows.
//!
//! Invariant 3 (proof by re-reading): nothing here knows what was sent.
use std::path::Path;
use std::sync::Arc;

use pgconvoy_agent_core::narrow;
use pgconvoy_agent_core::progress::Counters;
use pgconvoy_agent_core::scan;
use pgconvoy_agent_core::snapshot::{Scope, Snapshot};
use pgconvoy_proto::model::{Buckets, Place, Table, TableDigest, bucket_count, required};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::target_digest_request::Keep;
use tokio::sync::mpsc;
use tonic::Status;

use crate::ledger;
use crate::sessions::{Purpose, Sessions, application_name};

/// Digests a table, and records that in the ledger where that is asked for.
pub async fn table(
    sessions: &Sessions,
    request: wire::TargetDigestRequest,
    counters: &Arc<Counters>,
) -> Result<TableDigest, Status> {
    let migration = &request.migration;
    let buckets = bucket_count(request.buckets)?;
    let session = sessions.take(migration, Purpose::Plain).await?;
    let keep = request.keep();
    let table = match request.planned {
        Some(table) => table.try_into()?,
        None => {
            ledger::table(&session, migration, request.table)
                .await?
                .table
        }
    };
    let jobs = request.jobs as usize;
    let digest = if scan::is_read_whole(&table, jobs) {
        scan::digest_whole(&session, &table, buckets, counters).await?
    } else {
        let snapshot = snapshot(sessions, migration, &table).await?;
        scan::digest(&snapshot, &table, buckets, jobs, counters).await?
    };
    if keep != Keep::Unspecified {
        ledger::write::target_digest(&session, migration, table.oid, digest.digest, keep).await?;
    }
    sessions.give_back(migration, Purpose::Plain, session);
    Ok(digest)
}

/// Sends the sorted pairs of the rows in some buckets of a table. `folder` takes the temporary file.
pub async fn pairs(
    sessions: Sessions,
    request: wire::TargetPairsRequest,
    folder: impl AsRef<Path>,
    events: mpsc::Sender<Result<wire::PairsEvent, Status>>,
) -> Result<(), Status> {
    let buckets: Buckets = required(request.buckets, "buckets")?.try_into()?;
    let table = planned(&sessions, &request.migration, request.table).await?;
    let snapshot = snapshot(&sessions, &request.migration, &table).await?;
    let jobs = request.jobs as usize;
    narrow::send_pairs(&snapshot, &table, &buckets, jobs, folder.as_ref(), events).await
}

/// Sends single rows of a table.
pub async fn rows(
    sessions: Sessions,
    request: wire::TargetRowsRequest,
    rows: mpsc::Sender<Result<wire::RowValues, Status>>,
) -> Result<(), Status> {
    let migration = &request.migration;
    let table = planned(&sessions, migration, request.table).await?;
    let places: Result<Vec<Place>, _> = request.places.into_iter().map(TryInto::try_into).collect();
    let session = sessions.take(migration, Purpose::Plain).await?;
    narrow::send_rows(&session, &table, &places?, request.show_values, &rows).await?;
    sessions.give_back(migration, Purpose::Plain, session);
    Ok(())
}

async fn planned(sessions: &Sessions, migration: &str, oid: u32) -> Result<Table, Status> {
    let session = sessions.take(migration, Purpose::Plain).await?;
    let table = ledger::table(&session, migration, oid).await?.table;
    sessions.give_back(migration, Purpose::Plain, session);
    Ok(table)
}

pub async fn snapshot(
    sessions: &Sessions,
    migration: &str,
    table: &Table,
) -> Result<Snapshot, Status> {
    let scope = Scope::Named(vec![table.clone()]);
    Ok(Snapshot::open(
        &sessions.database(migration),
        &application_name(migration),
        &scope,
    )
    .await?)
}
