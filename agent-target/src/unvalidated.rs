//! Constraints that are enforced and NOT VALID: rows that were there before them may break them, and are refused when they are loaded.
use pgconvoy_agent_core::session::{Session, qualified, quote_ident, quote_literal};
use pgconvoy_proto::model::Table;
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};

use crate::landing::alone;

/// Of the table, its partitions and the domains of their columns. Not foreign keys: these do not fire.
const ANY: &str = "WITH RECURSIVE relation AS (
        SELECT $1::text::regclass::oid AS oid UNION SELECT relid FROM pg_partition_tree($1::text::regclass)
    ), type AS (
        SELECT atttypid AS oid FROM pg_attribute JOIN relation r ON attrelid = r.oid WHERE attnum > 0 AND NOT attisdropped
        UNION SELECT typbasetype FROM pg_type t JOIN type ON type.oid = t.oid WHERE typbasetype <> 0)
    SELECT EXISTS (
        SELECT FROM pg_constraint k WHERE NOT k.convalidated AND k.contype <> 'f'
          AND coalesce((to_jsonb(k) ->> 'conenforced')::bool, true)
          AND (k.conrelid IN (SELECT oid FROM relation) OR k.contypid <> 0 AND k.contypid IN (SELECT oid FROM type)))";

/// Those that the table alone has: it inherits them from nowhere, and nothing inherits them.
const OWN: &str = "SELECT k.conname::text, pg_get_constraintdef(k.oid), obj_description(k.oid, 'pg_constraint'),
           current_setting('lock_timeout')
    FROM pg_constraint k
    WHERE k.conrelid = $1::text::regclass AND NOT k.convalidated AND k.contype <> 'f' AND k.coninhcount = 0
      AND coalesce((to_jsonb(k) ->> 'conenforced')::bool, true)
      AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = k.conrelid)";

/// Whether rows that are at the source may be refused.
pub async fn any(session: &Session, table: &Table) -> Result<bool, Error> {
    let name = qualified(&table.schema, &table.name);
    let row = session.query_one(ANY, &[&name]).await?;
    Ok(row.get(0))
}

/// Those of a table that may be put aside. `name`: qualified.
pub async fn own(session: &Session, name: &str) -> Result<Vec<Row>, Error> {
    session.query_typed(OWN, &[(&name, Type::TEXT)]).await
}

/// Drops the table's `own` for this transaction. The statements that put them back, NOT VALID as they were; nothing where the table is
/// being read, and goes on being read, or is not the role's: then rows that break them are refused.
pub async fn put_aside(session: &Session, name: &str, own: &[Row]) -> Result<String, Error> {
    let Some(first) = own.first() else {
        return Ok(String::new());
    };
    let (mut drop, mut restore) = (String::new(), String::new());
    for row in own {
        let (constraint, definition) = (quote_ident(row.get(0)), row.get::<_, &str>(1));
        drop += &format!("ALTER TABLE {name} DROP CONSTRAINT {constraint}; ");
        restore += &format!("ALTER TABLE {name} ADD CONSTRAINT {constraint} {definition}; ");
        if let Some(comment) = row.get::<_, Option<&str>>(2) {
            let comment = quote_literal(comment);
            restore += &format!("COMMENT ON CONSTRAINT {constraint} ON {name} IS {comment}; ");
        }
    }
    match alone(session, first.get(3), &drop).await? {
        true => Ok(restore),
        false => Ok(String::new()),
    }
}
