//! The row of a file, which the API writes when it is uploaded: new version, owner, times, metadata.
//!
//! All of it becomes what the source has, but for the version. The API keeps a file under `bucket/name/version` and finds it by its row: with
//! the source's version in it the file could never be read again. Where the API left the version alone (it keeps none), the source's
//! is right.
use pgconvoy_agent_core::session::{Session, quote_ident};
use pgconvoy_agent_core::storage::CURRENT;
use pgconvoy_proto::model::object::{Object, VERSION};
use serde_json::Value;
use tokio_postgres::types::Type;
use tonic::Status;

use super::failed;
use crate::landing;

const TABLE: &str = "storage.objects";

/// The version in the row; None: there is no row.
pub async fn version(session: &Session, object: &Object) -> Result<Option<String>, Status> {
    let row = session
        .query_typed_opt(
            &format!(
                "SELECT coalesce(to_jsonb(o) ->> 'version', '') FROM storage.objects o WHERE bucket_id = $1 AND name = $2 AND {CURRENT}"
            ),
            &[(&object.bucket, Type::TEXT), (&object.name, Type::TEXT)],
        )
        .await
        .map_err(failed)?;
    Ok(row.map(|row| row.get(0)))
}

/// Columns that can be written.
async fn columns(session: &Session) -> Result<Vec<String>, Status> {
    let rows = session
        .query(
            "SELECT attname::text FROM pg_attribute
             WHERE attrelid = 'storage.objects'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
             ORDER BY attnum",
            &[],
        )
        .await
        .map_err(failed)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What happened before the row is put right.
pub struct Upload<'a> {
    /// The version that the row had before.
    pub before: Option<&'a str>,
    /// The API took the file.
    pub taken: bool,
}

/// Within the caller's transaction: gives the row what the source has of it, in the columns that both ends have. The version that it has now.
pub async fn restore(
    session: &Session,
    object: &Object,
    row: &str,
    upload: &Upload<'_>,
) -> Result<Option<String>, Status> {
    let now = version(session, object).await?;
    let sent: Value = serde_json::from_str(row)
        .map_err(|_| Status::invalid_argument(format!("{object}: its row is no JSON")))?;
    let all = columns(session).await?;
    // A file that is there, and no other took its place, stays to be found.
    let untouched = now.as_deref() == upload.before
        && (upload.taken || upload.before.is_none_or(str::is_empty));
    let names: Vec<String> = all
        .iter()
        .filter(|name| sent.get(name.as_str()).is_some())
        .filter(|name| *name != VERSION || untouched)
        .map(|name| quote_ident(name))
        .collect();
    if names.is_empty() {
        return Ok(now);
    }
    let values: Vec<String> = names.iter().map(|name| format!("s.{name}")).collect();
    let quiet = landing::silence_triggers(session, TABLE).await;
    let quiet = quiet.map_err(failed)?;
    // As text: numbers stay as PostgreSQL wrote them.
    let update = format!(
        "UPDATE storage.objects o SET ({}) = ROW ({}) FROM jsonb_populate_record(NULL::storage.objects, $1::text::jsonb) s
         WHERE o.bucket_id = $2 AND o.name = $3 AND {CURRENT}",
        names.join(", "),
        values.join(", ")
    );
    session
        .execute_typed(
            &update,
            &[
                (&row, Type::TEXT),
                (&object.bucket, Type::TEXT),
                (&object.name, Type::TEXT),
            ],
        )
        .await
        .map_err(failed)?;
    session.batch_execute(&quiet).await.map_err(failed)?;
    match untouched {
        true => version(session, object).await,
        false => Ok(now),
    }
}

/// Rows that were loaded anew have lost the version of their file, which is still there.
pub async fn mend(session: &Session, migration: &str) -> Result<(), Status> {
    if !columns(session).await?.iter().any(|name| name == VERSION) {
        return Ok(());
    }
    session.batch_execute("BEGIN").await.map_err(failed)?;
    let quiet = landing::silence_triggers(session, TABLE).await;
    let quiet = quiet.map_err(failed)?;
    session
        .execute(
            &format!(
                "UPDATE storage.objects o SET version = e.version FROM pgconvoy.objects e
                 WHERE e.migration = $1 AND e.bucket = o.bucket_id AND e.name = o.name
                   AND o.version IS NULL AND e.version <> '' AND {CURRENT}"
            ),
            &[&migration],
        )
        .await
        .map_err(failed)?;
    session
        .batch_execute(&format!("{quiet} COMMIT"))
        .await
        .map_err(failed)
}
