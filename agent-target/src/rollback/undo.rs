//! What the migration changed of what was there before: rows and sequences of tables that existed, owners and grants, default privileges,
//! settings and comments; and the roles that it created. What is refused shows in the comparison that follows.
use std::collections::HashSet;

use pgconvoy_agent_core::inventory::{default_privileges, roles, system};
use pgconvoy_agent_core::session::{Session, qualified, quote_grantee, quote_ident, quote_literal};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{
    Access, DefaultPrivileges, Grant, Properties, Relation, SystemGrants, Work,
};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;
use tonic::Status;

use super::Undone;
use crate::steps::{self, Among, managed};

/// Tables that were there were empty: only then were they loaded. Sequences go back to where they stood.
pub(super) async fn rows(session: &Session, undone: &Undone) -> Result<(), Status> {
    let failed = |error: Error| status::postgres("emptying what was empty", &error);
    let there: HashSet<String> = undone
        .before
        .access
        .iter()
        .filter(|access| access.kind == "table")
        .map(|access| access.identity.clone())
        .collect();
    managed_rows(session, undone).await.map_err(failed)?;
    let loaded: Vec<String> = undone
        .tables
        .iter()
        .filter(|table| table.relation == Relation::Table && !table.managed)
        .map(|table| (table, qualified(&table.schema, &table.name)))
        .filter(|(_, name)| there.contains(name))
        .map(|(table, name)| format!("{}{name}", if table.through_root { "" } else { "ONLY " }))
        .collect();
    if !loaded.is_empty() {
        empty(session, &loaded).await?;
    }
    let planned: HashSet<(&String, &String)> = undone
        .works()
        .flat_map(|work| match work {
            Work::Sequences { values } => values.as_slice(),
            _ => &[],
        })
        .map(|value| (&value.schema, &value.name))
        .collect();
    let stood = undone.before.sequences.iter();
    let stood: Vec<_> = stood
        .filter(|value| planned.contains(&(&value.schema, &value.name)))
        .cloned()
        .collect();
    for finding in steps::set_sequences(session, &stood).await? {
        tracing::warn!(object = finding.object, "{}", finding.message);
    }
    Ok(())
}

/// A table that others refer to cannot be truncated without them, where they were not selected: their rows stay, and refer to what they referred
/// to before.
async fn empty(session: &Session, tables: &[String]) -> Result<(), Status> {
    let truncated = session
        .batch_execute(&format!("TRUNCATE {}", tables.join(", ")))
        .await;
    let Err(error) = truncated else {
        return Ok(());
    };
    let failed = |error: Error| status::postgres("emptying what was empty", &error);
    if error.code() != Some(&SqlState::FEATURE_NOT_SUPPORTED) {
        return Err(failed(error));
    }
    let delete: Vec<String> = tables.iter().map(|t| format!("DELETE FROM {t}")).collect();
    // Otherwise what refers to the rows might go with them.
    let silently = "BEGIN; SET LOCAL session_replication_role = replica";
    match session.batch_execute(silently).await {
        Ok(()) => session
            .batch_execute(&format!("{}; COMMIT", delete.join("; ")))
            .await
            .map_err(failed),
        Err(_) => Err(Status::failed_precondition(format!(
            "{} cannot be emptied: other tables refer to them, and the agent's role may not set session_replication_role. Empty them as a \
             superuser, and run rollback again",
            tables.join(", ")
        ))),
    }
}

/// Of a platform's tables, which others refer to and which are not ours to truncate, and of what was computed from their rows.
async fn managed_rows(session: &Session, undone: &Undone) -> Result<(), Error> {
    let Some(tenancy) = undone.tenancy() else {
        return Ok(());
    };
    let was_empty = |name: &str| {
        undone
            .before
            .tables
            .iter()
            .any(|(t, held)| t == name && !held)
    };
    let loaded = undone.tables.iter().filter(|table| table.managed);
    let loaded = loaded.map(|table| (table.schema.as_str(), table.name.as_str()));
    let derived = tenancy.platform.derived.iter();
    let derived = derived.filter_map(|derived| derived.of.split_once('.'));
    managed::begin(session, Some(tenancy)).await?;
    for (schema, name) in loaded.chain(derived) {
        if was_empty(&format!("{schema}.{name}")) {
            let delete = format!("DELETE FROM {}", qualified(schema, name));
            session.batch_execute(&delete).await?;
        }
    }
    session.batch_execute("COMMIT").await
}

