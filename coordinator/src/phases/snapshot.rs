//! Joins the migration's snapshot, or, when it is lost, opens a new one.
//!
//! The end state is the source at *one* snapshot. What is loaded stays: parts that are missing are copied under the new snapshot, and then
//! the table is to converge (see `converge`), before its keys are built: a row that moved meanwhile has arrived twice.
use std::collections::HashMap;
use std::time::Duration;

use anyhow::bail;
use pgconvoy_proto::model::{Oid, Relation, RoleChoice, SequenceValue, Step, Table, Work};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::source_client::SourceClient;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;
use tonic::transport::Channel;

use super::Run;
use crate::ends::said;
use crate::inventory::{self, Inventory, Lease};
use crate::ledger::TableEntry;

/// Well within the shortest lease (see `inventory::Lease`).
const RENEW_EVERY: Duration = Duration::from_secs(20);

/// Makes sure of a snapshot where one is still needed; and of the tables that a crash emptied.
pub async fn ensure(run: &mut Run) -> anyhow::Result<()> {
    let needs_schema = !run.ledger.options.skip_schema && !run.ledger.archive_received;
    if run.ledger.missing_parts() == 0 && run.ledger.to_converge() == 0 && !needs_schema {
        return Ok(());
    }
    if is_alive(run).await? {
        run.reporter
            .note("the snapshot is alive: the missing parts are copied");
        let snapshot = run.ledger.snapshot.clone();
        empty_void(run, &snapshot).await
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
        resumable: false,
    };
    match run.ends.source.clone().renew_snapshot(request).await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::NotFound => Ok(false),
        Err(status) => Err(said("source")(status)),
    }
}

/// Renews the lease for as long as the handle lives: of the migration's snapshot, whichever that is by then. What was opened with a short
/// one may get the migration's, now that there is something to resume.
pub fn keep_alive(
    source: SourceClient<Channel>,
    migration: String,
    lease: Lease,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut tick = tokio::time::interval(RENEW_EVERY);
        loop {
            tick.tick().await;
            let request = wire::RenewSnapshotRequest {
                migration: migration.clone(),
                snapshot: String::new(),
                resumable: matches!(lease, Lease::Migration),
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
    let options = run.ledger.options.clone();
    let inventory = inventory::open(
        &mut run.ends,
        &run.ledger.id,
        &options,
        RoleChoice::None,
        Lease::of(&run.ledger.id),
    )
    .await?;
    let now = same_tables(run, &inventory)?;
    empty_void(run, &inventory.snapshot).await?;
    let mut kept = 0;
    let mut tables = Vec::new();
    for entry in &run.ledger.tables {
        let loaded = !entry.void && (!entry.parts.is_empty() || entry.read_at_source.is_some());
        kept += usize::from(loaded);
        let now = &now[&entry.table.oid];
        let planned = if loaded {
            cut_alike(entry, now)
        } else {
            now.clone()
        };
        tables.push(wire::RecordTable {
            table: entry.table.oid,
            snapshot: inventory.snapshot.clone(),
            planned: Some(planned.into()),
            // Only where a part is in the ledger by then.
            converge: true,
            ..Default::default()
        });
    }
    run.reporter.note(format!(
        "{kept} tables have rows of the old snapshot: these stay, and what differs under the new one is brought over"
    ));
    run.record(wire::RecordRequest {
        tables,
        ..Default::default()
    })
    .await?;
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
                if !table.has_columns_of(planned) || table.to_string() != planned.to_string() =>
            {
                changed.push(format!("{planned} has changed"));
            }
            // Format and order are the plan's: the digests of both ends are in them. The types of the columns are those that the
            // target's were made with.
            Some(table) => {
                *table = table.clone().in_order_of(planned);
                table.padded.clone_from(&planned.padded);
            }
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

/// The table of now, cut into parts as the loaded ones were.
fn cut_alike(entry: &TableEntry, now: &Table) -> Table {
    let before = &entry.table;
    Table {
        relation: before.relation.clone(),
        size_bytes: before.size_bytes,
        blocks: before.blocks,
        ..now.clone()
    }
}

/// The table of large objects' pages of a source that has none of them any more.
pub fn without_large_objects(planned: &Table) -> Table {
    Table {
        relation: Relation::LargeObjects {
            objects: 0,
            slices: Vec::new(),
        },
        size_bytes: 0,
        ..planned.clone()
    }
}

/// Tables that are unlogged, where the target server restarted since they were loaded.
async fn empty_void(run: &mut Run, snapshot: &str) -> anyhow::Result<()> {
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
        let snapshot = snapshot.to_owned();
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
pub fn renewed_steps(run: &Run, inventory: &Inventory) -> Vec<Step> {
    let mut values: Vec<SequenceValue> = Vec::new();
    for work in &inventory.works {
        if let Work::Sequences { values: some } = work {
            values.extend(some.iter().cloned());
        }
    }
    // All of them with the first step.
    let mut sequences = || Work::Sequences {
        values: std::mem::take(&mut values),
    };
    let found = |is: fn(&Work) -> bool, none: Work| {
        let mut works = inventory.works.iter();
        works.find(|work| is(work)).cloned().unwrap_or(none)
    };
    let mut renewed = Vec::new();
    for entry in &run.ledger.steps {
        let work = match &entry.step.work {
            Work::Sequences { .. } => sequences(),
            Work::LargeObjects { .. } => found(
                |work| matches!(work, Work::LargeObjects { .. }),
                Work::LargeObjects {
                    access: Vec::new(),
                    notes: Vec::new(),
                },
            ),
            Work::Refresh { .. } => found(
                |work| matches!(work, Work::Refresh { .. }),
                Work::Refresh { views: Vec::new() },
            ),
            // What it is computed from may have changed.
            work @ (Work::Derive(_) | Work::ManagedKeys) => work.clone(),
            _ => continue,
        };
        let number = entry.step.number;
        renewed.push(Step { number, work });
    }
    renewed
}
