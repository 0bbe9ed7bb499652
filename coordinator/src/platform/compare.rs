//! Two descriptions without what is the platform's own: it is another one at each level, and nobody's doing. Pure.
use std::collections::{HashMap, HashSet};

use pgconvoy_proto::model::{Catalog, Named, Rules, SchemaObject, Tenancy};

use crate::compare::known::plain;

/// Takes the platform's objects out of both. `more`: the user's that the target does not have yet. How many there were.
pub fn leave_out(
    source: &mut Catalog,
    target: &mut Catalog,
    tenancy: &Tenancy,
    more: &[Named],
) -> usize {
    let Ok(rules) = tenancy.platform.rules() else {
        unreachable!("it was compiled before it was kept")
    };
    let leaving = Leaving {
        rules: &rules,
        carried: tenancy.carried.iter().chain(more).map(key).collect(),
        theirs: tenancy.theirs.iter().map(key).collect(),
        sequences: tenancy.sequences.iter().map(String::as_str).collect(),
        absent: tenancy.absent_roles.iter().map(String::as_str).collect(),
    };
    let members = Members::of(target);
    let left = leaving.from(source) + leaving.from(target);
    // One of the platform's that its services at the target do not know.
    let there: HashSet<String> = target.objects.iter().map(SchemaObject::name).collect();
    source.objects.retain(|object| {
        let theirs = leaving
            .theirs
            .contains(&(object.kind.clone(), plain(&object.identity)));
        object.kind != "publication" || !theirs || there.contains(&object.name())
    });
    let users = leaving.users_publications(source);
    for object in source.objects.iter_mut().chain(&mut target.objects) {
        leaving.narrow(object, &members, &users);
    }
    left
}

/// Properties of a publication: what it publishes,
const MEMBERS: &[&str] = &["tables", "schemas"];
/// and how.
const PUBLISHED: &[&str] = &["all tables", "publishes", "via root", "generated columns"];

/// As the comparison calls it.
pub fn key(named: &Named) -> (String, String) {
    let kind = match named.kind.as_str() {
        "default acl" => "default privileges",
        "table constraint" | "domain constraint" => "constraint",
        kind => kind,
    };
    (kind.to_owned(), plain(&named.identity))
}

struct Leaving<'a> {
    rules: &'a Rules,
    carried: HashSet<(String, String)>,
    theirs: HashSet<(String, String)>,
    sequences: HashSet<&'a str>,
    absent: HashSet<&'a str>,
}

impl Leaving<'_> {
    fn from(&self, catalog: &mut Catalog) -> usize {
        let parents: HashMap<String, (String, bool)> = catalog
            .objects
            .iter()
            .map(|object| {
                (
                    object.name(),
                    (object.parent.clone(), self.is_carried(object)),
                )
            })
            .collect();
        let before = catalog.objects.len();
        catalog
            .objects
            .retain(|object| self.stays(object, &parents));
        before - catalog.objects.len()
    }

    fn is_carried(&self, object: &SchemaObject) -> bool {
        let key = (object.kind.clone(), plain(&object.identity));
        self.carried.contains(&key)
    }

    fn stays(&self, object: &SchemaObject, parents: &HashMap<String, (String, bool)>) -> bool {
        let identity = plain(&object.identity);
        let theirs = self
            .theirs
            .contains(&(object.kind.clone(), identity.clone()));
        match object.kind.as_str() {
            "role" => return !self.rules.is_reserved(&identity),
            // What of it is ours is the members.
            "publication" => return true,
            "schema" => return !self.rules.is_managed(&identity) || self.is_carried(object),
            _ if theirs => return false,
            _ => {}
        }
        if self.is_carried(object) || self.is_set(object) {
            return true;
        }
        let mut above = object.parent.as_str();
        loop {
            if let Some(schema) = above.strip_prefix("schema ") {
                return !self.rules.is_managed(&plain(schema));
            }
            if let Some(extension) = above.strip_prefix("extension ") {
                return !self
                    .theirs
                    .contains(&("extension".to_owned(), plain(extension)));
            }
            match parents.get(above) {
                Some((_, true)) => return true,
                Some((parent, false)) => above = parent,
                None => return true,
            }
        }
    }

    fn is_set(&self, object: &SchemaObject) -> bool {
        object.kind == "sequence" && self.sequences.contains(plain(&object.identity).as_str())
    }

    /// Names of those that none of the platform's roles owns at the source.
    fn users_publications(&self, source: &Catalog) -> HashSet<String> {
        let users = source.objects.iter().filter(|object| {
            let owner = object.get("owner").map(plain);
            object.kind == "publication" && owner.is_some_and(|role| !self.rules.is_owner(&role))
        });
        users.map(|object| plain(&object.identity)).collect()
    }

    /// Of an object that both keep: what is the user's of it.
    fn narrow(&self, object: &mut SchemaObject, members: &Members, users: &HashSet<String>) {
        if self.is_set(object) && !self.is_carried(object) {
            object.properties.retain(|name, _| name == "position");
        }
        let theirs = self
            .theirs
            .contains(&(object.kind.clone(), plain(&object.identity)));
        if object.kind == "publication" {
            if theirs {
                let all = users.contains(&plain(&object.identity));
                object.properties.retain(|name, _| {
                    MEMBERS.contains(&name.as_str()) || all && PUBLISHED.contains(&name.as_str())
                });
            }
            members.narrow(object, self.rules, theirs);
        }
        if object.kind == "schema" && theirs {
            object.properties.remove("comment");
        }
        self.without_absent(object, "grants");
        if object.kind == "database" || object.get("system").is_some() {
            self.without_reserved(object, "grants");
            self.without_reserved(object, "revoked grants");
        }
    }

    fn without_absent(&self, object: &mut SchemaObject, property: &str) {
        let absent = |role: &str| self.absent.contains(plain(role).as_str());
        without_lines(object, property, |grantee, grantor| {
            absent(grantee) || absent(grantor)
        });
    }

    fn without_reserved(&self, object: &mut SchemaObject, property: &str) {
        let reserved = |role: &str| self.rules.is_reserved(&plain(role));
        without_lines(object, property, |grantee, _| reserved(grantee));
    }
}

