//! One part's journey into the target: the stream, digest check, COPY in, and the ledger entry that commits with the rows.
//!
//! Invariant 2 (one commit): the entry is inserted
//! before the COPY, so that a second attempt waits for the first one's end instead of doubling its rows.
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Digest, Part, Table, required};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::part_frame::Frame;
use tokio_postgres::types::Type;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::copy_in::copy_in;
use crate::landing::Landing;
use crate::ledger::{self, PlannedTable};
use crate::sessions::{Purpose, Sessions};
use crate::wal_writer::WalWriter;

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
    let wal_writer = WalWriter::of(sessions, &job.migration);
    let receipt = job.run(&session, frames, wal_writer).await?;
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
        wal_writer: WalWriter<'_>,
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
        let mut landing = Landing::prepare(session, &self.table)
            .await
            .map_err(failed)?;
        if self.part.is_whole() {
            let prepared = landing.freeze_if_empty(session, &self.table).await;
            prepared.map_err(failed)?;
        }
        let copied = copy_in(session, &landing.copy_in, frames, wal_writer, &what).await?;
        landing
            .settle(session, &self.migration)
            .await
            .map_err(|error| status::of_row(&what, &error))?;
        self.enter(session, copied.digest, copied.wire_bytes)
            .await?;
        session.batch_execute("COMMIT").await.map_err(failed)?;
        Ok(receipt(copied.digest, false))
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

    async fn enter(
        &self,
        session: &Session,
        digest: Digest,
        wire_bytes: u64,
    ) -> Result<(), Status> {
        session
            .execute_typed(
                "UPDATE pgconvoy.parts SET rows = $5, bytes = $6, digest = $7, wire_bytes = $8,
                     committed_at = clock_timestamp()
                 WHERE migration = $1 AND table_oid = $2 AND number = $3 AND snapshot = $4",
                &[
                    (&self.migration, Type::TEXT),
                    (&self.part.table, Type::OID),
                    (&(self.part.number as i32), Type::INT4),
                    (&self.snapshot, Type::TEXT),
                    (&(digest.rows as i64), Type::INT8),
                    (&(digest.bytes as i64), Type::INT8),
                    (&digest.hex(), Type::TEXT),
                    (&(wire_bytes as i64), Type::INT8),
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
}

fn receipt(digest: Digest, already: bool) -> wire::PartReceipt {
    wire::PartReceipt {
        digest: Some(digest.into()),
        already,
    }
}
