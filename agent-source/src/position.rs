//! Where a snapshot stands in the server's history, and what has been written since.
//!
//! Transaction ids tell for certain that nothing was written, in any database of the server. That something was written to a table
//! of the snapshot is seen in the server's statistics, which come late: up to a second, on 15 and later up to ten for a session that
//! stays idle (src/backend/utils/activity/pgstat.c).
use std::collections::HashMap;

use pgconvoy_agent_core::session::Session;
use pgconvoy_proto::model::{Oid, Relation, Table};
use pgconvoy_proto::wire;
use tokio_postgres::Error;

#[derive(Clone, Debug)]
pub struct Position {
    lsn: String,
    /// The first transaction id that was not given out yet.
    next: i64,
    /// Transactions with an id that were under way.
    open: i64,
    /// Rows written so far, by table.
    writes: HashMap<Oid, i64>,
    names: HashMap<Oid, String>,
}

/// A standby has a position too: where it has got with replaying.
const LSN: &str = "(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text";

/// Of a partitioned table its partitions count.
const WRITES: &str =
    "SELECT t.oid, sum(pg_stat_get_tuples_inserted(r.oid) + pg_stat_get_tuples_updated(r.oid)
                       + pg_stat_get_tuples_deleted(r.oid))::int8
     FROM unnest($1::oid[]) t (oid)
     CROSS JOIN LATERAL (SELECT t.oid UNION SELECT relid FROM pg_partition_tree(t.oid)) r (oid)
     GROUP BY 1";

/// `session` is in the transaction that holds the snapshot.
pub async fn of_snapshot(session: &Session, tables: &[Table]) -> Result<Position, Error> {
    let row = session
        .query_one(
            &format!(
                "SELECT {LSN}, pg_snapshot_xmax(s)::text::int8, (SELECT count(*) FROM pg_snapshot_xip(s))
                 FROM pg_current_snapshot() s"
            ),
            &[],
        )
        .await?;
    let tables = tables.iter().filter(|t| t.relation == Relation::Table);
    let names: HashMap<Oid, String> = tables.map(|t| (t.oid, t.to_string())).collect();
    Ok(Position {
        lsn: row.get(0),
        next: row.get(1),
        open: row.get(2),
        writes: writes(session, &names).await?,
        names,
    })
}

/// Where the server stands now.
pub async fn now(session: &Session, tables: &[Table]) -> Result<Position, Error> {
    of_snapshot(session, tables).await
}

impl Position {
    pub fn lsn(&self) -> &str {
        &self.lsn
    }

    /// Transactions that got an id since.
    pub fn transactions_since(&self, then: &Self) -> u64 {
        (self.next - then.next).max(0) as u64
    }

    /// Tables that were written since, and how many rows, as far as the statistics know yet.
    pub fn written_since(&self, then: &Self) -> Vec<(String, u64)> {
        let more = |oid: &Oid, rows: i64| rows - then.writes.get(oid).copied().unwrap_or(rows);
        let mut written: Vec<(String, u64)> = self
            .writes
            .iter()
            .filter(|(oid, rows)| more(oid, **rows) > 0)
            .filter_map(|(oid, rows)| Some((self.names.get(oid)?.clone(), more(oid, *rows) as u64)))
            .collect();
        written.sort();
        written
    }
}

/// `session` is in no transaction.
pub async fn since(session: &Session, then: &Position) -> Result<wire::PositionResponse, Error> {
    let row = session
        .query_one(
            &format!("SELECT {LSN}, pg_snapshot_xmax(s)::text::int8 FROM pg_current_snapshot() s"),
            &[],
        )
        .await?;
    let (lsn_now, next): (String, i64) = (row.get(0), row.get(1));
    let transactions = then.open + next - then.next;
    let mut written = Vec::new();
    if transactions > 0 {
        let now = writes(session, &then.names).await?;
        let moved = now
            .into_iter()
            .filter(|(oid, rows)| then.writes.get(oid) != Some(rows));
        written = moved
            .filter_map(|(oid, _)| then.names.get(&oid).cloned())
            .collect();
        written.sort();
    }
    Ok(wire::PositionResponse {
        lsn: then.lsn.clone(),
        lsn_now,
        transactions: transactions as u64,
        written,
    })
}

async fn writes(
    session: &Session,
    names: &HashMap<Oid, String>,
) -> Result<HashMap<Oid, i64>, Error> {
    let oids: Vec<Oid> = names.keys().copied().collect();
    let rows = session.query(WRITES, &[&oids]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
