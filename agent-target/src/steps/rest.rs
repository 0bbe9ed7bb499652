//! Steps of one statement each: refreshing materialized views, setting sequences, statistics.
use pgconvoy_agent_core::session::{Session, qualified, quote_ident, quote_literal};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Column, Finding, SequenceValue, Severity, View};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;
use tonic::Status;

use super::refusal;
use crate::landing::find_neighbours;

/// Of columns that inherit it and at the source do not have it. PostgreSQL 18 does not let a child be without.
pub async fn drop_not_null(session: &Session, columns: &[Column]) -> Result<Vec<Finding>, Status> {
    let mut findings = Vec::new();
    for column in columns {
        let table = qualified(&column.schema, &column.table);
        let name = quote_ident(&column.name);
        let drop = format!("ALTER TABLE ONLY {table} ALTER COLUMN {name} DROP NOT NULL");
        if let Err(error) = session.batch_execute(&drop).await {
            let object = format!("{}.{}.{}", column.schema, column.table, column.name);
            findings.push(refusal(
                Severity::Difference,
                "not-null-stays",
                object,
                &error,
            )?);
        }
    }
    Ok(findings)
}

/// Views are refreshed in the order given: each after those that it reads. What a function reads is not always known: a view that
/// finds another one not populated waits for the others, until a round populates no more.
pub async fn refresh(session: &Session, views: &[View]) -> Result<Vec<Finding>, Status> {
    let mut findings = Vec::new();
    let mut left: Vec<&View> = views.iter().collect();
    loop {
        let mut unpopulated = Vec::new();
        for view in &left {
            let Err(error) = refresh_view(session, view).await? else {
                continue;
            };
            let object = format!("{}.{}", view.schema, view.name);
            let code = "view-not-refreshed";
            let finding = refusal(Severity::Difference, code, object, &error)?;
            if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) {
                unpopulated.push((*view, finding));
            } else {
                findings.push(finding);
            }
        }
        if unpopulated.len() == left.len() || unpopulated.is_empty() {
            findings.extend(unpopulated.into_iter().map(|(_, finding)| finding));
            return Ok(findings);
        }
        left = unpopulated.into_iter().map(|(view, _)| view).collect();
    }
}

/// REFRESH runs as the view's owner, after policies, grants and owners are in place, and with row level security applied as
/// the application has it: with `row_security = off` it would fail for an owner who is subject to policies.
async fn refresh_view(session: &Session, view: &View) -> Result<Result<(), Error>, Status> {
    let name = qualified(&view.schema, &view.name);
    let neighbours = find_neighbours(&view.schema);
    let refresh = format!(
        "BEGIN; SET LOCAL row_security = on; {neighbours}; REFRESH MATERIALIZED VIEW {name}; COMMIT"
    );
    let refreshed = session.batch_execute(&refresh).await;
    if refreshed.is_err() {
        session
            .batch_execute("ROLLBACK")
            .await
            .map_err(|error| status::postgres("after a refresh", &error))?;
    }
    Ok(refreshed)
}

/// All at once, but for those that stay; where PostgreSQL refuses one of them, one by one: each that cannot be set is a finding.
pub async fn set_sequences(
    session: &Session,
    values: &[SequenceValue],
) -> Result<Vec<Finding>, Status> {
    let moving = || values.iter().filter(|value| !value.stays);
    let set: Vec<String> = moving().map(setval).collect();
    if session.batch_execute(&set.join("\n")).await.is_ok() {
        return Ok(Vec::new());
    }
    let mut findings = Vec::new();
    for value in moving() {
        if let Err(error) = session.batch_execute(&setval(value)).await {
            let object = format!("{}.{}", value.schema, value.name);
            let code = "sequence-not-set";
            let finding = refusal(Severity::Difference, code, object, &error)?;
            findings.push(finding.values(value.last_value.to_string(), ""));
        }
    }
    Ok(findings)
}

fn setval(value: &SequenceValue) -> String {
    let name = quote_literal(&qualified(&value.schema, &value.name));
    format!(
        "SELECT setval({name}::regclass, {}, {});",
        value.last_value, value.is_called
    )
}

/// VACUUM too: rows that were not loaded with FREEZE have hint bits and the visibility map to be written.
pub async fn statistics(
    session: &Session,
    schema: &str,
    name: &str,
    partitioned: bool,
) -> Result<Option<Finding>, Status> {
    let table = qualified(schema, name);
    let what = if partitioned {
        "ANALYZE"
    } else {
        "VACUUM (ANALYZE)"
    };
    match session.batch_execute(&format!("{what} {table}")).await {
        Ok(()) => Ok(None),
        Err(error) => {
            let object = format!("{schema}.{name}");
            refusal(Severity::Warning, "statistics-not-gathered", object, &error).map(Some)
        }
    }
}
