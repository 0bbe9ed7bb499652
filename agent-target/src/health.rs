//! How the target does: read from its statistics and catalogs, for `monitor`. Texts of statements are without their constants: only those
//! that pg_stat_statements normalises are told.
use std::path::Path;

use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::session::{Session, qualified};
use pgconvoy_agent_core::status;
use pgconvoy_proto::health::{
    Connections, Counters, Health, Sequence, Size, Slot, Slowest, Standby, Statement,
};
use tokio_postgres::{Error, Row};
use tonic::Status;

use crate::facts;

const SERVER: &str = "
    SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8, pg_is_in_recovery(),
           pg_database_size(current_database())";

const CONNECTIONS: &str = "
    SELECT count(*), current_setting('max_connections')::int8,
           count(*) FILTER (WHERE ours AND state = 'active'),
           count(*) FILTER (WHERE ours AND state LIKE 'idle in transaction%'),
           count(*) FILTER (WHERE ours AND wait_event_type = 'Lock'),
           coalesce(extract(epoch FROM max(clock_timestamp() - xact_start) FILTER (WHERE ours)), 0)::float8
    FROM (SELECT *, datname = current_database() AND pid <> pg_backend_pid() AS ours FROM pg_stat_activity
          WHERE backend_type = 'client backend') a";

const COUNTERS: &str = "
    SELECT stats_reset::text, xact_commit, xact_rollback, deadlocks, conflicts, coalesce(checksum_failures, 0),
           sessions_fatal, sessions_killed, temp_bytes, blks_hit::float8 / nullif(blks_hit + blks_read, 0)
    FROM pg_stat_database WHERE datname = current_database()";

/// A column may be narrower than the sequence that feeds it.
const SEQUENCES: &str = "
    SELECT format('%I.%I', s.schemaname, s.sequencename), s.last_value, l.last,
           (s.last_value::float8 - s.min_value::float8) / nullif(l.last::float8 - s.min_value::float8, 0)
    FROM pg_sequences s
    JOIN pg_namespace n ON n.nspname = s.schemaname
    JOIN pg_class c ON c.relname = s.sequencename AND c.relnamespace = n.oid
    LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
                             AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
    LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    CROSS JOIN LATERAL (SELECT least(s.max_value, CASE a.atttypid WHEN 'int2'::regtype THEN 32767
                                                  WHEN 'int4'::regtype THEN 2147483647 ELSE s.max_value END)) l (last)
    WHERE s.schemaname <> 'pgconvoy' AND s.last_value IS NOT NULL AND s.increment_by > 0 AND NOT s.cycle
    ORDER BY 4 DESC NULLS LAST, 1 LIMIT 10";

const INVALID_INDEXES: &str = "
    SELECT format('%I.%I', n.nspname, x.relname)
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace
    WHERE x.relkind = 'i' AND NOT (i.indisvalid AND i.indisready AND i.indislive) AND n.nspname !~ '^pg_(toast|temp)' ORDER BY 1";

/// A standby has no position of its own to compare with.
const STANDBYS: &str = "
    SELECT coalesce(application_name, ''), coalesce(state, ''), CASE WHEN NOT pg_is_in_recovery()
           THEN greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), 0)::int8 END
    FROM pg_stat_replication ORDER BY 1";
const SLOTS: &str = "
    SELECT slot_name::text, active, CASE WHEN NOT pg_is_in_recovery()
           THEN greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::int8 END
    FROM pg_replication_slots ORDER BY 1";

/// Rows as ANALYZE and VACUUM count them: n_live_tup has those twice that a session loaded and told of only after ANALYZE had counted them.
const LARGEST: &str = "
    SELECT format('%I.%I', schemaname, s.relname), pg_total_relation_size(relid),
           CASE WHEN c.reltuples >= 0 THEN c.reltuples::int8 ELSE n_live_tup END, n_dead_tup
    FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = relid
    WHERE schemaname <> 'pgconvoy' ORDER BY 2 DESC NULLS LAST, 1 LIMIT 10";

pub async fn gather(database: &Database) -> Result<Health, Status> {
    let session = database.connect("pgconvoy monitor").await?;
    let place = database.describe();
    let disk = data_directory(&session, database).await;
    let health = look(&session, place)
        .await
        .map_err(|error| status::postgres("reading the statistics", &error))?;
    let disk = disk.map_err(|error| status::postgres("reading the settings", &error))?;
    Ok(Health {
        disk_free: disk.and_then(|folder| facts::free(Path::new(&folder))),
        ..health
    })
}

