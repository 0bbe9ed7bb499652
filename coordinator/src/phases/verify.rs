//! Verification: the digests that each agent computed from its own database, compared; and so the schemas.
//!
//! Invariant 3 (proof by re-reading): the target's digest is never taken from what was sent. The source's is that of the copy's own
//! scan at the snapshot.
use anyhow::anyhow;
use pgconvoy_proto::model::{Finding, Selection, Severity, Table};
use pgconvoy_proto::selection::Filter;
use pgconvoy_proto::wire::target_digest_request::Keep;

use super::{Run, snapshot};
use crate::digest::{Digester, Held, compare, compare_generated};
use crate::events::Event;
use crate::inventory;
use crate::left_out::LeftOut;
use crate::schema::{Question, Sequences, compare_ends};
use crate::workers::each;
use crate::{access, checks};

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
    each(open, run.effort.streams, read).await?;
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
async fn held(run: &Run) -> anyhow::Result<Option<Held>> {
    Ok(snapshot::is_alive(run).await?.then(|| Held::of(run)))
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
    let Some(held) = held(run).await? else {
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
