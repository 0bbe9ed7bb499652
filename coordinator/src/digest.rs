//! Digests: each agent computes its own, of its own database; here they are asked for and compared.
//!
//! Invariant 3 (proof by re-reading): the target's digest is never taken from what was sent.
use std::sync::Arc;

use pgconvoy_proto::model::{Digest, Finding, Severity, Table, TableDigest, required};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::digest_progress::Event as DigestEvent;
use pgconvoy_proto::wire::target_digest_request::Keep;
use tokio_stream::StreamExt;
use tonic::{Status, Streaming};

use crate::ends::{Ends, retry, said};
use crate::events::{Event, Reporter};
use crate::live::{End, Live};
use crate::phases::Run;

/// A table above this size is scanned by several sessions.
const LARGE_BYTES: u64 = 256 << 20;

#[derive(Clone)]
pub struct Digester {
    pub migration: String,
    pub ends: Ends,
    /// Tables at once.
    pub jobs: usize,
    /// That read one large table at one end.
    pub scan_sessions: usize,
    pub reporter: Arc<Reporter>,
    pub live: Arc<Live>,
}

/// A snapshot that the source agent holds, and the key that it holds it for.
#[derive(Clone, Debug)]
pub struct Held {
    pub key: String,
    pub snapshot: String,
}

impl Held {
    /// The migration's, as its ledger knows it.
    pub fn of(run: &Run) -> Self {
        Self {
            key: run.ledger.id.clone(),
            snapshot: run.ledger.snapshot.clone(),
        }
    }
}

impl Digester {
    pub fn of(run: &Run) -> Self {
        Self {
            migration: run.ledger.id.clone(),
            ends: run.ends.clone(),
            jobs: run.effort.streams,
            scan_sessions: run.effort.scan_sessions,
            reporter: run.reporter.clone(),
            live: run.live.clone(),
        }
    }

    pub fn sessions_for(&self, table: &Table) -> u32 {
        if table.size_bytes > LARGE_BYTES {
            self.scan_sessions as u32
        } else {
            1
        }
    }

    /// Has the target agent read the table. `buckets`: how many to sum, 0 for none.
    pub async fn target(
        &self,
        table: &Table,
        buckets: u32,
        keep: Keep,
    ) -> anyhow::Result<TableDigest> {
        let what = format!("digest of {table} at the target");
        let _running = self.live.start(End::Target, format!("digest {table}"));
        retry(&self.reporter, &what, || {
            let mut target = self.ends.target.clone();
            let request = wire::TargetDigestRequest {
                migration: self.migration.clone(),
                table: table.oid,
                jobs: self.sessions_for(table),
                buckets,
                keep: keep.into(),
                planned: (keep == Keep::Unspecified).then(|| table.clone().into()),
            };
            async move { last(target.digest_table(request).await?.into_inner()).await }
        })
        .await
        .map_err(said("target"))
    }

    /// Has the source agent read the table under a snapshot that it holds.
    pub async fn source(
        &self,
        held: &Held,
        table: &Table,
        buckets: u32,
    ) -> anyhow::Result<TableDigest> {
        let what = format!("digest of {table} at the source");
        let _running = self.live.start(End::Source, format!("digest {table}"));
        retry(&self.reporter, &what, || {
            let mut source = self.ends.source.clone();
            let request = wire::SourceDigestRequest {
                migration: held.key.clone(),
                snapshot: held.snapshot.clone(),
                table: Some(table.clone().into()),
                jobs: self.sessions_for(table),
                buckets,
            };
            async move { last(source.digest_table(request).await?.into_inner()).await }
        })
        .await
        .map_err(said("source"))
    }
}

async fn last(mut events: Streaming<wire::DigestProgress>) -> Result<TableDigest, Status> {
    while let Some(event) = events.next().await {
        match required(event?.event, "event")? {
            DigestEvent::Progress(_) => {}
            DigestEvent::Done(digest) => return Ok(digest.try_into()?),
        }
    }
    Err(Status::unavailable("the stream ended before the digest"))
}

/// A finding when the two differ.
pub fn compare(
    reporter: &Reporter,
    table: &Table,
    source: Digest,
    target: Digest,
) -> Option<Finding> {
    let equal = source == target;
    reporter.emit(&Event::Verified {
        table: table.to_string(),
        rows: target.rows,
        digest: target.hex(),
        equal,
    });
    if equal {
        return None;
    }
    let what = if source.rows == target.rows {
        format!("{} rows at both ends, with different contents", source.rows)
    } else {
        format!(
            "{} rows at the source, {} at the target",
            source.rows, target.rows
        )
    };
    Some(
        Finding::new(Severity::Difference, "rows-differ", table.to_string(), what)
            .values(source.hex(), target.hex())
            .hint("the application may have written to one of the two since the copy"),
    )
}

/// A finding when generated columns differ although what they are computed from does not.
pub fn compare_generated(
    table: &Table,
    source: &TableDigest,
    target: &TableDigest,
) -> Option<Finding> {
    let differ = source.digest == target.digest && source.generated != target.generated;
    differ.then(|| {
        Finding::new(
            Severity::Difference,
            "generated-differ",
            table.to_string(),
            format!(
                "generated columns ({}) have other values, computed from the same",
                table.generated.join(", ")
            ),
        )
        .values(source.generated.hex(), target.generated.hex())
        .hint("does their expression depend on a function that differs between the two ends?")
    })
}
