//! Roles that the target's server lacks, one transaction for each: attributes, settings, comment, password, and its row in
//! pgconvoy.roles. A role that is there is therefore whole; with its row it is ours, without it somebody else's and left as it is
//! (invariant 7, nothing destroyed unasked).
//!
//! What the agent's role may not do is a finding and costs nothing else: CREATEROLE without SUPERUSER is common (Supabase), and
//! from PostgreSQL 16 on it only gives what it has itself.
//!
//! An agent that is no superuser makes itself a member of what it creates: else it could not give objects to the role, nor read them
//! later to verify. `pgconvoy clean` ends that.
use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::session::{Session, quote_ident, quote_literal};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Finding, Role, Roles, Severity};
use pgconvoy_proto::secrets::Secrets;
use tokio_postgres::Error;
use tonic::Status;

use super::{attempt, memberships, setting};
use crate::ledger::write;

/// What CREATE ROLE gives to anybody who may create roles at all.
const COMMON: &[&str] = &["INHERIT", "LOGIN"];

/// From here on who creates a role is a member of it, but may neither inherit from it nor become it.
const OPTIONS_SINCE: u32 = 160_000;

pub struct Making<'a> {
    pub session: &'a Session,
    pub database: &'a Database,
    pub migration: &'a str,
    pub secrets: &'a Secrets,
}

/// Makes the roles, then what ties them together.
pub async fn make(making: &Making<'_>, wanted: &Roles) -> Result<Vec<Finding>, Status> {
    let agent = Agent::read(making.session).await.map_err(failed)?;
    let mut findings = Vec::new();
    for role in &wanted.roles {
        let mut maker = Maker {
            making,
            agent: &agent,
            wanted,
            findings: Vec::new(),
        };
        maker.role(role).await?;
        findings.extend(maker.findings);
    }
    let tied = memberships::grant(making.session, &agent, wanted)
        .await
        .map_err(failed)?;
    findings.extend(tied);
    Ok(findings)
}

fn failed(error: Error) -> Status {
    status::postgres("creating roles", &error)
}

/// Whom the agent is at its server.
pub struct Agent {
    pub role: String,
    pub superuser: bool,
}

impl Agent {
    async fn read(session: &Session) -> Result<Self, Error> {
        let row = session
            .query_one(
                "SELECT rolname::text, rolsuper FROM pg_roles WHERE rolname = current_user",
                &[],
            )
            .await?;
        Ok(Self {
            role: row.get(0),
            superuser: row.get(1),
        })
    }
}

struct Maker<'a> {
    making: &'a Making<'a>,
    agent: &'a Agent,
    wanted: &'a Roles,
    findings: Vec<Finding>,
}

