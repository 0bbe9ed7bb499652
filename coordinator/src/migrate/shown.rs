//! A plan, shown.
use pgconvoy_proto::frame::THRIFTY;
use pgconvoy_proto::model::Table;
use serde_json::{Value, json};

use crate::effort::Effort;
use crate::events::Reporter;
use crate::plan::Plan;
use crate::preflight::Facts;
use crate::preflight::estimate::{self, SCAN_RATE};
use crate::text::{bytes, columns, duration};

/// For people, and as what `--json` answers.
pub fn show(
    plan: &Plan,
    facts: &Facts,
    effort: Effort,
    then_sync: bool,
    reporter: &Reporter,
) -> Value {
    let parts = |table: &Table| table.parts(plan.options.part_bytes).len();
    let mut rows = vec![
        ["table", "size", "parts", "format", "key"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(plan.tables.iter().map(|table| {
        let key = &table.columns[..table.key_columns];
        vec![
            table.to_string(),
            bytes(table.size_bytes),
            parts(table).to_string(),
            table.format.to_string(),
            if key.is_empty() {
                "none".into()
            } else {
                key.join(", ")
            },
        ]
    }));
    let rate = estimate::rate(&facts.link, effort.streams, effort.compression > 0);
    let seconds = plan.size_bytes() as f64 / rate;
    reporter.line(&columns(&rows));
    let steps = kinds(plan);
    if !steps.is_empty() {
        let steps: Vec<String> = steps
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        reporter.line(&format!("  steps: {}", steps.join(", ")));
    }
    reporter.line(&format!(
        "  {} tables, {}; {} streams, {} index jobs, compression {}; the rows take about {}",
        plan.tables.len(),
        bytes(plan.size_bytes()),
        effort.streams,
        effort.index_jobs,
        match effort.compression {
            0 => "off".into(),
            THRIFTY => "of what shrinks a lot".into(),
            level => format!("zstd {level}"),
        },
        duration(seconds),
    ));
    if then_sync {
        reporter.line(&format!(
            "  then: stop what writes to the source, and pgconvoy sync: about {} for both ends to be compared, and the rows that \
             changed meanwhile (migrate --then-sync measures it)",
            duration(plan.size_bytes() as f64 / SCAN_RATE)
        ));
    }
    reporter.note("a plan: nothing was changed");
    let tables: Vec<_> = plan
        .tables
        .iter()
        .map(|table| {
            json!({
                "schema": table.schema, "table": table.name, "size_bytes": table.size_bytes,
                "parts": parts(table), "format": table.format,
                "key": table.columns[..table.key_columns], "columns": table.columns,
            })
        })
        .collect();
    let steps: Vec<_> = plan
        .steps
        .iter()
        .map(|step| json!({ "kind": step.work.kind(), "object": step.work.object() }))
        .collect();
    json!({
        "tables": tables, "steps": steps, "findings": plan.findings, "estimate_seconds": seconds,
        "streams": effort.streams, "index_jobs": effort.index_jobs, "compression": effort.compression,
    })
}

/// How many steps there are of each kind, in the order in which the first of each comes.
fn kinds(plan: &Plan) -> Vec<(&'static str, usize)> {
    let mut kinds: Vec<(&str, usize)> = Vec::new();
    for step in &plan.steps {
        let kind = step.work.kind();
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((kind, 1)),
        }
    }
    kinds
}
