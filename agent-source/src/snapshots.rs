//! The open snapshots, one per migration, each with a lease: it outlives the coordinator by that, and not longer.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgconvoy_agent_core::snapshot::Snapshot;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::position::Position;

#[derive(Clone)]
pub struct Snapshots {
    lease: Duration,
    held: Arc<Mutex<HashMap<String, Held>>>,
}

struct Held {
    snapshot: Arc<Snapshot>,
    position: Arc<Position>,
    lease: Duration,
    renewed: Instant,
}

impl Snapshots {
    pub fn new(lease: Duration) -> Self {
        Self {
            lease,
            held: Arc::default(),
        }
    }

    /// Keeps the snapshot for the migration; an earlier one is dropped. Without a lease of its own it has the agent's.
    pub fn keep(
        &self,
        migration: &str,
        snapshot: Arc<Snapshot>,
        position: Position,
        lease: Option<Duration>,
    ) {
        let lease = lease.unwrap_or(self.lease);
        let held = Held {
            snapshot,
            position: Arc::new(position),
            lease,
            renewed: Instant::now(),
        };
        self.lock().insert(migration.to_owned(), held);
    }

    /// The migration's snapshot, its lease renewed. FAILED_PRECONDITION when it is gone or another one.
    pub fn get(&self, migration: &str, id: &str) -> Result<Arc<Snapshot>, Status> {
        let mut held = self.lock();
        let gone = || {
            Status::failed_precondition(format!(
                "the snapshot {id} of migration {migration} is gone: run pgconvoy resume"
            ))
        };
        let found = held
            .get_mut(migration)
            .filter(|held| held.snapshot.id == id)
            .ok_or_else(gone)?;
        if found.snapshot.is_lost() {
            held.remove(migration);
            return Err(gone());
        }
        found.renewed = Instant::now();
        Ok(found.snapshot.clone())
    }

    /// The migration's snapshot, whichever it is.
    pub fn current(&self, migration: &str) -> Result<Arc<Snapshot>, Status> {
        let id = self
            .lock()
            .get(migration)
            .map(|held| held.snapshot.id.clone());
        self.get(migration, &id.unwrap_or_default())
    }

    /// Where the migration's snapshot stands; errors as in [`Self::get`].
    pub fn position(&self, migration: &str, id: &str) -> Result<Arc<Position>, Status> {
        let snapshot = self.get(migration, id)?;
        let held = self.lock();
        let found = held.get(migration).filter(|h| h.snapshot.id == snapshot.id);
        let gone = || Status::failed_precondition("the snapshot was closed");
        found.map(|held| held.position.clone()).ok_or_else(gone)
    }

    /// From now on the migration's snapshot has the agent's lease.
    pub fn make_resumable(&self, migration: &str) {
        if let Some(held) = self.lock().get_mut(migration) {
            held.lease = self.lease;
        }
    }

    pub fn close(&self, migration: &str) {
        self.lock().remove(migration);
    }

    /// Drops snapshots whose lease ran out; one that is being read counts as renewed.
    pub async fn reap(self, every: Duration, stop: CancellationToken) {
        let mut tick = tokio::time::interval(every);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            self.lock().retain(|migration, held| {
                if Arc::strong_count(&held.snapshot) > 1 {
                    held.renewed = Instant::now();
                }
                let alive = held.renewed.elapsed() < held.lease;
                if !alive {
                    tracing::warn!(
                        migration,
                        "nobody asked for the snapshot during its lease: closed"
                    );
                }
                alive
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