impl Maker<'_> {
    /// One transaction; the findings are of it, so that nothing is lost when the agent dies after it.
    async fn role(&mut self, role: &Role) -> Result<(), Status> {
        let Making {
            session, migration, ..
        } = self.making;
        session.batch_execute("BEGIN").await.map_err(failed)?;
        if !self.is_ours(role).await.map_err(failed)? {
            if self.exists(role).await.map_err(failed)? {
                self.appeared(role);
            } else {
                self.create(role).await?;
            }
        }
        write::findings(session, migration, &self.findings).await?;
        session.batch_execute("COMMIT").await.map_err(failed)
    }

    async fn is_ours(&self, role: &Role) -> Result<bool, Error> {
        let ours = "SELECT FROM pgconvoy.roles WHERE migration = $1 AND name = $2";
        let Making {
            session, migration, ..
        } = self.making;
        let row = session.query_opt(ours, &[migration, &role.name]).await?;
        Ok(row.is_some())
    }

    async fn exists(&self, role: &Role) -> Result<bool, Error> {
        let there = "SELECT FROM pg_roles WHERE rolname = $1";
        let row = self.making.session.query_opt(there, &[&role.name]).await?;
        Ok(row.is_some())
    }

    fn appeared(&mut self, role: &Role) {
        let message = "somebody else has created it since the plan was made: it is left as it is";
        self.warn("role-appeared", role, message)
    }

    async fn create(&mut self, role: &Role) -> Result<(), Status> {
        if !self.created(role).await? {
            return Ok(());
        }
        self.record(role).await.map_err(failed)?;
        super::hush(self.making.session).await.map_err(failed)?;
        self.settings(role).await?;
        self.comment(role).await?;
        self.labels(role).await?;
        self.lend(role).await?;
        self.password(role).await
    }

    /// CREATE ROLE with all attributes, or with those that may be given. False: there is no role of ours.
    async fn created(&mut self, role: &Role) -> Result<bool, Status> {
        let name = quote_ident(&role.name);
        let whole = attributes(role, |_| true);
        let Some(mut reason) = self
            .attempt(&format!("CREATE ROLE {name} WITH {whole}"))
            .await?
        else {
            return Ok(true);
        };
        if special(role).next().is_some() {
            let common = attributes(role, |flag| COMMON.contains(&flag));
            match self
                .attempt(&format!("CREATE ROLE {name} WITH {common}"))
                .await?
            {
                Some(again) => reason = again,
                None => {
                    for flag in special(role) {
                        let refused = self.attempt(&format!("ALTER ROLE {name} {flag}")).await?;
                        self.note("role-attribute-not-kept", role, flag, refused);
                    }
                    return Ok(true);
                }
            }
        }
        // Another session may have been quicker: its name is taken then.
        if self.exists(role).await.map_err(failed)? {
            self.appeared(role);
        } else {
            self.warn("role-not-created", role, reason);
        }
        Ok(false)
    }

    async fn comment(&mut self, role: &Role) -> Result<(), Status> {
        let Some(comment) = &role.comment else {
            return Ok(());
        };
        let (name, literal) = (quote_ident(&role.name), quote_literal(comment));
        let comment = format!("COMMENT ON ROLE {name} IS {literal}");
        let refused = self.attempt(&comment).await?;
        self.note("role-comment-not-kept", role, "comment", refused);
        Ok(())
    }

    /// Refused where their provider is not loaded.
    async fn labels(&mut self, role: &Role) -> Result<(), Status> {
        let name = quote_ident(&role.name);
        for (provider, label) in &role.labels {
            let (by, literal) = (quote_ident(provider), quote_literal(label));
            let statement = format!("SECURITY LABEL FOR {by} ON ROLE {name} IS {literal}");
            let refused = self.attempt(&statement).await?;
            let what = format!("security label of {provider}");
            self.note("role-label-not-kept", role, &what, refused);
        }
        Ok(())
    }

    async fn record(&self, role: &Role) -> Result<(), Error> {
        let insert = "INSERT INTO pgconvoy.roles (migration, name) VALUES ($1, $2)";
        let Making {
            session, migration, ..
        } = self.making;
        session.execute(insert, &[migration, &role.name]).await?;
        Ok(())
    }

    async fn settings(&mut self, role: &Role) -> Result<(), Status> {
        let name = quote_ident(&role.name);
        for setting in &role.settings {
            let refused = match setting::obstacle(self.making.database, setting).await? {
                Some(reason) => Some(reason),
                None => setting::set(
                    self.making.session,
                    &format!("ALTER ROLE {name}"),
                    setting,
                    self.making.secrets,
                )
                .await
                .map_err(failed)?,
            };
            let what = format!("SET {setting}");
            self.note("role-setting-not-kept", role, &what, refused);
        }
        Ok(())
    }

    /// Not where the source has it the other way round, or has it anyway.
    async fn lend(&mut self, role: &Role) -> Result<(), Status> {
        if self.agent.superuser {
            return Ok(());
        }
        let agent = &self.agent.role;
        let above = self.wanted.with_groups([agent.clone()]);
        let below = self.wanted.with_groups([role.name.clone()]);
        if above.contains(&role.name) || below.contains(agent) {
            return Ok(());
        }
        let options = match self.making.session.server_version() {
            OPTIONS_SINCE.. => " WITH INHERIT TRUE, SET TRUE",
            _ => "",
        };
        let (name, member) = (quote_ident(&role.name), quote_ident(agent));
        let refused = self
            .attempt(&format!("GRANT {name} TO {member}{options}"))
            .await?;
        if refused.is_none() {
            let lent = "UPDATE pgconvoy.roles SET lent_to = $3 WHERE migration = $1 AND name = $2";
            let Making {
                session, migration, ..
            } = self.making;
            session
                .execute(lent, &[migration, &role.name, agent])
                .await
                .map_err(failed)?;
        }
        self.note("role-not-lent", role, agent, refused);
        Ok(())
    }

    /// What PostgreSQL says of it is told without the verifier.
    async fn password(&mut self, role: &Role) -> Result<(), Status> {
        let Some(verifier) = self.making.secrets.verifier(&role.name) else {
            return Ok(());
        };
        let (name, literal) = (quote_ident(&role.name), quote_literal(verifier));
        let refused = self
            .attempt(&format!("ALTER ROLE {name} PASSWORD {literal}"))
            .await?;
        let reason = refused.map(|reason| reason.replace(verifier, "..."));
        self.note("role-password-not-carried", role, "password", reason);
        Ok(())
    }

    async fn attempt(&self, statement: &str) -> Result<Option<String>, Status> {
        attempt(self.making.session, statement)
            .await
            .map_err(failed)
    }

    /// A finding about one thing of a role, when it was refused.
    fn note(&mut self, code: &str, role: &Role, what: &str, refused: Option<String>) {
        if let Some(reason) = refused {
            let object = format!("{}: {what}", role.name);
            let finding = Finding::new(Severity::Warning, code, object, reason);
            self.findings.push(finding.hint(BY_HAND));
        }
    }

    fn warn(&mut self, code: &str, role: &Role, message: impl Into<String>) {
        let finding = Finding::new(Severity::Warning, code, &role.name, message);
        self.findings.push(finding.hint(BY_HAND));
    }
}

