//! From COPY data to sealed chunks: cut, digested, compressed.
//!
//! Three stages that overlap through bounded channels: reading (async, the caller's), sealing (a thread), sending (HTTP/2, the
//! caller's). What is in memory of one stream: the messages of tokio-postgres (up to 64 KiB of rows each, or one longer row, which is in memory once),
//! [`CHUNKS_READ`] + [`CHUNKS_SEALED`] chunks, and the HTTP/2 window.
use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use pgconvoy_agent_core::progress::Counters;
use pgconvoy_agent_core::rows::padding::Padding;
use pgconvoy_agent_core::rows::{self, RowDigester};
use pgconvoy_agent_core::session::Session;
use pgconvoy_proto::frame::{CHUNK_BYTES, Sealer};
use pgconvoy_proto::model::{Digest, Table};
use pgconvoy_proto::wire;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Status;

use crate::steering::{Stage, Steering};

const CHUNKS_READ: usize = 2;
/// For the channel that takes sealed chunks.
pub const CHUNKS_SEALED: usize = 4;
/// Rows without their padding make a chunk when there are so many bytes of them: what is cut into [`CHUNK_BYTES`] at the database is
/// less then, and together no chunk is longer than both.
const ENOUGH_BYTES: usize = CHUNK_BYTES / 2;

enum Raw {
    Data(Bytes),
    /// COPY ended well: only now may the trailer be sent.
    End,
}

pub enum Stop {
    Postgres(tokio_postgres::Error),
    /// The other stages ended: they say why.
    Closed,
}

impl From<tokio_postgres::Error> for Stop {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

/// Cuts COPY data into chunks of [`CHUNK_BYTES`].
pub struct Cutter {
    chunk: BytesMut,
    chunks: mpsc::Sender<Raw>,
    counters: Arc<Counters>,
}

impl Cutter {
    /// Short rows are copied into their chunk, once; of long ones whole chunks are cut without copying them.
    pub async fn add(&mut self, mut data: Bytes) -> Result<(), Stop> {
        self.counters.add(0, data.len() as u64, 0);
        while !data.is_empty() {
            if self.chunk.is_empty() && data.len() >= CHUNK_BYTES {
                self.send(Raw::Data(data.split_to(CHUNK_BYTES))).await?;
                continue;
            }
            let fits = data.len().min(CHUNK_BYTES - self.chunk.len());
            self.chunk.extend_from_slice(&data.split_to(fits));
            if self.chunk.len() == CHUNK_BYTES {
                let next = BytesMut::with_capacity(CHUNK_BYTES);
                let full = std::mem::replace(&mut self.chunk, next);
                self.send(Raw::Data(full.freeze())).await?;
            }
        }
        Ok(())
    }

    /// All data was there: the trailer follows.
    pub async fn end(mut self) -> Result<(), Stop> {
        if !self.chunk.is_empty() {
            let last = std::mem::take(&mut self.chunk);
            self.send(Raw::Data(last.freeze())).await?;
        }
        self.send(Raw::End).await
    }

