//! Verification: the digests that each agent computed from its own database, compared; and so the schemas.
//!
//! Invariant 3 (proof by re-reading): the target's digest is never taken from what was sent. The source's is that of the copy's own
//! scan at the snapshot.
use std::sync::Arc;

use anyhow::anyhow;
use pgconvoy_proto::model::{Digest, Finding, Selection, Severity, Table, TableDigest, required};
use pgconvoy_proto::selection::Filter;
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::digest_progress::Event as DigestEvent;
use pgconvoy_proto::wire::target_digest_request::Keep;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::{Status, Streaming};

use super::{Run, snapshot, steps};
use crate::ends::{Ends, retry, said};
use crate::events::{Event, Reporter};
use crate::inventory;
use crate::left_out::LeftOut;
use crate::live::{End, Live};
use crate::schema::{Question, Sequences, compare_ends};
use crate::{access, checks};

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

impl Digester {
    pub fn of(run: &Run) -> Self {
        Self {
            migration: run.ledger.id.clone(),
            ends: run.ends.clone(),
            jobs: run.settings.streams,
            scan_sessions: run.settings.scan_sessions,
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
    let read = {
        let digester = digester.clone();
        move |table| {
            let digester = digester.clone();
            async move { digester.target(&table, 0, Keep::Left).await.map(drop) }
        }
    };
    each(open, run.settings.streams, read).await?;
    run.refresh_ledger().await?;
    let mut findings = Vec::new();
    for entry in &run.ledger.tables {
        let target = entry
            .target
            .ok_or_else(|| anyhow!("the ledger has no digest of {}", entry.table))?;
        findings.extend(compare(&run.reporter, &entry.table, entry.source(), target));
    }
    findings.extend(generated(run, &digester).await?);
    let held = held(run).await?;
    let differing = findings.clone();
    if !findings.is_empty() {
        run.record_findings(findings).await?;
    }
    if run.ledger.options.storage_objects {
        super::objects::prove(run).await?;
    }
    business_checks(run, held.as_ref()).await?;
    access(run, held.as_ref(), &differing, &Selection::default()).await?;
    if run.ledger.options.skip_schema {
        return Ok(());
    }
    schema(run).await
}

/// The migration's snapshot, as long as it lives.
async fn held(run: &mut Run) -> anyhow::Result<Option<Held>> {
    Ok(snapshot::is_alive(run).await?.then(|| Held {
        key: run.ledger.id.clone(),
        snapshot: run.ledger.snapshot.clone(),
    }))
}

/// Runs the migration's business checks, and writes down what they say in place of what they said before.
pub async fn business_checks(run: &mut Run, held: Option<&Held>) -> anyhow::Result<()> {
    let checks = &run.ledger.options.checks;
    if checks.is_empty() {
        return Ok(());
    }
    let checked = checks::run(&run.ends, checks, held, &run.reporter).await?;
    run.record(checked.entry(&run.ledger)).await
}

/// Has users asked, at both ends, what they may see; `differing`: findings about tables whose rows differ.
pub async fn access(
    run: &mut Run,
    held: Option<&Held>,
    differing: &[Finding],
    selection: &Selection,
) -> anyhow::Result<()> {
    let tenancy = run.ledger.options.tenancy.as_ref();
    if tenancy.is_none_or(|tenancy| tenancy.platform.access.is_none()) {
        return Ok(());
    }
    let compared = match held {
        Some(held) => {
            let chosen = Filter::new(selection)?;
            let tables = run.ledger.tables.iter().map(|entry| &entry.table);
            let tables = tables.filter(|table| chosen.admits(&table.schema, &table.name));
            let tables: Vec<Table> = tables.cloned().collect();
            let whole = selection.covers(&run.ledger.options.selection);
            let asked = access::Asked::new(&run.ledger, &tables, differing, whole);
            access::run(&run.ends, asked, held, &run.reporter).await?
        }
        None => access::Compared::not_looked(
            "what users may see was not compared: the source's snapshot is gone",
        ),
    };
    run.record(compared.entry(&run.ledger)).await
}

/// Everything is built: what is not as at the source now, is not going to be. The snapshot goes first: who waits for its locks stands in
/// the way of whoever else looks at those tables, the source's description among them.
async fn schema(run: &mut Run) -> anyhow::Result<()> {
    inventory::close(&mut run.ends, &run.ledger.id).await?;
    let question = Question {
        ledger: &run.ledger,
        selection: &Selection::default(),
        left_out: LeftOut::by_migration(&run.ledger.options),
        sequences: Sequences::AtSnapshot,
    };
    let compared = compare_ends(&run.ends, &question, &run.reporter).await?;
    for finding in &compared.findings {
        run.reporter.emit(&Event::Finding(finding.clone()));
    }
    run.record(compared.entry()).await
}

/// Compares stored generated columns: they did not cross, so both ends are read for them.
async fn generated(run: &Run, digester: &Digester) -> anyhow::Result<Vec<Finding>> {
    let tables = run.ledger.tables.iter().map(|entry| &entry.table);
    let tables: Vec<&Table> = tables.filter(|t| !t.generated.is_empty()).collect();
    let mut findings = Vec::new();
    if tables.is_empty() {
        return Ok(findings);
    }
    if !snapshot::is_alive(run).await? {
        findings.extend(tables.into_iter().map(|table| {
            let what = "its generated columns were not compared: the snapshot is gone";
            Finding::new(
                Severity::Info,
                "generated-not-read",
                table.to_string(),
                what,
            )
            .hint("pgconvoy verify compares them")
        }));
        return Ok(findings);
    }
    let held = Held {
        key: run.ledger.id.clone(),
        snapshot: run.ledger.snapshot.clone(),
    };
    for table in tables {
        let (source, target) = tokio::try_join!(
            digester.source(&held, table, 0),
            digester.target(table, 0, Keep::Left)
        )?;
        findings.extend(compare_generated(table, &source, &target));
    }
    Ok(findings)
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

/// Runs `work` for every table, or whatever it is, `jobs` at once.
pub async fn each<I, F>(items: Vec<I>, jobs: usize, work: impl Fn(I) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let mut workers = JoinSet::new();
    for item in items {
        if workers.len() >= jobs
            && let Some(ended) = workers.join_next().await
        {
            ended??;
        }
        workers.spawn(work(item));
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
