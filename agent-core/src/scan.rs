//! Reads and writes tables with COPY: the statements, and the digest of a table by reading it.
//!
//! Invariant 3 (proof by re-reading): [`digest`] reads the database; nothing that was sent goes into it.
use std::pin::pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, TryStreamExt};
use pgconvoy_proto::model::{Digest, Part, Place, Relation, Table, TableDigest};

use crate::large_objects;
use crate::progress::Counters;
use crate::rows::fields::{Layout, Rows, TableDigester};
use crate::rows::{self, RowDigester};
use crate::session::{Session, qualified, quote_ident};
use crate::snapshot::{self, Reader, Snapshot};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    #[error("{table}: {error}")]
    Rows { table: String, error: rows::Error },
    #[error("sorting the rows of {table} in a temporary file: {error}")]
    Spill {
        table: String,
        error: std::io::Error,
    },
}

/// Scans at least this many bytes by one session before another helps.
const PART_BYTES: u64 = 64 << 20;

/// `COPY (SELECT ...) TO STDOUT` of a part, or of the whole table: the columns that are copied.
pub fn copy_out(table: &Table, part: Option<&Part>) -> String {
    select(table, &table.columns, &[], part)
}

/// The same with the generated columns, and with the row's place when it is asked for: what [`Layout`] describes.
pub(crate) fn copy_out_with(table: &Table, part: Option<&Part>, placed: bool) -> String {
    let columns = [table.columns.as_slice(), &table.generated].concat();
    select(table, &columns, if placed { PLACE } else { &[] }, part)
}

/// System columns that tell where a row lies.
const PLACE: &[&str] = &["tableoid", "ctid"];

pub(crate) fn layout(table: &Table, placed: bool) -> Layout {
    Layout {
        format: table.format,
        key: table.key_columns,
        copied: table.columns.len(),
        generated: table.generated.len(),
        placed,
    }
}

fn select(table: &Table, columns: &[String], system: &[&str], part: Option<&Part>) -> String {
    let columns: Vec<String> = columns
        .iter()
        .map(|name| quote_ident(name))
        .chain(system.iter().map(|name| (*name).to_owned()))
        .collect();
    let (from, conditions) = match table.relation {
        Relation::Table => (from(table), conditions(table, part)),
        Relation::LargeObjects { .. } => (large_objects::of_part(part), Vec::new()),
    };
    let filter = match conditions.as_slice() {
        [] => String::new(),
        all => format!(" WHERE {}", all.join(" AND ")),
    };
    format!(
        "COPY (SELECT {} FROM {from}{filter}) TO STDOUT (FORMAT {})",
        columns.join(", "),
        table.format
    )
}

/// `COPY (SELECT ...) TO STDOUT` of single rows, which lie in one table (`Place::table` is not looked at); of large objects, of all
/// their pages.
pub fn copy_out_places(table: &Table, places: &[Place]) -> String {
    let columns: Vec<String> = table.columns.iter().map(|name| quote_ident(name)).collect();
    let rows = match table.relation {
        Relation::Table => {
            let mut rows = format!("{} WHERE ctid = ANY ({})", from(table), ctids(places));
            // Partitions have equal ctids.
            if let Some(place) = places.first().filter(|_| table.through_root) {
                rows += &format!(" AND tableoid = {}", place.table);
            }
            rows
        }
        Relation::LargeObjects { .. } => large_objects::of_places(places),
    };
    format!(
        "COPY (SELECT {} FROM {rows}) TO STDOUT (FORMAT {})",
        columns.join(", "),
        table.format
    )
}

/// The ctids as an array. PostgreSQL sorts them before it reads (TID scan).
pub fn ctids(places: &[Place]) -> String {
    let ctids: Vec<String> = places.iter().map(|place| format!("\"{place}\"")).collect();
    format!("'{{{}}}'::tid[]", ctids.join(","))
}

fn conditions(table: &Table, part: Option<&Part>) -> Vec<String> {
    // A TID range scan, PostgreSQL 14 and later.
    let range = part.and_then(|part| part.condition("ctid", |block| format!("'({block},0)'")));
    let filter = table.filter.as_ref().map(|filter| format!("({filter})"));
    range.into_iter().chain(filter).collect()
}

/// The table as FROM names it.
pub fn from(table: &Table) -> String {
    let only = if table.through_root { "" } else { "ONLY " };
    format!("{only}{}", qualified(&table.schema, &table.name))
}

/// `COPY ... FROM STDIN`. Without a column there is no list: COPY takes all that are not generated, which is none.
pub fn copy_in(table: &Table) -> String {
    copy_in_with(table, "")
}

/// The same with FREEZE.
pub fn copy_in_frozen(table: &Table) -> String {
    copy_in_with(table, ", FREEZE")
}

