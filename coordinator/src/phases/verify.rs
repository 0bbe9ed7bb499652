//! Verification: the digests that each agent computed from its own database, compared.
//!
//! Invariant 3 (proof by re-reading): the target's digest is never taken from what was sent. The source's is that of the copy's own
//! scan at the snapshot.
use std::sync::Arc;

use anyhow::anyhow;
use pgconvoy_proto::model::{Digest, Finding, Severity, Table, required};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::digest_progress::Event as DigestEvent;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::{Status, Streaming};

use super::{Run, steps};
use crate::ends::{Ends, retry, said};
use crate::events::{Event, Reporter};
use crate::live::{End, Live};

/// A table above this size is scanned by several sessions.
const LARGE_BYTES: u64 = 256 << 20;

#[derive(Clone)]
pub struct Digester {
    pub migration: String,
    pub ends: Ends,
    pub jobs: usize,
    pub reporter: Arc<Reporter>,
    pub live: Arc<Live>,
}

impl Digester {
    pub fn of(run: &Run) -> Self {
        Self {
            migration: run.ledger.id.clone(),
            ends: run.ends.clone(),
            jobs: run.settings.streams,
            reporter: run.reporter.clone(),
            live: run.live.clone(),
        }
    }

    fn jobs_for(&self, table: &Table) -> u32 {
        if table.size_bytes > LARGE_BYTES {
            self.jobs as u32
        } else {
            1
        }
    }

    /// Has the target agent read the table; it records the digest in the ledger.
    pub async fn target(&self, table: &Table) -> anyhow::Result<Digest> {
        let what = format!("digest of {table} at the target");
        let _running = self.live.start(End::Target, format!("digest {table}"));
        retry(&self.reporter, &what, || {
            let mut target = self.ends.target.clone();
            let request = wire::TargetDigestRequest {
                migration: self.migration.clone(),
                table: table.oid,
                jobs: self.jobs_for(table),
            };
            async move { last(target.digest_table(request).await?.into_inner()).await }
        })
        .await
        .map_err(said("target"))
    }

    /// Has the source agent read the table under a snapshot that it holds for `key`.
    pub async fn source(&self, key: &str, snapshot: &str, table: &Table) -> anyhow::Result<Digest> {
        let what = format!("digest of {table} at the source");
        let _running = self.live.start(End::Source, format!("digest {table}"));
        retry(&self.reporter, &what, || {
            let mut source = self.ends.source.clone();
            let request = wire::SourceDigestRequest {
                migration: key.to_owned(),
                snapshot: snapshot.to_owned(),
                table: Some(table.clone().into()),
                jobs: self.jobs_for(table),
            };
            async move { last(source.digest_table(request).await?.into_inner()).await }
        })
        .await
        .map_err(said("source"))
    }
}

async fn last(mut events: Streaming<wire::DigestProgress>) -> Result<Digest, Status> {
    while let Some(event) = events.next().await {
        match required(event?.event, "event")? {
            DigestEvent::Progress(_) => {}
            DigestEvent::Done(digest) => return Ok(digest.into()),
        }
    }
    Err(Status::unavailable("the stream ended before the digest"))
}

/// Digests what is not digested yet, then compares everything in the ledger.
pub async fn run(run: &mut Run) -> anyhow::Result<()> {
    run.refresh_ledger().await?;
    let open: Vec<Table> = run
        .ledger
        .tables
        .iter()
        .filter(|entry| entry.target.is_none())
        .map(|entry| entry.table.clone())
        .collect();
    let digester = Digester::of(run);
    each(open, run.settings.streams, move |table| {
        let digester = digester.clone();
        async move { digester.target(&table).await.map(drop) }
    })
    .await?;
    run.refresh_ledger().await?;
    let mut findings = Vec::new();
    for entry in &run.ledger.tables {
        let target = entry
            .target
            .ok_or_else(|| anyhow!("the ledger has no digest of {}", entry.table))?;
        findings.extend(compare(&run.reporter, &entry.table, entry.source(), target));
    }
    if findings.is_empty() {
        return Ok(());
    }
    run.record_findings(findings).await
}

/// Runs `work` for every table, `jobs` at once.
pub async fn each<F>(
    tables: Vec<Table>,
    jobs: usize,
    work: impl Fn(Table) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let mut workers = JoinSet::new();
    for table in tables {
        if workers.len() >= jobs
            && let Some(ended) = workers.join_next().await
        {
            ended??;
        }
        workers.spawn(work(table));
    }
    steps::join(workers).await
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
