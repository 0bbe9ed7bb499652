//! Takes a migration back: what it made is dropped, what it changed of what was there is changed back, and then the target is read again
//! and compared with what the ledger says of it before the migration. Where the migration has replaced what was there (`--force`), or where it
//! is asked for, everything goes and a backup is restored.
//!
//! Invariant 7 (nothing destroyed unasked): dropped is what is new since the plan was written and is of the plan; what else is new is
//! named, and nothing is changed, unless it is said to go too. What was there before is there after every transaction.
//!
//! It may be killed and run again at any time: what is left to do is looked up in the catalog. From its first change on the ledger's
//! phase says so; the ledger goes last, when the comparison finds nothing.
mod added;
mod compare;
mod made;
mod undo;

pub use made::staying_schemas;

use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Finding, ROLLING_BACK, Severity, Step, Table, Tenancy, Work};
use tonic::Status;

use crate::archive::Store;
use crate::backup::{self, Backup, Vault};
use crate::before::Before;
use crate::objects::Home;
use crate::sessions::{Purpose, Sessions};
use crate::steps::Migration;
use crate::{clean, large_objects, ledger, objects, rights};

/// For people.
#[derive(Debug, Default)]
pub struct RolledBack {
    pub removed: Vec<String>,
    pub kept: Vec<String>,
    /// What is not as it was.
    pub findings: Vec<Finding>,
}

/// What is to be taken back, and what the target is to be after that.
struct Undone {
    /// None: a backup is restored where there is no ledger.
    migration: Option<Migration>,
    before: Before,
    tables: Vec<Table>,
    steps: Vec<Step>,
}

/// What it works with.
pub struct Means<'a> {
    pub sessions: &'a Sessions,
    pub store: &'a Store,
    pub vault: &'a Vault,
    pub home: &'a Home,
}

/// What is asked for.
pub struct Asked {
    /// Empty: there is no ledger, a backup is restored.
    pub migration: String,
    /// What others have made since goes too.
    pub force: bool,
    /// Empty: the one that the migration needs, if it needs one.
    pub backup: String,
}

/// The caller drives the migration: nothing else of it is at work.
pub async fn roll_back(means: &Means<'_>, asked: &Asked) -> Result<RolledBack, Status> {
    let session = means
        .sessions
        .take(&asked.migration, Purpose::Plain)
        .await?;
    let mut undone = match asked.migration.as_str() {
        "" => None,
        id => Some(Undone::read(&session, id).await?),
    };
    let backup = match (asked.backup.as_str(), &undone) {
        ("", Some((undone, of_plan))) if undone.replaces() => Some(of_plan.clone().ok_or_else(|| {
            Status::failed_precondition(
                "the migration has replaced what was there without a backup (--no-backup): it cannot be brought back. Nothing was changed",
            )
        })?),
        ("", Some(_)) => None,
        ("", None) => return Err(Status::invalid_argument("neither a migration nor a backup")),
        (id, _) => Some(id.to_owned()),
    };
    let backup = match backup {
        None => None,
        Some(id) => Some(means.vault.open(&id, session.server_version()).await?),
    };
    let undone = match (undone.take(), &backup) {
        (Some((undone, _)), None) => undone,
        (undone, Some(backup)) => Undone::to_backup(undone.map(|(undone, _)| undone), backup),
        (None, None) => return Err(Status::internal("nothing is asked for")),
    };
    let mut removed = match &backup {
        None => back_step_by_step(&session, means, &undone, asked).await?,
        Some(backup) => back_to_backup(&session, means, &undone, asked, backup).await?,
    };
    let failed = |error: tokio_postgres::Error| status::postgres("rolling back", &error);
    undo::rest(&session, &undone).await?;
    if undone.migration.is_some() {
        let roles = undo::roles(&session, &asked.migration).await;
        removed.extend(roles.map_err(failed)?);
    }
    let mut findings = compare::with_before(&session, &undone).await?;
    if let Some(backup) = &backup {
        findings.extend(backup::rows_differ(&means.sessions.live, backup).await?);
    }
    let mut done = RolledBack {
        findings,
        removed,
        kept: Vec::new(),
    };
    let differs = |finding: &Finding| finding.severity == Severity::Difference;
    if undone.migration.is_some() && !done.findings.iter().any(differs) {
        drop(session);
        means.sessions.close_idle(&asked.migration);
        // Its commit waits for the disk, and so is everything before it.
        let lasting = means.sessions.live.connect("pgconvoy rollback").await?;
        let cleaned = clean::clean(&lasting, means.sessions, means.store, &asked.migration).await?;
        done.removed.extend(cleaned.removed);
        done.kept = cleaned.kept;
    }
    Ok(done)
}

