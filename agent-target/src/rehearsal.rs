//! Scratch databases of rehearsals: made beside the target's, and dropped with the roles that a rehearsal created.
//!
//! Invariant 7 (nothing destroyed unasked): dropped is only what has both the name and the mark of one, or the name and nothing in it, and is not
//! in use: whoever drives a rehearsal holds its advisory lock. The target's database itself is asked for its encoding, and for nothing else.
use pgconvoy_agent_core::session::{Session, quote_ident, quote_literal};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::REHEARSAL;
use tokio_postgres::Error;
use tonic::Status;

use crate::drive;
use crate::sessions::Sessions;
use crate::steps::{Runner, attempt};

const NAME: &str = "pgconvoy_";
/// In the ledger's schema of a scratch database, and of no other. Not the database's comment: that is the source's to give.
const MARK: &str = "CREATE SCHEMA pgconvoy; CREATE TABLE pgconvoy.rehearsal ();
    COMMENT ON TABLE pgconvoy.rehearsal IS 'this database is dropped by: pgconvoy rehearse, pgconvoy clean'";
const APPLICATION: &str = "pgconvoy rehearse";
/// A scratch database is without its mark for a moment. Whoever makes or drops one holds this advisory lock of the target's database.
const MAKING: &str = "SELECT pg_advisory_lock(hashtextextended('pgconvoy rehearse', 0))";
/// As when it was created from template0: what is made in a database has an OID from 16384 on (PostgreSQL manual, OID Assignment).
const HOLDS_NOTHING: &str = "SELECT coalesce(max(oid), 0) < 16384 FROM (
    SELECT oid FROM pg_class UNION ALL SELECT oid FROM pg_namespace UNION ALL SELECT oid FROM pg_proc UNION ALL SELECT oid FROM pg_type
    UNION ALL SELECT oid FROM pg_extension UNION ALL SELECT oid FROM pg_event_trigger UNION ALL SELECT oid FROM pg_publication
    UNION ALL SELECT oid FROM pg_foreign_data_wrapper UNION ALL SELECT 16384 FROM pg_largeobject_metadata) o";
/// What the id of a rehearsal ends with, hexadecimal digits.
const ID_DIGITS: usize = 24;

/// The scratch database; none: the migration is no rehearsal.
pub fn database_of(migration: &str) -> Option<String> {
    migration
        .starts_with(REHEARSAL)
        .then(|| format!("{NAME}{migration}"))
}

fn failed(error: Error) -> Status {
    status::postgres("the scratch database of a rehearsal", &error)
}

/// Makes the scratch database; its name.
pub async fn open(sessions: &Sessions, migration: &str) -> Result<String, Status> {
    let name = database_of(migration)
        .ok_or_else(|| Status::invalid_argument(format!("{migration:?} is no rehearsal's id")))?;
    let session = sessions.live.connect(APPLICATION).await?;
    let row = session
        .query_one(
            "SELECT pg_encoding_to_char(encoding), datcollate::text, datctype::text,
                    coalesce(to_jsonb(d) ->> 'datlocprovider', 'c'),
                    coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
                    (SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user)
             FROM pg_database d WHERE datname = current_database()",
            &[],
        )
        .await
        .map_err(failed)?;
    if !row.get::<_, bool>(5) {
        return Err(Status::failed_precondition(
            "a rehearsal needs a scratch database, and the target agent's role may not create one: ALTER ROLE ... CREATEDB",
        ));
    }
    let literal = |at: usize| quote_literal(row.get(at));
    let locale = match (row.get::<_, &str>(3), row.get::<_, Option<&str>>(4)) {
        ("i", Some(locale)) => format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", quote_literal(locale)),
        ("b", Some(locale)) => format!(
            " LOCALE_PROVIDER builtin BUILTIN_LOCALE {}",
            quote_literal(locale)
        ),
        _ => String::new(),
    };
    let create = format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}{locale}",
        quote_ident(&name),
        literal(0),
        literal(1),
        literal(2)
    );
    session.batch_execute(MAKING).await.map_err(failed)?;
    session.batch_execute(&create).await.map_err(failed)?;
    let scratch = sessions.database(migration).connect(APPLICATION).await?;
    scratch.batch_execute(MARK).await.map_err(failed)?;
    Ok(name)
}