/// Owners, grants, comments and settings.
pub(super) async fn rest(session: &Session, undone: &Undone) -> Result<(), Status> {
    let failed = |error: Error| status::postgres("changing back what was there", &error);
    let before = &undone.before;
    default_privileges(session, &before.default_privileges)
        .await
        .map_err(failed)?;
    let objects: Vec<&Access> = before.access.iter().collect();
    let version = session.server_version();
    let refused = steps::apply_access(session, version, Among::Objects, &objects).await?;
    let changes = system_grants(session, &before.system)
        .await
        .map_err(failed)?;
    let refused = [
        refused,
        steps::apply_system_grants(session, &changes).await?,
    ];
    for finding in refused.concat() {
        tracing::warn!(object = finding.object, "{}", finding.message);
    }
    comments(session, undone).await.map_err(failed)?;
    database(session, undone).await.map_err(failed)
}

/// Comments on schemas and extensions that were there.
async fn comments(session: &Session, undone: &Undone) -> Result<(), Error> {
    let now = undone.before.again(session).await?.schema;
    session.batch_execute("BEGIN").await?;
    for was in &undone.before.schema {
        let keyword = match was.kind.as_str() {
            "schema" => "SCHEMA",
            "extension" => "EXTENSION",
            _ => continue,
        };
        let here = now
            .iter()
            .find(|now| now.kind == was.kind && now.identity == was.identity);
        if here.is_some_and(|now| now.get("comment") != was.get("comment")) {
            let comment = literal(was.get("comment"));
            let statement = format!("COMMENT ON {keyword} {} IS {comment}", was.identity);
            tell(&statement, steps::attempt(session, &statement).await?);
        }
    }
    session.batch_execute("COMMIT").await
}

fn literal(comment: Option<&str>) -> String {
    comment.map_or_else(|| "NULL".into(), quote_literal)
}

/// Of statements that hold no secret.
fn tell(statement: &str, refused: Option<String>) {
    if let Some(reason) = refused {
        tracing::warn!(statement, reason, "refused");
    }
}

/// For each: everything is revoked, and what was granted is granted again; without a row it is PostgreSQL's own default.
pub(super) async fn default_privileges(
    session: &Session,
    before: &[DefaultPrivileges],
) -> Result<(), Error> {
    let now = default_privileges::read(session).await?;
    session.batch_execute("BEGIN").await?;
    let changed = now
        .iter()
        .filter(|now| !before.iter().any(|was| was.is_same(now)));
    for now in changed {
        let was = before.iter().find(|was| was.is_of(now));
        for statement in default_privileges::statements(now, was) {
            tell(&statement, steps::attempt(session, &statement).await?);
        }
    }
    let lost = before
        .iter()
        .filter(|was| !now.iter().any(|now| now.is_of(was)));
    for was in lost {
        for statement in default_privileges::statements(was, Some(was)) {
            tell(&statement, steps::attempt(session, &statement).await?);
        }
    }
    session.batch_execute("COMMIT").await
}

/// What makes of the grants that PostgreSQL's own objects have now those that they had.
async fn system_grants(
    session: &Session,
    before: &[SystemGrants],
) -> Result<Vec<SystemGrants>, Error> {
    let now = system::changed(session).await?;
    let without = |these: &[Grant], those: Option<&Vec<Grant>>| -> Vec<Grant> {
        let kept = these
            .iter()
            .filter(|grant| those.is_none_or(|those| !those.contains(grant)));
        kept.cloned().collect()
    };
    let find = |all: &'_ [SystemGrants], of: &SystemGrants| {
        let found = all
            .iter()
            .find(|one| system::place(one) == system::place(of));
        found.cloned()
    };
    let mut changes: Vec<SystemGrants> = Vec::new();
    for now in &now {
        let was = find(before, now);
        let mut granted = without(&now.revoked, was.as_ref().map(|was| &was.revoked));
        let mut revoked = without(&now.granted, was.as_ref().map(|was| &was.granted));
        if let Some(was) = &was {
            granted.extend(without(&was.granted, Some(&now.granted)));
            revoked.extend(without(&was.revoked, Some(&now.revoked)));
        }
        changes.push(SystemGrants {
            granted,
            revoked,
            ..now.clone()
        });
    }
    let lost = before.iter().filter(|was| find(&now, was).is_none());
    changes.extend(lost.cloned());
    changes.retain(|change| !change.granted.is_empty() || !change.revoked.is_empty());
    Ok(changes)
}

