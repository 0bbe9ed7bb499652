//! Files that go: through the API, which knows where their bytes are, before their rows do.
use std::collections::BTreeMap;

use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use pgconvoy_agent_core::storage::Storage;
use pgconvoy_proto::model::object::Object;
use tonic::Status;

use super::{Home, failed};
use crate::sessions::{Purpose, Sessions};

/// The API takes up to 1000.
const AT_ONCE: usize = 100;

pub async fn remove(
    sessions: &Sessions,
    home: &Home,
    migration: &str,
    objects: &[Object],
) -> Result<(), Status> {
    let session = sessions.take(migration, Purpose::Load).await?;
    let storage = home.storage(&session).await?;
    remove_all(&session, storage, migration, objects).await?;
    sessions.give_back(migration, Purpose::Load, session);
    Ok(())
}

async fn remove_all(
    session: &Session,
    storage: &Storage,
    migration: &str,
    objects: &[Object],
) -> Result<(), Status> {
    let mut buckets: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for object in objects {
        buckets
            .entry(&object.bucket)
            .or_default()
            .push(&object.name);
    }
    for (bucket, names) in buckets {
        for names in names.chunks(AT_ONCE) {
            storage.remove(bucket, names).await.map_err(|error| {
                status::storage(
                    &format!("deleting {} files of {bucket}", names.len()),
                    error,
                )
            })?;
            session
                .execute(
                    "DELETE FROM pgconvoy.objects WHERE migration = $1 AND bucket = $2 AND name = ANY ($3)",
                    &[&migration, &bucket, &names],
                )
                .await
                .map_err(failed)?;
        }
    }
    Ok(())
}

/// Every file that the migration has put there, or another version of which: for `rollback`. FAILED_PRECONDITION when there are some and the API
/// cannot be asked, or is that of another database.
pub async fn to_withdraw(
    session: &Session,
    home: &Home,
    migration: &str,
) -> Result<Vec<Object>, Status> {
    let rows = session
        .query(
            "SELECT bucket, name FROM pgconvoy.objects WHERE migration = $1 AND state <> 'missing'",
            &[&migration],
        )
        .await
        .map_err(failed)?;
    let objects: Vec<Object> = rows
        .iter()
        .map(|row| Object::new(row.get::<_, &str>(0), row.get::<_, &str>(1)))
        .collect();
    if objects.is_empty() {
        return Ok(objects);
    }
    home.storage(session).await.map_err(|error| {
        Status::failed_precondition(format!(
            "the migration has uploaded {} files, which go through the target's Storage API: {}. Nothing was changed",
            objects.len(),
            error.message()
        ))
    })?;
    Ok(objects)
}

/// Before the rows go: the API finds files by them. Interrupted, the next call has those that are left.
pub async fn withdraw(
    session: &Session,
    home: &Home,
    migration: &str,
    objects: &[Object],
) -> Result<(), Status> {
    match objects {
        [] => Ok(()),
        objects => remove_all(session, home.storage(session).await?, migration, objects).await,
    }
}
