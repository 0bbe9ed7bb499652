//! Whose is what: the source's objects in managed schemas are told apart by comparing both catalogs. Pure.
//!
//! What the target has too is the target's own and left as it is. What it lacks is the platform's when one of the platform's roles owns
//! it (the two ends are of different levels), else the user's: that is carried. Triggers go by their function; policies are
//! the user's, but those for the platform's own roles.
//! Indexes, constraints and rules that only the source has on a table of the platform are told, with the statement that would make them.
use std::collections::{BTreeMap, HashMap, HashSet};

use pgconvoy_proto::model::{Entry, Finding, HeldTable, Holding, Holdings, Named, Rules, Severity};

use crate::compare::known::plain;

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

pub fn divide(rules: &Rules, source: &Holdings, target: &Holdings) -> Division {
    let dividing = Dividing {
        rules,
        at_source: source.objects.iter().map(|o| (o.entry, o)).collect(),
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
            if dividing.is_managed(object) && (is_part || object.extension.is_none()) {
                division.carried.push(object.named());
            }
            continue;
        }
        division.left.insert(object.entry);
        if dividing.is_stranded(object) {
            stranded.push(plain(&object.identity));
        }
        if object.kind == "table" {
            // Its row level security has an entry of its own.
            division.left.insert(Entry {
                class: 0,
                oid: object.entry.oid,
            });
        }
        if object.schema.is_none() || object.kind == DEFAULTS {
            division.theirs.push(object.named());
        }
        if whose == Whose::Skewed && dividing.is_apart(object) {
            let on = object.of.and_then(|of| dividing.at_source.get(&of));
            let on = on.map(|table| plain(&table.identity)).unwrap_or_default();
            apart.entry(on).or_default().push(object);
        }
    }
    dividing.with_their_schemas(source, &mut division);
    division.tables = dividing.tables(source, target, &division);
    division.findings = apart.into_iter().map(not_carried).collect();
    division.findings.extend(no_table_for(&stranded));
    division.findings.extend(row_security(&division.tables));
    division.findings.extend(more_policies(source, target));
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
    at_source: HashMap<Entry, &'a Holding>,
    at_target: HashSet<(&'a str, &'a str)>,
    /// That the target has.
    extensions: HashSet<String>,
}

impl Dividing<'_> {
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
            DEFAULTS => Some(self.by_owner(object)),
            "event trigger" => Some(self.event_trigger(object)),
            // As in any migration where the target lacks it.
            "extension" | "language" | "foreign-data wrapper" | "server" => {
                self.is_there(object).then_some(Whose::Shared)
            }
            _ if object.schema.is_none() => Some(self.by_owner(object)),
            _ => Some(self.in_schema(object)),
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
            "policy" if self.is_for_services(object) => Whose::Skewed,
            "policy" => Whose::Users,
            "trigger" if self.is_users_trigger(object) => Whose::Users,
            "publication relation" if self.is_published(object) => Whose::Users,
            _ => Whose::Skewed,
        }
    }

    /// A policy for nobody but the platform's own roles.
    fn is_for_services(&self, policy: &Holding) -> bool {
        !policy.roles.is_empty() && policy.roles.iter().all(|role| self.rules.is_owner(role))
    }

    fn is_users_trigger(&self, object: &Holding) -> bool {
        let Some((schema, name, owner)) = &object.function else {
            return false;
        };
        !self.rules.is_managed(schema)
            || self.rules.is_hook(&format!("{schema}.{name}"))
            || !self.rules.is_owner(owner)
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
            "policy" => !self.is_for_services(object),
            "trigger" => self.is_users_trigger(object),
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
            object.of.is_none() && object.kind != "schema" && !division.left.contains(&object.entry)
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
            .map(|table| (table.clone(), there(table)))
            .collect()
    }
}

fn not_carried((table, objects): (String, Vec<&Holding>)) -> Finding {
    let statements: Vec<&str> = objects
        .iter()
        .filter_map(|o| o.definition.as_deref())
        .collect();
    let message = format!(
        "{} of its indexes, constraints, triggers and rules are at the source only: the platform's levels differ there, and they are not carried",
        objects.len()
    );
    Finding::new(Severity::Info, "managed-not-carried", table, message)
        .values(statements.join("; "), "")
        .hint("one that is yours: run its statement at the target")
}

/// Policies at the target alone, on tables that both ends have: somebody may see more there than at the source.
fn more_policies(source: &Holdings, target: &Holdings) -> Option<Finding> {
    let at_source: HashSet<(&str, &str)> = source.objects.iter().map(name).collect();
    let more: Vec<String> = target
        .objects
        .iter()
        .filter(|object| object.kind == "policy" && object.extension.is_none())
        .filter(|object| !at_source.contains(&name(object)))
        .map(|object| plain(&object.identity))
        .collect();
    (!more.is_empty()).then(|| {
        Finding::new(
            Severity::Warning,
            "managed-policy-extra",
            "policies",
            "policies on the platform's tables that the target alone has: they stay, and let their roles see what the source does not",
        )
        .values("", more.join("; "))
        .hint("DROP POLICY at the target, if they are not meant")
    })
}

fn no_table_for(stranded: &[String]) -> Option<Finding> {
    (!stranded.is_empty()).then(|| {
        let message = format!(
            "{} triggers and policies of yours are on tables of the platform that the target does not have: they are not carried",
            stranded.len()
        );
        Finding::new(Severity::Warning, "managed-table-missing", "triggers and policies", message)
            .values(stranded.join("; "), "")
            .hint("upgrade the target's service, and create them there (rls_policies.sql of the run folder has the policies)")
    })
}

