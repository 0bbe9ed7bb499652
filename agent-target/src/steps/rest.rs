//! Steps of one statement each: refreshing materialized views, setting sequences, statistics.
use pgconvoy_agent_core::session::{Session, qualified, quote_literal};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Finding, SequenceValue, Severity, View};
use tonic::Status;

use super::refusal;

/// REFRESH runs as the view's owner, after policies, grants and owners are in place, and with row level security applied as
/// the application has it: with `row_security = off` it would fail for an owner who is subject to policies.
pub async fn refresh(session: &Session, views: &[View]) -> Result<Vec<Finding>, Status> {
    let mut findings = Vec::new();
    for view in views {
        let name = qualified(&view.schema, &view.name);
        let refresh =
            format!("BEGIN; SET LOCAL row_security = on; REFRESH MATERIALIZED VIEW {name}; COMMIT");
        if let Err(error) = session.batch_execute(&refresh).await {
            let object = format!("{}.{}", view.schema, view.name);
            findings.push(refusal(
                Severity::Difference,
                "view-not-refreshed",
                object,
                &error,
            )?);
            session
                .batch_execute("ROLLBACK")
                .await
                .map_err(|error| status::postgres("after a refresh", &error))?;
        }
    }
    Ok(findings)
}

pub async fn set_sequences(session: &Session, values: &[SequenceValue]) -> Result<(), Status> {
    let set: Vec<String> = values
        .iter()
        .map(|value| {
            let name = quote_literal(&qualified(&value.schema, &value.name));
            format!(
                "SELECT setval({name}::regclass, {}, {});",
                value.last_value, value.is_called
            )
        })
        .collect();
    session
        .batch_execute(&set.join("\n"))
        .await
        .map_err(|error| status::postgres("setting sequences", &error))
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
