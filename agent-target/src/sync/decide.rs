//! How a table is brought over: row by row, or copied again whole; and what foreign keys have to say to that.
use pgconvoy_agent_core::session::{Session, qualified};
use pgconvoy_proto::model::{How, Relation, SyncCounts};
use tonic::Status;

use super::Sync;
use super::merge::Differing;
use crate::unvalidated;

/// What a row costs, in rows that are copied into an empty table: one that is inserted among others, one that is deleted. As measured
/// (docs/sync.md).
const INSERTED: u64 = 1;
const DELETED: u64 = 2;

/// Whether copying all of the source's rows again is less work.
fn is_worth_copying(found: &Differing, source_rows: u64) -> bool {
    let inserts = found.inserted + found.changed;
    let deletes = found.deleted + found.changed;
    inserts * INSERTED + deletes * DELETED > source_rows
}

impl Sync<'_> {
    /// Where the table cannot be truncated, copying it again would delete all rows of the target one by one: never less work. Rows that
    /// break a constraint that is NOT VALID are at the target already; they need not come again.
    pub(super) async fn decide(
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
        let copy = self.table.relation == Relation::Table
            && is_worth_copying(found, self.source.rows)
            && self.is_truncatable(session).await?
            && !self.may_refuse_old_rows(session).await?;
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

    async fn may_refuse_old_rows(&self, session: &Session) -> Result<bool, Status> {
        let any = unvalidated::any(session, &self.table).await;
        any.map_err(|error| self.failed(&error))
    }

    /// All of it is the source's to say, and no other table's foreign key refers to it: TRUNCATE refuses that.
    pub(super) async fn is_truncatable(&self, session: &Session) -> Result<bool, Status> {
        let whole = self.table.filter.is_none() && !self.table.managed;
        Ok(whole && self.referenced(session, "true").await?.is_empty())
    }

    /// Foreign keys of other tables that refer to this one and fulfil the condition on pg_constraint.
    pub(super) async fn referenced(
        &self,
        session: &Session,
        condition: &str,
    ) -> Result<Vec<String>, Status> {
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
    pub(super) async fn check_cascades(&self, session: &Session) -> Result<(), Status> {
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
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_third_of_the_rows_changed_is_as_much_work_as_all_of_them() {
        let worth = |inserted, changed, deleted| {
            let folder = std::env::temp_dir();
            let mut found = Differing::nothing(&Relation::Table, &folder).unwrap();
            (found.inserted, found.changed, found.deleted) = (inserted, changed, deleted);
            is_worth_copying(&found, 1000)
        };
        assert!(!worth(0, 300, 0) && worth(0, 400, 0));
        assert!(!worth(900, 0, 0), "a table that was only added to");
        assert!(!worth(0, 0, 400) && worth(0, 0, 600));
    }
}
