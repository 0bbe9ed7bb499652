//! Whether the API answers and knows the key, and what the database says of files.
use pgconvoy_proto::facts::StorageFacts;
use reqwest::Method;
use serde_json::Value;
use tokio_postgres::error::SqlState;
use tonic::Status;

use super::{Access, Error, Storage};
use crate::database::Database;
use crate::status;

const OBJECTS: &str = "SELECT count(*), coalesce(sum(size), 0)::int8, coalesce(max(size), 0)::int8
    FROM (SELECT CASE WHEN to_jsonb(o) #>> '{metadata,size}' ~ '^[0-9]{1,18}$' THEN (to_jsonb(o) #>> '{metadata,size}')::int8 END
          FROM storage.objects o) o (size)";

pub async fn facts(access: &Access, database: &Database) -> Result<StorageFacts, Status> {
    let (place, buckets) = match access {
        Access::Lacking(why) => (Err(why.clone()), Err(why.clone())),
        Access::Ready(storage) => (
            Ok(storage.place().to_owned()),
            buckets(storage).await.map_err(|error| error.to_string()),
        ),
    };
    let session = database.connect("pgconvoy preflight").await?;
    let (objects, largest) = match session.query_one(OBJECTS, &[]).await {
        Ok(row) => {
            let number = |at| row.get::<_, i64>(at) as u64;
            (Ok((number(0), number(1))), number(2))
        }
        Err(error) if absent(&error) => (Err("there is no table storage.objects".to_owned()), 0),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            (Err(status::postgres_text(&error)), 0)
        }
        Err(error) => return Err(status::postgres("reading storage.objects", &error)),
    };
    Ok(StorageFacts {
        place,
        buckets,
        objects,
        largest,
    })
}

fn absent(error: &tokio_postgres::Error) -> bool {
    let absent = [
        Some(&SqlState::UNDEFINED_TABLE),
        Some(&SqlState::INVALID_SCHEMA_NAME),
    ];
    absent.contains(&error.code())
}

/// Asked once: who waits for preflight wants to know what is wrong now.
async fn buckets(storage: &Storage) -> Result<u64, Error> {
    let request = storage.request(Method::GET, storage.url(["bucket"]));
    let answer = storage.ask(request).await?;
    let body = answer.text().await.map_err(|e| Error::unreachable(&e))?;
    match serde_json::from_str(&body) {
        Ok(Value::Array(buckets)) => Ok(buckets.len() as u64),
        _ => Err(Error::Refused(
            "what answers there is no Storage API: it lists no buckets".into(),
        )),
    }
}
