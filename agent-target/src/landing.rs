//! Where COPY FROM puts the rows of a part: into their table, or on a temporary table from which large objects are made. All of
//! it in the part's transaction.
use pgconvoy_agent_core::scan;
use pgconvoy_agent_core::session::{Session, qualified, quote_ident, quote_literal};
use pgconvoy_proto::model::{Relation, Table};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};

use crate::{large_objects, unvalidated};

/// PostgreSQL's notation. Readers of a table that is to be had alone are waited for so long; then it is done without.
pub const READERS_WAIT: &str = "3s";

pub struct Landing {
    /// COPY ... FROM STDIN
    pub copy_in: String,
    after: After,
}

/// What is left to be done once the rows are there.
enum After {
    /// Puts search_path, triggers and constraints that are NOT VALID back as they were; deferred constraints are looked at first: ALTER TABLE refuses to be before them.
    Restore(String),
    MakeLargeObjects,
}

impl Landing {
    pub async fn prepare(session: &Session, table: &Table) -> Result<Self, Error> {
        match table.relation {
            Relation::Table => Ok(Self {
                copy_in: scan::copy_in(table),
                after: After::Restore({
                    let name = name_of(table);
                    let neighbours = find_neighbours(&table.schema);
                    // All are sent before any is answered; they stay in order.
                    let (constraints, triggers, found) = tokio::join!(
                        unvalidated::own(session, &name),
                        enabled(session, TRIGGERS, &name),
                        session.batch_execute(&neighbours)
                    );
                    let mut restore = unvalidated::put_aside(session, &name, &constraints?).await?;
                    restore += &disable(session, &triggers?).await?;
                    found?;
                    let fixed = fixed(table);
                    format!(
                        "SET LOCAL search_path = ''; {fixed}SET CONSTRAINTS ALL IMMEDIATE; {restore}"
                    )
                }),
            }),
            Relation::LargeObjects { .. } => Ok(Self {
                copy_in: large_objects::stage(session, table).await?,
                after: After::MakeLargeObjects,
            }),
        }
    }

    /// For rows that are deleted before others are loaded.
    pub async fn prepare_with_deletes(session: &Session, table: &Table) -> Result<Self, Error> {
        let mut landing = Self::prepare(session, table).await?;
        if let After::Restore(restore) = &mut landing.after {
            restore.push_str(&silence(session, RULES_ON_DELETE, &name_of(table)).await?);
        }
        Ok(landing)
    }

    /// Before rows are deleted: where they are published by what identifies them, and nothing does, PostgreSQL refuses that also with
    /// replica as the role of the session. All columns do, for this transaction; where the table is being read, and goes on being read, or is not
    /// the role's, nothing does.
    pub async fn identify_rows(&mut self, session: &Session, table: &Table) -> Result<(), Error> {
        let After::Restore(restore) = &mut self.after else {
            return Ok(());
        };
        let name = name_of(table);
        let nameless = session
            .query_typed(PUBLISHED_WITHOUT_IDENTITY, &[(&name, Type::TEXT)])
            .await?;
        let (mut identify, mut forget) = (String::new(), String::new());
        for row in &nameless {
            let (on, identity) = (qualified(row.get(0), row.get(1)), row.get::<_, &str>(2));
            identify += &format!("ALTER TABLE ONLY {on} REPLICA IDENTITY FULL; ");
            forget += &format!("ALTER TABLE ONLY {on} REPLICA IDENTITY {identity}; ");
        }
        let Some(first) = nameless.first() else {
            return Ok(());
        };
        if alone(session, first.get(3), &identify).await? {
            restore.push_str(&forget);
        }
        Ok(())
    }

