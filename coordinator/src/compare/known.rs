//! What the ledger has a finding about already: the migration said so when it happened, and it is not said twice.
use std::collections::{BTreeSet, HashMap};

use pgconvoy_proto::model::{Catalog, Finding, SchemaObject, Severity, TOLD, veiled};

use super::code::BODIES;
use super::findings::{masked, shape};
use super::{Change, Difference};

/// Names as findings have them: without the quotes that SQL needs, and without the schema of PostgreSQL's own types.
pub fn plain(identity: &str) -> String {
    identity.replace('"', "").replace("pg_catalog.", "")
}

/// What is left of the differences when what the ledger's findings tell is taken away.
pub fn leave_out(differences: Vec<Difference>, findings: &[Finding]) -> Vec<Difference> {
    let (all, by_name) = (differences.len(), by_names(&differences));
    let mut left: Vec<Option<Difference>> = differences.into_iter().map(Some).collect();
    let mut take_away = |at: usize, told: &Told| {
        if left[at].as_mut().is_some_and(|left| told.covers(left)) {
            left[at] = None;
        }
    };
    for told in findings.iter().filter_map(Told::of) {
        match told.names() {
            Some(name) => {
                let named = by_name.get(name).into_iter().flatten();
                named.for_each(|at| take_away(*at, &told));
            }
            None => (0..all).for_each(|at| take_away(at, &told)),
        }
    }
    left.into_iter().flatten().collect()
}

/// Where the differences are that somebody means by a name.
fn by_names(differences: &[Difference]) -> HashMap<String, Vec<usize>> {
    let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
    for (at, difference) in differences.iter().enumerate() {
        let object = difference.object();
        let root = object.get("inherited from").map(plain);
        let names = [plain(&object.identity), plain(&object.name())];
        for name in names.into_iter().chain(root) {
            let places = by_name.entry(name).or_default();
            if places.last() != Some(&at) {
                places.push(at);
            }
        }
    }
    by_name
}

/// A property of an object that differs, and what the target has of it: object, property, value.
pub type Fact = (String, String, String);

/// Everything that differs.
pub fn facts(differences: &[Difference]) -> BTreeSet<Fact> {
    let each = differences.iter().flat_map(|difference| {
        let name = difference.object().name();
        let of = |property: &str, value: String| (name.clone(), property.to_owned(), value);
        match difference {
            Difference::Missing { .. } => vec![of("missing", String::new())],
            Difference::Extra { object, .. } => vec![of("extra", shape(object))],
            Difference::Differs { changes, .. } => changes
                .iter()
                .map(|change| of(&change.property, at_target(change)))
                .collect(),
        }
    });
    each.collect()
}

pub(super) fn at_target(change: &Change) -> String {
    let shown = match BODIES.contains(&change.property.as_str()) {
        true => veiled,
        false => masked,
    };
    change.target.as_deref().map_or("none".into(), shown)
}

/// For the ledger: a later comparison leaves these out, and what changed since it tells.
pub fn as_findings(facts: &BTreeSet<Fact>) -> Vec<Finding> {
    let finding = |(object, property, value): &Fact| {
        Finding::new(Severity::Info, TOLD, object, property).values("", value)
    };
    facts.iter().map(finding).collect()
}

/// What the ledger has from [`as_findings`].
pub fn told_before(ledger: &[Finding]) -> BTreeSet<Fact> {
    let told = ledger.iter().filter(|finding| finding.code == TOLD);
    told.map(|f| (f.object.clone(), f.message.clone(), f.target_value.clone()))
        .collect()
}

/// What is left of the differences when these facts are taken away.
pub fn leave_out_facts(differences: Vec<Difference>, told: &BTreeSet<Fact>) -> Vec<Difference> {
    let mut left = differences;
    left.retain_mut(|difference| {
        if let Difference::Differs {
            source, changes, ..
        } = difference
        {
            let name = source.name();
            changes.retain(|c| !told.contains(&(name.clone(), c.property.clone(), at_target(c))));
            return !changes.is_empty();
        }
        facts(std::slice::from_ref(difference)).is_disjoint(told)
    });
    left
}

