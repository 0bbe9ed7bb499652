//! What a database holds, read from its catalogs: the tables to copy, what is built on them, and who may do what.
//!
//! Every query names `pg_catalog` objects under an empty search path, so that no user object can stand in for them.
pub mod access;
pub mod addresses;
pub mod built;
pub mod built_in;
mod constraints;
pub mod default_privileges;
pub mod holdings;
pub mod large_objects;
pub mod newer;
pub mod roles;
pub mod schema;
pub mod system;
pub mod tables;

use pgconvoy_proto::model::UNTOLD;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use crate::session::Session;

/// OIDs of objects made after initdb start here (src/include/access/transam.h, FirstNormalObjectId).
const FIRST_NORMAL_OID: u32 = 16384;

/// Runs a query whose answer has names in it that the other end reads: every name is quoted. Which words need quotes is another matter
/// in every major (17 quotes `json` and `system_user`, 15 does not).
pub(crate) async fn query_quoted(
    session: &Session,
    query: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, Error> {
    session
        .batch_execute("SET quote_all_identifiers = on")
        .await?;
    let rows = session.query(query, parameters).await;
    // Where the query failed, so may this in its transaction, whose end undoes the setting.
    let reset = session.batch_execute("RESET quote_all_identifiers").await;
    let rows = rows?;
    reset.map(|()| rows)
}

/// SQL of an object's identity, as pg_identify_object() tells it to [`query_quoted`], spelled alike by all majors: 17 and newer write the
/// type json of an argument without its schema.
pub(crate) fn identity(of: &str) -> String {
    let json = r#""pg_catalog"."json""#;
    format!("replace(replace({of}, '({json}', '(json'), ',{json}', ',json')")
}

/// SQL of how a trigger is made, `alias` one of pg_trigger. Its arguments may hold keys: they stay at their agent.
pub(crate) fn trigger_definition(alias: &str) -> String {
    format!(
        "CASE {alias}.tgnargs WHEN 0 THEN pg_get_triggerdef({alias}.oid)
              ELSE format('CREATE TRIGGER %I ON %s {UNTOLD}', {alias}.tgname, {alias}.tgrelid::regclass) END"
    )
}

/// Schemas that are never a migration's: PostgreSQL's own, and ours. A condition on `nspname`; `{}` is its alias.
pub(crate) fn foreign_schema(alias: &str) -> String {
    format!(
        "({alias}.nspname IN ('pg_catalog', 'information_schema', 'pgconvoy') OR {alias}.nspname LIKE 'pg\\_toast%' \
         OR {alias}.nspname LIKE 'pg\\_temp%')"
    )
}