/// Lines are grants, `alice=INSERT,SELECT/bob`.
fn without_lines(object: &mut SchemaObject, property: &str, goes: impl Fn(&str, &str) -> bool) {
    let Some(lines) = object.properties.get_mut(property) else {
        return;
    };
    let kept: Vec<&str> = lines
        .lines()
        .filter(|line| {
            let parts = line
                .rsplit_once('=')
                .and_then(|(who, rest)| Some((who, rest.split_once('/')?.1)));
            !parts.is_some_and(|(grantee, grantor)| goes(grantee, grantor))
        })
        .collect();
    *lines = kept.join("\n");
    if lines.is_empty() {
        object.properties.remove(property);
    }
}

/// What publications publish at the target.
struct Members {
    tables: HashSet<String>,
}

impl Members {
    fn of(target: &Catalog) -> Self {
        let tables = target
            .objects
            .iter()
            .filter(|object| object.kind == "table");
        Self {
            tables: tables.map(|object| plain(&object.identity)).collect(),
        }
    }

    /// Tables of the platform are published as each end's services want it; what only the target publishes was there.
    fn narrow(&self, publication: &mut SchemaObject, rules: &Rules, theirs: bool) {
        if !theirs {
            return;
        }
        let kept = |line: &&str| {
            let table = plain(line.split([' ']).next().unwrap_or_default());
            let managed = table
                .split('.')
                .next()
                .is_some_and(|schema| rules.is_managed(schema));
            !managed && self.tables.contains(&table)
        };
        if let Some(lines) = publication.properties.get_mut("tables") {
            let lines_kept: Vec<&str> = lines.lines().filter(kept).collect();
            *lines = lines_kept.join("\n");
            if lines.is_empty() {
                publication.properties.remove("tables");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use pgconvoy_proto::model::Platform;

    use super::*;

    fn object(kind: &str, identity: &str, parent: &str) -> SchemaObject {
        SchemaObject {
            kind: kind.into(),
            identity: identity.into(),
            parent: parent.into(),
            properties: [("owner".to_owned(), "x".to_owned())].into(),
        }
    }

    #[test]
    fn what_is_the_users_stays_and_what_hangs_on_it() {
        let platform =
            Platform::parse("name = \"toy\"\nmanaged-schemas = [\"core\"]\nowners = [\"toy_*\"]")
                .unwrap();
        let named = |kind: &str, identity: &str| Named {
            kind: kind.into(),
            identity: identity.into(),
        };
        let tenancy = Tenancy {
            platform,
            carried: vec![
                named("table", "\"core\".\"mine\""),
                named("policy", "p on core.account"),
            ],
            theirs: vec![named("extension", "pgcrypto"), named("publication", "live")],
            sequences: vec!["core.account_seq".into()],
            absent_roles: vec!["toy_new".into()],
            ..Tenancy::default()
        };
        let mut source = Catalog {
            version: 150_000,
            objects: vec![
                object("schema", "core", ""),
                object("table", "core.account", "schema core"),
                object("column", "core.account.id", "table core.account"),
                object("policy", "p on core.account", "table core.account"),
                object("table", "core.mine", "schema core"),
                object("column", "core.mine.id", "table core.mine"),
                object("sequence", "core.account_seq", "table core.account"),
                object("table", "public.t", "schema public"),
                object("extension", "pgcrypto", ""),
                object("function", "public.crypt()", "extension pgcrypto"),
                object("role", "toy_admin", ""),
            ],
        };
        let live = |tables: &str| {
            let mut live = object("publication", "live", "");
            live.properties.insert("tables".into(), tables.into());
            live
        };
        source.objects.push(live("core.account\npublic.t"));
        let mut target = Catalog {
            version: 150_000,
            objects: vec![
                object("table", "public.t", "schema public"),
                live("public.t"),
            ],
        };
        let mut granted = object("view", "public.v", "schema public");
        granted.properties.insert(
            "grants".into(),
            "toy_new=SELECT/(owner)\nx=SELECT/(owner)".into(),
        );
        source.objects.push(granted);
        leave_out(&mut source, &mut target, &tenancy, &[]);
        let names: Vec<String> = source.objects.iter().map(SchemaObject::name).collect();
        assert_eq!(
            names,
            [
                "policy p on core.account",
                "table core.mine",
                "column core.mine.id",
                "sequence core.account_seq",
                "table public.t",
                "publication live",
                "view public.v"
            ]
        );
        let publication = |catalog: &Catalog| {
            let mut all = catalog.objects.iter();
            all.find(|o| o.kind == "publication")
                .unwrap()
                .properties
                .clone()
        };
        assert_eq!(publication(&source), publication(&target));
        let view = source.objects.last().unwrap();
        assert_eq!(view.get("grants"), Some("x=SELECT/(owner)"));
    }
}
