//! One part's journey into the target: the stream, digest check, COPY in, and the ledger entry that commits with the rows.
//!
//! Invariant 1 (bytes): only what [`Opener`] gave out reaches PostgreSQL. Invariant 2 (one commit): the entry is inserted
//! before the COPY, so that a second attempt waits for the first one's end instead of doubling its rows.
use std::pin::pin;

use bytes::Bytes;
use futures_util::SinkExt;
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use pgconvoy_proto::frame::Opener;
use pgconvoy_proto::model::{Digest, Part, Table, required};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::part_frame::Frame;
use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::landing::Landing;
use crate::ledger::{self, PlannedTable};
use crate::sessions::{Purpose, Sessions};

const CHUNKS_OPENED: usize = 2;

/// Loads one part. Idempotent: `already` when the ledger has it.
pub async fn load_part(
    sessions: &Sessions,
    mut frames: impl Stream<Item = Result<wire::PartFrame, Status>> + Unpin + Send + 'static,
) -> Result<wire::PartReceipt, Status> {
    let first = frames
        .next()
        .await
        .transpose()?
        .and_then(|frame| frame.frame);
    let Some(Frame::Header(header)) = first else {
        return Err(Status::invalid_argument("a part begins with its header"));
    };
    let part = Part::try_from(required(header.part, "part")?)?;
    let sent = Table::try_from(required(header.table, "table")?)?;
    let migration = header.migration;
    let session = sessions.take(&migration, Purpose::Load).await?;
    let job = Job {
        migration,
        snapshot: header.snapshot,
        table: sent,
        part,
    };
    let receipt = job.run(&session, frames).await?;
    sessions.give_back(&job.migration, Purpose::Load, session);
    Ok(receipt)
}

struct Job {
    migration: String,
    snapshot: String,
    table: Table,
    part: Part,
}

impl Job {
    async fn run(
        &self,
        session: &Session,
        frames: impl Stream<Item = Result<wire::PartFrame, Status>> + Unpin + Send + 'static,
    ) -> Result<wire::PartReceipt, Status> {
        let what = format!("loading {}, part {}", self.table, self.part.number);
        let failed = |error: tokio_postgres::Error| status::postgres(&what, &error);
        // All are sent before any is answered; they stay in order.
        let (begun, planned, claimed) = tokio::join!(
            session.batch_execute("BEGIN"),
            ledger::table(session, &self.migration, self.part.table),
            self.claim(session)
        );
        begun.map_err(failed)?;
        self.check_plan(&planned?)?;
        if !claimed? {
            session.batch_execute("ROLLBACK").await.map_err(failed)?;
            return Ok(receipt(self.recorded(session).await?, true));
        }
        let landing = Landing::prepare(session, &self.table)
            .await
            .map_err(failed)?;
        let (trailer, copied) = self.copy(session, &landing.copy_in, frames, &what).await?;
        let digest = Digest::from(required(trailer.digest, "the trailer's digest")?);
        if copied != digest.rows {
            return Err(Status::data_loss(format!(
                "{what}: PostgreSQL took {copied} rows, {} were sent",
                digest.rows
            )));
        }
        landing
            .settle(session, &self.migration)
            .await
            .map_err(failed)?;
        self.enter(session, digest).await?;
        session.batch_execute("COMMIT").await.map_err(failed)?;
        Ok(receipt(digest, false))
    }

    /// What is sent must be what was planned, and of the snapshot that the table's rows are to be of.
    fn check_plan(&self, planned: &PlannedTable) -> Result<(), Status> {
        let table = &self.table;
        if planned.table.columns != table.columns
            || planned.table.format != table.format
            || planned.table.relation != table.relation
            || planned.table.to_string() != table.to_string()
        {
            return Err(Status::failed_precondition(format!(
                "{table}: not as it was planned"
            )));
        }
        if planned.snapshot != self.snapshot {
            return Err(Status::failed_precondition(format!(
                "{table}: rows of snapshot {} were sent, of {:?} are expected",
                self.snapshot, planned.snapshot
            )));
        }
        Ok(())
    }

    /// Inserts the ledger entry; false when there is one, committed. Waits for one that is not yet.
    async fn claim(&self, session: &Session) -> Result<bool, Status> {
        let inserted = session
            .execute_typed(
                "INSERT INTO pgconvoy.parts (migration, table_oid, number, snapshot) VALUES ($1, $2, $3, $4)
                 ON CONFLICT DO NOTHING",
                &[
                    (&self.migration, Type::TEXT),
                    (&self.part.table, Type::OID),
                    (&(self.part.number as i32), Type::INT4),
                    (&self.snapshot, Type::TEXT),
                ],
            )
            .await
            .map_err(ledger::failed)?;
        Ok(inserted == 1)
    }

    async fn recorded(&self, session: &Session) -> Result<Digest, Status> {
        let row = session
            .query_one(
                "SELECT rows, bytes, digest FROM pgconvoy.parts
                 WHERE migration = $1 AND table_oid = $2 AND number = $3 AND snapshot = $4",
                &[
                    &self.migration,
                    &self.part.table,
                    &(self.part.number as i32),
                    &self.snapshot,
                ],
            )
            .await
            .map_err(ledger::failed)?;
        let (rows, bytes): (i64, i64) = (row.get(0), row.get(1));
        Ok(Digest {
            rows: rows as u64,
            bytes: bytes as u64,
            sum: Digest::parse_hex(row.get(2))?,
        })
    }

