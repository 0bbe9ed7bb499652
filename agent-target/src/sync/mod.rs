//! Brings one table to what the source has under its snapshot (see Target.SyncTable).
//!
//! Invariant 2 (one commit): all deletes, then all inserts, the ledger and the entry of the sync commit in one transaction; the entry goes
//! first, so that a second attempt waits for the first one's end. The table is locked against writers before its rows are looked
//! at: a ctid that was read is the row's until the commit.
mod apply;
mod decide;
mod entry;
mod keys;
mod merge;
mod places;
mod plan;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgconvoy_agent_core::narrow::{self, Alike};
use pgconvoy_agent_core::progress::Counters;
use pgconvoy_agent_core::scan;
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Buckets, Digest, How, Relation, SyncCounts, Table, required};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::sync_answer::Answer;
use pgconvoy_proto::wire::sync_frame::Frame;
use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::sessions::{Purpose, Sessions};
use crate::{digest, large_objects};
use merge::Differing;

pub use keys::check_keys;
pub use plan::plan;

/// Frames that were received and are not worked on yet.
const FRAMES: usize = 4;
/// PostgreSQL's notation. Whoever has written to the table and not committed is waited for so long.
const LOCK_WAIT: &str = "60s";

type Frames = mpsc::Receiver<Result<wire::SyncFrame, Status>>;
type Answers = mpsc::Sender<Result<wire::SyncAnswer, Status>>;

/// Syncs one table. `folder` takes temporary files.
pub async fn sync_table(
    sessions: Sessions,
    folder: PathBuf,
    mut frames: impl Stream<Item = Result<wire::SyncFrame, Status>> + Unpin + Send + 'static,
    answers: Answers,
) -> Result<(), Status> {
    let first = frames.next().await.transpose()?.and_then(|f| f.frame);
    let Some(Frame::Header(header)) = first else {
        return Err(Status::invalid_argument("a sync begins with its header"));
    };
    let sync = Sync {
        migration: header.migration,
        snapshot: header.snapshot,
        table: required(header.table, "table")?.try_into()?,
        source: required(header.source, "source")?.try_into()?,
        buckets: header.buckets.map(TryInto::try_into).transpose()?,
        target_rows: header.target_rows,
        jobs: header.jobs as usize,
        dry_run: header.dry_run,
        sessions: &sessions,
        folder: &folder,
        answers: &answers,
    };
    let (sender, received) = mpsc::channel(FRAMES);
    let session = sessions.take(&sync.migration, Purpose::Load).await?;
    // The stream is read to its end, or until this call ends.
    let forwarding = async {
        while let Some(frame) = frames.next().await {
            if sender.send(frame).await.is_err() {
                break;
            }
        }
        drop(sender);
        std::future::pending::<()>().await;
    };
    let receipt = tokio::select! {
        receipt = sync.run(&session, received) => receipt?,
        () = forwarding => unreachable!("it never ends"),
    };
    sessions.give_back(&sync.migration, Purpose::Load, session);
    sync.answer(Answer::Done(receipt)).await
}

struct Sync<'a> {
    migration: String,
    snapshot: String,
    table: Table,
    /// Of the whole table, at the source.
    source: Digest,
    buckets: Option<Buckets>,
    target_rows: u64,
    jobs: usize,
    dry_run: bool,
    sessions: &'a Sessions,
    folder: &'a Path,
    answers: &'a Answers,
}

