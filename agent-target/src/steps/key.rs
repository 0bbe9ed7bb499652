//! Large keys, in two statements: the index, beside which the table may be read, and the constraint that takes it over.
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Finding, KeyStatements, Severity};
use tonic::{Code, Status};

use super::refusal;

/// Builds the index if there is none of this name.
pub(super) async fn build_index(
    session: &Session,
    schema: &str,
    name: &str,
    create: &str,
) -> Result<(), Status> {
    let there = session
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                            WHERE n.nspname = $1 AND c.relname = $2)",
            &[&schema, &name],
        )
        .await
        .map_err(|error| status::postgres("reading the target's catalogs", &error))?;
    if there.get(0) {
        return Ok(());
    }
    let Err(error) = session.batch_execute(create).await else {
        return Ok(());
    };
    let status = status::postgres(&format!("building {schema}.{name}"), &error);
    if status.code() != Code::Internal {
        return Err(status);
    }
    // The constraint's own step tries again by the archive's entry, and tells how that is refused.
    tracing::warn!(%status, "the index of a key was refused");
    Ok(())
}

/// Makes the constraint of an index that is there.
pub(super) async fn adopt(
    session: &Session,
    object: String,
    key: &KeyStatements,
) -> Result<Option<Finding>, Status> {
    match session.batch_execute(&key.adopt).await {
        Ok(()) => Ok(None),
        Err(error) => refusal(Severity::Difference, "not-restored", object, &error).map(Some),
    }
}
