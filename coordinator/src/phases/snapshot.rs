//! Joins the migration's snapshot, or, when it is lost, opens a new one and brings what is loaded under it.
//!
//! The end state is the source at *one* snapshot: complete tables are proven against the new one by digest, others, and those that
//! differ, are emptied and copied again whole.
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use pgconvoy_proto::model::{Digest, Oid, Relation, RoleChoice, SequenceValue, Step, Table, Work};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::source_client::SourceClient;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;
use tonic::transport::Channel;

use super::{Run, verify};
use crate::ends::said;
use crate::inventory::{self, Inventory, Lease};

const RENEW_EVERY: Duration = Duration::from_secs(60);

/// Makes sure of a snapshot where one is still needed; and of the tables that a crash emptied.
pub async fn ensure(run: &mut Run) -> anyhow::Result<()> {
    let needs_schema = !run.ledger.options.skip_schema && !run.ledger.archive_received;
    if run.ledger.missing_parts() == 0 && !needs_schema {
        return Ok(());
    }
    if is_alive(run).await? {
        run.reporter
            .note("the snapshot is alive: the missing parts are copied");
        empty_void(run).await
    } else {
        run.reporter.note("the snapshot is gone: opening a new one");
        renew(run).await
    }
}

/// Whether the source agent still holds the migration's snapshot.
pub async fn is_alive(run: &Run) -> anyhow::Result<bool> {
    let request = wire::RenewSnapshotRequest {
        migration: run.ledger.id.clone(),
        snapshot: run.ledger.snapshot.clone(),
    };
    match run.ends.source.clone().renew_snapshot(request).await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::NotFound => Ok(false),
        Err(status) => Err(said("source")(status)),
    }
}

/// Renews the lease for as long as the handle lives.
pub fn keep_alive(
    source: SourceClient<Channel>,
    migration: String,
    snapshot: String,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut tick = tokio::time::interval(RENEW_EVERY);
        loop {
            tick.tick().await;
            let request = wire::RenewSnapshotRequest {
                migration: migration.clone(),
                snapshot: snapshot.clone(),
            };
            if let Err(status) = source.clone().renew_snapshot(request).await {
                // Who reads under it is told; after the copy it is not needed any more.
                tracing::debug!(%status, "the snapshot's lease could not be renewed");
            }
        }
    }))
}

/// Opens a new snapshot and brings every table under it.
pub async fn renew(run: &mut Run) -> anyhow::Result<()> {
    let selection = run.ledger.options.selection.clone();
    let inventory = inventory::open(
        &mut run.ends,
        &run.ledger.id,
        &selection,
        RoleChoice::None,
        Lease::Migration,
    )
    .await?;
    let now = same_tables(run, &inventory)?;
    let adopted = prove_complete(run, &inventory.snapshot).await?;
    for entry in run.ledger.tables.clone() {
        let planned = &now[&entry.table.oid];
        let source_digest = adopted.get(&entry.table.oid).copied();
        if source_digest.is_none() {
            empty(run, entry.table.oid).await?;
        }
        let table = wire::RecordTable {
            table: entry.table.oid,
            snapshot: inventory.snapshot.clone(),
            source_digest: source_digest.map(Into::into),
            planned: Some(planned.clone().into()),
        };
        run.record(wire::RecordRequest {
            tables: vec![table],
            ..Default::default()
        })
        .await?;
    }
    let steps = renewed_steps(run, &inventory)
        .into_iter()
        .map(Into::into)
        .collect();
    let snapshot = inventory.snapshot;
    run.record(wire::RecordRequest {
        snapshot,
        steps,
        ..Default::default()
    })
    .await?;
    run.refresh_ledger().await
}

/// The tables as they are now, by OID, with the shape that was planned. The schema at the target is that of the plan: a source
/// whose tables changed since needs a new migration.
fn same_tables(run: &Run, inventory: &Inventory) -> anyhow::Result<HashMap<Oid, Table>> {
    let mut now: HashMap<Oid, Table> = inventory
        .tables
        .iter()
        .map(|table| (table.oid, table.clone()))
        .collect();
    if run.ledger.options.skip_data {
        return Ok(now);
    }
    let mut changed = Vec::new();
    for entry in &run.ledger.tables {
        let planned = &entry.table;
        match now.get_mut(&planned.oid) {
            // No large object is left.
            None if planned.relation != Relation::Table => {
                now.insert(planned.oid, without_large_objects(planned));
            }
            None => changed.push(format!("{planned} is gone")),
            Some(table)
                if table.columns != planned.columns || table.to_string() != planned.to_string() =>
            {
                changed.push(format!("{planned} has changed"));
            }
            // The format is the plan's: the digests of both ends are in it.
            Some(table) => table.format = planned.format,
        }
    }
    let known = |table: &&Table| run.ledger.table(table.oid).is_none();
    changed.extend(
        inventory
            .tables
            .iter()
            .filter(known)
            .map(|table| format!("{table} is new")),
    );
    if !changed.is_empty() {
        bail!(
            "the source's tables are not those of the plan any more ({}): run pgconvoy clean --force, empty the \
             target, and migrate again",
            changed.join(", ")
        );
    }
    Ok(now)
}

