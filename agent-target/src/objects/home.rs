//! The Storage API of this end, which must be that of the target database before a file is uploaded or deleted: that of another project would take, and
//! lose, files just as well.
//!
//! Buckets may be alike at both ends of a migration, so that comparing them tells nothing. A bucket of a name that nobody else has is made in
//! the database for a moment: the API that lists it reads this database.
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use pgconvoy_agent_core::storage::{Access, Storage};
use tokio::sync::OnceCell;
use tokio_postgres::Error;
use tonic::Status;

use super::failed;
use crate::landing;

/// What the API's buckets are called that are looked for. Those that an agent left that died meanwhile go with the next.
const PREFIX: &str = "pgconvoy-probe-";
const BUCKETS: &str = "storage.buckets";

pub struct Home {
    access: Access,
    found: OnceCell<()>,
}

impl Home {
    pub fn new(access: Access) -> Self {
        Self {
            access,
            found: OnceCell::new(),
        }
    }

    /// What the agent was started with, for whoever reads only.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// For whoever changes something there. FAILED_PRECONDITION: it is that of another database, or there is none.
    pub async fn storage(&self, session: &Session) -> Result<&Storage, Status> {
        let storage = self.access.ready()?;
        self.found
            .get_or_try_init(|| find(session, storage))
            .await?;
        Ok(storage)
    }
}

async fn find(session: &Session, storage: &Storage) -> Result<(), Status> {
    let probe = make(session).await.map_err(failed)?;
    let listed = storage.buckets().await;
    remove(session).await.map_err(failed)?;
    let place = storage.place();
    let listed = listed
        .map_err(|error| status::storage(&format!("asking {place} for its buckets"), error))?;
    match listed.iter().any(|bucket| bucket.id == probe) {
        true => Ok(()),
        false => Err(Status::failed_precondition(format!(
            "{place} is not the Storage API of the target database: it does not list a bucket that was made there a moment ago. No file was \
             uploaded or deleted. Start the target agent with the --supabase-url and the key of the project whose database it is connected \
             to, and run the command again"
        ))),
    }
}

/// The bucket's name.
async fn make(session: &Session) -> Result<String, Error> {
    remove(session).await?;
    session.batch_execute("BEGIN").await?;
    let loud = landing::silence_triggers(session, BUCKETS).await?;
    let insert = "INSERT INTO storage.buckets (id, name) SELECT p, p FROM concat($1::text, gen_random_uuid()) p RETURNING id::text";
    let row = session.query_one(insert, &[&PREFIX]).await?;
    session.batch_execute(&format!("{loud} COMMIT")).await?;
    Ok(row.get(0))
}

/// All that there are.
async fn remove(session: &Session) -> Result<(), Error> {
    session.batch_execute("BEGIN").await?;
    let loud = landing::silence_triggers(session, BUCKETS).await?;
    let delete = "DELETE FROM storage.buckets WHERE starts_with(id, $1)";
    session.execute(delete, &[&PREFIX]).await?;
    session.batch_execute(&format!("{loud} COMMIT")).await
}
