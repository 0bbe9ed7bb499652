//! Makes two descriptions comparable: takes out what only one of the two servers can know, what this migration was not asked
//! to carry, and what is nobody's doing.
use std::collections::{HashMap, HashSet};

use pgconvoy_proto::model::{Catalog, Options, SchemaObject};

use super::names;

/// Facts that servers know, or know otherwise, from a major on: kind, property, major.
const YOUNG: &[(&str, &str, u32)] = &[
    ("collation", "rules", 16),
    ("column", "identity of a partition", 17),
    ("role", "parameters", 15),
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

/// Memberships, a line for each: `staff with admin option`, `staff: inherit true, set true`.
const MEMBERSHIPS: [&str; 2] = ["member of", "membership options"];

/// Roles are the server's: only those that the source's database uses are compared, and those that only the target's does, by being its
/// own or a member of one that the source uses. Of a superuser that initdb made nothing but what is said of it in this database.
fn roles(source: &mut Catalog, target: &mut Catalog) {
    let built_in = &having(source, "built in") | &having(target, "built in");
    let set_here: HashSet<String> = [&*source, &*target]
        .iter()
        .flat_map(|catalog| catalog.objects.iter().filter(|object| is_role(object)))
        .filter(|role| built_in.contains(&role.identity))
        .filter(|role| role.properties.keys().any(is_here))
        .map(|role| role.identity.clone())
        .collect();
    let used = &having(source, "used") | &set_here;
    // What its own role is and owns comes of the migration: it is told as that.
    let agent = having(target, "agent");
    let more = &(&(&having(target, "used") - &used) - &built_in) - &agent;
    give_back(source, target, &agent);
    let known: HashSet<String> = source
        .objects
        .iter()
        .filter(|o| is_role(o))
        .map(|o| o.identity.clone())
        .collect();
    for catalog in [source, target] {
        let kept = |name: &String| used.contains(name) || more.contains(name);
        catalog
            .objects
            .retain(|object| !is_role(object) || kept(&object.identity));
        for role in catalog.objects.iter_mut().filter(|object| is_role(object)) {
            for mark in ["used", "built in", "agent"] {
                role.properties.remove(mark);
            }
            if built_in.contains(&role.identity) {
                role.properties.retain(|property, _| is_here(property));
            } else if !used.contains(&role.identity) && known.contains(&role.identity) {
                only_memberships(role, &used);
            }
        }
    }
}

fn is_role(object: &SchemaObject) -> bool {
    object.kind == "role"
}

fn is_here(property: &String) -> bool {
    property.ends_with(IN_THIS_DATABASE)
}

/// The roles that have a property.
fn having(catalog: &Catalog, property: &str) -> HashSet<String> {
    let roles = catalog.objects.iter().filter(|object| is_role(object));
    let having = roles.filter(|role| role.get(property).is_some());
    having.map(|role| role.identity.clone()).collect()
}

/// Of a role that the source has and does not use: that it is a member of one that is used.
fn only_memberships(role: &mut SchemaObject, used: &HashSet<String>) {
    role.properties
        .retain(|property, _| MEMBERSHIPS.contains(&property.as_str()));
    let of_used = |line: &str| {
        let group = line.strip_suffix(" with admin option").unwrap_or(line);
        let group = group.split(": inherit ").next().unwrap_or(group);
        used.contains(group)
    };
    for property in MEMBERSHIPS {
        edit_lines(role, property, |line| {
            of_used(line).then(|| line.to_owned())
        });
    }
}

/// The target agent makes itself a member of roles that it creates, until `pgconvoy clean`.
fn give_back(source: &Catalog, target: &mut Catalog, agent: &HashSet<String>) {
    let agents = |catalog: &Catalog| {
        catalog
            .objects
            .iter()
            .find(|o| is_role(o) && agent.contains(&o.identity))
            .cloned()
    };
    let at_source = agents(source);
    let roles = target.objects.iter_mut().filter(|o| is_role(o));
    for role in roles.filter(|role| agent.contains(&role.identity)) {
        for property in MEMBERSHIPS {
            let had = at_source
                .as_ref()
                .and_then(|role| role.get(property))
                .unwrap_or_default();
            edit_lines(role, property, |line| {
                had.lines().any(|had| had == line).then(|| line.to_owned())
            });
        }
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

/// Of columns the order counts, not the number: one that is missing does not move those behind it, and of those that both ends have, only
/// the fewest that explain another order are told as moved.
fn columns(source: &mut Catalog, target: &mut Catalog) {
    let places = |catalog: &Catalog| -> HashMap<String, (String, u32)> {
        let placed = catalog.objects.iter();
        placed
            .filter_map(|o| Some((o.identity.clone(), (o.parent.clone(), position(o)?))))
            .collect()
    };
    let (at_source, at_target) = (places(source), places(target));
    let mut by_table: HashMap<&str, Vec<(u32, u32, &str)>> = HashMap::new();
    for (column, (table, here)) in &at_source {
        if let Some((_, there)) = at_target.get(column) {
            by_table
                .entry(table)
                .or_default()
                .push((*here, *there, column));
        }
    }
    let mut moved: HashMap<&str, [usize; 2]> = HashMap::new();
    for columns in by_table.values_mut() {
        columns.sort_unstable();
        let mut there: Vec<u32> = columns.iter().map(|(_, there, _)| *there).collect();
        let stays = longest_rise(&there);
        let order: Vec<u32> = there.clone();
        there.sort_unstable();
        for (at, (_, _, column)) in columns
            .iter()
            .enumerate()
            .filter(|(at, _)| !stays.contains(at))
        {
            let target = there.partition_point(|place| *place < order[at]);
            moved.insert(column, [at + 1, target + 1]);
        }
    }
    for (end, catalog) in [source, target].into_iter().enumerate() {
        for column in catalog.objects.iter_mut().filter(|o| position(o).is_some()) {
            match moved.get(column.identity.as_str()) {
                Some(places) => column
                    .properties
                    .insert("position".into(), places[end].to_string()),
                None => column.properties.remove("position"),
            };
        }
    }
}

/// Indexes of a longest rising subsequence, found by patience sorting.
fn longest_rise(values: &[u32]) -> HashSet<usize> {
    // Of each length the rise that ends lowest: where it ends.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(values.len());
    for (at, value) in values.iter().enumerate() {
        let length = ends.partition_point(|end| values[*end] < *value);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(length) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    std::iter::successors(ends.last().copied(), |at| before[*at]).collect()
}

fn position(object: &SchemaObject) -> Option<u32> {
    if object.kind != "column" {
        return None;
    }
    object.get("position")?.parse().ok()
}
