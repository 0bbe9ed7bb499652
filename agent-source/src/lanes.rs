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

/// Bytes.
const PROBE_MESSAGE: usize = 16 << 10;
/// A rate is told from a probe that took at least so long, and so many round trips: TCP has found the link's rate by then.
const PROBE_SECONDS: f64 = 0.2;
const PROBE_ROUND_TRIPS: f64 = 4.0;
/// Messages of each probe, which is sent when the one before told too little. Of the first ones only a slow link is told: a new connection
/// sends slowly at first, and on a long link they tell of that and not of the rate.
const PROBES: [usize; 5] = [1, 8, 64, 256, 1024];
const WARMING: usize = 3;
/// A link that takes so long for a probe is known well enough.
const SLOW_SECONDS: f64 = 2.0;

/// Sends incompressible data, 21 MiB at most: bytes, seconds, and the round trip of a small call.
pub async fn measure(lanes: &Lanes, target: &str) -> Result<wire::MeasureLinkResponse, Status> {
    let mut lane = lanes.take(target).await?;
    let data = noise();
    let mut probe = async |messages: usize| {
        let data = data.clone();
        let messages = (0..messages).map(move |_| wire::ProbeRequest { data: data.clone() });
        let begin = Instant::now();
        let received = lane.probe(tokio_stream::iter(messages)).await;
        let bytes = received.map_err(from_target)?.into_inner().bytes;
        Ok::<_, Status>((bytes, begin.elapsed().as_secs_f64()))
    };
    // The first call pays for the connection.
    probe(0).await?;
    let (_, round_trip) = probe(0).await?;
    let enough = PROBE_SECONDS.max(PROBE_ROUND_TRIPS * round_trip);
    let (mut bytes, mut seconds) = (0, 0.0);
    for (number, messages) in PROBES.into_iter().enumerate() {
        (bytes, seconds) = probe(messages).await?;
        if seconds >= SLOW_SECONDS || number >= WARMING && seconds >= enough {
            break;
        }
    }
    lanes.give_back(target, lane);
    Ok(wire::MeasureLinkResponse {
        bytes,
        // The answer's way is no part of it.
        seconds: (seconds - round_trip).max(seconds / 4.0),
        round_trip_seconds: round_trip,
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
