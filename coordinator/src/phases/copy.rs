//! The rows: parts are copied, indexes built and tables digested side by side, each as soon as its table is ready for it.
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use pgconvoy_proto::model::{Digest, IndexOn, Oid, Part, Step, Table, Work, required};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::copy_part_event;
use pgconvoy_proto::wire::target_digest_request::Keep;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::{Code, Status};

use super::steps::{self, StepRunner};
use super::{Phase, Run};
use crate::converge::Converger;
use crate::digest::{Digester, Held};
use crate::ends::{retry, said};
use crate::events::Event;
use crate::ledger::{Ledger, StepEntry, TableEntry};
use crate::live::{End, Live};
use crate::schedule::{Build, PutOff, Schedule, TableWork};
use crate::workers;

pub async fn run(run: &mut Run) -> anyhow::Result<()> {
    let schedule = Arc::new(Schedule::new(work(&run.ledger)));
    let steps: HashMap<u32, Step> = run
        .ledger
        .steps
        .iter()
        .map(|entry| (entry.step.number, entry.step.clone()))
        .collect();
    let steps = Arc::new(steps);
    let runner = StepRunner::of(run);
    let copier = Copier::of(run);

    let converger = Converger {
        digester: Digester::of(run),
        held: Held::of(run),
        compression: run.effort.compression,
        dry_run: false,
    };
    let digester = Digester::of(run);
    let effort = run.effort;
    let digests_at_once = effort.streams.div_ceil(2);

    let mut workers = JoinSet::new();
    let of = || schedule.clone();
    at_once(&mut workers, effort.streams, || {
        copies(of(), copier.clone())
    });
    at_once(&mut workers, effort.small_streams, || {
        small_copies(of(), copier.clone())
    });
    at_once(&mut workers, effort.index_jobs, || {
        builds(of(), runner.clone(), steps.clone())
    });
    at_once(&mut workers, digests_at_once, || {
        convergences(of(), converger.clone())
    });
    at_once(&mut workers, digests_at_once, || {
        digests(of(), digester.clone())
    });
    workers::join(workers).await?;
    let alone = without_table(&run.ledger)
        .into_iter()
        .map(|step| vec![step]);
    steps::all(runner, alone.collect(), run.effort.index_jobs).await?;
    run.refresh_ledger().await
}

fn at_once<F>(workers: &mut JoinSet<anyhow::Result<()>>, jobs: usize, work: impl Fn() -> F)
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    for _ in 0..jobs {
        workers.spawn(work());
    }
}

async fn copies(schedule: Arc<Schedule>, copier: Copier) -> anyhow::Result<()> {
    while let Some((table, part)) = schedule.next_part().await? {
        copier.copy_of(&schedule, table, part).await?;
    }
    Ok(())
}

/// Tables below this size are copied in less time than a long link takes for a question and its answer.
const SMALL_TABLE: u64 = 256 << 10;

async fn small_copies(schedule: Arc<Schedule>, copier: Copier) -> anyhow::Result<()> {
    while let Some((table, part)) = schedule.next_small_part(SMALL_TABLE) {
        copier.copy_of(&schedule, table, part).await?;
    }
    Ok(())
}

async fn builds(
    schedule: Arc<Schedule>,
    runner: StepRunner,
    steps: Arc<HashMap<u32, Step>>,
) -> anyhow::Result<()> {
    while let Some(builds) = schedule.next_builds().await {
        let together: Vec<&Step> = builds
            .iter()
            .filter_map(|build| steps.get(&build.step))
            .collect();
        runner.run(&together).await?;
        schedule.builds_done(&builds);
    }
    Ok(())
}

async fn convergences(schedule: Arc<Schedule>, converger: Converger) -> anyhow::Result<()> {
    while let Some(table) = schedule.next_to_converge().await {
        let oid = table.oid;
        converge(&converger, table).await?;
        schedule.converged(oid);
    }
    Ok(())
}

