//! Whose is what: the source's objects in managed schemas are told apart by comparing both catalogs. Pure.
//!
//! What the target has too is the target's own and left as it is. What it lacks is the platform's when one of the platform's roles owns
//! it (the two ends are of different levels), else the user's: that is carried. Triggers go by their function; policies are
//! the user's, but those for the platform's own roles.
//! Indexes, constraints and rules that only the source has on a table of the platform are told, with the statement that would make them.
#[cfg(test)]
mod tests;
mod told;

use std::collections::{BTreeMap, HashMap, HashSet};

use pgconvoy_proto::model::{Entry, Finding, HeldTable, Holding, Holdings, Named, Rules};

use super::defaults;
use super::scope::{Scope, by_entry};
use crate::compare::known::plain;
pub use told::more_policies;
use told::{no_table_for, not_carried, publications, row_security};

#[derive(Debug, Default)]
pub struct Division {
    /// Of the source: not carried.
    pub left: HashSet<Entry>,
    pub carried: Vec<Named>,
    /// Of the whole database: the platform's, at one end or both.
    pub theirs: Vec<Named>,
    /// Tables of the platform at the source, and what the target has of each.
    pub tables: Vec<(HeldTable, Option<HeldTable>)>,
    pub findings: Vec<Finding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// And the target has it.
    Shared,
    /// Only the source has it.
    Skewed,
    Users,
}

/// What is out of `scope` is neither carried nor told.
pub fn divide(rules: &Rules, source: &Holdings, target: &Holdings, scope: &Scope) -> Division {
    let dividing = Dividing {
        rules,
        scope,
        at_source: by_entry(source),
        at_target: target.objects.iter().map(name).collect(),
        extensions: target
            .objects
            .iter()
            .filter(|object| object.kind == "extension")
            .map(|object| plain(&object.identity))
            .collect(),
    };
    let mut division = Division::default();
    let mut apart: BTreeMap<String, Vec<&Holding>> = BTreeMap::new();
    let mut stranded: Vec<String> = Vec::new();
    for object in &source.objects {
        let Some(whose) = dividing.whose(object) else {
            // Its owner and grants are made those of the source, nothing else.
            if object.kind == "schema" && dividing.is_there(object) {
                division.theirs.push(object.named());
            }
            continue;
        };
        if whose == Whose::Users {
            let is_part = PARTS_OF_TABLES.contains(&object.kind.as_str());
            let of_users = is_part || object.extension.is_none();
            if dividing.is_managed(object) && of_users && dividing.is_chosen(object) {
                division.carried.push(object.named());
            }
            continue;
        }
        division.left.insert(object.entry);
        if dividing.is_stranded(object) && dividing.is_chosen(object) {
            stranded.push(plain(&object.identity));
        }
        if object.kind == "table" {
            // Its row level security has an entry of its own.
            division.left.insert(Entry {
                class: 0,
                oid: object.entry.oid,
            });
        }
        let is_wide = object.schema.is_none() && object.kind != DEFAULTS;
        if is_wide || is_platforms_defaults(rules, object) {
            division.theirs.push(object.named());
        }
        if whose == Whose::Skewed && dividing.is_apart(object) && dividing.is_chosen(object) {
            let on = object.of.and_then(|of| dividing.at_source.get(&of));
            let on = on.map(|table| plain(&table.identity)).unwrap_or_default();
            apart.entry(on).or_default().push(object);
        }
    }
    let own = target.objects.iter();
    let own = own.filter(|object| is_platforms_defaults(rules, object));
    division.theirs.extend(own.map(Holding::named));
    dividing.with_their_schemas(source, &mut division);
    division.tables = dividing.tables(source, target, &division);
    division.findings = apart.into_iter().map(not_carried).collect();
    division.findings.extend(no_table_for(&stranded));
    if scope.admits_all_of(None) && !scope.skip_schema {
        let told = publications(rules, source, target);
        division.findings.extend(told);
    }
    if !scope.left_out.rls {
        division.findings.extend(row_security(&division.tables));
    }
    division
}

fn name(object: &Holding) -> (&str, &str) {
    (&object.kind, &object.identity)
}

/// As pg_identify_object() calls default privileges.
const DEFAULTS: &str = "default acl";
const PARTS_OF_TABLES: &[&str] = &["trigger", "policy", "publication relation"];
const IN_PUBLICATION: &str = " in publication ";

struct Dividing<'a> {
    rules: &'a Rules,
    scope: &'a Scope,
    at_source: HashMap<Entry, &'a Holding>,
    at_target: HashSet<(&'a str, &'a str)>,
    /// That the target has.
    extensions: HashSet<String>,
}

