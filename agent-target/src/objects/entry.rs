//! What the ledger has of files.
use pgconvoy_agent_core::session::Session;
use pgconvoy_proto::model::object::{FileDigest, Object, ObjectState};
use tokio_postgres::types::Type;
use tonic::Status;

use super::failed;

/// A file that was dealt with.
pub struct Done<'a> {
    pub migration: &'a str,
    pub object: &'a Object,
    pub mark: &'a str,
    pub state: ObjectState,
    pub file: Option<FileDigest>,
    /// Of the target's row.
    pub version: Option<String>,
    pub wire_bytes: u64,
    /// When its first byte came.
    pub seconds: f64,
}

impl Done<'_> {
    /// In place of what there was: what was read back before was another file.
    pub async fn enter(&self, session: &Session) -> Result<(), Status> {
        session
            .execute_typed(
                "INSERT INTO pgconvoy.objects (migration, bucket, name, mark, state, bytes, digest, version, wire_bytes, started_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, clock_timestamp() - make_interval(secs => $10))
                 ON CONFLICT (migration, bucket, name) DO UPDATE SET mark = excluded.mark, state = excluded.state,
                     bytes = excluded.bytes, digest = excluded.digest, version = excluded.version,
                     wire_bytes = excluded.wire_bytes, started_at = excluded.started_at, done_at = excluded.done_at,
                     target_bytes = NULL, target_digest = NULL, verified_at = NULL",
                &[
                    (&self.migration, Type::TEXT),
                    (&self.object.bucket, Type::TEXT),
                    (&self.object.name, Type::TEXT),
                    (&self.mark, Type::TEXT),
                    (&self.state.as_str(), Type::TEXT),
                    (&self.file.map(|file| file.bytes as i64), Type::INT8),
                    (&self.file.map(|file| file.hex()), Type::TEXT),
                    (&self.version, Type::TEXT),
                    (&(self.wire_bytes as i64), Type::INT8),
                    (&self.seconds, Type::FLOAT8),
                ],
            )
            .await
            .map_err(failed)?;
        Ok(())
    }
}

/// What was read back; None: the API has no such file.
pub async fn keep_read(
    session: &Session,
    migration: &str,
    object: &Object,
    read: Option<FileDigest>,
) -> Result<(), Status> {
    session
        .execute_typed(
            "UPDATE pgconvoy.objects SET target_bytes = $4, target_digest = $5, verified_at = clock_timestamp()
             WHERE migration = $1 AND bucket = $2 AND name = $3",
            &[
                (&migration, Type::TEXT),
                (&object.bucket, Type::TEXT),
                (&object.name, Type::TEXT),
                (&read.map(|file| file.bytes as i64), Type::INT8),
                (&read.map(|file| file.hex()), Type::TEXT),
            ],
        )
        .await
        .map_err(failed)?;
    Ok(())
}
