//! Business checks: asked of the databases by their agents, judged here. What does not hold, and what could not be asked, is a finding:
//! neither is ever taken for a check that holds.
mod file;

use std::time::Instant;

use pgconvoy_proto::model::{
    Answer, At, CHECKS_RUN, Check, Expect, Finding, OF_CHECKS, Refusal, Rows, Severity, Why,
};
use pgconvoy_proto::wire;
use serde_json::{Value, json};

pub use file::read;

use crate::digest::Held;
use crate::ends::{Ends, retry, said};
use crate::events::{Event, Reporter};
use crate::ledger::Ledger;

/// A migration's own checks, and more; one of the same name takes its place. None is left out: a verdict that a check has spoilt is not
/// mended by asking something else.
pub fn with(own: &[Check], more: Vec<Check>) -> Vec<Check> {
    let kept = own
        .iter()
        .filter(|check| more.iter().all(|other| other.name != check.name));
    kept.cloned().chain(more.iter().cloned()).collect()
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Checked {
    /// The last one counts, and has every check as JSON.
    pub findings: Vec<Finding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Source,
    Target,
}

/// Runs the checks one by one: at the source under the snapshot, where one is held.
pub async fn run(
    ends: &Ends,
    checks: &[Check],
    held: Option<&Held>,
    reporter: &Reporter,
) -> anyhow::Result<Checked> {
    let mut checked = Checked::default();
    let mut told = Vec::new();
    for check in checks {
        let begun = Instant::now();
        let source = asked(check, End::Source).then_some(End::Source);
        let target = asked(check, End::Target).then_some(End::Target);
        let (source, target) = tokio::try_join!(
            ask_at(ends, check, source, held, reporter),
            ask_at(ends, check, target, held, reporter)
        )?;
        let found = judge(check, source.as_ref(), target.as_ref());
        told.push(json!({
            "name": check.name, "expect": check.expect, "at": check.at, "holds": found.is_none(),
            "source_rows": rows(source.as_ref()), "target_rows": rows(target.as_ref()),
            "seconds": begun.elapsed().as_secs_f64(),
        }));
        checked.findings.extend(found);
    }
    if !checks.is_empty() {
        let holding = checks.len() - checked.findings.len();
        let message = format!("{holding} of {} business checks hold", checks.len());
        let summary = Finding::new(Severity::Info, CHECKS_RUN, "business checks", message);
        checked
            .findings
            .push(summary.values(Value::from(told).to_string(), ""));
    }
    for finding in checked.findings.iter().filter(|f| f.code != CHECKS_RUN) {
        reporter.emit(&Event::Finding(finding.clone()));
    }
    if let Some(summary) = checked.findings.last() {
        reporter.note(summary.message.clone());
    }
    Ok(checked)
}

impl Checked {
    /// Into the ledger, in place of what earlier runs said.
    pub fn entry(&self, ledger: &Ledger) -> wire::RecordRequest {
        if self.findings.is_empty() {
            return wire::RecordRequest::default();
        }
        let earlier = ledger
            .findings
            .iter()
            .filter(|finding| is_of_checks(finding));
        wire::RecordRequest {
            findings: self.findings.iter().cloned().map(Into::into).collect(),
            compared: earlier.map(|finding| finding.object.clone()).collect(),
            ..Default::default()
        }
    }

    pub fn supersedes(&self, finding: &Finding) -> bool {
        !self.findings.is_empty() && is_of_checks(finding)
    }
}

fn is_of_checks(finding: &Finding) -> bool {
    OF_CHECKS.contains(&finding.code.as_str())
}

/// Has the source's server parse every check, before a migration begins: what is wrong there would be told at its end only. A check of the
/// target alone may speak of what the source does not have.
pub async fn parse_all(
    ends: &Ends,
    checks: &[Check],
    reporter: &Reporter,
) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for check in checks {
        let request = wire::CheckRequest {
            prepare_only: true,
            ..request(check)
        };
        let answer = ask(ends, End::Source, request, reporter).await?;
        let Answer::Refused(refusal) = answer else {
            continue;
        };
        if asked(check, End::Source) || matches!(refusal.why, Why::Syntax | Why::Writes) {
            findings.push(Finding {
                severity: Severity::Blocker,
                ..refused(check, &refusal, End::Source)
            });
        }
    }
    Ok(findings)
}

