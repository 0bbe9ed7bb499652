//! The command line: flags, and nothing else.
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use pgconvoy_proto::model::{RoleChoice, Selection};

use crate::demo;
use crate::platform::Profile;

/// Moves a PostgreSQL database across networks, from agent to agent, and proves that it arrived.
///
/// Settings come as flag, as environment variable PGCONVOY_*, or from pgconvoy.toml, in that order.
/// Exit codes: 0 done and proven, 1 error, 2 usage, 3 verification found differences, 4 preflight found a blocker,
/// 130 interrupted (resume).
#[derive(Debug, Parser)]
#[command(name = "pgconvoy", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub global: Global,
}

#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Parent folder of the runs' artefacts; DIR/latest links to the newest
    #[arg(
        long,
        global = true,
        env = "PGCONVOY_RUN_DIR",
        value_name = "DIR",
        default_value = "pgconvoy-runs"
    )]
    pub run_dir: PathBuf,
    /// One JSON object per line on stdout; text goes to stderr
    #[arg(long, global = true, env = "PGCONVOY_JSON")]
    pub json: bool,
    /// Which migration [default: the latest]
    #[arg(long, global = true, env = "PGCONVOY_MIGRATION", value_name = "ID")]
    pub migration: Option<String>,
    /// Settings file [default: ./pgconvoy.toml if there is one]
    #[arg(long, global = true, env = "PGCONVOY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes the keys: a private CA and one bundle file per role
    #[command(subcommand)]
    Pki(PkiCommand),
    /// Checks both ends and the way between them; changes nothing
    #[command(
        after_help = "Example:\n  pgconvoy preflight --source https://src:7401 --target https://dst:7402 \
                            --identity coordinator.pem"
    )]
    Preflight(PreflightArgs),
    /// Shows what a migration would do, table by table; changes nothing
    Plan(MigrateArgs),
    /// The whole migration, in the foreground; exits 0 only when it is verified
    #[command(
        after_help = "Examples:\n  pgconvoy migrate --source https://src:7401 --target https://dst:7402 \
                            --identity coordinator.pem\n  pgconvoy migrate ... --streams 4 --exclude-table 'log.*'\n\n\
                            Interrupted or failed: pgconvoy resume with the same --source, --target and --identity."
    )]
    Migrate(MigrateArgs),
    /// Carries an interrupted migration to its end
    Resume(ResumeArgs),
    /// Where a migration stands, from the ledger
    Status(Ends),
    /// Where a migration stands, again and again until it ends; from any machine
    #[command(
        after_help = "Example:\n  pgconvoy watch --target https://dst:7402 --identity coordinator.pem --interval 5s"
    )]
    Watch(WatchArgs),
    /// Brings the target up to date with the source: both ends compare by digests, and only rows that differ cross the network
    #[command(
        after_help = "Examples:\n  pgconvoy sync --source https://src:7401 --target https://dst:7402 \
                            --identity coordinator.pem\n  pgconvoy sync ... --table public.orders\n  pgconvoy sync ... --dry-run\n\n\
                            Interrupted: pgconvoy resume, or sync again."
    )]
    Sync(SyncArgs),
    /// Compares both databases again, by digests that each agent computes from its own
    #[command(
        after_help = "Example:\n  pgconvoy verify --source https://src:7401 --target https://dst:7402 \
                            --identity coordinator.pem --include-table 'public.orders'\n\n\
                            The last line of stdout is for scripts: verdict=proven tables=12 differences=0 ..."
    )]
    Verify(VerifyArgs),
    /// What was migrated and how it compares, as text, as JSON (--json), or as one HTML file (--html)
    #[command(
        after_help = "Example:\n  pgconvoy report --target https://dst:7402 --identity coordinator.pem --html report.html"
    )]
    Report(ReportArgs),
    /// How the target does in the days after: connections, sequences, indexes, replication, sizes, slow statements; with --source also what
    /// differs from the source since
    #[command(
        after_help = "Example:\n  pgconvoy monitor --target https://dst:7402 --identity coordinator.pem --json"
    )]
    Monitor(Ends),
    /// The whole migration into a scratch database beside the target's: verified, timed, dropped; the target is not touched
    #[command(
        after_help = "Example:\n  pgconvoy rehearse --source https://src:7401 --target https://dst:7402 \
                            --identity coordinator.pem\n\n\
                            Interrupted: the next rehearse, or pgconvoy clean, drops the scratch database."
    )]
    Rehearse(RehearseArgs),
    /// Backs the target database up, at the target agent's host, and reads the backup back
    #[command(
        after_help = "Example:\n  pgconvoy backup --target https://dst:7402 --identity coordinator.pem"
    )]
    Backup(BackupArgs),
    /// Takes a migration back, from any point: the target is what it was before, and that is proven
    #[command(
        after_help = "Examples:\n  pgconvoy rollback --target https://dst:7402 --identity coordinator.pem\n  \
                            pgconvoy rollback ... --to-backup 01a21a4b-13b1-715a-aeb5-5a355b7718b7\n\n\
                            Interrupted: rollback again."
    )]
    Rollback(RollbackArgs),
    /// Removes ledger, archives and leftovers; what was migrated stays
    Clean(CleanArgs),
    /// Two throw-away servers, sample data, both agents: a whole migration on this machine
    #[command(after_help = "Example:\n  pgconvoy demo --keep")]
    Demo(demo::Options),
    /// Prints a completion script for a shell
    #[command(
        after_help = "Example:\n  pgconvoy completions bash > /etc/bash_completion.d/pgconvoy"
    )]
    Completions { shell: Shell },
}

