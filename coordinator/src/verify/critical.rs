//! `verify --critical-only`: what can be seen without reading every byte. Schemas are compared as always, of rows the number; the target's
//! keys are read for orphans. Counts that agree prove nothing of the rows: the verdict is at best "ok", and the ledger is left alone.
use std::sync::{Arc, Mutex, PoisonError};

use pgconvoy_proto::model::{Finding, RoleChoice, Severity, Table};
use pgconvoy_proto::selection::Filter;
use pgconvoy_proto::wire;
use serde_json::{Value, json};

use super::{Asked, Shapes, compare_schemas, shapes, told};
use crate::Ended;
use crate::digest::Held;
use crate::ends::{Ends, retry, said};
use crate::events::{Event, Reporter};
use crate::inventory::{self, Lease};
use crate::phases::snapshot;
use crate::verdict::Verdict;
use crate::workers::each;
use crate::{checks, gone, text, unknown};

/// Rows of a table at the source and at the target.
pub type Counted = (Table, u64, u64);

pub async fn verify(asked: Asked<'_>, mut ends: Ends, reporter: &Arc<Reporter>) -> Ended {
    let ledger = asked.ledger;
    let key = inventory::own_key("verify");
    let compared = compare_schemas(&asked, &ends, reporter).await?;
    let options = &ledger.options;
    let inventory =
        inventory::open(&mut ends, &key, options, RoleChoice::None, Lease::Short).await?;
    // The target may have work for longer than the lease, while nobody reads at the source.
    let _lease = snapshot::keep_alive(ends.source.clone(), key.clone(), Lease::Short);
    if let Err(error) = unknown::refuse(ledger, &asked.selection, &inventory) {
        inventory::close(&mut ends, &key).await?;
        return Err(error);
    }
    let held = Held {
        key: key.clone(),
        snapshot: inventory.snapshot.clone(),
    };
    let mut shapes = shapes(ledger, &inventory, &Filter::new(&asked.selection)?);
    if let Err(error) = shapes.leave_unreadable(&asked, &mut ends, &compared).await {
        inventory::close(&mut ends, &key).await?;
        return Err(error);
    }
    let Shapes {
        tables,
        mut findings,
        gone,
    } = shapes;
    let counted = count(&ends, &held, &tables, asked.jobs, reporter).await;
    let checked = checks::run(&ends, &asked.checks, Some(&held), reporter).await;
    inventory::close(&mut ends, &key).await?;
    let (counted, checked) = (counted?, checked?);
    findings.extend(
        gone::ask(&mut ends, ledger, gone, &inventory)
            .await?
            .findings,
    );
    let (mended, integrity) = integrity(&mut ends, &asked).await?;
    findings.extend(compared.findings);
    findings.extend(counted.iter().filter_map(differ));
    findings.extend(mended);
    findings.retain(|finding| !asked.left_out.rls || finding.code != POLICY_IDLE);
    for finding in &findings {
        reporter.emit(&Event::Finding(finding.clone()));
    }
    findings.extend(checked.findings);
    let differences = findings
        .iter()
        .filter(|f| f.severity == Severity::Difference);
    let verdict = match differences.count() {
        0 => Verdict::Ok,
        _ => Verdict::Differs,
    };
    if asked.verbose {
        reporter.line(&rows_text(&counted));
    }
    reporter.line(&format!(
        "  {} foreign keys have no orphans but those told, {} other constraints, {} indexes, {} policies{}",
        integrity.foreign_keys,
        integrity.constraints,
        integrity.indexes,
        integrity.policies,
        asked.left_out.words()
    ));
    let tables = (counted.len(), None);
    told::last_line(verdict, tables, asked.left_out, &findings, reporter);
    Ok((
        verdict,
        json!({
            "migration": ledger.id, "critical_only": true, "findings": findings, "skipped": asked.left_out.names(),
            "tables": counted.iter().map(table_json).collect::<Vec<_>>(),
            "integrity": {
                "foreign_keys": integrity.foreign_keys, "constraints": integrity.constraints,
                "indexes": integrity.indexes, "policies": integrity.policies,
            },
        }),
    ))
}

