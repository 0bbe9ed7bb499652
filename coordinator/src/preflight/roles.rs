//! Roles: what will be created, what cannot be, and what is at the target already but differs.
use pgconvoy_proto::model::{
    Finding, Membership, ParameterGrant, Role, RoleChoice, Roles, Severity, is_built_in,
};

use super::{Facts, Intent, info, warning};

/// From here on CREATEROLE gives only the attributes that its holder has.
const OWN_ATTRIBUTES_SINCE: u32 = 160_000;

pub fn roles(facts: &Facts, intent: Intent, found: &mut Vec<Finding>) {
    if intent.skip_schema {
        return;
    }
    if intent.roles == RoleChoice::None {
        return missing(facts, intent, found);
    }
    let (carried, there) = (&facts.source.carried, &facts.target.roles);
    let create = carried.missing_at(there);
    if !create.roles.is_empty() {
        created(&create, found);
        refused(facts, intent, &create, found);
        without_password(facts, &create, found);
    }
    differing(carried, there, found);
    untied(carried, &create, there, found);
}

/// What goes on with --force, and stops the migration without.
fn unless_forced(intent: Intent) -> Severity {
    if intent.force {
        Severity::Warning
    } else {
        Severity::Blocker
    }
}

fn missing(facts: &Facts, intent: Intent, found: &mut Vec<Finding>) {
    let missing = facts.source.roles.iter();
    let missing =
        missing.filter(|(role, _)| !is_built_in(role) && facts.target.roles.get(role).is_none());
    for (role, example) in missing {
        found.push(
            Finding::new(
                unless_forced(intent),
                "role-missing",
                role.clone(),
                format!("role {role} does not exist at the target ({example})"),
            )
            .hint(
                "leave --roles none out, or CREATE ROLE it there; with --force what it owns goes to the loading role, its \
                 grants are lost",
            ),
        );
    }
}

fn created(create: &Roles, found: &mut Vec<Finding>) {
    let name = |role: &Role| {
        let note = if role.superuser { " (superuser)" } else { "" };
        format!("{}{note}", role.name)
    };
    let mut all: Vec<String> = create.roles.iter().map(name).collect();
    all.sort();
    let message = format!(
        "{} roles will be created at the target: {}",
        all.len(),
        all.join(", ")
    );
    found.push(info("roles-created", "roles", message));
}

/// Roles that the target agent's role may not create, or not with all of their attributes.
fn refused(facts: &Facts, intent: Intent, create: &Roles, found: &mut Vec<Finding>) {
    let server = &facts.target.server;
    if server.superuser {
        return;
    }
    let Some(agent) = facts.target.roles.get(&server.role) else {
        return;
    };
    for role in &create.roles {
        if let Some(reason) = obstacle(role, agent, server.version) {
            found.push(
                Finding::new(
                    unless_forced(intent),
                    "role-cannot-be-created",
                    &role.name,
                    format!("role {} of the target agent {reason}", agent.name),
                )
                .hint(
                    "create it at the target as a superuser; --force creates what can be, without the attributes that cannot \
                     be given; --roles none creates none",
                ),
            );
        }
    }
}

/// Why `agent`, who is no superuser, cannot create `role` as it is. CREATE ROLE in the PostgreSQL manual; before 16 CREATEROLE could give all
/// but three attributes.
fn obstacle(role: &Role, agent: &Role, version: u32) -> Option<String> {
    if !agent.create_role {
        return Some("has no CREATEROLE".into());
    }
    let own = version >= OWN_ATTRIBUTES_SINCE;
    let denied: Vec<&str> = [
        ("SUPERUSER", role.superuser),
        (
            "REPLICATION",
            role.replication && !(own && agent.replication),
        ),
        ("BYPASSRLS", role.bypass_rls && !(own && agent.bypass_rls)),
        ("CREATEDB", role.create_db && own && !agent.create_db),
    ]
    .into_iter()
    .filter_map(|(attribute, denied)| denied.then_some(attribute))
    .collect();
    (!denied.is_empty()).then(|| format!("may not give {}", denied.join(", ")))
}

fn without_password(facts: &Facts, create: &Roles, found: &mut Vec<Finding>) {
    let logins: Vec<&str> = create
        .roles
        .iter()
        .filter(|role| role.login)
        .map(|role| role.name.as_str())
        .collect();
    if facts.source.reads_passwords || logins.is_empty() {
        return;
    }
    let message = format!(
        "role {} may not read passwords at the source: these roles are created without one: {}",
        facts.source.server.role,
        logins.join(", ")
    );
    found.push(
        warning("role-password-not-carried", "roles", message).hint(
            "set their passwords at the target, or let the source agent connect as a superuser",
        ),
    );
}