#[derive(Debug, Subcommand)]
pub enum PkiCommand {
    /// Makes DIR/ca.pem, ca.key, source.pem, target.pem, coordinator.pem
    #[command(
        after_help = "Example:\n  pgconvoy pki init --dir keys --source-name src.example.org \
                            --target-name dst.example.org --target-name 203.0.113.7"
    )]
    Init {
        /// Folder for the keys; created if missing
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Host name or IP address of the source agent; repeatable
        #[arg(long, value_name = "HOST", required = true)]
        source_name: Vec<String>,
        /// Host name or IP address of the target agent; repeatable
        #[arg(long, value_name = "HOST", required = true)]
        target_name: Vec<String>,
        /// How long the bundles are valid
        #[arg(long, value_name = "DAYS", default_value_t = 825)]
        days: u32,
    },
}

#[derive(Debug, Clone, Args)]
pub struct Ends {
    /// The source agent, https://HOST:PORT
    #[arg(long, env = "PGCONVOY_SOURCE", value_name = "URL")]
    pub source: Option<String>,
    /// The target agent, https://HOST:PORT
    #[arg(long, env = "PGCONVOY_TARGET", value_name = "URL")]
    pub target: String,
    /// The target agent's address as the source agent reaches it [default: --target]
    #[arg(long, env = "PGCONVOY_TARGET_FROM_SOURCE", value_name = "URL")]
    pub target_from_source: Option<String>,
    /// The coordinator's identity bundle, made by `pgconvoy pki init`
    #[arg(long, env = "PGCONVOY_IDENTITY", value_name = "FILE")]
    pub identity: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub struct Filters {
    /// Only these schemas; repeatable (in the environment {one,other})
    #[arg(long, env = "PGCONVOY_INCLUDE_SCHEMA", value_name = "GLOB")]
    pub include_schema: Vec<String>,
    /// Not these schemas; repeatable (in the environment {one,other})
    #[arg(long, env = "PGCONVOY_EXCLUDE_SCHEMA", value_name = "GLOB")]
    pub exclude_schema: Vec<String>,
    /// Only these tables, schema.table; repeatable (in the environment {one,other})
    #[arg(long, env = "PGCONVOY_INCLUDE_TABLE", value_name = "GLOB")]
    pub include_table: Vec<String>,
    /// Not these tables, schema.table; repeatable (in the environment {one,other})
    #[arg(long, env = "PGCONVOY_EXCLUDE_TABLE", value_name = "GLOB")]
    pub exclude_table: Vec<String>,
    /// Not schema storage: neither buckets nor files, nor the policies on them
    #[arg(long, env = "PGCONVOY_SKIP_STORAGE")]
    pub skip_storage: bool,
}

impl Filters {
    pub fn selection(&self) -> Selection {
        Selection {
            include_schema: self.include_schema.clone(),
            exclude_schema: self.exclude_schema.clone(),
            include_table: self.include_table.iter().map(qualified).collect(),
            exclude_table: self.exclude_table.iter().map(qualified).collect(),
            skip_storage: self.skip_storage,
        }
    }
}

/// A table of this name in any schema, where none is named.
fn qualified(table: &String) -> String {
    match table.contains('.') {
        true => table.clone(),
        false => format!("*.{table}"),
    }
}

/// Whose the schemas are.
#[derive(Debug, Clone, Args)]
pub struct ProfileArgs {
    /// The platform that both databases live on: auto (it is recognised), plain (none), supabase, or one that pgconvoy.toml states. What its
    /// services have made stays as they made it; rows and what is yours are carried
    #[arg(
        id = "profile",
        long = "profile",
        env = "PGCONVOY_PROFILE",
        value_name = "NAME",
        default_value = "auto"
    )]
    pub profile: Profile,
}