/// Both ends count, several tables at once.
pub async fn count(
    ends: &Ends,
    held: &Held,
    tables: &[Table],
    jobs: usize,
    reporter: &Arc<Reporter>,
) -> anyhow::Result<Vec<Counted>> {
    let counted: Arc<Mutex<Vec<Counted>>> = Arc::default();
    let work = {
        let (ends, held, counted, reporter) = (
            ends.clone(),
            held.clone(),
            counted.clone(),
            reporter.clone(),
        );
        move |table: Table| {
            let (ends, held, counted, reporter) = (
                ends.clone(),
                held.clone(),
                counted.clone(),
                reporter.clone(),
            );
            async move {
                let (source, target) = tokio::try_join!(
                    count_at_source(&ends, &held, &table, &reporter),
                    count_at_target(&ends, &table, &reporter)
                )?;
                let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
                counted.push((table, source, target));
                Ok(())
            }
        }
    };
    each(tables.to_vec(), jobs, work).await?;
    let mut all = std::mem::take(&mut *counted.lock().unwrap_or_else(PoisonError::into_inner));
    all.sort_by_cached_key(|(table, ..)| tables.iter().position(|t| t.oid == table.oid));
    Ok(all)
}

async fn count_at_source(
    ends: &Ends,
    held: &Held,
    table: &Table,
    reporter: &Reporter,
) -> anyhow::Result<u64> {
    let request = wire::CountRequest {
        table: Some(table.clone().into()),
        migration: held.key.clone(),
        snapshot: held.snapshot.clone(),
    };
    let counted = retry(reporter, "counting rows at the source", || {
        let (mut source, request) = (ends.source.clone(), request.clone());
        async move { source.count_rows(request).await }
    });
    Ok(counted.await.map_err(said("source"))?.into_inner().rows)
}

async fn count_at_target(ends: &Ends, table: &Table, reporter: &Reporter) -> anyhow::Result<u64> {
    let request = wire::CountRequest {
        table: Some(table.clone().into()),
        ..Default::default()
    };
    let counted = retry(reporter, "counting rows at the target", || {
        let (mut target, request) = (ends.target.clone(), request.clone());
        async move { target.count_rows(request).await }
    });
    Ok(counted.await.map_err(said("target"))?.into_inner().rows)
}

async fn integrity(
    ends: &mut Ends,
    asked: &Asked<'_>,
) -> anyhow::Result<(Vec<Finding>, wire::IntegrityResponse)> {
    let selections = [&asked.ledger.options.selection, &asked.selection];
    let request = wire::IntegrityRequest {
        selections: selections.map(|s| s.clone().into()).into(),
    };
    let answer = ends.target.check_integrity(request).await;
    let mut answer = answer.map_err(said("target"))?.into_inner();
    let findings: Result<Vec<Finding>, _> = std::mem::take(&mut answer.findings)
        .into_iter()
        .map(Finding::try_from)
        .collect();
    let mut findings = findings?;
    // A platform's, where rows had no place at the target: the migration said so.
    let told = |finding: &Finding| {
        let mut all = asked.ledger.findings.iter();
        finding.code == ORPHANS
            && all.any(|f| f.code == MANAGED_ORPHANS && f.object == finding.object)
    };
    for finding in findings.iter_mut().filter(|finding| told(finding)) {
        finding.severity = Severity::Warning;
    }
    Ok((findings, answer))
}

/// Codes of the target agent's findings.
const ORPHANS: &str = "orphans";
const POLICY_IDLE: &str = "policy-idle";
const MANAGED_ORPHANS: &str = "managed-orphans";

fn differ((table, source, target): &Counted) -> Option<Finding> {
    (source != target).then(|| {
        let what = "the two ends have another number of rows";
        Finding::new(
            Severity::Difference,
            "counts-differ",
            table.to_string(),
            what,
        )
        .values(source.to_string(), target.to_string())
        .hint("pgconvoy verify --detailed names the rows")
    })
}

fn table_json((table, source, target): &Counted) -> Value {
    json!({
        "schema": table.schema, "table": table.name, "source_rows": source, "target_rows": target,
        "equal": source == target,
    })
}

fn rows_text(counted: &[Counted]) -> String {
    let head = ["table", "rows at source", "rows at target"].map(str::to_owned);
    let rows = counted.iter().map(|(table, source, target)| {
        vec![table.to_string(), source.to_string(), target.to_string()]
    });
    let all: Vec<Vec<String>> = std::iter::once(head.to_vec()).chain(rows).collect();
    text::columns(&all)
}