    /// For a table that one transaction loads whole. FREEZE asks for a table that the transaction has truncated: only an empty one is, and
    /// readers are not waited for.
    pub async fn freeze_if_empty(&mut self, session: &Session, table: &Table) -> Result<(), Error> {
        let worth = table.relation == Relation::Table && table.size_bytes >= WORTH_FREEZING;
        if !worth || table.through_root || table.managed {
            return Ok(());
        }
        let name = name_of(table);
        let lock =
            format!("SAVEPOINT emptied; LOCK TABLE ONLY {name} IN ACCESS EXCLUSIVE MODE NOWAIT");
        let empty = match session.batch_execute(&lock).await {
            Ok(()) => session
                .query_typed(IS_EMPTY, &[(&name, Type::TEXT)])
                .await?
                .iter()
                .all(|row| row.get(0)),
            Err(error) if is_refused(&error) => false,
            Err(error) => return Err(error),
        };
        let then = if empty {
            format!("TRUNCATE ONLY {name}; RELEASE SAVEPOINT emptied")
        } else {
            "ROLLBACK TO SAVEPOINT emptied; RELEASE SAVEPOINT emptied".to_owned()
        };
        session.batch_execute(&then).await?;
        if empty {
            self.freeze(table);
        }
        Ok(())
    }

    /// The table was truncated in this transaction: its rows need no VACUUM then. Not where COPY routes rows to partitions
    /// (PostgreSQL manual, COPY, FREEZE).
    pub fn freeze(&mut self, table: &Table) {
        if !table.through_root {
            self.copy_in = scan::copy_in_frozen(table);
        }
    }

    pub async fn settle(self, session: &Session, migration: &str) -> Result<(), Error> {
        match self.after {
            After::Restore(restore) => session.batch_execute(&restore).await,
            After::MakeLargeObjects => large_objects::make(session, migration).await,
        }
    }
}

/// Below this a TRUNCATE costs more than the VACUUM that FREEZE saves, bytes.
const WORTH_FREEZING: u64 = 8 << 20;

/// The table and its partitions, as far as they hold rows, whose deletes are published and whose rows nothing identifies
/// (src/backend/executor/execReplication.c, CheckCmdReplicaIdentity). A partition is published by its ancestors, too.
const PUBLISHED_WITHOUT_IDENTITY: &str = "
    SELECT n.nspname::text, c.relname::text, CASE c.relreplident WHEN 'd' THEN 'DEFAULT' ELSE 'NOTHING' END, current_setting('lock_timeout')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid IN (SELECT $1::text::regclass UNION SELECT relid FROM pg_partition_tree($1::text::regclass)) AND c.relkind = 'r'
      AND c.relpersistence = 'p' AND c.relreplident IN ('d', 'n') AND pg_get_replica_identity_index(c.oid) IS NULL
      AND EXISTS (SELECT FROM pg_publication p WHERE p.pubdelete AND (p.puballtables OR EXISTS (
          SELECT FROM pg_get_publication_tables(p.pubname::text) t
          WHERE t.relid = c.oid OR t.relid IN (SELECT relid FROM pg_partition_ancestors(c.oid)))))";

/// Nothing is lost by its TRUNCATE, which is not refused either: no foreign key refers to it, and the role may.
const IS_EMPTY: &str = "SELECT pg_relation_size(t) = 0 AND has_table_privilege(t, 'TRUNCATE')
        AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.confrelid = t AND k.contype = 'f')
    FROM (VALUES ($1::text::regclass::oid)) v (t)";

/// Runs statements, each with its semicolon, that need a table for themselves. False, and nothing is done, where it is being read, and goes on
/// being read, or is not the role's. `lock_timeout`: what the transaction has, and has again.
pub async fn alone(session: &Session, lock_timeout: &str, statements: &str) -> Result<bool, Error> {
    let lock_timeout = quote_literal(lock_timeout);
    let guarded = format!(
        "SAVEPOINT alone; SET LOCAL lock_timeout = '{READERS_WAIT}'; {statements}
         SET LOCAL lock_timeout = {lock_timeout}; RELEASE SAVEPOINT alone"
    );
    match session.batch_execute(&guarded).await {
        Ok(()) => Ok(true),
        Err(error) if is_refused(&error) => {
            let back = session.batch_execute("ROLLBACK TO SAVEPOINT alone");
            back.await.map(|()| false)
        }
        Err(error) => Err(error),
    }
}

