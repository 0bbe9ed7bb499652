//! The ledger: tables in schema `pgconvoy` of the target database (schema.sql says what each column is).
//!
//! Invariant 2 (one commit): a part's entry is written by `load` in the transaction that loads its rows, and by nothing else. `sync` gives it
//! the OID of a table that was made again, `empty` deletes it with the rows, `clean` with all that the ledger holds.
pub mod read;
pub mod write;

use pgconvoy_agent_core::session::Session;
use pgconvoy_proto::model::{Digest, Malformed, Step, Table};
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use tonic::Status;

/// One table of a migration, as planned. Inside a transaction it stays as it is until the end of that: EmptyTable and
/// a new snapshot wait.
pub async fn table(session: &Session, migration: &str, oid: u32) -> Result<PlannedTable, Status> {
    let row = session
        .query_typed_opt(
            "SELECT plan, coalesce(snapshot, '') FROM pgconvoy.tables WHERE migration = $1 AND oid = $2
             FOR SHARE",
            &[(&migration, Type::TEXT), (&oid, Type::OID)],
        )
        .await
        .map_err(failed)?
        .ok_or_else(|| {
            Status::not_found(format!("migration {migration} has no table with OID {oid}"))
        })?;
    Ok(PlannedTable {
        table: from_json(row.get(0))?,
        snapshot: row.get(1),
    })
}

pub struct PlannedTable {
    pub table: Table,
    /// The snapshot that its rows are to be of.
    pub snapshot: String,
}

/// Steps of a migration by number, in order.
pub async fn steps(
    session: &Session,
    migration: &str,
    numbers: &[u32],
) -> Result<Vec<Step>, Status> {
    let wanted: Vec<i32> = numbers.iter().map(|number| *number as i32).collect();
    let rows = session
        .query(
            "SELECT number, work FROM pgconvoy.steps WHERE migration = $1 AND number = ANY ($2) ORDER BY number",
            &[&migration, &wanted],
        )
        .await
        .map_err(failed)?;
    if rows.len() != numbers.len() {
        return Err(Status::not_found(format!(
            "migration {migration} has no such steps: {numbers:?}"
        )));
    }
    rows.into_iter()
        .map(|row| {
            Ok(Step {
                number: row.get::<_, i32>(0) as u32,
                work: from_json(row.get(1))?,
            })
        })
        .collect()
}

pub fn failed(error: tokio_postgres::Error) -> Status {
    use tokio_postgres::error::SqlState;
    match error.code() {
        Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME) => Status::not_found(
            "there is no ledger in this database: nothing was migrated into it (pgconvoy migrate)",
        ),
        _ => pgconvoy_agent_core::status::postgres("the ledger", &error),
    }
}

pub(crate) fn from_json<T: serde::de::DeserializeOwned>(
    value: serde_json::Value,
) -> Result<T, Status> {
    serde_json::from_value(value).map_err(|error| {
        Status::data_loss(format!(
            "the ledger holds what this version cannot read: {error}"
        ))
    })
}

pub(crate) fn json<T: serde::Serialize>(value: &T) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_else(|error| unreachable!("{error}"))
}

/// Three columns from `at` on: rows, bytes, digest.
fn digest(row: &Row, at: usize) -> Result<Option<Digest>, Malformed> {
    let rows: Option<i64> = row.get(at);
    let (Some(rows), Some(hex)) = (rows, row.get::<_, Option<&str>>(at + 2)) else {
        return Ok(None);
    };
    let bytes: i64 = row.get(at + 1);
    Ok(Some(Digest {
        rows: rows as u64,
        bytes: bytes as u64,
        sum: Digest::parse_hex(hex)?,
    }))
}
