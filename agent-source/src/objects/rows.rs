//! The rows of storage.objects: under the migration's snapshot while that lives, or as they are now.
use std::collections::HashMap;
use std::sync::Arc;

use futures_util::TryStreamExt;
use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::session::{LOOK, Session};
use pgconvoy_agent_core::snapshot::Snapshot;
use pgconvoy_agent_core::status;
use pgconvoy_agent_core::storage::CURRENT;
use pgconvoy_proto::model::object::{Object, VERSION};
use pgconvoy_proto::wire;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_postgres::Row;
use tonic::Status;

/// When rows are read.
#[derive(Clone)]
pub enum When {
    Under(Arc<Snapshot>),
    Now(Box<Database>),
}

/// Which rows are read, and when.
#[derive(Clone)]
pub struct Place {
    pub when: When,
    /// Condition on the rows that are carried; empty: all are.
    pub filter: String,
}

impl Place {
    /// A session of its own, in a transaction.
    async fn begin(&self) -> Result<Session, Status> {
        match &self.when {
            When::Under(snapshot) => Ok(snapshot.unlocked().await?),
            When::Now(database) => {
                let session = database.connect("pgconvoy files").await?;
                session.batch_execute(LOOK).await.map_err(failed)?;
                Ok(session)
            }
        }
    }

    /// The rows of files, as `o`.
    fn rows(&self) -> String {
        let carried = match self.filter.as_str() {
            "" => String::new(),
            filter => format!(" AND ({filter})"),
        };
        format!(
            "(SELECT o.* FROM storage.objects o WHERE bucket_id IS NOT NULL AND name IS NOT NULL AND {CURRENT}{carried}) o"
        )
    }
}

fn failed(error: tokio_postgres::Error) -> Status {
    status::postgres("reading storage.objects", &error)
}

/// Bucket, name, size, and what marks the contents: a new upload is a new version. Storage of the first days had none: then what else the
/// row says of the contents.
const FIELDS: &str = "o.bucket_id::text, o.name::text, to_jsonb(o) #>> '{metadata,size}',
    coalesce(to_jsonb(o) ->> 'version', to_jsonb(o) ->> 'updated_at', '') || ' ' || coalesce(to_jsonb(o) #>> '{metadata,eTag}', '')
        || ' ' || coalesce(to_jsonb(o) #>> '{metadata,size}', '')";

const ROWS_PER_MESSAGE: usize = 500;

/// Sends what rows there are, in the order of their names.
pub async fn list(
    place: Place,
    out: mpsc::Sender<Result<wire::SourceObjects, Status>>,
) -> Result<(), Status> {
    let session = place.begin().await?;
    let query = format!("SELECT {FIELDS} FROM {} ORDER BY 1, 2", place.rows());
    let rows = session.query_raw(&query, [] as [&str; 0]).await;
    let mut rows = std::pin::pin!(rows.map_err(failed)?);
    let mut objects = Vec::new();
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        objects.push(source_object(&row));
        if objects.len() == ROWS_PER_MESSAGE {
            let objects = std::mem::take(&mut objects);
            if out.send(Ok(wire::SourceObjects { objects })).await.is_err() {
                return Ok(());
            }
        }
    }
    // A caller that has left has no use for the rest either.
    out.send(Ok(wire::SourceObjects { objects })).await.ok();
    Ok(())
}

fn source_object(row: &Row) -> wire::SourceObject {
    let size: Option<&str> = row.get(2);
    wire::SourceObject {
        object: Some(Object::new(row.get::<_, &str>(0), row.get::<_, &str>(1)).into()),
        bytes: size.and_then(|size| size.parse().ok()).unwrap_or(0),
        mark: row.get(3),
    }
}

/// A file's row, as it goes along with the file.
pub struct FileRow {
    pub mark: String,
    /// JSON, as PostgreSQL wrote it.
    pub text: String,
    metadata: Value,
}

impl FileRow {
    /// What the row says of the contents; None: nothing.
    pub fn bytes(&self) -> Option<u64> {
        self.metadata["size"].as_u64()
    }

    pub fn etag(&self) -> Option<&str> {
        self.metadata["eTag"].as_str()
    }

    pub fn content_type(&self) -> String {
        let of_row = self.metadata["mimetype"].as_str();
        of_row.unwrap_or("application/octet-stream").to_owned()
    }

    pub fn cache_control(&self) -> String {
        let of_row = self.metadata["cacheControl"].as_str();
        of_row.unwrap_or_default().to_owned()
    }
}

/// The rows of these files, their version and these columns; those that are gone are missing from the answer.
pub async fn of(
    place: &Place,
    objects: &[Object],
    columns: &[String],
) -> Result<HashMap<Object, FileRow>, Status> {
    let session = place.begin().await?;
    let buckets: Vec<&str> = objects.iter().map(|o| o.bucket.as_str()).collect();
    let names: Vec<&str> = objects.iter().map(|o| o.name.as_str()).collect();
    let query = format!(
        "SELECT {FIELDS}, (SELECT jsonb_object_agg(e.key, e.value) FROM jsonb_each(to_jsonb(o)) e WHERE e.key = ANY ($3::text[] || $4::text))::text,
                coalesce(to_jsonb(o) -> 'metadata', 'null')
         FROM unnest($1::text[], $2::text[]) w (bucket, name) JOIN {} ON o.bucket_id = w.bucket AND o.name = w.name",
        place.rows()
    );
    let rows = session
        .query(&query, &[&buckets, &names, &columns, &VERSION])
        .await;
    let rows = rows.map_err(failed)?;
    Ok(rows
        .iter()
        .map(|row| {
            let object = Object::new(row.get::<_, &str>(0), row.get::<_, &str>(1));
            let file = FileRow {
                mark: row.get(3),
                text: row.get(4),
                metadata: row.get(5),
            };
            (object, file)
        })
        .collect())
}