/// Drops those that nobody drives.
pub async fn clear(runner: &Runner) -> Result<Vec<String>, Status> {
    let live = runner.sessions.live.connect(APPLICATION).await?;
    live.batch_execute(MAKING).await.map_err(failed)?;
    let like = format!("{NAME}{REHEARSAL}");
    let rows = live
        .query(
            "SELECT datname::text FROM pg_database WHERE starts_with(datname, $1) AND datallowconn ORDER BY 1",
            &[&like],
        )
        .await
        .map_err(failed)?;
    let mut removed = Vec::new();
    for row in rows {
        let name: String = row.get(0);
        let Some(migration) = name.strip_prefix(NAME) else {
            continue;
        };
        match drop_unused(runner, &live, migration).await? {
            Dropped::Yes => removed.push(format!("scratch database {name}")),
            other => tracing::info!(name, ?other, "stays"),
        }
    }
    Ok(removed)
}

/// Drops the one of this rehearsal. FAILED_PRECONDITION: it has not the mark of one.
pub async fn close(runner: &Runner, migration: &str) -> Result<(), Status> {
    let live = runner.sessions.live.connect(APPLICATION).await?;
    match drop_unused(runner, &live, migration).await? {
        Dropped::Yes => Ok(()),
        Dropped::InUse => Err(Status::aborted(format!("{migration} is being driven"))),
        Dropped::Unmarked => Err(Status::failed_precondition(format!(
            "the database of {migration:?} is not marked as a rehearsal's: it stays"
        ))),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dropped {
    Yes,
    InUse,
    Unmarked,
}

async fn drop_unused(runner: &Runner, live: &Session, migration: &str) -> Result<Dropped, Status> {
    let Some(name) = database_of(migration) else {
        return Ok(Dropped::Unmarked);
    };
    let scratch = runner.sessions.database(migration);
    let scratch = scratch.connect(APPLICATION).await?;
    let marked = "SELECT to_regclass('pgconvoy.rehearsal') IS NOT NULL";
    let marked = scratch.query_one(marked, &[]).await.map_err(failed)?;
    if !marked.get::<_, bool>(0) && !is_unfinished(&scratch, migration).await.map_err(failed)? {
        return Ok(Dropped::Unmarked);
    }
    if !drive::lock(&scratch, migration).await.map_err(failed)? {
        return Ok(Dropped::InUse);
    }
    runner.sessions.close_idle(migration);
    drop_roles(&scratch).await.map_err(failed)?;
    scratch.close().await;
    let drop = format!("DROP DATABASE {} WITH (FORCE)", quote_ident(&name));
    live.batch_execute(&drop).await.map_err(failed)?;
    runner.store.remove(migration)?;
    Ok(Dropped::Yes)
}

/// The agent was killed before it could mark what it had created.
async fn is_unfinished(scratch: &Session, migration: &str) -> Result<bool, Error> {
    let id = migration.strip_prefix(REHEARSAL).unwrap_or_default();
    let ours = id.len() == ID_DIGITS && id.bytes().all(|digit| digit.is_ascii_hexdigit());
    Ok(ours && scratch.query_one(HOLDS_NOTHING, &[]).await?.get(0))
}

/// Roles are the server's: those that the rehearsal created go before its database does, which is what knows them. Subscriptions would keep
/// the database.
async fn drop_roles(scratch: &Session) -> Result<(), Error> {
    let ledger = "SELECT to_regclass('pgconvoy.roles') IS NOT NULL";
    let subscriptions =
        "SELECT quote_ident(subname) FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
                         WHERE d.datname = current_database()";
    for row in scratch.query(subscriptions, &[]).await? {
        let name: String = row.get(0);
        scratch
            .batch_execute(&format!("ALTER SUBSCRIPTION {name} DISABLE; ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"))
            .await?;
        scratch
            .batch_execute(&format!("DROP SUBSCRIPTION {name}"))
            .await?;
    }
    if !scratch.query_one(ledger, &[]).await?.get::<_, bool>(0) {
        return Ok(());
    }
    let made =
        "SELECT quote_ident(r.name) FROM pgconvoy.roles r JOIN pg_roles p ON p.rolname = r.name";
    let made: Vec<String> = scratch
        .query(made, &[])
        .await?
        .iter()
        .map(|r| r.get(0))
        .collect();
    if made.is_empty() {
        return Ok(());
    }
    scratch.batch_execute("BEGIN").await?;
    let all = made.join(", ");
    // Everything that they own is of the scratch database.
    let statement = format!("DROP OWNED BY {all} CASCADE; DROP ROLE {all}");
    if let Some(reason) = attempt(scratch, &statement).await? {
        tracing::warn!(statement, reason, "roles of a rehearsal stay");
    }
    scratch.batch_execute("COMMIT").await
}
