//! Chunks of COPY data, checked, into COPY FROM STDIN.
//!
//! Invariant 1 (bytes): only what [`Opener`] gave out reaches PostgreSQL.
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use futures_util::SinkExt;
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use pgconvoy_proto::frame::Opener;
use pgconvoy_proto::model::{Digest, required};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::part_frame::Frame;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::wal_writer::WalWriter;

const CHUNKS_OPENED: usize = 2;

/// What came, and was taken whole.
pub struct Copied {
    /// Of the rows, as the source agent saw them.
    pub digest: Digest,
    /// Compressed.
    pub wire_bytes: u64,
}

/// COPY FROM STDIN of the stream's chunks. DATA_LOSS where fewer or more rows were taken than were sent.
pub async fn copy_in(
    session: &Session,
    statement: &str,
    frames: impl Stream<Item = Result<wire::PartFrame, Status>> + Unpin + Send + 'static,
    mut wal_writer: WalWriter<'_>,
    what: &str,
) -> Result<Copied, Status> {
    let failed = |error: tokio_postgres::Error| status::postgres(what, &error);
    let told = |status: Status| Status::new(status.code(), format!("{what}: {}", status.message()));
    let (sealed_sender, sealed) = mpsc::channel(CHUNKS_OPENED);
    let (opened_sender, mut opened) = mpsc::channel(CHUNKS_OPENED);
    let wire_bytes = AtomicU64::new(0);
    let receiving = forward(frames, sealed_sender, &wire_bytes);
    let opening = tokio::task::spawn_blocking(move || open(sealed, opened_sender));
    let mut sink = pin!(
        session
            .copy_in::<_, Bytes>(statement)
            .await
            .map_err(failed)?
    );
    let loading = async {
        let mut chunks = 0;
        while let Some(next) = opened.recv().await {
            match next.map_err(told)? {
                Opened::Data(data) => {
                    chunks += 1;
                    sink.feed(data)
                        .await
                        .map_err(|error| status::of_row(what, &error))?;
                    wal_writer.fed();
                }
                Opened::Trailer(trailer) if trailer.chunks == chunks => return Ok(trailer),
                Opened::Trailer(_) => break,
            }
        }
        Err(Status::data_loss(format!(
            "{what}: the stream ended before its end"
        )))
    };
    // Whichever breaks first ends the part: PostgreSQL that is gone must not leave the stream waiting for it.
    let trailer = tokio::select! {
        loaded = loading => loaded,
        Err(status) = receiving => Err(told(status)),
    }?;
    let rows = sink
        .finish()
        .await
        .map_err(|error| status::of_row(what, &error))?;
    opening
        .await
        .map_err(|error| Status::internal(format!("{what}: {error}")))?;
    let digest = Digest::try_from(required(trailer.digest, "the trailer's digest")?)?;
    if rows != digest.rows {
        return Err(Status::data_loss(format!(
            "{what}: PostgreSQL took {rows} rows, {} were sent",
            digest.rows
        )));
    }
    Ok(Copied {
        digest,
        wire_bytes: wire_bytes.into_inner(),
    })
}

async fn forward(
    mut frames: impl Stream<Item = Result<wire::PartFrame, Status>> + Unpin,
    sealed: mpsc::Sender<wire::PartFrame>,
    wire_bytes: &AtomicU64,
) -> Result<(), Status> {
    while let Some(frame) = frames.next().await {
        let frame = frame?;
        if let Some(Frame::Chunk(chunk)) = &frame.frame {
            wire_bytes.fetch_add(chunk.payload.len() as u64, Relaxed);
        }
        if sealed.send(frame).await.is_err() {
            break;
        }
    }
    Ok(())
}

enum Opened {
    Data(Bytes),
    Trailer(wire::PartTrailer),
}

/// Decompresses and checks, on a thread of its own.
fn open(mut sealed: mpsc::Receiver<wire::PartFrame>, opened: mpsc::Sender<Result<Opened, Status>>) {
    let mut opener = match Opener::new() {
        Ok(opener) => opener,
        Err(error) => {
            // Without a receiver the load has ended already, for a reason of its own.
            opened
                .blocking_send(Err(Status::internal(error.to_string())))
                .ok();
            return;
        }
    };
    while let Some(frame) = sealed.blocking_recv() {
        let next = match frame.frame {
            Some(Frame::Chunk(chunk)) => opener
                .open(chunk)
                .map(Opened::Data)
                .map_err(|error| Status::data_loss(error.to_string())),
            Some(Frame::Trailer(trailer)) => Ok(Opened::Trailer(trailer)),
            _ => Err(Status::invalid_argument(
                "a frame that is neither chunk nor trailer",
            )),
        };
        let last = !matches!(next, Ok(Opened::Data(_)));
        if opened.blocking_send(next).is_err() || last {
            return;
        }
    }
}
