//! Narrows a difference down: a second scan gives the pairs (key, row digest) of the buckets that differ, and single rows are
//! read by their places.
//!
//! Memory does not depend on the table: pairs are sorted on disk (see `spill`).
mod rows;
mod spill;

use std::path::Path;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use futures_util::TryStreamExt;
use pgconvoy_proto::model::{Buckets, Pair, Part, Progress, Table};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::pairs_event::Event;
use tokio::sync::mpsc;
use tonic::Status;

pub use rows::send_rows;

use crate::progress::Counters;
use crate::rows::fields::{Row, Rows};
use crate::scan::{self, Error};
use crate::session::Session;
use crate::snapshot::{Reader, Snapshot};
pub use spill::{Alike, Sorted, Spill};

/// Pairs in one message.
const PAIRS_PER_MESSAGE: usize = 4096;
/// Pairs that a sync has in memory at once, at each end; a table with more rows that are alike is copied again whole. 96 MB.
pub const MOST_ALIKE: u64 = 2_000_000;
/// Pairs that a scan gathers before it takes the lock of the common file.
const BATCH: usize = 1024;

/// Reads the table's rows of the given buckets and sends their pairs, sorted.
pub async fn send_pairs(
    snapshot: &Snapshot,
    table: &Table,
    buckets: &Buckets,
    jobs: usize,
    folder: &Path,
    events: mpsc::Sender<Result<wire::PairsEvent, Status>>,
) -> Result<(), Status> {
    let counters = Counters::default();
    let mut reading = pin!(read(snapshot, table, buckets, jobs, folder, &counters));
    let mut tick = tokio::time::interval(crate::progress::REPORT_EVERY);
    let sorted = loop {
        tokio::select! {
            spill = &mut reading => break spill?.sorted(Alike::Counted),
            _ = tick.tick() => {
                if events.send(Ok(progress(counters.read()))).await.is_err() {
                    return Ok(());
                }
            }
        }
    };
    let table = table.to_string();
    tokio::task::spawn_blocking(move || send(sorted, &events))
        .await
        .map_err(|error| Status::internal(format!("sorting the rows of {table}: {error}")))?
        .map_err(|error| {
            Error::Spill {
                table: table.clone(),
                error,
            }
            .into()
        })
}

fn progress(progress: Progress) -> wire::PairsEvent {
    wire::PairsEvent {
        event: Some(Event::Progress(progress.into())),
    }
}

/// Ends early when the receiver left.
fn send(
    sorted: Sorted,
    events: &mpsc::Sender<Result<wire::PairsEvent, Status>>,
) -> std::io::Result<()> {
    for partition in sorted {
        for pairs in partition?.chunks(PAIRS_PER_MESSAGE) {
            let mut packed = Vec::with_capacity(pairs.len() * Pair::PACKED);
            for pair in pairs {
                pair.pack(&mut packed);
            }
            let event = wire::PairsEvent {
                event: Some(Event::Pairs(packed.into())),
            };
            if events.blocking_send(Ok(event)).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Reads the table's rows of the given buckets, as pairs that are sorted in a file in `folder`.
pub async fn read(
    snapshot: &Snapshot,
    table: &Table,
    buckets: &Buckets,
    jobs: usize,
    folder: &Path,
    counters: &Counters,
) -> Result<Spill, Error> {
    let spill = Mutex::new(Spill::new(folder).map_err(full(table))?);
    let common = &spill;
    let of_part = |reader: Reader, part: Part| async move {
        read_part(&reader, table, &part, buckets, common, counters).await?;
        Ok((reader, ()))
    };
    scan::each_part(snapshot, table, jobs, &of_part)
        .try_collect::<()>()
        .await?;
    Ok(spill.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Most likely the folder of temporary files is full.
pub fn full(table: &Table) -> impl Fn(std::io::Error) -> Error {
    |error| Error::Spill {
        table: table.to_string(),
        error,
    }
}

async fn read_part(
    session: &Session,
    table: &Table,
    part: &Part,
    buckets: &Buckets,
    spill: &Mutex<Spill>,
    counters: &Counters,
) -> Result<(), Error> {
    let keep = |pairs: &mut Vec<Pair>| {
        let mut spill = spill.lock().unwrap_or_else(PoisonError::into_inner);
        pairs
            .drain(..)
            .try_for_each(|pair| spill.push(&pair))
            .map_err(full(table))
    };
    let layout = scan::layout(table, true);
    let statement = scan::copy_out_with(table, Some(part), true);
    let mut data = pin!(session.copy_out(&statement).await?);
    let mut rows = Rows::of(table);
    let mut pairs = Vec::with_capacity(BATCH);
    while let Some(bytes) = data.try_next().await? {
        let mut seen = 0;
        rows.feed(&bytes, |bytes| {
            seen += 1;
            let row = Row::new(layout, bytes)?;
            let key = row.key();
            if buckets.contains(key) {
                pairs.push(row.pair(key)?);
            }
            Ok(())
        })
        .map_err(scan::unreadable(table))?;
        counters.add(seen, bytes.len() as u64, 0);
        if pairs.len() >= BATCH {
            keep(&mut pairs)?;
        }
    }
    rows.finish().map_err(scan::unreadable(table))?;
    keep(&mut pairs)
}
