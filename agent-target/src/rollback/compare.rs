//! Whether the target is what it was: both readings are the target agent's own, of its catalogs and tables.
use std::collections::{BTreeMap, HashMap, HashSet};

use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{
    Definition, Finding, HOLDS_ROWS, MADE_BY, QUERIES, SchemaObject, Severity, Tenancy,
};
use pgconvoy_proto::names;
use tonic::Status;

use super::Undone;
use crate::reprint;

/// Of a server, not of this database: other databases' roles come and go. Those that the migration made and that stay are told by the
/// caller.
const OF_SERVER: &str = "role";

pub(super) async fn with_before(
    session: &Session,
    undone: &Undone,
) -> Result<Vec<Finding>, Status> {
    let now = undone.before.again(session).await;
    let now = now.map_err(|error| status::postgres("reading the target's catalogs", &error))?;
    let before = printed_again(session, &undone.before.schema, &now.schema).await?;
    let services = Services::of(undone.tenancy(), &now.schema);
    let made = |object: &SchemaObject| !services.has_made(object);
    let mut findings = objects(&before, &now.schema, made);
    let planned: HashSet<String> = undone
        .tables
        .iter()
        .map(|table| format!("{}.{}", table.schema, table.name))
        .collect();
    let held: HashMap<&String, bool> = now
        .tables
        .iter()
        .map(|(name, rows)| (name, *rows))
        .collect();
    for (name, rows) in &undone.before.tables {
        if !rows && planned.contains(name) && held.get(name) == Some(&true) {
            findings.push(difference(name.clone(), "it was empty and holds rows"));
        }
    }
    Ok(findings)
}

fn difference(object: String, message: impl Into<String>) -> Finding {
    Finding::new(Severity::Difference, "not-rolled-back", object, message)
        .hint("the target agent's log says what was refused: mend it, and run rollback again")
}

/// The objects as they were. Of views that read otherwise now the earlier text is printed once more: one that comes back from a dump was
/// made from its text, which may read otherwise than what the text was printed from.
async fn printed_again(
    session: &Session,
    before: &[SchemaObject],
    now: &[SchemaObject],
) -> Result<Vec<SchemaObject>, Status> {
    let is_view = |object: &&SchemaObject| QUERIES.contains(&object.kind.as_str());
    let now = now.iter().filter(is_view);
    let now: HashMap<String, Option<String>> = now
        .map(|view| (view.name(), settled(view, DEFINITION)))
        .collect();
    let mut printed = before.to_vec();
    for view in &mut printed {
        let object = view.name();
        let differs = |now: &Option<String>| settled(view, DEFINITION) != *now;
        if !is_view(&&*view) || !now.get(&object).is_some_and(differs) {
            continue;
        }
        if let Some(query) = view.properties.get_mut(DEFINITION) {
            let definition = Definition {
                object,
                query: query.clone(),
            };
            if let Some(own) = reprint::print_one(session, definition).await? {
                *query = own.query;
            }
        }
    }
    Ok(printed)
}

const DEFINITION: &str = "definition";

/// As it is compared: a dump prints some expressions otherwise than what they come back as.
fn settled(object: &SchemaObject, property: &str) -> Option<String> {
    let value = object.get(property)?;
    Some(names::value(property, value))
}

/// One of PostgreSQL's own objects of which no grant is told has those that initdb gave it, be it in another order.
fn is_compared(object: &SchemaObject) -> bool {
    let as_shipped = object.get("system").is_some() && object.properties.len() == 1;
    object.kind != OF_SERVER && !as_shipped
}

/// `counts`: of what is new.
fn objects(
    before: &[SchemaObject],
    now: &[SchemaObject],
    counts: impl Fn(&SchemaObject) -> bool,
) -> Vec<Finding> {
    fn by_name(objects: &[SchemaObject]) -> BTreeMap<(&str, &str), &SchemaObject> {
        let counted = objects.iter().filter(|object| is_compared(object));
        counted
            .map(|object| ((object.kind.as_str(), object.identity.as_str()), object))
            .collect()
    }
    let (before, now) = (by_name(before), by_name(now));
    let mut findings = Vec::new();
    for (name, was) in &before {
        match now.get(name) {
            None => findings.push(gone(was)),
            Some(is) => findings.extend(changed(was, is)),
        }
    }
    let new = now
        .iter()
        .filter(|(name, is)| !before.contains_key(*name) && counts(is));
    findings.extend(new.map(|(_, is)| difference(is.name(), "it was not there")));
    findings
}

fn gone(was: &SchemaObject) -> Finding {
    if was.kind == "index" && was.get("valid") == Some("false") {
        let what = "it was there and is gone: no dump carries an index that is invalid";
        return Finding::new(Severity::Warning, "not-rolled-back", was.name(), what)
            .hint("no query used it: CREATE INDEX, if it is wanted");
    }
    difference(was.name(), "it was there and is gone")
}

/// A platform's services at the target, which go on by themselves.
struct Services<'a> {
    tenancy: Option<&'a Tenancy>,
    parents: HashMap<String, &'a str>,
}

impl<'a> Services<'a> {
    fn of(tenancy: Option<&'a Tenancy>, now: &'a [SchemaObject]) -> Self {
        let parents = now
            .iter()
            .map(|object| (object.name(), object.parent.as_str()));
        Self {
            tenancy,
            parents: parents.collect(),
        }
    }