/// Of the database what the plan has set and was not there before.
async fn database(session: &Session, undone: &Undone) -> Result<(), Error> {
    let planned = undone.works().find_map(|work| match work {
        Work::Database(properties) => Some(properties),
        _ => None,
    });
    let Some(planned) = planned else {
        return Ok(());
    };
    let before = &undone.before.database;
    let now = roles::properties(session, true).await?;
    let name: String = session
        .query_one("SELECT current_database()::text", &[])
        .await?
        .get(0);
    let statements = database_again(&quote_ident(&name), before, &now, planned);
    session.batch_execute("BEGIN").await?;
    for statement in statements {
        tell(&statement, steps::attempt(session, &statement).await?);
    }
    session.batch_execute("COMMIT").await
}

fn database_again(
    name: &str,
    before: &Properties,
    now: &Properties,
    planned: &Properties,
) -> Vec<String> {
    let mut statements = Vec::new();
    for setting in &now.settings {
        let is = |s: &pgconvoy_proto::model::Setting| s.name == setting.name;
        if planned.settings.iter().any(is) && !before.settings.iter().any(is) {
            let what = quote_parameter(&setting.name);
            statements.push(format!("ALTER DATABASE {name} RESET {what}"));
        }
    }
    for (role, setting) in &now.role_settings {
        let is =
            |(r, s): &(String, pgconvoy_proto::model::Setting)| r == role && s.name == setting.name;
        if planned.role_settings.iter().any(is) && !before.role_settings.iter().any(is) {
            let (role, what) = (quote_ident(role), quote_parameter(&setting.name));
            statements.push(format!("ALTER ROLE {role} IN DATABASE {name} RESET {what}"));
        }
    }
    if now.comment != before.comment {
        let comment = literal(before.comment.as_deref());
        statements.push(format!("COMMENT ON DATABASE {name} IS {comment}"));
    }
    let new = now.labels.iter().filter(|now| !before.labels.contains(now));
    for (provider, _) in new {
        let was = before.labels.iter().find(|(other, _)| other == provider);
        let label = literal(was.map(|(_, label)| label.as_str()));
        statements.push(steps::label_of(name, provider, &label));
    }
    let each = |g: &Grant| (g.grantee.clone(), g.privilege.clone(), g.grantable);
    let was: HashSet<_> = before.grants.iter().map(each).collect();
    let have: HashSet<_> = now.grants.iter().map(each).collect();
    for (grantee, privilege, _) in have.difference(&was) {
        let from = quote_grantee(grantee);
        statements.push(format!("REVOKE {privilege} ON DATABASE {name} FROM {from}"));
    }
    for (grantee, privilege, grantable) in was.difference(&have) {
        let option = if *grantable { " WITH GRANT OPTION" } else { "" };
        let to = quote_grantee(grantee);
        statements.push(format!(
            "GRANT {privilege} ON DATABASE {name} TO {to}{option}"
        ));
    }
    statements
}

/// A parameter's name has a dot between its parts.
fn quote_parameter(name: &str) -> String {
    let parts: Vec<String> = name.split('.').map(quote_ident).collect();
    parts.join(".")
}

/// Drops the roles that the migration created; what else uses one keeps it.
pub(super) async fn roles(session: &Session, migration: &str) -> Result<Vec<String>, Error> {
    let rows = session
        .query(
            "SELECT r.name, EXISTS (
                 SELECT FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid
                 WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = p.oid AND s.deptype = 'o'
                   AND (s.dbid = 0 OR d.datname = current_database()))
             FROM pgconvoy.roles r JOIN pg_roles p ON p.rolname = r.name WHERE r.migration = $1 ORDER BY r.created_at DESC",
            &[&migration],
        )
        .await?;
    let mut dropped = Vec::new();
    session.batch_execute("BEGIN").await?;
    for row in rows {
        let (role, owns): (String, bool) = (row.get(0), row.get(1));
        let name = quote_ident(&role);
        // It owns nothing: what goes is what it was granted.
        let ungrant = match owns {
            true => String::new(),
            false => format!("DROP OWNED BY {name}; "),
        };
        let statement = format!("{ungrant}DROP ROLE {name}");
        let refused = steps::attempt(session, &statement).await?;
        if refused.is_none() {
            dropped.push(format!("role {name}"));
        }
        tell(&statement, refused);
    }
    session.batch_execute("COMMIT").await?;
    Ok(dropped)
}
