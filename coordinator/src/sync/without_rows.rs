//! `sync --skip-data`: sequences are brought to where the source's stand, and the schemas are compared. No table is read or written.
//!
//! A sequence that somebody has moved at the target since the migration left it is not set back unasked: the application there would be given
//! numbers that it has used.
use std::time::Instant;

use pgconvoy_proto::model::{Finding, Severity, Work};
use pgconvoy_proto::wire;

use super::conclude::conclude;
use super::outcome::{self, Outcome};
use super::scope::Scope;
use super::{
    Asked, TARGET_WRITTEN, blocked, compare_definitions, follow, mark_begun, open, phase, proof,
    scope,
};
use crate::Ended;
use crate::inventory;
use crate::phases::Run;
use crate::schema::{self, Displaced, Sequences};
use crate::unknown;

pub async fn sync(run: &mut Run, asked: &Asked) -> Ended {
    let started = Instant::now();
    if let Some(open) = scope::opened(run, asked) {
        return blocked(run, vec![open]).await;
    }
    phase(run, "sync: sequences are compared");
    let coming = compare_definitions(run, asked, Sequences::Coming).await?;
    let others = moved_by_others(run, asked, &coming);
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
    mark_begun(run, asked, &Scope::default()).await?;
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

/// What somebody has moved at the target, of the sequences that this sync sets.
pub fn moved_by_others(run: &Run, asked: &Asked, coming: &schema::Compared) -> Vec<Finding> {
    // The ledger has what a sync that was interrupted was about to set; it has looked before that.
    if run.ledger.sync.is_some() {
        return Vec::new();
    }
    let whole = asked.selection.is_everything();
    let moved = coming.moved.iter().filter(|moved| whole || moved.owned);
    moved.map(moved_by_another).collect()
}

fn moved_by_another(moved: &Displaced) -> Finding {
    let message = "somebody has moved the sequence at the target since the migration left it: sync would set it back";
    Finding::new(Severity::Warning, TARGET_WRITTEN, &moved.sequence, message)
        .values(&moved.source, &moved.target)
        .hint("--force sets it to where the source's stands")
}
