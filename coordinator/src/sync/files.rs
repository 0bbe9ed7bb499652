//! Files of storage buckets in a sync: those that the source has no row of any more go before their rows do, through the target's Storage API;
//! the others come after the rows.
use std::collections::HashSet;

use pgconvoy_proto::model::Finding;
use pgconvoy_proto::model::object::Object;
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::target_digest_request::Keep;

use super::outcome::TableOutcome;
use crate::converge::Converger;
use crate::digest::compare;
use crate::ends::{retry, said};
use crate::inventory::Inventory;
use crate::objects::{Carrier, Rows, TABLE, to_copy};
use crate::phases::Run;
use crate::phases::objects;

/// Files of one call.
const AT_ONCE: usize = 500;

fn carrier(run: &Run, inventory: &Inventory) -> Carrier {
    Carrier::of(run, inventory.snapshot.clone(), Rows::of(&inventory.tables))
}

/// About the table of files.
pub fn is_about_rows(finding: &Finding) -> bool {
    finding.object == format!("{}.{}", TABLE.0, TABLE.1)
}

/// What would be done.
pub async fn count(run: &Run, inventory: &Inventory) -> anyhow::Result<()> {
    let carrier = carrier(run, inventory);
    let gone = gone(&carrier).await?.len();
    let at_target = carrier.at_target(false).await?;
    let copied = to_copy(carrier.at_source().await?, &at_target).len();
    run.reporter.note(format!(
        "files: up to {copied} to copy, {gone} to delete; nothing was changed"
    ));
    Ok(())
}

async fn gone(carrier: &Carrier) -> anyhow::Result<Vec<Object>> {
    let at_source = carrier.at_source().await?.into_iter();
    let there: HashSet<Object> = at_source.map(|file| file.object).collect();
    let at_target = carrier.at_target(false).await?.into_iter();
    let gone = at_target.map(|(object, _)| object);
    Ok(gone.filter(|object| !there.contains(object)).collect())
}

/// The API finds a file by its row: after the row it could not be deleted.
pub async fn remove(run: &Run, inventory: &Inventory) -> anyhow::Result<()> {
    let gone = gone(&carrier(run, inventory)).await?;
    for some in gone.chunks(AT_ONCE) {
        let request = wire::RemoveObjectsRequest {
            migration: run.ledger.id.clone(),
            objects: some.iter().cloned().map(Into::into).collect(),
        };
        retry(&run.reporter, "deleting files at the target", || {
            let (mut target, request) = (run.ends.target.clone(), request.clone());
            async move { target.remove_objects(request).await }
        })
        .await
        .map_err(said("target"))?;
    }
    if !gone.is_empty() {
        run.reporter.note(format!("{} files deleted", gone.len()));
    }
    Ok(())
}

pub async fn bring(run: &mut Run, inventory: &Inventory) -> anyhow::Result<Vec<Finding>> {
    let carrier = carrier(run, inventory);
    Ok(objects::bring(run, &carrier).await?.findings)
}

/// The rows of files were written once more when those were uploaded; and the files are read back.
pub async fn prove(
    run: &Run,
    converger: &Converger,
    outcomes: &[TableOutcome],
    inventory: &Inventory,
) -> anyhow::Result<Vec<Finding>> {
    let carrier = carrier(run, inventory);
    // Where the proof of the rows had to copy them again, they have lost their files.
    carrier.at_target(true).await?;
    let mut findings = carrier.prove_copied().await?;
    let rows = outcomes.iter().map(|outcome| &outcome.scanned);
    for scanned in rows.filter(|scanned| scanned.table.is(TABLE)) {
        let digester = &converger.digester;
        let read = digester.target(&scanned.table, 0, Keep::Left).await?;
        let reporter = &digester.reporter;
        findings.extend(compare(
            reporter,
            &scanned.table,
            scanned.source.digest,
            read.digest,
        ));
    }
    Ok(findings)
}
