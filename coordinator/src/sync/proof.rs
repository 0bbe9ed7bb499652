//! The proof: what was changed is read back, orphans are looked for, and the source is asked whether it has moved.
use pgconvoy_proto::model::{Finding, Oid, SYNC_ORPHANS, Table};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::target_digest_request::Keep;

use super::gather;
use super::outcome::TableOutcome;
use crate::converge::Converger;
use crate::digest::{compare, compare_generated};
use crate::ends::said;
use crate::inventory::Inventory;
use crate::ledger::Ledger;
use crate::phases::Run;

/// What the scans of tables that were equal say of their generated columns: nothing of these is read again.
pub fn generated_of_equal(outcomes: &[TableOutcome]) -> Vec<Finding> {
    let scanned = outcomes.iter().map(|outcome| &outcome.scanned);
    let equal = scanned.filter(|scanned| scanned.is_equal());
    equal
        .filter_map(|s| compare_generated(&s.table, &s.source, &s.target))
        .collect()
}

/// Reads back what was changed. A table that still differs, which the short hashes of pairs may have hidden, is copied again whole.
pub async fn prove(
    converger: &Converger,
    outcomes: &mut [TableOutcome],
) -> anyhow::Result<Vec<Finding>> {
    let changed = outcomes.iter().filter(|o| !o.scanned.is_equal());
    let tables: Vec<Table> = changed.map(|o| o.scanned.table.clone()).collect();
    let digester = &converger.digester;
    let read = gather(tables, digester.jobs, |table| {
        let digester = digester.clone();
        async move {
            let digest = digester.target(&table, 0, Keep::Read).await?;
            Ok((table.oid, digest))
        }
    })
    .await?;
    let mut findings = Vec::new();
    for (oid, mut digest) in read {
        let Some(outcome) = outcomes.iter_mut().find(|o| o.scanned.table.oid == oid) else {
            continue;
        };
        let scanned = &outcome.scanned;
        let table = &scanned.table;
        let source = &scanned.source;
        if digest.digest != source.digest {
            let again = converger.sync(&scanned.to_be_copied()).await?;
            outcome.synced.counts.how = again.counts.how;
            outcome.synced.wire_bytes += again.wire_bytes;
            digest = digester.target(table, 0, Keep::Read).await?;
        }
        findings.extend(compare(
            &digester.reporter,
            table,
            source.digest,
            digest.digest,
        ));
        findings.extend(compare_generated(table, source, &digest));
    }
    Ok(findings)
}

/// Where some tables were synced and others not, rows may refer to nothing. What an earlier sync found is looked at again.
pub async fn check_keys(
    run: &mut Run,
    outcomes: &[TableOutcome],
    again: Vec<String>,
) -> anyhow::Result<Vec<Finding>> {
    let tables: Vec<Oid> = outcomes.iter().map(|o| o.scanned.table.oid).collect();
    let request = wire::CheckKeysRequest {
        migration: run.ledger.id.clone(),
        tables,
        again,
    };
    let answer = run.ends.target.check_keys(request).await;
    let findings = answer.map_err(said("target"))?.into_inner().findings;
    Ok(findings
        .into_iter()
        .map(Finding::try_from)
        .collect::<Result<_, _>>()?)
}

pub fn earlier_orphans(ledger: &Ledger) -> Vec<String> {
    let found = ledger.findings.iter();
    let orphans = found.filter(|finding| finding.code == SYNC_ORPHANS);
    orphans.map(|finding| finding.object.clone()).collect()
}

pub async fn position(
    run: &mut Run,
    inventory: &Inventory,
) -> anyhow::Result<wire::PositionResponse> {
    let request = wire::PositionRequest {
        migration: run.ledger.id.clone(),
        snapshot: inventory.snapshot.clone(),
    };
    let answer = run.ends.source.position(request).await;
    Ok(answer.map_err(said("source"))?.into_inner())
}
