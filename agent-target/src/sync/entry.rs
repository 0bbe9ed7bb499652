//! The entry of a sync in the ledger: claimed before anything is done, completed in the same transaction.
use pgconvoy_agent_core::session::Session;
use pgconvoy_proto::model::{How, SyncCounts};
use pgconvoy_proto::wire;
use tonic::Status;

use super::{Sync, receipt};
use crate::ledger;

impl Sync<'_> {
    /// Inserts the entry; false when there is one, committed: but a table whose rows were looked at may still be copied whole. Waits for
    /// one that is not yet.
    pub(super) async fn claim(&self, session: &Session) -> Result<bool, Status> {
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

    pub(super) async fn recorded(&self, session: &Session) -> Result<wire::SyncReceipt, Status> {
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

    /// Ledger and entry, with the rows.
    pub(super) async fn enter(
        &self,
        session: &Session,
        counts: SyncCounts,
        wire_bytes: u64,
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
                     wire_bytes = $8, committed_at = clock_timestamp()
                 WHERE migration = $1 AND table_oid = $2 AND snapshot = $3",
                &[
                    migration,
                    oid,
                    snapshot,
                    &counts.how.as_str(),
                    &(counts.inserted as i64),
                    &(counts.changed as i64),
                    &(counts.deleted as i64),
                    &(wire_bytes as i64),
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
