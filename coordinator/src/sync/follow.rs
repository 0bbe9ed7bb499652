//! What follows from the rows: the ledger's word on tables that were equal, and the steps that depend on rows.
use pgconvoy_proto::model::Work;
use pgconvoy_proto::selection::Filter;
use pgconvoy_proto::wire;

use super::outcome::TableOutcome;
use super::{Asked, phase};
use crate::inventory::Inventory;
use crate::phases::{Run, snapshot};

/// Tables without a difference are of the new snapshot too.
pub async fn record_equal(
    run: &mut Run,
    inventory: &Inventory,
    outcomes: &[TableOutcome],
) -> anyhow::Result<()> {
    let equal = outcomes.iter().map(|outcome| &outcome.scanned);
    let tables = equal
        .filter(|scanned| scanned.is_equal())
        .map(|scanned| wire::RecordTable {
            table: scanned.table.oid,
            snapshot: inventory.snapshot.clone(),
            source_digest: Some(scanned.source.into()),
            planned: Some(scanned.table.clone().into()),
            equal: true,
            converge: false,
        })
        .collect();
    run.record(wire::RecordRequest {
        tables,
        ..Default::default()
    })
    .await
}

/// What follows from the rows: large objects' owners, materialized views, sequences, statistics.
pub async fn follow(
    run: &mut Run,
    asked: &Asked,
    inventory: &Inventory,
    outcomes: &[TableOutcome],
) -> anyhow::Result<()> {
    phase(run, "sync: views, sequences, statistics");
    let mut steps = snapshot::renewed_steps(run, inventory);
    let whole = asked.selection.is_everything();
    let changed = outcomes.iter().any(|outcome| !outcome.scanned.is_equal());
    let chosen = Filter::new(&asked.selection)?;
    for step in &mut steps {
        if let Work::Sequences { values } = &mut step.work {
            for value in values {
                let owned = |(schema, table): &(String, String)| chosen.admits(schema, table);
                value.stays = !whole && !value.owner.as_ref().is_some_and(owned);
            }
        }
    }
    steps.retain(|step| match step.work {
        Work::LargeObjects { .. } => whole,
        Work::Refresh { .. } | Work::Derive(_) | Work::ManagedKeys => changed,
        _ => true,
    });
    let rewritten = outcomes.iter().filter(|outcome| outcome.is_largely_new());
    let rewritten: Vec<(&str, &str)> = rewritten
        .map(|outcome| &outcome.scanned.table)
        .map(|table| (table.schema.as_str(), table.name.as_str()))
        .collect();
    let stale = run.ledger.steps.iter().filter(|entry| {
        matches!(&entry.step.work, Work::Statistics { schema, name, .. }
            if rewritten.contains(&(schema.as_str(), name.as_str())))
    });
    steps.extend(stale.map(|entry| entry.step.clone()));
    run.record(wire::RecordRequest {
        steps: steps.into_iter().map(Into::into).collect(),
        snapshot: inventory.snapshot.clone(),
        ..Default::default()
    })
    .await?;
    run.refresh_ledger().await?;
    run.after_sync().await
}
