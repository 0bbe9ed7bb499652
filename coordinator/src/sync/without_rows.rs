//! `sync --skip-data`: sequences are brought to where the source's stand, and the schemas are compared. No table is read or written.
//!
//! A sequence that somebody has moved at the target since the migration left it is not set back unasked: the application there would be given
//! numbers that it has used.
use std::time::Instant;

use pgconvoy_proto::model::{Finding, NOT_CALLED, Severity, Work};
use pgconvoy_proto::wire;

use super::conclude::conclude;
use super::outcome::{self, Outcome};
use super::{Asked, blocked, compare_definitions, follow, mark_begun, open, phase, proof, scope};
use crate::Ended;
use crate::inventory;
use crate::ledger::Ledger;
use crate::phases::Run;
use crate::schema::{self, Displaced, Sequences};
use crate::unknown;

pub async fn sync(run: &mut Run, asked: &Asked) -> Ended {
    let started = Instant::now();
    if let Some(open) = scope::opened(run, asked) {
        return blocked(run, vec![open]).await;
    }
    phase(run, "sync: sequences are compared");
    // Where sequences stand must be known also of a migration that has left definitions out.
    let others = match run.ledger.sync {
        None => {
            let mut moved = compare_definitions(run, asked, Sequences::AtSnapshot)
                .await?
                .moved;
            moved.retain(|moved| was_left_elsewhere(moved, &run.ledger));
            moved
        }
        // The ledger has what a sync that was interrupted was about to set; it has looked before that.
        Some(_) => Vec::new(),
    };
    let others: Vec<Finding> = others.iter().map(moved_by_another).collect();
    if asked.dry_run {
        let coming = compare_definitions(run, asked, Sequences::Now).await?.moved;
        return Ok(outcome::dry_run_of_sequences(run, &coming, others));
    }
    if !others.is_empty() && !asked.force {
        return blocked(run, others).await;
    }
    let inventory = open(run).await?;
    let unknown = unknown::findings(&run.ledger, &asked.selection, &inventory)?;
    if !unknown.is_empty() {
        return blocked(run, unknown).await;
    }
    mark_begun(run, asked, &[]).await?;
    phase(run, "sync: sequences");
    let mut steps = follow::renewed(run, asked, &inventory, &[])?;
    steps.retain(|step| matches!(step.work, Work::Sequences { .. }));
    let values = steps.iter().flat_map(|step| match &step.work {
        Work::Sequences { values } => values.as_slice(),
        _ => &[],
    });
    let sequences = values.filter(|value| !value.stays).count();
    run.record(wire::RecordRequest {
        steps: steps.into_iter().map(Into::into).collect(),
        ..Default::default()
    })
    .await?;
    run.refresh_ledger().await?;
    run.after_sync().await?;
    let position = proof::position(run, &inventory).await?;
    inventory::close(&mut run.ends, &run.ledger.id).await?;
    phase(run, "sync: the schema");
    let schema = super::compare_schema(run, asked, Sequences::AtSnapshot).await?;
    let outcome = Outcome {
        snapshot: inventory.snapshot,
        position,
        tables: Vec::new(),
        seconds: started.elapsed().as_secs_f64(),
        sequences: Some(sequences),
    };
    conclude(run, asked, outcome, others, Vec::new(), &schema).await
}

/// A sequence of which the ledger does not know where it was left has been used when it is not as it was made.
fn was_left_elsewhere(moved: &Displaced, ledger: &Ledger) -> bool {
    let is_known = schema::positions(ledger).contains_key(&moved.sequence);
    is_known || !moved.target.ends_with(NOT_CALLED)
}

fn moved_by_another(moved: &Displaced) -> Finding {
    let message = "somebody has moved the sequence at the target since the migration left it: sync would set it back";
    Finding::new(
        Severity::Warning,
        "target-written",
        &moved.sequence,
        message,
    )
    .values(&moved.source, &moved.target)
    .hint("sync --skip-data --force sets it to where the source's stands")
}
