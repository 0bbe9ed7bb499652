//! The screen, and what on it asks for somebody. Pure.
use pgconvoy_proto::errors;
use pgconvoy_proto::health::{Health, Slowest};
use pgconvoy_proto::model::{Finding, Severity};
use serde_json::{Value, json};

use super::Differences;
use crate::events::finding_text;
use crate::text::{bytes, columns, duration};
use crate::verify::Counted;

/// From this share on something is nearly full.
const NEARLY_FULL: f64 = 0.8;
/// Transactions that are open for longer hold back VACUUM, seconds.
const LONG_TRANSACTION: f64 = 300.0;
/// WAL that is kept for an idle slot fills the disk.
const MUCH_WAL: u64 = 1 << 30;
const LITTLE_DISK: u64 = 5 << 30;

fn warning(code: &str, object: impl Into<String>, message: String, hint: &str) -> Finding {
    Finding::new(Severity::Warning, code, object, message).hint(hint)
}

pub fn not_compared(error: &anyhow::Error) -> Finding {
    let what = format!(
        "what differs since could not be looked at: {}",
        errors::in_words(error)
    );
    warning(
        "source-not-compared",
        "source",
        what,
        "leave --source (PGCONVOY_SOURCE) out when the source is retired",
    )
}

pub fn findings(health: &Health) -> Vec<Finding> {
    let mut found = Vec::new();
    let connections = &health.connections;
    if connections.used as f64 > connections.max as f64 * NEARLY_FULL {
        let what = format!(
            "{} of {} connections are used",
            connections.used, connections.max
        );
        found.push(warning(
            "connections",
            "server",
            what,
            "a connection pooler, or raise max_connections",
        ));
    }
    if connections.longest_transaction_seconds > LONG_TRANSACTION {
        let open = duration(connections.longest_transaction_seconds);
        let what = format!("a transaction has been open for {open}");
        found.push(warning(
            "long-transaction",
            "database",
            what,
            "look for it in pg_stat_activity",
        ));
    }
    if connections.waiting_for_locks > 0 {
        let what = format!("{} sessions wait for locks", connections.waiting_for_locks);
        found.push(warning(
            "locks",
            "database",
            what,
            "pg_blocking_pids() says for whom",
        ));
    }
    found.extend(counters(health));
    found.extend(
        health
            .sequences
            .iter()
            .filter(|s| s.used > NEARLY_FULL)
            .map(|sequence| {
                let what = format!(
                    "{} of {}: {:.0} % of its values are used",
                    sequence.last_value,
                    sequence.limit,
                    sequence.used * 100.0
                );
                warning(
                    "sequence",
                    &sequence.name,
                    what,
                    "make the column a bigint before it is full",
                )
            }),
    );
    found.extend(health.invalid_indexes.iter().map(|index| {
        warning(
            "index-invalid",
            index,
            "no query uses the index: it is not valid".into(),
            "REINDEX INDEX CONCURRENTLY, or drop it",
        )
    }));
    found.extend(
        health
            .slots
            .iter()
            .filter(|slot| !slot.active)
            .filter_map(|slot| {
                let kept = slot.retained_bytes.filter(|kept| *kept > MUCH_WAL)?;
                let what = format!(
                    "nobody reads the slot, and the server keeps {} of WAL for it",
                    bytes(kept)
                );
                Some(warning(
                    "slot",
                    &slot.name,
                    what,
                    "start its reader, or pg_drop_replication_slot()",
                ))
            }),
    );
    if let Some(free) = health.disk_free.filter(|free| *free < LITTLE_DISK) {
        found.push(warning(
            "disk",
            &health.place,
            format!("{} free", bytes(free)),
            "make room",
        ));
    }
    found
}

