//! What was migrated and how it compares: from the ledger alone, for people and for machines.
mod html;

use pgconvoy_proto::model::{ACCESS_COMPARED, CHECKS_RUN, SCHEMA_COMPARED, Severity, TOLD};
use serde_json::{Value, json};

use crate::events::finding_text;
use crate::ledger::{Ledger, TableEntry};
use crate::text::{bytes, columns, duration};
use crate::{access, checks, platform, schema};

pub use html::html;

/// The verdict in words, with what else must be known.
pub fn verdict_text(ledger: &Ledger) -> String {
    let Some(verdict) = ledger.verdict else {
        return format!("unfinished, in phase {}: run pgconvoy resume", ledger.phase);
    };
    let count = |code: &str| ledger.findings.iter().filter(|f| f.code == code).count();
    let mut notes = Vec::new();
    match count("foreign-key-orphans") {
        0 => {}
        1 => notes
            .push("1 foreign key is left NOT VALID, for orphans that the source has too".into()),
        n => notes.push(format!(
            "{n} foreign keys are left NOT VALID, for orphans that the source has too"
        )),
    }
    match ledger.warnings() {
        0 => {}
        1 => notes.push("1 warning".into()),
        n => notes.push(format!("{n} warnings")),
    }
    match ledger.differences() {
        0 => {}
        1 => notes.push("1 difference".into()),
        n => notes.push(format!("{n} differences")),
    }
    if notes.is_empty() {
        verdict.to_string()
    } else {
        format!("{verdict}; {}", notes.join("; "))
    }
}

pub fn text(ledger: &Ledger) -> String {
    let mut text = format!(
        "pgconvoy migration {}\n  from    {}\n  to      {}\n  begun   {}\n  ended   {}\n  verdict {}\n\n",
        ledger.id,
        ledger.source,
        ledger.target,
        ledger.created_at,
        if ledger.finished_at.is_empty() {
            "not yet"
        } else {
            &ledger.finished_at
        },
        verdict_text(ledger),
    );
    let mut rows = vec![
        [
            "table",
            "rows",
            "data",
            "format",
            "parts",
            "digest at source",
            "digest at target",
            "",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    rows.extend(ledger.tables.iter().map(table_row));
    text += &columns(&rows);
    let (rows, data) = ledger.tables.iter().fold((0, 0), |(rows, data), entry| {
        let source = entry.source();
        (rows + source.rows, data + source.bytes)
    });
    text += &format!(
        "\n  {} tables, {rows} rows, {} of COPY data\n",
        ledger.tables.len(),
        bytes(data)
    );
    text += &objects_text(ledger);
    text += &steps_text(ledger);
    text += &crossed_text(ledger);
    text += &schema::text(ledger);
    text += &checks::text(ledger);
    text += &access::text(ledger);
    let mut findings = ledger.findings.clone();
    let ours = [SCHEMA_COMPARED, TOLD, CHECKS_RUN, ACCESS_COMPARED];
    findings.retain(|finding| !ours.contains(&finding.code.as_str()));
    if !findings.is_empty() {
        text += "\nfindings\n";
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        for finding in &findings {
            text += &finding_text(finding);
            text.push('\n');
        }
    }
    text += &application_text(ledger);
    text + &platform::checklist(ledger)
}

const ADDRESS_IN_CODE: &str = "address-in-code";

/// What an application needs after the database has moved; the database cannot do it.
const APPLICATION: &[&str] = &[
    "Change the database's address in the application's settings (NEXT_PUBLIC_SUPABASE_URL, DATABASE_URL and the like), and every key that \
     belongs to the old place (NEXT_PUBLIC_SUPABASE_ANON_KEY, service role keys, JWT secrets).",
    "Look at the functions and triggers with an address or a key in them (address-in-code, above).",
    "Build and deploy the application; end the maintenance mode.",
    "Enable scheduled jobs and subscriptions at the target, when those of the source are stopped.",
    "Test: sign in, roles, the core functions, real-time features.",
    "Watch the target for 24 to 48 hours: pgconvoy monitor. Then pgconvoy clean.",
];

/// Those that this migration leaves: none of code with addresses, where there is none.
fn application(ledger: &Ledger) -> impl Iterator<Item = &'static str> {
    let told = ledger
        .findings
        .iter()
        .any(|finding| finding.code == ADDRESS_IN_CODE);
    let steps = APPLICATION.iter().copied();
    steps.filter(move |step| told || !step.contains(ADDRESS_IN_CODE))
}

fn application_text(ledger: &Ledger) -> String {
    if ledger.verdict.is_none() {
        return String::new();
    }
    let steps = application(ledger).zip(1..);
    let lines: Vec<String> = steps.map(|(step, n)| format!("  {n}. {step}\n")).collect();
    format!("\nleft to do at the application\n{}", lines.concat())
}

fn table_row(entry: &TableEntry) -> Vec<String> {
    let source = entry.source();
    let target = entry.target;
    vec![
        entry.table.to_string(),
        source.rows.to_string(),
        bytes(source.bytes),
        entry.table.format.to_string(),
        entry.parts.len().to_string(),
        source.hex(),
        target.map_or_else(|| "not read".into(), |digest| digest.hex()),
        state(entry).to_owned(),
    ]
}

fn state(entry: &TableEntry) -> &'static str {
    match entry.target {
        None => "",
        Some(target) if target == entry.source() => "equal",
        Some(_) => "DIFFERS",
    }
}

