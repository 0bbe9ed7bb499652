//! Default privileges of the user's on a platform: its services give the same roles and schemas some at both ends, and where the user has
//! changed them at the source, what is made at the target later would be open to others than there. Pure.
use std::collections::{BTreeMap, HashSet};

use pgconvoy_proto::model::{DefaultPrivileges, Finding, Holdings, Rules, Severity, Work};

use super::Scope;

/// What a role of the user's makes in the user's schemas, or anywhere, is granted as the user says.
pub fn are_users(rules: &Rules, schema: Option<&str>, role: &str) -> bool {
    !schema.is_some_and(|schema| rules.is_managed(schema)) && !rules.is_owner(role)
}

/// What makes them those of the source. Of a role that is not at the source they are the target's own.
pub fn work(
    rules: &Rules,
    (source, target): (&Holdings, &Holdings),
    absent_roles: &[String],
    scope: &Scope,
) -> Option<Work> {
    let ours = |of: &&DefaultPrivileges| are_users(rules, of.schema.as_deref(), &of.role);
    let absent: HashSet<&String> = absent_roles.iter().collect();
    let of_source = source.default_privileges.iter().filter(ours);
    let wanted: Vec<DefaultPrivileges> = of_source
        .filter(|of| of.schema.is_none() || scope.admits_all_of(of.schema.as_deref()))
        .cloned()
        .map(|mut of| {
            of.grants.retain(|grant| !absent.contains(&grant.grantee));
            of
        })
        .collect();
    let at_source = |now: &DefaultPrivileges| {
        let mut all = source.default_privileges.iter();
        all.any(|of| of.is_of(now)) || !source.roles.contains(&now.role)
    };
    let of_target = target.default_privileges.iter().filter(ours);
    let gone: Vec<DefaultPrivileges> = of_target
        .filter(|now| !at_source(now) && scope.admits_all_of(now.schema.as_deref()))
        .cloned()
        .collect();
    let is_idle = wanted.is_empty() && gone.is_empty();
    (!is_idle).then_some(Work::DefaultPrivileges { wanted, gone })
}

/// What becomes of those that the target has.
pub fn told(work: &Work, target: &Holdings) -> Vec<Finding> {
    let Work::DefaultPrivileges { wanted, gone } = work else {
        return Vec::new();
    };
    let finding = |of: &DefaultPrivileges, source: String| {
        let mut here = target.default_privileges.iter();
        let now = here.find(|now| now.is_of(of) && !now.is_same(of))?;
        let message = "the target has other default privileges for this role: they become the source's, for what is made there later";
        let told = Finding::new(
            Severity::Info,
            "default-privileges-changed",
            of.identity(),
            message,
        );
        Some(told.values(source, grants(now)))
    };
    let changed = wanted.iter().filter_map(|of| finding(of, grants(of)));
    let ended = gone.iter().filter_map(|of| {
        let none = DefaultPrivileges {
            grants: Vec::new(),
            ..of.clone()
        };
        finding(&none, "none".into())
    });
    changed.chain(ended).collect()
}

/// `alice=SELECT; PUBLIC=EXECUTE`
fn grants(of: &DefaultPrivileges) -> String {
    let mut by_role: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for grant in &of.grants {
        let grantee = match grant.grantee.as_str() {
            "" => "PUBLIC",
            role => role,
        };
        by_role.entry(grantee).or_default().push(&grant.privilege);
    }
    let each = by_role
        .iter()
        .map(|(role, privileges)| format!("{role}={}", privileges.join(",")));
    each.collect::<Vec<_>>().join("; ")
}
