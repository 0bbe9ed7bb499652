//! Brings one table to what the source has under its snapshot (see Target.SyncTable).
//!
//! Invariant 2 (one commit): all deletes, then all inserts, the ledger and the entry of the sync commit in one transaction; the entry goes
//! first, so that a second attempt waits for the first one's end. The table is locked against writers before its rows are looked
//! at: a ctid that was read is the row's until the commit.
mod keys;
mod merge;
mod places;
mod plan;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgconvoy_agent_core::narrow::{self, Alike};
use pgconvoy_agent_core::progress::Counters;
use pgconvoy_agent_core::scan;
use pgconvoy_agent_core::session::{Session, qualified};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{
    Buckets, Digest, How, Oid, Place, Relation, SyncCounts, Table, required,
};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::sync_answer::Answer;
use pgconvoy_proto::wire::sync_frame::Frame;
use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::copy_in::copy_in;
use crate::landing::Landing;
use crate::sessions::{Purpose, Sessions};
use crate::{digest, large_objects, ledger};
use merge::Differing;
use places::Places;

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
        source: required(header.source, "source")?.into(),
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
        session.batch_execute("BEGIN").await.map_err(failed)?;
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
        match (counts.how, found) {
            (How::Equal, _) => {}
            (How::Rows, Some(found)) => self.rows(session, found, frames).await?,
            _ => self.whole(session, frames).await?,
        }
        self.enter(session, counts).await.map_err(failed)?;
        session.batch_execute("COMMIT").await.map_err(failed)?;
        if let Relation::LargeObjects { .. } = self.table.relation {
            large_objects::unlink_surplus(session, &self.migration)
                .await
                .map_err(failed)?;
        }
        Ok(receipt(counts, false))
    }

    fn failed(&self, error: &tokio_postgres::Error) -> Status {
        status::postgres(&format!("syncing {}", self.table), error)
    }

    /// When the source agent has left there is nobody to tell.
    async fn answer(&self, answer: Answer) -> Result<(), Status> {
        let answer = wire::SyncAnswer {
            answer: Some(answer),
        };
        let sent = self.answers.send(Ok(answer)).await;
        sent.map_err(|_| Status::cancelled("the source agent left"))
    }

    /// Inserts the entry; false when there is one, committed: but a table whose rows were looked at may still be copied whole. Waits for
    /// one that is not yet.
    async fn claim(&self, session: &Session) -> Result<bool, Status> {
        let inserted = session
            .execute(
                "INSERT INTO pgconvoy.syncs AS s (migration, table_oid, snapshot) VALUES ($1, $2, $3)
                 ON CONFLICT (migration, table_oid, snapshot) DO UPDATE SET started_at = clock_timestamp()
                 WHERE $4 AND s.how <> 'copy'",
                &[&self.migration, &self.table.oid, &self.snapshot, &self.buckets.is_none()],
            )
            .await
            .map_err(ledger::failed)?;
        Ok(inserted == 1)
    }

    async fn recorded(&self, session: &Session) -> Result<wire::SyncReceipt, Status> {
        let row = session
            .query_one(
                "SELECT how, inserted, changed, deleted FROM pgconvoy.syncs
                 WHERE migration = $1 AND table_oid = $2 AND snapshot = $3",
                &[&self.migration, &self.table.oid, &self.snapshot],
            )
            .await
            .map_err(ledger::failed)?;
        let number = |at: usize| row.get::<_, i64>(at) as u64;
        let how = How::parse(row.get(0))
            .ok_or_else(|| Status::data_loss("the ledger holds a sync of an unknown kind"))?;
        let counts = SyncCounts {
            how,
            inserted: number(1),
            changed: number(2),
            deleted: number(3),
        };
        Ok(receipt(counts, true))
    }

    /// Readers go on; writers wait, and so does whoever else would change the table.
    async fn lock(&self, session: &Session) -> Result<(), Status> {
        if self.table.relation != Relation::Table {
            return Ok(());
        }
        let lock = format!(
            "SET LOCAL lock_timeout = '{LOCK_WAIT}'; LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE;
             SET LOCAL lock_timeout = 0",
            scan::from(&self.table)
        );
        match session.batch_execute(&lock).await {
            Ok(()) => Ok(()),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                Err(Status::failed_precondition(format!(
                    "{}: somebody has been writing to it at the target for {LOCK_WAIT} without a commit: end that \
                     transaction (pg_stat_activity), and sync again",
                    self.table
                )))
            }
            Err(error) => Err(self.failed(&error)),
        }
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
        let given_up = own.widest() > merge::MOST_ALIKE;
        let folder = self.folder.to_owned();
        let merging = tokio::task::spawn_blocking(move || {
            // The source's pairs are taken in any case: what it sends next comes behind them.
            let found = merge::merge(own.sorted(Alike::Apart), &mut frames, &folder)?;
            Ok::<_, Status>((found, frames))
        });
        let (found, frames) = merging
            .await
            .map_err(|error| Status::internal(format!("comparing {}: {error}", self.table)))?
            .map_err(|status| {
                let text = format!("comparing {}: {}", self.table, status.message());
                Status::new(status.code(), text)
            })?;
        Ok((found.filter(|_| !given_up), frames))
    }

    /// Row by row each change costs a delete and an insert; the whole table costs as many inserts as the source has rows and, where
    /// it cannot be truncated, as many deletes as the target has.
    async fn decide(
        &self,
        session: &Session,
        found: Option<&Differing>,
    ) -> Result<SyncCounts, Status> {
        let Some(found) = found else {
            return Ok(SyncCounts {
                how: How::Copy,
                inserted: self.source.rows,
                changed: 0,
                deleted: self.target_rows,
            });
        };
        let inserts = found.inserted + found.changed;
        let deletes = found.deleted + found.changed;
        let many = inserts + deletes / DELETES_PER_INSERT > self.source.rows;
        let copy =
            many && self.table.relation == Relation::Table && self.is_truncatable(session).await?;
        let how = match found.total() {
            0 => How::Equal,
            _ if copy => How::Copy,
            _ => How::Rows,
        };
        Ok(SyncCounts {
            how,
            inserted: found.inserted,
            changed: found.changed,
            deleted: found.deleted,
        })
    }

    /// No other table's foreign key refers to it: TRUNCATE refuses that.
    async fn is_truncatable(&self, session: &Session) -> Result<bool, Status> {
        Ok(self.referenced(session, "true").await?.is_empty())
    }

    /// Foreign keys of other tables that refer to this one and fulfil the condition on pg_constraint.
    async fn referenced(&self, session: &Session, condition: &str) -> Result<Vec<String>, Status> {
        let rows = session
            .query(
                &format!(
                    "SELECT DISTINCT format('%s of %s', k.conname, k.conrelid::regclass)
                     FROM pg_constraint k
                     WHERE k.contype = 'f' AND k.conrelid <> k.confrelid AND {condition}
                       AND k.confrelid IN (SELECT $1::text::regclass
                                           UNION SELECT relid FROM pg_partition_tree($1::text::regclass))"
                ),
                &[&qualified(&self.table.schema, &self.table.name)],
            )
            .await
            .map_err(|error| self.failed(&error))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Where foreign keys fire, a delete would change other tables by ON DELETE CASCADE or SET.
    async fn check_cascades(&self, session: &Session) -> Result<(), Status> {
        let failed = |error: tokio_postgres::Error| self.failed(&error);
        let replica = session
            .query_one(
                "SELECT current_setting('session_replication_role') = 'replica'",
                &[],
            )
            .await
            .map_err(failed)?;
        if replica.get(0) {
            return Ok(());
        }
        let condition = "k.confdeltype IN ('c', 'n', 'd')";
        let keys = self.referenced(session, condition).await?;
        if keys.is_empty() {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "{}: rows must be deleted, and these foreign keys would change other tables with them: {}. The target agent's \
             role may not set session_replication_role: make it a superuser, or (15 and newer) GRANT SET ON PARAMETER \
             session_replication_role TO it",
            self.table,
            keys.join(", ")
        )))
    }

    /// Deletes what is surplus, then loads the rows, which are asked for meanwhile.
    async fn rows(
        &self,
        session: &Session,
        found: Differing,
        frames: Frames,
    ) -> Result<(), Status> {
        if let Relation::LargeObjects { .. } = self.table.relation {
            let (objects, wanted) = found.objects(self.folder).map_err(spilled)?;
            return self.take(session, wanted, None, &objects, frames).await;
        }
        if found.surplus.count() > 0 {
            self.check_cascades(session).await?;
        }
        let (wanted, surplus) = (found.wanted, found.surplus);
        self.take(session, wanted, Some(surplus), &[], frames).await
    }

    /// Of large objects there is no knowing how many pages come, and what is replaced is seen to when they have come.
    async fn take(
        &self,
        session: &Session,
        wanted: Places,
        surplus: Option<Places>,
        objects: &[Oid],
        frames: Frames,
    ) -> Result<(), Status> {
        let expected = surplus.as_ref().map(|_| wanted.count());
        let answers = self.answers.clone();
        let asking = tokio::task::spawn_blocking(move || places::ask(wanted, &answers));
        let landing = self.prepare(session).await?;
        if let Some(surplus) = surplus {
            self.delete(session, surplus).await?;
        }
        self.load(session, landing, frames, expected, objects)
            .await?;
        asking
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(spilled)
    }

    /// Empties the table and loads it anew.
    async fn whole(&self, session: &Session, frames: Frames) -> Result<(), Status> {
        let failed = |error: tokio_postgres::Error| self.failed(&error);
        let truncatable = self.is_truncatable(session).await?;
        if !truncatable {
            self.check_cascades(session).await?;
        }
        let mut landing = self.prepare(session).await?;
        match self.table.relation {
            Relation::Table if truncatable => {
                let truncate = format!("TRUNCATE {}", scan::from(&self.table));
                session.batch_execute(&truncate).await.map_err(failed)?;
                landing.freeze(&self.table);
            }
            Relation::Table => {
                let delete = format!("DELETE FROM {}", scan::from(&self.table));
                session.batch_execute(&delete).await.map_err(failed)?;
            }
            Relation::LargeObjects { .. } => {
                return Err(Status::resource_exhausted(
                    "the large objects have too many pages to be compared: empty the target and migrate again",
                ));
            }
        }
        let expected = Some(self.source.rows);
        self.load(session, landing, frames, expected, &[]).await
    }

    async fn prepare(&self, session: &Session) -> Result<Landing, Status> {
        Landing::prepare_with_deletes(session, &self.table)
            .await
            .map_err(|error| self.failed(&error))
    }

    async fn delete(&self, session: &Session, mut surplus: Places) -> Result<(), Status> {
        for batch in surplus.batches().map_err(spilled)? {
            for places in batch.map_err(spilled)?.chunk_by(|a, b| a.table == b.table) {
                let deleted = session
                    .execute(&delete_sql(&self.table, places), &[])
                    .await
                    .map_err(|error| self.failed(&error))?;
                if deleted != places.len() as u64 {
                    return Err(Status::aborted(format!(
                        "{}: rows that were read a moment ago are not there: {} of {}",
                        self.table,
                        places.len() as u64 - deleted,
                        places.len()
                    )));
                }
            }
        }
        Ok(())
    }

    /// COPY FROM what comes. `expected`: how many rows that must be, where it is known.
    async fn load(
        &self,
        session: &Session,
        landing: Landing,
        frames: Frames,
        expected: Option<u64>,
        objects: &[Oid],
    ) -> Result<(), Status> {
        let what = format!("syncing {}", self.table);
        let chunks = ReceiverStream::new(frames).map(|frame| part_frame(frame?));
        let (trailer, copied) = copy_in(session, &landing.copy_in, chunks, &what).await?;
        let sent = Digest::from(required(trailer.digest, "the trailer's digest")?).rows;
        if copied != sent || expected.is_some_and(|expected| expected != sent) {
            return Err(Status::data_loss(format!(
                "{what}: PostgreSQL took {copied} rows, {sent} were sent, {expected:?} were asked for"
            )));
        }
        if !objects.is_empty() {
            large_objects::mark_surplus(session, &self.migration, objects)
                .await
                .map_err(|error| self.failed(&error))?;
        }
        landing
            .settle(session, &self.migration)
            .await
            .map_err(|error| self.failed(&error))
    }

    /// Ledger and entry, with the rows.
    async fn enter(
        &self,
        session: &Session,
        counts: SyncCounts,
    ) -> Result<(), tokio_postgres::Error> {
        let (migration, oid, snapshot) = (&self.migration, &self.table.oid, &self.snapshot);
        let source = self.source;
        session
            .execute(
                "UPDATE pgconvoy.tables SET plan = $4, snapshot = $3, source_rows = $5, source_bytes = $6,
                     source_digest = $7, left_rows = $5, left_bytes = $6, left_digest = $7,
                     target_rows = NULL, target_bytes = NULL, target_digest = NULL, verified_at = NULL,
                     converge = false
                 WHERE migration = $1 AND oid = $2",
                &[
                    migration,
                    oid,
                    snapshot,
                    &ledger::json(&self.table),
                    &(source.rows as i64),
                    &(source.bytes as i64),
                    &source.hex(),
                ],
            )
            .await?;
        session
            .execute(
                "UPDATE pgconvoy.syncs SET how = $4, inserted = $5, changed = $6, deleted = $7,
                     committed_at = clock_timestamp()
                 WHERE migration = $1 AND table_oid = $2 AND snapshot = $3",
                &[
                    migration,
                    oid,
                    snapshot,
                    &counts.how.as_str(),
                    &(counts.inserted as i64),
                    &(counts.changed as i64),
                    &(counts.deleted as i64),
                ],
            )
            .await?;
        if self.table.unlogged {
            // The rows are there again, should a crash have taken them.
            session
                .execute(
                    "INSERT INTO pgconvoy.unlogged_parts
                     SELECT migration, table_oid, number FROM pgconvoy.parts WHERE migration = $1 AND table_oid = $2
                     ON CONFLICT DO NOTHING",
                    &[migration, oid],
                )
                .await?;
        }
        Ok(())
    }
}

