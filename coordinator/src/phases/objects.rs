//! Files of storage buckets: after the rows and their indexes, which the target's Storage API needs; before the application's triggers, which
//! its writes would fire.
use std::time::Instant;

use pgconvoy_proto::model::Table;
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::target_digest_request::Keep;

use super::{Run, snapshot};
use crate::digest::Digester;
use crate::events::Event;
use crate::objects::{self, Brought, Carrier, Rows, TABLE};

/// Rows of files under the migration's snapshot, or, where that is gone by now, as they are: bytes are of now in any case.
async fn carrier(run: &Run) -> anyhow::Result<Carrier> {
    let alive = snapshot::is_alive(run).await?;
    if !alive {
        run.reporter
            .note("the snapshot is gone: files are copied as the source has them now");
    }
    let of = alive.then(|| run.ledger.snapshot.clone());
    Ok(Carrier::of(run, of.unwrap_or_default(), planned(run)))
}

fn planned(run: &Run) -> Rows {
    Rows::of(run.ledger.tables.iter().map(|entry| &entry.table))
}

pub async fn run(run: &mut Run) -> anyhow::Result<()> {
    let carrier = carrier(run).await?;
    let brought = bring(run, &carrier).await?;
    for finding in &brought.findings {
        run.reporter.emit(&Event::Finding(finding.clone()));
    }
    // What was told of files that an earlier run has copied still holds.
    let mut compared = objects::earlier(&run.ledger);
    compared.retain(|object| brought.looked_at.contains(object));
    run.record(wire::RecordRequest {
        findings: brought.findings.into_iter().map(Into::into).collect(),
        compared,
        ..Default::default()
    })
    .await?;
    if !run.ledger.options.no_verify {
        read_rows_again(run).await?;
    }
    run.refresh_ledger().await
}

/// Copies what is missing, and tells.
pub async fn bring(run: &mut Run, carrier: &Carrier) -> anyhow::Result<Brought> {
    let begun = Instant::now();
    let brought = carrier.bring().await?;
    run.files = Some(brought.files);
    run.reporter.emit(&Event::Files {
        files: brought.files,
        copied: brought.copied,
        bytes: brought.bytes,
        seconds: begun.elapsed().as_secs_f64(),
    });
    Ok(brought)
}

/// The API has written to the rows of files, and the target agent has put them right: that is to be seen in what is stored.
async fn read_rows_again(run: &Run) -> anyhow::Result<()> {
    if let Some(table) = rows(run) {
        Digester::of(run).target(&table, 0, Keep::Left).await?;
    }
    Ok(())
}

fn rows(run: &Run) -> Option<Table> {
    let mut tables = run.ledger.tables.iter().map(|entry| &entry.table);
    tables.find(|table| table.is(TABLE)).cloned()
}

/// Read back and compared, those that are not yet.
pub async fn prove(run: &mut Run) -> anyhow::Result<()> {
    let carrier = Carrier::of(run, String::new(), planned(run));
    let findings = carrier.prove_copied().await?;
    run.record_findings(findings).await
}
