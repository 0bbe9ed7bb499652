//! Grants on PostgreSQL's own objects: what somebody changed of them at the source is changed here, one by one, and read again: what did
//! not come out so is a finding. What the target's server has of its own beside that stays (invariant 7, nothing destroyed unasked).
use std::collections::{HashMap, HashSet};

use pgconvoy_agent_core::inventory::system::{self, Present, SystemPlace, place};
use pgconvoy_agent_core::session::{Session, quote_ident};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Finding, Grant, Severity, SystemGrants};
use tokio_postgres::Error;
use tonic::Status;

use super::access::{grant_as, role, roles};
use super::attempt;

/// One transaction: what initdb granted is gone no longer than until what replaces it is there.
pub async fn apply(session: &Session, wanted: &[SystemGrants]) -> Result<Vec<Finding>, Status> {
    try_apply(session, wanted)
        .await
        .map_err(|error| status::postgres("applying grants on PostgreSQL's own objects", &error))
}

async fn try_apply(session: &Session, wanted: &[SystemGrants]) -> Result<Vec<Finding>, Error> {
    session.batch_execute("BEGIN").await?;
    let mut apply = Apply {
        session,
        roles: roles(session).await?,
        refused: HashMap::new(),
    };
    let before = system::present(session, wanted).await?;
    for changed in wanted {
        if let Some(now) = before.get(&place(changed)) {
            apply.change(changed, now).await?;
        }
    }
    let after = system::present(session, wanted).await?;
    session.batch_execute("COMMIT").await?;
    let findings = wanted
        .iter()
        .flat_map(|changed| apply.told(changed, &after));
    Ok(findings.collect())
}

struct Apply<'a> {
    session: &'a Session,
    roles: HashSet<String>,
    /// Why, of a statement that was refused.
    refused: HashMap<String, String>,
}

impl Apply<'_> {
    /// Takes away before it grants: a grant is then what it says.
    async fn change(&mut self, changed: &SystemGrants, now: &Present) -> Result<(), Error> {
        let (granted, revoked) = as_owned(changed, &now.owner);
        for grant in revoked.iter().filter(|grant| now.grants.contains(grant)) {
            let statement = revoke(changed, grant);
            let reason = attempt(self.session, &statement).await?;
            self.refused
                .extend(reason.map(|reason| (statement, reason)));
        }
        for grant in granted.iter().filter(|grant| !now.grants.contains(grant)) {
            let statement = give(changed, grant);
            let reason = grant_as(self.session, &self.roles, &statement, grant, &now.owner).await?;
            self.refused
                .extend(reason.map(|reason| (statement, reason)));
        }
        Ok(())
    }

    /// What is not as it should be in the end.
    fn told(&self, changed: &SystemGrants, after: &HashMap<SystemPlace, Present>) -> Vec<Finding> {
        let column = changed.column.as_ref();
        let columns = column.map_or_else(String::new, |name| format!(" ({})", quote_ident(name)));
        let object = format!("{} {}", changed.kind, changed.identity);
        let Some(now) = after.get(&place(changed)) else {
            let message = "the target's PostgreSQL does not have it: what was granted or revoked on it is left out";
            let object = match column {
                Some(name) => format!("column {}.{}", changed.identity, quote_ident(name)),
                None => object,
            };
            return vec![Finding::new(
                Severity::Warning,
                "system-object-missing",
                object,
                message,
            )];
        };
        let (granted, revoked) = as_owned(changed, &now.owner);
        let why = |statement: &str| match self.refused.get(statement) {
            Some(reason) => reason.clone(),
            None => "PostgreSQL took the statement, and did not do it".to_owned(),
        };
        let kept = revoked.iter().filter(|grant| now.grants.contains(grant));
        let kept = kept.map(|grant| {
            let object = format!(
                "{object}: {}{columns} to {}",
                grant.privilege,
                role(&grant.grantee)
            );
            let reason = why(&revoke(changed, grant));
            let hint = "revoke it by hand as a superuser: the source does not grant it";
            Finding::new(
                Severity::Warning,
                "system-grant-not-revoked",
                object,
                reason,
            )
            .hint(hint)
        });
        let lost = granted.iter().filter(|grant| !now.grants.contains(grant));
        let lost = lost.map(|grant| {
            let object = format!(
                "{object}: {}{columns} to {}",
                grant.privilege,
                role(&grant.grantee)
            );
            let reason = why(&give(changed, grant));
            let hint = "grant it by hand as a superuser, if it is needed";
            Finding::new(Severity::Warning, "grant-not-kept", object, reason).hint(hint)
        });
        kept.chain(lost).collect()
    }
}

/// What is granted and what is gone, with the owner here in the place of the source's.
fn as_owned(changed: &SystemGrants, owner: &str) -> (Vec<Grant>, Vec<Grant>) {
    let rename = |role: &String| {
        if *role == changed.owner {
            owner.to_owned()
        } else {
            role.clone()
        }
    };
    let each = |grants: &[Grant]| {
        let renamed = grants.iter().map(|grant| Grant {
            grantor: rename(&grant.grantor),
            grantee: rename(&grant.grantee),
            ..grant.clone()
        });
        renamed.collect()
    };
    (each(&changed.granted), each(&changed.revoked))
}

fn on(changed: &SystemGrants, grant: &Grant) -> String {
    let column = changed.column.as_ref();
    let columns = column.map_or_else(String::new, |name| format!(" ({})", quote_ident(name)));
    let SystemGrants {
        keyword, identity, ..
    } = changed;
    format!("{}{columns} ON {keyword} {identity}", grant.privilege)
}

/// Without CASCADE: what rests on it is the target's own.
fn revoke(changed: &SystemGrants, grant: &Grant) -> String {
    format!(
        "REVOKE {} FROM {}",
        on(changed, grant),
        role(&grant.grantee)
    )
}

fn give(changed: &SystemGrants, grant: &Grant) -> String {
    let option = if grant.grantable {
        " WITH GRANT OPTION"
    } else {
        ""
    };
    let to = role(&grant.grantee);
    format!("GRANT {} TO {to}{option}", on(changed, grant))
}
