//! What both ends have in the platform's schemas under one name, and have differently. Pure.
//!
//! The target's stays, and nothing of it is silent: policies and triggers of the user's stop a migration, which with `--force` brings the
//! source's in their place. Of the rest nobody can know who has made it. Where the service is of another level at each end, its own objects
//! are others; where it is of one level, or the object's owner is nobody of the platform's, somebody has changed it at one end.
use std::collections::{BTreeMap, HashMap, HashSet};

use pgconvoy_proto::model::{Catalog, Finding, Holding, Named, SchemaObject, Severity, Tenancy};

use super::Ground;
use super::compare::key;
use super::divide::{is_users_policy, is_users_trigger};
use crate::compare::findings::{both, properties};
use crate::compare::known::plain;
use crate::compare::{Change, Difference, compare};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Nothing is changed yet.
    Before {
        force: bool,
    },
    After,
}

/// What comes of it.
#[derive(Debug, Default)]
pub struct Shared {
    /// The user's: they cannot both be there.
    pub clashes: Vec<Named>,
    pub findings: Vec<Finding>,
}

impl Ground {
    /// Of two levelled catalogs; but for what is `carried`, which is compared with everything else.
    pub fn shared(&self, source: &Catalog, target: &Catalog, carried: &[Named]) -> Vec<Difference> {
        let carried: HashSet<(String, String)> = carried.iter().map(key).collect();
        let of_platform = |catalog: &Catalog| {
            let parents = parents(catalog);
            let ours = |object: &&SchemaObject| {
                let name = (object.kind.clone(), plain(&object.identity));
                let managed = match object.kind.as_str() {
                    "schema" => self.rules.is_managed(&name.1),
                    _ => schema_of(object, &parents).is_some_and(|s| self.rules.is_managed(&s)),
                };
                let made = member_of(object).is_some_and(|extension| {
                    carried.contains(&("extension".to_owned(), extension))
                });
                managed && !made && !carried.contains(&name)
            };
            let objects = catalog
                .objects
                .iter()
                .filter(ours)
                .cloned()
                .map(|mut object| {
                    // Where it stands is no definition.
                    object.properties.remove("position");
                    if member_of(&object).is_some() {
                        object.properties.retain(|name, _| name == "grants");
                    }
                    object
                });
            Catalog {
                version: catalog.version,
                objects: objects.collect(),
            }
        };
        let mut differences = compare(&of_platform(source), &of_platform(target));
        differences.retain(|difference| matches!(difference, Difference::Differs { .. }));
        differences
    }

    pub fn judge_shared(&self, differences: &[Difference], when: When) -> Shared {
        let at_source: HashMap<(String, String), &Holding> = self
            .source
            .objects
            .iter()
            .map(|object| (key(&object.named()), object))
            .collect();
        let mut shared = Shared::default();
        let mut members: BTreeMap<String, Vec<(&SchemaObject, Vec<Change>)>> = BTreeMap::new();
        for difference in differences {
            let Difference::Differs {
                source, changes, ..
            } = difference
            else {
                continue;
            };
            let name = (source.kind.clone(), plain(&source.identity));
            let holding = at_source.get(&name).copied();
            let (granted, changes) = self.users_grants(changes);
            if !granted.is_empty() {
                shared.findings.push(lost_grants(source, &granted));
            }
            if changes.is_empty() {
                continue;
            }
            if let Some(extension) = member_of(source) {
                members
                    .entry(extension)
                    .or_default()
                    .push((source, changes));
                continue;
            }
            match holding.filter(|holding| self.is_users(holding)) {
                Some(users) => {
                    shared.clashes.push(users.named());
                    shared.findings.push(clash(source, &changes, when));
                }
                None => shared
                    .findings
                    .push(self.differs(source, holding, &changes)),
            }
        }
        let members = members.iter();
        let told = members.map(|(extension, members)| self.members_differ(extension, members));
        shared.findings.extend(told);
        shared
    }

    /// Who has made it can be known.
    fn is_users(&self, holding: &Holding) -> bool {
        match holding.kind.as_str() {
            "policy" => is_users_policy(&self.rules, holding),
            "trigger" => is_users_trigger(&self.rules, holding),
            _ => false,
        }
    }

