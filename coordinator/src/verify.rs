//! `verify`: both agents read their databases again, and the digests are compared. The source reads all tables under one
//! snapshot.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use pgconvoy_proto::model::{Digest, Finding, Oid, Severity, Table};
use pgconvoy_proto::selection::Filter;
use pgconvoy_proto::wire;

use crate::cli::{Global, VerifyArgs};
use crate::ends::{self, Ends, said};
use crate::events::{Event, Reporter};
use crate::inventory::{self, Inventory, Lease};
use crate::ledger::Ledger;
use crate::live::{self, Live};
use crate::phases::verify::{Digester, compare, each};
use crate::run_dir::RunDir;
use crate::verdict::Verdict;
use crate::{Ended, report, text};

pub async fn verify(args: VerifyArgs, global: &Global, reporter: &Arc<Reporter>) -> Ended {
    let mut ends = ends::connect(&args.ends).await?;
    let ledger = Ledger::read(&mut ends.target, global.migration.as_deref()).await?;
    let dir = RunDir::create(&global.run_dir, &ledger.id)?;
    reporter.log_to(dir.events()?);
    let cpus = ends.target_facts().await?.server.cpus;
    let streams = args.streams.unwrap_or(cpus.clamp(2, 8)) as usize;

    // A key of its own: the snapshot of an unfinished copy stays open.
    let key = format!("{}-verify", ledger.id);
    let asked = args.filters.selection();
    let inventory =
        inventory::open(&mut ends, &key, &ledger.options.selection, Lease::Short).await?;
    let chosen = Filter::new(&asked)?;
    let (tables, mut findings) = shapes(&ledger, &inventory, &chosen);
    let digests = digest_all(
        &ends,
        &ledger,
        &key,
        &inventory.snapshot,
        &tables,
        streams,
        reporter,
    )
    .await;
    // Whatever came of it: the snapshot holds locks at the source.
    inventory::close(&mut ends, &key).await?;
    let digests = digests?;
    for table in &tables {
        let (source, target) = digests[&table.oid];
        findings.extend(compare(reporter, table, source, target));
    }
    for finding in findings
        .iter()
        .filter(|finding| finding.code != "rows-differ")
    {
        reporter.emit(&Event::Finding(finding.clone()));
    }
    if tables.is_empty() && findings.is_empty() {
        reporter.note("there is no table to compare: nothing is proven");
        return Ok((Verdict::Unverified, report::json(&ledger)));
    }
    let verdict = verdict(&ledger, &findings);
    record(
        &mut ends,
        &ledger,
        &digests,
        verdict,
        &findings,
        !asked.is_everything(),
    )
    .await?;
    conclude(
        &mut ends, &ledger.id, &dir, &tables, &findings, verdict, reporter,
    )
    .await
}

/// Findings that a comparison makes anew each time.
const OF_COMPARISON: &[&str] = &[
    "rows-differ",
    "columns-differ",
    "table-missing",
    "table-extra",
];

/// Equal rows do not prove a target that lacks a policy or a foreign key.
fn verdict(ledger: &Ledger, findings: &[Finding]) -> Verdict {
    let lasting = |finding: &&Finding| {
        finding.severity == Severity::Difference && !OF_COMPARISON.contains(&finding.code.as_str())
    };
    if findings.is_empty() && ledger.findings.iter().find(lasting).is_none() {
        Verdict::Proven
    } else {
        Verdict::Differs
    }
}

/// Tables of the ledger that were asked for and are at the source as planned; findings for the others.
fn shapes(ledger: &Ledger, inventory: &Inventory, chosen: &Filter) -> (Vec<Table>, Vec<Finding>) {
    let now: HashMap<Oid, &Table> = inventory.tables.iter().map(|t| (t.oid, t)).collect();
    let mut findings = Vec::new();
    let mut tables = Vec::new();
    for entry in ledger
        .tables
        .iter()
        .filter(|entry| chosen.admits(&entry.table.schema, &entry.table.name))
    {
        let planned = &entry.table;
        match now.get(&planned.oid) {
            Some(table) if table.columns == planned.columns => tables.push(planned.clone()),
            Some(table) => findings.push(
                difference(
                    "columns-differ",
                    planned,
                    "its columns changed at the source since the migration",
                )
                .values(table.columns.join(", "), planned.columns.join(", ")),
            ),
            None => findings.push(difference(
                "table-extra",
                planned,
                "it is gone from the source",
            )),
        }
    }
    let unknown = inventory.tables.iter().filter(|table| {
        chosen.admits(&table.schema, &table.name) && ledger.table(table.oid).is_none()
    });
    if !ledger.options.skip_data {
        findings.extend(unknown.map(|table| {
            difference(
                "table-missing",
                table,
                "it is new at the source since the migration",
            )
        }));
    }
    (tables, findings)
}

