//! Tables that somebody asks for by name and nobody has. Mistyped, such a name would be taken for one that was migrated, synced or proven:
//! that is told before anything is done.
use anyhow::bail;
use pgconvoy_proto::model::{Finding, Selection, Severity, Table};
use pgconvoy_proto::selection::{self, Filter, Idle};

use crate::inventory::Inventory;
use crate::ledger::Ledger;
use crate::preflight::Facts;

const CODE: &str = "table-unknown";
const HOW: &str =
    "schema.table, as pgconvoy report lists them; of a partitioned table its partitions";

/// For a migration: a filter that nothing at the source answers to.
pub fn at_source(facts: &Facts, asked: &Selection) -> Vec<Finding> {
    let named = &asked.include_table;
    let idle = facts.source.idle_globs.iter();
    let mut found: Vec<Finding> = idle
        .map(|Idle { flag, glob }| {
            let (severity, code) = match flag.starts_with("include") {
                true => (Severity::Blocker, CODE),
                false => (Severity::Warning, "filter-idle"),
            };
            let message = format!("--{flag}: nothing of the source is called so");
            Finding::new(severity, code, glob.clone(), message)
                .hint("a table's name is schema.table, of a partitioned table its partitions'")
        })
        .collect();
    if found.is_empty() && facts.source.tables == 0 && !named.is_empty() {
        let message = "no table of the source is called so";
        found.push(
            Finding::new(Severity::Blocker, CODE, named.join(", "), message)
                .hint("--include-table takes schema.table; of a partitioned table its partitions"),
        );
    }
    found
}

/// For a sync: each name is a blocker.
pub fn findings(
    ledger: &Ledger,
    asked: &Selection,
    inventory: &Inventory,
) -> anyhow::Result<Vec<Finding>> {
    let finding = |idle: Idle| {
        let message = "no table of the migration or of the source is called so";
        Finding::new(Severity::Blocker, CODE, idle.glob, message).hint(HOW)
    };
    let unknown = idle(ledger, asked, inventory)?;
    Ok(unknown.into_iter().map(finding).collect())
}

/// For a verification: an error.
pub fn refuse(ledger: &Ledger, asked: &Selection, inventory: &Inventory) -> anyhow::Result<()> {
    let unknown = idle(ledger, asked, inventory)?;
    if let Some(Idle { flag, .. }) = unknown.first() {
        let globs: Vec<&str> = unknown.iter().map(|idle| idle.glob.as_str()).collect();
        bail!(
            "--{flag} {}: no table of the migration or of the source is called so; nothing was compared ({HOW})",
            globs.join(", ")
        );
    }
    Ok(())
}

/// What is asked for and nobody has. A schema may be there without a table: its name counts only where no table is left to look at.
fn idle(ledger: &Ledger, asked: &Selection, inventory: &Inventory) -> anyhow::Result<Vec<Idle>> {
    let planned = ledger.tables.iter().map(|entry| &entry.table);
    let tables: Vec<&Table> = inventory.tables.iter().chain(planned).collect();
    let filter = Filter::new(asked)?;
    let is_any = tables.iter().any(|t| filter.admits(&t.schema, &t.name));
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<(&str, &str)> = tables.iter().map(|t| (&*t.schema, &*t.name)).collect();
    let mut idle = selection::idle(asked, &schemas, &names)?;
    idle.retain(|idle| match idle.flag.as_str() {
        "include-table" => true,
        "include-schema" => !is_any,
        _ => false,
    });
    Ok(idle)
}