fn asked(check: &Check, end: End) -> bool {
    match check.at {
        At::Both => true,
        At::Source => end == End::Source,
        At::Target => end == End::Target,
    }
}

fn request(check: &Check) -> wire::CheckRequest {
    wire::CheckRequest {
        sql: check.sql.clone(),
        timeout_ms: check.timeout_ms,
        ..Default::default()
    }
}

async fn ask_at(
    ends: &Ends,
    check: &Check,
    end: Option<End>,
    held: Option<&Held>,
    reporter: &Reporter,
) -> anyhow::Result<Option<Answer>> {
    let Some(end) = end else {
        return Ok(None);
    };
    let mut request = request(check);
    if let (End::Source, Some(held)) = (end, held) {
        request.migration.clone_from(&held.key);
        request.snapshot.clone_from(&held.snapshot);
    }
    ask(ends, end, request, reporter).await.map(Some)
}

async fn ask(
    ends: &Ends,
    end: End,
    request: wire::CheckRequest,
    reporter: &Reporter,
) -> anyhow::Result<Answer> {
    let asked = retry(reporter, "a business check", || {
        let (mut ends, request) = (ends.clone(), request.clone());
        async move {
            match end {
                End::Source => ends.source.run_check(request).await,
                End::Target => ends.target.run_check(request).await,
            }
        }
    });
    let agent = match end {
        End::Source => "source",
        End::Target => "target",
    };
    let answer = asked.await.map_err(said(agent))?;
    Ok(answer.into_inner().try_into()?)
}

fn rows(answer: Option<&Answer>) -> Option<u64> {
    match answer {
        Some(Answer::Rows(rows)) => Some(rows.rows),
        Some(Answer::Refused(_)) | None => None,
    }
}

fn object(check: &Check) -> String {
    format!("check {}", check.name)
}

/// None: the check holds.
fn judge(check: &Check, source: Option<&Answer>, target: Option<&Answer>) -> Option<Finding> {
    let mut returned = Vec::new();
    for (end, answer) in [(End::Source, source), (End::Target, target)] {
        match answer {
            Some(Answer::Refused(refusal)) => return Some(refused(check, refusal, end)),
            Some(Answer::Rows(rows)) => returned.push((end, rows)),
            None => {}
        }
    }
    let problems: Vec<(End, String)> = match check.expect {
        Expect::Equal => return unequal(check, &returned),
        Expect::NoRows => returned
            .iter()
            .filter(|(_, rows)| rows.rows > 0)
            .map(|(end, rows)| (*end, some_rows(rows)))
            .collect(),
        Expect::AtLeast(least) => returned
            .iter()
            .filter_map(|(end, rows)| Some((*end, too_few(rows, least)?)))
            .collect(),
    };
    if problems.is_empty() {
        return None;
    }
    let at = |wanted: End| problems.iter().find(|(end, _)| *end == wanted);
    let value = |wanted| at(wanted).map_or_else(String::new, |(_, text)| text.clone());
    let what = match check.expect {
        Expect::NoRows => "it returns rows".to_owned(),
        _ => format!("it does not return one number that is {}", check.expect),
    };
    Some(
        Finding::new(Severity::Difference, "check-failed", object(check), what)
            .values(value(End::Source), value(End::Target))
            .hint(check.hint.clone()),
    )
}

fn some_rows(rows: &Rows) -> String {
    let more = if rows.rows > rows.first.len() as u64 {
        "..."
    } else {
        ""
    };
    format!("{} rows: {}{more}", rows.rows, rows.first.join(", "))
}

/// A count of a thousand rows is one row: only a number is compared, so that a check cannot hold by accident.
fn too_few(rows: &Rows, least: i64) -> Option<String> {
    let Some(single) = &rows.single else {
        return Some(format!("{} rows, not one number", rows.rows));
    };
    match single.parse::<f64>() {
        Ok(number) if number >= least as f64 => None,
        _ => Some(single.clone()),
    }
}

fn unequal(check: &Check, returned: &[(End, &Rows)]) -> Option<Finding> {
    let [(_, source), (_, target)] = returned else {
        return None;
    };
    if (source.rows, source.sum) == (target.rows, target.sum) {
        return None;
    }
    let value = |rows: &Rows| match &rows.single {
        Some(single) => single.clone(),
        None => format!("{} rows, {:032x}", rows.rows, rows.sum),
    };
    let what = "it returns something else at the other end";
    Some(
        Finding::new(Severity::Difference, "check-failed", object(check), what)
            .values(value(source), value(target))
            .hint(check.hint.clone()),
    )
}