async fn digests(schedule: Arc<Schedule>, digester: Digester) -> anyhow::Result<()> {
    while let Some(table) = schedule.next_digest().await {
        digester.target(&table, 0, Keep::Left).await?;
        schedule.digested(table.oid);
    }
    Ok(())
}

/// The rows that are there become those of the snapshot; nothing is built on them before.
async fn converge(converger: &Converger, table: Table) -> anyhow::Result<()> {
    let scanned = converger.scan(table).await?;
    let synced = converger.sync(&scanned).await?;
    converger.digester.reporter.emit(&Event::Synced {
        table: scanned.table.to_string(),
        counts: synced.counts,
        wire_bytes: synced.wire_bytes,
    });
    Ok(())
}

/// Per table what the ledger says is missing. Largest first: the last stream should not be left with the largest table.
fn work(ledger: &Ledger) -> Vec<TableWork> {
    let mut keys: HashMap<Oid, Vec<Build>> = HashMap::new();
    let mut constraints: HashMap<Oid, Vec<Build>> = HashMap::new();
    let mut indexes: HashMap<Oid, Vec<Build>> = HashMap::new();
    for entry in open_indexes(ledger) {
        let (kind, table, size_bytes) = match entry.step.work {
            Work::KeyIndex {
                table, size_bytes, ..
            } => (&mut keys, table, size_bytes),
            Work::Index {
                table,
                constraint: true,
                size_bytes,
                ..
            } => (&mut constraints, table, size_bytes),
            Work::Index {
                table, size_bytes, ..
            } => (&mut indexes, table, size_bytes),
            _ => continue,
        };
        kind.entry(table).or_default().push(Build {
            step: entry.step.number,
            table,
            size_bytes,
        });
    }
    let mut work: Vec<TableWork> = ledger
        .tables
        .iter()
        .map(|entry| TableWork {
            parts: missing(ledger, entry),
            keys: keys.remove(&entry.table.oid).unwrap_or_default(),
            constraints: constraints.remove(&entry.table.oid).unwrap_or_default(),
            indexes: indexes.remove(&entry.table.oid).unwrap_or_default(),
            converge: entry.converge,
            digest: entry.target.is_none() && !ledger.options.no_verify,
            table: entry.table.clone(),
        })
        .collect();
    work.sort_by_key(|work| std::cmp::Reverse(work.table.size_bytes));
    work
}

/// Rows of two snapshots collide where keys are there already: then all that is missing comes with the convergence.
fn missing(ledger: &Ledger, entry: &TableEntry) -> Vec<Part> {
    if entry.converge && (ledger.options.skip_schema || entry.table.comes_with_keys()) {
        Vec::new()
    } else {
        entry.missing(ledger.options.part_bytes)
    }
}

fn open_indexes(ledger: &Ledger) -> impl Iterator<Item = &StepEntry> {
    ledger.steps.iter().filter(|entry| {
        !entry.is_done()
            && matches!(
                entry.step.work,
                Work::KeyIndex { .. }
                    | Work::Index {
                        on: IndexOn::Table,
                        ..
                    }
            )
    })
}

/// Indexes of tables that are not copied by themselves: leaves that are loaded through their root, --skip-data.
fn without_table(ledger: &Ledger) -> Vec<Step> {
    open_indexes(ledger)
        .filter(|entry| match entry.step.work {
            Work::KeyIndex { table, .. } | Work::Index { table, .. } => {
                ledger.table(table).is_none()
            }
            _ => false,
        })
        .inspect(|entry| debug_assert_eq!(Phase::of(&entry.step.work), Phase::Copy))
        .map(|entry| entry.step.clone())
        .collect()
}

#[derive(Clone)]
struct Copier {
    migration: String,
    snapshot: String,
    compression: i32,
    link_share: u64,
    ends: crate::ends::Ends,
    reporter: Arc<crate::events::Reporter>,
    live: Arc<Live>,
    /// Of parts that were loaded by this run, and how many the table has: for people.
    loaded: Arc<std::sync::Mutex<HashMap<Oid, (Digest, usize)>>>,
}

