//! How a migration uses what is there: streams, index jobs, compression and the size of parts, from what preflight has measured.
use pgconvoy_proto::facts::ServerFacts;
use pgconvoy_proto::frame::THRIFTY;
use pgconvoy_proto::model::Options;

use crate::cli::{Compression, EffortArgs};
use crate::inventory::Inventory;
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

/// How much is done at once.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub streams: usize,
    /// More of them, for small tables only.
    pub small_streams: usize,
    /// That read one large table at one end.
    pub scan_sessions: usize,
    pub index_jobs: usize,
    /// As [`pgconvoy_proto::frame::Sealer::new`] takes it.
    pub compression: i32,
    /// Bytes per second of the link for each stream, whose level follows the stage that the others wait for; 0: it stays.
    pub link_share: u64,
}

/// Of a migration that is asked for nothing.
pub fn usual(facts: &Facts) -> Effort {
    let usual = EffortArgs {
        streams: None,
        index_jobs: None,
        compression: Compression::Auto,
    };
    of(&usual, facts)
}

/// As was asked for, and what was not from the ends and the link between them.
pub fn of(args: &EffortArgs, facts: &Facts) -> Effort {
    let target = &facts.target.server;
    let link = facts.link.bytes as f64 / facts.link.seconds.max(1e-6);
    let for_link = (facts.link.round_trip_seconds / STREAM_PER).round() as u32;
    let streams = streams(args.streams, target.cpus + for_link);
    Effort {
        streams,
        small_streams: small_streams(args.streams, facts),
        scan_sessions: scan_sessions(streams, facts.source.server.machine.as_deref(), target),
        compression: match args.compression {
            Compression::Auto if link > FAST_LINK => THRIFTY,
            Compression::Auto if link < SLOW_LINK => 3,
            given => level(given),
        },
        link_share: match args.compression {
            Compression::Auto if link <= FAST_LINK => link as u64 / streams as u64,
            _ => 0,
        },
        ..unmeasured(args, target)
    }
}

/// The same where the link is not measured: that takes seconds, while the application waits.
pub fn unmeasured(args: &EffortArgs, target: &ServerFacts) -> Effort {
    let streams = streams(args.streams, target.cpus);
    Effort {
        streams,
        small_streams: 0,
        scan_sessions: streams,
        index_jobs: args.index_jobs.unwrap_or(target.cpus.clamp(1, 4)) as usize,
        compression: level(args.compression),
        link_share: 0,
    }
}

/// As was asked for, or one for each of so many: 2 to 8.
pub fn streams(asked: Option<u32>, usual: u32) -> usize {
    asked.unwrap_or(usual.clamp(2, 8)) as usize
}

/// Who asked for so many streams gets no more.
pub fn small_streams(asked: Option<u32>, facts: &Facts) -> usize {
    let round_trips = facts.link.round_trip_seconds / SMALL_STREAM_PER;
    match asked {
        Some(_) => 0,
        None => (round_trips as usize).min(MOST_SMALL_STREAMS),
    }
}

fn level(compression: Compression) -> i32 {
    match compression {
        Compression::Off => 0,
        Compression::Level(level) => level,
        Compression::Auto => 1,
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
    effort: Effort,
    facts: &Facts,
) -> Options {
    let largest = inventory.tables.iter().map(|table| table.size_bytes).max();
    let share = largest.unwrap_or(0) / (effort.streams as u64 * PARTS_PER_STREAM);
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