fn refused(check: &Check, refusal: &Refusal, end: End) -> Finding {
    let place = match (check.line, refusal.line) {
        (_, None) => String::new(),
        (0, Some(line)) => format!(", line {line} of its statement"),
        (begins, Some(line)) => format!(", line {} of the file", begins + line - 1),
    };
    let limit = f64::from(check.timeout_ms) / 1000.0;
    let (what, hint) = match refusal.why {
        Why::Syntax => ("it cannot be parsed".to_owned(), "mend the statement"),
        Why::Writes => (
            "it would write, or is no query: refused".to_owned(),
            "a check is one SELECT that only reads",
        ),
        Why::Timeout => (
            format!("it did not end within {limit} s"),
            "give it a longer timeout, or make it cheaper",
        ),
        Why::Other => (
            "it could not be run".to_owned(),
            "names need their schema (public.orders): the search_path is empty",
        ),
    };
    let message = format!("{what}{place}: {}", refusal.message);
    let finding = Finding::new(
        Severity::Difference,
        "check-not-run",
        object(check),
        message,
    );
    match end {
        End::Source => finding.values("not run", ""),
        End::Target => finding.values("", "not run"),
    }
    .hint(hint)
}

/// For the report: every check of the last run.
pub fn json(ledger: &Ledger) -> Value {
    let run = ledger.findings.iter().find(|f| f.code == CHECKS_RUN);
    let Some(run) = run else {
        return Value::Null;
    };
    serde_json::from_str(&run.source_value).unwrap_or(Value::Null)
}

/// How many the run was of, whose findings these are.
pub fn count(findings: &[Finding]) -> usize {
    let run = findings.iter().find(|f| f.code == CHECKS_RUN);
    let told = run.and_then(|run| serde_json::from_str::<Vec<Value>>(&run.source_value).ok());
    told.map_or(0, |checks| checks.len())
}

pub fn text(ledger: &Ledger) -> String {
    let Value::Array(checks) = json(ledger) else {
        return String::new();
    };
    let mut text = String::from("\nbusiness checks\n");
    for check in &checks {
        let mark = if check["holds"] == true {
            "holds"
        } else {
            "FAILS"
        };
        let name = check["name"].as_str().unwrap_or_default();
        let expect = check["expect"].as_str().unwrap_or_default();
        text += &format!("  {mark}  {name} ({expect})\n");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(expect: Expect) -> Check {
        Check {
            name: "c".into(),
            sql: "SELECT 1".into(),
            line: 5,
            expect,
            at: At::Both,
            timeout_ms: 1500,
            hint: String::new(),
        }
    }

    fn one(value: &str) -> Answer {
        Answer::Rows(Rows {
            rows: 1,
            sum: 1,
            first: vec![value.into()],
            single: Some(value.into()),
        })
    }

    fn holds(expect: Expect, source: &Answer, target: &Answer) -> bool {
        judge(&check(expect), Some(source), Some(target)).is_none()
    }

    #[test]
    fn no_check_holds_by_accident() {
        let none = Answer::Rows(Rows::default());
        assert!(holds(Expect::NoRows, &none, &none));
        assert!(!holds(Expect::NoRows, &none, &one("7")));
        assert!(holds(Expect::AtLeast(5), &one("5"), &one("5.5")));
        assert!(!holds(Expect::AtLeast(5), &one("5"), &one("4")));
        assert!(!holds(Expect::AtLeast(1), &one("NaN"), &one("4")));
        assert!(
            !holds(Expect::AtLeast(0), &one("5"), &none),
            "no row is no number"
        );
        assert!(holds(Expect::Equal, &one("5"), &one("5")));
        assert!(!holds(Expect::Equal, &one("5"), &none));
    }

    #[test]
    fn a_refusal_names_the_line_of_the_file() {
        let refusal = Answer::Refused(Refusal {
            why: Why::Syntax,
            message: "syntax error".into(),
            line: Some(2),
        });
        let found = judge(&check(Expect::NoRows), Some(&one("1")), Some(&refusal)).unwrap();
        assert_eq!(found.code, "check-not-run");
        assert!(
            found.message.contains("line 6 of the file"),
            "{}",
            found.message
        );
    }
}
