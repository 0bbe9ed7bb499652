//! What is going on at the source: who is connected, what runs for long, what is scheduled, and whether anybody writes.
//!
//! Transaction ids tell for certain whether something was written while we watched: whoever writes has one, and this session has none.
use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::inventory::tables;
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::{facts, status};
use pgconvoy_proto::model::{Selection, Table};
use pgconvoy_proto::selection::Filter;
use pgconvoy_proto::survey::{
    Jobs, LONGEST_SAMPLE_MS, LongTransaction, Sessions, SourceSurvey, TableSize,
};
use tokio_postgres::Error;
use tonic::Status;

use crate::position;

/// Those of agents are none of the application's.
const SESSIONS: &str = "
    SELECT coalesce(usename, '')::text, coalesce(application_name, ''), count(*),
           count(*) FILTER (WHERE state <> 'idle')
    FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
      AND application_name !~ '^pgconvoy'
    GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2";

const LONG: &str = "
    SELECT coalesce(usename, '')::text, coalesce(application_name, ''), coalesce(state, ''),
           extract(epoch FROM clock_timestamp() - xact_start)::float8
    FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
      AND clock_timestamp() - xact_start >= interval '1 minute' AND application_name !~ '^pgconvoy'
    UNION ALL
    SELECT owner::text, gid, 'prepared', extract(epoch FROM clock_timestamp() - prepared)::float8
    FROM pg_prepared_xacts WHERE database = current_database()
    ORDER BY 4 DESC";

const ESTIMATES: &str = "
    SELECT t.oid, CASE WHEN c.relkind = 'p' THEN (
               SELECT CASE WHEN bool_and(l.reltuples >= 0) THEN sum(l.reltuples) END
               FROM pg_partition_tree(c.oid) p JOIN pg_class l ON l.oid = p.relid WHERE p.isleaf)
           ELSE nullif(c.reltuples, -1) END::float8
    FROM unnest($1::oid[]) t (oid) JOIN pg_class c ON c.oid = t.oid";

pub async fn gather(
    database: &Database,
    selection: &Selection,
    sample_ms: u32,
) -> Result<SourceSurvey, Status> {
    if sample_ms > LONGEST_SAMPLE_MS {
        return Err(Status::invalid_argument(format!(
            "writes are watched for at most {LONGEST_SAMPLE_MS} ms"
        )));
    }
    let filter = Filter::new(selection).map_err(|e| Status::invalid_argument(e.to_string()))?;
    let session = database.connect("pgconvoy preflight").await?;
    look(&session, &filter, Duration::from_millis(sample_ms.into()))
        .await
        .map_err(|error| status::postgres("looking at what goes on", &error))
}

async fn look(session: &Session, filter: &Filter, sample: Duration) -> Result<SourceSurvey, Error> {
    let mut selected = tables::relations(session, filter).await?;
    tables::describe(session, &mut selected).await?;
    let before = position::now(session, &selected).await?;
    let begun = Instant::now();
    // What is measured is what happens in this time.
    tokio::time::sleep(sample).await;
    let after = position::now(session, &selected).await?;
    let sessions = session.query(SESSIONS, &[]).await?;
    let long = session.query(LONG, &[]).await?;
    let size: i64 = session
        .query_one("SELECT pg_database_size(current_database())", &[])
        .await?
        .get(0);
    Ok(SourceSurvey {
        sample_seconds: begun.elapsed().as_secs_f64(),
        transactions: after.transactions_since(&before),
        wal_bytes: wal_bytes(session, &before, &after).await?,
        written: after.written_since(&before),
        sessions: sessions
            .iter()
            .map(|row| Sessions {
                role: row.get(0),
                application: row.get(1),
                count: row.get::<_, i64>(2) as u64,
                busy: row.get::<_, i64>(3) as u64,
            })
            .collect(),
        long_transactions: long
            .iter()
            .map(|row| LongTransaction {
                role: row.get(0),
                application: row.get(1),
                state: row.get(2),
                seconds: row.get(3),
            })
            .collect(),
        jobs: jobs(session).await?,
        tables: sizes(session, &selected).await?,
        database_bytes: size as u64,
        collation: facts::collation_version(session).await?,
    })
}

async fn wal_bytes(
    session: &Session,
    before: &position::Position,
    after: &position::Position,
) -> Result<Option<u64>, Error> {
    let row = session
        .query_one(
            "SELECT CASE WHEN NOT pg_is_in_recovery()
                         THEN greatest($1::text::pg_lsn - $2::text::pg_lsn, 0)::int8 END",
            &[&after.lsn(), &before.lsn()],
        )
        .await?;
    Ok(row.get::<_, Option<i64>>(0).map(|bytes| bytes as u64))
}

async fn jobs(session: &Session) -> Result<Jobs, Error> {
    // By its OID: its name cannot be looked up without USAGE.
    let may = session
        .query_opt(
            "SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
                    AND NOT row_security_active(c.oid)
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'cron' AND c.relname = 'job'",
            &[],
        )
        .await?;
    match may {
        None => return Ok(Jobs::None),
        Some(row) if row.get(0) => {}
        Some(_) => return Ok(Jobs::Unreadable),
    }
    let query = "SELECT coalesce(to_jsonb(j) ->> 'jobname', 'job ' || jobid::text), schedule::text
                 FROM cron.job j WHERE active ORDER BY 1";
    let rows = session.query(query, &[]).await?;
    Ok(Jobs::Active(
        rows.iter().map(|row| (row.get(0), row.get(1))).collect(),
    ))
}

async fn sizes(session: &Session, selected: &[Table]) -> Result<Vec<TableSize>, Error> {
    let oids: Vec<u32> = selected.iter().map(|table| table.oid).collect();
    let rows = session.query(ESTIMATES, &[&oids]).await?;
    let estimates: HashMap<u32, Option<f64>> =
        rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    Ok(selected
        .iter()
        .map(|table| TableSize {
            schema: table.schema.clone(),
            name: table.name.clone(),
            estimated_rows: estimates
                .get(&table.oid)
                .copied()
                .flatten()
                .map(|rows| rows as u64),
            bytes: table.size_bytes,
        })
        .collect())
}
