//! What the target's server had of its own before the migration: nobody asked for it to be changed (invariant 7, nothing destroyed
//! unasked), so it is a warning once, and no difference.
use pgconvoy_proto::model::{Finding, SchemaObject, Severity};

use super::findings::shape;
use super::known::at_target;
use super::level::{SUPERUSER, SYSTEM};
use super::{Change, Difference};

/// Takes out what the target's server alone has of its own: settings of its database and of roles, roles, what roles are members of and
/// may set, grants on PostgreSQL's own objects. When a migration compares for the first time, that was there before it. One warning for
/// each object.
pub fn take_own(differences: &mut Vec<Difference>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut told = |code: &str, object: &SchemaObject, what: &str, values: String| {
        let message = format!("the target had {what} before: it stays as it is");
        let finding = Finding::new(Severity::Warning, code, object.name(), message);
        findings.push(finding.values("", values));
    };
    differences.retain_mut(|difference| match difference {
        Difference::Extra { object, .. } if object.kind == "role" => {
            told("role-was-there", object, "this role", shape(object));
            false
        }
        Difference::Differs {
            source, changes, ..
        } => {
            for (code, what, own) in OWN {
                let values = own(source, changes);
                if !values.is_empty() {
                    told(code, source, what, values.join("; "));
                }
            }
            !changes.is_empty()
        }
        _ => true,
    });
    findings
}

/// Takes the target's own out of an object's changes; as it is shown.
type TakeOwn = fn(&SchemaObject, &mut Vec<Change>) -> Vec<String>;

/// Code of the finding, and what it is about.
const OWN: [(&str, &str, TakeOwn); 3] = [
    ("settings-were-there", "settings of its own", own_settings),
    ("memberships-were-there", "more of this role", own_of_role),
    (
        "system-grants-were-there",
        "grants of its own on PostgreSQL's object",
        own_system_grants,
    ),
];

fn own_settings(object: &SchemaObject, changes: &mut Vec<Change>) -> Vec<String> {
    let has_settings = ["database", "role"].contains(&object.kind.as_str());
    let is_own =
        |change: &mut Change| change.property.starts_with("setting ") && change.source.is_none();
    let own = changes.extract_if(.., |change| has_settings && is_own(change));
    own.map(|change| format!("{}: {}", change.property, at_target(&change)))
        .collect()
}

fn own_of_role(object: &SchemaObject, changes: &mut Vec<Change>) -> Vec<String> {
    match object.kind.as_str() {
        "role" => own_lines(
            changes,
            &["member of", "membership options", "parameters", SUPERUSER],
        ),
        _ => Vec::new(),
    }
}

fn own_system_grants(object: &SchemaObject, changes: &mut Vec<Change>) -> Vec<String> {
    match object.get(SYSTEM) {
        Some(_) => own_lines(changes, &["grants", "revoked grants"]),
        None => Vec::new(),
    }
}

/// Takes the lines out that are the target's alone.
fn own_lines(changes: &mut Vec<Change>, properties: &[&str]) -> Vec<String> {
    let mut own = Vec::new();
    let lists = changes.iter_mut();
    for change in lists.filter(|change| properties.contains(&change.property.as_str())) {
        let source = change.source.clone().unwrap_or_default();
        let target = change.target.take().unwrap_or_default();
        let (both, alone): (Vec<&str>, Vec<&str>) = target
            .lines()
            .partition(|line| source.lines().any(|s| s == *line));
        if !alone.is_empty() {
            own.push(format!("{}: {}", change.property, alone.join(", ")));
        }
        change.target = (!both.is_empty()).then(|| both.join("\n"));
    }
    changes.retain(|change| change.source != change.target);
    own
}

/// Takes the roles out that nobody wanted to be carried (`--roles none`) and that the target does not have.
pub fn take_unwanted_roles(differences: &mut Vec<Difference>) -> Vec<Finding> {
    let is_unwanted = |difference: &mut Difference| matches!(difference, Difference::Missing { object, .. } if object.kind == "role");
    let unwanted = differences.extract_if(.., is_unwanted);
    let warning = |difference: Difference| {
        let object = difference.object();
        let message = "the source's database uses this role, the target has none of this name: --roles none carries none";
        Finding::new(Severity::Warning, "role-left-out", object.name(), message)
            .values(shape(object), "")
    };
    unwanted.map(warning).collect()
}