    /// It is in one of the platform's schemas, and not of the migration.
    fn has_made(&self, object: &SchemaObject) -> bool {
        let Some(tenancy) = self.tenancy else {
            return false;
        };
        let is_carried = |name: &str| {
            let carried = tenancy.carried.iter();
            carried
                .map(|named| format!("{} {}", named.kind, named.identity))
                .any(|carried| carried == name)
        };
        let mut name = object.name();
        let mut parent = object.parent.as_str();
        loop {
            if is_carried(&name) {
                return false;
            }
            if let Some(schema) = parent.strip_prefix("schema ") {
                let schema = schema.trim_matches('"').replace("\"\"", "\"");
                return tenancy.schemas.contains(&schema);
            }
            match self.parents.get(parent) {
                Some(above) => (name, parent) = (parent.to_owned(), above),
                None => return false,
            }
        }
    }
}

/// Properties that tell of what others do, and of nothing that a migration changes: an extension's table has pages again as soon as its
/// worker writes, and what made something on it is told by the object itself.
const NOT_COMPARED: &[&str] = &[HOLDS_ROWS, MADE_BY];

/// `source_value` is what it was.
fn changed(was: &SchemaObject, is: &SchemaObject) -> Vec<Finding> {
    let names: HashSet<&String> = was.properties.keys().chain(is.properties.keys()).collect();
    let mut names: Vec<&String> = names.into_iter().collect();
    names.sort();
    names
        .into_iter()
        .filter(|name| !NOT_COMPARED.contains(&name.as_str()))
        .filter(|name| was.get(name) != is.get(name) && settled(was, name) != settled(is, name))
        .map(|name| {
            let value = |of: &SchemaObject| of.get(name).unwrap_or_default().to_owned();
            difference(was.name(), format!("its {name} is not what it was"))
                .values(value(was), value(is))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use pgconvoy_proto::model::Named;

    use super::*;

    fn object(kind: &str, comment: Option<&str>) -> SchemaObject {
        let comment = comment.map(|text| ("comment".to_owned(), text.to_owned()));
        SchemaObject {
            kind: kind.into(),
            identity: "a".into(),
            properties: comment.into_iter().collect(),
            ..SchemaObject::default()
        }
    }

    #[test]
    fn what_is_gone_new_or_changed_is_told_and_roles_are_not() {
        let before = [object("schema", None), object("table", None)];
        let now = [
            object("schema", Some("new")),
            object("view", None),
            object("role", None),
        ];
        let told = objects(&before, &now, |_| true);
        let messages: Vec<(&str, &str)> = told
            .iter()
            .map(|f| (f.object.as_str(), f.message.as_str()))
            .collect();
        assert_eq!(
            messages,
            [
                ("schema a", "its comment is not what it was"),
                ("table a", "it was there and is gone"),
                ("view a", "it was not there"),
            ]
        );
        assert_eq!(objects(&before, &before, |_| true), []);
    }

    #[test]
    fn what_reads_otherwise_or_is_others_doing_is_as_it_was() {
        let of = |kind: &str, properties: &[(&str, &str)]| SchemaObject {
            properties: properties
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..object(kind, None)
        };
        let before = [
            of(
                "constraint",
                &[(
                    "definition",
                    "CHECK ((a = ANY ((ARRAY['x'::character varying])::text[])))",
                )],
            ),
            of("table", &[("grants", "keeper=SELECT")]),
            of("index", &[("valid", "false")]),
        ];
        let now = [
            of(
                "constraint",
                &[(
                    "definition",
                    "CHECK ((a = ANY (ARRAY[('x'::character varying)::text])))",
                )],
            ),
            of("table", &[("grants", "keeper=SELECT"), (HOLDS_ROWS, "yes")]),
        ];
        let told = objects(&before, &now, |_| true);
        let told: Vec<(Severity, &str)> = told
            .iter()
            .map(|f| (f.severity, f.object.as_str()))
            .collect();
        assert_eq!(told, [(Severity::Warning, "index a")]);
        let other = [of(
            "constraint",
            &[("definition", "CHECK ((a = 'y'::text))")],
        )];
        assert_eq!(objects(&before[..1], &other, |_| true).len(), 1);
    }

    #[test]
    fn what_a_platforms_services_have_made_since_is_none_of_the_migrations() {
        let of = |kind: &str, identity: &str, parent: &str| SchemaObject {
            identity: identity.into(),
            parent: parent.into(),
            ..object(kind, None)
        };
        let now = [
            of("table", "\"core\".\"t\"", "schema \"core\""),
            of("column", "\"core\".\"t\".\"c\"", "table \"core\".\"t\""),
            of("policy", "\"p\" on \"core\".\"t\"", "table \"core\".\"t\""),
            of("table", "\"app\".\"t\"", "schema \"app\""),
        ];
        let tenancy = Tenancy {
            schemas: vec!["core".into()],
            carried: vec![Named {
                kind: "policy".into(),
                identity: "\"p\" on \"core\".\"t\"".into(),
            }],
            ..Tenancy::default()
        };
        let services = Services::of(Some(&tenancy), &now);
        let made: Vec<bool> = now.iter().map(|object| services.has_made(object)).collect();
        assert_eq!(made, [true, true, false, false]);
        assert!(!Services::of(None, &now).has_made(&now[0]));
    }
}
