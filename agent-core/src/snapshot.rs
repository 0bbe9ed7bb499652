//! One exported snapshot, and sessions that read under it.
//!
//! The holder's transaction takes ACCESS SHARE on every table before its first query, exports its snapshot, lists the tables
//! again under it, and keeps the locks until the snapshot is closed. Without them a TRUNCATE or VACUUM FULL
//! between two reads loses rows, and the digest of what was read agrees with the loss.
//!
//! A reader's own lock request would queue behind such a waiting TRUNCATE, which waits for the holder, which waits for the
//! reader: a deadlock that PostgreSQL cannot see. Readers therefore ask with NOWAIT, and where somebody queues they give
//! way to the holder's own session, which has the lock already.
//!
//! Large objects need no lock, and a role that is no superuser could not take one: nothing truncates pg_largeobject, and they are
//! found by OID, not by ctid.
use std::collections::HashSet;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use pgconvoy_proto::model::{Oid, Relation, Table};
use pgconvoy_proto::selection::{Filter, Unread};
use tokio::sync::OwnedMutexGuard;
use tokio_postgres::error::SqlState;

use crate::database::{self, Database};
use crate::inventory::{large_objects, tables};
use crate::session::{Session, qualified};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Database(#[from] database::Error),
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    #[error("the snapshot is gone: the session that held it ended")]
    Lost,
    #[error("tables come and go too fast to open a snapshot: {0} attempts")]
    Unstable(usize),
}

/// Which tables are locked and read.
pub enum Scope {
    /// What is selected; but for what is not read.
    Selected(Filter, Unread),
    /// These, by name: for one table at the target.
    Named(Vec<Table>),
}

pub struct Snapshot {
    /// Never given twice: PostgreSQL's own identifiers begin again when the server restarts.
    pub id: String,
    /// pg_export_snapshot()
    pub exported: String,
    /// The tables of the scope as the snapshot sees them, described.
    pub tables: Vec<Table>,
    database: Database,
    application: String,
    holder: Arc<tokio::sync::Mutex<Session>>,
    idle: Mutex<Vec<Session>>,
}

/// A session that reads under the snapshot. Give it back when its last statement is through; dropped, it is closed.
pub enum Reader {
    Own(Session),
    Holder(OwnedMutexGuard<Session>),
}

impl Deref for Reader {
    type Target = Session;

    fn deref(&self) -> &Session {
        match self {
            Self::Own(session) => session,
            Self::Holder(session) => session,
        }
    }
}

const ATTEMPTS: usize = 10;
const LOCKS_PER_STATEMENT: usize = 500;

impl Snapshot {
    pub async fn open(
        database: &Database,
        application: &str,
        scope: &Scope,
    ) -> Result<Self, Error> {
        database.refuse_pooler()?;
        let holder = database.connect(application).await?;
        for _ in 0..ATTEMPTS {
            if let Some((exported, tables)) = attempt(&holder, scope).await? {
                let now = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                return Ok(Self {
                    id: format!("{exported}/{:x}", now.as_nanos()),
                    exported,
                    tables,
                    database: database.clone(),
                    application: application.to_owned(),
                    holder: Arc::new(tokio::sync::Mutex::new(holder)),
                    idle: Mutex::new(Vec::new()),
                });
            }
            holder.batch_execute("ROLLBACK").await?;
        }
        Err(Error::Unstable(ATTEMPTS))
    }

    /// A session of its own in a transaction under the snapshot, for a query of somebody else's: it ends with that, and the query with its
    /// time limit, whoever holds what it waits for.
    pub async fn unlocked(&self) -> Result<Session, Error> {
        if self.is_lost() {
            return Err(Error::Lost);
        }
        let session = self.database.connect(&self.application).await?;
        self.join(&session, "").await?;
        Ok(session)
    }

