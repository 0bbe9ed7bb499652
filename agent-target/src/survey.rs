//! Where this agent may write: tried, not guessed. And what only a longer look at the target tells.
use std::path::Path;

use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::facts::collation_version;
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use pgconvoy_proto::survey::{TargetSurvey, Wal};
use tokio_postgres::Error;
use tonic::Status;

use crate::facts;

pub async fn gather(database: &Database, data_dir: &Path) -> Result<TargetSurvey, Status> {
    let session = database.connect("pgconvoy preflight").await?;
    let failed = |error| status::postgres("reading the target's catalogs", &error);
    let collation = collation_version(&session).await.map_err(failed)?;
    let wal = wal(&session).await.map_err(failed)?;
    // The file is gone when it is dropped.
    let tried = tempfile::NamedTempFile::new_in(data_dir);
    Ok(TargetSurvey {
        data_dir: data_dir.display().to_string(),
        data_dir_error: tried.err().map(|error| error.to_string()),
        data_dir_free: facts::free(data_dir),
        collation,
        wal,
    })
}

async fn wal(session: &Session) -> Result<Wal, Error> {
    // PostgreSQL 17 has moved the counter (release notes of 17, pg_stat_checkpointer).
    let requested = if session.server_version() < 170_000 {
        "checkpoints_req FROM pg_stat_bgwriter"
    } else {
        "num_requested FROM pg_stat_checkpointer"
    };
    let row = session
        .query_one(
            &format!(
                "SELECT CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') END::int8,
                        (SELECT {requested})::int8, pg_size_bytes(current_setting('max_wal_size'))"
            ),
            &[],
        )
        .await?;
    let number = |at: usize| row.get::<_, i64>(at) as u64;
    Ok(Wal {
        written: number(0),
        requested_checkpoints: number(1),
        limit: number(2),
    })
}