async fn data_directory(session: &Session, database: &Database) -> Result<Option<String>, Error> {
    if !database.is_on_this_machine() {
        return Ok(None);
    }
    facts::data_directory(session).await
}

async fn look(session: &Session, place: String) -> Result<Health, Error> {
    let server = session.query_one(SERVER, &[]).await?;
    Ok(Health {
        place,
        version: session.server_version(),
        uptime_seconds: server.get(0),
        in_recovery: server.get(1),
        database_bytes: count(&server, 2),
        connections: connections(&session.query_one(CONNECTIONS, &[]).await?),
        counters: counters(&session.query_one(COUNTERS, &[]).await?),
        disk_free: None,
        sequences: sequences(session).await?,
        invalid_indexes: all(session, INVALID_INDEXES, |row| row.get(0)).await?,
        standbys: all(session, STANDBYS, |row| Standby {
            name: row.get(0),
            state: row.get(1),
            lag_bytes: row.get::<_, Option<i64>>(2).map(|bytes| bytes as u64),
        })
        .await?,
        slots: all(session, SLOTS, |row| Slot {
            name: row.get(0),
            active: row.get(1),
            retained_bytes: row.get::<_, Option<i64>>(2).map(|bytes| bytes as u64),
        })
        .await?,
        largest: all(session, LARGEST, |row| Size {
            table: row.get(0),
            bytes: count(row, 1),
            live_rows: count(row, 2),
            dead_rows: count(row, 3),
        })
        .await?,
        slowest: slowest(session).await?,
    })
}

async fn all<T>(session: &Session, query: &str, make: fn(&Row) -> T) -> Result<Vec<T>, Error> {
    Ok(session.query(query, &[]).await?.iter().map(make).collect())
}

/// A count, a size: a relation that was dropped meanwhile has none.
fn count(row: &Row, at: usize) -> u64 {
    row.get::<_, Option<i64>>(at).unwrap_or(0).max(0) as u64
}

fn connections(row: &Row) -> Connections {
    Connections {
        used: count(row, 0),
        max: count(row, 1),
        active: count(row, 2),
        idle_in_transaction: count(row, 3),
        waiting_for_locks: count(row, 4),
        longest_transaction_seconds: row.get(5),
    }
}

fn counters(row: &Row) -> Counters {
    Counters {
        since: row.get(0),
        commits: count(row, 1),
        rollbacks: count(row, 2),
        deadlocks: count(row, 3),
        conflicts: count(row, 4),
        checksum_failures: count(row, 5),
        sessions_fatal: count(row, 6),
        sessions_killed: count(row, 7),
        temporary_bytes: count(row, 8),
        cache_hits: row.get(9),
    }
}

async fn sequences(session: &Session) -> Result<Vec<Sequence>, Error> {
    all(session, SEQUENCES, |row| Sequence {
        name: row.get(0),
        last_value: row.get(1),
        limit: row.get(2),
        used: row.get::<_, Option<f64>>(3).unwrap_or(1.0),
    })
    .await
}

/// Only queries: in other statements constants stay what they are, and one of them may be a password. Those of catalogs and of the ledger are left out:
/// they are ours, most of them.
async fn slowest(session: &Session) -> Result<Slowest, Error> {
    let schema =
        "SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                  WHERE e.extname = 'pg_stat_statements'";
    let Some(row) = session.query_opt(schema, &[]).await? else {
        return Ok(Slowest::Missing);
    };
    let query = format!(
        "SELECT left(regexp_replace(query, '\\s+', ' ', 'g'), 120), calls, mean_exec_time, total_exec_time
         FROM {} WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND query ~* '^\\s*(select|insert|update|delete|merge|with)\\M'
           AND query !~ '\\m(pgconvoy|pg_(?!sleep|advisory|try_advisory))'
         ORDER BY total_exec_time DESC LIMIT 10",
        qualified(row.get(0), "pg_stat_statements")
    );
    let statements = all(session, &query, |row| Statement {
        query: row.get(0),
        calls: count(row, 1),
        mean_ms: row.get(2),
        total_ms: row.get(3),
    });
    match statements.await {
        Ok(statements) => Ok(Slowest::Statements(statements)),
        Err(error) => match error.as_db_error() {
            Some(refused) => Ok(Slowest::Unreadable(refused.message().into())),
            None => Err(error),
        },
    }
}
