//! Whether the API answers and knows the key, whether it is that of this database, and what the database says of files.
use pgconvoy_proto::facts::StorageFacts;
use tokio_postgres::error::SqlState;
use tonic::Status;

use super::bucket::{self, Bucket};
use super::{Access, CURRENT};
use crate::database::Database;
use crate::session::Session;
use crate::status;

/// Rows of files, their bytes, the largest, and how many are of earlier versions.
fn query() -> String {
    format!(
        "SELECT count(*) FILTER (WHERE current), coalesce(sum(size) FILTER (WHERE current), 0)::int8,
                coalesce(max(size) FILTER (WHERE current), 0)::int8, count(*) FILTER (WHERE NOT current)
         FROM (SELECT CASE WHEN to_jsonb(o) #>> '{{metadata,size}}' ~ '^[0-9]{{1,18}}$' THEN (to_jsonb(o) #>> '{{metadata,size}}')::int8 END,
                      {CURRENT} FROM storage.objects o) o (size, current)"
    )
}

pub async fn facts(access: &Access, database: &Database) -> Result<StorageFacts, Status> {
    let session = database.connect("pgconvoy preflight").await?;
    let (place, buckets) = match access {
        Access::Lacking(why) => (Err(why.clone()), Err(why.clone())),
        // Asked once: who waits for preflight wants to know what is wrong now.
        Access::Ready(storage) => (
            Ok(storage.place().to_owned()),
            storage
                .buckets_now()
                .await
                .map_err(|error| error.to_string()),
        ),
    };
    let strange = match &buckets {
        Ok(buckets) => strange(&session, buckets).await?,
        Err(_) => Ok(String::new()),
    };
    let number = |row: &tokio_postgres::Row, at| row.get::<_, i64>(at) as u64;
    let read = session.query_one(&query(), &[]).await;
    let read = unless_absent(read, "there is no table storage.objects")?;
    Ok(StorageFacts {
        place,
        buckets: buckets.map(|buckets| buckets.len() as u64),
        strange,
        largest: read.as_ref().map_or(0, |row| number(row, 2)),
        versions: read.as_ref().map_or(0, |row| number(row, 3)),
        objects: read.map(|row| (number(&row, 0), number(&row, 1))),
    })
}

/// What shows that the buckets are those of another database; empty: nothing does.
async fn strange(session: &Session, buckets: &[Bucket]) -> Result<Result<String, String>, Status> {
    let listed = bucket::json(buckets);
    let rows = session.query(bucket::STRANGE, &[&listed]).await;
    // Without the table: whatever the API lists is of another database.
    let absent = buckets
        .iter()
        .map(|bucket| format!("{}: this database has no buckets", bucket.id))
        .next();
    match unless_absent(rows, "")? {
        Ok(rows) => {
            let rows = rows.iter().map(|row| row.get::<_, String>(0));
            Ok(Ok(rows.collect::<Vec<_>>().join("; ")))
        }
        Err(why) if why.is_empty() => Ok(Ok(absent.unwrap_or_default())),
        Err(why) => Ok(Err(why)),
    }
}

/// A database that has no such table, or does not let it be read, is told of and no error.
fn unless_absent<T>(
    read: Result<T, tokio_postgres::Error>,
    absent: &str,
) -> Result<Result<T, String>, Status> {
    let error = match read {
        Ok(read) => return Ok(Ok(read)),
        Err(error) => error,
    };
    match error.code() {
        Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME) => {
            Ok(Err(absent.to_owned()))
        }
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(Err(status::postgres_text(&error))),
        _ => Err(status::postgres("reading the schema storage", &error)),
    }
}