fn without_large_objects(planned: &Table) -> Table {
    Table {
        relation: Relation::LargeObjects {
            objects: 0,
            slices: Vec::new(),
        },
        size_bytes: 0,
        ..planned.clone()
    }
}

/// The complete tables whose digest at the target is the source's under the new snapshot.
async fn prove_complete(run: &mut Run, snapshot: &str) -> anyhow::Result<HashMap<Oid, Digest>> {
    let part_bytes = run.ledger.options.part_bytes;
    let complete: Vec<Table> = run
        .ledger
        .tables
        .iter()
        .filter(|entry| entry.missing(part_bytes).is_empty())
        .map(|entry| entry.table.clone())
        .collect();
    let proven = Arc::new(std::sync::Mutex::new(HashMap::new()));
    let digester = verify::Digester::of(run);
    let work = {
        let proven = proven.clone();
        let held = verify::Held {
            key: run.ledger.id.clone(),
            snapshot: snapshot.to_owned(),
        };
        move |table: Table| {
            let (proven, digester) = (proven.clone(), digester.clone());
            let held = held.clone();
            async move {
                let source = digester.source(&held, &table, 0).await?.digest;
                if source == digester.target(&table, 0).await?.digest {
                    let mut proven = proven
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    proven.insert(table.oid, source);
                }
                Ok(())
            }
        }
    };
    let tables = complete.len();
    verify::each(complete, run.settings.streams, work).await?;
    let proven = std::mem::take(
        &mut *proven
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner),
    );
    run.reporter.note(format!(
        "{} of {tables} complete tables are equal under the new snapshot; the others are copied again",
        proven.len()
    ));
    Ok(proven)
}

/// Tables that are unlogged, where the target server restarted since they were loaded.
async fn empty_void(run: &mut Run) -> anyhow::Result<()> {
    let void: Vec<Table> = run
        .ledger
        .tables
        .iter()
        .filter(|entry| entry.void)
        .map(|e| e.table.clone())
        .collect();
    for table in &void {
        run.reporter.note(format!(
            "{table} is unlogged and the target restarted: copied again"
        ));
        empty(run, table.oid).await?;
        let snapshot = run.ledger.snapshot.clone();
        let expected = wire::RecordTable {
            table: table.oid,
            snapshot,
            ..Default::default()
        };
        run.record(wire::RecordRequest {
            tables: vec![expected],
            ..Default::default()
        })
        .await?;
    }
    if !void.is_empty() {
        run.refresh_ledger().await?;
    }
    Ok(())
}

async fn empty(run: &mut Run, table: Oid) -> anyhow::Result<()> {
    // Before the schema is there, nothing can be loaded, and there is nothing to empty. After that, what the ledger said a
    // moment ago is not asked: rows may have been on their way.
    let undone =
        |entry: &crate::ledger::StepEntry| entry.step.work == Work::PreData && !entry.is_done();
    if run.ledger.steps.iter().any(undone) {
        return Ok(());
    }
    let request = wire::EmptyTableRequest {
        migration: run.ledger.id.clone(),
        table,
    };
    run.ends
        .target
        .empty_table(request)
        .await
        .map_err(said("target"))?;
    Ok(())
}

/// The steps that are to be done again under the new snapshot: sequences with their positions of now, what is about the large
/// objects of now, and what reads the tables.
fn renewed_steps(run: &Run, inventory: &Inventory) -> Vec<Step> {
    let mut now: HashMap<(&str, &str), &SequenceValue> = HashMap::new();
    for work in &inventory.works {
        if let Work::Sequences { values } = work {
            now.extend(
                values
                    .iter()
                    .map(|v| ((v.schema.as_str(), v.name.as_str()), v)),
            );
        }
    }
    let of_large_objects = |work: &&Work| matches!(work, Work::LargeObjects { .. });
    let none = Work::LargeObjects {
        access: Vec::new(),
        notes: Vec::new(),
    };
    let large_objects = inventory
        .works
        .iter()
        .find(of_large_objects)
        .unwrap_or(&none);
    let renewed = |entry: &crate::ledger::StepEntry| match &entry.step.work {
        Work::Sequences { values } => {
            let renew = |v: &SequenceValue| match now.get(&(v.schema.as_str(), v.name.as_str())) {
                Some(value) => (*value).clone(),
                None => v.clone(),
            };
            let values = values.iter().map(renew).collect();
            Some(Step {
                number: entry.step.number,
                work: Work::Sequences { values },
            })
        }
        Work::LargeObjects { .. } => Some(Step {
            number: entry.step.number,
            work: large_objects.clone(),
        }),
        Work::Refresh { .. } => Some(entry.step.clone()),
        _ => None,
    };
    run.ledger.steps.iter().filter_map(renewed).collect()
}