/// Whether somebody has made good by hand what a step could not do, as the finding says: everything was compared that it is about, and it is
/// equal. `whole`: nothing was left out of the comparison.
pub fn is_settled(
    finding: &Finding,
    differences: &[Difference],
    source: &Catalog,
    whole: bool,
) -> bool {
    match Told::of(finding) {
        Some(Told::Entry { rest }) => {
            if !source.objects.iter().any(|object| is_entry(&rest, object)) {
                // No object by itself: the default of a column, the attachment of an index.
                return whole && differences.is_empty();
            }
            !differences.iter().any(|d| is_entry(&rest, d.object()))
        }
        Some(told) => {
            let concerns = |difference: &Difference| {
                let mut left = difference.clone();
                told.covers(&mut left) || left != *difference
            };
            whole && !differences.iter().any(concerns)
        }
        None => false,
    }
}

/// What a finding says of the schema.
enum Told {
    /// A foreign key, `name on schema.table`, is not validated, or is not there.
    ForeignKey {
        key: String,
    },
    Owner {
        object: String,
    },
    /// A privilege of a grantee on an object is not there.
    Lost {
        object: String,
        privilege: String,
        grantee: String,
    },
    /// A privilege of a grantee on an object is there although the source does not grant it.
    Extra {
        object: String,
        privilege: String,
        grantee: String,
    },
    /// A privilege of a grantee on one of PostgreSQL's own objects is still there.
    NotRevoked {
        object: String,
        privilege: String,
        grantee: String,
    },
    /// The target does not have this one of PostgreSQL's own objects.
    NoSystemObject {
        object: String,
    },
    /// A grantee could not be deprived of what it has on an object.
    Kept {
        object: String,
        grantee: String,
    },
    ExtensionVersion {
        name: String,
    },
    Role {
        name: String,
    },
    /// What a role is at the two ends is told whole.
    RoleApart {
        name: String,
    },
    /// What a role may set.
    Parameters {
        role: String,
    },
    /// A setting of a role, or of the database (no role), that the target did not take.
    Setting {
        role: Option<String>,
        setting: String,
    },
    Unpopulated {
        view: String,
    },
    Sequence {
        name: String,
    },
    NotNull {
        column: String,
    },
    Database {
        property: &'static str,
    },
    /// An entry of the archive, as pg_restore lists it: `TRIGGER public orders t owner`.
    Entry {
        rest: String,
    },
}

impl Told {
    fn of(finding: &Finding) -> Option<Self> {
        let object = plain(&finding.object);
        Some(match finding.code.as_str() {
            "foreign-key-orphans" | "foreign-key-not-built" | "foreign-key-outside-selection" => {
                let (table, name) = object.split_once(": ")?;
                let key = format!("{name} on {table}");
                Self::ForeignKey { key }
            }
            "owner-not-kept" => Self::Owner { object },
            "grant-not-kept" => Self::lost(&object)?,
            "system-grant-not-revoked" => match Self::lost(&object)? {
                Self::Lost {
                    object,
                    privilege,
                    grantee,
                } => Self::NotRevoked {
                    object,
                    privilege,
                    grantee,
                },
                _ => return None,
            },
            "system-object-missing" => Self::NoSystemObject { object },
            "grant-not-revoked" => Self::Kept {
                object,
                grantee: plain(&finding.target_value),
            },
            "extension-version" => Self::ExtensionVersion { name: object },
            "role-missing" => Self::Role { name: object },
            "view-not-refreshed" => Self::Unpopulated { view: object },
            "sequence-not-set" => Self::Sequence { name: object },
            "not-null-stays" => Self::NotNull { column: object },
            "parameter-grant-missing" | "parameter-grant-not-kept" => Self::Parameters {
                role: object.rsplit_once(" to ")?.1.to_owned(),
            },
            // Roles that were there are left as they are, attributes, settings and memberships.
            "role-differs" | "role-cannot-be-created" | "membership-missing" => Self::RoleApart {
                name: object.split(" in ").next()?.to_owned(),
            },
            "role-setting-not-kept" => {
                let (role, setting) = object.split_once(": SET ")?;
                Self::setting(Some(role), setting)?
            }
            "database-setting-not-kept" => match object.split_once(" of role ") {
                Some((setting, role)) => Self::setting(Some(role), setting)?,
                None => Self::setting(None, &object)?,
            },
            "collation" => Self::database("collate"),
            "ctype" => Self::database("ctype"),
            // What the target's database had before stays.
            "database-differs" if object == "comment" => Self::database("comment"),
            "database-differs" => match object.split_once(" of role ") {
                Some((setting, role)) => Self::setting(Some(role), setting)?,
                None => Self::setting(None, &object)?,
            },
            "database-grant-extra" | "database-grant-not-kept" => {
                let (privilege, grantee) = object.split_once(" on the database to ")?;
                let (object, grantee) = ("database".to_owned(), grantee.to_owned());
                let privilege = privilege.to_owned();
                if finding.code == "database-grant-extra" {
                    Self::Extra {
                        object,
                        privilege,
                        grantee,
                    }
                } else {
                    Self::Lost {
                        object,
                        privilege,
                        grantee,
                    }
                }
            }
            "not-restored" => Self::Entry { rest: object },
            _ => return None,
        })
    }

