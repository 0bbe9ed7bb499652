//! Roles are the server's: which of them are compared, and what of them.
use std::collections::HashSet;

use pgconvoy_proto::model::{Catalog, SchemaObject};

use super::edit_lines;

/// How a role's settings for one database alone are called.
const IN_THIS_DATABASE: &str = "(in this database)";

/// Memberships, a line for each: `staff with admin option`, `staff: inherit true, set true`.
const MEMBERSHIPS: [&str; 2] = ["member of", "membership options"];

/// Roles that reach all data, as do superusers.
const OF_ALL_DATA: [&str; 2] = ["pg_read_all_data", "pg_write_all_data"];
/// Told of a role that is not used: it reaches everything all the same. Of one that is used its attributes say so.
pub const SUPERUSER: &str = "superuser";

/// Roles are the server's: only those that the source's database uses are compared, and those that only the target's does, by being its
/// own, a member of one that the source uses, or one that reaches everything. Of a superuser that initdb made nothing but what is said of it in this database.
pub(super) fn roles(source: &mut Catalog, target: &mut Catalog) {
    let built_in = &having(source, "built in") | &having(target, "built in");
    let set_here: HashSet<String> = [&*source, &*target]
        .iter()
        .flat_map(|catalog| catalog.objects.iter().filter(|object| is_role(object)))
        .filter(|role| built_in.contains(&role.identity))
        .filter(|role| role.properties.keys().any(|property| is_here(property)))
        .map(|role| role.identity.clone())
        .collect();
    let used = &having(source, "used") | &set_here;
    // What its own role is and owns comes of the migration: it is told as that.
    let agent = having(target, "agent");
    let theirs = &having(target, "used") | &having(target, "reaching");
    let more = &(&(&theirs - &used) - &built_in) - &agent;
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
            for mark in ["used", "reaching", "built in", "agent"] {
                role.properties.remove(mark);
            }
            if built_in.contains(&role.identity) {
                role.properties.retain(|property, _| is_here(property));
            } else if !used.contains(&role.identity) && known.contains(&role.identity) {
                only_reach(role, &used);
            } else {
                role.properties.remove(SUPERUSER);
            }
        }
    }
}

fn is_role(object: &SchemaObject) -> bool {
    object.kind == "role"
}

fn is_here(property: &str) -> bool {
    property.ends_with(IN_THIS_DATABASE)
}

/// The roles that have a property.
fn having(catalog: &Catalog, property: &str) -> HashSet<String> {
    let roles = catalog.objects.iter().filter(|object| is_role(object));
    let having = roles.filter(|role| role.get(property).is_some());
    having.map(|role| role.identity.clone()).collect()
}

/// Of a role that the source has and does not use: that it is a member of one that is used, or reaches all data.
fn only_reach(role: &mut SchemaObject, used: &HashSet<String>) {
    role.properties
        .retain(|property, _| property == SUPERUSER || MEMBERSHIPS.contains(&property.as_str()));
    let of_used = |line: &str| {
        let group = line.strip_suffix(" with admin option").unwrap_or(line);
        let group = group.split(": inherit ").next().unwrap_or(group);
        used.contains(group) || OF_ALL_DATA.contains(&group)
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