fn row_security(tables: &[(HeldTable, Option<HeldTable>)]) -> Vec<Finding> {
    let off = tables.iter().filter(|(source, target)| {
        source.row_security && target.as_ref().is_some_and(|target| !target.row_security)
    });
    let told = off.map(|(table, _)| {
        Finding::new(
            Severity::Warning,
            "managed-rls-off",
            table.plain(),
            "row level security is on at the source and off at the target: the table is the platform's, and left as it is",
        )
        .values("enabled", "disabled")
        .hint("ALTER TABLE ... ENABLE ROW LEVEL SECURITY at the target, if roles of the API may read the table")
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use pgconvoy_proto::model::Platform;

    use super::*;

    const PLATFORM: &str = r#"
        name = "toy"
        managed-schemas = ["core"]
        owners = ["toy_*"]
        hooks = ["core.call_home"]
    "#;

    fn holding(oid: u32, kind: &str, identity: &str, owner: &str) -> Holding {
        Holding {
            entry: Entry { class: 1, oid },
            kind: kind.into(),
            identity: identity.into(),
            schema: Some("core".into()),
            owner: owner.into(),
            ..Holding::default()
        }
    }

    fn on(table: u32, mut object: Holding) -> Holding {
        object.of = Some(Entry {
            class: 1,
            oid: table,
        });
        object
    }

    fn trigger(oid: u32, function: (&str, &str, &str)) -> Holding {
        let mut object = on(
            1,
            holding(
                oid,
                "trigger",
                &format!("t{oid} on core.account"),
                "toy_admin",
            ),
        );
        object.function = Some((function.0.into(), function.1.into(), function.2.into()));
        object.definition = Some(format!("CREATE TRIGGER t{oid}"));
        object
    }

    fn divided(source: Vec<Holding>, target: Vec<Holding>) -> Division {
        let rules = Platform::parse(PLATFORM).unwrap().rules().unwrap();
        let of = |objects| Holdings {
            objects,
            ..Holdings::default()
        };
        divide(&rules, &of(source), &of(target))
    }

    fn carried(division: &Division) -> Vec<&str> {
        division
            .carried
            .iter()
            .map(|n| n.identity.as_str())
            .collect()
    }

    #[test]
    fn what_the_target_lacks_is_the_users_unless_the_platform_owns_it() {
        let account = holding(1, "table", "core.account", "toy_admin");
        let source = vec![
            account.clone(),
            holding(2, "table", "core.newer", "toy_admin"),
            holding(3, "function", "core.mine()", "app"),
            on(2, holding(4, "policy", "p on core.newer", "toy_admin")),
            on(1, holding(5, "policy", "p on core.account", "toy_admin")),
            Holding {
                roles: vec!["toy_live".into()],
                ..on(1, holding(6, "policy", "q on core.account", "toy_admin"))
            },
        ];
        let division = divided(source, vec![account]);
        assert_eq!(carried(&division), ["core.mine()", "p on core.account"]);
        assert_eq!(
            division.left.len(),
            6,
            "four objects, and two tables' row security"
        );
    }

    #[test]
    fn triggers_go_by_their_function() {
        let account = holding(1, "table", "core.account", "toy_admin");
        let source = vec![
            account.clone(),
            trigger(2, ("public", "welcome", "app")),
            trigger(3, ("core", "touch", "toy_admin")),
            trigger(4, ("core", "mine", "app")),
            trigger(5, ("core", "call_home", "toy_admin")),
        ];
        let division = divided(source, vec![account]);
        let users = [
            "t2 on core.account",
            "t4 on core.account",
            "t5 on core.account",
        ];
        assert_eq!(carried(&division), users);
        let told = &division.findings[0];
        assert_eq!(told.object, "core.account");
        assert_eq!(told.source_value, "CREATE TRIGGER t3");
    }

    #[test]
    fn what_both_ends_have_is_the_targets_own_whoever_owns_it() {
        let function = holding(1, "function", "core.f()", "app");
        let division = divided(vec![function.clone()], vec![function]);
        assert!(division.carried.is_empty() && division.left.len() == 1);
    }

    #[test]
    fn a_schema_that_the_target_lacks_comes_with_what_is_the_users_in_it() {
        let schema = holding(1, "schema", "core", "toy_admin");
        let alone = divided(vec![schema.clone()], vec![]);
        assert!(alone.carried.is_empty());
        let table = holding(2, "table", "core.mine", "app");
        let both = divided(vec![schema, table], vec![]);
        assert_eq!(carried(&both), ["core.mine", "core"]);
        assert!(both.left.is_empty());
    }

    #[test]
    fn of_the_whole_database_what_is_there_stays() {
        let wide = |oid, kind: &str, name: &str, owner: &str| Holding {
            schema: None,
            ..holding(oid, kind, name, owner)
        };
        let source = vec![
            wide(1, "publication", "live", "app"),
            wide(2, "publication", "mine", "app"),
            wide(3, "publication", "services", "toy_admin"),
            wide(4, "extension", "pgcrypto", "toy_admin"),
        ];
        let division = divided(source, vec![wide(9, "publication", "live", "toy_admin")]);
        let oids: HashSet<u32> = division.left.iter().map(|entry| entry.oid).collect();
        assert_eq!(oids, HashSet::from([1, 3]));
        assert_eq!(division.theirs.len(), 2);
    }
}
