//! The work queue of the copy phase: parts to copy, indexes to build, tables to digest, each given out as soon as it may be.
//!
//! Per table: parts, then, where its rows are of several snapshots, convergence, then its constraints (they need the table for
//! themselves), then its other indexes and the digest, side by side. A digest never runs beside ADD CONSTRAINT: readers would queue behind
//! its lock. Where the indexes of keys are built by themselves, they come first, side by side with the other indexes and the digest, and
//! the constraints, which then take no time, last.
//!
//! A part of which PostgreSQL refuses a row is put off: a function of a check constraint or generated column may read tables that are not
//! loaded yet. When all other parts are done it is given out again, for as long as that brings any part in.
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pgconvoy_proto::model::{Oid, Part, Table};
use tokio::sync::Notify;

/// What is to be done for one table.
#[derive(Clone, Debug)]
pub struct TableWork {
    pub table: Table,
    pub parts: Vec<Part>,
    /// Indexes of keys, without their constraints.
    pub keys: Vec<Build>,
    pub constraints: Vec<Build>,
    pub indexes: Vec<Build>,
    /// Rows of several snapshots become those of one before anything is built on them.
    pub converge: bool,
    pub digest: bool,
}

/// A step that builds an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    pub step: u32,
    pub table: Oid,
    pub size_bytes: u64,
}

pub struct Schedule {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    parts: VecDeque<(Table, Part)>,
    /// Given out, and neither done nor put off.
    parts_running: usize,
    put_off: Vec<PutOff>,
    /// Parts done since those that are put off were given out.
    done_since: usize,
    to_converge: VecDeque<Table>,
    builds: VecDeque<Build>,
    digests: VecDeque<Table>,
    tables: HashMap<Oid, Pending>,
}

struct Pending {
    table: Table,
    parts_left: usize,
    converge: Converge,
    keys: Vec<Build>,
    constraints: Vec<Build>,
    /// Builds given out and not done, of keys and other indexes beside them, or of constraints.
    builds_left: usize,
    digest_running: bool,
    indexes: Vec<Build>,
    digest: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Converge {
    Needed,
    GivenOut,
    Done,
}

/// A part that was refused, and what PostgreSQL said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutOff {
    pub table: Table,
    pub part: Part,
    pub reason: String,
}

/// Every part that is left was refused again after the others were loaded.
#[derive(Debug, thiserror::Error)]
#[error("{} parts are refused, also with all other rows loaded: {}", .0.len(), .0.iter().map(|p| p.reason.as_str()).collect::<Vec<_>>().join("; "))]
pub struct Refused(pub Vec<PutOff>);

/// Builds below this size are given out several at a time: starting pg_restore costs more than they do.
const SMALL_BUILD: u64 = 8 << 20;
const SMALL_TOGETHER: usize = 24;

