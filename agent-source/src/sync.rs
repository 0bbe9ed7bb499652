//! One table's way in a sync: pairs of the buckets that differ, then the rows that the target asks for, or the whole table.
//!
//! What is in memory of it: one partition of sorted pairs (see agent-core's `narrow`; at most [`MOST_ALIKE`] of them), one message of
//! places, and a stream of chunks (see `chunks`).
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use pgconvoy_agent_core::narrow::{self, Alike, MOST_ALIKE, Spill};
use pgconvoy_agent_core::progress::Counters;
use pgconvoy_agent_core::rows::join::Joiner;
use pgconvoy_agent_core::scan;
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::snapshot::Snapshot;
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{
    Buckets, Digest, How, Place, Relation, SlimPair, SyncCounts, Table, required,
};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::sync_answer::Answer;
use pgconvoy_proto::wire::sync_frame::Frame;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::chunks::{CHUNKS_SEALED, Cutter, Outgoing, Packing, Sealing, Stop, read, sealer};
use crate::lanes::{Lanes, from_target};

/// 720 KB before compression.
const PAIRS_PER_CHUNK: usize = 1 << 15;

pub struct SyncJob {
    pub migration: String,
    pub target: String,
    pub table: Table,
    /// Of the whole table under the snapshot.
    pub source: Digest,
    /// None: the table is copied again without a look at its rows.
    pub buckets: Option<Buckets>,
    /// When the target was scanned.
    pub target_rows: u64,
    pub jobs: usize,
    pub dry_run: bool,
    /// As [`pgconvoy_proto::frame::Sealer::new`] takes it.
    pub compression: i32,
    /// For the temporary file.
    pub folder: PathBuf,
}

/// What the target has committed, and whether it had done so before.
pub type Synced = (SyncCounts, bool);

/// Syncs one table; returns when the target has committed it.
pub async fn sync_table(
    snapshot: Arc<Snapshot>,
    lanes: Lanes,
    job: SyncJob,
    counters: Arc<Counters>,
) -> Result<Synced, Status> {
    let mut lane = lanes.take(&job.target).await?;
    let (frames, outgoing) = mpsc::channel(CHUNKS_SEALED);
    // The channel is empty.
    frames.send(frame(header(&job, &snapshot))).await.ok();
    let answers = lane.sync_table(ReceiverStream::new(outgoing)).await;
    let mut talk = Talk {
        what: format!("syncing {}", job.table),
        snapshot: &snapshot,
        job: &job,
        counters,
        answers: answers.map_err(from_target)?.into_inner(),
    };
    let synced = talk.through(frames).await?;
    lanes.give_back(&job.target, lane);
    Ok(synced)
}

fn frame(frame: Frame) -> wire::SyncFrame {
    wire::SyncFrame { frame: Some(frame) }
}

fn header(job: &SyncJob, snapshot: &Snapshot) -> Frame {
    Frame::Header(wire::SyncHeader {
        migration: job.migration.clone(),
        snapshot: snapshot.id.clone(),
        table: Some(job.table.clone().into()),
        source: Some(job.source.into()),
        buckets: job.buckets.clone().map(Into::into),
        jobs: job.jobs as u32,
        dry_run: job.dry_run,
        target_rows: job.target_rows,
    })
}

/// The call to the target agent.
struct Talk<'a> {
    what: String,
    snapshot: &'a Snapshot,
    job: &'a SyncJob,
    counters: Arc<Counters>,
    answers: Streaming<wire::SyncAnswer>,
}

impl Talk<'_> {
    async fn through(&mut self, frames: mpsc::Sender<wire::SyncFrame>) -> Result<Synced, Status> {
        if let Some(buckets) = &self.job.buckets {
            let (job, snapshot) = (self.job, self.snapshot);
            let pairs = pairs(job, snapshot, buckets, frames.clone(), &self.counters);
            // An answer before the end is an error, or says that there is nothing to do.
            let early = tokio::select! {
                sent = pairs => sent.map(|()| None),
                answer = self.answers.next() => Ok(Some(received(answer)?)),
            }?;
            if let Some(answer) = early {
                return self.done(answer);
            }
        }
        let plan = match self.next().await? {
            Answer::Plan(plan) => SyncCounts::try_from(plan)?,
            answer => return self.done(answer),
        };
        let sealed = match plan.how {
            _ if self.job.dry_run => None,
            How::Equal => None,
            How::Rows | How::Copy => Some(self.send(plan.how, frames).await?),
        };
        let answer = self.next().await?;
        let synced = self.done(answer)?;
        if let Some(sealing) = sealed
            && sealing.sent(&self.what).await?.is_none()
        {
            return Err(self.broken("the receipt came before everything was sent"));
        }
        Ok(synced)
    }

    async fn next(&mut self) -> Result<Answer, Status> {
        received(self.answers.next().await)
    }

    fn done(&self, answer: Answer) -> Result<Synced, Status> {
        match answer {
            Answer::Done(receipt) => {
                let counts = required(receipt.counts, "counts")?.try_into()?;
                Ok((counts, receipt.already))
            }
            _ => Err(self.broken("the target agent answered out of turn")),
        }
    }

    fn broken(&self, why: &str) -> Status {
        Status::data_loss(format!("{}: {why}", self.what))
    }

    /// Sends the rows that are asked for, or all.
    async fn send(
        &mut self,
        how: How,
        frames: mpsc::Sender<wire::SyncFrame>,
    ) -> Result<Sealing, Status> {
        let rows = Outgoing::new(&self.job.table, None);
        let packing = Packing::at(self.job.compression)?;
        let (cutter, sealing) = Sealing::start(rows, packing, frames, self.counters.clone());
        let reader = self.snapshot.reader(&self.job.table).await?;
        let sent = match how {
            How::Copy => {
                let statement = scan::copy_out(&self.job.table, None);
                let mut read = pin!(read(&reader, &statement, cutter));
                // The target may give up before all is read.
                tokio::select! {
                    read = &mut read => read,
                    answer = self.answers.next() => {
                        received(answer)?;
                        return Err(self.broken("the target agent answered out of turn"));
                    }
                }
            }
            _ => self.asked_for(&reader, cutter).await?,
        };
        match sent {
            Ok(()) => self.snapshot.give_back(reader).await?,
            Err(Stop::Postgres(error)) => {
                return Err(status::postgres(&format!("{}: reading", self.what), &error));
            }
            // Who ended says why.
            Err(Stop::Closed) => {
                let answer = self.next().await?;
                self.done(answer)?;
                return Err(self.broken("the stream ended early"));
            }
        }
        Ok(sealing)
    }

    /// The rows whose places come, until the target has asked for all.
    async fn asked_for(
        &mut self,
        reader: &Session,
        mut cutter: Cutter,
    ) -> Result<Result<(), Stop>, Status> {
        let mut joiner = Joiner::new(self.job.table.format);
        loop {
            let places: Vec<Place> = match self.next().await? {
                Answer::Places(packed) => Place::unpack_all(&packed)?.collect(),
                Answer::PlacesEnd(_) => break,
                _ => return Err(self.broken("the target agent answered out of turn")),
            };
            for statement in statements(&self.job.table, &places) {
                let read = selected(reader, &statement, &mut joiner, &mut cutter);
                match read.await {
                    Ok(()) => {}
                    Err(Unread::Stop(stop)) => return Ok(Err(stop)),
                    Err(Unread::Rows(error)) => return Err(self.broken(&error.to_string())),
                }
            }
        }
        let mut rest = Vec::new();
        joiner.finish(&mut rest);
        for data in rest {
            if let Err(stop) = cutter.add(data).await {
                return Ok(Err(stop));
            }
        }
        Ok(cutter.end().await)
    }
}

