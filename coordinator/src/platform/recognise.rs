//! Whether both ends live on a platform: by its signs, which are catalog objects. Pure.
use pgconvoy_proto::model::{Finding, Holdings, Platform, Severity};

use super::Profile;

/// Whether it is this one; and what there is to say.
pub fn recognise(
    platform: &Platform,
    source: &Holdings,
    target: &Holdings,
    profile: &Profile,
) -> (bool, Option<Finding>) {
    let (lacks_source, lacks_target) = (lacking(platform, source), lacking(platform, target));
    let name = &platform.name;
    if lacks_source.is_empty() && lacks_target.is_empty() {
        let message = format!(
            "both ends are {name}: schemas {} are the platform's (--profile plain takes them for yours)",
            source.schemas.join(", ")
        );
        let told = Finding::new(Severity::Info, "platform", name, message);
        return (true, Some(told));
    }
    let told = match (profile, lacks_source.is_empty(), lacks_target.is_empty()) {
        (Profile::Named(_), at_source, _) => {
            let (end, lacks) = match at_source {
                false => ("source", lacks_source),
                true => ("target", lacks_target),
            };
            let message = format!("the {end} is not {name}: it lacks {}", lacks.join(", "));
            Some(
                Finding::new(Severity::Blocker, "platform-absent", name, message).hint(
                    "start the platform's services there once: they make their schemas; or --profile plain, which takes every schema \
                     for yours",
                ),
            )
        }
        // Its schemas come along as everything else does.
        (_, true, false) => {
            let message = format!(
                "the source is {name}, and the target is not (it lacks {}): all of its schemas are carried as they are",
                lacks_target.join(", ")
            );
            Some(
                Finding::new(Severity::Warning, "platform-left", name, message)
                    .hint("if the target is to be one, start its services there once: they make their schemas"),
            )
        }
        _ => None,
    };
    (false, told)
}

fn lacking(platform: &Platform, holdings: &Holdings) -> Vec<String> {
    let signs = &platform.signs;
    let tables = signs
        .tables
        .iter()
        .filter(|table| holdings.table(table).is_none());
    let roles = signs
        .roles
        .iter()
        .filter(|role| !holdings.roles.contains(role));
    let tables = tables.map(|table| format!("table {table}"));
    tables
        .chain(roles.map(|role| format!("role {role}")))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use pgconvoy_proto::model::HeldTable;

    use super::*;

    fn end(tables: &[&str], roles: &[&str]) -> Holdings {
        let table = |name: &&str| {
            let (schema, name) = name.split_once('.').unwrap();
            HeldTable {
                schema: schema.into(),
                name: name.into(),
                ..HeldTable::default()
            }
        };
        Holdings {
            tables: tables.iter().map(table).collect(),
            roles: roles.iter().map(|r| (*r).to_owned()).collect(),
            ..Holdings::default()
        }
    }

    #[test]
    fn a_platform_shows_all_of_its_signs_at_both_ends() {
        let platform = Platform::parse(
            "name = \"toy\"\nmanaged-schemas = [\"core\"]\n[signs]\ntables = [\"core.a\"]\nroles = [\"toy_admin\"]",
        )
        .unwrap();
        let (is, not) = (end(&["core.a"], &["toy_admin"]), end(&["core.a"], &[]));
        let ask = |source, target, profile: &str| {
            let (is, told) = recognise(&platform, source, target, &profile.parse().unwrap());
            (is, told.map(|finding| finding.code))
        };
        assert_eq!(ask(&is, &is, "auto"), (true, Some("platform".into())));
        assert_eq!(
            ask(&is, &not, "auto"),
            (false, Some("platform-left".into()))
        );
        assert_eq!(ask(&not, &is, "auto"), (false, None));
        assert_eq!(
            ask(&is, &not, "toy"),
            (false, Some("platform-absent".into()))
        );
    }
}