impl Schedule {
    /// `work`: in the order in which it is to be begun.
    pub fn new(work: Vec<TableWork>) -> Self {
        let mut state = State::default();
        for table in work {
            state
                .parts
                .extend(table.parts.iter().map(|part| (table.table.clone(), *part)));
            let pending = Pending {
                parts_left: table.parts.len(),
                converge: if table.converge {
                    Converge::Needed
                } else {
                    Converge::Done
                },
                keys: table.keys,
                constraints: table.constraints,
                builds_left: 0,
                digest_running: false,
                indexes: table.indexes,
                digest: table.digest,
                table: table.table,
            };
            let oid = pending.table.oid;
            state.tables.insert(oid, pending);
            state.advance(oid);
        }
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    /// The next part, waiting for those that may be put off; none when all are done.
    pub async fn next_part(&self) -> Result<Option<(Table, Part)>, Refused> {
        loop {
            let changed = self.changed.notified();
            match self.lock().next_part() {
                Next::Part(next) => return Ok(Some(*next)),
                Next::Nothing => return Ok(None),
                Next::Refused(parts) => return Err(Refused(parts)),
                Next::Wait => {}
            }
            changed.await;
        }
    }

    /// A part of a table below `bytes`, the smallest first; none when the last one of the queue is larger.
    pub fn next_small_part(&self, bytes: u64) -> Option<(Table, Part)> {
        let mut state = self.lock();
        let (table, _) = state.parts.back()?;
        if table.size_bytes >= bytes {
            return None;
        }
        state.parts_running += 1;
        state.parts.pop_back()
    }

    /// A part was refused for now.
    pub fn put_off(&self, part: PutOff) {
        let mut state = self.lock();
        state.parts_running -= 1;
        state.put_off.push(part);
        drop(state);
        self.changed.notify_waiters();
    }

    /// A part is loaded. True: it was its table's last.
    pub fn part_done(&self, table: Oid) -> bool {
        let mut state = self.lock();
        state.parts_running -= 1;
        state.done_since += 1;
        let Some(pending) = state.tables.get_mut(&table) else {
            return false;
        };
        pending.parts_left -= 1;
        let last = pending.parts_left == 0;
        state.advance(table);
        drop(state);
        self.changed.notify_waiters();
        last
    }

    /// The next table whose rows are to become those of one snapshot, waiting for one; none when no more can come.
    pub async fn next_to_converge(&self) -> Option<Table> {
        self.wait(|state| state.to_converge.pop_front()).await
    }

    pub fn converged(&self, table: Oid) {
        let mut state = self.lock();
        if let Some(pending) = state.tables.get_mut(&table) {
            pending.converge = Converge::Done;
        }
        state.advance(table);
        drop(state);
        self.changed.notify_waiters();
    }

    /// The next indexes to build together, waiting for one; none when no more can come.
    pub async fn next_builds(&self) -> Option<Vec<Build>> {
        self.wait(|state| {
            let first = state.builds.pop_front()?;
            let mut together = vec![first];
            while first.size_bytes < SMALL_BUILD
                && together.len() < SMALL_TOGETHER
                && state
                    .builds
                    .front()
                    .is_some_and(|next| next.size_bytes < SMALL_BUILD)
            {
                together.extend(state.builds.pop_front());
            }
            Some(together)
        })
        .await
    }

    pub fn builds_done(&self, builds: &[Build]) {
        let mut state = self.lock();
        for build in builds {
            if let Some(pending) = state.tables.get_mut(&build.table)
                && pending.builds_left > 0
            {
                pending.builds_left -= 1;
                state.advance(build.table);
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The next table to digest, waiting for one; none when no more can come.
    pub async fn next_digest(&self) -> Option<Table> {
        self.wait(|state| state.digests.pop_front()).await
    }

    pub fn digested(&self, table: Oid) {
        let mut state = self.lock();
        if let Some(pending) = state.tables.get_mut(&table) {
            pending.digest_running = false;
        }
        state.advance(table);
        drop(state);
        self.changed.notify_waiters();
    }

    async fn wait<T>(&self, take: impl Fn(&mut State) -> Option<T>) -> Option<T> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.lock();
                if let Some(found) = take(&mut state) {
                    return Some(found);
                }
                if state.tables.is_empty() {
                    return None;
                }
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Next {
    Part(Box<(Table, Part)>),
    Wait,
    Nothing,
    Refused(Vec<PutOff>),
}

impl State {
    fn next_part(&mut self) -> Next {
        let all_seen = self.parts.is_empty() && self.parts_running == 0;
        if all_seen && !self.put_off.is_empty() {
            let put_off = std::mem::take(&mut self.put_off);
            if self.done_since == 0 {
                return Next::Refused(put_off);
            }
            self.done_since = 0;
            self.parts
                .extend(put_off.into_iter().map(|p| (p.table, p.part)));
        }
        match self.parts.pop_front() {
            Some((table, part)) => {
                self.parts_running += 1;
                Next::Part(Box::new((table, part)))
            }
            None if self.parts_running > 0 => Next::Wait,
            None => Next::Nothing,
        }
    }

    /// Gives out what the table is ready for; a table that has given out everything is forgotten.
    fn advance(&mut self, oid: Oid) {
        let Some(pending) = self.tables.get_mut(&oid) else {
            return;
        };
        if pending.parts_left > 0 || pending.builds_left > 0 || pending.digest_running {
            return;
        }
        if pending.converge != Converge::Done {
            if std::mem::replace(&mut pending.converge, Converge::GivenOut) == Converge::Needed {
                self.to_converge.push_back(pending.table.clone());
            }
            return;
        }
        let keys = std::mem::take(&mut pending.keys);
        if !keys.is_empty() {
            let indexes = std::mem::take(&mut pending.indexes);
            pending.builds_left = keys.len() + indexes.len();
            self.builds.extend(keys.into_iter().chain(indexes));
            if std::mem::take(&mut pending.digest) {
                pending.digest_running = true;
                self.digests.push_back(pending.table.clone());
            }
            return;
        }
        let constraints = std::mem::take(&mut pending.constraints);
        if !constraints.is_empty() {
            pending.builds_left = constraints.len();
            self.builds.extend(constraints);
            return;
        }
        if let Some(done) = self.tables.remove(&oid) {
            self.builds.extend(done.indexes);
            if done.digest {
                self.digests.push_back(done.table);
            }
        }
    }
}

#[cfg(test)]
mod tests;
