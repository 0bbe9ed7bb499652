//! What the agent's role may not do with what is in the target. A superuser may do everything; on managed servers the role is none.
use std::collections::{BTreeMap, HashSet};

use pgconvoy_agent_core::inventory::access;
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use pgconvoy_proto::facts::OfAnother;
use tokio_postgres::Error;
use tonic::Status;

use crate::rollback;

/// Of an owner, or of what cannot be read, so many are named.
const NAMES: usize = 5;
/// From this major on who is a member of a role need not be allowed to become it, which giving something to it takes.
const SET_SINCE: u32 = 160_000;

/// Objects of roles that the agent's role is no member of: it can neither drop them nor, when a backup brings them back, give them back. Extensions
/// and what they are in stay when a target is replaced.
pub async fn of_others(session: &Session) -> Result<Vec<OfAnother>, Error> {
    let become_it = match session.server_version() {
        SET_SINCE.. => "SET",
        _ => "MEMBER",
    };
    let rows = session
        .query(
            "SELECT rolname::text FROM pg_roles WHERE NOT (pg_has_role(oid, 'USAGE') AND pg_has_role(oid, $1))",
            &[&become_it],
        )
        .await?;
    let others: HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
    if others.is_empty() {
        return Ok(Vec::new());
    }
    let staying = rollback::staying_schemas(session).await?;
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for access in access::read(session).await?.into_iter().map(|f| f.access) {
        let stays = access.owner_keyword == "SCHEMA" && staying.contains(&access.entry.oid);
        let foreign = others.contains(&access.owner) && !access.owner_keyword.is_empty();
        if foreign && !stays {
            let name = format!("{} {}", access.kind, access.identity.replace('"', ""));
            found.entry(access.owner).or_default().push(name);
        }
    }
    let large_objects = session
        .query(
            "SELECT pg_get_userbyid(lomowner)::text, 'large object ' || oid FROM pg_largeobject_metadata ORDER BY oid",
            &[],
        )
        .await?;
    for row in large_objects {
        let (owner, name): (String, String) = (row.get(0), row.get(1));
        if others.contains(&owner) {
            found.entry(owner).or_default().push(name);
        }
    }
    let each = found.into_iter().map(|(owner, mut names)| {
        let count = names.len() as u64;
        names.truncate(NAMES);
        OfAnother {
            owner,
            count,
            examples: names,
        }
    });
    Ok(each.collect())
}

/// FAILED_PRECONDITION where there is something of the kind: names it, and what is missing.
pub async fn refuse_others(session: &Session) -> Result<(), Status> {
    let others = of_others(session)
        .await
        .map_err(|error| status::postgres("looking at owners", &error))?;
    if others.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = others.iter().map(OfAnother::to_string).collect();
    let owners: Vec<&str> = others.iter().map(|other| other.owner.as_str()).collect();
    Err(Status::failed_precondition(format!(
        "the agent's role may neither drop {} nor give it back. Nothing was changed: GRANT {} to the agent's role, or use a superuser",
        named.join("; "),
        owners.join(", ")
    )))
}

/// Tables and sequences, without those of extensions: whose they are, whether the role may read them, whether it would be shown all of their rows.
const READABLE: &str = "
    SELECT c.oid::regclass::text, pg_get_userbyid(c.relowner)::text,
           has_schema_privilege(c.relnamespace, 'USAGE') AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT')
               ELSE has_table_privilege(c.oid, 'SELECT') END,
           row_security_active(c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgconvoy') AND n.nspname !~ '^pg_(toast|temp)'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY 1";

/// FAILED_PRECONDITION where the role may not read all that a backup is of: names it, and what is missing.
pub async fn refuse_unreadable(session: &Session) -> Result<(), Status> {
    let rows = session
        .query(READABLE, &[])
        .await
        .map_err(|error| status::postgres("looking for what may be read", &error))?;
    let named = |at: usize, value: bool| {
        let those = rows.iter().filter(|row| row.get::<_, bool>(at) == value);
        let all: Vec<String> = those
            .map(|row| format!("{} of {}", row.get::<_, &str>(0), row.get::<_, &str>(1)))
            .collect();
        let more = match all.len().saturating_sub(NAMES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let first: Vec<String> = all.into_iter().take(NAMES).collect();
        (!first.is_empty()).then(|| format!("{}{more}", first.join(", ")))
    };
    let mut reasons = Vec::new();
    if let Some(unreadable) = named(2, false) {
        reasons.push(format!(
            "the agent's role may not read {unreadable} (GRANT pg_read_all_data to it, or make it a member of the owners)"
        ));
    }
    if let Some(hidden) = named(3, true) {
        reasons.push(format!(
            "row level security hides rows from the agent's role in {hidden} (ALTER ROLE ... BYPASSRLS)"
        ));
    }
    match reasons.is_empty() {
        true => Ok(()),
        false => Err(Status::failed_precondition(format!(
            "{}. The backup was not made, nothing was changed",
            reasons.join("; ")
        ))),
    }
}
