//! Makes two descriptions comparable: takes out what only one of the two servers can know, what this migration was not asked
//! to carry, and what is nobody's doing.
use std::collections::HashMap;

use pgconvoy_proto::model::{Catalog, SchemaObject};
use pgconvoy_proto::names;

use self::columns::columns;
use self::roles::roles;
use crate::left_out::LeftOut;

mod columns;
mod roles;

pub use self::roles::SUPERUSER;

/// Facts that servers know, or know otherwise, from a major on: kind, property, major.
const YOUNG: &[(&str, &str, u32)] = &[
    ("collation", "rules", 16),
    ("column", "identity of a partition", 17),
    ("column", "not null constraint", 18),
    ("database", "parameters", 15),
    ("role", "parameters", 15),
    // That of an unlogged table's identity column is unlogged with it.
    ("sequence", "persistence", 15),
    ("role", "membership options", 16),
    ("publication", "generated columns", 18),
    ("subscription", "two phase", 15),
    ("subscription", "disable on error", 15),
    ("subscription", "origin", 16),
    ("subscription", "password required", 16),
    ("subscription", "run as owner", 16),
    ("subscription", "failover", 17),
    // What is not said means parallel there.
    ("subscription", "streaming", 18),
];

/// A privilege that PostgreSQL 17 brought: before it, owners did not need it.
const MAINTAIN: (&str, u32) = ("MAINTAIN", 17);

/// Where the source's sequences are taken to stand, by `schema.name`, if not where they stand now.
pub type Positions = HashMap<String, String>;

pub fn level(
    source: &mut Catalog,
    target: &mut Catalog,
    left_out: LeftOut,
    positions: Option<&Positions>,
) {
    for object in source.objects.iter_mut().chain(&mut target.objects) {
        rename(object);
    }
    let majors = [source.major(), target.major()];
    for object in source.objects.iter_mut().chain(&mut target.objects) {
        forget_young(object, majors);
    }
    for catalog in [&mut *source, &mut *target] {
        catalog.objects.retain_mut(|object| left_out.forget(object));
    }
    for object in &mut source.objects {
        take_position(object, positions);
    }
    for object in source.objects.iter_mut().chain(&mut target.objects) {
        if object.kind == "sequence" {
            object.properties.remove("name");
        }
    }
    roles(source, target);
    members(source, target);
    system(source, target);
    columns(source, target);
}

fn rename(object: &mut SchemaObject) {
    object.identity = names::identity(&object.identity);
    object.parent = names::identity(&object.parent);
    for (property, value) in &mut object.properties {
        *value = names::value(property, value);
    }
    if let Some(root) = object.properties.get_mut("inherited from") {
        *root = names::identity(root);
    }
}

fn forget_young(object: &mut SchemaObject, majors: [u32; 2]) {
    let apart =
        |since: u32| majors.iter().any(|m| *m < since) && majors.iter().any(|m| *m >= since);
    for (kind, property, since) in YOUNG {
        if object.kind == *kind && apart(*since) {
            object.properties.remove(*property);
        }
    }
    if apart(MAINTAIN.1) {
        edit_grants(object, without_maintain);
        edit_lines(object, "revoked grants", without_maintain);
    }
}

/// Goes through an object's grants, one a line; none: it has not got that one.
fn edit_grants(object: &mut SchemaObject, edit: impl Fn(&str) -> Option<String>) {
    edit_lines(object, "grants", edit);
}

fn edit_lines(object: &mut SchemaObject, property: &str, edit: impl Fn(&str) -> Option<String>) {
    if let Some(lines) = object.properties.get_mut(property) {
        let kept: Vec<String> = lines.lines().filter_map(edit).collect();
        *lines = kept.join("\n");
        if lines.is_empty() {
            object.properties.remove(property);
        }
    }
}

/// `alice=INSERT,MAINTAIN/bob`. None when nothing else was granted.
fn without_maintain(line: &str) -> Option<String> {
    let (grantee, rest) = line.rsplit_once('=')?;
    let (privileges, grantor) = rest.split_once('/')?;
    let kept: Vec<&str> = privileges
        .split(',')
        .filter(|privilege| privilege.trim_end_matches('*') != MAINTAIN.0)
        .collect();
    (!kept.is_empty()).then(|| format!("{grantee}={}/{grantor}", kept.join(",")))
}

fn take_position(object: &mut SchemaObject, positions: Option<&Positions>) {
    let name = object.get("name").unwrap_or_default();
    if let Some(position) = positions.and_then(|positions| positions.get(name)) {
        object
            .properties
            .insert("position".into(), position.clone());
    }
}

/// What is told of PostgreSQL's own objects is what was changed of them: one that is told at one end only is unchanged at the other.
fn system(source: &mut Catalog, target: &mut Catalog) {
    let of = |catalog: &Catalog| -> Vec<SchemaObject> {
        let changed = catalog
            .objects
            .iter()
            .filter(|object| object.get(SYSTEM).is_some());
        let unchanged = changed.map(|object| SchemaObject {
            properties: [(SYSTEM.to_owned(), "yes".to_owned())].into(),
            ..object.clone()
        });
        unchanged.collect()
    };
    let (at_source, at_target) = (of(source), of(target));
    let without = |all: &[SchemaObject], here: &[SchemaObject]| -> Vec<SchemaObject> {
        all.iter()
            .filter(|object| !here.contains(object))
            .cloned()
            .collect()
    };
    source.objects.extend(without(&at_target, &at_source));
    target.objects.extend(without(&at_source, &at_target));
}

/// Marks an object of PostgreSQL's own.
pub const SYSTEM: &str = "system";

/// Who owns a member of an extension.
const MEMBER_OWNER: &str = "owner of a member";

/// Members of extensions belong to whoever made the extension at each end: what one end grants to the other's owner, that one has
/// by owning.
fn members(source: &mut Catalog, target: &mut Catalog) {
    let owners = |catalog: &mut Catalog| -> HashMap<String, String> {
        let take = |object: &mut SchemaObject| {
            let owner = object.properties.remove(MEMBER_OWNER)?;
            Some((object.name(), owner))
        };
        catalog.objects.iter_mut().filter_map(take).collect()
    };
    let (at_source, at_target) = (owners(source), owners(target));
    for (catalog, elsewhere) in [(source, at_target), (target, at_source)] {
        for object in &mut catalog.objects {
            if let Some(owner) = elsewhere.get(&object.name()) {
                let to_owner = format!("{owner}=");
                edit_grants(object, |line| {
                    (!line.starts_with(&to_owner)).then(|| line.to_owned())
                });
            }
        }
    }
}
