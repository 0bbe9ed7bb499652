//! Makes two descriptions comparable: takes out what only one of the two servers can know, what this migration was not asked
//! to carry, and what is nobody's doing.
use std::collections::{BTreeSet, HashMap, HashSet};

use pgconvoy_proto::model::{Catalog, Options, SchemaObject};

use super::names;

/// Facts that servers know, or know otherwise, from a major on: kind, property, major.
const YOUNG: &[(&str, &str, u32)] = &[
    ("collation", "rules", 16),
    ("column", "identity of a partition", 17),
    ("role", "membership options", 16),
    ("publication", "generated columns", 18),
];

/// A privilege that PostgreSQL 17 brought: before it, owners did not need it.
const MAINTAIN: (&str, u32) = ("MAINTAIN", 17);

pub const LARGE_OBJECT: &str = "large object";

/// Where the source's sequences are taken to stand, by `schema.name`, if not where they stand now.
pub type Positions = HashMap<String, String>;

pub fn level(
    source: &mut Catalog,
    target: &mut Catalog,
    options: &Options,
    positions: Option<&Positions>,
) {
    for object in source.objects.iter_mut().chain(&mut target.objects) {
        rename(object);
    }
    let majors = [source.major(), target.major()];
    for object in source.objects.iter_mut().chain(&mut target.objects) {
        forget_young(object, majors);
        forget_skipped(object, options);
    }
    if options.skip_data {
        // They are data, made by the copy of their pages.
        source.objects.retain(|object| object.kind != LARGE_OBJECT);
        target.objects.retain(|object| object.kind != LARGE_OBJECT);
    }
    if options.skip_rls {
        source.objects.retain(|object| object.kind != "policy");
        target.objects.retain(|object| object.kind != "policy");
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
    }
}

/// Goes through an object's grants, one a line; none: it has not got that one.
fn edit_grants(object: &mut SchemaObject, edit: impl Fn(&str) -> Option<String>) {
    if let Some(grants) = object.properties.get_mut("grants") {
        let kept: Vec<String> = grants.lines().filter_map(edit).collect();
        *grants = kept.join("\n");
        if grants.is_empty() {
            object.properties.remove("grants");
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

fn forget_skipped(object: &mut SchemaObject, options: &Options) {
    if options.skip_data {
        object.properties.remove("position");
        object.properties.remove("populated");
    }
    if options.skip_rls {
        object.properties.remove("row security");
        object.properties.remove("forced row security");
    }
}

fn take_position(object: &mut SchemaObject, positions: Option<&Positions>) {
    let name = object.get("name").unwrap_or_default();
    if let Some(position) = positions.and_then(|positions| positions.get(name)) {
        object
            .properties
            .insert("position".into(), position.clone());
    }
}

/// How a role's settings for one database alone are called.
const IN_THIS_DATABASE: &str = "(in this database)";

/// Roles are the server's: only those that the source's database uses are compared. Of a superuser that initdb made nothing but what is
/// said of it in this database.
fn roles(source: &mut Catalog, target: &mut Catalog) {
    let is_role = |object: &SchemaObject| object.kind == "role";
    let of = |catalog: &Catalog, property: &str| -> HashSet<String> {
        let having = |object: &&SchemaObject| is_role(object) && object.get(property).is_some();
        let names = catalog.objects.iter().filter(having);
        names.map(|object| object.identity.clone()).collect()
    };
    let built_in: HashSet<String> = &of(source, "built in") | &of(target, "built in");
    let is_here = |property: &String| property.ends_with(IN_THIS_DATABASE);
    let set_here: HashSet<String> = [&*source, &*target]
        .iter()
        .flat_map(|catalog| &catalog.objects)
        .filter(|object| built_in.contains(&object.identity))
        .filter(|object| is_role(object) && object.properties.keys().any(is_here))
        .map(|object| object.identity.clone())
        .collect();
    let used = &of(source, "used") | &set_here;
    for catalog in [source, target] {
        catalog
            .objects
            .retain(|object| !is_role(object) || used.contains(&object.identity));
        for role in catalog.objects.iter_mut().filter(|object| is_role(object)) {
            role.properties.remove("used");
            role.properties.remove("built in");
            if built_in.contains(&role.identity) {
                role.properties.retain(|property, _| is_here(property));
            }
        }
    }
}

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

/// Of columns the order counts, not the number: one that is missing does not move those behind it.
fn columns(source: &mut Catalog, target: &mut Catalog) {
    let placed = |catalog: &Catalog| -> BTreeSet<String> {
        let having = catalog.objects.iter().filter(|o| position(o).is_some());
        having.map(|object| object.identity.clone()).collect()
    };
    let common: BTreeSet<String> = &placed(source) & &placed(target);
    for catalog in [source, target] {
        let mut by_table: HashMap<String, Vec<&mut SchemaObject>> = HashMap::new();
        for column in catalog.objects.iter_mut().filter(|o| position(o).is_some()) {
            if common.contains(&column.identity) {
                let of_table = by_table.entry(column.parent.clone()).or_default();
                of_table.push(column);
            } else {
                column.properties.remove("position");
            }
        }
        for mut columns in by_table.into_values() {
            columns.sort_by_key(|column| position(column));
            for (at, column) in columns.into_iter().enumerate() {
                let place = (at + 1).to_string();
                column.properties.insert("position".into(), place);
            }
        }
    }
}

fn position(object: &SchemaObject) -> Option<u32> {
    if object.kind != "column" {
        return None;
    }
    object.get("position")?.parse().ok()
}
