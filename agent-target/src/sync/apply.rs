//! All deletes, then all inserts.
use pgconvoy_agent_core::scan;
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status::postgres_text;
use pgconvoy_proto::model::{Oid, Place, Relation, Table};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::sync_frame::Frame;
use tokio_postgres::error::SqlState;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::merge::Differing;
use super::places::{self, Places};
use super::{Frames, LOCK_WAIT, Sync, spilled};
use crate::copy_in::copy_in;
use crate::landing::{Landing, READERS_WAIT};
use crate::large_objects;
use crate::wal_writer::WalWriter;

impl Sync<'_> {
    /// Deletes what is surplus, then loads the rows, which are asked for meanwhile.
    pub(super) async fn rows(
        &self,
        session: &Session,
        found: Differing,
        frames: Frames,
    ) -> Result<u64, Status> {
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
    pub(super) async fn take(
        &self,
        session: &Session,
        wanted: Places,
        surplus: Option<Places>,
        objects: &[Oid],
        frames: Frames,
    ) -> Result<u64, Status> {
        let expected = surplus.as_ref().map(|_| wanted.count());
        let answers = self.answers.clone();
        let asking = tokio::task::spawn_blocking(move || places::ask(wanted, &answers));
        let mut landing = self.prepare(session).await?;
        if let Some(surplus) = surplus.filter(|surplus| surplus.count() > 0) {
            self.identify_rows(session, &mut landing).await?;
            self.delete(session, surplus).await?;
        }
        let crossed = self
            .load(session, landing, frames, expected, objects)
            .await?;
        asking
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(spilled)?;
        Ok(crossed)
    }

    /// Empties the table and loads it anew.
    pub(super) async fn whole(&self, session: &Session, frames: Frames) -> Result<u64, Status> {
        let truncatable = self.is_truncatable(session).await?;
        if !truncatable {
            self.check_cascades(session).await?;
        }
        let mut landing = self.prepare(session).await?;
        match self.table.relation {
            Relation::Table if truncatable && self.truncate(session).await? => {
                landing.freeze(&self.table);
            }
            Relation::Table => {
                // Of an extension's configuration table the extension's own rows stay.
                let filter = self.table.filter.as_deref().unwrap_or("true");
                let delete = format!("DELETE FROM {} WHERE {filter}", scan::from(&self.table));
                self.identify_rows(session, &mut landing).await?;
                session
                    .batch_execute(&delete)
                    .await
                    .map_err(|error| self.not_deleted(&error))?;
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

    /// False: somebody reads the table, and goes on reading; its rows are deleted beside him then.
    async fn truncate(&self, session: &Session) -> Result<bool, Status> {
        let truncate = format!(
            "SAVEPOINT truncate; SET LOCAL lock_timeout = '{READERS_WAIT}'; TRUNCATE {}; RELEASE SAVEPOINT truncate",
            scan::from(&self.table)
        );
        let (truncated, then) = match session.batch_execute(&truncate).await {
            Ok(()) => (true, format!("SET LOCAL lock_timeout = '{LOCK_WAIT}'")),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                (false, "ROLLBACK TO SAVEPOINT truncate".to_owned())
            }
            Err(error) => return Err(self.failed(&error)),
        };
        let after = session.batch_execute(&then).await;
        after.map_err(|error| self.failed(&error))?;
        Ok(truncated)
    }

    pub(super) async fn prepare(&self, session: &Session) -> Result<Landing, Status> {
        Landing::prepare_with_deletes(session, &self.table)
            .await
            .map_err(|error| self.failed(&error))
    }

    async fn identify_rows(&self, session: &Session, landing: &mut Landing) -> Result<(), Status> {
        let identified = landing.identify_rows(session, &self.table).await;
        identified.map_err(|error| self.failed(&error))
    }

    /// See [`Landing::identify_rows`].
    fn not_deleted(&self, error: &tokio_postgres::Error) -> Status {
        if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) {
            return Status::failed_precondition(format!(
                "{}: rows must be deleted, which a publication tells of, and the table has no replica identity. It was not given one for as \
                 long as that takes: somebody goes on reading it, or it is not the target agent's role's. ALTER TABLE ... REPLICA IDENTITY \
                 FULL at the target, or end who reads it, and sync again",
                self.table
            ));
        }
        if error.code() == Some(&SqlState::INVALID_COLUMN_REFERENCE) {
            return Status::failed_precondition(format!(
                "{}: rows must be deleted, which a publication tells of that has not all columns of the table, and nothing but all of them \
                 identifies a row ({}). Take the table out of the publication at the target (ALTER PUBLICATION ... DROP TABLE), sync, and \
                 add it again",
                self.table,
                postgres_text(error)
            ));
        }
        self.failed(error)
    }

    pub(super) async fn delete(&self, session: &Session, surplus: Places) -> Result<(), Status> {
        for batch in surplus.batches() {
            for places in batch.map_err(spilled)?.chunk_by(|a, b| a.table == b.table) {
                let deleted = session
                    .execute(&delete_sql(&self.table, places), &[])
                    .await
                    .map_err(|error| self.not_deleted(&error))?;
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
    pub(super) async fn load(
        &self,
        session: &Session,
        landing: Landing,
        frames: Frames,
        expected: Option<u64>,
        objects: &[Oid],
    ) -> Result<u64, Status> {
        let what = format!("syncing {}", self.table);
        let chunks = ReceiverStream::new(frames).map(|frame| part_frame(frame?));
        let wal_writer = WalWriter::of(self.sessions, &self.migration);
        let copied = copy_in(session, &landing.copy_in, chunks, wal_writer, &what).await?;
        let sent = copied.digest.rows;
        if let Some(expected) = expected.filter(|expected| *expected != sent) {
            return Err(Status::data_loss(format!(
                "{what}: {sent} rows were sent, {expected} were asked for"
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
            .map_err(|error| self.failed(&error))?;
        Ok(copied.wire_bytes)
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
