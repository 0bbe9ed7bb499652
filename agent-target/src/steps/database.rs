//! What the database has beside its objects: settings, grants, comment, security labels. One transaction, last of all steps: what is set
//! here is for the sessions of the application. Our own pin what matters to them (agent-core's `session` and `libpq`).
//!
//! Invariant 7 (nothing destroyed unasked): a setting or a comment that the target has already stays, and is a finding where it differs; so
//! does a grant that only the target has, but for PUBLIC's: those are PostgreSQL's defaults unless the source took them away. The agent
//! cannot lock itself out by that: who may revoke from PUBLIC has the privileges of the database's owner, which stay.
use std::collections::HashSet;

use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::inventory::roles;
use pgconvoy_agent_core::session::{Session, quote_grantee, quote_ident, quote_literal};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Finding, Grant, Properties, Setting, Severity};
use pgconvoy_proto::secrets::Secrets;
use tokio_postgres::Error;
use tonic::Status;

use super::{attempt, hush, setting};

pub async fn apply(
    session: &Session,
    database: &Database,
    wanted: &Properties,
    secrets: &Secrets,
) -> Result<Vec<Finding>, Status> {
    let failed = |error: Error| status::postgres("setting up the database", &error);
    let refused = unloadable(database, wanted).await?;
    // On the disk when it ends: then the secrets are forgotten.
    session
        .batch_execute("BEGIN; SET LOCAL synchronous_commit TO DEFAULT")
        .await
        .map_err(failed)?;
    hush(session).await.map_err(failed)?;
    let mut apply = Apply::new(session, secrets).await.map_err(failed)?;
    apply.settings(wanted, &refused).await.map_err(failed)?;
    apply.comment(wanted).await.map_err(failed)?;
    apply.labels(wanted).await.map_err(failed)?;
    apply.grants(wanted).await.map_err(failed)?;
    apply.owner(wanted);
    session.batch_execute("COMMIT").await.map_err(failed)?;
    Ok(apply.findings)
}

/// Settings that no session could begin with, and why.
async fn unloadable(
    database: &Database,
    wanted: &Properties,
) -> Result<Vec<(Setting, String)>, Status> {
    let of_roles = wanted.role_settings.iter().map(|(_, setting)| setting);
    let mut refused = Vec::new();
    for setting in wanted.settings.iter().chain(of_roles) {
        if let Some(reason) = setting::obstacle(database, setting).await? {
            refused.push((setting.clone(), reason));
        }
    }
    Ok(refused)
}

/// `database` is quoted, `label` a literal, or NULL.
pub fn label_of(database: &str, provider: &str, label: &str) -> String {
    let by = quote_ident(provider);
    format!("SECURITY LABEL FOR {by} ON DATABASE {database} IS {label}")
}

struct Apply<'a> {
    session: &'a Session,
    secrets: &'a Secrets,
    /// Name of the database, quoted.
    database: String,
    before: Properties,
    findings: Vec<Finding>,
}

impl<'a> Apply<'a> {
    async fn new(session: &'a Session, secrets: &'a Secrets) -> Result<Self, Error> {
        let row = session
            .query_one("SELECT current_database()::text", &[])
            .await?;
        Ok(Self {
            session,
            secrets,
            database: quote_ident(row.get(0)),
            before: roles::properties(session, true).await?,
            findings: Vec::new(),
        })
    }

    async fn settings(
        &mut self,
        wanted: &Properties,
        unloadable: &[(Setting, String)],
    ) -> Result<(), Error> {
        let here = |role: Option<&str>, setting: &Setting| Placed {
            role: role.map(str::to_owned),
            setting: setting.clone(),
        };
        let of_database = wanted.settings.iter().map(|setting| here(None, setting));
        let of_roles = wanted.role_settings.iter();
        let of_roles = of_roles.map(|(role, setting)| here(Some(role), setting));
        for placed in of_database.chain(of_roles).collect::<Vec<_>>() {
            let obstacle = unloadable.iter().find(|(s, _)| *s == placed.setting);
            let reason = obstacle.map(|(_, reason)| reason.clone());
            self.setting(&placed, reason).await?;
        }
        Ok(())
    }

    async fn setting(&mut self, wanted: &Placed, obstacle: Option<String>) -> Result<(), Error> {
        let Setting { name, value, .. } = &wanted.setting;
        if let Some(have) = self.have(wanted) {
            if have != *value {
                let message = "the target had its own value before: it stays";
                let finding = warning("database-differs", wanted.object(), message);
                self.findings.push(finding.values(value, have));
            }
            return Ok(());
        }
        let alter = match &wanted.role {
            None => format!("ALTER DATABASE {}", self.database),
            Some(role) => {
                format!(
                    "ALTER ROLE {} IN DATABASE {}",
                    quote_ident(role),
                    self.database
                )
            }
        };
        let refused = match obstacle {
            Some(reason) => Some(reason),
            None => setting::set(self.session, &alter, &wanted.setting, self.secrets).await?,
        };
        if let Some(reason) = refused {
            let finding = warning("database-setting-not-kept", wanted.object(), reason);
            self.findings.push(
                finding
                    .values(format!("{name} = {value}"), "")
                    .hint("set it by hand at the target, if it is needed"),
            );
        }
        Ok(())
    }

    fn have(&self, wanted: &Placed) -> Option<String> {
        let same = |setting: &&Setting| setting.name == wanted.setting.name;
        let found = match &wanted.role {
            None => self.before.settings.iter().find(same),
            Some(role) => {
                let settings = self.before.role_settings.iter();
                let of_role = settings.filter(|(name, _)| name == role);
                of_role.map(|(_, setting)| setting).find(same)
            }
        };
        found.map(|setting| setting.value.clone())
    }

