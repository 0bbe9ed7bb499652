//! Sessions with the target database, kept for reuse by application name.
//!
//! Their commits do not wait for the disk. A crash of the server then loses the newest ones, in the order of the log: a part's rows with
//! its ledger entry, an index with the step that says so; `resume` finds what is there, as after any kill. What must last waits:
//! [`crate::ledger::write::record`], with which the coordinator begins a phase and ends the migration.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::wal_writer::Wakers;
use crate::{rehearsal, tuning};

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// DDL, the ledger, look-ups.
    Plain,
    /// Loading rows, and DDL after post-data: triggers, event triggers and foreign keys do not fire, where the role may ask for that.
    Load,
}

#[derive(Clone)]
pub struct Sessions {
    /// The target itself, which no rehearsal touches.
    pub live: Database,
    /// Settings of every session.
    tuning: Arc<str>,
    idle: Arc<Mutex<Idle>>,
    pub wakers: Wakers,
}

/// How long a session is kept for who may need one next.
const KEPT: Duration = Duration::from_secs(60);

/// By migration and purpose, with when each was given back.
type Idle = HashMap<(String, Purpose), Vec<(Instant, Session)>>;

/// How this migration's backends are called in pg_stat_activity.
pub fn application_name(migration: &str) -> String {
    format!("pgconvoy {migration}")
}

impl Sessions {
    pub fn new(database: Database) -> Self {
        Self {
            tuning: tuning::settings(&database).into(),
            live: database,
            idle: Arc::default(),
            wakers: Arc::default(),
        }
    }

    /// The target; of a rehearsal its scratch database.
    pub fn database(&self, migration: &str) -> Database {
        match rehearsal::database_of(migration) {
            Some(scratch) => self.live.with_database(&scratch),
            None => self.live.clone(),
        }
    }

    /// An idle session for the migration, or a new one. Give it back after its last statement went well; dropped,
    /// it is closed and what it was doing is undone.
    pub async fn take(&self, migration: &str, purpose: Purpose) -> Result<Session, Status> {
        let key = (migration.to_owned(), purpose);
        let pop = || self.lock().get_mut(&key).and_then(Vec::pop);
        while let Some((_, session)) = pop() {
            if !session.is_closed() {
                return Ok(session);
            }
        }
        let database = self.database(migration);
        database.refuse_pooler()?;
        let session = database.connect(&application_name(migration)).await?;
        session
            .batch_execute(&self.tuning)
            .await
            .map_err(|error| status::postgres("preparing a session", &error))?;
        if purpose == Purpose::Load {
            match session
                .batch_execute("SET session_replication_role = replica")
                .await
            {
                Ok(()) => {}
                Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                    tracing::debug!("the role may not set session_replication_role");
                }
                Err(error) => return Err(status::postgres("preparing a session", &error)),
            }
        }
        Ok(session)
    }

    pub fn give_back(&self, migration: &str, purpose: Purpose, session: Session) {
        self.lock()
            .entry((migration.to_owned(), purpose))
            .or_default()
            .push((Instant::now(), session));
    }

    /// Closes the idle sessions of a migration.
    pub fn close_idle(&self, migration: &str) {
        self.lock().retain(|(name, _), _| name != migration);
    }

    /// Closes sessions that nobody has needed for a while: of a verification that is over, of parts that came after their driver had left.
    pub async fn close_unused(self, every: Duration, stop: CancellationToken) {
        let mut tick = tokio::time::interval(every);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            self.lock().retain(|_, idle| {
                idle.retain(|(since, _)| since.elapsed() < KEPT);
                !idle.is_empty()
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
