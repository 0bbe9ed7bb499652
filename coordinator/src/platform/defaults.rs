//! Default privileges of the user's on a platform: its services give the same roles and schemas some at both ends, and where the user has
//! changed them at the source, what is made at the target later would be open to others than there. Pure.
use std::collections::{BTreeMap, HashSet};

use pgconvoy_proto::model::{DefaultPrivileges, Finding, Holdings, Rules, Severity, Work};

use super::Scope;

/// What makes those that the target has already those of the source. A role that is not at the source is the target's own.
pub fn work(
    rules: &Rules,
    (source, target): (&Holdings, &Holdings),
    absent_roles: &[String],
    scope: &Scope,
) -> Option<Work> {
    let ours = |of: &&DefaultPrivileges| {
        let managed = of.schema.as_deref().is_some_and(|s| rules.is_managed(s));
        !managed && !rules.is_owner(&of.role) && scope.admits_all_of(of.schema.as_deref())
    };
    let absent: HashSet<&String> = absent_roles.iter().collect();
    let mut wanted = Vec::new();
    let mut gone = Vec::new();
    for now in target.default_privileges.iter().filter(ours) {
        let mut of_source = source.default_privileges.iter();
        match of_source.find(|of| of.is_of(now)).cloned() {
            Some(mut of) => {
                of.grants.retain(|grant| !absent.contains(&grant.grantee));
                if !of.is_same(now) {
                    wanted.push(of);
                }
            }
            None if source.roles.contains(&now.role) => gone.push(now.clone()),
            None => {}
        }
    }
    let is_idle = wanted.is_empty() && gone.is_empty();
    (!is_idle).then_some(Work::DefaultPrivileges { wanted, gone })
}

/// What becomes of each.
pub fn told(work: &Work, target: &Holdings) -> Vec<Finding> {
    let Work::DefaultPrivileges { wanted, gone } = work else {
        return Vec::new();
    };
    let finding = |of: &DefaultPrivileges, source: String| {
        let now = target.default_privileges.iter().find(|now| now.is_of(of));
        let message = "the target has other default privileges for this role: they become the source's, with what is made there later";
        Finding::new(
            Severity::Info,
            "default-privileges-changed",
            of.identity(),
            message,
        )
        .values(source, now.map(grants).unwrap_or_default())
    };
    let changed = wanted.iter().map(|of| finding(of, grants(of)));
    let ended = gone.iter().map(|of| finding(of, "none".into()));
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