fn copy_in_with(table: &Table, option: &str) -> String {
    let columns: Vec<String> = table.columns.iter().map(|name| quote_ident(name)).collect();
    let list = if columns.is_empty() {
        String::new()
    } else {
        format!(" ({})", columns.join(", "))
    };
    let name = qualified(&table.schema, &table.name);
    format!(
        "COPY {name}{list} FROM STDIN (FORMAT {}{option})",
        table.format
    )
}

/// Whether one session reads the table from end to end, when `jobs` may. That costs the server least: a sequential scan keeps to a
/// ring of 256 KiB of buffers (PostgreSQL's src/backend/storage/buffer/README, "Buffer Ring Replacement Strategy"), while those of the
/// ranges of ctid into which several sessions divide a table walk through all of shared_buffers.
pub fn is_read_whole(table: &Table, jobs: usize) -> bool {
    jobs <= 1 || table.parts(PART_BYTES).len() == 1
}

/// What a table counts, read by one statement. `buckets`: a power of two, or 0 for none.
pub async fn digest_whole(
    session: &Session,
    table: &Table,
    buckets: u32,
    counters: &Counters,
) -> Result<TableDigest, Error> {
    digest_part(session, table, None, buckets, counters).await
}

/// What a table counts, read under the snapshot by up to `jobs` sessions at once.
pub async fn digest(
    snapshot: &Snapshot,
    table: &Table,
    buckets: u32,
    jobs: usize,
    counters: &Arc<Counters>,
) -> Result<TableDigest, Error> {
    if is_read_whole(table, jobs) {
        let reader = snapshot.reader(table).await?;
        let digest = digest_whole(&reader, table, buckets, counters).await?;
        snapshot.give_back(reader).await?;
        return Ok(digest);
    }
    each_part(snapshot, table, jobs, |reader, part| async move {
        let digest = digest_part(&reader, table, Some(&part), buckets, counters).await?;
        Ok((reader, digest))
    })
    .try_fold(TableDigest::default(), |mut sum, part| async move {
        sum.add(&part);
        Ok(sum)
    })
    .await
}

/// Runs `read` for every part of the table, by up to `jobs` sessions at once under the snapshot.
pub(crate) fn each_part<'a, T, F>(
    snapshot: &'a Snapshot,
    table: &'a Table,
    jobs: usize,
    read: impl Fn(Reader, Part) -> F + Copy + 'a,
) -> impl Stream<Item = Result<T, Error>> + 'a
where
    F: Future<Output = Result<(Reader, T), Error>> + 'a,
{
    futures_util::stream::iter(table.parts(PART_BYTES))
        .map(move |part| async move {
            let reader = snapshot.reader(table).await?;
            let (reader, found) = read(reader, part).await?;
            snapshot.give_back(reader).await?;
            Ok(found)
        })
        .buffer_unordered(jobs.max(1))
}

async fn digest_part(
    session: &Session,
    table: &Table,
    part: Option<&Part>,
    buckets: u32,
    counters: &Counters,
) -> Result<TableDigest, Error> {
    if buckets == 0 && table.generated.is_empty() {
        let digest = digest_rows(session, table, part, counters).await?;
        return Ok(TableDigest {
            digest,
            ..TableDigest::default()
        });
    }
    let statement = copy_out_with(table, part, false);
    let mut data = pin!(session.copy_out(&statement).await?);
    let mut rows = TableDigester::new(layout(table, false), Rows::of(table), buckets);
    while let Some(bytes) = data.try_next().await? {
        let before = rows.rows();
        rows.feed(&bytes).map_err(unreadable(table))?;
        counters.add(rows.rows() - before, bytes.len() as u64, 0);
    }
    rows.finish().map_err(unreadable(table))
}

async fn digest_rows(
    session: &Session,
    table: &Table,
    part: Option<&Part>,
    counters: &Counters,
) -> Result<Digest, Error> {
    let mut data = pin!(session.copy_out(&copy_out(table, part)).await?);
    let mut rows = RowDigester::of(table);
    while let Some(bytes) = data.try_next().await? {
        let before = rows.rows();
        rows.feed(&bytes).map_err(unreadable(table))?;
        counters.add(rows.rows() - before, bytes.len() as u64, 0);
    }
    rows.finish().map_err(unreadable(table))
}

pub(crate) fn unreadable(table: &Table) -> impl Fn(rows::Error) -> Error {
    |error| Error::Rows {
        table: table.to_string(),
        error,
    }
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
            relation: Relation::Table,
            columns: columns.iter().map(|c| c.to_string()).collect(),
            key_columns: 0,
            format: Format::Text,
            filter: None,
            size_bytes: 0,
            blocks: 0,
            through_root: false,
            unlogged: false,
            generated: Vec::new(),
            padded: Vec::new(),
            arrays: Vec::new(),
            fixed: Vec::new(),
            managed: false,
            of_extension: false,
        }
    }

    #[test]
    fn statements_quote_and_narrow() {
        let mut t = table(&["id", "Select"]);
        let part = Part {
            table: 1,
            number: 1,
            first: 10,
            end: Some(20),
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
