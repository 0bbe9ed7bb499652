//! Default privileges that a platform's target has already: what it grants more than the source goes, what the source grants comes.
//!
//! Those that it does not have come with the archive.
use pgconvoy_agent_core::inventory::default_privileges::{self, statements, who};
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{DefaultPrivileges, Finding, Severity};
use tokio_postgres::Error;
use tonic::Status;

use super::access::{MAINTAIN, MAINTAIN_SINCE};
use super::attempt;

/// One transaction: nobody makes an object between what is revoked and what is granted. `gone`: the source has none of these.
pub async fn apply(
    session: &Session,
    wanted: &[DefaultPrivileges],
    gone: &[DefaultPrivileges],
) -> Result<Vec<Finding>, Status> {
    let mut wanted = wanted.to_vec();
    if session.server_version() < MAINTAIN_SINCE {
        for of in &mut wanted {
            of.grants.retain(|grant| grant.privilege != MAINTAIN);
        }
    }
    try_apply(session, &wanted, gone)
        .await
        .map_err(|error| status::postgres("changing default privileges", &error))
}

async fn try_apply(
    session: &Session,
    wanted: &[DefaultPrivileges],
    gone: &[DefaultPrivileges],
) -> Result<Vec<Finding>, Error> {
    session.batch_execute("BEGIN").await?;
    let before = default_privileges::read(session).await?;
    let here = |of: &DefaultPrivileges| before.iter().find(|now| now.is_of(of));
    let mut changes: Vec<String> = Vec::new();
    for wanted in wanted {
        let now = here(wanted).unwrap_or(wanted);
        if here(wanted).is_none_or(|now| !now.is_same(wanted)) {
            changes.extend(statements(now, Some(wanted)));
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
            who(&grant.grantee)
        );
        Finding::new(Severity::Warning, "grant-not-kept", object, refused.join("; ")).hint(
            "ALTER DEFAULT PRIVILEGES at the target by hand, as that role or a superuser, if it is needed",
        )
    });
    told.collect()
}
