//! What an agent tells preflight of its server.
use std::time::{SystemTime, UNIX_EPOCH};

use pgconvoy_proto::facts::ServerFacts;
use pgconvoy_proto::survey::CollationVersion;
use tokio_postgres::Error;

use crate::database::Database;
use crate::session::Session;

pub async fn server(session: &Session, database: &Database) -> Result<ServerFacts, Error> {
    let row = session
        .query_one(
            "SELECT current_database()::text, current_user::text, r.rolsuper,
                    pg_encoding_to_char(d.encoding)::text, d.datcollate::text, d.datctype::text,
                    to_jsonb(d) ->> 'datlocprovider',
                    current_setting('max_connections')::int4,
                    (SELECT count(*)::int4 FROM pg_stat_activity WHERE backend_type = 'client backend'),
                    current_setting('max_locks_per_transaction')::int4,
                    current_setting('max_prepared_transactions')::int4,
                    pg_is_in_recovery(),
                    (extract(epoch FROM clock_timestamp()) * 1000000)::int8
             FROM pg_database d, pg_roles r
             WHERE d.datname = current_database() AND r.rolname = current_user",
            &[],
        )
        .await?;
    let count = |at: usize| row.get::<_, i32>(at) as u32;
    let agent_clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Ok(ServerFacts {
        version: session.server_version(),
        database: row.get(0),
        place: database.describe(),
        role: row.get(1),
        superuser: row.get(2),
        encoding: row.get(3),
        collate: row.get(4),
        ctype: row.get(5),
        locale_provider: row
            .get::<_, Option<String>>(6)
            .unwrap_or_else(|| "c".into()),
        max_connections: count(7),
        used_connections: count(8),
        max_locks_per_transaction: count(9),
        max_prepared_transactions: count(10),
        in_recovery: row.get(11),
        session_stable: is_stable(session, database).await?,
        server_clock_us: row.get(12),
        agent_clock_us: agent_clock.as_micros() as i64,
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        machine: machine(database),
        login_triggers: login_triggers(session).await?,
        agent_version: env!("CARGO_PKG_VERSION").into(),
    })
}

async fn login_triggers(session: &Session) -> Result<Vec<String>, Error> {
    let rows = session
        .query(
            "SELECT evtname::text FROM pg_event_trigger
             WHERE evtevent = 'login' AND evtenabled <> 'D' AND current_setting('event_triggers', true) = 'on' ORDER BY 1",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Which machine both the server and the agent run on, where that can be told.
pub fn machine(database: &Database) -> Option<String> {
    database.is_on_this_machine().then(running_kernel).flatten()
}

/// Of every boot of a kernel another one (random(4)); containers that share processors have the same.
fn running_kernel() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// Of the database's collation.
pub async fn collation_version(session: &Session) -> Result<CollationVersion, Error> {
    if session.server_version() < 150_000 {
        return Ok(CollationVersion::default());
    }
    let row = session
        .query_one(
            "SELECT datcollversion, pg_database_collation_actual_version(oid) FROM pg_database
             WHERE datname = current_database()",
            &[],
        )
        .await?;
    Ok(CollationVersion {
        recorded: row.get(0),
        actual: row.get(1),
    })
}

/// Two sessions that are open at once have two backends, but behind a transaction pooler, which lends one to whoever asks next: then what
/// our sessions are set to is undone, for those who get it after us, and no session sets anything any more. `session` is in no
/// transaction: in one it has a backend of its own.
pub async fn has_own_backend(session: &Session, database: &Database) -> Result<bool, Error> {
    match database.connect("pgconvoy pooler check").await {
        Ok(other) if other.backend_pid() == session.backend_pid() => {
            other.batch_execute("RESET ALL").await?;
            database.set_pooled();
            Ok(false)
        }
        Ok(_) => Ok(true),
        // Without a second connection there is no telling.
        Err(error) => {
            tracing::debug!(%error, "one session only");
            Ok(true)
        }
    }
}

/// Behind a transaction pooler a session setting does not survive, or the backend changes.
async fn is_stable(session: &Session, database: &Database) -> Result<bool, Error> {
    if !has_own_backend(session, database).await? {
        return Ok(false);
    }
    let ask = "SELECT pg_backend_pid(), current_setting('application_name')";
    let before = session.query_one(ask, &[]).await?;
    session
        .batch_execute("SET application_name = 'pgconvoy pooler check'")
        .await?;
    let mut stable = true;
    for _ in 0..3 {
        let row = session.query_one(ask, &[]).await?;
        stable &= row.get::<_, i32>(0) == before.get::<_, i32>(0)
            && row.get::<_, &str>(1) == "pgconvoy pooler check";
    }
    session
        .execute(
            "SELECT set_config('application_name', $1, false)",
            &[&before.get::<_, &str>(1)],
        )
        .await?;
    Ok(stable)
}
