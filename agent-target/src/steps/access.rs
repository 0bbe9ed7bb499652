//! Owners and grants, one by one, until the target's catalog says what the source's did.
//!
//! Invariant 6 (no open window): this runs between pre-data and the first row. What the target's default privileges added and
//! the source lacks is revoked. A grant that cannot be made is a finding and costs no other one.
use std::collections::{HashMap, HashSet};

use pgconvoy_agent_core::inventory::{access, large_objects};
use pgconvoy_agent_core::session::{Session, quote_grantee, quote_ident};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Access, Finding, Grant, Oid, Severity};
use tokio_postgres::Error;
use tonic::Status;

use super::attempt;

/// PostgreSQL 17 knows one privilege more than its predecessors.
pub(super) const MAINTAIN: &str = "MAINTAIN";
pub(super) const MAINTAIN_SINCE: u32 = 170_000;

type Here = HashMap<(String, String), Access>;

/// Objects of one transaction: a new owner takes a lock.
const TOGETHER: usize = 500;

/// Where the objects are looked up at the target.
#[derive(Clone, Copy)]
pub enum Among<'a> {
    /// Everything that has an owner, but large objects.
    Objects,
    /// These large objects: there may be millions.
    LargeObjects(&'a [Oid]),
}

/// Makes owners and grants of the objects those of the source.
pub async fn apply(
    session: &Session,
    source_version: u32,
    among: Among<'_>,
    objects: &[&Access],
) -> Result<Vec<Finding>, Status> {
    let maintain = source_version >= MAINTAIN_SINCE && session.server_version() >= MAINTAIN_SINCE;
    try_apply(session, maintain, among, objects)
        .await
        .map_err(|error| status::postgres("applying owners and grants", &error))
}

async fn try_apply(
    session: &Session,
    maintain: bool,
    among: Among<'_>,
    objects: &[&Access],
) -> Result<Vec<Finding>, Error> {
    let roles = roles(session).await?;
    let mut work = Apply {
        session,
        roles,
        maintain,
        findings: Vec::new(),
    };
    let before = here(session, among).await?;
    for together in objects.chunks(TOGETHER) {
        session.batch_execute("BEGIN").await?;
        let found = together
            .iter()
            .filter_map(|object| Some((*object, before.get(&key(object))?)));
        work.owners(&found.collect::<Vec<_>>()).await?;
        session.batch_execute("COMMIT").await?;
    }
    // A new owner changes who granted what.
    let owned = here(session, among).await?;
    for together in objects.chunks(TOGETHER) {
        session.batch_execute("BEGIN").await?;
        for object in together {
            if let Some(now) = owned.get(&key(object)) {
                work.grants(object, now).await?;
            }
        }
        session.batch_execute("COMMIT").await?;
    }
    Ok(work.findings)
}

fn alter_owner(object: &Access) -> String {
    let owner = quote_ident(&object.owner);
    format!(
        "ALTER {} {} OWNER TO {owner}",
        object.owner_keyword, object.identity
    )
}

fn key(object: &Access) -> (String, String) {
    (object.kind.clone(), object.identity.clone())
}

async fn here(session: &Session, among: Among<'_>) -> Result<Here, Error> {
    let found: Vec<Access> = match among {
        Among::Objects => {
            let found = access::read(session).await?;
            found.into_iter().map(|found| found.access).collect()
        }
        Among::LargeObjects(oids) => large_objects::access(session, oids).await?,
    };
    Ok(found
        .into_iter()
        .map(|access| (key(&access), access))
        .collect())
}

/// Every role of the server.
pub(super) async fn roles(session: &Session) -> Result<HashSet<String>, Error> {
    let rows = session.query("SELECT rolname FROM pg_roles", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Of an object, or of one of its columns: what is to be granted, and what is.
#[derive(Clone, Copy)]
struct Grants<'a> {
    /// As GRANT says it.
    on: &'a str,
    column: Option<&'a str>,
    wanted: &'a [Grant],
    now: &'a [Grant],
    /// Of the object, by now.
    owner: &'a str,
    /// Also where the two are equal: something else may have revoked it meanwhile.
    anew: bool,
}

struct Apply<'a> {
    session: &'a Session,
    roles: HashSet<String>,
    /// Both servers know MAINTAIN.
    maintain: bool,
    findings: Vec<Finding>,
}

