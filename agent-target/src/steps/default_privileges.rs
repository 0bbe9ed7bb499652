//! Default privileges on a platform: what the target grants more than the source goes, what the source grants comes, one by one.
use pgconvoy_agent_core::inventory::default_privileges::{self, statements};
use pgconvoy_agent_core::session::{Session, quote_grantee};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{DefaultPrivileges, Finding, Grant, Severity};
use tokio_postgres::Error;
use tonic::Status;

use super::access::{MAINTAIN, MAINTAIN_SINCE};
use super::attempt;

/// One transaction: nobody makes an object between what is revoked and what is granted. `gone`: the source has none of these.
pub async fn apply(
    session: &Session,
    source_version: u32,
    wanted: &[DefaultPrivileges],
    gone: &[DefaultPrivileges],
) -> Result<Vec<Finding>, Status> {
    let versions = (source_version, session.server_version());
    try_apply(session, versions, wanted, gone)
        .await
        .map_err(|error| status::postgres("changing default privileges", &error))
}

/// What one of both servers does not know of, stays as it is here, with those whom the source grants anything.
fn known_to_both(
    (source, target): (u32, u32),
    wanted: &DefaultPrivileges,
    now: Option<&DefaultPrivileges>,
) -> DefaultPrivileges {
    let mut known = wanted.clone();
    if source < MAINTAIN_SINCE || target < MAINTAIN_SINCE {
        known.grants.retain(|grant| grant.privilege != MAINTAIN);
        let is_granted = |role: &str| wanted.grants.iter().any(|grant| grant.grantee == role);
        let here = match now {
            Some(now) => now.grants.clone(),
            None if target >= MAINTAIN_SINCE => owners_maintain(wanted).into_iter().collect(),
            None => Vec::new(),
        };
        let own = here
            .into_iter()
            .filter(|grant| grant.privilege == MAINTAIN && is_granted(&grant.grantee));
        known.grants.extend(own);
    }
    known
}

/// Of PostgreSQL's own default, which holds where there is no row: acldefault() (src/backend/utils/adt/acl.c).
fn owners_maintain(of: &DefaultPrivileges) -> Option<Grant> {
    (of.schema.is_none() && of.objects == "TABLES").then(|| Grant {
        grantor: of.role.clone(),
        grantee: of.role.clone(),
        privilege: MAINTAIN.to_owned(),
        grantable: false,
    })
}

async fn try_apply(
    session: &Session,
    versions: (u32, u32),
    wanted: &[DefaultPrivileges],
    gone: &[DefaultPrivileges],
) -> Result<Vec<Finding>, Error> {
    session.batch_execute("BEGIN").await?;
    let before = default_privileges::read(session).await?;
    let here = |of: &DefaultPrivileges| before.iter().find(|now| now.is_of(of));
    let wanted: Vec<DefaultPrivileges> = wanted
        .iter()
        .map(|wanted| known_to_both(versions, wanted, here(wanted)))
        .collect();
    let mut changes: Vec<String> = Vec::new();
    for wanted in &wanted {
        match here(wanted) {
            Some(now) if now.is_same(wanted) => {}
            now => changes.extend(statements(now.unwrap_or(wanted), Some(wanted))),
        }
    }
    for now in gone.iter().filter_map(here) {
        changes.extend(statements(now, None));
    }
    let mut refused = Vec::new();
    for statement in &changes {
        refused.extend(attempt(session, statement).await?);
    }
    let after = default_privileges::read(session).await?;
    session.batch_execute("COMMIT").await?;
    let told = wanted.iter().flat_map(|of| lost(of, &after, &refused));
    Ok(told.collect())
}

/// What was not granted. What was not revoked, the comparison of both catalogs tells.
fn lost(
    wanted: &DefaultPrivileges,
    after: &[DefaultPrivileges],
    refused: &[String],
) -> Vec<Finding> {
    let now = after.iter().find(|now| now.is_of(wanted));
    let is_lost = |grant: &&_| !now.is_some_and(|now| now.grants.contains(grant));
    let told = wanted.grants.iter().filter(is_lost).map(|grant| {
        let object = format!(
            "default privileges {}: {} to {}",
            wanted.identity(),
            grant.privilege,
            quote_grantee(&grant.grantee)
        );
        Finding::new(Severity::Warning, "grant-not-kept", object, refused.join("; ")).hint(
            "ALTER DEFAULT PRIVILEGES at the target by hand, as that role or a superuser, if it is needed",
        )
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults(schema: Option<&str>, privileges: &[&str]) -> DefaultPrivileges {
        DefaultPrivileges {
            role: "app".into(),
            schema: schema.map(str::to_owned),
            objects: "TABLES".into(),
            grants: privileges
                .iter()
                .map(|privilege| Grant {
                    grantor: "app".into(),
                    grantee: "app".into(),
                    privilege: (*privilege).into(),
                    grantable: false,
                })
                .collect(),
        }
    }

    #[test]
    fn what_the_source_does_not_know_of_stays_with_the_owner() {
        let known = |versions, wanted: &DefaultPrivileges, now: Option<&DefaultPrivileges>| {
            let known = known_to_both(versions, wanted, now);
            known.grants.iter().any(|grant| grant.privilege == MAINTAIN)
        };
        let upgrade = (160_000, 170_000);
        let wanted = defaults(None, &["SELECT"]);
        assert!(known(upgrade, &wanted, None), "PostgreSQL's own default");
        assert!(!known(upgrade, &wanted, Some(&wanted)), "revoked here");
        assert!(
            !known(upgrade, &defaults(None, &[]), None),
            "nothing is granted"
        );
        let in_schema = defaults(Some("s"), &["SELECT"]);
        assert!(!known(upgrade, &in_schema, None), "no default in a schema");
        assert!(!known((150_000, 160_000), &wanted, None), "not known here");
        let newest = defaults(None, &[MAINTAIN]);
        assert!(known((170_000, 180_000), &newest, None), "known to both");
    }
}
