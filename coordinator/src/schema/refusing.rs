//! Drift that refuses rows: what the target demands of them and the source does not. A sync would end at the first such row. Pure.
use std::collections::{HashMap, HashSet};

use pgconvoy_proto::model::{Catalog, SchemaObject};

use crate::compare::Difference;
use crate::compare::known::plain;

/// By table, as people read its name: what the target's demands.
pub type Refusing = HashMap<String, Vec<String>>;

/// Of the differences, and of the objects of both ends that these are about.
pub fn refusing(differences: &[Difference], source: &Catalog, target: &Catalog) -> Refusing {
    let mut refusing = Refusing::new();
    let mut tell = |parent: &str, what: String| {
        if let Some(table) = parent.strip_prefix("table ") {
            refusing.entry(plain(table)).or_default().push(what);
        }
    };
    let mut types: HashMap<String, String> = HashMap::new();
    let stricter: HashSet<String> = differences.iter().filter_map(stricter).collect();
    for object in target.objects.iter().filter(|object| demands(object)) {
        let root = object.get("inherited from");
        let root = root.map(|root| format!("{} {root}", object.kind));
        if !stricter.contains(&object.name()) && !root.is_some_and(|root| stricter.contains(&root))
        {
            continue;
        }
        let what = format!("only the target has {}", plain(&object.name()));
        match object.parent.strip_prefix("type ") {
            Some(domain) => drop(types.insert(domain.to_owned(), what)),
            None => tell(&object.parent, what),
        }
    }
    for difference in differences {
        let Difference::Differs {
            source, changes, ..
        } = difference
        else {
            continue;
        };
        for change in changes {
            let only_here = change.source.is_none();
            match (source.kind.as_str(), change.property.as_str()) {
                ("column", "not null") if only_here => {
                    let column = plain(&source.identity);
                    tell(
                        &source.parent,
                        format!("{column} is NOT NULL at the target only"),
                    );
                }
                ("type", "not null") if only_here => {
                    let what = format!("{} is NOT NULL at the target only", plain(&source.name()));
                    types.insert(source.identity.clone(), what);
                }
                ("type", "labels") => {
                    let known = labels(change.target.as_deref().unwrap_or_default());
                    let here = labels(change.source.as_deref().unwrap_or_default());
                    let missing: Vec<&str> = here
                        .into_iter()
                        .filter(|label| !known.contains(label))
                        .collect();
                    if !missing.is_empty() {
                        let what = format!(
                            "the target's {} lacks {}",
                            plain(&source.name()),
                            missing.join(", ")
                        );
                        types.insert(source.identity.clone(), what);
                    }
                }
                _ => {}
            }
        }
    }
    of_domains(&mut types, source);
    for column in source.objects.iter().filter(|o| o.kind == "column") {
        if let Some(what) = column.get("type").and_then(|name| types.get(element(name))) {
            tell(&column.parent, what.clone());
        }
    }
    for demands in refusing.values_mut() {
        demands.sort();
        demands.dedup();
    }
    refusing
}

/// Something that the target alone has, or has otherwise.
fn stricter(difference: &Difference) -> Option<String> {
    match difference {
        Difference::Extra { object, .. } => Some(object.name()),
        Difference::Differs {
            source, changes, ..
        } => {
            let mut changes = changes.iter();
            changes
                .any(|change| change.property == "definition")
                .then(|| source.name())
        }
        Difference::Missing { .. } => None,
    }
}

/// It refuses rows. Foreign keys do not: they do not fire.
fn demands(object: &SchemaObject) -> bool {
    let definition = object.get("definition").unwrap_or_default();
    let begins = |with: &[&str]| with.iter().any(|with| definition.starts_with(with));
    match object.kind.as_str() {
        "constraint" => begins(&["CHECK", "UNIQUE", "PRIMARY KEY", "EXCLUDE"]),
        "index" => begins(&["CREATE UNIQUE"]),
        _ => false,
    }
}

/// A domain demands what the type below it does.
fn of_domains(types: &mut HashMap<String, String>, source: &Catalog) {
    loop {
        let domains = source.objects.iter().filter(|object| {
            object.kind == "type" && !types.contains_key(object.identity.as_str())
        });
        let more: Vec<(String, String)> = domains
            .filter_map(|domain| {
                let what = types.get(element(domain.get("base type")?))?;
                Some((domain.identity.clone(), what.clone()))
            })
            .collect();
        if more.is_empty() {
            return;
        }
        types.extend(more);
    }
}

