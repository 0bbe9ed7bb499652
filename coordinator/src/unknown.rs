//! Tables that somebody asks for by name and nobody has. Mistyped, such a name would be taken for one that was migrated, synced or proven:
//! that is told before anything is done.
use anyhow::bail;
use pgconvoy_proto::model::{Finding, Selection, Severity};
use pgconvoy_proto::selection;

use crate::inventory::Inventory;
use crate::ledger::Ledger;
use crate::preflight::Facts;

const CODE: &str = "table-unknown";
const HOW: &str =
    "schema.table, as pgconvoy report lists them; of a partitioned table its partitions";

/// For a migration: nothing that has rows is selected.
pub fn at_source(facts: &Facts, asked: &Selection) -> Option<Finding> {
    let named = &asked.include_table;
    let nothing = facts.source.tables == 0 && !named.is_empty();
    nothing.then(|| {
        let message = "no table of the source is called so";
        Finding::new(Severity::Blocker, CODE, named.join(", "), message)
            .hint("--include-table takes schema.table; of a partitioned table its partitions")
    })
}

/// For a sync: each name is a blocker.
pub fn findings(
    ledger: &Ledger,
    asked: &Selection,
    inventory: &Inventory,
) -> anyhow::Result<Vec<Finding>> {
    let finding = |glob: String| {
        let message = "no table of the migration or of the source is called so";
        Finding::new(Severity::Blocker, CODE, glob, message).hint(HOW)
    };
    let unknown = globs(ledger, asked, inventory)?;
    Ok(unknown.into_iter().map(finding).collect())
}

/// For a verification: an error.
pub fn refuse(ledger: &Ledger, asked: &Selection, inventory: &Inventory) -> anyhow::Result<()> {
    let unknown = globs(ledger, asked, inventory)?;
    if !unknown.is_empty() {
        bail!(
            "--include-table {}: no table of the migration or of the source is called so; nothing was compared ({HOW})",
            unknown.join(", ")
        );
    }
    Ok(())
}

fn globs(ledger: &Ledger, asked: &Selection, inventory: &Inventory) -> anyhow::Result<Vec<String>> {
    let planned = ledger.tables.iter().map(|entry| &entry.table);
    let tables = inventory.tables.iter().chain(planned);
    let names = tables.map(|table| (table.schema.as_str(), table.name.as_str()));
    Ok(selection::idle(asked, names)?)
}
