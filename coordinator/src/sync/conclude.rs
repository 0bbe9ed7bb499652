//! How a sync ends: what it found and proved goes into the ledger, and is told.
use pgconvoy_proto::model::{
    Finding, OF_ACCESS, OF_CHECKS, OF_SCHEMA, Options, SYNC_ORPHANS, to_json,
};
use pgconvoy_proto::wire;
use serde_json::Value;

use super::outcome::{self, Outcome};
use super::{Asked, TARGET_WRITTEN, proof, scope};
use crate::events::Event;
use crate::phases::Run;
use crate::schema;
use crate::verdict::Verdict;
use crate::{Ended, objects, verify};

/// Writes down what came of it, and tells. `earlier`: what findings were about that were made anew.
pub async fn conclude(
    run: &mut Run,
    asked: &Asked,
    outcome: Outcome,
    mut findings: Vec<Finding>,
    earlier: Vec<String>,
    schema: &schema::Compared,
) -> Ended {
    findings.extend(schema.findings.iter().cloned());
    findings.extend(outcome.findings(&run.ledger));
    findings.extend(scope::without_rls(asked, &run.ledger));
    run.refresh_ledger().await?;
    // Foreign keys and files were looked at again, unless rows were left out.
    let with_data = !asked.left_out.data;
    let orphaned = match with_data {
        true => proof::earlier_orphans(&run.ledger),
        false => Vec::new(),
    };
    let mut lasting = verify::lasting(&run.ledger, schema);
    lasting.retain(|finding| finding.code != SYNC_ORPHANS);
    let carried = with_data && objects::are_carried(&run.ledger.options, &asked.selection)?;
    lasting.retain(|finding| !carried || !objects::is_about_file(finding));
    lasting.retain(|finding| !asked.left_out.is_about(finding));
    // Those of business checks, and of what users see, were told when these were run. What a check of `verify --checks` found was not.
    let mut told = OF_ACCESS.to_vec();
    if !run.ledger.options.checks.is_empty() {
        told.extend(OF_CHECKS);
    }
    let untold = lasting
        .iter()
        .filter(|finding| !told.contains(&finding.code.as_str()));
    for finding in findings.iter().chain(untold) {
        run.reporter.emit(&Event::Finding(finding.clone()));
    }
    let verdict = match verify::verdict(&findings, &lasting) {
        Verdict::Proven if asked.left_out.data => Verdict::Ok,
        verdict => verdict,
    };
    run.record(schema.entry()).await?;
    let names = outcome.tables.iter().map(|o| o.scanned.table.to_string());
    // The schema's objects are recorded by themselves.
    let of_rows = findings
        .iter()
        .filter(|finding| !OF_SCHEMA.contains(&finding.code.as_str()));
    let about = of_rows.map(|finding| finding.object.clone());
    // Sequences: tables are named anyway.
    let written = run.ledger.findings.iter();
    let written = written.filter(|f| f.code == TARGET_WRITTEN && asked.selection.is_everything());
    let written: Vec<String> = written.map(|finding| finding.object.clone()).collect();
    let of_files = match carried {
        true => objects::earlier(&run.ledger),
        false => Vec::new(),
    };
    run.record(wire::RecordRequest {
        findings: findings.iter().cloned().map(Into::into).collect(),
        compared: names
            .chain(about)
            .chain(written)
            .chain(orphaned)
            .chain(of_files)
            .chain(earlier)
            .collect(),
        ..Default::default()
    })
    .await?;
    run.refresh_ledger().await?;
    // A part of the tables does not prove the others, nor does anything else prove rows.
    let options = &run.ledger.options;
    let all = asked.selection.covers(&options.selection);
    let of_all = match run.ledger.differences() {
        0 if all && with_data && !asked.left_out.exceeds(options) => verdict,
        0 if options.no_verify || options.skip_data => Verdict::Unverified,
        0 => Verdict::Proven,
        _ => Verdict::Differs,
    };
    // Rows are there by now, and are compared like others'.
    let with_rows = options.skip_data && all && with_data;
    let options = with_rows.then(|| Options {
        skip_data: false,
        ..options.clone()
    });
    run.record(wire::RecordRequest {
        phase: "done".into(),
        verdict: of_all.as_str().into(),
        options: options.map_or_else(String::new, |options| to_json(&options)),
        ..Default::default()
    })
    .await?;
    run.refresh_ledger().await?;
    let json: Value = outcome::json(run, &outcome, &findings);
    outcome::tell(run, &outcome, verdict, &json);
    Ok((verdict, json))
}
