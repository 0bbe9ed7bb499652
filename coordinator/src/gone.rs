//! Tables of the ledger that the source has no more. Those that the target still has are told; gone at both ends is equal.
use pgconvoy_proto::model::{Finding, Table};
use pgconvoy_proto::wire;

use crate::ends::Ends;
use crate::inventory::Inventory;
use crate::ledger::Ledger;

/// What became of them at the target.
#[derive(Debug, Default)]
pub struct Gone {
    /// About those that are still there.
    pub findings: Vec<Finding>,
    /// The others: the ledger may forget them. Not those that have another name by now: what it knows is theirs.
    pub forgotten: Vec<Table>,
}

/// Asks the target.
pub async fn ask(
    ends: &mut Ends,
    ledger: &Ledger,
    gone: Vec<Table>,
    inventory: &Inventory,
) -> anyhow::Result<Gone> {
    if gone.is_empty() {
        return Ok(Gone::default());
    }
    let request = wire::PlanSyncRequest {
        migration: ledger.id.clone(),
        gone: gone.iter().cloned().map(Into::into).collect(),
        dry_run: true,
        ..Default::default()
    };
    let findings = ends.plan_sync(request).await?;
    let is_there = |table: &Table| {
        let name = table.to_string();
        findings.iter().any(|finding| finding.object == name)
    };
    let is_renamed = |table: &Table| inventory.tables.iter().any(|now| now.oid == table.oid);
    let forgotten = gone
        .into_iter()
        .filter(|table| !is_there(table) && !is_renamed(table))
        .collect();
    Ok(Gone {
        findings,
        forgotten,
    })
}

/// For the ledger.
pub fn entry(forgotten: &[Table]) -> wire::RecordRequest {
    wire::RecordRequest {
        gone: forgotten.iter().map(|table| table.oid).collect(),
        compared: forgotten.iter().map(Table::to_string).collect(),
        ..Default::default()
    }
}