    async fn send(&self, raw: Raw) -> Result<(), Stop> {
        self.chunks.send(raw).await.map_err(|_| Stop::Closed)
    }
}

/// COPY out, to its end.
pub async fn read(session: &Session, statement: &str, mut cutter: Cutter) -> Result<(), Stop> {
    let mut data = pin!(session.copy_out(statement).await?);
    while let Some(rows) = data.try_next().await? {
        cutter.add(rows).await?;
    }
    cutter.end().await
}

/// What the sealing thread gives, for whichever stream it goes into.
pub enum Sealed {
    Chunk(wire::Chunk),
    Trailer(wire::PartTrailer),
}

impl From<Sealed> for wire::PartFrame {
    fn from(sealed: Sealed) -> Self {
        use wire::part_frame::Frame;
        let frame = match sealed {
            Sealed::Chunk(chunk) => Frame::Chunk(chunk),
            Sealed::Trailer(trailer) => Frame::Trailer(trailer),
        };
        Self { frame: Some(frame) }
    }
}

impl From<Sealed> for wire::SyncFrame {
    fn from(sealed: Sealed) -> Self {
        use wire::sync_frame::Frame;
        let frame = match sealed {
            Sealed::Chunk(chunk) => Frame::Chunk(chunk),
            Sealed::Trailer(trailer) => Frame::Trailer(trailer),
        };
        Self { frame: Some(frame) }
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Rows(#[from] pgconvoy_agent_core::rows::Error),
    #[error("compression failed: {0}")]
    Zstd(#[from] std::io::Error),
}

/// The thread that digests rows and chunks and compresses.
pub struct Sealing {
    thread: JoinHandle<Result<Option<Digest>, Error>>,
}

impl Sealing {
    /// What the cutter is given comes out of `frames` sealed, then the trailer.
    pub fn start<F>(
        rows: Outgoing,
        packing: Packing,
        frames: mpsc::Sender<F>,
        counters: Arc<Counters>,
    ) -> (Cutter, Self)
    where
        F: From<Sealed> + Send + 'static,
    {
        let (chunks, raw) = mpsc::channel(CHUNKS_READ);
        let cutter = Cutter {
            chunk: BytesMut::with_capacity(CHUNK_BYTES),
            chunks,
            counters: counters.clone(),
        };
        let thread =
            tokio::task::spawn_blocking(move || seal(packing, rows, raw, &frames, &counters));
        (cutter, Self { thread })
    }

    /// The digest of what was sent, or none when another stage ended first.
    pub async fn sent(self, what: &str) -> Result<Option<Digest>, Status> {
        self.thread
            .await
            .map_err(|error| Status::internal(format!("{what}: sealing failed: {error}")))?
            .map_err(|error| Status::internal(format!("{what}: {error}")))
    }
}

pub fn sealer(level: i32) -> Result<Sealer, Status> {
    Sealer::new(level).map_err(|e| Status::invalid_argument(format!("zstd level {level}: {e}")))
}

/// Rows on their way from the database into chunks.
pub struct Outgoing {
    digester: RowDigester,
    padding: Option<Padding>,
    /// Rows without their padding: they wait until there are [`ENOUGH_BYTES`].
    unpadded: Vec<u8>,
}

impl Outgoing {
    /// `padding`: what is not to travel.
    pub fn new(table: &Table, padding: Option<Padding>) -> Self {
        Self {
            digester: RowDigester::of(table),
            padding,
            unpadded: Vec::new(),
        }
    }

    /// Digests the data; returns the next chunk, if there is enough for one.
    fn add(&mut self, data: Bytes) -> Result<Option<Bytes>, rows::Error> {
        let Some(padding) = &self.padding else {
            self.digester.feed(&data)?;
            return Ok(Some(data));
        };
        self.unpadded.reserve(data.len());
        self.digester
            .feed_unpadded(&data, padding, &mut self.unpadded)?;
        Ok((self.unpadded.len() >= ENOUGH_BYTES).then(|| self.rest()))
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.unpadded).into()
    }
}

/// How chunks are compressed: at one level, or at the one that suits the link.
pub struct Packing {
    sealer: Sealer,
    steering: Option<Steering>,
}

impl Packing {
    /// `level`: as [`Sealer::new`] takes it; INVALID_ARGUMENT when zstd refuses it.
    pub fn at(level: i32) -> Result<Self, Status> {
        Self::steered(level, 0)
    }

    /// The same, to begin with. `link_share`: as [`Steering::new`] takes it.
    pub fn steered(level: i32, link_share: u64) -> Result<Self, Status> {
        Ok(Self {
            sealer: sealer(level)?,
            steering: Steering::new(level, link_share),
        })
    }

    fn spent(&mut self, stage: Stage) {
        if let Some(steering) = &mut self.steering {
            steering.spent(stage);
        }
    }

    fn sent(&mut self, payload: usize) -> std::io::Result<()> {
        match self.steering.as_mut().and_then(|s| s.sent(payload)) {
            Some(level) => self.sealer.set_level(level),
            None => Ok(()),
        }
    }
}

fn seal<F: From<Sealed>>(
    mut packing: Packing,
    mut rows: Outgoing,
    mut raw: mpsc::Receiver<Raw>,
    frames: &mpsc::Sender<F>,
    counters: &Counters,
) -> Result<Option<Digest>, Error> {
    let send = |sealed: Sealed| frames.blocking_send(sealed.into()).is_ok();
    let mut chunks = 0;
    let mut counted = 0;
    while let Some(next) = raw.blocking_recv() {
        packing.spent(Stage::Reading);
        let (chunk, is_last) = match next {
            Raw::Data(data) => (rows.add(data)?, false),
            Raw::End => (Some(rows.rest()), true),
        };
        if let Some(chunk) = chunk.filter(|chunk| !chunk.is_empty()) {
            let chunk = packing.sealer.seal(chunk)?;
            let payload = chunk.payload.len();
            let digested = rows.digester.rows();
            counters.add(digested - counted, 0, payload as u64);
            counted = digested;
            chunks += 1;
            packing.spent(Stage::Sealing);
            if !send(Sealed::Chunk(chunk)) {
                return Ok(None);
            }
            packing.spent(Stage::Sending);
            packing.sent(payload)?;
        }
        if is_last {
            let digest = rows.digester.finish()?;
            let trailer = wire::PartTrailer {
                digest: Some(digest.into()),
                chunks,
            };
            return Ok(send(Sealed::Trailer(trailer)).then_some(digest));
        }
    }
    Ok(None)
}