    /// Grants of the source to roles that are none of the platform's; and the changes without them.
    fn users_grants(&self, changes: &[Change]) -> (Vec<String>, Vec<Change>) {
        let mut granted = Vec::new();
        let mut left = Vec::new();
        for change in changes {
            if change.property != "grants" {
                left.push(change.clone());
                continue;
            }
            let lines = |end: &Option<String>| -> Vec<String> {
                let all = end.iter().flat_map(|grants| grants.lines());
                all.map(str::to_owned).collect()
            };
            let (source, target) = (lines(&change.source), lines(&change.target));
            let (users, others): (Vec<String>, Vec<String>) = source
                .into_iter()
                .partition(|line| !target.contains(line) && self.is_for_users(line));
            granted.extend(users);
            if others != target {
                let whole = |lines: Vec<String>| (!lines.is_empty()).then(|| lines.join("\n"));
                left.push(Change {
                    property: change.property.clone(),
                    source: whole(others),
                    target: whole(target),
                });
            }
        }
        (granted, left)
    }

    /// `alice=INSERT,SELECT/bob`
    fn is_for_users(&self, grant: &str) -> bool {
        let grantee = grant.rsplit_once('=').map(|(grantee, _)| plain(grantee));
        grantee.is_some_and(|role| {
            role != "PUBLIC" && role != "(owner)" && !self.rules.is_reserved(&role)
        })
    }

    fn differs(
        &self,
        object: &SchemaObject,
        holding: Option<&Holding>,
        changes: &[Change],
    ) -> Finding {
        // A schema is the platform's by its name.
        let strange = holding.filter(|held| {
            held.kind != "schema" && held.extension.is_none() && !self.rules.is_owner(&held.owner)
        });
        let schema = holding.and_then(|held| held.schema.as_deref());
        let schema = schema.map_or_else(|| first_schema(object), str::to_owned);
        let level = self.level(&schema);
        let changes: Vec<&Change> = changes.iter().collect();
        let what = properties(&changes);
        let (severity, code, message, hint) = match (strange, level) {
            (Some(held), _) => (
                Severity::Warning,
                "managed-differs",
                format!(
                    "both ends have it, and it differs in {what}; its owner, {}, is none of the platform's roles",
                    plain(&held.owner)
                ),
                YOURS,
            ),
            (None, Some((source, target))) if source == target => (
                Severity::Warning,
                "managed-differs",
                format!(
                    "both ends have it, at one level of the service ({source}), and it differs in {what}: somebody has changed it at one end, or another release of the platform"
                ),
                YOURS,
            ),
            (None, Some((source, target))) => (
                Severity::Info,
                "managed-skew",
                format!(
                    "it differs in {what}, as the levels of the service do ({source} at the source, {target} at the target)"
                ),
                "",
            ),
            (None, None) => (
                Severity::Info,
                "managed-skew",
                format!("it differs in {what}; of what level the service is, is not known"),
                "",
            ),
        };
        let (source, target) = both(object, &changes);
        Finding::new(severity, code, object.name(), message)
            .values(source, target)
            .hint(hint)
    }

    /// In grants: what else they are is the extension's version's affair.
    fn members_differ(&self, extension: &str, members: &[(&SchemaObject, Vec<Change>)]) -> Finding {
        let versions = [&self.source, &self.target].map(|end| end.extension_version(extension));
        let (severity, code, why, hint) = match versions {
            [Some(source), Some(target)] if source != target => (
                Severity::Info,
                "managed-skew",
                format!("version {source} at the source, {target} at the target"),
                "",
            ),
            _ => (
                Severity::Warning,
                "managed-differs",
                "somebody has changed them at one end, or another release of the platform"
                    .to_owned(),
                "the target's stay: GRANT or REVOKE there by hand what the source's are, if they are yours",
            ),
        };
        let message = format!("{} of its members differ in grants: {why}", members.len());
        let told = members.iter().take(MEMBERS).map(|(object, changes)| {
            let (source, target) = both(object, &changes.iter().collect::<Vec<_>>());
            let name = object.name();
            (format!("{name}: {source}"), format!("{name}: {target}"))
        });
        let (mut source, mut target): (Vec<String>, Vec<String>) = told.unzip();
        if members.len() > MEMBERS {
            let more = format!("and {} more", members.len() - MEMBERS);
            source.push(more.clone());
            target.push(more);
        }
        Finding::new(severity, code, format!("extension {extension}"), message)
            .values(source.join("; "), target.join("; "))
            .hint(hint)
    }

