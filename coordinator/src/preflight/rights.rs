//! What the target agent's role may not do, who is no superuser on managed servers.
use pgconvoy_proto::facts::OfAnother;
use pgconvoy_proto::model::{Finding, Role};

use super::{Facts, Intent, blocker, names};

/// What is replaced is dropped, and a rollback makes it anew and gives it to its owner.
pub fn not_ours(facts: &Facts, others: &OfAnother) -> Finding {
    let (role, owner) = (&facts.target.server.role, &others.owner);
    blocker(
        "target-not-owned",
        others.examples.join(", "),
        format!(
            "role {role} can neither drop {} objects of role {owner} nor give them back to it",
            others.count
        ),
    )
    .hint(format!(
        "GRANT {owner} TO {role}, use a superuser, or drop them before"
    ))
}

/// Forced row level security is on before the first row arrives, and for owners too: it would refuse every row.
pub fn forced_rls(facts: &Facts, intent: Intent) -> Option<Finding> {
    let role = &facts.target.server.role;
    let passes = |role: &Role| role.superuser || role.bypass_rls;
    let tables = &facts.source.forced_rls;
    let none_is_loaded = intent.skip_schema || intent.skip_data || intent.skip_rls;
    if tables.is_empty() || none_is_loaded || facts.target.roles.get(role).is_some_and(passes) {
        return None;
    }
    let message = format!(
        "row level security of {} tables is forced on their owners too: role {role} of the target agent could not load them",
        tables.len()
    );
    Some(blocker("rls-forced", names(tables), message).hint(format!(
        "ALTER ROLE {role} BYPASSRLS at the target, or use a superuser"
    )))
}
