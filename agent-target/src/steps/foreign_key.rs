//! Foreign keys: first NOT VALID, which is instantaneous, then validated. Where the source's rows have orphans the key stays NOT
//! VALID, and they are counted and sampled in a finding.
//!
//! PostgreSQL before 18 refuses NOT VALID on a partitioned table: there the key is built in one go, or, with orphans,
//! on each leaf.
use pgconvoy_agent_core::session::{Session, qualified, quote_ident};
use pgconvoy_proto::model::{Finding, ForeignKey, Severity};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;
use tonic::Status;

use super::refusal;

const SAMPLE: i64 = 5;

pub async fn build(session: &Session, key: &ForeignKey) -> Result<Option<Finding>, Status> {
    match try_build(session, key).await {
        Ok(finding) => Ok(finding),
        Err(error) => {
            let object = format!("{}.{}: {}", key.schema, key.table, key.name);
            refusal(
                Severity::Difference,
                "foreign-key-not-built",
                object,
                &error,
            )
            .map(Some)
        }
    }
}

async fn try_build(session: &Session, key: &ForeignKey) -> Result<Option<Finding>, Error> {
    let table = qualified(&key.schema, &key.table);
    if !key.partitioned {
        return build_on(session, key, &table).await;
    }
    if find(session, &key.name, &table).await?.is_some() {
        return Ok(None);
    }
    let name = quote_ident(&key.name);
    let add = format!(
        "ALTER TABLE {table} ADD CONSTRAINT {name} {}",
        key.definition
    );
    match session.batch_execute(&add).await {
        Ok(()) => Ok(None),
        Err(error) if is_orphan(&error) => {
            let leaves = session
                .query(
                    "SELECT n.nspname, c.relname FROM pg_partition_tree($1::text::regclass) p
                     JOIN pg_class c ON c.oid = p.relid JOIN pg_namespace n ON n.oid = c.relnamespace
                     WHERE p.isleaf ORDER BY 1, 2",
                    &[&table],
                )
                .await?;
            for leaf in leaves {
                // One finding for the key: the orphans are counted over the whole table.
                build_on(session, key, &qualified(leaf.get(0), leaf.get(1))).await?;
            }
            let mut finding = not_valid(session, key, &table).await?;
            finding.message += "; built on each partition, NOT VALID where there are orphans, not on the partitioned table";
            Ok(Some(finding))
        }
        Err(error) => Err(error),
    }
}

/// Adds the key NOT VALID and validates it. Some: it has orphans.
async fn build_on(
    session: &Session,
    key: &ForeignKey,
    table: &str,
) -> Result<Option<Finding>, Error> {
    let name = quote_ident(&key.name);
    let there = find(session, &key.name, table).await?;
    if there.is_none() {
        // A definition from a key that is not valid at the source says so itself.
        let not_valid = if key.validated { " NOT VALID" } else { "" };
        let definition = &key.definition;
        session
            .batch_execute(&format!(
                "ALTER TABLE {table} ADD CONSTRAINT {name} {definition}{not_valid}"
            ))
            .await?;
    }
    if there == Some(true) || !key.validated {
        return Ok(None);
    }
    match session
        .batch_execute(&format!("ALTER TABLE {table} VALIDATE CONSTRAINT {name}"))
        .await
    {
        Ok(()) => Ok(None),
        Err(error) if is_orphan(&error) => Ok(Some(not_valid(session, key, table).await?)),
        Err(error) => Err(error),
    }
}

fn is_orphan(error: &Error) -> bool {
    error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION)
}

/// Whether the key is there, and whether it is validated.
async fn find(session: &Session, name: &str, table: &str) -> Result<Option<bool>, Error> {
    let row = session
        .query_opt(
            "SELECT convalidated FROM pg_constraint
             WHERE contype = 'f' AND conname = $1 AND conrelid = $2::text::regclass",
            &[&name, &table],
        )
        .await?;
    Ok(row.map(|row| row.get(0)))
}

async fn not_valid(session: &Session, key: &ForeignKey, table: &str) -> Result<Finding, Error> {
    let (count, sample) = orphans(session, key, table).await?;
    Ok(Finding::new(
        Severity::Warning,
        "foreign-key-orphans",
        format!("{}.{}: {}", key.schema, key.table, key.name),
        format!(
            "{count} rows refer to nothing in {}.{}: the key is left NOT VALID (for example {sample})",
            key.referenced_schema, key.referenced_table,
        ),
    )
    .hint("the source has the same rows: mend them, then ALTER TABLE ... VALIDATE CONSTRAINT"))
}

/// Counts the rows of the table whose reference is not there, and shows some keys. What is equal is what the key takes for it.
pub async fn orphans(
    session: &Session,
    key: &ForeignKey,
    table: &str,
) -> Result<(i64, String), Error> {
    let column = |alias: &str, name: &String| format!("{alias}.{}", quote_ident(name));
    let of = |alias: &'static str, names: &[String]| -> Vec<String> {
        names.iter().map(|name| column(alias, name)).collect()
    };
    let (mine, theirs) = (of("c", &key.columns), of("p", &key.referenced_columns));
    let only = |alone: bool| if alone { "ONLY " } else { "" };
    let referenced = qualified(&key.referenced_schema, &key.referenced_table);
    let referenced = format!("{}{referenced}", only(key.referenced_only));
    let mut equal = key.equalities.clone();
    if equal.is_empty() {
        let pairs = mine.iter().zip(&theirs);
        equal.extend(pairs.map(|(mine, theirs)| format!("{mine} = {theirs}")));
    }
    let refers = match (&mine[..], &theirs[..]) {
        ([.., within], [.., period]) if key.period => {
            equal.pop();
            format!(
                "coalesce({within} <@ (SELECT range_agg({period}) FROM {referenced} p WHERE {}), false)",
                equal.join(" AND ")
            )
        }
        _ => format!(
            "EXISTS (SELECT FROM {referenced} p WHERE {})",
            equal.join(" AND ")
        ),
    };
    let null: Vec<String> = mine.iter().map(|name| format!("{name} IS NULL")).collect();
    // MATCH SIMPLE: a row with any null refers to nothing; MATCH FULL: only one with nothing but nulls.
    let exempt = null.join(if key.match_full { " AND " } else { " OR " });
    let only = only(!key.partitioned);
    let from = format!("FROM {only}{table} c WHERE NOT ({exempt}) AND NOT {refers}");
    let count: i64 = session
        .query_one(&format!("SELECT count(*) {from}"), &[])
        .await?
        .get(0);
    let rows = session
        .query(
            &format!(
                "SELECT concat_ws(', ', {}) {from} LIMIT {SAMPLE}",
                mine.join(", ")
            ),
            &[],
        )
        .await?;
    let sample: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    Ok((count, sample.join("; ")))
}