/// Files of storage buckets, when any were carried.
fn objects_text(ledger: &Ledger) -> String {
    let Some(objects) = ledger.objects else {
        return String::new();
    };
    let mut text = format!(
        "  {} files of storage buckets, {}, in {}: {} read back and equal",
        objects.copied,
        bytes(objects.bytes),
        duration(objects.seconds),
        objects.proven
    );
    if objects.missing > 0 {
        text += &format!("; {} rows without a file at the source", objects.missing);
    }
    if objects.refused > 0 {
        text += &format!("; {} NOT TAKEN by the target", objects.refused);
    }
    text + "\n"
}

fn crossed_text(ledger: &Ledger) -> String {
    let mut text = String::new();
    for crossed in &ledger.crossed {
        let (parts, syncs) = (bytes(crossed.parts), bytes(crossed.syncs));
        let snapshot = &crossed.snapshot;
        text += &match (crossed.parts, crossed.syncs) {
            (_, 0) => format!("  snapshot {snapshot}: {parts} over the network\n"),
            (0, _) => format!("  snapshot {snapshot}: {syncs} over the network, to sync\n"),
            _ => format!(
                "  snapshot {snapshot}: {parts} over the network, and {syncs} to sync what was loaded before\n"
            ),
        };
    }
    text
}

fn steps_text(ledger: &Ledger) -> String {
    let mut kinds: Vec<(&str, usize, usize)> = Vec::new();
    for entry in &ledger.steps {
        let kind = entry.step.work.kind();
        let at = kinds
            .iter()
            .position(|(name, ..)| *name == kind)
            .unwrap_or_else(|| {
                kinds.push((kind, 0, 0));
                kinds.len() - 1
            });
        kinds[at].1 += usize::from(entry.is_done());
        kinds[at].2 += 1;
    }
    let mut text = String::new();
    for (kind, done, all) in kinds {
        text += &format!("  {kind}: {done} of {all} done\n");
    }
    for entry in ledger.steps.iter().filter(|entry| entry.state == "failed") {
        let work = &entry.step.work;
        text += &format!(
            "  failed: {} {}: {}\n",
            work.kind(),
            work.object(),
            entry.error
        );
    }
    text
}

/// `verification.json`, and what `report --json` prints.
pub fn json(ledger: &Ledger) -> Value {
    let digest = |d: pgconvoy_proto::model::Digest| json!({ "rows": d.rows, "bytes": d.bytes, "digest": d.hex() });
    let tables: Vec<Value> = ledger
        .tables
        .iter()
        .map(|entry| {
            json!({
                "schema": entry.table.schema,
                "table": entry.table.name,
                "format": entry.table.format,
                "key": entry.table.columns[..entry.table.key_columns],
                "parts": entry.parts.len(),
                "source": digest(entry.source()),
                "target": entry.target.map(digest),
                "equal": entry.target.map(|target| target == entry.source()),
            })
        })
        .collect();
    let steps: Vec<Value> = ledger
        .steps
        .iter()
        .map(|entry| {
            json!({
                "kind": entry.step.work.kind(),
                "object": entry.step.work.object(),
                "state": entry.state,
                "error": entry.error,
                "seconds": entry.seconds,
            })
        })
        .collect();
    json!({
        "migration": ledger.id,
        "verdict": ledger.verdict,
        "verdict_text": verdict_text(ledger),
        "phase": ledger.phase,
        "source": ledger.source,
        "target": ledger.target,
        "snapshot": ledger.snapshot,
        "crossed": ledger.crossed,
        "objects": ledger.objects,
        "created_at": ledger.created_at,
        "finished_at": ledger.finished_at,
        "options": ledger.options,
        "tables": tables,
        "steps": steps,
        "schema": schema::json(ledger), "platform": platform::checklist_json(ledger),
        "checks": checks::json(ledger),
        "access": access::json(ledger),
        "findings": ledger.findings,
        "differences": ledger.findings.iter().filter(|f| f.severity == Severity::Difference).count(),
    })
}

/// Where a migration stands: `status`.
pub fn status_text(ledger: &Ledger) -> String {
    let is_loaded = |entry: &&TableEntry| entry.missing(ledger.options.part_bytes).is_empty();
    let loaded = ledger.tables.iter().filter(is_loaded).count();
    let verified = ledger
        .tables
        .iter()
        .filter(|entry| entry.target.is_some())
        .count();
    format!(
        "migration {}\n  from {}\n  to   {}\n  {}\n  phase {}; {loaded} of {} tables loaded, {verified} read back\n{}{}",
        ledger.id,
        ledger.source,
        ledger.target,
        verdict_text(ledger),
        ledger.phase,
        ledger.tables.len(),
        objects_text(ledger),
        steps_text(ledger),
    )
}
