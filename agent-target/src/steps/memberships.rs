//! Memberships between roles, and grants on parameters: one transaction, after the roles are there. The plan holds only what needs
//! a role that this migration creates.
use std::collections::HashSet;

use pgconvoy_agent_core::inventory::roles;
use pgconvoy_agent_core::session::{Session, quote_ident};
use pgconvoy_proto::model::{Finding, Membership, ParameterGrant, Roles, Severity, is_built_in};
use tokio_postgres::Error;

use super::attempt;
use super::roles::Agent;

/// Grants what is wanted and not there. What is refused is a finding.
pub async fn grant(
    session: &Session,
    agent: &Agent,
    wanted: &Roles,
) -> Result<Vec<Finding>, Error> {
    session.batch_execute("BEGIN").await?;
    let there = roles::read(session).await?;
    let mut granting = Granting {
        session,
        agent,
        names: there.names().into_iter().collect(),
        options: roles::knows_grantors(session.server_version()),
        there,
        findings: Vec::new(),
    };
    let mut open: Vec<&Membership> = wanted.memberships.iter().collect();
    open.retain(|wanted| !granting.has(wanted));
    // A grantor must have ADMIN OPTION first: those whose grantor has it now, and again, until none of the rest ever will.
    while !open.is_empty() {
        let (now, later): (Vec<&Membership>, Vec<&Membership>) =
            open.into_iter().partition(|m| granting.may_grant(m));
        let stuck = now.is_empty();
        for membership in if stuck { &later } else { &now } {
            granting.membership(membership, !stuck).await?;
        }
        open = if stuck { Vec::new() } else { later };
    }
    for parameter in &wanted.parameters {
        granting.parameter(parameter).await?;
    }
    session.batch_execute("COMMIT").await?;
    Ok(granting.findings)
}

struct Granting<'a> {
    session: &'a Session,
    agent: &'a Agent,
    /// Of every role of the server.
    names: HashSet<String>,
    /// The server knows INHERIT and SET options, and grantors that mean something.
    options: bool,
    /// What the server had before, and what was granted since.
    there: Roles,
    findings: Vec<Finding>,
}

impl Granting<'_> {
    fn has(&self, wanted: &Membership) -> bool {
        self.there.memberships.iter().any(|have| {
            let same = have.role == wanted.role && have.member == wanted.member;
            let grantor = !self.options || have.grantor == wanted.grantor;
            let admin = have.admin || !wanted.admin;
            let inherit = wanted.inherit.is_none() || have.inherit == wanted.inherit;
            let set = wanted.set.is_none() || have.set == wanted.set;
            same && grantor && admin && (!self.options || inherit && set)
        })
    }

    /// The grantor that the statement names: only a superuser may name another than itself, and none is named for what the first
    /// superuser granted.
    fn grantor<'m>(&self, membership: &'m Membership) -> Option<&'m str> {
        let grantor = membership.grantor.as_deref()?;
        let says = !self.options || membership.inherit.is_some();
        (self.agent.superuser && says && self.names.contains(grantor)).then_some(grantor)
    }

    fn may_grant(&self, membership: &Membership) -> bool {
        match self.grantor(membership) {
            Some(grantor) if self.options => {
                self.there.memberships.iter().any(|have| {
                    have.role == membership.role && have.member == grantor && have.admin
                })
            }
            _ => true,
        }
    }

    async fn membership(&mut self, wanted: &Membership, named: bool) -> Result<(), Error> {
        let absent = [&wanted.role, &wanted.member]
            .into_iter()
            .find(|name| !self.names.contains(*name) && !is_built_in(name));
        let refused = match absent {
            Some(name) => Some(format!("role {name} does not exist at the target")),
            None => {
                let grantor = self.grantor(wanted).filter(|_| named);
                let statement = statement(wanted, grantor, self.options);
                attempt(self.session, &statement).await?
            }
        };
        match refused {
            Some(reason) => self.warn("membership-not-kept", wanted.object(), reason),
            None => {
                self.there.memberships.push(wanted.clone());
                self.lost_options(wanted);
            }
        }
        Ok(())
    }

    /// Before 16 a member may always SET ROLE, and inherits by its own attribute.
    fn lost_options(&mut self, wanted: &Membership) {
        if self.options {
            return;
        }
        let inherits = self.there.get(&wanted.member).map(|role| role.inherit);
        if wanted.set == Some(false) || wanted.inherit.is_some() && wanted.inherit != inherits {
            let text = |on: Option<bool>| on.map_or_else(|| "?".to_owned(), |on| on.to_string());
            let message = "the target's version has no INHERIT and SET options of a membership";
            let finding = Finding::new(
                Severity::Warning,
                "membership-differs",
                wanted.object(),
                message,
            );
            self.findings.push(finding.values(
                format!("INHERIT {}, SET {}", text(wanted.inherit), text(wanted.set)),
                format!("INHERIT {}, SET true", text(inherits)),
            ));
        }
    }

    async fn parameter(&mut self, wanted: &ParameterGrant) -> Result<(), Error> {
        let grant = &wanted.grant;
        let statement = format!(
            "GRANT {} ON PARAMETER {} TO {}{}",
            grant.privilege,
            quote_ident(&wanted.parameter),
            quote_ident(&grant.grantee),
            grant.option()
        );
        if let Some(reason) = attempt(self.session, &statement).await? {
            self.warn("parameter-grant-not-kept", wanted.object(), reason);
        }
        Ok(())
    }

    fn warn(&mut self, code: &str, object: String, reason: String) {
        let finding = Finding::new(Severity::Warning, code, object, reason);
        let hint = "grant it by hand at the target as a superuser, if it is needed";
        self.findings.push(finding.hint(hint));
    }
}

/// `options`: the server knows INHERIT and SET options.
fn statement(wanted: &Membership, grantor: Option<&str>, options: bool) -> String {
    let (role, member) = (quote_ident(&wanted.role), quote_ident(&wanted.member));
    let mut with = Vec::new();
    if wanted.admin {
        with.push("ADMIN OPTION".to_owned());
    }
    if options {
        let option = |name: &str, on: bool| format!("{name} {}", if on { "TRUE" } else { "FALSE" });
        with.extend(wanted.inherit.map(|on| option("INHERIT", on)));
        with.extend(wanted.set.map(|on| option("SET", on)));
    }
    let mut statement = format!("GRANT {role} TO {member}");
    if !with.is_empty() {
        statement += &format!(" WITH {}", with.join(", "));
    }
    if let Some(grantor) = grantor {
        statement += &format!(" GRANTED BY {}", quote_ident(grantor));
    }
    statement
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_given_to_servers_that_know_them() {
        let membership = Membership {
            role: "staff".into(),
            member: "alice".into(),
            grantor: None,
            admin: true,
            inherit: Some(false),
            set: Some(true),
        };
        assert_eq!(
            statement(&membership, Some("boss"), true),
            r#"GRANT "staff" TO "alice" WITH ADMIN OPTION, INHERIT FALSE, SET TRUE GRANTED BY "boss""#
        );
        assert_eq!(
            statement(&membership, None, false),
            r#"GRANT "staff" TO "alice" WITH ADMIN OPTION"#
        );
    }
}