impl Apply<'_> {
    /// New owners for objects and what they are now: all in one statement, and, where one of them is refused, one by one.
    async fn owners(&mut self, objects: &[(&Access, &Access)]) -> Result<(), Error> {
        let other = |(object, now): &&(&Access, &Access)| {
            object.owner != now.owner && !object.owner_keyword.is_empty()
        };
        let (known, missing): (Vec<_>, Vec<_>) = objects
            .iter()
            .filter(other)
            .partition(|(object, _)| self.roles.contains(&object.owner));
        let together: Vec<String> = known
            .iter()
            .map(|(object, _)| alter_owner(object))
            .collect();
        if !together.is_empty() && self.attempt(&together.join("; ")).await?.is_some() {
            for (object, now) in known {
                if let Some(reason) = self.give(object, now).await? {
                    self.owner_not_kept(object, now, reason);
                }
            }
        }
        for (object, now) in missing {
            self.owner_not_kept(object, now, "the role does not exist at the target".into());
        }
        Ok(())
    }

    fn owner_not_kept(&mut self, object: &Access, now: &Access, reason: String) {
        let finding = self.finding("owner-not-kept", object, reason);
        self.findings
            .push(finding.values(&object.owner, &now.owner));
    }

    /// The new owner must be allowed to create in the object's schema, unless a superuser asks. Where it is not, it is for this one
    /// statement. The reason, when it could not be.
    async fn give(&self, object: &Access, now: &Access) -> Result<Option<String>, Error> {
        let (owner, alter) = (quote_ident(&object.owner), alter_owner(object));
        let Some(refused) = self.attempt(&alter).await? else {
            return Ok(None);
        };
        let closed = self
            .session
            .query_opt(
                "SELECT i.schema FROM pg_identify_object($1, $2, 0) i
                 WHERE NOT has_schema_privilege($3, to_regnamespace(i.schema), 'CREATE')",
                &[&now.entry.class, &now.entry.oid, &object.owner],
            )
            .await?;
        let Some(schema) = closed.map(|row| row.get::<_, String>(0)) else {
            return Ok(Some(refused));
        };
        let lend = format!("GRANT CREATE ON SCHEMA {schema} TO {owner}");
        let take = format!("REVOKE CREATE ON SCHEMA {schema} FROM {owner}");
        self.attempt(&format!("{lend}; {alter}; {take}")).await
    }

    async fn grants(&mut self, object: &Access, now: &Access) -> Result<(), Error> {
        let Some(keyword) = &object.grant_keyword else {
            return Ok(());
        };
        let on = format!("ON {keyword} {}", object.identity);
        // Where the owner could not be kept, what the source's owner may do is the new owner's to do.
        let as_owned = |grant: &Grant| -> Grant {
            let rename = |role: &String| {
                if *role == object.owner {
                    now.owner.clone()
                } else {
                    role.clone()
                }
            };
            Grant {
                grantor: rename(&grant.grantor),
                grantee: rename(&grant.grantee),
                ..grant.clone()
            }
        };
        let wanted: Vec<Grant> = object.grants.iter().map(as_owned).collect();
        let whole = Grants {
            on: &on,
            column: None,
            wanted: &wanted,
            now: &now.grants,
            owner: &now.owner,
            anew: false,
        };
        // A privilege that is revoked on the table is revoked on its columns too.
        let anew = self.make_equal(object, whole).await?;
        let mut columns: Vec<&String> = object.column_grants.iter().map(|(name, _)| name).collect();
        columns.extend(now.column_grants.iter().map(|(name, _)| name));
        columns.sort();
        columns.dedup();
        for column in columns {
            let of = |access: &Access| -> Vec<Grant> {
                let found = access.column_grants.iter().find(|(name, _)| name == column);
                found.map(|(_, grants)| grants.clone()).unwrap_or_default()
            };
            let wanted: Vec<Grant> = of(object).iter().map(as_owned).collect();
            let of_column = Grants {
                column: Some(column),
                wanted: &wanted,
                now: &of(now),
                anew,
                ..whole
            };
            self.make_equal(object, of_column).await?;
        }
        Ok(())
    }

    /// Takes everything away where the two differ, and grants again in the source's order. Whether they did.
    async fn make_equal(&mut self, object: &Access, grants: Grants<'_>) -> Result<bool, Error> {
        let Grants {
            on,
            column,
            wanted,
            now,
            owner,
            anew,
        } = grants;
        let known: HashSet<&Grant> = wanted
            .iter()
            .filter(|grant| self.comparable(grant))
            .collect();
        let have: HashSet<&Grant> = now.iter().filter(|grant| self.comparable(grant)).collect();
        if known == have && !anew {
            return Ok(false);
        }
        let columns = column
            .map(|name| format!(" ({})", quote_ident(name)))
            .unwrap_or_default();
        let grantees: HashSet<&str> = now.iter().map(|grant| grant.grantee.as_str()).collect();
        for grantee in grantees {
            let from = quote_grantee(grantee);
            let revoke = format!("REVOKE ALL{columns} {on} FROM {from} CASCADE");
            if let Some(reason) = self.attempt(&revoke).await? {
                self.findings.push(
                    self.finding("grant-not-revoked", object, reason)
                        .values("", from),
                );
            }
        }
        let kept = now
            .iter()
            .filter(|grant| !self.comparable(grant) && grant.grantee == owner);
        let (by_owner, by_others): (Vec<&Grant>, Vec<&Grant>) = wanted
            .iter()
            .filter(|grant| self.comparable(grant))
            .chain(kept)
            .partition(|grant| grant.grantor == owner);
        for grant in by_owner.into_iter().chain(by_others) {
            let statement = format!(
                "GRANT {}{columns} {on} TO {}{}",
                grant.privilege,
                quote_grantee(&grant.grantee),
                grant.option()
            );
            let given = grant_as(self.session, &self.roles, &statement, grant, owner);
            if let Some(reason) = given.await? {
                let what = format!(
                    "{}{columns} to {}",
                    grant.privilege,
                    quote_grantee(&grant.grantee)
                );
                let object = format!("{} {}: {what}", object.kind, object.identity);
                self.findings.push(
                    Finding::new(Severity::Warning, "grant-not-kept", object, reason)
                        .hint("create the role and grant again, if it is needed"),
                );
            }
        }
        Ok(true)
    }

    async fn attempt(&self, statement: &str) -> Result<Option<String>, Error> {
        attempt(self.session, statement).await
    }

    fn comparable(&self, grant: &Grant) -> bool {
        self.maintain || grant.privilege != MAINTAIN
    }

    fn finding(&self, code: &str, object: &Access, reason: String) -> Finding {
        Finding::new(
            Severity::Warning,
            code,
            format!("{} {}", object.kind, object.identity),
            reason,
        )
        .hint("set it by hand as a superuser or a member of that role, if it is needed")
    }
}

/// Grants as the one who granted it; `roles`: those that there are. The reason, when it could not be.
pub(super) async fn grant_as(
    session: &Session,
    roles: &HashSet<String>,
    statement: &str,
    grant: &Grant,
    owner: &str,
) -> Result<Option<String>, Error> {
    let missing = |name: &str| !name.is_empty() && !roles.contains(name);
    if missing(&grant.grantee) {
        return Ok(Some(format!(
            "role {} does not exist at the target",
            quote_grantee(&grant.grantee)
        )));
    }
    if grant.grantor == owner {
        return attempt(session, statement).await;
    }
    if missing(&grant.grantor) {
        return Ok(Some(format!(
            "its grantor {} does not exist at the target",
            quote_grantee(&grant.grantor)
        )));
    }
    let grantor = quote_ident(&grant.grantor);
    attempt(
        session,
        &format!("SET LOCAL ROLE {grantor}; {statement}; RESET ROLE"),
    )
    .await
}