/// A delete costs about half of an insert with its indexes.
const DELETES_PER_INSERT: u64 = 2;

fn spilled(error: std::io::Error) -> Status {
    Status::resource_exhausted(format!("a temporary file in --data-dir: {error}"))
}

fn receipt(counts: SyncCounts, already: bool) -> wire::SyncReceipt {
    wire::SyncReceipt {
        counts: Some(counts.into()),
        already,
    }
}

fn delete_sql(table: &Table, places: &[Place]) -> String {
    let mut sql = format!(
        "DELETE FROM {} WHERE ctid = ANY ({})",
        scan::from(table),
        scan::ctids(places)
    );
    if let Some(place) = places.first().filter(|_| table.through_root) {
        sql += &format!(" AND tableoid = {}", place.table);
    }
    sql
}

fn part_frame(frame: wire::SyncFrame) -> Result<wire::PartFrame, Status> {
    use wire::part_frame::Frame as Part;
    let frame = match frame.frame {
        Some(Frame::Chunk(chunk)) => Part::Chunk(chunk),
        Some(Frame::Trailer(trailer)) => Part::Trailer(trailer),
        _ => {
            return Err(Status::invalid_argument(
                "a frame that is neither chunk nor trailer",
            ));
        }
    };
    Ok(wire::PartFrame { frame: Some(frame) })
}
