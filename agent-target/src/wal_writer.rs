//! Keeps the target's WAL writer awake while rows are loaded.
//!
//! COPY fills wal_buffers (by default a 32nd of shared_buffers, 16 MiB at most) in less time than the WAL writer sleeps
//! (wal_writer_delay, 200 ms). Its own backend then writes and syncs the log, and takes no rows meanwhile. What wakes the WAL writer
//! is an asynchronous commit (`XLogSetAsyncXactLSN`, src/backend/access/transam/xlog.c): a session of its own makes one for every
//! chunk that was handed to PostgreSQL, of a logical message that nobody has to read (some 60 bytes of log).
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pgconvoy_agent_core::status;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::Status;

use crate::sessions::{Purpose, Sessions};

/// Not transactional: without a transaction id, whose commit nobody would need.
const ASYNCHRONOUS_COMMIT: &str =
    "SELECT pg_catalog.pg_logical_emit_message(false, 'pgconvoy', '')";

/// A load shorter than this fits into wal_buffers as they mostly are.
const CHUNKS_UNNOTICED: u64 = 8;

/// What one load does for it.
pub struct WalWriter<'a> {
    sessions: &'a Sessions,
    migration: &'a str,
    chunks: u64,
    waker: Option<Arc<Waker>>,
}

impl<'a> WalWriter<'a> {
    pub fn of(sessions: &'a Sessions, migration: &'a str) -> Self {
        Self {
            sessions,
            migration,
            chunks: 0,
            waker: None,
        }
    }

    /// A chunk of rows was handed to PostgreSQL. Does not wait.
    pub fn fed(&mut self) {
        self.chunks += 1;
        if self.chunks > CHUNKS_UNNOTICED {
            let waker = || Waker::of(self.sessions, self.migration);
            self.waker.get_or_insert_with(waker).chunks.notify_one();
        }
    }
}

/// Wakers by migration: there while a load of it holds one.
pub type Wakers = Arc<Mutex<HashMap<String, Weak<Waker>>>>;

/// Wakes the WAL writer of the server that a migration goes to.
pub struct Waker {
    chunks: Arc<Notify>,
    session: JoinHandle<()>,
}

impl Waker {
    /// The one that all loads of this migration share.
    fn of(sessions: &Sessions, migration: &str) -> Arc<Self> {
        let mut wakers = sessions
            .wakers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        wakers.retain(|_, waker| waker.strong_count() > 0);
        if let Some(waker) = wakers.get(migration).and_then(Weak::upgrade) {
            return waker;
        }
        let chunks = Arc::new(Notify::new());
        let waker = Arc::new(Self {
            chunks: chunks.clone(),
            session: tokio::spawn(run(sessions.clone(), migration.to_owned(), chunks)),
        });
        wakers.insert(migration.to_owned(), Arc::downgrade(&waker));
        waker
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        self.session.abort();
    }
}

async fn run(sessions: Sessions, migration: String, chunks: Arc<Notify>) {
    // Without it loads are slower, and nothing else: where there is no connection to spare, for instance.
    if let Err(status) = keep_awake(&sessions, &migration, &chunks).await {
        tracing::info!(
            status = status.message(),
            "the WAL writer is not kept awake"
        );
    }
}

async fn keep_awake(sessions: &Sessions, migration: &str, chunks: &Notify) -> Result<(), Status> {
    let session = sessions.take(migration, Purpose::Plain).await?;
    loop {
        chunks.notified().await;
        session
            .batch_execute(ASYNCHRONOUS_COMMIT)
            .await
            .map_err(|error| status::postgres("waking the WAL writer", &error))?;
    }
}
