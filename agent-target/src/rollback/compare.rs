//! Whether the target is what it was: both readings are the target agent's own, of its catalogs and tables.
use std::collections::{BTreeMap, HashMap, HashSet};

use pgconvoy_agent_core::session::Session;
use pgconvoy_proto::model::{Finding, SchemaObject, Severity};
use tokio_postgres::Error;

use super::Undone;

/// Of a server, not of this database: other databases' roles come and go. Those that the migration made and that stay are told by the
/// caller.
const OF_SERVER: &str = "role";

pub(super) async fn with_before(session: &Session, undone: &Undone) -> Result<Vec<Finding>, Error> {
    let now = undone.before.again(session).await?;
    let mut findings = objects(&undone.before.schema, &now.schema);
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

/// One of PostgreSQL's own objects of which no grant is told has those that initdb gave it, be it in another order.
fn is_compared(object: &SchemaObject) -> bool {
    let as_shipped = object.get("system").is_some() && object.properties.len() == 1;
    object.kind != OF_SERVER && !as_shipped
}

fn objects(before: &[SchemaObject], now: &[SchemaObject]) -> Vec<Finding> {
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
            None => findings.push(difference(was.name(), "it was there and is gone")),
            Some(is) => findings.extend(changed(was, is)),
        }
    }
    let new = now.iter().filter(|(name, _)| !before.contains_key(*name));
    findings.extend(new.map(|(_, is)| difference(is.name(), "it was not there")));
    findings
}

/// `source_value` is what it was.
fn changed(was: &SchemaObject, is: &SchemaObject) -> Vec<Finding> {
    let names: HashSet<&String> = was.properties.keys().chain(is.properties.keys()).collect();
    let mut names: Vec<&String> = names.into_iter().collect();
    names.sort();
    names
        .into_iter()
        .filter(|name| was.get(name) != is.get(name))
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
        let told = objects(&before, &now);
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
        assert_eq!(objects(&before, &before), []);
    }
}
