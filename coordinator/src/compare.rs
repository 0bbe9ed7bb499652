//! Two descriptions of a database, compared object by object. Pure.
//!
//! What hangs on an object that is missing is missing too: it is counted, and reported once with the object. What both ends cannot know
//! alike (levelled by [`level`]) and what the ledger has a finding about ([`known`]) is left out.
use std::collections::{BTreeMap, HashMap};

use pgconvoy_proto::model::{Catalog, HOLDS_ROWS, MADE_BY, SchemaObject};

pub mod code;
pub mod findings;
pub mod known;
pub mod level;
pub mod own;
#[cfg(test)]
mod tests;

/// A property that differs. None: that end's object does not have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub property: String,
    pub source: Option<String>,
    pub target: Option<String>,
}

/// How many of what kind.
pub type Counts = BTreeMap<String, usize>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// At the source only; with what hangs on it.
    Missing { object: SchemaObject, with: Counts },
    /// At the target only.
    Extra { object: SchemaObject, with: Counts },
    Differs {
        source: SchemaObject,
        target: SchemaObject,
        changes: Vec<Change>,
    },
}

impl Difference {
    pub fn object(&self) -> &SchemaObject {
        match self {
            Self::Missing { object, .. } | Self::Extra { object, .. } => object,
            Self::Differs { source, .. } => source,
        }
    }
}

/// What is at one end only or differs, in order of kind and identity.
pub fn compare(source: &Catalog, target: &Catalog) -> Vec<Difference> {
    let (at_source, at_target) = (by_name(source), by_name(target));
    let lost = |object: &SchemaObject| is_lost_member(object, &at_source, &at_target);
    let made = |object: &SchemaObject| is_made_later(object, &at_target, &at_source);
    let mut differences = alone(&at_source, &at_target, lost, |object, with| {
        Difference::Missing { object, with }
    });
    let extra = |object, with| Difference::Extra { object, with };
    differences.extend(alone(&at_target, &at_source, made, extra));
    let one_major = source.major() == target.major();
    for (name, object) in &at_source {
        if let Some(other) = at_target.get(name) {
            let one_version = has_one_version(object, &at_source, &at_target);
            let mut changes = changes(object, other);
            changes.retain(|change| {
                !is_of_member(object) || is_told_of_member(change, one_version, one_major)
            });
            if !changes.is_empty() {
                differences.push(Difference::Differs {
                    source: (*object).clone(),
                    target: (*other).clone(),
                    changes,
                });
            }
        }
    }
    differences.sort_by_key(|difference| difference.object().name());
    differences
}

/// How many objects of each kind there are at either end.
pub fn counts(source: &Catalog, target: &Catalog) -> Counts {
    let mut all = by_name(source);
    all.extend(by_name(target));
    let mut counts = Counts::new();
    for object in all.values() {
        *counts.entry(object.kind.clone()).or_default() += 1;
    }
    counts
}

type ByName<'a> = HashMap<String, &'a SchemaObject>;

fn by_name(catalog: &Catalog) -> ByName<'_> {
    catalog.objects.iter().map(|o| (o.name(), o)).collect()
}

/// It belongs to an extension, or to a table of one.
fn is_of_member(object: &SchemaObject) -> bool {
    object.parent.starts_with("extension ")
}

/// The extension that it belongs to is of the same version at both ends: its script makes the same.
fn has_one_version(object: &SchemaObject, here: &ByName, there: &ByName) -> bool {
    let version = |all: &ByName| Some(all.get(&object.parent)?.get("version")?.to_owned());
    version(there).is_some() && version(here) == version(there)
}

/// A table or sequence that was made a member of its extension at run time, or something that was made on such a table: CREATE EXTENSION
/// of the same version did not make it.
fn is_made_later(object: &SchemaObject, here: &ByName, there: &ByName) -> bool {
    let may_be = ["table", "sequence", "policy"].contains(&object.kind.as_str());
    has_one_version(object, here, there) && (may_be || object.get(MADE_BY).is_some())
}

/// No dump has it. Of another version of the extension it may be one that this has no more, which matters when it holds rows.
fn is_lost_member(object: &SchemaObject, here: &ByName, there: &ByName) -> bool {
    object.get(HOLDS_ROWS).is_some() || is_made_later(object, here, there)
}

/// What an extension's script makes, and makes otherwise in each version, is compared between equal versions; how something is made, between
/// servers of one major, which print it alike.
fn is_told_of_member(change: &Change, one_version: bool, one_major: bool) -> bool {
    match change.property.as_str() {
        "grants" | "comment" => true,
        MADE_BY | "definition" => one_version && one_major,
        _ => one_version,
    }
}

/// Objects of `here` that are not `there`: the topmost only, with a count of what goes with each. The members of an extension are its
/// version's affair, but for those that `told` holds for.
fn alone(
    here: &ByName,
    there: &ByName,
    told: impl Fn(&SchemaObject) -> bool,
    make: impl Fn(SchemaObject, Counts) -> Difference,
) -> Vec<Difference> {
    let mut tops: BTreeMap<String, Counts> = BTreeMap::new();
    for (name, object) in here.iter().filter(|(name, _)| !there.contains_key(*name)) {
        let mut top = name;
        let mut below = *object;
        while let Some((above, object)) = above(below).find_map(|above| {
            let alone = !there.contains_key(&above);
            here.get_key_value(&above).filter(|_| alone)
        }) {
            (top, below) = (above, object);
        }
        if top == name && is_of_member(object) && !told(object) {
            continue;
        }
        let with = tops.entry(top.clone()).or_default();
        if top != name {
            *with.entry(object.kind.clone()).or_default() += 1;
        }
    }
    tops.into_iter()
        .map(|(name, with)| make(here[&name].clone(), with))
        .collect()
}

/// What an object goes with: its table or its schema, and what a partition's share is the share of.
fn above(object: &SchemaObject) -> impl Iterator<Item = String> + '_ {
    let root = object.get("inherited from");
    let root = root.map(|identity| format!("{} {identity}", object.kind));
    std::iter::once(object.parent.clone()).chain(root)
}

fn changes(source: &SchemaObject, target: &SchemaObject) -> Vec<Change> {
    let mut names: Vec<&String> = source.properties.keys().collect();
    names.extend(target.properties.keys());
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| name.as_str() != HOLDS_ROWS && source.get(name) != target.get(name))
        .map(|name| Change {
            property: name.clone(),
            source: source.get(name).map(str::to_owned),
            target: target.get(name).map(str::to_owned),
        })
        .collect()
}