fn received(answer: Option<Result<wire::SyncAnswer, Status>>) -> Result<Answer, Status> {
    match answer {
        Some(answer) => Ok(required(answer.map_err(from_target)?.answer, "answer")?),
        None => Err(Status::unavailable("the target agent ended the call")),
    }
}

/// One for each table that holds rows; large objects are read by their OIDs, together.
fn statements(table: &Table, places: &[Place]) -> Vec<String> {
    match table.relation {
        Relation::Table => places
            .chunk_by(|a, b| a.table == b.table)
            .map(|places| scan::copy_out_places(table, places))
            .collect(),
        Relation::LargeObjects { .. } => {
            let object = |place: &Place| Place {
                table: place.block,
                ..Place::default()
            };
            let objects: Vec<Place> = places.iter().map(object).collect();
            vec![scan::copy_out_places(table, &objects)]
        }
    }
}

enum Unread {
    Stop(Stop),
    Rows(pgconvoy_agent_core::rows::Error),
}

impl From<tokio_postgres::Error> for Unread {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Stop(error.into())
    }
}

impl From<pgconvoy_agent_core::rows::Error> for Unread {
    fn from(error: pgconvoy_agent_core::rows::Error) -> Self {
        Self::Rows(error)
    }
}

async fn selected(
    session: &Session,
    statement: &str,
    joiner: &mut Joiner,
    cutter: &mut Cutter,
) -> Result<(), Unread> {
    let mut data = pin!(session.copy_out(statement).await?);
    let mut joined: Vec<Bytes> = Vec::new();
    while let Some(bytes) = data.try_next().await? {
        joiner.feed(bytes, &mut joined)?;
        for data in joined.drain(..) {
            cutter.add(data).await.map_err(Unread::Stop)?;
        }
    }
    Ok(joiner.next_statement()?)
}

/// Reads the rows of the buckets that differ and sends their pairs.
async fn pairs(
    job: &SyncJob,
    snapshot: &Snapshot,
    buckets: &Buckets,
    frames: mpsc::Sender<wire::SyncFrame>,
    counters: &Arc<Counters>,
) -> Result<(), Status> {
    let table = &job.table;
    let spill = narrow::read(snapshot, table, buckets, job.jobs, &job.folder, counters).await?;
    // Pairs are sealed at any rate: they compress well, and are not many.
    let mut sealer = sealer(job.compression.max(1))?;
    let counters = counters.clone();
    tokio::task::spawn_blocking(move || send_pairs(spill, &mut sealer, &frames, &counters))
        .await
        .map_err(|error| Status::internal(format!("the rows of {table}: {error}")))?
        .map_err(|error| narrow::full(table)(error).into())
}

/// Ends early, without an error, when the receiver left: it says why.
fn send_pairs(
    spill: Spill,
    sealer: &mut pgconvoy_proto::frame::Sealer,
    frames: &mpsc::Sender<wire::SyncFrame>,
    counters: &Counters,
) -> std::io::Result<()> {
    let send = |part| frames.blocking_send(frame(part)).is_ok();
    let end = |given_up| Frame::PairsEnd(wire::PairsEnd { given_up });
    if spill.widest() > MOST_ALIKE {
        send(end(true));
        return Ok(());
    }
    for partition in spill.sorted(Alike::Apart) {
        for pairs in partition?.chunks(PAIRS_PER_CHUNK) {
            let slim: Vec<SlimPair> = pairs.iter().map(|pair| (*pair).into()).collect();
            let chunk = sealer.seal(SlimPair::pack_all(&slim).into())?;
            counters.add(0, 0, chunk.payload.len() as u64);
            if !send(Frame::Pairs(chunk)) {
                return Ok(());
            }
        }
    }
    send(end(false));
    Ok(())
}
