//! Differences as findings, readable.
use pgconvoy_proto::model::{Finding, MADE_BY, MASK, SchemaObject, Severity};

use super::code::{self, BODIES};
use super::{Change, Counts, Difference};

/// What the target had before the migration: kind of object, code of the plan's finding about it.
pub const WERE_THERE: &[(&str, &str)] = &[
    ("extension", "extension-was-there"),
    ("default privileges", "default-privileges-were-there"),
];

/// Properties of the database, and of its server, that whoever made the two chose; a migration does not make them.
const CHOSEN: &[&str] = &[
    "encoding",
    "collate",
    "ctype",
    "locale provider",
    "locale",
    "owner",
    "connection limit",
    "template",
    "parameters",
];
/// How a setting ends that is the server's own.
const OF_ALL_ROLES: &str = " (of all roles)";
/// Values that are lists, a line for each: what both ends have is not shown.
const LISTS: &[&str] = &[
    "config",
    "functions",
    "grants",
    "mappings",
    "member of",
    "membership options",
    "operators",
    "parameters",
    "revoked grants",
    "row type grants",
    "tables",
];
/// The property that says what a function's body is written in.
const LANGUAGE: &str = "language";
/// Characters of a value that are shown, from shortly before the first one that differs.
const SHOWN: usize = 400;
const BEFORE: usize = 60;

/// `known`: of a migration's own comparison the ledger's findings, of the plan and of earlier steps. None: a later one, to which whatever was
/// not told before is news.
pub fn findings(differences: &[Difference], known: Option<&[Finding]>) -> Vec<Finding> {
    let told = differences.iter().flat_map(|difference| match difference {
        Difference::Missing { object, with } => vec![missing(object, with)],
        Difference::Extra { object, with } => vec![extra(object, with, known)],
        Difference::Differs {
            source, changes, ..
        } => differs(source, changes, known),
    });
    told.collect()
}

fn missing(object: &SchemaObject, with: &Counts) -> Finding {
    let invalid = object.kind == "index" && object.get("valid") == Some("false");
    let (severity, message) = if invalid {
        (
            Severity::Info,
            "it is invalid at the source: no dump carries it".to_owned(),
        )
    } else {
        (
            Severity::Difference,
            format!("it is missing at the target{}", and(with)),
        )
    };
    let finding = Finding::new(severity, "object-missing", object.name(), message);
    if let Some(made) = object.get(MADE_BY) {
        return finding.values(shape(object), "").hint(format!(
            "it is on a table of an extension, and no dump has it: {made}"
        ));
    }
    let hint = match object.parent.strip_prefix("extension ") {
        Some(extension) if object.kind != "policy" => format!(
            "it belongs to the extension, and no dump has it: ALTER EXTENSION {extension} DROP {} {} at the source, and migrate again",
            object.kind.to_uppercase(),
            object.identity
        ),
        _ => String::new(),
    };
    finding.values(shape(object), "").hint(hint)
}

fn extra(object: &SchemaObject, with: &Counts, known: Option<&[Finding]>) -> Finding {
    let before = was_there(object, known);
    // Every new database has it, and a dump of one without it does not drop it.
    let public = object.name() == "schema public" && with.is_empty();
    let (severity, message) = match (before, public) {
        (true, _) => (
            Severity::Info,
            "the target had it before the migration".to_owned(),
        ),
        (_, true) => (
            Severity::Info,
            "the source has no schema of this name; it is empty".to_owned(),
        ),
        _ => (
            Severity::Difference,
            format!("it is at the target only{}", and(with)),
        ),
    };
    Finding::new(severity, "object-extra", object.name(), message).values("", shape(object))
}

/// The plan says that the target had it already.
fn was_there(object: &SchemaObject, known: Option<&[Finding]>) -> bool {
    let known = known.unwrap_or_default();
    let plain = super::known::plain;
    WERE_THERE.iter().any(|(kind, code)| {
        let told = |f: &Finding| f.code == *code && plain(&f.object) == plain(&object.identity);
        object.kind == *kind && known.iter().any(told)
    })
}

/// How the message of a finding begins that then lists properties.
pub const DIFFERS_IN: &str = "it differs in ";

/// Whether somebody chose it for each end, by an object's name and a property.
pub fn is_chosen(object: &str, property: &str) -> bool {
    object == "database" && (CHOSEN.contains(&property) || property.ends_with(OF_ALL_ROLES))
}

