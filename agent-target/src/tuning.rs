//! What the sessions of a migration are set to, so that the target's PostgreSQL uses the machine that it has: for these sessions
//! only, and never less than the server's own setting.
use pgconvoy_agent_core::database::Database;

/// Share of the machine's memory for one index build; as a rule up to four run at once.
const MEMORY_SHARE: u64 = 32;
/// More than this one build does not use (MiB).
const MOST_MEMORY: u64 = 2048;
/// PostgreSQL's own default (MiB).
const LEAST_MEMORY: u64 = 64;
const MOST_WORKERS: usize = 8;

/// SQL. The memory of another machine than the server's is none of its: only for a server on this one are builds given more.
pub fn settings(database: &Database) -> String {
    let mut sql = "SET synchronous_commit = off;".to_owned();
    if database.is_on_this_machine() {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = build_memory(&meminfo);
        sql += &at_least(
            "maintenance_work_mem",
            "pg_catalog.pg_size_bytes",
            &format!("{memory}MB"),
        );
        let workers = (processors() / 2).min(MOST_WORKERS).to_string();
        sql += &at_least("max_parallel_maintenance_workers", "", &workers);
    }
    sql
}

/// SQL for a build beside which its table is digested: the processors that the digest takes, one for its backend and one that the
/// build has anyhow, are none for workers. Holds to the end of the transaction.
pub fn beside_a_digest(database: &Database) -> String {
    if !database.is_on_this_machine() {
        return String::new();
    }
    let workers = processors().saturating_sub(2);
    format!(
        "SELECT pg_catalog.set_config('max_parallel_maintenance_workers', '{workers}', true)
         WHERE pg_catalog.current_setting('max_parallel_maintenance_workers')::int8 > {workers};"
    )
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Sets it where it is less. `unit` is a function that makes numbers of such values, or nothing.
fn at_least(name: &str, unit: &str, value: &str) -> String {
    let number = |text: &str| format!("({unit}({text}))::int8");
    format!(
        "SELECT pg_catalog.set_config('{name}', '{value}', false) WHERE {} < {};",
        number(&format!("pg_catalog.current_setting('{name}')")),
        number(&format!("'{value}'"))
    )
}

/// MiB for one build, from /proc/meminfo (proc(5): `MemTotal: 16384 kB`); PostgreSQL's default where that cannot be read.
fn build_memory(meminfo: &str) -> u64 {
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    total
        .map_or(LEAST_MEMORY, |kib| kib / 1024 / MEMORY_SHARE)
        .clamp(LEAST_MEMORY, MOST_MEMORY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_gets_its_share_of_the_memory_within_bounds() {
        assert_eq!(
            build_memory("MemTotal:       16777216 kB\nMemFree: 1 kB\n"),
            512
        );
        assert_eq!(build_memory("MemTotal: 1048576 kB"), LEAST_MEMORY);
        assert_eq!(build_memory("MemTotal: 1073741824 kB"), MOST_MEMORY);
        assert_eq!(build_memory("nothing that is known"), LEAST_MEMORY);
    }
}
