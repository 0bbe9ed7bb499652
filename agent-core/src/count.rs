//! Counts the rows of a table: what a quick verification compares. Counts that agree prove nothing of the rows.
use pgconvoy_proto::model::{Relation, Table};
use tonic::Status;

use crate::session::{Session, qualified};
use crate::status;

pub async fn rows(session: &Session, table: &Table) -> Result<u64, Status> {
    let row = session.query_one(&query(table), &[]).await;
    let failed = |error| status::postgres(&format!("counting the rows of {table}"), &error);
    Ok(row.map_err(failed)?.get::<_, i64>(0) as u64)
}

fn query(table: &Table) -> String {
    if table.relation != Relation::Table {
        return "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata".into();
    }
    let only = if table.through_root { "" } else { "ONLY " };
    let name = qualified(&table.schema, &table.name);
    let condition = match &table.filter {
        Some(filter) => format!(" WHERE {filter}"),
        None => String::new(),
    };
    format!("SELECT count(*) FROM {only}{name}{condition}")
}
