//! Brings one table of the target to what the source has under a snapshot: both ends scan it, and where they differ the source agent sends the
//! target agent what is missing (see Target.SyncTable). For `sync`, and for a resumed copy whose rows are of several snapshots.
use pgconvoy_proto::model::{Buckets, Progress, SyncCounts, Table, TableDigest, required};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::sync_table_event::Event;
use pgconvoy_proto::wire::target_digest_request::Keep;
use tokio_stream::StreamExt;
use tonic::{Code, Status};

use crate::digest::{Digester, Held};
use crate::ends::{retry, said};
use crate::live::End;
use crate::narrow;

/// Beyond so many rows in the buckets that differ the table is copied again whole: each agent would sort 4.6 GB of pairs on disk.
const MOST_ROWS: u64 = 100_000_000;

#[derive(Clone)]
pub struct Converger {
    pub digester: Digester,
    pub held: Held,
    /// As [`pgconvoy_proto::frame::Sealer::new`] takes it.
    pub compression: i32,
    pub dry_run: bool,
}

/// A table as both ends have it.
#[derive(Clone, Debug)]
pub struct Scanned {
    pub table: Table,
    /// Without buckets, both.
    pub source: TableDigest,
    pub target: TableDigest,
    /// Where they differ; none: in too much of the table to look at its rows.
    buckets: Option<Buckets>,
}

impl Scanned {
    pub fn is_equal(&self) -> bool {
        self.source.digest == self.target.digest
    }

    /// The same without a look at its rows.
    pub fn to_be_copied(&self) -> Self {
        Self {
            buckets: None,
            ..self.clone()
        }
    }
}

/// What was done for a table.
#[derive(Clone, Copy, Debug, Default)]
pub struct Synced {
    pub counts: SyncCounts,
    /// Pairs and rows, after compression.
    pub wire_bytes: u64,
}

impl Converger {
    /// Both ends scan at once.
    pub async fn scan(&self, table: Table) -> anyhow::Result<Scanned> {
        let buckets = narrow::buckets_for(&table);
        let (source, target) = tokio::try_join!(
            self.digester.source(&self.held, &table, buckets),
            self.digester.target(&table, buckets, Keep::Unspecified)
        )?;
        let differing = Buckets::differing(&source.buckets, &target.buckets);
        let rows = source.digest.rows.max(target.digest.rows);
        let affected = rows / u64::from(differing.count.max(1)) * u64::from(differing.len());
        Ok(Scanned {
            table,
            source: without_buckets(source),
            target: without_buckets(target),
            buckets: (affected <= MOST_ROWS).then_some(differing),
        })
    }

    /// Makes the target's table the source's; with `dry_run` only counts.
    pub async fn sync(&self, scanned: &Scanned) -> anyhow::Result<Synced> {
        self.call(scanned).await.map_err(said("source"))
    }

    /// The same; a row that was refused, which may be for as long only as other tables are not synced, is no error but a reason.
    pub async fn try_sync(&self, scanned: &Scanned) -> anyhow::Result<Result<Synced, String>> {
        match self.call(scanned).await {
            Ok(synced) => Ok(Ok(synced)),
            Err(status) if status.code() == Code::OutOfRange => {
                Ok(Err(status.message().to_owned()))
            }
            Err(status) => Err(said("source")(status)),
        }
    }

    async fn call(&self, scanned: &Scanned) -> Result<Synced, Status> {
        let digester = &self.digester;
        let what = format!("sync of {}", scanned.table);
        let _source = digester.live.start(End::Source, what.clone());
        let _target = digester.live.start(End::Target, what.clone());
        retry(&digester.reporter, &what, || self.attempt(scanned)).await
    }

    async fn attempt(&self, scanned: &Scanned) -> Result<Synced, Status> {
        let digester = &self.digester;
        let request = wire::SourceSyncRequest {
            migration: self.held.key.clone(),
            snapshot: self.held.snapshot.clone(),
            target: digester.ends.target_address.clone(),
            table: Some(scanned.table.clone().into()),
            source: Some(scanned.source.digest.into()),
            buckets: scanned.buckets.clone().map(Into::into),
            target_rows: scanned.target.digest.rows,
            jobs: digester.sessions_for(&scanned.table),
            dry_run: self.dry_run,
            compression: self.compression,
        };
        let mut source = digester.ends.source.clone();
        let mut events = source.sync_table(request).await?.into_inner();
        let mut counted = digester.live.count();
        while let Some(event) = events.next().await {
            match required(event?.event, "event")? {
                // Rows that are read to be compared are not rows that are copied.
                Event::Progress(progress) => counted.set(Progress {
                    wire_bytes: progress.wire_bytes,
                    ..Progress::default()
                }),
                Event::Done(done) => {
                    counted.keep();
                    return Ok(Synced {
                        counts: required(done.counts, "counts")?.try_into()?,
                        wire_bytes: done.wire_bytes,
                    });
                }
            }
        }
        Err(Status::unavailable(
            "the stream ended before the table was synced",
        ))
    }
}

fn without_buckets(read: TableDigest) -> TableDigest {
    TableDigest {
        buckets: Vec::new(),
        ..read
    }
}