impl Dividing<'_> {
    fn is_chosen(&self, object: &Holding) -> bool {
        self.scope.admits(&self.at_source, object)
    }

    fn is_managed(&self, object: &Holding) -> bool {
        let schema = object.schema.as_deref();
        schema.is_some_and(|schema| self.rules.is_managed(schema))
    }

    fn is_there(&self, object: &Holding) -> bool {
        self.at_target.contains(&name(object))
    }

    /// Its extension comes along, and makes it.
    fn is_to_be_made(&self, object: &Holding) -> bool {
        let extension = object.extension.as_ref();
        extension.is_some_and(|name| !self.extensions.contains(name))
    }

    /// None: it is none of the platform's business.
    fn whose(&self, object: &Holding) -> Option<Whose> {
        match object.kind.as_str() {
            "schema" if !self.is_managed(object) => None,
            _ if self.is_to_be_made(object) => None,
            DEFAULTS => Some(self.whose_defaults(object)),
            "event trigger" => Some(self.event_trigger(object)),
            // As in any migration where the target lacks it.
            "extension" | "language" | "foreign-data wrapper" | "server" => {
                self.is_there(object).then_some(Whose::Shared)
            }
            _ if object.schema.is_none() => Some(self.by_owner(object)),
            _ => Some(self.in_schema(object)),
        }
    }

    /// The user's are made by a step of their own.
    fn whose_defaults(&self, object: &Holding) -> Whose {
        match is_users_defaults(self.rules, object) {
            true => Whose::Shared,
            false => self.by_owner(object),
        }
    }

    fn by_owner(&self, object: &Holding) -> Whose {
        if self.is_there(object) {
            Whose::Shared
        } else if object.extension.is_some() || self.rules.is_owner(&object.owner) {
            Whose::Skewed
        } else {
            Whose::Users
        }
    }

    /// Functions in managed schemas are the platform's there, whoever owns them: `postgres` does at some levels.
    fn event_trigger(&self, object: &Holding) -> Whose {
        let function = object.function.as_ref();
        let of_platform = function.is_some_and(|(schema, ..)| self.rules.is_managed(schema));
        match self.by_owner(object) {
            Whose::Users if of_platform => Whose::Skewed,
            whose => whose,
        }
    }

    fn in_schema(&self, object: &Holding) -> Whose {
        let Some(on) = object.of.and_then(|of| self.at_source.get(&of)) else {
            return self.by_owner(object);
        };
        match self.in_schema(on) {
            Whose::Users => Whose::Users,
            _ if self.is_there(object) => Whose::Shared,
            Whose::Skewed => Whose::Skewed,
            Whose::Shared => self.on_shared(object),
        }
    }

    /// On a table that both ends have, and at the source only.
    fn on_shared(&self, object: &Holding) -> Whose {
        match object.kind.as_str() {
            _ if object.extension.is_some() => Whose::Skewed,
            "policy" if is_users_policy(self.rules, object) => Whose::Users,
            "trigger" if is_users_trigger(self.rules, object) => Whose::Users,
            "publication relation" if self.is_published(object) => Whose::Users,
            _ => Whose::Skewed,
        }
    }

    /// The publication is at the target, or comes along.
    fn is_published(&self, object: &Holding) -> bool {
        let publication = object.identity.rsplit_once(IN_PUBLICATION).map(|(_, p)| p);
        let of_source = self.at_source.values().find(|o| {
            o.kind == "publication" && Some(plain(&o.identity)) == publication.map(plain)
        });
        of_source.is_some_and(|publication| self.by_owner(publication) != Whose::Skewed)
    }

    /// The user's, on a table of the platform that the target does not have.
    fn is_stranded(&self, object: &Holding) -> bool {
        let on = object.of.and_then(|of| self.at_source.get(&of));
        let users = match object.kind.as_str() {
            "policy" => is_users_policy(self.rules, object),
            "trigger" => is_users_trigger(self.rules, object),
            _ => false,
        };
        users && object.extension.is_none() && on.is_some_and(|on| !self.is_there(on))
    }

    /// Worth telling: somebody may have made it.
    fn is_apart(&self, object: &Holding) -> bool {
        let on = object.of.and_then(|of| self.at_source.get(&of));
        let shared = on.is_some_and(|on| self.is_there(on));
        shared && object.definition.is_some() && object.extension.is_none()
    }

    /// A managed schema that the target lacks comes along when something of the user's is in it.
    fn with_their_schemas(&self, source: &Holdings, division: &mut Division) {
        let users = source.objects.iter().filter(|object| {
            object.of.is_none()
                && object.kind != "schema"
                && !division.left.contains(&object.entry)
                && self.is_chosen(object)
        });
        let schemas: HashSet<&str> = users
            .filter_map(|object| object.schema.as_deref())
            .collect();
        for object in &source.objects {
            let housing = object.kind == "schema"
                && object
                    .schema
                    .as_deref()
                    .is_some_and(|s| schemas.contains(s));
            if housing && self.is_managed(object) && !self.is_there(object) {
                division.left.remove(&object.entry);
                if !division.carried.contains(&object.named()) {
                    division.carried.push(object.named());
                }
            }
        }
    }

    fn tables(
        &self,
        source: &Holdings,
        target: &Holdings,
        division: &Division,
    ) -> Vec<(HeldTable, Option<HeldTable>)> {
        let made = |table: &HeldTable| {
            let object = self.at_source.get(&table.entry);
            object.is_some_and(|object| self.is_to_be_made(object))
        };
        let there = |table: &HeldTable| match made(table) {
            true => Some(table.clone()),
            false => target.table(&table.plain()).cloned(),
        };
        let of_platform = source.tables.iter();
        of_platform
            .filter(|table| division.left.contains(&table.entry) || made(table))
            .filter(|table| self.scope.admits_table(table))
            .map(|table| (table.clone(), there(table)))
            .collect()
    }
}

fn is_platforms_defaults(rules: &Rules, object: &Holding) -> bool {
    object.kind == DEFAULTS && !is_users_defaults(rules, object)
}

fn is_users_defaults(rules: &Rules, object: &Holding) -> bool {
    defaults::are_users(rules, object.schema.as_deref(), &object.owner)
}

/// All but one for nobody but the platform's own roles.
pub fn is_users_policy(rules: &Rules, policy: &Holding) -> bool {
    policy.roles.is_empty() || policy.roles.iter().any(|role| !rules.is_owner(role))
}

pub fn is_users_trigger(rules: &Rules, trigger: &Holding) -> bool {
    let Some((schema, name, owner)) = &trigger.function else {
        return false;
    };
    !rules.is_managed(schema)
        || rules.is_hook(&format!("{schema}.{name}"))
        || !rules.is_owner(owner)
}
