//! One part's journey from the source: COPY out, chunks, digests, compression, the stream to the target agent.
//!
//! Three stages that overlap through bounded channels: reading (async), sealing (a thread), sending (HTTP/2). What is
//! in memory of one stream: the messages of tokio-postgres (one row each; a row is in memory once), [`CHUNKS_READ`] +
//! [`CHUNKS_SEALED`] chunks, and the HTTP/2 window.
use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use pgconvoy_agent_core::progress::Counters;
use pgconvoy_agent_core::rows::RowDigester;
use pgconvoy_agent_core::scan;
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::snapshot::Snapshot;
use pgconvoy_agent_core::status;
use pgconvoy_proto::frame::{CHUNK_BYTES, Sealer};
use pgconvoy_proto::model::{Digest, Part, Table, required};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::part_frame::Frame;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::lanes::{Lanes, from_target};

const CHUNKS_READ: usize = 2;
const CHUNKS_SEALED: usize = 4;

pub struct PartJob {
    pub migration: String,
    pub target: String,
    pub table: Table,
    pub part: Part,
    /// zstd level; 0: off.
    pub compression: i32,
}

/// Loaded, as the ledger says it: the digest, and whether it was there before.
pub type Loaded = (Digest, bool);

/// Copies one part; returns when the target has committed it.
pub async fn copy_part(
    snapshot: Arc<Snapshot>,
    lanes: Lanes,
    job: PartJob,
    counters: Arc<Counters>,
) -> Result<Loaded, Status> {
    let what = format!("{}, part {}", job.table, job.part.number);
    let reader = snapshot.reader(&job.table).await?;
    let mut lane = lanes.take(&job.target).await?;

    let (raw_sender, raw) = mpsc::channel(CHUNKS_READ);
    let (frame_sender, frames) = mpsc::channel(CHUNKS_SEALED);
    let header = wire::PartHeader {
        migration: job.migration,
        snapshot: snapshot.id.clone(),
        table: Some(job.table.clone().into()),
        part: Some(job.part.into()),
    };
    let sealer = Sealer::new(job.compression)
        .map_err(|e| Status::invalid_argument(format!("zstd level {}: {e}", job.compression)))?;
    let rows = RowDigester::new(job.table.format);
    let sealing = {
        let counters = counters.clone();
        tokio::task::spawn_blocking(move || {
            seal(header, sealer, rows, raw, frame_sender, &counters)
        })
    };
    let statement = scan::copy_out(&job.table, Some(&job.part));
    let receipt = {
        let mut read = pin!(read(&reader, &statement, raw_sender, &counters));
        let mut loaded = pin!(lane.load_part(ReceiverStream::new(frames)));
        let mut reading = true;
        // Whichever breaks first ends the part: the others may be waiting for each other.
        loop {
            tokio::select! {
                ended = &mut read, if reading => match ended {
                    Err(Stop::Postgres(error)) => {
                        return Err(status::postgres(&format!("reading {what}"), &error));
                    }
                    Ok(()) | Err(Stop::Closed) => reading = false,
                },
                answer = &mut loaded => break answer.map_err(from_target)?.into_inner(),
            }
        }
    };
    lanes.give_back(&job.target, lane);
    let stored = Digest::from(required(receipt.digest, "the receipt's digest")?);
    if receipt.already {
        return Ok((stored, true));
    }
    snapshot.give_back(reader).await?;
    let sent = sealing
        .await
        .map_err(|error| Status::internal(format!("{what}: sealing failed: {error}")))?
        .map_err(|error| Status::internal(format!("{what}: {error}")))?;
    if sent != Some(stored) {
        return Err(Status::data_loss(format!(
            "{what}: the receipt is not for what was sent"
        )));
    }
    Ok((stored, false))
}

enum Raw {
    Data(Bytes),
    /// COPY ended well: only now may the trailer be sent.
    End,
}

enum Stop {
    Postgres(tokio_postgres::Error),
    /// The other stages ended: they say why.
    Closed,
}

impl From<tokio_postgres::Error> for Stop {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

/// COPY out, cut into chunks. Long rows are cut without copying them.
async fn read(
    session: &Session,
    statement: &str,
    chunks: mpsc::Sender<Raw>,
    counters: &Counters,
) -> Result<(), Stop> {
    let mut data = pin!(session.copy_out(statement).await?);
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
    while let Some(mut row) = data.try_next().await? {
        counters.add(0, row.len() as u64, 0);
        while !row.is_empty() {
            if chunk.is_empty() && row.len() >= CHUNK_BYTES {
                send(&chunks, Raw::Data(row.split_to(CHUNK_BYTES))).await?;
                continue;
            }
            let fits = row.len().min(CHUNK_BYTES - chunk.len());
            chunk.extend_from_slice(&row.split_to(fits));
            if chunk.len() == CHUNK_BYTES {
                let full = std::mem::replace(&mut chunk, BytesMut::with_capacity(CHUNK_BYTES));
                send(&chunks, Raw::Data(full.freeze())).await?;
            }
        }
    }
    if !chunk.is_empty() {
        send(&chunks, Raw::Data(chunk.freeze())).await?;
    }
    send(&chunks, Raw::End).await
}

async fn send(chunks: &mpsc::Sender<Raw>, raw: Raw) -> Result<(), Stop> {
    chunks.send(raw).await.map_err(|_| Stop::Closed)
}

#[derive(Debug)]
enum SealError {
    Rows(pgconvoy_agent_core::rows::Error),
    Zstd(std::io::Error),
}

impl std::fmt::Display for SealError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rows(error) => error.fmt(f),
            Self::Zstd(error) => write!(f, "compression failed: {error}"),
        }
    }
}

/// Digests rows and chunks and compresses, on a thread of its own. The digest of what was sent, or none when another stage ended.
fn seal(
    header: wire::PartHeader,
    mut sealer: Sealer,
    mut rows: RowDigester,
    mut raw: mpsc::Receiver<Raw>,
    frames: mpsc::Sender<wire::PartFrame>,
    counters: &Counters,
) -> Result<Option<Digest>, SealError> {
    let send = |frame| {
        frames
            .blocking_send(wire::PartFrame { frame: Some(frame) })
            .is_ok()
    };
    if !send(Frame::Header(header)) {
        return Ok(None);
    }
    let mut chunks = 0;
    while let Some(next) = raw.blocking_recv() {
        let Raw::Data(data) = next else {
            let digest = rows.finish().map_err(SealError::Rows)?;
            let trailer = wire::PartTrailer {
                digest: Some(digest.into()),
                chunks,
            };
            return Ok(send(Frame::Trailer(trailer)).then_some(digest));
        };
        let before = rows.rows();
        rows.feed(&data).map_err(SealError::Rows)?;
        let chunk = sealer.seal(data).map_err(SealError::Zstd)?;
        counters.add(rows.rows() - before, 0, chunk.payload.len() as u64);
        chunks += 1;
        if !send(Frame::Chunk(chunk)) {
            return Ok(None);
        }
    }
    Ok(None)
}