const BY_HAND: &str = "set it by hand at the target as a superuser, if it is needed";

/// For CREATE ROLE: the flags that `which` holds for, the others at their defaults.
fn attributes(role: &Role, which: impl Fn(&str) -> bool) -> String {
    let flags = role.flags();
    let flags = flags.iter().filter(|(flag, _)| which(flag));
    let mut words: Vec<String> = flags
        .map(|(flag, on)| format!("{}{flag}", if *on { "" } else { "NO" }))
        .collect();
    words.push(format!("CONNECTION LIMIT {}", role.connection_limit));
    if let Some(until) = &role.valid_until {
        words.push(format!("VALID UNTIL {}", quote_literal(until)));
    }
    words.join(" ")
}

/// What not everybody who may create roles may give.
fn special(role: &Role) -> impl Iterator<Item = &'static str> {
    let flags = role.flags().into_iter();
    flags.filter_map(|(flag, on)| (on && !COMMON.contains(&flag)).then_some(flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_whole_or_what_anybody_may_give() {
        let role = Role {
            name: "clerk".into(),
            login: true,
            bypass_rls: true,
            connection_limit: 3,
            valid_until: Some("2030-01-01 00:00:00+00".into()),
            ..Role::default()
        };
        assert_eq!(
            attributes(&role, |_| true),
            "NOSUPERUSER NOINHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION BYPASSRLS CONNECTION LIMIT 3 \
             VALID UNTIL '2030-01-01 00:00:00+00'"
        );
        assert_eq!(
            attributes(&role, |flag| COMMON.contains(&flag)),
            "NOINHERIT LOGIN CONNECTION LIMIT 3 VALID UNTIL '2030-01-01 00:00:00+00'"
        );
        assert!(special(&role).eq(["BYPASSRLS"]));
    }
}
