//! `verify --detailed`: from a table that differs to its rows and columns.
//!
//! The first scan of both ends summed key buckets; here both read the rows of the buckets that differ once more, as pairs of key and
//! row digest, which are merged. The first rows that differ are then read by their places.
mod merge;
mod pairs;
mod tell;

use std::collections::HashMap;

use pgconvoy_proto::model::{Buckets, Finding, MAX_BUCKETS, Place, RowValues, Table, Value};
use pgconvoy_proto::wire;
use tokio_stream::StreamExt;
use tonic::Streaming;

use crate::digest::{Digester, Held};
use crate::ends::said;
use crate::live::End;
use merge::{Differences, Example};
use pairs::Pairs;

/// A bucket for so many bytes of a table: a hundred rows or so.
const BYTES_PER_BUCKET: u64 = 16 << 10;
/// Beyond so many rows in the buckets that differ, only the first of these buckets are looked into: each agent sorts at most 740 MB
/// of pairs on disk. The answer is the count of buckets then, and to copy the table again.
const MOST_ROWS: u64 = 16_000_000;

/// How many buckets the first scan of a table sums.
pub fn buckets_for(table: &Table) -> u32 {
    let wanted = (table.size_bytes / BYTES_PER_BUCKET).clamp(1, MAX_BUCKETS.into());
    (wanted as u32).next_power_of_two()
}

/// What the user wants to see.
#[derive(Clone, Copy, Debug)]
pub struct Detail {
    /// Rows to name per table.
    pub rows: usize,
    pub show_values: bool,
}

/// A table that differs, and where.
pub struct Differing {
    pub table: Table,
    /// Rows of the end that has more.
    pub rows: u64,
    pub buckets: Buckets,
}

/// Findings about the rows of one table that differ: a summary for its `rows-differ`, and one finding per row that is named.
pub struct Narrowed {
    pub summary: String,
    pub rows: Vec<Finding>,
}

/// Narrows a table's difference down to rows and columns.
pub async fn narrow(
    digester: &Digester,
    held: &Held,
    differing: &Differing,
    detail: Detail,
) -> anyhow::Result<Narrowed> {
    let table = &differing.table;
    let (all, count) = (differing.buckets.len(), differing.buckets.count);
    let rows_each = differing.rows.div_ceil(count.into()).max(1);
    let affordable = (MOST_ROWS / rows_each).max(1).min(all.into()) as u32;
    let buckets = differing.buckets.first(affordable);
    let differences = compare(digester, held, table, &buckets, detail.rows).await?;
    let summary = if affordable < all {
        format!(
            "{}; only {affordable} of the {all} differing buckets (of {count}) were looked into: too many rows differ to \
             name them, copy the table again",
            counts("at least ", &differences)
        )
    } else {
        counts("", &differences)
    };
    let rows = rows(digester, held, table, &differences.examples, detail).await?;
    Ok(Narrowed { summary, rows })
}

fn counts(how: &str, differences: &Differences) -> String {
    if differences.total() == 0 {
        return "no row differs any more: somebody wrote to the table meanwhile".into();
    }
    let kinds = [
        (differences.changed, "changed"),
        (differences.missing, "missing at the target"),
        (differences.extra, "extra at the target"),
    ];
    let told: Vec<String> = kinds
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    format!("{how}{}", told.join(", "))
}

/// The second scan of both ends.
async fn compare(
    digester: &Digester,
    held: &Held,
    table: &Table,
    buckets: &Buckets,
    keep: usize,
) -> anyhow::Result<Differences> {
    let _source = digester.live.start(End::Source, format!("rows of {table}"));
    let _target = digester.live.start(End::Target, format!("rows of {table}"));
    let jobs = digester.sessions_for(table);
    let at_source = async {
        let request = wire::SourcePairsRequest {
            migration: held.key.clone(),
            snapshot: held.snapshot.clone(),
            table: Some(table.clone().into()),
            jobs,
            buckets: Some(buckets.clone().into()),
        };
        let mut source = digester.ends.source.clone();
        let events = source.read_pairs(request).await.map_err(said("source"))?;
        Pairs::new("source", events.into_inner()).await
    };
    let at_target = async {
        let request = wire::TargetPairsRequest {
            migration: digester.migration.clone(),
            table: table.oid,
            jobs,
            buckets: Some(buckets.clone().into()),
        };
        let mut target = digester.ends.target.clone();
        let events = target.read_pairs(request).await.map_err(said("target"))?;
        Pairs::new("target", events.into_inner()).await
    };
    let (source, target) = tokio::try_join!(at_source, at_target)?;
    pairs::merge(source, target, keep).await
}

/// Reads the rows that are named, and says how they differ.
async fn rows(
    digester: &Digester,
    held: &Held,
    table: &Table,
    examples: &[Example],
    detail: Detail,
) -> anyhow::Result<Vec<Finding>> {
    let ours = examples.iter().filter_map(Example::source);
    let ours = ours.map(Into::into).collect();
    let theirs = examples.iter().filter_map(Example::target);
    let theirs = theirs.map(Into::into).collect();
    let (source, target) = tokio::try_join!(
        rows_at_source(digester, held, table, ours, detail.show_values),
        rows_at_target(digester, table, theirs, detail.show_values)
    )?;
    let mut findings: Vec<Finding> = examples
        .iter()
        .map(|example| tell::finding(table, *example, &source, &target))
        .collect();
    findings.sort_by(|a, b| a.message.cmp(&b.message));
    Ok(findings)
}

/// Rows of one end, of those that are still there.
type ByPlace = HashMap<Place, Vec<Value>>;

async fn rows_at_source(
    digester: &Digester,
    held: &Held,
    table: &Table,
    places: Vec<wire::Place>,
    show_values: bool,
) -> anyhow::Result<ByPlace> {
    if places.is_empty() {
        return Ok(ByPlace::new());
    }
    let request = wire::SourceRowsRequest {
        migration: held.key.clone(),
        snapshot: held.snapshot.clone(),
        table: Some(table.clone().into()),
        places,
        show_values,
    };
    let mut source = digester.ends.source.clone();
    let rows = source.read_rows(request).await.map_err(said("source"))?;
    by_place("source", rows.into_inner()).await
}

async fn rows_at_target(
    digester: &Digester,
    table: &Table,
    places: Vec<wire::Place>,
    show_values: bool,
) -> anyhow::Result<ByPlace> {
    if places.is_empty() {
        return Ok(ByPlace::new());
    }
    let request = wire::TargetRowsRequest {
        migration: digester.migration.clone(),
        table: table.oid,
        places,
        show_values,
    };
    let mut target = digester.ends.target.clone();
    let rows = target.read_rows(request).await.map_err(said("target"))?;
    by_place("target", rows.into_inner()).await
}

async fn by_place(
    agent: &'static str,
    mut rows: Streaming<wire::RowValues>,
) -> anyhow::Result<ByPlace> {
    let mut found = ByPlace::new();
    while let Some(row) = rows.next().await {
        let row = RowValues::try_from(row.map_err(said(agent))?)?;
        found.insert(row.place, row.values);
    }
    Ok(found)
}