impl Sync<'_> {
    async fn run(&self, session: &Session, frames: Frames) -> Result<wire::SyncReceipt, Status> {
        let failed = |error: tokio_postgres::Error| self.failed(&error);
        session
            .batch_execute(&format!(
                "BEGIN; SET LOCAL synchronous_commit TO DEFAULT; SET LOCAL lock_timeout = '{LOCK_WAIT}'"
            ))
            .await
            .map_err(failed)?;
        if !self.dry_run && !self.claim(session).await? {
            session.batch_execute("ROLLBACK").await.map_err(failed)?;
            return self.recorded(session).await;
        }
        if !self.dry_run {
            self.lock(session).await?;
        }
        let (found, frames) = self.find(frames).await?;
        let counts = self.decide(session, found.as_ref()).await?;
        self.answer(Answer::Plan(counts.into())).await?;
        if self.dry_run {
            session.batch_execute("ROLLBACK").await.map_err(failed)?;
            return Ok(receipt(counts, false));
        }
        let of_pairs = found.as_ref().map_or(0, |found| found.wire_bytes);
        let of_rows = match (counts.how, found) {
            (How::Equal, _) => 0,
            (How::Rows, Some(found)) => self.rows(session, found, frames).await?,
            _ => self.whole(session, frames).await?,
        };
        let entered = self.enter(session, counts, of_pairs + of_rows).await;
        entered.map_err(failed)?;
        session.batch_execute("COMMIT").await.map_err(failed)?;
        if let Relation::LargeObjects { .. } = self.table.relation {
            large_objects::unlink_surplus(session, &self.migration)
                .await
                .map_err(failed)?;
        }
        Ok(receipt(counts, false))
    }

    fn failed(&self, error: &tokio_postgres::Error) -> Status {
        if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
            return Status::failed_precondition(format!(
                "{}: somebody at the target has been at it for {LOCK_WAIT} without a commit: end that transaction \
                 (pg_stat_activity), and sync again",
                self.table
            ));
        }
        status::of_row(&format!("syncing {}", self.table), error)
    }

    /// When the source agent has left there is nobody to tell.
    async fn answer(&self, answer: Answer) -> Result<(), Status> {
        let answer = wire::SyncAnswer {
            answer: Some(answer),
        };
        let sent = self.answers.send(Ok(answer)).await;
        sent.map_err(|_| Status::cancelled("the source agent left"))
    }

    /// Readers go on; writers wait, and so does whoever else would change the table.
    async fn lock(&self, session: &Session) -> Result<(), Status> {
        if self.table.relation != Relation::Table {
            return Ok(());
        }
        let table = scan::from(&self.table);
        session
            .batch_execute(&format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"))
            .await
            .map_err(|error| self.failed(&error))
    }

    /// Reads this end's pairs and compares them with the source's. None: the rows are not, or cannot be, told apart.
    async fn find(&self, mut frames: Frames) -> Result<(Option<Differing>, Frames), Status> {
        let Some(buckets) = &self.buckets else {
            return Ok((None, frames));
        };
        let own = {
            let snapshot = digest::snapshot(self.sessions, &self.migration, &self.table).await?;
            let counters = Arc::new(Counters::default());
            let (jobs, folder) = (self.jobs, self.folder);
            narrow::read(&snapshot, &self.table, buckets, jobs, folder, &counters).await?
        };
        let own = (own.widest() <= narrow::MOST_ALIKE).then(|| own.sorted(Alike::Apart));
        let (folder, relation) = (self.folder.to_owned(), self.table.relation.clone());
        let merging = tokio::task::spawn_blocking(move || {
            let found = merge::merge(own, &mut frames, &relation, &folder)?;
            Ok::<_, Status>((found, frames))
        });
        let (found, frames) = merging
            .await
            .map_err(|error| Status::internal(format!("comparing {}: {error}", self.table)))?
            .map_err(|status| {
                let text = format!("comparing {}: {}", self.table, status.message());
                Status::new(status.code(), text)
            })?;
        Ok((found, frames))
    }
}

fn spilled(error: std::io::Error) -> Status {
    Status::resource_exhausted(format!("a temporary file in --data-dir: {error}"))
}

fn receipt(counts: SyncCounts, already: bool) -> wire::SyncReceipt {
    wire::SyncReceipt {
        counts: Some(counts.into()),
        already,
    }
}
