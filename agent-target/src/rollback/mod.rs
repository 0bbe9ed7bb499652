//! Takes a migration back: what it made is dropped, what it changed of what was there is changed back, and then the target is read again
//! and compared with what the ledger says of it before the migration.
//!
//! Invariant 7 (nothing destroyed unasked): dropped is what is new since the plan was written and is of the plan; what else is new is
//! named, and nothing is changed, unless it is said to go too. What was there before is there after every transaction.
//!
//! It may be killed and run again at any time: what is left to do is looked up in the catalog. From its first change on the ledger's
//! phase says so; the ledger goes last, when the comparison finds nothing.
mod compare;
mod made;
mod undo;

use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Finding, ROLLING_BACK, Severity, Step, Table, Work};
use tonic::Status;

use crate::archive::Store;
use crate::before::Before;
use crate::sessions::{Purpose, Sessions};
use crate::steps::Migration;
use crate::{clean, large_objects, ledger};

/// For people.
#[derive(Debug, Default)]
pub struct RolledBack {
    pub removed: Vec<String>,
    pub kept: Vec<String>,
    /// What is not as it was.
    pub findings: Vec<Finding>,
}

/// What the ledger says of a migration that is to be taken back.
struct Undone {
    migration: Migration,
    before: Before,
    tables: Vec<Table>,
    steps: Vec<Step>,
}

/// The caller drives the migration: nothing else of it is at work. `force`: what others have made since goes too.
pub async fn roll_back(
    sessions: &Sessions,
    store: &Store,
    migration: &str,
    force: bool,
) -> Result<RolledBack, Status> {
    let session = sessions.take(migration, Purpose::Plain).await?;
    let undone = Undone::read(&session, migration).await?;
    let new = made::New::read(&session, store, &undone).await?;
    new.refuse_strangers(force)?;
    begin(&session, migration).await?;

    let failed = |error: tokio_postgres::Error| status::postgres("rolling back", &error);
    let mut removed = new.drop(&session, &undone.before).await?;
    undo::rows(&session, &undone).await?;
    large_objects::unlink(&session, migration)
        .await
        .map_err(failed)?;
    undo::rest(&session, &undone).await?;
    let roles = undo::roles(&session, migration).await.map_err(failed)?;
    removed.extend(roles);

    let mut done = RolledBack {
        findings: compare::with_before(&session, &undone)
            .await
            .map_err(failed)?,
        ..RolledBack::default()
    };
    let differs = |finding: &Finding| finding.severity == Severity::Difference;
    if !done.findings.iter().any(differs) {
        sessions.give_back(migration, Purpose::Plain, session);
        sessions.close_idle(migration);
        // Its commit waits for the disk, and so is everything before it.
        let lasting = sessions.database.connect("pgconvoy rollback").await?;
        let cleaned = clean::clean(&lasting, store, migration).await?;
        removed.extend(cleaned.removed);
        done.kept = cleaned.kept;
    }
    done.removed = removed;
    Ok(done)
}

impl Undone {
    async fn read(session: &Session, id: &str) -> Result<Self, Status> {
        let migration = Migration::read(session, id).await?;
        let before = session
            .query_opt(
                "SELECT target FROM pgconvoy.before WHERE migration = $1",
                &[&id],
            )
            .await
            .map_err(ledger::failed)?
            .ok_or_else(|| {
                Status::failed_precondition(format!(
                    "the ledger does not say what the target was before migration {id}"
                ))
            })?;
        let tables = session
            .query(
                "SELECT plan FROM pgconvoy.tables WHERE migration = $1",
                &[&id],
            )
            .await
            .map_err(ledger::failed)?;
        let steps = session
            .query(
                "SELECT number FROM pgconvoy.steps WHERE migration = $1",
                &[&id],
            )
            .await
            .map_err(ledger::failed)?;
        let numbers: Vec<u32> = steps.iter().map(|r| r.get::<_, i32>(0) as u32).collect();
        let tables: Result<_, _> = tables
            .iter()
            .map(|row| ledger::from_json(row.get(0)))
            .collect();
        Ok(Self {
            before: ledger::from_json(before.get(0))?,
            tables: tables?,
            steps: ledger::steps(session, id, &numbers).await?,
            migration,
        })
    }

    fn works(&self) -> impl Iterator<Item = &Work> {
        self.steps.iter().map(|step| &step.work)
    }
}

/// From here on the migration can be rolled back only. Parts that are still on their way are refused: no snapshot is expected.
async fn begin(session: &Session, migration: &str) -> Result<(), Status> {
    let begin = async {
        session
            .batch_execute("BEGIN; SET LOCAL synchronous_commit TO DEFAULT")
            .await?;
        session
            .execute(
                "UPDATE pgconvoy.migrations SET phase = $2, verdict = NULL, finished_at = NULL, sync = NULL WHERE id = $1",
                &[&migration, &ROLLING_BACK],
            )
            .await?;
        session
            .execute(
                "UPDATE pgconvoy.tables SET snapshot = NULL WHERE migration = $1",
                &[&migration],
            )
            .await?;
        session.batch_execute("COMMIT").await
    };
    begin.await.map_err(ledger::failed)
}
