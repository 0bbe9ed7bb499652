//! What the source holds, as its agent tells it when it opens a snapshot.
use pgconvoy_proto::model::{
    Entry, Finding, Options, REHEARSAL, RoleChoice, Roles, Table, Work, parse_json, required,
};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::inventory_item::Item;
use tokio_stream::StreamExt;

use crate::ends::{Ends, said};
use crate::{objects, platform};

#[derive(Debug, Default)]
pub struct Inventory {
    pub snapshot: String,
    pub database: String,
    pub server_version: u32,
    /// As in [`pgconvoy_proto::facts::ServerFacts`].
    pub machine: Option<String>,
    pub tables: Vec<Table>,
    pub works: Vec<Work>,
    pub findings: Vec<Finding>,
    pub skipped: Vec<Entry>,
}

impl Inventory {
    /// The target's Storage API gives each file a version of its own, and finds it by that.
    fn leave_out_versions(&mut self) {
        for table in &mut self.tables {
            if table.is(objects::TABLE) {
                table.columns.retain(|column| column != objects::VERSION);
            }
        }
    }

    /// Leaves of the roles what the target lacks.
    pub fn without_roles_of(mut self, target: &Roles) -> Self {
        for work in &mut self.works {
            if let Work::Roles(roles) = work {
                *roles = roles.missing_at(target);
            }
        }
        let idle = |work: &Work| matches!(work, Work::Roles(roles) if roles.is_empty());
        self.works.retain(|work| !idle(work));
        self
    }
}

/// How long a snapshot is kept for a coordinator that has gone away.
#[derive(Clone, Copy, Debug)]
pub enum Lease {
    /// Of a migration whose plan is in the ledger, for `resume`: as the source agent was told.
    Migration,
    /// Of what cannot be resumed: its locks make others wait.
    Short,
}

impl Lease {
    /// Of a migration that is carried out. A rehearsal is not resumed.
    pub fn of(migration: &str) -> Self {
        match migration.starts_with(REHEARSAL) {
            true => Self::Short,
            false => Self::Migration,
        }
    }
}

const SHORT_LEASE_SECONDS: u32 = 60;

/// What a snapshot is called that no migration's driver opens: nobody else's is closed for it.
pub fn own_key(purpose: &str) -> String {
    format!("{purpose}-{}", uuid::Uuid::now_v7().simple())
}

/// Opens a snapshot for the migration; an earlier one of its is closed. Of `options` what is selected, and the platform that the database
/// lives on: what is there is fitted to it.
pub async fn open(
    ends: &mut Ends,
    migration: &str,
    options: &Options,
    roles: RoleChoice,
    lease: Lease,
) -> anyhow::Result<Inventory> {
    let tenancy = options.tenancy.as_deref();
    let request = wire::OpenSnapshotRequest {
        managed_schemas: tenancy.map_or_else(Vec::new, |t| t.platform.managed_schemas.clone()),
        managed_tables: tenancy.map_or_else(Vec::new, platform::read_tables),
        migration: migration.into(),
        selection: Some(options.selection.clone().into()),
        roles: wire::RoleChoice::from(roles).into(),
        lease_seconds: match lease {
            Lease::Migration => 0,
            Lease::Short => SHORT_LEASE_SECONDS,
        },
    };
    let mut items = ends
        .source
        .open_snapshot(request)
        .await
        .map_err(said("source"))?
        .into_inner();
    let mut inventory = Inventory::default();
    while let Some(item) = items.next().await {
        match required(item.map_err(said("source"))?.item, "inventory item")? {
            Item::Header(header) => {
                inventory.snapshot = header.snapshot;
                inventory.database = header.database;
                inventory.server_version = header.server_version;
                inventory.machine = Some(header.machine).filter(|machine| !machine.is_empty());
            }
            Item::Table(table) => inventory.tables.push(table.try_into()?),
            Item::Work(work) => inventory.works.push(parse_json(&work)?),
            Item::Finding(finding) => inventory.findings.push(finding.try_into()?),
            Item::Skipped(entry) => inventory.skipped.push(entry.into()),
        }
    }
    anyhow::ensure!(
        !inventory.snapshot.is_empty(),
        "the source agent sent no snapshot"
    );
    if options.storage_objects {
        inventory.leave_out_versions();
    }
    if let Some(tenancy) = &options.tenancy {
        platform::fit(&mut inventory, tenancy);
    }
    Ok(inventory)
}

pub async fn close(ends: &mut Ends, migration: &str) -> anyhow::Result<()> {
    let request = wire::CloseSnapshotRequest {
        migration: migration.into(),
    };
    ends.source
        .close_snapshot(request)
        .await
        .map_err(said("source"))?;
    Ok(())
}
