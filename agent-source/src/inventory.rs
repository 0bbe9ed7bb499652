//! Opens the migration's snapshot and tells the coordinator what it holds.
use std::sync::Arc;
use std::time::Duration;

use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::facts;
use pgconvoy_agent_core::inventory::access::Found;
use pgconvoy_agent_core::inventory::{access, addresses, built, large_objects, roles, system};
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::snapshot::{Scope, Snapshot};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{
    Access, Entry, Finding, Relation, RoleChoice, Selection, Severity, Table, Work, to_json,
};
use pgconvoy_proto::selection::{Filter, Unread};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::inventory_item::Item;
use tokio::sync::mpsc;
use tonic::Status;

use crate::position;
use crate::snapshots::Snapshots;

/// Owners and grants of so many objects make one step: one transaction at the target.
const ACCESS_PER_STEP: usize = 500;

struct Inventory {
    tables: Vec<Table>,
    works: Vec<Work>,
    findings: Vec<Finding>,
    skipped: Vec<Entry>,
}

pub struct Opening {
    pub migration: String,
    pub selection: Selection,
    pub lease: Option<Duration>,
    pub roles: RoleChoice,
    /// Of a platform.
    pub unread: Unread,
}

pub async fn open(
    database: Database,
    snapshots: Snapshots,
    opening: Opening,
    items: mpsc::Sender<Result<wire::InventoryItem, Status>>,
) -> Result<(), Status> {
    let Opening {
        migration,
        selection,
        lease,
        roles,
        unread,
    } = opening;
    snapshots.close(&migration);
    let filter = || Filter::new(&selection).map_err(|e| Status::invalid_argument(e.to_string()));
    let application = format!("pgconvoy {migration}");
    let scope = Scope::Selected(filter()?, unread.clone());
    let snapshot = Arc::new(Snapshot::open(&database, &application, &scope).await?);
    let failed = |error| status::postgres("reading the catalogs", &error);
    let (inventory, position) = {
        let session = snapshot.holder().await?;
        let position = position::of_snapshot(&session, &snapshot.tables)
            .await
            .map_err(failed)?;
        let mut inventory = read(&session, &filter()?, &unread, snapshot.tables.clone())
            .await
            .map_err(failed)?;
        let beside = beside(&session, &inventory.skipped, &selection, roles);
        inventory.works.extend(beside.await.map_err(failed)?);
        (inventory, position)
    };
    let header = wire::SnapshotHeader {
        snapshot: snapshot.id.clone(),
        database: database.describe(),
        server_version: snapshot.holder().await?.server_version(),
        machine: facts::machine(&database).unwrap_or_default(),
    };
    snapshots.keep(&migration, snapshot, position, lease);

    let items_of = std::iter::once(Item::Header(header))
        .chain(
            inventory
                .tables
                .into_iter()
                .map(|table| Item::Table(table.into())),
        )
        .chain(inventory.works.iter().map(|work| Item::Work(to_json(work))))
        .chain(
            inventory
                .findings
                .into_iter()
                .map(|finding| Item::Finding(finding.into())),
        )
        .chain(
            inventory
                .skipped
                .into_iter()
                .map(|entry| Item::Skipped(entry.into())),
        );
    for item in items_of {
        if items
            .send(Ok(wire::InventoryItem { item: Some(item) }))
            .await
            .is_err()
        {
            tracing::info!(
                migration,
                "the coordinator left while it was sent the inventory"
            );
            break;
        }
    }
    Ok(())
}

async fn read(
    session: &Session,
    filter: &Filter,
    unread: &Unread,
    tables: Vec<Table>,
) -> Result<Inventory, tokio_postgres::Error> {
    let excluded = built::excluded_relations(session, filter).await?;
    let skipped = built::skipped_entries(session, filter, &excluded).await?;
    let mut works = built::indexes(session, &excluded).await?;
    let (keys, mut findings) = built::foreign_keys(session, &excluded).await?;
    works.extend(keys.into_iter().map(Work::ForeignKey));

    let views = built::materialized_views(session, &excluded).await?;
    if !views.is_empty() {
        works.push(Work::Refresh { views });
    }
    let values = built::sequences(session, &excluded, unread).await?;
    works.extend(
        values
            .chunks(ACCESS_PER_STEP)
            .map(|v| Work::Sequences { values: v.to_vec() }),
    );
    works.extend(access_steps(session, &excluded).await?);
    let columns = built::nullable_children(session, &excluded).await?;
    if !columns.is_empty() {
        works.push(Work::DropNotNull { columns });
    }
    if tables.iter().any(|table| table.relation != Relation::Table) {
        works.push(Work::LargeObjects {
            access: large_objects::shared_access(session).await?,
            notes: large_objects::notes(session).await?,
        });
    }
    findings.extend(large_objects_left_out(session, filter).await?);
    findings.extend(addresses::findings(session, filter).await?);
    works.push(Work::PostData {
        made: access::late_objects(session).await?,
    });
    for (schema, name) in built::partitioned_tables(session, &excluded).await? {
        works.push(Work::Statistics {
            schema,
            name,
            partitioned: true,
        });
    }
    Ok(Inventory {
        tables,
        works,
        findings,
        skipped,
    })
}

async fn large_objects_left_out(
    session: &Session,
    filter: &Filter,
) -> Result<Option<Finding>, tokio_postgres::Error> {
    if filter.admits_large_objects() {
        return Ok(None);
    }
    let message = match large_objects::count(session).await? {
        0 => return Ok(None),
        count => format!("{count} large objects are left out: they are of no schema and no table"),
    };
    Ok(Some(
        Finding::new(
            Severity::Info,
            "large-objects-left-out",
            "large objects",
            message,
        )
        .hint("a migration without --include-* and --exclude-* carries them"),
    ))
}

/// The roles that were asked for, and what the database has beside its objects; grants on PostgreSQL's own ones when nothing is left out.
async fn beside(
    session: &Session,
    skipped: &[Entry],
    selection: &Selection,
    choice: RoleChoice,
) -> Result<Vec<Work>, tokio_postgres::Error> {
    let found = access::read(session).await?;
    let skipped = skipped.iter().copied().collect();
    let whole = selection.is_everything();
    let needed = roles::needed(session, found.iter(), &skipped, whole).await?;
    let mut works = vec![
        Work::Roles(roles::choose(session, choice, &needed).await?),
        Work::Database(roles::properties(session, whole).await?),
    ];
    if whole {
        let changes = system::changed(session).await?;
        if !changes.is_empty() {
            works.push(Work::SystemGrants { changes });
        }
    }
    Ok(works)
}

async fn access_steps(
    session: &Session,
    excluded: &std::collections::HashSet<u32>,
) -> Result<Vec<Work>, tokio_postgres::Error> {
    let mut found = access::read(session).await?;
    found.retain(|found| found.relation.is_none_or(|oid| !excluded.contains(&oid)));
    // What may be made late is seen to twice: before the rows, if it is there, and after post-data.
    let early: Vec<&Found> = found.iter().filter(|found| !found.late).collect();
    let late: Vec<&Found> = found
        .iter()
        .filter(|found| found.late || found.may_be_late)
        .collect();
    let steps = |late: bool, found: Vec<&Found>| {
        let objects: Vec<Access> = found
            .into_iter()
            .map(|found| found.access.clone())
            .collect();
        objects
            .chunks(ACCESS_PER_STEP)
            .map(|objects| Work::Access {
                late,
                objects: objects.to_vec(),
            })
            .collect::<Vec<_>>()
    };
    Ok([steps(false, early), steps(true, late)].concat())
}
