//! Grants on PostgreSQL's own objects: what somebody changed of them at the source is changed here, one by one, and read again: what did
//! not come out so is a finding. What the target's server has of its own beside that stays (invariant 7, nothing destroyed unasked).
use std::collections::{HashMap, HashSet};

use pgconvoy_agent_core::inventory::system::{self, Present, SystemPlace, place};
use pgconvoy_agent_core::session::{Session, quote_grantee, quote_ident};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Finding, Grant, Severity, SystemGrants};
use tokio_postgres::Error;
use tonic::Status;

use super::access::{grant_as, roles};
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
        let Some(now) = after.get(&place(changed)) else {
            return vec![unknown(changed)];
        };
        let (granted, revoked) = as_owned(changed, &now.owner);
        let kept = revoked.iter().filter(|grant| now.grants.contains(grant));
        let kept = kept.map(|grant| {
            self.warning(
                "system-grant-not-revoked",
                changed,
                grant,
                &revoke(changed, grant),
            )
            .hint("revoke it by hand as a superuser: the source does not grant it")
        });
        let lost = granted.iter().filter(|grant| !now.grants.contains(grant));
        let lost = lost.map(|grant| {
            self.warning("grant-not-kept", changed, grant, &give(changed, grant))
                .hint("grant it by hand as a superuser, if it is needed")
        });
        kept.chain(lost).collect()
    }

    fn warning(
        &self,
        code: &str,
        changed: &SystemGrants,
        grant: &Grant,
        statement: &str,
    ) -> Finding {
        let SystemGrants { kind, identity, .. } = changed;
        let (privilege, to) = (privilege(changed, grant), quote_grantee(&grant.grantee));
        let reason = match self.refused.get(statement) {
            Some(reason) => reason.as_str(),
            None => "PostgreSQL took the statement, and did not do it",
        };
        let object = format!("{kind} {identity}: {privilege} to {to}");
        Finding::new(Severity::Warning, code, object, reason)
    }
}

fn unknown(changed: &SystemGrants) -> Finding {
    let SystemGrants { kind, identity, .. } = changed;
    let object = match &changed.column {
        Some(name) => format!("column {identity}.{}", quote_ident(name)),
        None => format!("{kind} {identity}"),
    };
    let message =
        "the target's PostgreSQL does not have it: what was granted or revoked on it is left out";
    Finding::new(Severity::Warning, "system-object-missing", object, message)
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

/// `SELECT (column)`
fn privilege(changed: &SystemGrants, grant: &Grant) -> String {
    match &changed.column {
        Some(name) => format!("{} ({})", grant.privilege, quote_ident(name)),
        None => grant.privilege.clone(),
    }
}

/// Without CASCADE: what rests on it is the target's own.
fn revoke(changed: &SystemGrants, grant: &Grant) -> String {
    let SystemGrants {
        keyword, identity, ..
    } = changed;
    let (privilege, from) = (privilege(changed, grant), quote_grantee(&grant.grantee));
    format!("REVOKE {privilege} ON {keyword} {identity} FROM {from}")
}

fn give(changed: &SystemGrants, grant: &Grant) -> String {
    let SystemGrants {
        keyword, identity, ..
    } = changed;
    let (privilege, to) = (privilege(changed, grant), quote_grantee(&grant.grantee));
    let option = grant.option();
    format!("GRANT {privilege} ON {keyword} {identity} TO {to}{option}")
}
