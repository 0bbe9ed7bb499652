//! One part's journey from the source: COPY out, chunks (see `chunks`), the stream to the target agent.
use std::pin::pin;
use std::sync::Arc;

use pgconvoy_agent_core::progress::Counters;
use pgconvoy_agent_core::rows::padding::Padding;
use pgconvoy_agent_core::scan;
use pgconvoy_agent_core::snapshot::Snapshot;
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Digest, Part, Table, required};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::part_frame::Frame;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::chunks::{CHUNKS_SEALED, Outgoing, Packing, Sealing, Stop, read};
use crate::lanes::{Lanes, from_target};

pub struct PartJob {
    pub migration: String,
    pub target: String,
    pub table: Table,
    pub part: Part,
    /// As [`pgconvoy_proto::frame::Sealer::new`] takes it.
    pub compression: i32,
    /// As [`crate::steering::Steering::new`] takes it.
    pub link_share: u64,
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

    let (frame_sender, frames) = mpsc::channel(CHUNKS_SEALED);
    let header = Frame::Header(wire::PartHeader {
        migration: job.migration,
        snapshot: snapshot.id.clone(),
        table: Some(job.table.clone().into()),
        part: Some(job.part.into()),
    });
    let header = wire::PartFrame {
        frame: Some(header),
    };
    // The channel is empty.
    frame_sender.send(header).await.ok();
    let rows = Outgoing::new(&job.table, Padding::of(&job.table));
    let packing = Packing::steered(job.compression, job.link_share)?;
    let (cutter, sealing) = Sealing::start(rows, packing, frame_sender, counters.clone());
    let statement = scan::copy_out(&job.table, Some(&job.part));
    let receipt = {
        let mut read = pin!(read(&reader, &statement, cutter));
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
    let stored = Digest::try_from(required(receipt.digest, "the receipt's digest")?)?;
    if receipt.already {
        return Ok((stored, true));
    }
    snapshot.give_back(reader).await?;
    if sealing.sent(&what).await? != Some(stored) {
        return Err(Status::data_loss(format!(
            "{what}: the receipt is not for what was sent"
        )));
    }
    Ok((stored, false))
}
