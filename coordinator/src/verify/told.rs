//! What a verification says: the report, a line for people, the last line for a script.
use pgconvoy_proto::model::{Finding, Severity, Table};
use serde_json::json;

use super::Asked;
use crate::ends::Ends;
use crate::events::Reporter;
use crate::ledger::Ledger;
use crate::left_out::LeftOut;
use crate::run_dir::RunDir;
use crate::verdict::Verdict;
use crate::{Ended, checks, report, text};

/// The last line of stdout, for a script: `verdict=proven tables=12 differences=0 warnings=0 checks=5 checks_failed=0`.
/// Behind it, where that is so: ` files=2000`, ` skipped=data,rls`.
pub fn last_line(
    verdict: Verdict,
    (tables, files): (usize, Option<u64>),
    left_out: LeftOut,
    findings: &[Finding],
    reporter: &Reporter,
) {
    let failed = findings
        .iter()
        .filter(|f| f.code == "check-failed" || f.code == "check-not-run")
        .count();
    let files = files.map_or_else(String::new, |files| format!(" files={files}"));
    let skipped = match left_out.is_nothing() {
        true => String::new(),
        false => format!(" skipped={}", left_out.names().join(",")),
    };
    let line = format!(
        "verdict={verdict} tables={tables} differences={} warnings={} checks={} checks_failed={failed}{files}{skipped}\n",
        count_of(Severity::Difference, findings),
        count_of(Severity::Warning, findings),
        checks::count(findings),
    );
    reporter.quiet();
    crate::show(reporter, &line);
}

/// Writes the report into the run folder, and tells.
pub async fn tell(
    asked: &Asked<'_>,
    ends: &mut Ends,
    dir: &RunDir,
    (tables, files): (&[Table], Option<u64>),
    findings: &[Finding],
    verdict: Verdict,
    reporter: &Reporter,
) -> Ended {
    let ledger = Ledger::read(&mut ends.target, Some(&asked.ledger.id)).await?;
    let mut json = report::json(&ledger);
    json["skipped"] = json!(asked.left_out.names());
    dir.write_report(&ledger, &json, reporter);
    reporter.quiet();
    if asked.verbose {
        reporter.line(&report::text(&ledger));
    }
    let bytes = ledger
        .tables
        .iter()
        .filter(|entry| tables.iter().any(|table| table.oid == entry.table.oid))
        .map(|entry| entry.source().bytes)
        .sum();
    let compared = match asked.left_out.data {
        true => "definitions".to_owned(),
        false => format!(
            "{} tables, {} of COPY data{}",
            tables.len(),
            text::bytes(bytes),
            files.map_or_else(String::new, |files| format!(" and {files} files"))
        ),
    };
    reporter.line(&format!(
        "{verdict}: {compared} compared, {} differences{}",
        count_of(Severity::Difference, findings),
        asked.left_out.words()
    ));
    let counted = (tables.len(), files);
    last_line(verdict, counted, asked.left_out, findings, reporter);
    Ok((verdict, json))
}

/// Rows are counted with their table.
fn count_of(severity: Severity, findings: &[Finding]) -> usize {
    let of = findings.iter().filter(|f| f.severity == severity);
    of.filter(|f| !f.code.starts_with("row-")).count()
}
