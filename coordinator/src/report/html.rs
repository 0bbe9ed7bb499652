//! The report as one file that needs no other: for the mail to those who decide. Everything in it comes from the ledger, and everything is
//! escaped.
use pgconvoy_proto::model::{
    ACCESS_COMPARED, CHECKS_RUN, Finding, SCHEMA_COMPARED, Severity, TOLD,
};
use serde_json::Value;

use super::{
    application as application_steps, crossed_text, objects_text, state, steps_text, verdict_text,
};
use crate::ledger::{Ledger, TableEntry};
use crate::text::bytes;
use crate::verdict::Verdict;
use crate::{access, checks, platform, schema};

const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1b1b1f; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { display: inline-block; padding: .3rem .8rem; border-radius: .4rem; font-weight: 600; background: #e4e4ea; }
.good { background: #d3f2dc; } .bad { background: #fbd9d7; } .warn { background: #fdeec7; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #ddd; vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } code, pre { font: 12px/1.5 ui-monospace, monospace; }
@media (prefers-color-scheme: dark) { body { background: #17171b; color: #e6e6ea; } td, th { border-color: #3a3a42; }
  .verdict { background: #3a3a42; } .good { background: #1d4a2b; } .bad { background: #5a2320; } .warn { background: #54420f; } }";

pub fn html(ledger: &Ledger) -> String {
    let body = [
        head(ledger),
        tables(ledger),
        checks_table(ledger),
        access_section(ledger),
        findings(ledger),
        work(ledger),
        application(ledger),
        outside(ledger),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>pgconvoy migration {id}</title><style>{STYLE}</style></head>\n<body>\n{}\n</body></html>\n",
        body.concat(),
        id = escape(&ledger.id),
    )
}

fn head(ledger: &Ledger) -> String {
    let class = match ledger.verdict {
        Some(Verdict::Proven) => "good",
        Some(Verdict::Differs | Verdict::Failed) => "bad",
        _ => "warn",
    };
    let ended = match ledger.finished_at.as_str() {
        "" => "not yet",
        at => at,
    };
    let row =
        |name: &str, value: &str| format!("<tr><th>{name}</th><td>{}</td></tr>", escape(value));
    let rows = [
        row("migration", &ledger.id),
        row("from", &ledger.source),
        row("to", &ledger.target),
        row("begun", &ledger.created_at),
        row("ended", ended),
        row("this report", &jiff::Timestamp::now().to_string()),
    ];
    format!(
        "<h1>pgconvoy: a migration of PostgreSQL</h1>\n<p class=\"verdict {class}\">{}</p>\n<table>{}</table>\n",
        escape(&verdict_text(ledger)),
        rows.concat()
    )
}

fn tables(ledger: &Ledger) -> String {
    let row = |entry: &TableEntry| {
        let source = entry.source();
        let class = match state(entry) {
            "DIFFERS" => "bad",
            _ => "",
        };
        format!(
            "<tr class=\"{class}\"><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td><code>{}</code></td><td><code>{}</code></td><td>{}</td></tr>\n",
            escape(&entry.table.to_string()),
            source.rows,
            bytes(source.bytes),
            source.hex(),
            entry
                .target
                .map_or_else(|| "not read".into(), |digest| digest.hex()),
            state(entry),
        )
    };
    let rows: String = ledger.tables.iter().map(row).collect();
    let all: u64 = ledger.tables.iter().map(|entry| entry.source().rows).sum();
    format!(
        "<h2>{} tables, {all} rows</h2>\n<table><tr><th>table</th><th>rows</th><th>data</th><th>digest at source</th>\
         <th>digest at target</th><th></th></tr>\n{rows}</table>\n<p>{}</p>\n<p>{}</p>\n",
        ledger.tables.len(),
        escape(objects_text(ledger).trim()),
        escape(
            schema::text(ledger)
                .trim()
                .trim_start_matches("schema")
                .trim()
        )
    )
}

fn checks_table(ledger: &Ledger) -> String {
    let Value::Array(all) = checks::json(ledger) else {
        return String::new();
    };
    let text = |value: &Value| escape(value.as_str().unwrap_or_default());
    let row = |check: &Value| {
        let (class, word) = if check["holds"] == true {
            ("", "holds")
        } else {
            ("bad", "FAILS")
        };
        format!(
            "<tr class=\"{class}\"><td>{}</td><td>{}</td><td>{}</td><td>{word}</td></tr>\n",
            text(&check["name"]),
            text(&check["expect"]),
            text(&check["at"])
        )
    };
    let rows: String = all.iter().map(row).collect();
    format!(
        "<h2>Business checks</h2>\n<table><tr><th>check</th><th>expects</th><th>at</th><th></th></tr>\n{rows}</table>\n"
    )
}

fn access_section(ledger: &Ledger) -> String {
    let told = access::json(ledger);
    let Some(summary) = told["summary"].as_str() else {
        return String::new();
    };
    let class = match told["different"].as_u64() {
        Some(0) => "",
        _ => "bad",
    };
    format!(
        "<h2>Row level security</h2>\n<p class=\"{class}\">{}</p>\n",
        escape(summary)
    )
}

fn findings(ledger: &Ledger) -> String {
    let ours = [SCHEMA_COMPARED, TOLD, CHECKS_RUN, ACCESS_COMPARED];
    let told = ledger.findings.iter();
    let mut told: Vec<&Finding> = told.filter(|f| !ours.contains(&f.code.as_str())).collect();
    if told.is_empty() {
        return "<h2>Findings</h2>\n<p>none</p>\n".into();
    }
    told.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let row = |finding: &&Finding| {
        let class = match finding.severity {
            Severity::Info => "",
            Severity::Warning => "warn",
            Severity::Difference | Severity::Blocker => "bad",
        };
        let values = [&finding.source_value, &finding.target_value].map(|value| escape(value));
        format!(
            "<tr><td class=\"{class}\">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            finding.severity.as_str(),
            escape(&finding.object),
            escape(&finding.message),
            values[0],
            values[1],
            escape(&finding.hint)
        )
    };
    let rows: String = told.iter().map(row).collect();
    format!(
        "<h2>Findings</h2>\n<table><tr><th></th><th>object</th><th>what</th><th>source</th><th>target</th>\
         <th>what to do</th></tr>\n{rows}</table>\n"
    )
}

fn work(ledger: &Ledger) -> String {
    let text = format!("{}{}", steps_text(ledger), crossed_text(ledger));
    format!("<h2>What was done</h2>\n<pre>{}</pre>\n", escape(&text))
}

/// What a platform keeps outside of the database.
fn outside(ledger: &Ledger) -> String {
    let list = platform::checklist_json(ledger);
    let Some(items) = list["not_in_the_database"].as_array() else {
        return String::new();
    };
    let text = |value: &Value| escape(value.as_str().unwrap_or_default());
    let item = |told: &Value| {
        format!(
            "<tr><td><input type=\"checkbox\"></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            text(&told["what"]),
            text(&told["found"]),
            text(&told["message"]),
            text(&told["hint"])
        )
    };
    let items: String = items.iter().map(item).collect();
    format!(
        "<h2>Not in the database, for you to do ({})</h2>\n<table>{items}</table>\n",
        text(&list["platform"])
    )
}

fn application(ledger: &Ledger) -> String {
    let items = application_steps(ledger).map(|step| format!("<li>{}</li>\n", escape(step)));
    format!(
        "<h2>What is left to do at the application</h2>\n<ol>{}</ol>\n",
        items.collect::<String>()
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_become_markup() {
        assert_eq!(
            escape("<a href='x'>&\""),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;"
        );
    }
}