#[derive(Debug, Clone, Args)]
pub struct PreflightArgs {
    #[command(flatten)]
    pub ends: Ends,
    #[command(flatten)]
    pub filters: Filters,
    #[command(flatten)]
    pub profile: ProfileArgs,
    /// The tables exist at the target already
    #[arg(long, env = "PGCONVOY_SKIP_SCHEMA")]
    pub skip_schema: bool,
    /// Roles that are to be created at the target: all, used (those that the selected objects need), none
    #[arg(
        long,
        env = "PGCONVOY_ROLES",
        value_name = "WHICH",
        default_value = "used"
    )]
    pub roles: RoleChoice,
    /// The files go along that the rows of storage.objects speak of, through the Storage API of both ends
    #[arg(
        long,
        env = "PGCONVOY_STORAGE_OBJECTS",
        conflicts_with = "skip_storage"
    )]
    pub storage_objects: bool,
    /// Only what stands in the way; nobody watches for writes
    #[arg(long, env = "PGCONVOY_CRITICAL_ONLY")]
    pub critical_only: bool,
    /// How long the source is watched for writes, at most 1m
    #[arg(
        long,
        env = "PGCONVOY_SAMPLE",
        value_name = "TIME",
        default_value = "2s"
    )]
    pub sample: humantime::Duration,
}

/// How much is done at once.
#[derive(Debug, Clone, Args)]
pub struct EffortArgs {
    /// Parts that are copied at once [default: the target's processors, more on a long link, 2 to 8]
    #[arg(long, env = "PGCONVOY_STREAMS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub streams: Option<u32>,
    /// Indexes that are built at once [default: the target's processors, 1 to 4]
    #[arg(long, env = "PGCONVOY_INDEX_JOBS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub index_jobs: Option<u32>,
    /// auto, off, or a level of zstd from 1 to 19
    #[arg(
        long,
        env = "PGCONVOY_COMPRESSION",
        value_name = "HOW",
        default_value = "auto"
    )]
    pub compression: Compression,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Auto,
    Off,
    Level(i32),
}

impl std::str::FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            level => match level.parse() {
                Ok(level @ 1..=19) => Ok(Self::Level(level)),
                _ => Err("auto, off, or a number from 1 to 19".into()),
            },
        }
    }
}

