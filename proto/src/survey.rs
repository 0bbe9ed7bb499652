//! What only `preflight` looks at, for it takes time: what is going on at the source, and where the target agent may write. Facts, not
//! judgements.
use serde::{Deserialize, Serialize};

/// The longest that an agent watches for writes, in milliseconds.
pub const LONGEST_SAMPLE_MS: u32 = 60_000;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SourceSurvey {
    /// How long writes were watched for.
    pub sample_seconds: f64,
    /// Transactions that got an id meanwhile, in any database of the server: whoever writes has one.
    pub transactions: u64,
    /// Bytes of WAL written meanwhile; not told by a standby.
    pub wal_bytes: Option<u64>,
    /// Selected tables that the server's statistics saw written meanwhile, and how many rows. They come late, by up to ten seconds.
    pub written: Vec<(String, u64)>,
    /// Other sessions with the database.
    pub sessions: Vec<Sessions>,
    /// Transactions that have been open for a minute or longer, prepared ones included.
    pub long_transactions: Vec<LongTransaction>,
    pub jobs: Jobs,
    pub tables: Vec<TableSize>,
    /// The whole database, indexes included.
    pub database_bytes: u64,
    pub collation: CollationVersion,
}

/// Versions of the database's collation, as its provider tells them; none: it has none (C), or the server is older than 15.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollationVersion {
    /// When the database was made.
    pub recorded: Option<String>,
    /// Of the system now.
    pub actual: Option<String>,
}

/// Of one role and application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    pub role: String,
    pub application: String,
    pub count: u64,
    /// Running a statement, or in a transaction.
    pub busy: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LongTransaction {
    pub role: String,
    pub application: String,
    /// "active", "idle in transaction", "prepared"
    pub state: String,
    pub seconds: f64,
}

/// Jobs of pg_cron.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Jobs {
    /// pg_cron is not in this database.
    #[default]
    None,
    /// The agent's role may not read cron.job.
    Unreadable,
    /// Those that are active: name and schedule.
    Active(Vec<(String, String)>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSize {
    pub schema: String,
    pub name: String,
    /// As the last ANALYZE or VACUUM left it in the catalog: an estimate. None: neither has been there.
    pub estimated_rows: Option<u64>,
    /// Heap and TOAST.
    pub bytes: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TargetSurvey {
    /// Where the target agent keeps archives and temporary files.
    pub data_dir: String,
    /// Why it cannot write there.
    pub data_dir_error: Option<String>,
    /// Bytes free there.
    pub data_dir_free: Option<u64>,
    pub collation: CollationVersion,
    pub wal: Wal,
}

/// What the server has written of its write-ahead log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wal {
    /// Bytes since the cluster was made; of a standby none.
    pub written: u64,
    /// Checkpoints that were not timed: the log had reached max_wal_size, or somebody asked for one.
    pub requested_checkpoints: u64,
    /// max_wal_size, bytes.
    pub limit: u64,
}
