//! What is said of a division: what is not carried, and what the two ends protect differently.
use std::collections::{HashMap, HashSet};

use pgconvoy_proto::model::{Finding, HeldTable, Holding, Holdings, Rules, Severity};

use super::super::scope::{Scope, by_entry};
use super::name;
use crate::compare::known::plain;

pub fn not_carried((table, objects): (String, Vec<&Holding>)) -> Finding {
    let statements: Vec<&str> = objects
        .iter()
        .filter_map(|o| o.definition.as_deref())
        .collect();
    let message = format!(
        "{} of its indexes, constraints, triggers and rules are at the source only: the platform's levels differ there, and they are not carried",
        objects.len()
    );
    Finding::new(Severity::Info, "managed-not-carried", table, message)
        .values(statements.join("; "), "")
        .hint("one that is yours: run its statement at the target")
}

/// Policies at the target alone, on tables that both ends have: somebody may see more there than at the source.
pub fn more_policies(source: &Holdings, target: &Holdings, scope: &Scope) -> Option<Finding> {
    let there = by_entry(target);
    let at_source: HashSet<(&str, &str)> = source.objects.iter().map(name).collect();
    let more: Vec<String> = target
        .objects
        .iter()
        .filter(|object| object.kind == "policy" && object.extension.is_none())
        .filter(|object| !at_source.contains(&name(object)) && scope.admits(&there, object))
        .map(|object| plain(&object.identity))
        .collect();
    (!more.is_empty()).then(|| {
        Finding::new(
            Severity::Warning,
            "managed-policy-extra",
            "policies",
            "policies on the platform's tables that the target alone has: they stay, and let their roles see what the source does not",
        )
        .values("", more.join("; "))
        .hint("DROP POLICY at the target, if they are not meant")
    })
}

pub fn no_table_for(stranded: &[String]) -> Option<Finding> {
    (!stranded.is_empty()).then(|| {
        let message = format!(
            "{} triggers and policies of yours are on tables of the platform that the target does not have: they are not carried",
            stranded.len()
        );
        Finding::new(Severity::Warning, "managed-table-missing", "triggers and policies", message)
            .values(stranded.join("; "), "")
            .hint("upgrade the target's service, and create them there (rls_policies.sql of the run folder has the policies)")
    })
}

/// The user's, of those that both ends have: what they publish, beside the tables that they lack, stays as the target has it.
pub fn publications(rules: &Rules, source: &Holdings, target: &Holdings) -> Vec<Finding> {
    let there: HashMap<(&str, &str), &Holding> =
        target.objects.iter().map(|o| (name(o), o)).collect();
    let users = source.objects.iter();
    let users = users.filter(|o| o.kind == "publication" && !rules.is_owner(&o.owner));
    let differing = users.filter_map(|object| {
        let other = there.get(&name(object))?;
        (object.definition != other.definition).then_some((object, other))
    });
    let told = differing.map(|(object, other)| {
        let definition = |of: &Holding| of.definition.clone().unwrap_or_default();
        let message = "the target has this publication already, and it publishes something else: it gets the tables that it lacks, and nothing \
                       else of it is changed";
        let hint = format!(
            "DROP PUBLICATION {} at the target before the migration, and create it there as the source has it: its subscribers get what it publishes",
            object.identity
        );
        Finding::new(
            Severity::Warning,
            "managed-publication",
            format!("publication {}", plain(&object.identity)),
            message,
        )
        .values(definition(object), definition(other))
        .hint(hint)
    });
    told.collect()
}

pub fn row_security(tables: &[(HeldTable, Option<HeldTable>)]) -> Vec<Finding> {
    let off = tables.iter().filter(|(source, target)| {
        source.row_security && target.as_ref().is_some_and(|target| !target.row_security)
    });
    let told = off.map(|(table, _)| {
        Finding::new(
            Severity::Warning,
            "managed-rls-off",
            table.plain(),
            "row level security is on at the source and off at the target: the table is the platform's, and left as it is",
        )
        .values("enabled", "disabled")
        .hint("ALTER TABLE ... ENABLE ROW LEVEL SECURITY at the target, if roles of the API may read the table")
    });
    told.collect()
}