#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    #[command(flatten)]
    pub ends: Ends,
    #[command(flatten)]
    pub filters: Filters,
    #[command(flatten)]
    pub profile: ProfileArgs,
    #[command(flatten)]
    pub effort: EffortArgs,
    /// Show the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Rows only: the tables are at the target, empty
    #[arg(long, env = "PGCONVOY_SKIP_SCHEMA")]
    pub skip_schema: bool,
    /// Schema only
    #[arg(long, env = "PGCONVOY_SKIP_DATA")]
    pub skip_data: bool,
    /// Leave row level security and policies out; needs --force
    #[arg(long, env = "PGCONVOY_SKIP_RLS")]
    pub skip_rls: bool,
    /// Also the files that the rows of storage.objects speak of, through the Storage API of both ends
    #[arg(long, env = "PGCONVOY_STORAGE_OBJECTS", conflicts_with_all = ["skip_data", "skip_storage"])]
    pub storage_objects: bool,
    /// Do not read the target back: the migration ends unverified
    #[arg(long, env = "PGCONVOY_NO_VERIFY")]
    pub no_verify: bool,
    /// Roles that are created at the target where it lacks them: all, used (those that the selected objects need), none
    #[arg(
        long,
        env = "PGCONVOY_ROLES",
        value_name = "WHICH",
        default_value = "used"
    )]
    pub roles: RoleChoice,
    /// Go on in spite of blockers that can be overridden; a target that is not empty is backed up and replaced
    #[arg(long, env = "PGCONVOY_FORCE")]
    pub force: bool,
    /// Back the target up before anything is changed (also with BACKUP_BEFORE_IMPORT=true)
    #[arg(long, env = "PGCONVOY_BACKUP", conflicts_with = "no_backup")]
    pub backup: bool,
    /// With --force: replace what is in the target without a backup; it cannot be brought back then
    #[arg(long)]
    pub no_backup: bool,
    /// The application goes on writing to the source: measure and tell, at the end, what the sync after it was stopped will take
    #[arg(long, env = "PGCONVOY_THEN_SYNC", conflicts_with_all = ["skip_data", "no_verify"])]
    pub then_sync: bool,
    /// Business checks, TOML or SQL with headers, that are part of the proof
    #[arg(long, env = "PGCONVOY_CHECKS", value_name = "FILE", conflicts_with_all = ["skip_data", "no_verify"])]
    pub checks: Option<PathBuf>,
    /// Tables are cut into parts of about this size, MiB [default: 16 to 128, several of the largest table for every stream]
    #[arg(long, env = "PGCONVOY_PART_SIZE", value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub part_size: Option<u64>,
}

#[derive(Debug, Clone, Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    pub ends: Ends,
    #[command(flatten)]
    pub effort: EffortArgs,
}

#[derive(Debug, Clone, Args)]
pub struct SyncArgs {
    #[command(flatten)]
    pub ends: Ends,
    #[command(flatten)]
    pub filters: Filters,
    /// Only these tables, schema.table or the table's name alone; repeatable
    #[arg(long, env = "PGCONVOY_TABLE", value_name = "GLOB")]
    pub table: Vec<String>,
    #[command(flatten)]
    pub profile: ProfileArgs,
    #[command(flatten)]
    pub effort: EffortArgs,
    /// Rows only: definitions, owners and grants are not compared
    #[arg(long, env = "PGCONVOY_SKIP_SCHEMA")]
    pub skip_schema: bool,
    /// No rows: sequences are brought, definitions compared; the verdict is at best "ok"
    #[arg(long, env = "PGCONVOY_SKIP_DATA", conflicts_with_all = ["skip_schema", "storage_objects"])]
    pub skip_data: bool,
    /// Policies and row level security are not compared; needs --force, unless the migration has left them out too
    #[arg(long, env = "PGCONVOY_SKIP_RLS")]
    pub skip_rls: bool,
    /// Also the files that the rows of storage.objects speak of, through the Storage API of both ends
    #[arg(
        long,
        env = "PGCONVOY_STORAGE_OBJECTS",
        conflicts_with = "skip_storage"
    )]
    pub storage_objects: bool,
    /// Back the target up before anything is changed (also with BACKUP_BEFORE_IMPORT=true)
    #[arg(long, env = "PGCONVOY_BACKUP", conflicts_with = "dry_run")]
    pub backup: bool,
    /// Count what would change, per table, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Overwrite rows that somebody else has written at the target; leave out tables whose columns have drifted apart
    #[arg(long, env = "PGCONVOY_FORCE")]
    pub force: bool,
}

impl SyncArgs {
    pub fn selection(&self) -> Selection {
        let mut selection = self.filters.selection();
        selection
            .include_table
            .extend(self.table.iter().map(qualified));
        selection
    }
}