impl Copier {
    fn of(run: &Run) -> Self {
        let live = run.live.clone();
        let sum = |count: fn(&TableEntry) -> u64| run.ledger.tables.iter().map(count).sum();
        live.tables_total
            .store(run.ledger.tables.len() as u64, Relaxed);
        live.bytes_total
            .store(sum(|entry| entry.table.size_bytes), Relaxed);
        live.bytes.store(sum(|entry| entry.source().bytes), Relaxed);
        live.rows.store(sum(|entry| entry.source().rows), Relaxed);
        let part_bytes = run.ledger.options.part_bytes;
        let done = run
            .ledger
            .tables
            .iter()
            .filter(|entry| entry.missing(part_bytes).is_empty());
        live.tables_done.store(done.count() as u64, Relaxed);
        Self {
            migration: run.ledger.id.clone(),
            snapshot: run.ledger.snapshot.clone(),
            compression: run.effort.compression,
            link_share: run.effort.link_share,
            ends: run.ends.clone(),
            reporter: run.reporter.clone(),
            live,
            loaded: Arc::default(),
        }
    }

    /// Copies a part that the schedule gave out, and tells it how that ended.
    async fn copy_of(&self, schedule: &Schedule, table: Table, part: Part) -> anyhow::Result<()> {
        match self.copy(&table, part).await {
            Ok(loaded) => {
                let last = schedule.part_done(table.oid);
                self.tell(&table, loaded, last);
            }
            Err(status) => schedule.put_off(self.refused(table, part, status)?),
        }
        Ok(())
    }

    /// Copies one part; what the ledger then holds of it.
    async fn copy(&self, table: &Table, part: Part) -> Result<Digest, Status> {
        let what = format!("{table} part {}", part.number);
        let _running = self.live.start(End::Source, what.clone());
        let _loading = self.live.start(End::Target, format!("COPY {what}"));
        retry(&self.reporter, &what, || self.attempt(table, part)).await
    }

    /// The refusal of a row may be for now only (see Target.LoadPart); any other ends the copy.
    fn refused(&self, table: Table, part: Part, status: Status) -> anyhow::Result<PutOff> {
        if status.code() != Code::OutOfRange {
            return Err(said("source")(status));
        }
        self.reporter.note(format!(
            "{table} part {} is put off until other tables are loaded: {}",
            part.number,
            status.message()
        ));
        let reason = status.message().to_owned();
        Ok(PutOff {
            table,
            part,
            reason,
        })
    }

    async fn attempt(&self, table: &Table, part: Part) -> Result<Digest, Status> {
        use copy_part_event::Event;
        let mut source = self.ends.source.clone();
        let request = wire::CopyPartRequest {
            migration: self.migration.clone(),
            snapshot: self.snapshot.clone(),
            target: self.ends.target_address.clone(),
            table: Some(table.clone().into()),
            part: Some(part.into()),
            compression: self.compression,
            link_share: self.link_share,
        };
        let mut counted = self.live.count();
        let mut events = source.copy_part(request).await?.into_inner();
        while let Some(event) = events.next().await {
            match required(event?.event, "event")? {
                Event::Progress(progress) => counted.set(progress.into()),
                Event::Done(done) => {
                    let digest = Digest::try_from(required(done.digest, "digest")?)?;
                    counted.finish(digest);
                    return Ok(digest);
                }
            }
        }
        Err(Status::unavailable(
            "the stream ended before the part was done",
        ))
    }

    fn tell(&self, table: &Table, loaded: Digest, last: bool) {
        let mut of_table = self
            .loaded
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (sum, parts) = of_table.entry(table.oid).or_default();
        *sum += loaded;
        *parts += 1;
        if last {
            self.live.tables_done.fetch_add(1, Relaxed);
            let (table, rows, bytes) = (table.to_string(), sum.rows, sum.bytes);
            self.reporter.emit(&Event::Table {
                table,
                rows,
                bytes,
                parts: *parts,
            });
        }
    }
}
