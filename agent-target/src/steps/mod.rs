//! Steps: everything done at the target besides loading rows. One file per kind of work.
//!
//! A step may be run again at any time: what is there already is looked up in the catalog, which is the only truth for
//! DDL; the state in the ledger is for people and for planning. What could not be kept is a finding; an error means the step
//! is not done.
mod access;
mod archive;
mod database;
mod default_privileges;
pub mod foreign_key;
mod key;
mod large_objects;
pub mod managed;
mod memberships;
mod rest;
mod roles;
mod setting;
mod system_grants;

pub use access::{Among, apply as apply_access};
pub use database::label_of;
pub use rest::set_sequences;
pub use system_grants::apply as apply_system_grants;

use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Entry, Finding, IndexOn, Options, Severity, Step, Work};
use tonic::Status;

use crate::archive::Store;
use crate::ledger;
use crate::sessions::{Purpose, Sessions};
use crate::tuning;

#[derive(Clone)]
pub struct Runner {
    pub sessions: Sessions,
    pub store: Store,
}

/// A migration, as far as its steps need to know it.
pub struct Migration {
    pub id: String,
    pub options: Options,
    pub skipped: Vec<Entry>,
    pub source_version: u32,
}

impl Migration {
    pub async fn read(session: &Session, id: &str) -> Result<Self, Status> {
        let row = session
            .query_opt(
                "SELECT options, skipped, source_version FROM pgconvoy.migrations WHERE id = $1",
                &[&id],
            )
            .await
            .map_err(ledger::failed)?
            .ok_or_else(|| Status::not_found(format!("there is no migration {id}")))?;
        Ok(Self {
            id: id.to_owned(),
            options: ledger::from_json(row.get(0))?,
            skipped: ledger::from_json(row.get(1))?,
            source_version: row.get::<_, i32>(2) as u32,
        })
    }
}

/// Runs statements of a transaction in a savepoint: none when it went well, else what PostgreSQL said who refuses them. An error where that
/// was no refusal: they are to be run again.
pub async fn attempt(
    session: &Session,
    statement: &str,
) -> Result<Option<String>, tokio_postgres::Error> {
    let guarded = format!("SAVEPOINT attempt; {statement}; RELEASE SAVEPOINT attempt");
    match session.batch_execute(&guarded).await {
        Ok(()) => Ok(None),
        Err(error) => match error.as_db_error().map(|db| db.message().to_owned()) {
            // Rolling back to the savepoint also resets the role.
            Some(reason) if status::is_refusal(&error) && !session.is_closed() => {
                session
                    .batch_execute("ROLLBACK TO SAVEPOINT attempt")
                    .await?;
                Ok(Some(reason))
            }
            _ => Err(error),
        },
    }
}

/// Nothing of the transaction's statements goes into the server's log or pg_stat_statements any more: some hold a secret. Only a
/// superuser may say so.
const UNLOGGED: &str = "SET LOCAL log_statement = 'none';
    SET LOCAL log_min_duration_statement = -1;
    SET LOCAL log_min_duration_sample = -1;
    SET LOCAL log_min_error_statement = 'panic';
    SELECT pg_catalog.set_config('pg_stat_statements.track_utility', 'off', true)
    WHERE pg_catalog.current_setting('pg_stat_statements.track_utility', true) IS NOT NULL;";

async fn hush(session: &Session) -> Result<(), tokio_postgres::Error> {
    let superuser = session
        .query_one("SELECT current_setting('is_superuser') = 'on'", &[])
        .await?;
    if superuser.get(0) {
        session.batch_execute(UNLOGGED).await?;
    }
    Ok(())
}

/// What PostgreSQL refused, as a finding: the rest goes on. Errors when it was not a refusal: the connection or the disk.
fn refusal(
    severity: Severity,
    code: &str,
    object: String,
    error: &tokio_postgres::Error,
) -> Result<Finding, Status> {
    if !status::is_refusal(error) {
        return Err(status::postgres(&object, error));
    }
    Ok(
        Finding::new(severity, code, object, status::postgres_text(error))
            .hint("the message is PostgreSQL's own: make it by hand at the target"),
    )
}

/// What follows post-data runs where the source's event triggers are there already: they are not to fire on what the migration does.
fn purpose(steps: &[Step]) -> Purpose {
    let follows = |step: &Step| {
        matches!(
            step.work,
            Work::Access { late: true, .. }
                | Work::LargeObjects { .. }
                | Work::Refresh { .. }
                | Work::Index {
                    on: IndexOn::MaterializedView,
                    ..
                }
        )
    };
    if steps.iter().any(follows) {
        Purpose::Load
    } else {
        Purpose::Plain
    }
}