    fn database(property: &'static str) -> Self {
        Self::Database { property }
    }

    fn setting(role: Option<&str>, setting: &str) -> Option<Self> {
        Some(Self::Setting {
            role: role.map(str::to_owned),
            setting: setting.split_whitespace().next()?.to_owned(),
        })
    }

    /// `table public.t: SELECT (column) to role`
    fn lost(object: &str) -> Option<Self> {
        let (object, what) = object.rsplit_once(": ")?;
        let (what, grantee) = what.rsplit_once(" to ")?;
        let (privilege, object) = match what.split_once(" (") {
            Some((privilege, column)) => {
                let table = object.split_once(' ')?.1;
                let column = column.trim_end_matches(')');
                (privilege, format!("column {table}.{column}"))
            }
            None => (what, object.to_owned()),
        };
        Some(Self::Lost {
            object,
            privilege: privilege.to_owned(),
            grantee: grantee.to_owned(),
        })
    }

    /// What an object is called that it covers: its identity, its name, or the identity of what it is inherited from. None: it says no name.
    fn names(&self) -> Option<&str> {
        match self {
            Self::ForeignKey { key: name }
            | Self::Owner { object: name }
            | Self::Lost { object: name, .. }
            | Self::Extra { object: name, .. }
            | Self::NotRevoked { object: name, .. }
            | Self::NoSystemObject { object: name }
            | Self::Kept { object: name, .. }
            | Self::ExtensionVersion { name }
            | Self::Role { name }
            | Self::RoleApart { name }
            | Self::Parameters { role: name }
            | Self::Setting {
                role: Some(name), ..
            }
            | Self::Unpopulated { view: name }
            | Self::Sequence { name }
            | Self::NotNull { column: name } => Some(name),
            Self::Setting { role: None, .. } | Self::Database { .. } => Some("database"),
            Self::Entry { .. } => None,
        }
    }

    /// Takes away what is told; true when nothing is left.
    fn covers(&self, difference: &mut Difference) -> bool {
        let identity = plain(&difference.object().identity);
        let name = plain(&difference.object().name());
        let kind = difference.object().kind.clone();
        match self {
            Self::ForeignKey { key } if kind == "constraint" => {
                let root = difference.object().get("inherited from").map(plain);
                let ours = identity == *key || root.as_ref() == Some(key);
                ours && without(difference, &["validated", "inherited from"])
            }
            Self::Owner { object } => name == *object && narrowed(difference, &["owner"]),
            Self::Lost {
                object,
                privilege,
                grantee,
            } if name == *object => regrant(difference, "grants", |change| {
                change.source = deprive(change.source.take(), grantee, Some(privilege));
            }),
            Self::NotRevoked {
                object,
                privilege,
                grantee,
            } if name == *object => regrant(difference, "revoked grants", |change| {
                change.source = deprive(change.source.take(), grantee, Some(privilege));
            }),
            Self::NoSystemObject { object } => {
                name == *object && narrowed(difference, &["grants", "revoked grants"])
            }
            Self::Extra {
                object,
                privilege,
                grantee,
            } if name == *object => regrant(difference, "grants", |change| {
                change.target = deprive(change.target.take(), grantee, Some(privilege));
            }),
            Self::Kept { object, grantee } if name == *object => {
                regrant(difference, "grants", |change| {
                    change.source = deprive(change.source.take(), grantee, None);
                    change.target = deprive(change.target.take(), grantee, None);
                })
            }
            Self::ExtensionVersion { name } => {
                kind == "extension" && identity == *name && narrowed(difference, &["version"])
            }
            Self::Role { name } => {
                kind == "role"
                    && identity == *name
                    && matches!(difference, Difference::Missing { .. })
            }
            Self::RoleApart { name } => kind == "role" && identity == *name,
            Self::Setting { role, setting } => {
                let ours = match role {
                    Some(role) => kind == "role" && identity == *role,
                    None => kind == "database",
                };
                let here = format!("setting {setting}");
                let in_database = format!("{here} (in this database)");
                ours && narrowed(difference, &[&here, &in_database])
            }
            Self::Unpopulated { view } => {
                kind == "materialized view"
                    && identity == *view
                    && narrowed(difference, &["populated"])
            }
            Self::Sequence { name } => {
                kind == "sequence" && identity == *name && narrowed(difference, &["position"])
            }
            Self::NotNull { column } => {
                kind == "column" && identity == *column && narrowed(difference, &["not null"])
            }
            Self::Parameters { role } => {
                kind == "role" && identity == *role && narrowed(difference, &["parameters"])
            }
            Self::Database { property } => kind == "database" && narrowed(difference, &[property]),
            Self::Entry { rest } => {
                matches!(difference, Difference::Missing { .. })
                    && is_entry(rest, difference.object())
            }
            _ => false,
        }
    }
}

