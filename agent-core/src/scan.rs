//! Reads and writes tables with COPY: the statements, and the digest of a table by reading it.
//!
//! Invariant 3 (proof by re-reading): [`digest`] reads the database; nothing that was sent goes into it.
use std::pin::pin;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use pgconvoy_proto::model::{Digest, Part, Table};

use crate::progress::Counters;
use crate::rows::{self, RowDigester};
use crate::session::{Session, qualified, quote_ident};
use crate::snapshot::{self, Snapshot};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    #[error("{table}: {error}")]
    Rows { table: String, error: rows::Error },
}

/// Scans at least this many bytes by one session before another helps.
const PART_BYTES: u64 = 64 << 20;

/// `COPY (SELECT ...) TO STDOUT` of a part, or of the whole table.
pub fn copy_out(table: &Table, part: Option<&Part>) -> String {
    let columns: Vec<String> = table.columns.iter().map(|name| quote_ident(name)).collect();
    let conditions: Vec<String> = part
        .and_then(Part::condition)
        .into_iter()
        .chain(table.filter.as_ref().map(|filter| format!("({filter})")))
        .collect();
    let filter = match conditions.as_slice() {
        [] => String::new(),
        all => format!(" WHERE {}", all.join(" AND ")),
    };
    format!(
        "COPY (SELECT {} FROM {}{}{filter}) TO STDOUT (FORMAT {})",
        columns.join(", "),
        if table.through_root { "" } else { "ONLY " },
        qualified(&table.schema, &table.name),
        table.format
    )
}

/// `COPY ... FROM STDIN`. Without a column there is no list: COPY takes all that are not generated, which is none.
pub fn copy_in(table: &Table) -> String {
    let columns: Vec<String> = table.columns.iter().map(|name| quote_ident(name)).collect();
    let list = if columns.is_empty() {
        String::new()
    } else {
        format!(" ({})", columns.join(", "))
    };
    let name = qualified(&table.schema, &table.name);
    format!("COPY {name}{list} FROM STDIN (FORMAT {})", table.format)
}

/// Whether one session scans the table: several are worth their connections only for more.
pub fn is_small(table: &Table) -> bool {
    table.parts(PART_BYTES).len() == 1
}

/// The digest of a table, read by one statement.
pub async fn digest_small(
    session: &Session,
    table: &Table,
    counters: &Counters,
) -> Result<Digest, Error> {
    digest_part(session, table, None, counters).await
}

/// The table's digest, read under the snapshot by up to `jobs` sessions at once.
pub async fn digest(
    snapshot: &Snapshot,
    table: &Table,
    jobs: usize,
    counters: &Arc<Counters>,
) -> Result<Digest, Error> {
    let parts = table.parts(PART_BYTES);
    futures_util::stream::iter(parts)
        .map(|part| async move {
            let reader = snapshot.reader(table).await?;
            let digest = digest_part(&reader, table, Some(&part), counters).await?;
            snapshot.give_back(reader).await?;
            Ok(digest)
        })
        .buffer_unordered(jobs.max(1))
        .try_fold(Digest::default(), |mut sum, part| async move {
            sum += part;
            Ok(sum)
        })
        .await
}

async fn digest_part(
    session: &Session,
    table: &Table,
    part: Option<&Part>,
    counters: &Counters,
) -> Result<Digest, Error> {
    let mut data = pin!(session.copy_out(&copy_out(table, part)).await?);
    let mut rows = RowDigester::new(table.format);
    let error = |error| Error::Rows {
        table: table.to_string(),
        error,
    };
    while let Some(bytes) = data.try_next().await? {
        let before = rows.rows();
        rows.feed(&bytes).map_err(error)?;
        counters.add(rows.rows() - before, bytes.len() as u64, 0);
    }
    rows.finish().map_err(error)
}

#[cfg(test)]
mod tests {
    use pgconvoy_proto::model::Format;

    use super::*;

    fn table(columns: &[&str]) -> Table {
        Table {
            oid: 1,
            schema: "odd schema".into(),
            name: "t\"x".into(),
            columns: columns.iter().map(|c| c.to_string()).collect(),
            key_columns: 0,
            format: Format::Text,
            filter: None,
            size_bytes: 0,
            blocks: 0,
            through_root: false,
            unlogged: false,
        }
    }

    #[test]
    fn statements_quote_and_narrow() {
        let mut t = table(&["id", "Select"]);
        let part = Part {
            table: 1,
            number: 1,
            first_block: 10,
            end_block: Some(20),
        };
        t.filter = Some("a OR b".into());
        assert_eq!(
            copy_out(&t, Some(&part)),
            "COPY (SELECT \"id\", \"Select\" FROM ONLY \"odd schema\".\"t\"\"x\" WHERE ctid >= '(10,0)' AND \
             ctid < '(20,0)' AND (a OR b)) TO STDOUT (FORMAT text)"
        );
        assert_eq!(
            copy_in(&t),
            "COPY \"odd schema\".\"t\"\"x\" (\"id\", \"Select\") FROM STDIN (FORMAT text)"
        );
    }

    #[test]
    fn a_table_without_columns_has_no_list() {
        assert!(copy_in(&table(&[])).ends_with("\" FROM STDIN (FORMAT text)"));
        assert!(copy_out(&table(&[]), None).contains("(SELECT  FROM ONLY"));
    }
}