/// Roles of both ends: never altered.
fn differing(carried: &Roles, there: &Roles, found: &mut Vec<Finding>) {
    for role in &carried.roles {
        let Some(other) = there.get(&role.name) else {
            continue;
        };
        let (source, target) = (role.unlike(other), other.unlike(role));
        if !source.is_empty() || !target.is_empty() {
            found.push(
                warning(
                    "role-differs",
                    &role.name,
                    "the role is at the target already, and is left as it is",
                )
                .values(source, target)
                .hint("ALTER ROLE at the target, if it should be as at the source"),
            );
        }
    }
}

/// Memberships and grants between roles that are at the target already.
fn untied(carried: &Roles, create: &Roles, there: &Roles, found: &mut Vec<Finding>) {
    let has = |wanted: &Membership| {
        let same = |m: &&Membership| m.role == wanted.role && m.member == wanted.member;
        let mut have = there.memberships.iter().filter(same);
        have.any(|have| have.admin || !wanted.admin)
    };
    let grants = |wanted: &ParameterGrant| {
        let same = |p: &&ParameterGrant| {
            p.parameter == wanted.parameter
                && p.grant.grantee == wanted.grant.grantee
                && p.grant.privilege == wanted.grant.privilege
        };
        let mut have = there.parameters.iter().filter(same);
        have.any(|have| have.grant.grantable || !wanted.grant.grantable)
    };
    let memberships = carried.memberships.iter();
    for left in memberships.filter(|m| !create.memberships.contains(m) && !has(m)) {
        let with = if left.admin { " WITH ADMIN OPTION" } else { "" };
        let message = format!(
            "{} is a member of {} at the source{with}, and is not so at the target: both were there before, nothing is granted",
            left.member, left.role
        );
        found.push(
            warning("membership-missing", left.object(), message)
                .hint("GRANT it at the target, if it is needed"),
        );
    }
    let parameters = carried.parameters.iter();
    for left in parameters.filter(|p| !create.parameters.contains(p) && !grants(p)) {
        let message =
            "granted at the source only: the role was at the target before, nothing is granted";
        found.push(
            warning("parameter-grant-missing", left.object(), message)
                .hint("GRANT it at the target, if it is needed"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> Role {
        Role {
            name: name.into(),
            inherit: true,
            connection_limit: -1,
            ..Role::default()
        }
    }

    #[test]
    fn createrole_gives_what_the_version_lets_it() {
        let mut agent = role("agent");
        let mut wanted = role("wanted");
        wanted.create_db = true;
        let of = |wanted: &Role, agent: &Role, version| obstacle(wanted, agent, version);
        assert!(of(&wanted, &agent, 150_000).is_some_and(|r| r.contains("CREATEROLE")));
        agent.create_role = true;
        assert_eq!(of(&wanted, &agent, 150_000), None);
        assert_eq!(
            of(&wanted, &agent, 160_000).as_deref(),
            Some("may not give CREATEDB")
        );
        wanted.create_db = false;
        wanted.bypass_rls = true;
        agent.bypass_rls = true;
        assert_eq!(
            of(&wanted, &agent, 150_000).as_deref(),
            Some("may not give BYPASSRLS")
        );
        assert_eq!(of(&wanted, &agent, 160_000), None);
    }

    #[test]
    fn what_is_there_is_compared_and_what_lies_between_is_told() {
        let member = Membership {
            role: "staff".into(),
            member: "alice".into(),
            grantor: None,
            admin: true,
            inherit: None,
            set: None,
        };
        let carried = Roles {
            roles: vec![role("alice"), role("staff")],
            memberships: vec![member.clone()],
            parameters: Vec::new(),
        };
        let mut there = carried.clone();
        there.roles[0].login = true;
        there.memberships[0].admin = false;
        let mut found = Vec::new();
        differing(&carried, &there, &mut found);
        untied(&carried, &carried.missing_at(&there), &there, &mut found);
        let told: Vec<_> = found
            .iter()
            .map(|f| (f.code.as_str(), f.object.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("role-differs", "alice"),
                ("membership-missing", "alice in staff")
            ]
        );
        assert_eq!(found[0].source_value, "NOLOGIN");
        assert_eq!(found[0].target_value, "LOGIN");

        let mut same = Vec::new();
        differing(&carried, &carried, &mut same);
        untied(&carried, &Roles::default(), &carried, &mut same);
        assert!(same.is_empty());
    }
}