/// Drops what was there when the plan was written, for a migration that replaces it. Made since is what has other OIDs: it stays.
pub async fn clear(means: &Means<'_>, migration: &str) -> Result<Vec<String>, Status> {
    let failed = |error: tokio_postgres::Error| status::postgres("clearing the target", &error);
    let session = means.sessions.take(migration, Purpose::Plain).await?;
    let (undone, _) = Undone::read(&session, migration).await?;
    if !undone.replaces() {
        return Err(Status::failed_precondition(format!(
            "migration {migration} does not replace what was there"
        )));
    }
    let begun = session
        .query_one(
            "SELECT archive_at IS NOT NULL FROM pgconvoy.migrations WHERE id = $1",
            &[&migration],
        )
        .await
        .map_err(ledger::failed)?;
    // Nothing of the migration is there before its archive is: after that there is nothing left to clear.
    let removed = if begun.get(0) {
        Vec::new()
    } else {
        added::clear(&session, &undone).await.map_err(failed)?;
        let old = made::New::old(&session, &undone).await?;
        let removed = old.clear(&session).await?;
        if undone.tenancy().is_none() {
            undo::default_privileges(&session, &[])
                .await
                .map_err(failed)?;
        }
        removed
    };
    means.sessions.give_back(migration, Purpose::Plain, session);
    Ok(removed)
}

/// What is new goes, what was there stays.
async fn back_step_by_step(
    session: &Session,
    means: &Means<'_>,
    undone: &Undone,
    asked: &Asked,
) -> Result<Vec<String>, Status> {
    let new = made::New::read(session, means.store, undone).await?;
    new.refuse_strangers(asked.force)?;
    let files = objects::to_withdraw(session, means.home, &asked.migration).await?;
    begin(session, &asked.migration).await?;
    objects::withdraw(session, means.home, &asked.migration, &files).await?;
    let mut removed = new.drop(session, &undone.before).await?;
    if !files.is_empty() {
        removed.push(format!("{} files of storage buckets", files.len()));
    }
    undo::rows(session, undone).await?;
    large_objects::unlink(session, &asked.migration)
        .await
        .map_err(|error| status::postgres("unlinking large objects", &error))?;
    Ok(removed)
}

/// All that is there goes, and what the backup has comes.
async fn back_to_backup(
    session: &Session,
    means: &Means<'_>,
    undone: &Undone,
    asked: &Asked,
    backup: &Backup,
) -> Result<Vec<String>, Status> {
    let database = &means.sessions.live;
    let of = &backup.manifest.database;
    if of != database.name() && !asked.force {
        return Err(Status::failed_precondition(format!(
            "the backup is of database {of}, this is {}: rollback --force restores it all the same. Nothing was changed",
            database.name()
        )));
    }
    let all = made::New::everything(session, undone).await?;
    all.refuse_strangers(asked.force)?;
    rights::refuse_others(session).await?;
    if undone.migration.is_some() {
        let files = objects::to_withdraw(session, means.home, &asked.migration).await?;
        begin(session, &asked.migration).await?;
        objects::withdraw(session, means.home, &asked.migration, &files).await?;
    }
    let removed = all.clear(session).await?;
    undo::default_privileges(session, &[])
        .await
        .map_err(|error| status::postgres("clearing the target", &error))?;
    backup::restore(session, database, &asked.migration, backup).await?;
    Ok(removed)
}

impl Undone {
    /// And the id of the backup that was made for the migration.
    async fn read(session: &Session, id: &str) -> Result<(Self, Option<String>), Status> {
        let migration = Migration::read(session, id).await?;
        let before = session
            .query_opt(
                "SELECT target, backup FROM pgconvoy.before WHERE migration = $1",
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
        let undone = Self {
            before: ledger::from_json(before.get(0))?,
            tables: tables?,
            steps: ledger::steps(session, id, &numbers).await?,
            migration: Some(migration),
        };
        Ok((undone, before.get(1)))
    }

    /// What was planned may be there; what is to be there is what the backup says.
    fn to_backup(planned: Option<Self>, backup: &Backup) -> Self {
        let (migration, steps) = match planned {
            Some(planned) => (planned.migration, planned.steps),
            None => (None, Vec::new()),
        };
        Self {
            migration,
            before: backup.manifest.before.clone(),
            tables: Vec::new(),
            steps,
        }
    }

    fn replaces(&self) -> bool {
        self.migration
            .as_ref()
            .is_some_and(|migration| migration.options.replace)
    }

    fn tenancy(&self) -> Option<&Tenancy> {
        self.migration.as_ref()?.options.tenancy.as_deref()
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
