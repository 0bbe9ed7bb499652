//! What is secret of the source's roles and database, and goes along with the archive: what the server keeps of passwords, where the agent's
//! role may read it (a superuser may), and the values of settings that are veiled in the plan.
//!
//! Invariant 5 (credentials stay home): it goes to the target agent, and is in no log.
use std::collections::BTreeMap;

use pgconvoy_agent_core::session::Session;
use pgconvoy_proto::model::Setting;
use pgconvoy_proto::secrets::Secrets;
use tokio_postgres::Error;

/// Whose secrets are wanted.
#[derive(Debug, Default)]
pub struct Wanted {
    pub roles: Vec<String>,
    /// Also those of the database's settings.
    pub database: bool,
}

/// Asked before reading: a refusal would end the transaction that holds the snapshot.
pub async fn passwords_readable(session: &Session) -> Result<bool, Error> {
    let row = session
        .query_one(
            "SELECT has_column_privilege('pg_authid', 'rolname', 'SELECT')
                AND has_column_privilege('pg_authid', 'rolpassword', 'SELECT')",
            &[],
        )
        .await?;
    Ok(row.get(0))
}

pub async fn read(session: &Session, wanted: &Wanted) -> Result<Secrets, Error> {
    Ok(Secrets {
        verifiers: verifiers(session, &wanted.roles).await?,
        settings: settings(session, wanted).await?,
    })
}

/// Of these roles those that have a password; none where they may not be read.
async fn verifiers(session: &Session, roles: &[String]) -> Result<BTreeMap<String, String>, Error> {
    if roles.is_empty() || !passwords_readable(session).await? {
        return Ok(BTreeMap::new());
    }
    let rows = session
        .query(
            "SELECT rolname::text, rolpassword FROM pg_authid WHERE rolname = ANY ($1) AND rolpassword IS NOT NULL",
            &[&roles],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

async fn settings(session: &Session, wanted: &Wanted) -> Result<Vec<Setting>, Error> {
    let rows = session
        .query(
            "SELECT unnest(s.setconfig) FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole
             WHERE s.setdatabase = 0 AND r.rolname = ANY ($1)
                OR $2 AND s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())",
            &[&wanted.roles, &wanted.database],
        )
        .await?;
    let all = rows.iter().filter_map(|row| Setting::parse(row.get(0)));
    Ok(all.filter(|setting| setting.veil().veiled).collect())
}