    /// A session for one statement on the table, which it has locked.
    pub async fn reader(&self, table: &Table) -> Result<Reader, Error> {
        let session = self.session().await?;
        let lock = match lockable(table) {
            Some(name) => format!("; LOCK TABLE {name} IN ACCESS SHARE MODE NOWAIT"),
            None => String::new(),
        };
        match self.join(&session, &lock).await {
            Ok(()) => Ok(Reader::Own(session)),
            Err(Error::Postgres(error)) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                self.give_back(Reader::Own(session)).await?;
                tracing::info!(table = %table, "somebody waits for a lock: reading through the snapshot's holder");
                Ok(Reader::Holder(self.holder().await?))
            }
            Err(error) => Err(error),
        }
    }

    /// Begins a transaction under the snapshot, and what else is to be done at once.
    async fn join(&self, session: &Session, more: &str) -> Result<(), Error> {
        let join = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{}'{more}",
            self.exported
        );
        match session.batch_execute(&join).await {
            // "invalid snapshot identifier" is an invalid parameter value, a vanished one an undefined object.
            Err(error)
                if [
                    Some(&SqlState::INVALID_PARAMETER_VALUE),
                    Some(&SqlState::UNDEFINED_OBJECT),
                ]
                .contains(&error.code()) =>
            {
                Err(Error::Lost)
            }
            joined => Ok(joined?),
        }
    }

    /// The session that holds the snapshot, for queries under it.
    pub async fn holder(&self) -> Result<OwnedMutexGuard<Session>, Error> {
        let holder = self.holder.clone().lock_owned().await;
        if holder.is_closed() {
            Err(Error::Lost)
        } else {
            Ok(holder)
        }
    }

    /// Whether the holder's session has ended. One that is busy has not.
    pub fn is_lost(&self) -> bool {
        self.holder
            .try_lock()
            .is_ok_and(|holder| holder.is_closed())
    }

    /// Whether the holder still has its transaction. One that is busy has.
    pub async fn is_alive(&self) -> bool {
        match self.holder.try_lock() {
            Ok(holder) => holder.batch_execute("SELECT").await.is_ok(),
            Err(_) => true,
        }
    }

    /// Ends the reader's transaction: the planner locked the table's indexes too, and what an idle session keeps locked makes
    /// REINDEX at the source wait, and others behind it.
    pub async fn give_back(&self, reader: Reader) -> Result<(), Error> {
        if let Reader::Own(session) = reader {
            session.batch_execute("ROLLBACK").await?;
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(session);
        }
        Ok(())
    }

    /// An idle session of this snapshot, or a new one; outside a transaction.
    async fn session(&self) -> Result<Session, Error> {
        if self.is_lost() {
            return Err(Error::Lost);
        }
        let idle = || {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop()
        };
        while let Some(session) = idle() {
            if !session.is_closed() {
                return Ok(session);
            }
        }
        Ok(self.database.connect(&self.application).await?)
    }
}

/// One try to lock and export. None: the tables changed between listing and locking.
async fn attempt(
    session: &Session,
    scope: &Scope,
) -> Result<Option<(String, Vec<Table>)>, tokio_postgres::Error> {
    let before = list(session, scope).await?;
    session
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    let names: Vec<String> = before.iter().filter_map(lockable).collect();
    for names in names.chunks(LOCKS_PER_STATEMENT) {
        let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "));
        match session.batch_execute(&lock).await {
            Ok(()) => {}
            Err(error) if vanished(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let exported: String = session
        .query_one("SELECT pg_export_snapshot()", &[])
        .await?
        .get(0);
    let mut after = list(session, scope).await?;
    let locked: HashSet<Oid> = before.iter().map(|table| table.oid).collect();
    if !after.iter().all(|table| locked.contains(&table.oid)) {
        return Ok(None);
    }
    if let Scope::Selected(filter, _) = scope {
        tables::describe(session, &mut after).await?;
        if filter.admits_large_objects() {
            after.extend(large_objects::relation(session).await?);
        }
    }
    Ok(Some((exported, after)))
}

/// How LOCK TABLE calls it. A partitioned table that is read through its root is locked with its partitions.
fn lockable(table: &Table) -> Option<String> {
    let only = if table.through_root { "" } else { "ONLY " };
    (table.relation == Relation::Table)
        .then(|| format!("{only}{}", qualified(&table.schema, &table.name)))
}

async fn list(session: &Session, scope: &Scope) -> Result<Vec<Table>, tokio_postgres::Error> {
    match scope {
        Scope::Selected(filter, unread) => {
            let mut tables = tables::relations(session, filter).await?;
            tables.retain(|table| !unread.holds(&table.schema, &table.name));
            Ok(tables)
        }
        Scope::Named(tables) => Ok(tables.clone()),
    }
}

fn vanished(error: &tokio_postgres::Error) -> bool {
    [
        Some(&SqlState::UNDEFINED_TABLE),
        Some(&SqlState::INVALID_SCHEMA_NAME),
    ]
    .contains(&error.code())
}
