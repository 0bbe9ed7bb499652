//! What comes of two servers of different majors: what the older one does not know, and extensions of other versions.
use pgconvoy_proto::facts::{BuiltIn, BuiltInKind, Extension, Newer};
use pgconvoy_proto::model::{Finding, Severity};

use super::{Facts, Intent, blocker, info, warning};

pub(super) fn findings(facts: &Facts, intent: Intent, found: &mut Vec<Finding>) {
    if intent.skip_schema {
        return;
    }
    extensions(facts, found);
    extension_tables(facts, found);
    let major = facts.target.server.version / 10_000;
    found.extend(facts.source.newer.iter().map(|newer| too_old(newer, major)));
    found.extend(
        facts
            .unknown
            .iter()
            .map(|built_in| unknown(built_in, major)),
    );
    older_target(facts, found);
}

/// They are made without a version, as pg_dump does: the target's own is taken.
fn extensions(facts: &Facts, found: &mut Vec<Finding>) {
    let target = &facts.target;
    for extension in &facts.source.extensions {
        let of_other_schema =
            |e: &&Extension| e.name == extension.name && e.schema != extension.schema;
        if let Some(there) = target.extensions_installed.iter().find(of_other_schema) {
            found.push(elsewhere(extension, there));
        }
        let of = |list: &[Extension]| {
            list.iter()
                .find(|e| e.name == extension.name)
                .map(|e| e.version.clone())
        };
        match of(&target.extensions_installed).or_else(|| of(&target.extensions_available)) {
            None => found.push(
                blocker(
                    "extension-missing",
                    extension.name.clone(),
                    format!(
                        "extension {} is not available on the target's server",
                        extension.name
                    ),
                )
                .values(extension.version.clone(), "")
                .hint(
                    "install its package at the target, or drop it at the source if it is not used",
                ),
            ),
            Some(version) if version != extension.version => found.push(
                info(
                    "extension-version",
                    extension.name.clone(),
                    "another version at the target",
                )
                .values(extension.version.clone(), version),
            ),
            Some(_) => {}
        }
    }
}

/// Their rows are the extension's own, and CREATE EXTENSION makes them; but for those that became members at run time.
fn extension_tables(facts: &Facts, found: &mut Vec<Finding>) {
    for (table, extension) in &facts.source.extension_tables {
        let message = format!(
            "it belongs to extension {extension}: its rows are not carried, nor is the table where CREATE EXTENSION does not make it"
        );
        let hint = format!(
            "if it is yours: ALTER EXTENSION {extension} DROP TABLE {table} at the source, before the migration"
        );
        found.push(warning("extension-table", table.clone(), message).hint(hint));
    }
}

/// What the archive makes names the extension's objects by their schema.
fn elsewhere(extension: &Extension, there: &Extension) -> Finding {
    let name = &extension.name;
    let hint = if there.relocatable {
        format!(
            "ALTER EXTENSION {name} SET SCHEMA {} at the target",
            extension.schema
        )
    } else {
        format!(
            "DROP EXTENSION {name} at the target, if nothing uses it: it is made as at the source"
        )
    };
    let message =
        "the target has the extension in another schema: what refers to it cannot be made";
    blocker(EXTENSION_SCHEMA, name.clone(), message)
        .values(&extension.schema, &there.schema)
        .hint(hint)
}

/// Code of the finding that an extension lies in another schema.
pub const EXTENSION_SCHEMA: &str = "extension-schema";

/// Objects of the source that have no place at a target of this major.
fn too_old(newer: &Newer, major: u32) -> Finding {
    let Newer {
        since, what, count, ..
    } = newer;
    let message = format!(
        "PostgreSQL {major} does not know {what} ({since} does): {count} {}",
        consequence(newer.vital)
    );
    finding(newer.vital, &newer.examples, newer.count, message).hint(format!(
        "{}; or migrate to PostgreSQL {since} or newer",
        newer.instead
    ))
}

fn unknown(built_in: &BuiltIn, major: u32) -> Finding {
    let name = match built_in.kind {
        BuiltInKind::Function => {
            format!("{}() with {} arguments", built_in.name, built_in.arguments)
        }
        _ => built_in.name.clone(),
    };
    let message = format!(
        "PostgreSQL {major} does not have the {} {name}: {} {}",
        built_in.kind.as_str(),
        built_in.count,
        consequence(built_in.vital)
    );
    finding(built_in.vital, &built_in.examples, built_in.count, message)
        .hint("change them at the source, or migrate to the source's major or newer")
}

fn finding(vital: bool, examples: &[String], count: u64, message: String) -> Finding {
    let severity = if vital {
        Severity::Blocker
    } else {
        Severity::Warning
    };
    let mut object = examples.join(", ");
    let more = count.saturating_sub(examples.len() as u64);
    if more > 0 {
        object += &format!(" and {more} more");
    }
    Finding::new(severity, "target-too-old", object, message)
}

/// After the number of objects.
fn consequence(vital: bool) -> &'static str {
    if vital {
        "found, and tables cannot be made without"
    } else {
        "found that would be lost or refused, the rest is moved"
    }
}

fn older_target(facts: &Facts, found: &mut Vec<Finding>) {
    let [source, target] =
        [&facts.source.server, &facts.target.server].map(|server| server.version / 10_000);
    if target < source {
        found.push(
            warning(
                "older-target",
                facts.target.server.database.clone(),
                "the target is of an older major version",
            )
            .values(source.to_string(), target.to_string())
            .hint("what the older version does not know and was not found here is refused when the schema is restored"),
        );
    }
}
