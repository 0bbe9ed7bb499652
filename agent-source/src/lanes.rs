//! Connections to the target agent. One HTTP/2 connection is one TCP connection and one task: each bulk stream gets a
//! lane of its own, so that a lost packet holds up one stream only.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use pgconvoy_proto::channel;
use pgconvoy_proto::frame::MAX_MESSAGE_BYTES;
use pgconvoy_proto::identity::{Identity, Role};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::target_client::TargetClient;
use tokio_stream::StreamExt;
use tonic::Status;
use tonic::transport::Channel;

pub type Lane = TargetClient<Channel>;

#[derive(Clone)]
pub struct Lanes {
    identity: Identity,
    idle: Arc<Mutex<HashMap<String, Vec<Lane>>>>,
}

impl Lanes {
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            idle: Arc::default(),
        }
    }

    /// A lane that nobody else uses.
    pub async fn take(&self, target: &str) -> Result<Lane, Status> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(target)
            .and_then(Vec::pop);
        if let Some(lane) = idle {
            return Ok(lane);
        }
        let channel = channel::connect(target, &self.identity, Role::Target)
            .await
            .map_err(|error| {
                Status::unavailable(format!(
                    "from the source agent to the target agent: {error}"
                ))
            })?;
        Ok(TargetClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// For a lane whose last call ended well; others are dropped.
    pub fn give_back(&self, target: &str, lane: Lane) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.entry(target.to_owned()).or_default().push(lane);
    }
}

/// What the target agent answered, with where it came from; transport errors in clear words.
pub fn from_target(status: Status) -> Status {
    match channel::explain(&status) {
        Some(text) => {
            Status::unavailable(format!("from the source agent to the target agent: {text}"))
        }
        None => Status::new(status.code(), format!("target agent: {}", status.message())),
    }
}

const PROBE_MESSAGE: usize = 256 << 10;
const PROBE_MESSAGES: usize = 64;
const PROBE_SECONDS: u64 = 3;

/// Sends incompressible data for at most a few seconds: bytes, seconds, and the round trip of a small call.
pub async fn measure(lanes: &Lanes, target: &str) -> Result<wire::MeasureLinkResponse, Status> {
    let mut lane = lanes.take(target).await?;
    let probe = |messages: usize| {
        let data = noise();
        let begin = Instant::now();
        tokio_stream::iter(0..messages)
            .take_while(move |_| begin.elapsed().as_secs() < PROBE_SECONDS)
            .map(move |_| wire::ProbeRequest { data: data.clone() })
    };
    // The first call pays for the connection's slow start.
    lane.probe(probe(0)).await.map_err(from_target)?;
    let begin = Instant::now();
    lane.probe(probe(0)).await.map_err(from_target)?;
    let round_trip = begin.elapsed();
    let begin = Instant::now();
    let bytes = lane
        .probe(probe(PROBE_MESSAGES))
        .await
        .map_err(from_target)?
        .into_inner()
        .bytes;
    let seconds = begin.elapsed().as_secs_f64();
    lanes.give_back(target, lane);
    Ok(wire::MeasureLinkResponse {
        bytes,
        seconds,
        round_trip_seconds: round_trip.as_secs_f64(),
    })
}

/// Bytes that no compressor makes smaller (xorshift64).
fn noise() -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..PROBE_MESSAGE / 8)
        .flat_map(|_| next())
        .collect::<Vec<u8>>()
        .into()
}