impl Runner {
    /// Runs steps in order and records how they ended.
    pub async fn run(&self, id: &str, numbers: &[u32]) -> Result<Vec<Finding>, Status> {
        let session = self.sessions.take(id, Purpose::Plain).await?;
        let migration = Migration::read(&session, id).await?;
        let steps = ledger::steps(&session, id, numbers).await?;
        ledger::write::step_state(&session, id, numbers, "running", None).await?;
        let purpose = purpose(&steps);
        let session = if purpose == Purpose::Plain {
            session
        } else {
            self.sessions.give_back(id, Purpose::Plain, session);
            self.sessions.take(id, purpose).await?
        };
        let outcome = self.work(&session, &migration, &steps).await;
        let (state, error) = match &outcome {
            Ok(_) => ("done", None),
            Err(status) => ("failed", Some(status.message())),
        };
        // A step that failed leaves its session in an unknown state: it is closed, and what it began undone.
        let recorder = match &outcome {
            Ok(_) => session,
            Err(_) => {
                drop(session);
                match self.sessions.take(id, purpose).await {
                    Ok(session) => session,
                    // The server is gone: why the step failed says more, and its state is looked up anyway.
                    Err(unreached) => {
                        tracing::warn!(error = %unreached, "how a step ended could not be recorded");
                        return outcome;
                    }
                }
            }
        };
        if let Ok(findings) = &outcome {
            ledger::write::findings(&recorder, id, findings).await?;
        }
        ledger::write::step_state(&recorder, id, numbers, state, error).await?;
        self.sessions.give_back(id, purpose, recorder);
        outcome
    }

    /// Steps of a kind that belong together are done together: indexes in one pg_restore, grants with one look at the catalog.
    async fn work(
        &self,
        session: &Session,
        migration: &Migration,
        steps: &[Step],
    ) -> Result<Vec<Finding>, Status> {
        let mut findings = Vec::new();
        for alike in steps.chunk_by(|a, b| a.work.kind() == b.work.kind()) {
            let works: Vec<&Work> = alike.iter().map(|step| &step.work).collect();
            findings.extend(self.alike(session, migration, &works).await?);
        }
        Ok(findings)
    }

    async fn alike(
        &self,
        session: &Session,
        migration: &Migration,
        works: &[&Work],
    ) -> Result<Vec<Finding>, Status> {
        let mut findings = Vec::new();
        match works[0] {
            Work::PreData => return self.pre_data(session, migration).await,
            Work::AttachIndexes => return self.attach_indexes(session, migration).await,
            Work::PostData { made } => return self.post_data(session, migration, made).await,
            Work::Index { .. } => return self.indexes(session, migration, works).await,
            Work::Access { .. } => {
                let objects = works.iter().flat_map(|work| match work {
                    Work::Access { objects, .. } => objects.as_slice(),
                    _ => &[],
                });
                let objects: Vec<_> = objects.collect();
                let (among, source) = (access::Among::Objects, migration.source_version);
                return access::apply(session, source, among, &objects).await;
            }
            _ => {}
        }
        for work in works {
            match work {
                Work::KeyIndex {
                    schema,
                    name,
                    create,
                    ..
                } => {
                    let tuned = tuning::beside_a_digest(&self.sessions.live) + create;
                    key::build_index(session, schema, name, &tuned).await?;
                }
                Work::ForeignKey(key) => findings.extend(foreign_key::build(session, key).await?),
                Work::DropNotNull { columns } => {
                    findings.extend(rest::drop_not_null(session, columns).await?);
                }
                Work::SystemGrants { changes } => {
                    findings.extend(system_grants::apply(session, changes).await?);
                }
                Work::DefaultPrivileges { wanted, gone } => {
                    let source = migration.source_version;
                    findings
                        .extend(default_privileges::apply(session, source, wanted, gone).await?);
                }
                Work::Refresh { views } => findings.extend(rest::refresh(session, views).await?),
                Work::LargeObjects { access, notes } => {
                    let source = migration.source_version;
                    findings.extend(large_objects::own(session, source, access).await?);
                    findings.extend(large_objects::note(session, notes).await?);
                }
                Work::Vacate { tables } => managed::vacate(session, migration, tables).await?,
                Work::ManagedKeys => findings.extend(managed::orphans(session, migration).await?),
                Work::Derive(derived) => {
                    findings.extend(managed::derive(session, migration, derived).await?);
                }
                Work::Sequences { values } => {
                    findings.extend(rest::set_sequences(session, values).await?);
                }
                Work::Roles(roles) => {
                    let making = roles::Making {
                        session,
                        database: &self.sessions.database(&migration.id),
                        migration: &migration.id,
                        secrets: &self.store.secrets(&migration.id)?,
                    };
                    findings.extend(roles::make(&making, roles).await?);
                }
                Work::Database(properties) => {
                    let database = &self.sessions.database(&migration.id);
                    let secrets = self.store.secrets(&migration.id)?;
                    let applied = database::apply(session, database, properties, &secrets).await?;
                    findings.extend(applied);
                    self.store.forget_secrets(&migration.id)?;
                }
                Work::Statistics {
                    schema,
                    name,
                    partitioned,
                } => {
                    findings.extend(rest::statistics(session, schema, name, *partitioned).await?);
                }
                _ => unreachable!("done together, above"),
            }
        }
        Ok(findings)
    }
}