fn difference(code: &str, table: &Table, message: &str) -> Finding {
    Finding::new(Severity::Difference, code, table.to_string(), message)
}

type Digests = HashMap<Oid, (Digest, Digest)>;

async fn digest_all(
    ends: &Ends,
    ledger: &Ledger,
    key: &str,
    snapshot: &str,
    tables: &[Table],
    streams: usize,
    reporter: &Arc<Reporter>,
) -> anyhow::Result<Digests> {
    let live = Arc::new(Live::default());
    let _display = reporter
        .is_live()
        .then(|| live::show(live.clone(), reporter.clone()));
    let digester = Digester {
        migration: ledger.id.clone(),
        ends: ends.clone(),
        jobs: streams,
        reporter: reporter.clone(),
        live,
    };
    let digests: Arc<Mutex<Digests>> = Arc::default();
    let work = {
        let (digests, key, snapshot) = (digests.clone(), key.to_owned(), snapshot.to_owned());
        move |table: Table| {
            let (digests, digester) = (digests.clone(), digester.clone());
            let (key, snapshot) = (key.clone(), snapshot.clone());
            async move {
                let (source, target) = tokio::try_join!(
                    digester.source(&key, &snapshot, &table),
                    digester.target(&table)
                )?;
                let mut digests = digests.lock().unwrap_or_else(PoisonError::into_inner);
                digests.insert(table.oid, (source, target));
                Ok(())
            }
        }
    };
    each(tables.to_vec(), streams, work).await?;
    let mut digests = digests.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *digests))
}

/// What was read is the ledger's newest knowledge. The verdict of an unfinished migration is not touched; nor does a part of the tables
/// prove the whole.
async fn record(
    ends: &mut Ends,
    ledger: &Ledger,
    digests: &Digests,
    verdict: Verdict,
    findings: &[Finding],
    partial: bool,
) -> anyhow::Result<()> {
    if ledger.verdict.is_none() {
        return Ok(());
    }
    let tables = digests.iter().map(|(oid, (source, _))| wire::RecordTable {
        table: *oid,
        source_digest: Some((*source).into()),
        ..Default::default()
    });
    let settles = verdict == Verdict::Differs || !partial;
    let request = wire::RecordRequest {
        migration: ledger.id.clone(),
        verdict: if settles {
            verdict.as_str().into()
        } else {
            String::new()
        },
        tables: tables.collect(),
        findings: findings.iter().cloned().map(Into::into).collect(),
        compared: compared(digests, findings, ledger),
        ..Default::default()
    };
    ends.target.record(request).await.map_err(said("target"))?;
    Ok(())
}

/// Every object that this comparison speaks of.
fn compared(digests: &Digests, findings: &[Finding], ledger: &Ledger) -> Vec<String> {
    let read = digests
        .keys()
        .filter_map(|oid| ledger.table(*oid))
        .map(|e| e.table.to_string());
    read.chain(findings.iter().map(|finding| finding.object.clone()))
        .collect()
}

async fn conclude(
    ends: &mut Ends,
    migration: &str,
    dir: &RunDir,
    tables: &[Table],
    findings: &[Finding],
    verdict: Verdict,
    reporter: &Reporter,
) -> Ended {
    let ledger = Ledger::read(&mut ends.target, Some(migration)).await?;
    let json = report::json(&ledger);
    dir.write("verification.json", &serde_json::to_string_pretty(&json)?)?;
    reporter.quiet();
    let bytes = ledger
        .tables
        .iter()
        .filter(|entry| tables.iter().any(|table| table.oid == entry.table.oid))
        .map(|entry| entry.source().bytes)
        .sum();
    for finding in findings {
        reporter.line(&crate::events::finding_text(finding));
    }
    reporter.line(&format!(
        "{verdict}: {} tables, {} of COPY data compared, {} differences",
        tables.len(),
        text::bytes(bytes),
        findings.len()
    ));
    Ok((verdict, json))
}