#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub ends: Ends,
    #[command(flatten)]
    pub filters: Filters,
    #[command(flatten)]
    pub profile: ProfileArgs,
    #[command(flatten)]
    pub without_effect: WithoutEffect,
    /// Name the rows that differ, by key, and the columns
    #[arg(long, env = "PGCONVOY_DETAILED")]
    pub detailed: bool,
    /// Counts of rows, schemas, constraints, orphans, indexes and policies; no row is compared, the verdict is at best "ok"
    #[arg(long, env = "PGCONVOY_CRITICAL_ONLY", conflicts_with = "detailed")]
    pub critical_only: bool,
    /// Also what is equal: every table with its rows and digests, what was compared of the schemas, every business check
    #[arg(long, env = "PGCONVOY_VERBOSE")]
    pub verbose: bool,
    /// Show the values that differ; without it they stay with the agents
    #[arg(long, env = "PGCONVOY_SHOW_VALUES", requires = "detailed")]
    pub show_values: bool,
    /// Rows that are named per table, of those that differ; all are counted
    #[arg(long, env = "PGCONVOY_ROWS", value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub rows: u32,
    /// Business checks, TOML or SQL with headers, beside those that the migration was given
    #[arg(long, env = "PGCONVOY_CHECKS", value_name = "FILE")]
    pub checks: Option<PathBuf>,
    /// Rows only: definitions, owners and grants are not compared
    #[arg(long, env = "PGCONVOY_SKIP_SCHEMA")]
    pub skip_schema: bool,
    /// No rows, and nothing that reads them: definitions, owners, grants, policies; the verdict is at best "ok"
    #[arg(long, env = "PGCONVOY_SKIP_DATA",
          conflicts_with_all = ["skip_schema", "detailed", "critical_only", "checks", "storage_objects"])]
    pub skip_data: bool,
    /// Policies and row level security are not compared
    #[arg(long, env = "PGCONVOY_SKIP_RLS")]
    pub skip_rls: bool,
    /// Also the files that the rows of storage.objects speak of, through the Storage API of both ends
    #[arg(long, env = "PGCONVOY_STORAGE_OBJECTS", conflicts_with_all = ["critical_only", "skip_storage"])]
    pub storage_objects: bool,
    /// Tables that are compared at once [default: the target's processors, 2 to 8]
    #[arg(long, env = "PGCONVOY_STREAMS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub streams: Option<u32>,
}

/// Flags of `migrate` and `sync` that `verify` takes, so that one list of arguments serves all three. It builds, sends and changes nothing.
#[derive(Debug, Clone, Args)]
pub struct WithoutEffect {
    #[arg(long, hide = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub index_jobs: Option<u32>,
    #[arg(long, hide = true, value_name = "HOW", default_value = "auto")]
    pub compression: Compression,
    #[arg(long, hide = true)]
    pub force: bool,
    #[arg(long, hide = true)]
    pub backup: bool,
}

#[derive(Debug, Clone, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    pub ends: Ends,
    /// How often the ledger is read
    #[arg(
        long,
        env = "PGCONVOY_INTERVAL",
        value_name = "TIME",
        default_value = "2s"
    )]
    pub interval: humantime::Duration,
}

#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    pub ends: Ends,
    /// Write the report as one self-contained HTML file
    #[arg(long, env = "PGCONVOY_HTML", value_name = "FILE")]
    pub html: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct RehearseArgs {
    #[command(flatten)]
    pub ends: Ends,
    #[command(flatten)]
    pub filters: Filters,
    #[command(flatten)]
    pub profile: ProfileArgs,
    #[command(flatten)]
    pub effort: EffortArgs,
    /// Roles that are created for the rehearsal, and dropped again: all, used (those that the selected objects need), none
    #[arg(
        long,
        env = "PGCONVOY_ROLES",
        value_name = "WHICH",
        default_value = "used"
    )]
    pub roles: RoleChoice,
}

#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    #[command(flatten)]
    pub ends: Ends,
}

#[derive(Debug, Clone, Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    pub ends: Ends,
    /// Drop all that is in the target and restore this backup whole
    #[arg(long, env = "PGCONVOY_TO_BACKUP", value_name = "ID")]
    pub to_backup: Option<String>,
    /// Also drop what others have made in the target since the migration began
    #[arg(long, env = "PGCONVOY_FORCE")]
    pub force: bool,
}

#[derive(Debug, Clone, Args)]
pub struct CleanArgs {
    #[command(flatten)]
    pub ends: Ends,
    /// Also an unfinished migration: it cannot be resumed then
    #[arg(long, env = "PGCONVOY_FORCE")]
    pub force: bool,
}
