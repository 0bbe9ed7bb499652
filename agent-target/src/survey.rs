//! Where this agent may write: tried, not guessed.
use std::path::Path;

use pgconvoy_proto::survey::TargetSurvey;

use crate::facts;

pub fn gather(data_dir: &Path) -> TargetSurvey {
    // The file is gone when it is dropped.
    let tried = tempfile::NamedTempFile::new_in(data_dir);
    TargetSurvey {
        data_dir: data_dir.display().to_string(),
        data_dir_error: tried.err().map(|error| error.to_string()),
        data_dir_free: facts::free(data_dir),
    }
}
