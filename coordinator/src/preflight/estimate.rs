//! How long it may take, from sizes and the measured link. An estimate is an estimate: the rates are those of small servers.
use pgconvoy_proto::wire::MeasureLinkResponse;
use serde::Serialize;

/// Bytes per second that one stream brings into a target, as measured on small servers.
const STREAM_RATE: f64 = 40e6;
/// Bytes per second that one session reads of a table to digest it.
pub const SCAN_RATE: f64 = 100e6;
/// Rows compress about this much on the way.
const COMPRESSION_RATIO: f64 = 3.0;

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Estimate {
    /// Of the rows' way into the target.
    pub copy_seconds: f64,
    /// Until it is proven: indexes are built while rows are copied, and after the last ones for about as long as a scan takes.
    pub total_seconds: f64,
    /// The application stands still all the while.
    pub downtime_seconds: f64,
    /// It stands still for the sync only (`migrate --then-sync`, `sync`): both ends read everything once.
    pub downtime_with_sync_seconds: f64,
}

/// Bytes per second of the copy.
pub fn rate(link: &MeasureLinkResponse, streams: usize, compressed: bool) -> f64 {
    let ratio = if compressed { COMPRESSION_RATIO } else { 1.0 };
    let link = link.bytes as f64 / link.seconds.max(1e-6) * ratio;
    link.min(STREAM_RATE * streams as f64)
}

/// `bytes`: of the tables, without indexes.
pub fn estimate(bytes: u64, rate: f64) -> Estimate {
    let copy_seconds = bytes as f64 / rate.max(1.0);
    let scan = bytes as f64 / SCAN_RATE;
    Estimate {
        copy_seconds,
        total_seconds: copy_seconds + 2.0 * scan,
        downtime_seconds: copy_seconds + 2.0 * scan,
        downtime_with_sync_seconds: scan,
    }
}