/// Somebody holds the lock that was wanted, or the role may not: the rest can be done without.
fn is_refused(error: &Error) -> bool {
    matches!(
        error.code(),
        Some(&SqlState::LOCK_NOT_AVAILABLE | &SqlState::INSUFFICIENT_PRIVILEGE)
    )
}

/// Columns that have one value here: set before anybody sees the rows.
fn fixed(table: &Table) -> String {
    let of = scan::from(table);
    let set = |(column, value): &(String, String)| {
        let column = quote_ident(column);
        format!("UPDATE {of} SET {column} = {value} WHERE {column} IS DISTINCT FROM {value}; ")
    };
    table.fixed.iter().map(set).collect()
}

/// For this transaction. Functions that check constraints, domains, generated columns, indexes and materialized views call may find other
/// objects by their caller's search_path: those beside the table, most likely. What COPY reads and pg_dump writes means the same with it:
/// pg_catalog still comes first, and everything else was written qualified. From 17 on CREATE INDEX and REFRESH go by a path of their own.
pub fn find_neighbours(schema: &str) -> String {
    format!("SET LOCAL search_path = {}, public", quote_ident(schema))
}

/// Triggers ENABLE ALWAYS and ENABLE REPLICA fire even under session_replication_role = replica; where the role may not set that, any
/// enabled trigger would. Of a partitioned table those of its partitions count.
const TRIGGERS: &str = "SELECT n.nspname::text, c.relname::text, 'TRIGGER', t.tgname::text, t.tgenabled::text
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT t.tgisinternal AND t.tgrelid IN (
            SELECT $1::text::regclass UNION SELECT relid FROM pg_partition_tree($1::text::regclass))
      AND (t.tgenabled IN ('A', 'R') OR t.tgenabled = 'O' AND current_setting('session_replication_role') <> 'replica')";

/// Rules are as triggers are. COPY knows none.
const RULES_ON_DELETE: &str = "SELECT n.nspname::text, c.relname::text, 'RULE', r.rulename::text, r.ev_enabled::text
    FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE r.ev_class = $1::text::regclass AND r.ev_type = '4'
      AND (r.ev_enabled IN ('A', 'R') OR r.ev_enabled = 'O' AND current_setting('session_replication_role') <> 'replica')";

fn name_of(table: &Table) -> String {
    qualified(&table.schema, &table.name)
}

/// Disables the triggers that would fire for us on this table, in this transaction. The statements that put them back.
pub async fn silence_triggers(session: &Session, table: &str) -> Result<String, Error> {
    silence(session, TRIGGERS, table).await
}

/// Disables what the query finds, in this transaction. The statements that put it back.
async fn silence(session: &Session, query: &str, name: &str) -> Result<String, Error> {
    disable(session, &enabled(session, query, name).await?).await
}

async fn enabled(session: &Session, query: &str, name: &str) -> Result<Vec<Row>, Error> {
    session.query_typed(query, &[(&name, Type::TEXT)]).await
}

async fn disable(session: &Session, enabled: &[Row]) -> Result<String, Error> {
    let (mut disable, mut restore) = (String::new(), String::new());
    for row in enabled {
        let on = qualified(row.get(0), row.get(1));
        let (what, name) = (row.get::<_, &str>(2), quote_ident(row.get(3)));
        let how = match row.get::<_, &str>(4) {
            "A" => "ENABLE ALWAYS",
            "R" => "ENABLE REPLICA",
            _ => "ENABLE",
        };
        // Each partition's by itself: its state need not be the parent's.
        disable += &format!("ALTER TABLE ONLY {on} DISABLE {what} {name};");
        restore += &format!("ALTER TABLE ONLY {on} {how} {what} {name};");
    }
    if !disable.is_empty() {
        session.batch_execute(&disable).await?;
    }
    Ok(restore)
}
