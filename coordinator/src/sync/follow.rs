//! What follows from the rows: the ledger's word on tables that were equal, and the steps that depend on rows.
use pgconvoy_proto::model::{SequenceValue, Step, Work};
use pgconvoy_proto::selection::Filter;
use pgconvoy_proto::wire;

use super::outcome::TableOutcome;
use super::{Asked, phase};
use crate::inventory::Inventory;
use crate::phases::{Run, snapshot};
use crate::schema;

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
            source_digest: Some(scanned.source.digest.into()),
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
    let left: Vec<&SequenceValue> = schema::left_sequences(&run.ledger).collect();
    for step in &mut steps {
        if let Work::Sequences { values } = &mut step.work {
            values.retain_mut(|value| {
                let owned = |(schema, table): &(String, String)| chosen.admits(schema, table);
                value.stays = !whole && !value.owner.as_ref().is_some_and(owned);
                !value.stays || stays_as_left(value, &left)
            });
        }
    }
    Ok(steps)
}

/// The ledger goes on saying where it was left; false: it does not say that of this one.
fn stays_as_left(value: &mut SequenceValue, left: &[&SequenceValue]) -> bool {
    let same = |one: &&&SequenceValue| one.schema == value.schema && one.name == value.name;
    let Some(earlier) = left.iter().find(same) else {
        return false;
    };
    (value.last_value, value.is_called) = (earlier.last_value, earlier.is_called);
    true
}

/// Steps that follow from rows, and that the migration has not planned: there was nothing of their kind then, or it has brought no rows
/// (`--skip-data`).
fn of_rows(run: &Run, inventory: &Inventory, outcomes: &[TableOutcome]) -> Vec<Step> {
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
    let without_rows = run.ledger.options.skip_data;
    let statistics = outcomes.iter().filter(|_| without_rows);
    let statistics = statistics.map(|outcome| &outcome.scanned.table);
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

/// What follows from the rows: large objects' owners, materialized views, sequences, statistics. `resumed`: a sync before this one was
/// interrupted, and may have changed rows that are equal by now.
pub async fn follow(
    run: &mut Run,
    asked: &Asked,
    inventory: &Inventory,
    outcomes: &[TableOutcome],
    resumed: bool,
) -> anyhow::Result<()> {
    phase(run, "sync: views, sequences, statistics");
    let mut steps = renewed(run, asked, inventory, outcomes)?;
    let whole = asked.selection.is_everything();
    let changed = resumed || outcomes.iter().any(|outcome| !outcome.scanned.is_equal());
    let planned = |step: &Step| {
        let mut steps = run.ledger.steps.iter();
        steps.any(|entry| entry.step.number == step.number)
    };
    steps.retain(|step| match step.work {
        Work::LargeObjects { .. } => whole,
        Work::Refresh { .. } | Work::Derive(_) | Work::ManagedKeys => changed || !planned(step),
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