fn differs(object: &SchemaObject, changes: &[Change], known: Option<&[Finding]>) -> Vec<Finding> {
    let (name, first) = (object.name(), known.is_some());
    let chosen = |change: &&Change| first && is_chosen(&name, &change.property);
    let (by_operator, others): (Vec<&Change>, Vec<&Change>) = changes.iter().partition(chosen);
    let finding = |severity, code, changes: &[&Change]| {
        let message = format!("{DIFFERS_IN}{}", properties(changes));
        let (source, target) = both(object, changes);
        Finding::new(severity, code, &name, message).values(source, target)
    };
    let mut findings = Vec::new();
    if !by_operator.is_empty() {
        let told = finding(Severity::Warning, "database-made-otherwise", &by_operator);
        findings.push(told.hint(
            "what the database and its server were made with is not carried: ALTER DATABASE, ALTER ROLE ALL or GRANT ON PARAMETER, if it should be alike",
        ));
    }
    if !others.is_empty() {
        // Those of the source were added to the target's own, which stay.
        let added_to = object.kind == "default privileges" && was_there(object, known);
        let severity = if added_to {
            Severity::Info
        } else {
            Severity::Difference
        };
        findings.push(finding(severity, "object-differs", &others));
    }
    findings
}

/// Those that differ, by name.
pub fn properties(changes: &[&Change]) -> String {
    let names: Vec<&str> = changes.iter().map(|c| c.property.as_str()).collect();
    names.join(", ")
}

/// What the source has of them, and the target. `object`: the source's.
pub fn both(object: &SchemaObject, changes: &[&Change]) -> (String, String) {
    let language = match changes.iter().any(|change| change.property == LANGUAGE) {
        // What is code in the one is text in the other.
        true => "",
        false => object.get(LANGUAGE).unwrap_or_default(),
    };
    let said = changes.iter().map(|change| values(change, language));
    let (source, target): (Vec<String>, Vec<String>) = said.unzip();
    (source.join("; "), target.join("; "))
}

/// `, with 3 columns and 1 index`
fn and(with: &Counts) -> String {
    if with.is_empty() {
        String::new()
    } else {
        format!(", with {}", count_text(with))
    }
}

pub fn count_text(counts: &Counts) -> String {
    let each = counts.iter().map(|(kind, n)| match n {
        1 => format!("1 {kind}"),
        n => format!("{n} {}", plural(kind)),
    });
    each.collect::<Vec<_>>().join(", ")
}

fn plural(kind: &str) -> String {
    match kind {
        "default privileges" => kind.to_owned(),
        kind if kind.ends_with('x') || kind.ends_with('s') => format!("{kind}es"),
        kind => match kind.strip_suffix('y') {
            Some(stem) => format!("{stem}ies"),
            None => format!("{kind}s"),
        },
    }
}

/// An object that only one end has: its properties, long values cut.
pub fn shape(object: &SchemaObject) -> String {
    let language = object.get(LANGUAGE).unwrap_or_default();
    let each = object.properties.iter().map(|(name, value)| {
        let value = match BODIES.contains(&name.as_str()) {
            true => &code::masked(language, value, None),
            false => value,
        };
        format!("{name}: {}", excerpt(value, 0))
    });
    each.collect::<Vec<_>>().join("; ")
}

/// What the two ends have of a property; `language`: of a function.
fn values(change: &Change, language: &str) -> (String, String) {
    let (source, target) = (change.source.as_deref(), change.target.as_deref());
    let (mut a, mut b) = (
        source.unwrap_or_default().to_owned(),
        target.unwrap_or_default().to_owned(),
    );
    if LISTS.contains(&change.property.as_str()) && source.is_some() && target.is_some() {
        (a, b) = (lines_not_in(&a, &b), lines_not_in(&b, &a));
    }
    if BODIES.contains(&change.property.as_str()) {
        (a, b) = (
            code::masked(language, &a, target),
            code::masked(language, &b, source),
        );
    }
    let differs = match a.find(code::HERE_ONLY) {
        // Both ends say something else in the same place.
        Some(at) if a == b => a[..at].chars().count(),
        _ => first_difference(&a, &b),
    };
    let from = differs.saturating_sub(BEFORE);
    let say = |value: Option<&str>, shown: &str| match value {
        None => format!("{}: none", change.property),
        Some(_) => format!("{}: {}", change.property, excerpt(shown, from)),
    };
    (say(source, &a), say(target, &b))
}

/// The lines that are of `all` alone; all of them when both have the same in another order.
fn lines_not_in(all: &str, others: &str) -> String {
    let others: Vec<&str> = others.lines().collect();
    let alone: Vec<&str> = all.lines().filter(|l| !others.contains(l)).collect();
    if alone.is_empty() {
        return "nothing more".into();
    }
    alone.join(", ")
}

/// In characters.
fn first_difference(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count()
}

/// Some of a value from a character on; the digests of secrets as what they are.
fn excerpt(value: &str, from: usize) -> String {
    let value = masked(value);
    let all = value.chars().count();
    if all <= SHOWN {
        return value;
    }
    let from = from.min(all);
    let shown: String = value.chars().skip(from).take(SHOWN).collect();
    let (before, after) = (
        if from > 0 { "…" } else { "" },
        if from + SHOWN < all { "…" } else { "" },
    );
    format!("{before}{shown}{after}")
}

/// Without the digests of secrets: they have another salt in every comparison.
pub fn masked(value: &str) -> String {
    let mut pieces = value.split(MASK);
    let mut shown = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        shown += "(masked)";
        shown += piece.split_once(')').map_or("", |(_, rest)| rest);
    }
    shown
}