    async fn enter(&self, session: &Session, digest: Digest) -> Result<(), Status> {
        session
            .execute_typed(
                "UPDATE pgconvoy.parts SET rows = $5, bytes = $6, digest = $7, committed_at = clock_timestamp()
                 WHERE migration = $1 AND table_oid = $2 AND number = $3 AND snapshot = $4",
                &[
                    (&self.migration, Type::TEXT),
                    (&self.part.table, Type::OID),
                    (&(self.part.number as i32), Type::INT4),
                    (&self.snapshot, Type::TEXT),
                    (&(digest.rows as i64), Type::INT8),
                    (&(digest.bytes as i64), Type::INT8),
                    (&digest.hex(), Type::TEXT),
                ],
            )
            .await
            .map_err(ledger::failed)?;
        if self.table.unlogged {
            session
                .execute(
                    "INSERT INTO pgconvoy.unlogged_parts VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                    &[&self.migration, &self.part.table, &(self.part.number as i32)],
                )
                .await
                .map_err(ledger::failed)?;
        }
        Ok(())
    }

    /// COPY FROM STDIN of the stream's chunks. The trailer, and how many rows PostgreSQL took.
    async fn copy(
        &self,
        session: &Session,
        statement: &str,
        frames: impl Stream<Item = Result<wire::PartFrame, Status>> + Unpin + Send + 'static,
        what: &str,
    ) -> Result<(wire::PartTrailer, u64), Status> {
        let failed = |error: tokio_postgres::Error| status::postgres(what, &error);
        let told =
            |status: Status| Status::new(status.code(), format!("{what}: {}", status.message()));
        let (sealed_sender, sealed) = mpsc::channel(CHUNKS_OPENED);
        let (opened_sender, mut opened) = mpsc::channel(CHUNKS_OPENED);
        let receiving = forward(frames, sealed_sender);
        let opening = tokio::task::spawn_blocking(move || open(sealed, opened_sender));
        let mut sink = pin!(
            session
                .copy_in::<_, Bytes>(statement)
                .await
                .map_err(failed)?
        );
        let loading = async {
            let mut chunks = 0;
            while let Some(next) = opened.recv().await {
                match next.map_err(told)? {
                    Opened::Data(data) => {
                        chunks += 1;
                        sink.feed(data).await.map_err(failed)?;
                    }
                    Opened::Trailer(trailer) if trailer.chunks == chunks => return Ok(trailer),
                    Opened::Trailer(_) => break,
                }
            }
            Err(Status::data_loss(format!(
                "{what}: the stream ended before its end"
            )))
        };
        // Whichever breaks first ends the part: PostgreSQL that is gone must not leave the stream waiting for it.
        let trailer = tokio::select! {
            loaded = loading => loaded,
            Err(status) = receiving => Err(told(status)),
        }?;
        let copied = sink.finish().await.map_err(|error| refused(what, &error))?;
        opening
            .await
            .map_err(|error| Status::internal(format!("{what}: {error}")))?;
        Ok((trailer, copied))
    }
}

/// A check constraint may read tables that are not loaded yet: what it refuses now may be taken later.
fn refused(what: &str, error: &tokio_postgres::Error) -> Status {
    let status = status::postgres(what, error);
    match error.code() {
        Some(&SqlState::CHECK_VIOLATION) => Status::out_of_range(status.message()),
        _ => status,
    }
}

fn receipt(digest: Digest, already: bool) -> wire::PartReceipt {
    wire::PartReceipt {
        digest: Some(digest.into()),
        already,
    }
}

async fn forward(
    mut frames: impl Stream<Item = Result<wire::PartFrame, Status>> + Unpin,
    sealed: mpsc::Sender<wire::PartFrame>,
) -> Result<(), Status> {
    while let Some(frame) = frames.next().await {
        if sealed.send(frame?).await.is_err() {
            break;
        }
    }
    Ok(())
}

enum Opened {
    Data(Bytes),
    Trailer(wire::PartTrailer),
}

/// Decompresses and checks, on a thread of its own.
fn open(mut sealed: mpsc::Receiver<wire::PartFrame>, opened: mpsc::Sender<Result<Opened, Status>>) {
    let mut opener = match Opener::new() {
        Ok(opener) => opener,
        Err(error) => {
            // Without a receiver the load has ended already, for a reason of its own.
            opened
                .blocking_send(Err(Status::internal(error.to_string())))
                .ok();
            return;
        }
    };
    while let Some(frame) = sealed.blocking_recv() {
        let next = match frame.frame {
            Some(Frame::Chunk(chunk)) => opener
                .open(chunk)
                .map(Opened::Data)
                .map_err(|error| Status::data_loss(error.to_string())),
            Some(Frame::Trailer(trailer)) => Ok(Opened::Trailer(trailer)),
            _ => Err(Status::invalid_argument(
                "a frame that is neither chunk nor trailer",
            )),
        };
        let last = !matches!(next, Ok(Opened::Data(_)));
        if opened.blocking_send(next).is_err() || last {
            return;
        }
    }
}
