//! What is said of a platform: levels, what is replaced, what is sealed, and the checklist of what is not in the database. Pure.
use pgconvoy_proto::facts::TargetFacts;
use pgconvoy_proto::model::{Counted, Finding, Holdings, Platform, Severity, Told};
use serde_json::{Value, json};

use super::Division;
use crate::ledger::Ledger;

/// The levels of both ends, and whose is how much.
pub fn ground(
    platform: &Platform,
    source: &Holdings,
    target: &Holdings,
    division: &Division,
) -> Vec<Finding> {
    let mut findings: Vec<Finding> = platform
        .versions
        .iter()
        .filter_map(|version| {
            let of = |end: &Holdings| end.version(&version.column).unwrap_or("none").to_owned();
            let (source, target) = (of(source), of(target));
            (source != target).then(|| {
                let message = format!(
                    "the two ends are of different levels: {source} at the source, {target} at the target"
                );
                Finding::new(Severity::Info, "platform-level", &version.service, message)
                    .values(source, target)
            })
        })
        .collect();
    let message = format!(
        "{} objects are the platform's and stay as the target has them; {} in its schemas are yours and are carried{}",
        division.left.len(),
        division.carried.len(),
        names(division)
    );
    findings.push(Finding::new(
        Severity::Info,
        "platform-objects",
        &platform.name,
        message,
    ));
    findings.extend(division.findings.iter().cloned());
    findings
}

const NAMES: usize = 12;

fn names(division: &Division) -> String {
    let carried = division.carried.iter();
    let mut names: Vec<String> = carried
        .take(NAMES)
        .map(|named| format!("{} {}", named.kind, named.identity.replace('"', "")))
        .collect();
    if names.is_empty() {
        return String::new();
    }
    if division.carried.len() > NAMES {
        names.push(format!("and {} more", division.carried.len() - NAMES));
    }
    format!(": {}", names.join(", "))
}

/// The platform's foreign keys and triggers are there before the rows are.
pub fn role(target: &TargetFacts) -> Option<Finding> {
    let (role, may) = (&target.server.role, target.can_set_replication_role);
    (!may).then(|| {
        let message = format!(
            "role {role} may not set session_replication_role: the platform's triggers and foreign keys would fire on every row"
        );
        Finding::new(Severity::Blocker, "platform-role", role, message)
            .hint("let the target agent connect as a superuser (Supabase: supabase_admin)")
    })
}

/// Rows in the platform's tables at the target.
pub fn held(tables: &[(String, String)], counts: &[u64], force: bool) -> Option<Finding> {
    let each = tables.iter().zip(counts);
    let each: Vec<String> = each
        .map(|((schema, name), rows)| format!("{schema}.{name} has {rows} rows"))
        .collect();
    if each.is_empty() {
        return None;
    }
    let (severity, what) = match force {
        false => (
            Severity::Blocker,
            "the platform's tables hold rows at the target",
        ),
        true => (
            Severity::Warning,
            "rows of the platform's tables at the target are replaced",
        ),
    };
    let message = format!("{what}: {}", each.join(", "));
    Some(Finding::new(severity, "managed-not-empty", "target", message).hint(
        "users and files that were made there would be mixed with the source's: begin with a new target, or migrate --force, which \
         replaces these rows after a backup",
    ))
}

/// Tables whose contents need a key from elsewhere, and that hold some.
pub fn sealed(tables: &[&Told], counted: &Counted) -> Vec<Finding> {
    let each = tables.iter().zip(counted).filter_map(|(told, counts)| {
        let message = match counts.as_ref().and_then(|counts| *counts.first()?) {
            Some(0) => return None,
            Some(rows) => format!("{rows} of them: {}", told.message),
            None => format!("the role may not count them: {}", told.message),
        };
        let finding = Finding::new(Severity::Warning, "sealed-values", &told.what, message);
        Some(finding.hint(&told.hint))
    });
    each.collect()
}

/// What is not in the database, for the end of the report; empty where there is no platform.
pub fn checklist(ledger: &Ledger) -> String {
    let Some(tenancy) = &ledger.options.tenancy else {
        return String::new();
    };
    let mut text = format!(
        "\nnot in the database, for you to do ({})\n",
        tenancy.platform.name
    );
    for outside in &tenancy.platform.outside {
        let found = match outside.found.as_str() {
            "" => String::new(),
            found => format!(" ({found})"),
        };
        text += &format!(
            "  [ ] {}{found}: {}\n      {}\n",
            outside.what, outside.message, outside.hint
        );
    }
    text
}

/// The same for machines, with what was found that somebody has to see to.
pub fn checklist_json(ledger: &Ledger) -> Value {
    let Some(tenancy) = &ledger.options.tenancy else {
        return Value::Null;
    };
    let items = tenancy.platform.outside.iter();
    let items: Vec<Value> = items
        .map(|told| json!({ "what": told.what, "found": told.found, "message": told.message, "hint": told.hint }))
        .collect();
    json!({ "platform": tenancy.platform.name, "not_in_the_database": items })
}
