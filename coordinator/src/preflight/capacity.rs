//! Room and speed: the target's disk, connections and locks at both ends, clocks, the link between the agents.
use pgconvoy_proto::model::{Finding, Severity};

use super::{Facts, Intent, blocker, info, warning};
use crate::effort;
use crate::text::bytes;

/// Clocks further apart than this make certificates and times in reports doubtful.
const CLOCK_SKEW_SECONDS: i64 = 10;

pub fn capacity(facts: &Facts, intent: Intent, found: &mut Vec<Finding>) {
    let (source, target) = (&facts.source, &facts.target);
    let needed = source.size_bytes * 2;
    match target.disk_free {
        Some(free) if free < needed => found.push(
            Finding::new(
                if intent.force {
                    Severity::Warning
                } else {
                    Severity::Blocker
                },
                "disk",
                target.server.place.clone(),
                format!(
                    "{} free, {} needed (twice the source's {})",
                    bytes(free),
                    bytes(needed),
                    bytes(source.size_bytes)
                ),
            )
            .hint("make room, or move the data directory; --force goes on"),
        ),
        Some(_) => {}
        None => found.push(
            warning(
                "disk-unknown",
                target.server.place.clone(),
                format!(
                    "the target agent cannot see the server's disk: {} are needed (twice the source's {})",
                    bytes(needed),
                    bytes(source.size_bytes)
                ),
            )
            .hint("look yourself, or run the agent on the server's host as a role that may read data_directory"),
        ),
    }
    let streams = u64::from(intent.streams.unwrap_or(8))
        + effort::small_streams(intent.streams, facts) as u64;
    for (end, server, sessions) in [
        ("source", &source.server, streams + 3),
        ("target", &target.server, 2 * streams + 8),
    ] {
        let free = u64::from(
            server
                .max_connections
                .saturating_sub(server.used_connections),
        );
        if free < sessions {
            found.push(
                warning(
                    "connections",
                    end,
                    format!("{free} connections are free, up to {sessions} are wanted"),
                )
                .hint("raise max_connections, or lower --streams"),
            );
        }
    }
    // The snapshot's holder and pg_dump lock every table at the source; the target makes them some hundred at a time.
    let server = &source.server;
    let slots = u64::from(server.max_locks_per_transaction)
        * u64::from(server.max_connections + server.max_prepared_transactions);
    if source.tables > slots {
        let setting = source
            .tables
            .div_ceil(u64::from(server.max_connections.max(1)))
            + 1;
        found.push(
            blocker(
                "locks",
                "source",
                format!(
                    "{} tables need as many locks, there is room for {slots}",
                    source.tables
                ),
            )
            .hint(format!(
                "set max_locks_per_transaction = {setting} and restart the server"
            )),
        );
    }
}

pub fn surroundings(facts: &Facts, found: &mut Vec<Finding>) {
    for (what, clock) in [
        (
            "the source agent's host",
            facts.source.server.agent_clock_us,
        ),
        (
            "the target agent's host",
            facts.target.server.agent_clock_us,
        ),
        (
            "the source database's host",
            facts.source.server.server_clock_us,
        ),
        (
            "the target database's host",
            facts.target.server.server_clock_us,
        ),
    ] {
        let apart = (clock - facts.clock_us).abs() / 1_000_000;
        if apart > CLOCK_SKEW_SECONDS {
            found.push(
                warning(
                    "clock",
                    what,
                    format!("its clock is {apart} s from this machine's"),
                )
                .hint("run NTP"),
            );
        }
    }
    let link = &facts.link;
    found.push(info(
        "link",
        "source agent to target agent",
        format!(
            "{}/s, round trip {:.1} ms",
            bytes((link.bytes as f64 / link.seconds.max(1e-6)) as u64),
            link.round_trip_seconds * 1000.0
        ),
    ));
    if facts.source.server.agent_version != facts.target.server.agent_version {
        found.push(
            warning(
                "agent-version",
                "agents",
                "the agents are of different versions",
            )
            .values(
                &facts.source.server.agent_version,
                &facts.target.server.agent_version,
            ),
        );
    }
}
