//! What a migration has added to what was there: triggers and policies on tables of a platform, members of its publications. They go by
//! themselves; what they were added to stays.
use std::collections::{HashMap, HashSet};

use pgconvoy_agent_core::session::Session;
use pgconvoy_proto::model::SchemaObject;
use tokio_postgres::Error;

use super::Undone;

pub(super) struct Added {
    pub(super) name: String,
    pub(super) drop: String,
    /// Of the plan; else somebody else has added it since.
    pub(super) planned: bool,
}

pub(super) async fn read(session: &Session, undone: &Undone) -> Result<Vec<Added>, Error> {
    let Some(tenancy) = undone.tenancy() else {
        return Ok(Vec::new());
    };
    let now = undone.before.again(session).await?.schema;
    let carried: HashSet<(&str, &str)> = tenancy
        .carried
        .iter()
        .map(|named| (named.kind.as_str(), named.identity.as_str()))
        .collect();
    let mut added = on_tables(&undone.before.schema, &now, &carried);
    added.extend(members(&undone.before.schema, &now));
    Ok(added)
}

/// Makes room, on tables of a platform that stay, for what a migration that replaces what was there brings.
pub(super) async fn clear(session: &Session, undone: &Undone) -> Result<(), Error> {
    let carried = undone.tenancy().map_or(&[][..], |tenancy| &tenancy.carried);
    let on_tables = carried
        .iter()
        .filter(|named| ON_TABLES.contains(&named.kind.as_str()));
    let drops: Vec<String> = on_tables
        .map(|named| {
            format!(
                "DROP {} IF EXISTS {};",
                named.kind.to_uppercase(),
                named.identity
            )
        })
        .collect();
    session.batch_execute(&drops.join(" ")).await
}

const ON_TABLES: &[&str] = &["trigger", "policy"];

/// On tables that were there; those on tables that are dropped go with them.
fn on_tables(
    before: &[SchemaObject],
    now: &[SchemaObject],
    carried: &HashSet<(&str, &str)>,
) -> Vec<Added> {
    let were_there: HashSet<String> = before.iter().map(SchemaObject::name).collect();
    let is_added = |object: &&SchemaObject| {
        ON_TABLES.contains(&object.kind.as_str())
            && were_there.contains(&object.parent)
            && !were_there.contains(&object.name())
    };
    let added = now.iter().filter(is_added).map(|object| Added {
        name: object.name(),
        drop: format!(
            "DROP {} IF EXISTS {}",
            object.kind.to_uppercase(),
            object.identity
        ),
        planned: carried.contains(&(object.kind.as_str(), object.identity.as_str())),
    });
    added.collect()
}

/// Tables that were there, and are published since.
fn members(before: &[SchemaObject], now: &[SchemaObject]) -> Vec<Added> {
    let tables: HashSet<&str> = before
        .iter()
        .filter(|object| object.kind == "table")
        .map(|object| object.identity.as_str())
        .collect();
    let published: HashMap<&str, &SchemaObject> = before
        .iter()
        .filter(|object| object.kind == "publication")
        .map(|object| (object.identity.as_str(), object))
        .collect();
    let mut added = Vec::new();
    for publication in now.iter().filter(|object| object.kind == "publication") {
        let Some(was) = published.get(publication.identity.as_str()) else {
            continue;
        };
        let lines = |of: &SchemaObject| -> HashSet<String> {
            let tables = of.get("tables").unwrap_or_default();
            tables.lines().map(str::to_owned).collect()
        };
        for line in lines(publication).difference(&lines(was)) {
            let table = tables.iter().find(|table| {
                let rest = line.strip_prefix(**table);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            });
            added.extend(table.map(|table| Added {
                name: format!("{table} in publication {}", publication.identity),
                drop: format!(
                    "ALTER PUBLICATION {} DROP TABLE {table}",
                    publication.identity
                ),
                planned: true,
            }));
        }
    }
    added
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: &str, identity: &str, parent: &str) -> SchemaObject {
        SchemaObject {
            kind: kind.into(),
            identity: identity.into(),
            parent: parent.into(),
            ..SchemaObject::default()
        }
    }

    #[test]
    fn what_was_added_to_old_tables_goes_by_itself() {
        let before = [
            object("table", "\"a\".\"t\"", "schema \"a\""),
            object("policy", "\"old\" on \"a\".\"t\"", "table \"a\".\"t\""),
        ];
        let new = object("policy", "\"new\" on \"a\".\"t\"", "table \"a\".\"t\"");
        let elsewhere = object("policy", "\"p\" on \"a\".\"u\"", "table \"a\".\"u\"");
        let now = [before.as_slice(), &[new, elsewhere]].concat();
        let carried = HashSet::from([("policy", "\"new\" on \"a\".\"t\"")]);
        let added = on_tables(&before, &now, &carried);
        assert_eq!(added.len(), 1);
        assert!(added[0].planned);
        assert_eq!(
            added[0].drop,
            "DROP POLICY IF EXISTS \"new\" on \"a\".\"t\""
        );
    }

    #[test]
    fn old_tables_leave_publications_that_they_were_not_in() {
        let table = object("table", "\"a\".\"t\"", "schema \"a\"");
        let publication = |tables: &str| {
            let mut publication = object("publication", "\"live\"", "");
            publication
                .properties
                .insert("tables".into(), tables.into());
            publication
        };
        let before = [table.clone(), publication("")];
        let now = [
            table,
            publication("\"a\".\"t\" WHERE (true)\n\"b\".\"new\""),
        ];
        let added = members(&before, &now);
        assert_eq!(added.len(), 1);
        assert_eq!(
            added[0].drop,
            "ALTER PUBLICATION \"live\" DROP TABLE \"a\".\"t\""
        );
    }
}