    async fn comment(&mut self, wanted: &Properties) -> Result<(), Error> {
        let Some(comment) = &wanted.comment else {
            return Ok(());
        };
        match &self.before.comment {
            Some(have) if have == comment => {}
            Some(have) => {
                let message = "the target's database had its own comment before: it stays";
                let finding = warning("database-differs", "comment".into(), message);
                let finding = finding.values(comment, have);
                self.findings.push(finding);
            }
            None => {
                let literal = quote_literal(comment);
                let statement = format!("COMMENT ON DATABASE {} IS {literal}", self.database);
                if let Some(reason) = attempt(self.session, &statement).await? {
                    let finding = warning("database-comment-not-kept", "comment".into(), reason);
                    self.findings.push(finding.values(comment, ""));
                }
            }
        }
        Ok(())
    }

    async fn labels(&mut self, wanted: &Properties) -> Result<(), Error> {
        for (provider, label) in &wanted.labels {
            let object = format!("security label of {provider}");
            let mut labels = self.before.labels.iter();
            match labels.find(|(other, _)| other == provider) {
                Some((_, have)) if have == label => {}
                Some((_, have)) => {
                    let message = "the target's database had its own label before: it stays";
                    let finding = warning("database-differs", object, message);
                    self.findings.push(finding.values(label, have));
                }
                None => {
                    let statement = label_of(&self.database, provider, &quote_literal(label));
                    if let Some(reason) = attempt(self.session, &statement).await? {
                        let finding = warning("database-label-not-kept", object, reason);
                        self.findings.push(finding.values(label, ""));
                    }
                }
            }
        }
        Ok(())
    }

    /// Revokes before it grants: a grant is then what it says.
    async fn grants(&mut self, wanted: &Properties) -> Result<(), Error> {
        let wanted = self.as_owned(wanted);
        let before = privileges(&self.before.grants);
        let asked = privileges(&wanted);
        let taken = before.difference(&asked).filter(|(who, ..)| who.is_empty());
        for (_, privilege, _) in taken {
            self.change(&format!(
                "REVOKE {privilege} ON DATABASE {} FROM PUBLIC",
                self.database
            ))
            .await?;
        }
        let mut given: Vec<_> = asked.difference(&before).collect();
        given.sort();
        for (grantee, privilege, grantable) in given {
            let option = if *grantable { " WITH GRANT OPTION" } else { "" };
            let to = quote_grantee(grantee);
            let grant = format!(
                "GRANT {privilege} ON DATABASE {} TO {to}{option}",
                self.database
            );
            self.change(&grant).await?;
        }
        self.told(&asked, &wanted).await
    }

    /// The grants as they are to be here: what the source's owner may do is this database's owner's to do.
    fn as_owned(&self, wanted: &Properties) -> Vec<Grant> {
        let owned = |grant: &Grant| {
            let mut grant = grant.clone();
            if grant.grantee == wanted.owner {
                grant.grantee.clone_from(&self.before.owner);
            }
            grant
        };
        wanted.grants.iter().map(owned).collect()
    }

    async fn change(&mut self, statement: &str) -> Result<(), Error> {
        // What comes of it is read afterwards: a grant that one may not give can also be a mere warning of PostgreSQL's.
        if let Some(reason) = attempt(self.session, statement).await? {
            tracing::info!(reason, statement, "refused");
        }
        Ok(())
    }

    /// What differs in the end.
    async fn told(&mut self, asked: &HashSet<Privilege>, wanted: &[Grant]) -> Result<(), Error> {
        let now = roles::properties(self.session, false).await?;
        let now = privileges(&now.grants);
        let mut missing: Vec<_> = asked.difference(&now).cloned().collect();
        missing.sort();
        for (grantee, privilege, _) in missing {
            let object = format!("{privilege} on the database to {}", quote_grantee(&grantee));
            let grantor = wanted
                .iter()
                .find(|g| g.grantee == grantee && g.privilege == privilege);
            let grantor = grantor.map_or("", |grant| grant.grantor.as_str());
            let message = format!("granted at the source (by {grantor}), and could not be here");
            let finding = warning("database-grant-not-kept", object, message);
            self.findings
                .push(finding.hint("grant it by hand as the database's owner, if it is needed"));
        }
        let mut extra: Vec<_> = now.difference(asked).cloned().collect();
        extra.sort();
        for (grantee, privilege, _) in extra {
            let object = format!("{privilege} on the database to {}", quote_grantee(&grantee));
            let message = "the target grants what the source does not: it stays";
            self.findings
                .push(warning("database-grant-extra", object, message));
        }
        Ok(())
    }

    fn owner(&mut self, wanted: &Properties) {
        if wanted.owner != self.before.owner {
            let message = "the databases' owners differ: the target's is not changed";
            let finding = Finding::new(Severity::Info, "database-owner", "database", message);
            let finding = finding.values(&wanted.owner, &self.before.owner);
            self.findings.push(finding);
        }
    }
}

/// A setting of the database, or of a role in it.
struct Placed {
    role: Option<String>,
    setting: Setting,
}

impl Placed {
    fn object(&self) -> String {
        let name = &self.setting.name;
        match &self.role {
            None => name.clone(),
            Some(role) => format!("{name} of role {role}"),
        }
    }
}

/// Grantee, privilege, with grant option. Who granted it does not matter.
type Privilege = (String, String, bool);

fn privileges(grants: &[Grant]) -> HashSet<Privilege> {
    let parts = |g: &Grant| (g.grantee.clone(), g.privilege.clone(), g.grantable);
    grants.iter().map(parts).collect()
}

fn warning(code: &str, object: String, message: impl Into<String>) -> Finding {
    Finding::new(Severity::Warning, code, object, message)
}
