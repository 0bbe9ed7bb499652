//! What follows from the rows: the ledger's word on tables that were equal, and the steps that depend on rows.
use pgconvoy_proto::model::{Step, Work};
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

/// The steps that a new snapshot makes anew. Sequences that are not selected stay where they are.
pub fn renewed(
    run: &Run,
    asked: &Asked,
    inventory: &Inventory,
    outcomes: &[TableOutcome],
) -> anyhow::Result<Vec<Step>> {
    let mut steps = snapshot::renewed_steps(run, inventory);
    steps.extend(of_rows(run, inventory, outcomes));
    let whole = asked.selection.is_everything();
    let chosen = Filter::new(&asked.selection)?;
    for step in &mut steps {
        if let Work::Sequences { values } = &mut step.work {
            for value in values {
                let owned = |(schema, table): &(String, String)| chosen.admits(schema, table);
                value.stays = !whole && !value.owner.as_ref().is_some_and(owned);
            }
        }
    }
    Ok(steps)
}

/// Steps that follow from rows, and that a migration without any (`--skip-data`) has not planned.
fn of_rows(run: &Run, inventory: &Inventory, outcomes: &[TableOutcome]) -> Vec<Step> {
    if !run.ledger.options.skip_data {
        return Vec::new();
    }
    let planned = run.ledger.steps.iter().map(|entry| &entry.step.work);
    let is_planned = |work: &Work| {
        let mut same = planned.clone().filter(|one| one.kind() == work.kind());
        match work {
            Work::Statistics { .. } => same.any(|one| one == work),
            _ => same.next().is_some(),
        }
    };
    let follows = |work: &&Work| {
        matches!(
            work,
            Work::LargeObjects { .. } | Work::Refresh { .. } | Work::Sequences { .. }
        )
    };
    let statistics = outcomes.iter().map(|outcome| &outcome.scanned.table);
    let statistics = statistics.map(|table| Work::Statistics {
        schema: table.schema.clone(),
        name: table.name.clone(),
        partitioned: table.through_root,
    });
    let works = inventory.works.iter().filter(follows).cloned();
    let missing = works.chain(statistics).filter(|work| !is_planned(work));
    let numbers = run.ledger.steps.iter().map(|entry| entry.step.number);
    let first = numbers.max().unwrap_or(0) + 1;
    let number = |(number, work)| Step { number, work };
    (first..).zip(missing).map(number).collect()
}

/// What follows from the rows: large objects' owners, materialized views, sequences, statistics.
pub async fn follow(
    run: &mut Run,
    asked: &Asked,
    inventory: &Inventory,
    outcomes: &[TableOutcome],
) -> anyhow::Result<()> {
    phase(run, "sync: views, sequences, statistics");
    let mut steps = renewed(run, asked, inventory, outcomes)?;
    let whole = asked.selection.is_everything();
    let changed = outcomes.iter().any(|outcome| !outcome.scanned.is_equal());
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