/// An object that is at one end only is told whole; of one that differs the properties.
fn without(difference: &mut Difference, properties: &[&str]) -> bool {
    match difference {
        Difference::Missing { .. } | Difference::Extra { .. } => true,
        Difference::Differs { .. } => narrowed(difference, properties),
    }
}

/// Forgets changes of these properties; true when no other is left.
fn narrowed(difference: &mut Difference, properties: &[&str]) -> bool {
    let Difference::Differs { changes, .. } = difference else {
        return false;
    };
    changes.retain(|change| !properties.contains(&change.property.as_str()));
    changes.is_empty()
}

fn regrant(difference: &mut Difference, property: &str, edit: impl Fn(&mut Change)) -> bool {
    let Difference::Differs { changes, .. } = difference else {
        return false;
    };
    for change in changes.iter_mut().filter(|c| c.property == property) {
        edit(change);
    }
    changes.retain(|change| change.source != change.target);
    changes.is_empty()
}

/// Grants without a privilege of a grantee, or without any.
fn deprive(grants: Option<String>, grantee: &str, privilege: Option<&str>) -> Option<String> {
    let mut kept = Vec::new();
    for line in grants.as_deref().unwrap_or_default().lines() {
        let parts = line
            .rsplit_once('=')
            .and_then(|(who, rest)| Some((who, rest.split_once('/')?)));
        match parts {
            Some((who, (privileges, grantor))) if plain(who) == grantee => {
                let is_other =
                    |p: &&str| privilege.is_some_and(|lost| p.trim_end_matches('*') != lost);
                let others: Vec<&str> = privileges.split(',').filter(is_other).collect();
                if !others.is_empty() {
                    kept.push(format!("{who}={}/{grantor}", others.join(",")));
                }
            }
            _ => kept.push(line.to_owned()),
        }
    }
    (!kept.is_empty()).then(|| kept.join("\n"))
}

/// Whether a line of pg_restore's list is about the object: what it is, its schema (or `-`), the table that it is on, its name.
fn is_entry(rest: &str, object: &SchemaObject) -> bool {
    let identity = plain(&object.identity);
    let (place, name) = match identity.rsplit_once(" on ") {
        Some((name, table)) => match table.split_once('.') {
            Some((schema, table)) => (schema.to_owned(), format!("{table} {name}")),
            None => ("-".to_owned(), identity.clone()),
        },
        None => match identity.split_once('.') {
            Some((schema, name)) => (schema.to_owned(), name.to_owned()),
            None => ("-".to_owned(), identity.clone()),
        },
    };
    let kind = match object.kind.as_str() {
        "statistics object" => "STATISTICS".to_owned(),
        "default privileges" => "DEFAULT ACL".to_owned(),
        "language" => "PROCEDURAL LANGUAGE".to_owned(),
        kind => kind.to_uppercase().replace('-', " "),
    };
    let begins = format!("{kind} {place} {name} ");
    let rest = rest.replace(", ", ",");
    rest.starts_with(&begins) || kind == "CONSTRAINT" && rest.contains(&format!(" {begins}"))
}
