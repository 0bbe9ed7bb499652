//! Which files there are: rows and entries side by side.
use futures_util::TryStreamExt;
use pgconvoy_agent_core::storage::CURRENT;
use pgconvoy_proto::model::object::{FileDigest, Object, ObjectEntry, ObjectState};
use pgconvoy_proto::wire;
use tokio::sync::mpsc;
use tokio_postgres::Row;
use tonic::Status;

use super::{failed, row};
use crate::sessions::{Purpose, Sessions};

/// An entry's row is intact when its version is still the one that the file had when it was entered.
fn query() -> String {
    format!(
        "SELECT coalesce(o.bucket_id, e.bucket)::text, coalesce(o.name, e.name)::text, o.bucket_id IS NOT NULL,
                coalesce(to_jsonb(o) ->> 'version', '') = coalesce(e.version, ''),
                e.mark, e.state, e.bytes, e.digest, e.target_bytes, e.target_digest, e.verified_at IS NOT NULL
         FROM (SELECT * FROM storage.objects o WHERE bucket_id IS NOT NULL AND name IS NOT NULL AND {CURRENT}) o
         FULL JOIN (SELECT * FROM pgconvoy.objects WHERE migration = $1) e ON e.bucket = o.bucket_id AND e.name = o.name
         ORDER BY 1, 2"
    )
}

const ROWS_PER_MESSAGE: usize = 500;

pub async fn list(
    sessions: Sessions,
    request: wire::TargetObjectsRequest,
    out: mpsc::Sender<Result<wire::TargetObjects, Status>>,
) -> Result<(), Status> {
    let migration = request.migration;
    let session = sessions.take(&migration, Purpose::Load).await?;
    if request.mend {
        row::mend(&session, &migration).await?;
    }
    let rows = session.query_raw(&query(), [&migration]).await;
    let mut rows = std::pin::pin!(rows.map_err(failed)?);
    let mut objects = Vec::new();
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        objects.push(target_object(&row)?);
        if objects.len() == ROWS_PER_MESSAGE {
            let objects = std::mem::take(&mut objects);
            if out.send(Ok(wire::TargetObjects { objects })).await.is_err() {
                return Ok(());
            }
        }
    }
    // A caller that has left has no use for the rest either.
    out.send(Ok(wire::TargetObjects { objects })).await.ok();
    sessions.give_back(&migration, Purpose::Load, session);
    Ok(())
}

fn target_object(row: &Row) -> Result<wire::TargetObject, Status> {
    let present: bool = row.get(2);
    let entry = entry(row)?;
    Ok(wire::TargetObject {
        object: Some(Object::new(row.get::<_, &str>(0), row.get::<_, &str>(1)).into()),
        intact: present && entry.is_some() && row.get(3),
        present,
        entry: entry.map(Into::into),
    })
}

fn entry(row: &Row) -> Result<Option<ObjectEntry>, Status> {
    let Some(mark) = row.get::<_, Option<String>>(4) else {
        return Ok(None);
    };
    let file = |at| -> Result<Option<FileDigest>, Status> {
        match (
            row.get::<_, Option<i64>>(at),
            row.get::<_, Option<&str>>(at + 1),
        ) {
            (Some(bytes), Some(hex)) => Ok(Some(FileDigest::parse(bytes as u64, hex)?)),
            _ => Ok(None),
        }
    };
    let read = file(8)?;
    Ok(Some(ObjectEntry {
        mark,
        state: ObjectState::parse(row.get(5))?,
        file: file(6)?,
        read: row.get::<_, bool>(10).then_some(read),
    }))
}