/// Of an array's type, its elements'.
fn element(name: &str) -> &str {
    name.trim_end_matches("[]")
}

/// The labels of a list as quote_literal() writes them, with their quotes.
fn labels(list: &str) -> Vec<&str> {
    let mut labels = Vec::new();
    let (mut begin, mut quoted) = (0, false);
    for (at, c) in list.char_indices() {
        match c {
            // A doubled quote ends one piece and begins the next.
            '\'' => quoted = !quoted,
            ',' if !quoted => {
                labels.push(list[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    labels.push(list[begin..].trim());
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::compare;

    fn object(
        kind: &str,
        identity: &str,
        parent: &str,
        properties: &[(&str, &str)],
    ) -> SchemaObject {
        let properties = properties.iter();
        SchemaObject {
            kind: kind.into(),
            identity: identity.into(),
            parent: parent.into(),
            properties: properties
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        }
    }

    fn catalog(more: Vec<SchemaObject>) -> Catalog {
        let mut objects = vec![
            object("schema", "s", "", &[]),
            object("table", "s.t", "schema s", &[]),
            object("table", "s.leaf", "schema s", &[]),
        ];
        objects.extend(more);
        Catalog {
            objects,
            ..Catalog::default()
        }
    }

    fn between(source: Vec<SchemaObject>, target: Vec<SchemaObject>) -> Vec<String> {
        let (source, target) = (catalog(source), catalog(target));
        let found = refusing(&compare(&source, &target), &source, &target);
        let each = found.into_iter();
        let mut told: Vec<String> = each
            .map(|(t, what)| format!("{t}: {}", what.join("; ")))
            .collect();
        told.sort();
        told
    }

    #[test]
    fn labels_that_the_target_lacks_are_of_each_table_that_has_the_type() {
        let of = |labels: &str| {
            vec![
                object("type", "s.mood", "schema s", &[("labels", labels)]),
                object("type", "s.most", "schema s", &[("base type", "s.mood")]),
                object("column", "s.t.a", "table s.t", &[("type", "s.mood[]")]),
                object("column", "s.leaf.a", "table s.leaf", &[("type", "s.most")]),
                object("column", "s.v.a", "view s.v", &[("type", "s.mood")]),
            ]
        };
        let (less, more) = (of("'it''s, ok', 'b'"), of("'b', 'it''s, ok', 'c'"));
        assert_eq!(between(less.clone(), more.clone()), [""; 0]);
        assert_eq!(
            between(more, less),
            [
                "s.leaf: the target's type s.mood lacks 'c'",
                "s.t: the target's type s.mood lacks 'c'"
            ]
        );
    }

    #[test]
    fn constraints_refuse_rows_where_the_target_alone_has_them() {
        let check = |on: &str, of: &[(&str, &str)]| {
            let definition = [&[("definition", "CHECK ((a > 0))")], of].concat();
            object(
                "constraint",
                on,
                &format!("table {}", &on[5..]),
                &definition,
            )
        };
        let tree = vec![
            check("c on s.t", &[]),
            check("c on s.leaf", &[("inherited from", "c on s.t")]),
        ];
        assert_eq!(between(tree.clone(), vec![]), [""; 0]);
        assert_eq!(between(tree.clone(), tree.clone()), [""; 0]);
        assert_eq!(
            between(vec![], tree),
            [
                "s.leaf: only the target has constraint c on s.leaf",
                "s.t: only the target has constraint c on s.t"
            ]
        );
        let column =
            |not_null: &[(&str, &str)]| vec![object("column", "s.t.a", "table s.t", not_null)];
        let strict = column(&[("not null", "yes")]);
        assert_eq!(between(strict.clone(), column(&[])), [""; 0]);
        assert_eq!(
            between(column(&[]), strict),
            ["s.t: s.t.a is NOT NULL at the target only"]
        );
        let foreign = object(
            "constraint",
            "f on s.t",
            "table s.t",
            &[("definition", "FOREIGN KEY (a)")],
        );
        assert_eq!(between(vec![], vec![foreign]), [""; 0]);
    }
}