fn counters(health: &Health) -> Vec<Finding> {
    let counters = &health.counters;
    let count = |code, n: u64, what: &str, hint| {
        let text = format!(
            "{n} {what} since {}",
            counters
                .since
                .as_deref()
                .unwrap_or("the server's first start")
        );
        (n > 0).then(|| warning(code, "database", text, hint))
    };
    [
        count(
            "deadlocks",
            counters.deadlocks,
            "deadlocks",
            "the server's log has the statements",
        ),
        count(
            "checksums",
            counters.checksum_failures,
            "pages with a wrong checksum",
            "the storage loses data: look at once",
        ),
        count(
            "sessions-fatal",
            counters.sessions_fatal,
            "sessions that a fatal error ended",
            "the server's log says why",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub fn text(health: &Health) -> String {
    let (c, n) = (&health.connections, &health.counters);
    let disk = health.disk_free.map_or_else(String::new, |free| {
        format!(", {} free on its disk", bytes(free))
    });
    let hits = n.cache_hits.map_or_else(String::new, |hits| {
        format!(", {:.1} % of blocks found in memory", hits * 100.0)
    });
    let mut text = format!(
        "{}\n  PostgreSQL {}.{}, up for {}{}; {}{disk}\n\
         connections\n  {} of {} used; {} active, {} idle in transaction, {} waiting for locks; oldest transaction {}\n\
         counters since {}\n  {} commits, {} rollbacks, {} deadlocks, {} conflicts, {} fatal sessions, {} temporary files{hits}\n",
        health.place,
        health.version / 10_000,
        health.version % 10_000,
        duration(health.uptime_seconds),
        if health.in_recovery {
            ", in recovery"
        } else {
            ""
        },
        bytes(health.database_bytes),
        c.used,
        c.max,
        c.active,
        c.idle_in_transaction,
        c.waiting_for_locks,
        duration(c.longest_transaction_seconds),
        n.since.as_deref().unwrap_or("the first start"),
        n.commits,
        n.rollbacks,
        n.deadlocks,
        n.conflicts,
        n.sessions_fatal,
        bytes(n.temporary_bytes),
    );
    let sequences = health.sequences.iter().map(|s| {
        vec![
            s.name.clone(),
            s.last_value.to_string(),
            format!("of {}", s.limit),
            format!("{:.1} %", s.used * 100.0),
        ]
    });
    text += &section("sequences, the fullest", sequences);
    let sizes = health.largest.iter().map(|size| {
        vec![
            size.table.clone(),
            bytes(size.bytes),
            format!("{} rows", size.live_rows),
            format!("{} dead", size.dead_rows),
        ]
    });
    text += &section("tables, the largest", sizes);
    text += &section(
        "invalid indexes",
        health
            .invalid_indexes
            .iter()
            .map(|index| vec![index.clone()]),
    );
    let lag = |kept: Option<u64>| kept.map_or_else(|| "unknown".into(), bytes);
    let standbys = health.standbys.iter().map(|s| {
        vec![
            s.name.clone(),
            s.state.clone(),
            format!("{} behind", lag(s.lag_bytes)),
        ]
    });
    let slots = health.slots.iter().map(|s| {
        let state = if s.active { "read" } else { "idle" };
        vec![
            format!("slot {}", s.name),
            state.into(),
            format!("{} kept", lag(s.retained_bytes)),
        ]
    });
    text += &section("replication", standbys.chain(slots));
    text + &slowest(&health.slowest)
}

fn section(head: &str, rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.collect();
    match rows.is_empty() {
        true => format!("{head}\n  none\n"),
        false => format!("{head}\n{}", columns(&rows)),
    }
}

fn slowest(slowest: &Slowest) -> String {
    let head = "statements that took most time";
    match slowest {
        Slowest::Missing => format!("{head}\n  not known: CREATE EXTENSION pg_stat_statements\n"),
        Slowest::Unreadable(why) => format!("{head}\n  not known: {why}\n"),
        Slowest::Statements(all) => section(
            head,
            all.iter().map(|s| {
                vec![
                    s.query.chars().take(80).collect(),
                    format!("{} calls", s.calls),
                    format!("{:.2} ms each", s.mean_ms),
                    duration(s.total_ms / 1000.0),
                ]
            }),
        ),
    }
}

pub fn since_text(differences: &Differences) -> String {
    let mut text = String::from("since the migration, the source\n");
    let changed: Vec<Vec<String>> = differences
        .tables
        .iter()
        .filter(|(_, source, target)| source != target)
        .map(|(table, source, target)| {
            vec![
                table.to_string(),
                format!("{source} rows at the source"),
                format!("{target} at the target"),
            ]
        })
        .collect();
    text += &columns(&changed);
    for finding in &differences.schema {
        text += &format!("{}\n", finding_text(finding));
    }
    if changed.is_empty() && differences.schema.is_empty() {
        text += "  has as many rows in every table, and the same schema\n";
    }
    text
}

pub fn table((table, source, target): &Counted) -> Value {
    json!({
        "schema": table.schema, "table": table.name, "source_rows": source, "target_rows": target,
    })
}

pub fn findings_text(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing asks for attention\n".into();
    }
    let lines: Vec<String> = findings.iter().map(finding_text).collect();
    format!("asks for attention\n{}\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgconvoy_proto::health::{Sequence, Slot};

    #[test]
    fn what_is_nearly_full_or_broken_is_told() {
        let mut health = Health::default();
        health.connections.max = 100;
        assert!(findings(&health).is_empty());
        health.connections.used = 81;
        health.counters.deadlocks = 1;
        health.invalid_indexes = vec!["public.i".into()];
        let sequence = |used| Sequence {
            used,
            ..Sequence::default()
        };
        health.sequences = vec![sequence(0.9), sequence(0.7)];
        let slot = |active| Slot {
            active,
            retained_bytes: Some(2 << 30),
            ..Slot::default()
        };
        health.slots = vec![slot(true), slot(false)];
        health.disk_free = Some(1);
        let mut codes: Vec<String> = findings(&health).into_iter().map(|f| f.code).collect();
        codes.sort();
        assert_eq!(
            codes,
            [
                "connections",
                "deadlocks",
                "disk",
                "index-invalid",
                "sequence",
                "slot"
            ]
        );
    }
}