    /// Of the service that a schema belongs to, at both ends.
    fn level(&self, schema: &str) -> Option<(String, String)> {
        let mut versions = self.platform.versions.iter();
        let version = versions.find(|v| v.column.split('.').next() == Some(schema))?;
        let both = [&self.source, &self.target].map(|end| end.version(&version.column));
        let text = |level: Option<&str>| level.unwrap_or("none").to_owned();
        match both {
            [None, None] => None,
            [source, target] => Some((text(source), text(target))),
        }
    }
}

/// Of an extension so many members are told by name.
const MEMBERS: usize = 12;

const YOURS: &str =
    "it stays as the target has it; if the source's is yours, make it so at the target by hand";

fn clash(object: &SchemaObject, changes: &[Change], when: When) -> Finding {
    let changes: Vec<&Change> = changes.iter().collect();
    let what = properties(&changes);
    let (severity, message, hint) = match when {
        When::Before { force: false } => (
            Severity::Blocker,
            format!(
                "it is yours, and the target has another one of this name, which differs in {what}"
            ),
            "drop it at the target; or migrate --force, which brings the source's in its place after a backup",
        ),
        When::Before { force: true } => (
            Severity::Warning,
            format!("the target's, which differs in {what}, is replaced by the source's"),
            "",
        ),
        When::After => (
            Severity::Difference,
            format!("it is yours, and differs in {what}"),
            "make it at the target as it is at the source",
        ),
    };
    let (source, target) = both(object, &changes);
    Finding::new(severity, "managed-clash", object.name(), message)
        .values(source, target)
        .hint(hint)
}

fn lost_grants(object: &SchemaObject, grants: &[String]) -> Finding {
    let message = "the source grants more to roles of yours: grants on the platform's own objects are not carried";
    Finding::new(Severity::Warning, "managed-grants", object.name(), message)
        .values(grants.join(", "), "")
        .hint("GRANT it at the target by hand, if it is meant")
}

/// Extensions that the migration has made, with their members.
pub fn made_extensions(source: &Catalog, tenancy: &Tenancy) -> Vec<Named> {
    let theirs: HashSet<(String, String)> = tenancy.theirs.iter().map(key).collect();
    let made = source.objects.iter().filter(|object| {
        let name = (object.kind.clone(), plain(&object.identity));
        object.kind == "extension" && !theirs.contains(&name)
    });
    let named = made.map(|object| Named {
        kind: object.kind.clone(),
        identity: object.identity.clone(),
    });
    named.collect()
}

fn parents(catalog: &Catalog) -> HashMap<String, &str> {
    let objects = catalog.objects.iter();
    objects
        .map(|object| (object.name(), object.parent.as_str()))
        .collect()
}

/// The extension that has made it. A schema is known by its name, whoever has made it.
fn member_of(object: &SchemaObject) -> Option<String> {
    let extension = object.parent.strip_prefix("extension ")?;
    (object.kind != "schema").then(|| plain(extension))
}

/// None: of the whole database.
fn schema_of(object: &SchemaObject, parents: &HashMap<String, &str>) -> Option<String> {
    if member_of(object).is_some() {
        return Some(first_schema(object));
    }
    let mut above = object.parent.as_str();
    loop {
        match above.strip_prefix("schema ") {
            Some(schema) => return Some(plain(schema)),
            None => above = parents.get(above)?,
        }
    }
}

/// Of `column a.b.c`, `constraint k on a.b`.
fn first_schema(object: &SchemaObject) -> String {
    let identity = plain(&object.identity);
    let place = identity
        .rsplit_once(" on ")
        .map_or(identity.as_str(), |(_, on)| on);
    place.split('.').next().unwrap_or_default().to_owned()
}
