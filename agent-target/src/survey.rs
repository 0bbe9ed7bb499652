//! Where this agent may write: tried, not guessed. And what only a longer look at the target tells.
use std::path::Path;

use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::facts::collation_version;
use pgconvoy_agent_core::status;
use pgconvoy_proto::survey::TargetSurvey;
use tonic::Status;

use crate::facts;

pub async fn gather(database: &Database, data_dir: &Path) -> Result<TargetSurvey, Status> {
    let session = database.connect("pgconvoy preflight").await?;
    let collation = collation_version(&session)
        .await
        .map_err(|error| status::postgres("reading the target's catalogs", &error))?;
    // The file is gone when it is dropped.
    let tried = tempfile::NamedTempFile::new_in(data_dir);
    Ok(TargetSurvey {
        data_dir: data_dir.display().to_string(),
        data_dir_error: tried.err().map(|error| error.to_string()),
        data_dir_free: facts::free(data_dir),
        collation,
    })
}
