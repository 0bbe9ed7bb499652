//! How a migration uses what is there: streams, index jobs, compression and the size of parts, from what preflight has measured.
use pgconvoy_proto::facts::ServerFacts;
use pgconvoy_proto::frame::THRIFTY;
use pgconvoy_proto::model::Options;

use crate::cli::{Compression, Effort};
use crate::inventory::Inventory;
use crate::phases::Settings;
use crate::preflight::Facts;

/// Above this a link is faster than compressing for it, bytes per second.
const FAST_LINK: f64 = 250e6;
/// Below this a better ratio is worth its processor time.
const SLOW_LINK: f64 = 5e6;

/// A connection has some 4 MiB under way (Linux's own limit for what is sent and not acknowledged): one stream more for every so
/// many seconds that an acknowledgement takes, seconds.
const STREAM_PER: f64 = 0.025;
/// One more stream for small tables for every so many seconds that the link takes for a question and its answer: they cost
/// little but these.
const SMALL_STREAM_PER: f64 = 0.01;
/// Every stream is a connection with each database: some have few to give.
const MOST_SMALL_STREAMS: usize = 6;

/// Of a migration that is not told otherwise.
pub fn usual(facts: &Facts) -> Settings {
    let effort = Effort {
        streams: None,
        index_jobs: None,
        compression: Compression::Auto,
    };
    of(&effort, facts)
}

pub fn of(effort: &Effort, facts: &Facts) -> Settings {
    let cpus = facts.target.server.cpus;
    let link = facts.link.bytes as f64 / facts.link.seconds.max(1e-6);
    let compression = match effort.compression {
        Compression::Off => 0,
        Compression::Level(level) => level,
        Compression::Auto if link > FAST_LINK => THRIFTY,
        Compression::Auto if link < SLOW_LINK => 3,
        Compression::Auto => 1,
    };
    let for_link = (facts.link.round_trip_seconds / STREAM_PER).round() as u32;
    let streams = effort.streams.unwrap_or((cpus + for_link).clamp(2, 8)) as usize;
    let round_trips = facts.link.round_trip_seconds / SMALL_STREAM_PER;
    Settings {
        small_streams: (round_trips as usize).min(MOST_SMALL_STREAMS),
        streams,
        scan_sessions: scan_sessions(
            streams,
            facts.source.server.machine.as_deref(),
            &facts.target.server,
        ),
        index_jobs: effort.index_jobs.unwrap_or(cpus.clamp(1, 4)) as usize,
        compression,
        link_share: match effort.compression {
            Compression::Auto if link <= FAST_LINK => link as u64 / streams as u64,
            _ => 0,
        },
    }
}

/// Parts of the largest table for each stream: the streams then end at about the same time.
const PARTS_PER_STREAM: u64 = 4;
const SMALLEST_PART: u64 = 16 << 20;
const LARGEST_PART: u64 = 128 << 20;
/// One stream, from COPY TO to COPY FROM, keeps so many processors busy.
const PROCESSORS_OF_A_STREAM: u32 = 2;
/// Of tables that are not cut for the sake of streams: more than this should not have to come again when a part is cut off.
const LARGEST_UNCUT: u64 = 1 << 30;

/// As was asked for, or such that the largest table keeps all streams busy to its end. Where one stream keeps all processors busy, a
/// table gains nothing from a second one: it is loaded whole then, which spares it the VACUUM.
pub fn with_part_size(
    options: Options,
    inventory: &Inventory,
    settings: Settings,
    facts: &Facts,
) -> Options {
    let largest = inventory.tables.iter().map(|table| table.size_bytes).max();
    let share = largest.unwrap_or(0) / (settings.streams as u64 * PARTS_PER_STREAM);
    let part_bytes = match options.part_bytes {
        0 if are_few_processors(facts) => LARGEST_UNCUT,
        0 => share.clamp(SMALLEST_PART, LARGEST_PART),
        given => given,
    };
    Options {
        part_bytes,
        ..options
    }
}

/// Both servers and both agents share no more processors than one stream uses.
fn are_few_processors(facts: &Facts) -> bool {
    let (source, target) = (&facts.source.server, &facts.target.server);
    is_one_machine(source.machine.as_deref(), target) && target.cpus <= PROCESSORS_OF_A_STREAM
}

fn is_one_machine(source: Option<&str>, target: &ServerFacts) -> bool {
    source.is_some() && source == target.machine.as_deref()
}

/// How many sessions read a large table at one end, `streams` at most. Both ends are read at once: on one machine each has half of the
/// processors, and one session reads with the least of them (`is_read_whole` in the agents' scan.rs).
pub fn scan_sessions(streams: usize, source_machine: Option<&str>, target: &ServerFacts) -> usize {
    match is_one_machine(source_machine, target) {
        true => streams.min(target.cpus as usize / 2).max(1),
        false => streams,
    }
}
