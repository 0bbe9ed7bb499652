//! `migrate --then-sync`: what the second step, the sync after the application was stopped, will take. Measured by doing all of it but the
//! changes, right after the copy.
use std::time::Instant;

use pgconvoy_proto::model::{Selection, SyncCounts, Work};
use serde_json::{Value, json};

use super::{Asked, apply, compare_schema, converger, open, outcome, scan, scope};
use crate::inventory::{self, Lease};
use crate::left_out::LeftOut;
use crate::phases::{Run, snapshot};
use crate::schema::Sequences;
use crate::text::duration;

/// Rows that a target takes in a second, one by one, with a few indexes: as measured on small servers.
const ROWS_PER_SECOND: f64 = 20_000.0;

/// What was measured, seconds.
struct Forecast {
    schema: f64,
    scan: f64,
    /// Finding out which rows differ.
    rows: f64,
    views: f64,
    changed: SyncCounts,
    tables_changed: usize,
}

impl Forecast {
    /// The schema is compared before and after, and what has changed is read once more.
    fn downtime(&self, tables: usize) -> f64 {
        let proof = self.scan * self.tables_changed as f64 / tables.max(1) as f64;
        let writing = self.changed.total() as f64 / ROWS_PER_SECOND;
        2.0 * self.schema + self.scan + self.rows + writing + self.views + proof
    }
}

/// Measures, tells, and answers for the JSON result.
pub async fn forecast(run: &mut Run) -> anyhow::Result<Value> {
    run.reporter
        .note("measuring what a sync takes: both ends are compared, nothing is changed");
    let measured = measure(run).await;
    // Whatever came of it: the snapshot holds locks at the source.
    inventory::close(&mut run.ends, &run.ledger.id).await?;
    let forecast = measured?;
    let downtime = forecast.downtime(run.ledger.tables.len());
    run.reporter.quiet();
    run.reporter.line(&text(&forecast, downtime));
    Ok(json!({
        "schema_seconds": forecast.schema, "scan_seconds": forecast.scan, "rows_seconds": forecast.rows,
        "views_seconds": forecast.views, "tables_changed": forecast.tables_changed,
        "rows_changed": forecast.changed.total(), "downtime_seconds": downtime,
    }))
}

async fn measure(run: &mut Run) -> anyhow::Result<Forecast> {
    let asked = Asked {
        selection: Selection::default(),
        skip_schema: false,
        left_out: LeftOut::default(),
        force: true,
        dry_run: true,
        storage_objects: false,
    };
    let begun = Instant::now();
    let schema = compare_schema(run, &asked, Sequences::Coming).await?;
    let of_schema = begun.elapsed().as_secs_f64();
    let inventory = open(run).await?;
    let _lease = snapshot::keep_alive(run.ends.source.clone(), run.ledger.id.clone(), Lease::Short);
    let scope = scope::find(run, &asked, &inventory, &schema).await?;
    let converger = converger(run, &inventory, true);
    let begun = Instant::now();
    let scanned = scan(&converger, &scope.tables).await?;
    let of_scan = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let outcomes = apply(&converger, scanned).await?;
    let refreshing = run
        .ledger
        .steps
        .iter()
        .filter(|entry| matches!(entry.step.work, Work::Refresh { .. }));
    Ok(Forecast {
        schema: of_schema,
        scan: of_scan,
        rows: begun.elapsed().as_secs_f64(),
        views: refreshing.map(|entry| entry.seconds).sum(),
        changed: outcome::total(&outcomes),
        tables_changed: outcomes.iter().filter(|o| !o.scanned.is_equal()).count(),
    })
}

fn text(forecast: &Forecast, downtime: f64) -> String {
    format!(
        "\ntwo steps\n  1  copied while the application was live: done\n  2  stop what writes to the source, then: pgconvoy sync\n     \
         estimated downtime: about {}, by what was measured just now:\n     \
         schema {}, twice; both ends compared in {}; {} rows of {} tables had changed since the copy, found in {}; \
         materialized views {}\n     then let the application use the target",
        duration(downtime),
        duration(forecast.schema),
        duration(forecast.scan),
        forecast.changed.total(),
        forecast.tables_changed,
        duration(forecast.rows),
        duration(forecast.views),
    )
}
