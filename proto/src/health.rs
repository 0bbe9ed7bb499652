//! How the target does in the days after a migration: what `monitor` shows. Facts, not judgements.
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Health {
    /// "app at db.example.org:5432 as postgres"
    pub place: String,
    /// server_version_num
    pub version: u32,
    pub uptime_seconds: f64,
    pub in_recovery: bool,
    pub connections: Connections,
    pub counters: Counters,
    pub database_bytes: u64,
    /// Where the server keeps its data, when this host can see it.
    pub disk_free: Option<u64>,
    /// The fullest first; those that were used.
    pub sequences: Vec<Sequence>,
    /// `schema.index`
    pub invalid_indexes: Vec<String>,
    pub standbys: Vec<Standby>,
    pub slots: Vec<Slot>,
    /// The largest tables, indexes and TOAST included.
    pub largest: Vec<Size>,
    pub slowest: Slowest,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Connections {
    /// Of the whole server.
    pub used: u64,
    pub max: u64,
    /// Of the database.
    pub active: u64,
    pub idle_in_transaction: u64,
    pub waiting_for_locks: u64,
    pub longest_transaction_seconds: f64,
}

/// Of the database, since `since`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counters {
    pub since: Option<String>,
    pub commits: u64,
    /// Statements that failed end as these.
    pub rollbacks: u64,
    pub deadlocks: u64,
    /// Queries that a standby cancelled.
    pub conflicts: u64,
    pub checksum_failures: u64,
    /// Sessions that an error, or an operator, ended.
    pub sessions_fatal: u64,
    pub sessions_killed: u64,
    pub temporary_bytes: u64,
    /// Of the blocks that were asked for, those that were in memory; none: nothing was asked for.
    pub cache_hits: Option<f64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sequence {
    pub name: String,
    pub last_value: i64,
    /// The last value that the sequence and the column that it feeds can hold.
    pub limit: i64,
    /// From 0 to 1.
    pub used: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Standby {
    pub name: String,
    pub state: String,
    pub lag_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Slot {
    pub name: String,
    pub active: bool,
    /// WAL that the server keeps for it.
    pub retained_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Size {
    pub table: String,
    pub bytes: u64,
    pub live_rows: u64,
    pub dead_rows: u64,
}

/// Statements by the time that they took in all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Slowest {
    /// pg_stat_statements is not in the database.
    #[default]
    Missing,
    /// Why it cannot be read.
    Unreadable(String),
    Statements(Vec<Statement>),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Statement {
    /// Without its constants, cut.
    pub query: String,
    pub calls: u64,
    pub mean_ms: f64,
    pub total_ms: f64,
}
