//! Who is measured, and what exactly each does.
use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::data::Data;
use crate::measure::{self, Sample};
use crate::place::{DATABASE, Place};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Contender {
    /// `pgconvoy migrate --no-verify`
    Unverified,
    /// `pgconvoy migrate`
    Migrate,
    /// `pgconvoy verify` after it
    Verify,
    /// `pg_dump | psql`
    Pipe,
    /// `pg_dump -Fd -j2`, then `pg_restore -j2`
    Directory,
    /// `pgcopydb clone`, with its defaults
    Pgcopydb,
    /// pgconvoy's data phase for one table, with one stream
    OneStream,
    /// With two
    TwoStreams,
    /// `psql -c 'COPY ... TO STDOUT (FORMAT binary)' | psql -c 'COPY ... FROM STDIN (FORMAT binary)'` for one table
    OnePipe,
    /// `COPY ... TO STDOUT` of every table to /dev/null, at both ends at once
    Scan,
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unverified => "pgconvoy migrate --no-verify",
            Self::Migrate => "pgconvoy migrate",
            Self::Verify => "pgconvoy verify",
            Self::Pipe => "pg_dump | psql",
            Self::Directory => "pg_dump -Fd, pg_restore",
            Self::Pgcopydb => "pgcopydb clone",
            Self::OneStream => "one table, 1 stream",
            Self::TwoStreams => "one table, 2 streams",
            Self::OnePipe => "one table, psql | psql",
            Self::Scan => "COPY TO /dev/null",
        })
    }
}

impl Contender {
    pub const ALL: [Self; 10] = [
        Self::Unverified,
        Self::Migrate,
        Self::Verify,
        Self::Scan,
        Self::Pgcopydb,
        Self::Pipe,
        Self::Directory,
        Self::OneStream,
        Self::TwoStreams,
        Self::OnePipe,
    ];

    pub fn can_run(self, data: Data) -> bool {
        match self {
            Self::OneStream | Self::TwoStreams | Self::OnePipe => data.one_table().is_some(),
            Self::Verify | Self::Scan => matches!(data, Data::Pgbench | Data::Mixed),
            Self::Pgcopydb => on_path("pgcopydb"),
            _ => true,
        }
    }

    /// One run, on a fresh target.
    pub fn run(self, place: &Place, data: Data, migrate: &[String]) -> Result<Sample> {
        if self != Self::Scan {
            place.target.renew()?;
        }
        let table = data.one_table().unwrap_or_default();
        match self {
            Self::Unverified => pgconvoy(place, &with(migrate, &["--no-verify"])),
            Self::Migrate => pgconvoy(place, migrate),
            Self::Verify => verify(place, migrate),
            Self::OneStream => one_table(place, table, &with(migrate, &["--streams", "1"])),
            Self::TwoStreams => one_table(place, table, &with(migrate, &["--streams", "2"])),
            Self::OnePipe => {
                create_empty(place, table)?;
                measure::run(place, None, one_pipe(place, table))
            }
            Self::Scan => {
                // The verified target of the run before is what is read; without one, a copy of its own.
                if place
                    .target
                    .psql(DATABASE, "SELECT to_regclass('pgconvoy.parts')")?
                    .trim()
                    .is_empty()
                {
                    pgconvoy(place, migrate)?;
                }
                measure::run(place, None, scan(place)?)
            }
            Self::Pipe | Self::Directory | Self::Pgcopydb => {
                measure::run(place, None, self.script(place))
            }
        }
    }

    /// Peers run beside the target, as pgconvoy's coordinator does.
    fn script(self, place: &Place) -> Command {
        let dump = place.folder.path().join("dump");
        let text = match self {
            Self::Pipe => {
                "set -eo pipefail; pg_dump \"$SOURCE\" | psql -X -q -o /dev/null -v ON_ERROR_STOP=1 -d \"$TARGET\""
            }
            Self::Directory => {
                "set -e; rm -rf \"$DUMP\"; pg_dump -Fd -j2 -f \"$DUMP\" \"$SOURCE\"; pg_restore -j2 -d \"$TARGET\" \"$DUMP\""
            }
            _ => {
                "rm -rf \"$DUMP\"; pgcopydb clone --dir \"$DUMP\" --source \"$SOURCE\" --target \"$TARGET\""
            }
        };
        let mut command = bash(place, text);
        command.env("DUMP", dump);
        command
    }
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn with(arguments: &[String], more: &[&str]) -> Vec<String> {
    let more = more.iter().map(|argument| (*argument).to_owned());
    arguments.iter().cloned().chain(more).collect()
}

/// Beside the target. PostgreSQL's own programs, not a distribution's wrappers, come first on PATH.
fn bash(place: &Place, text: &str) -> Command {
    let mut command = place.target.at(Path::new("bash"));
    let path = std::env::var("PATH").unwrap_or_default();
    let bin = place.target.server.installation().bin.display().to_string();
    command
        .args(["-c", text])
        .env("PATH", format!("{bin}:{path}"))
        .env("SOURCE", place.source.url(DATABASE))
        .env("TARGET", place.target.url(DATABASE))
        .current_dir(place.folder.path());
    command
}

fn pgconvoy(place: &Place, arguments: &[String]) -> Result<Sample> {
    let agents = place.agents()?;
    let mut command = place.pgconvoy(&agents, "migrate");
    command.args(arguments);
    let mut sample = measure::run(place, Some(&agents), command)?;
    sample.copied = ledger(place, "sum(bytes)")?.parse().unwrap_or(0);
    Ok(sample)
}

fn ledger(place: &Place, what: &str) -> Result<String> {
    let value = place
        .target
        .psql(DATABASE, &format!("SELECT {what} FROM pgconvoy.parts"))?;
    Ok(value.trim().to_owned())
}

/// `verify` of what was migrated before, which is not measured.
fn verify(place: &Place, arguments: &[String]) -> Result<Sample> {
    let agents = place.agents()?;
    let status = place
        .pgconvoy(&agents, "migrate")
        .args(arguments)
        .stderr(std::process::Stdio::null())
        .status()?;
    anyhow::ensure!(status.success(), "pgconvoy migrate ended with {status}");
    place.target.psql("postgres", "CHECKPOINT")?;
    measure::run(place, Some(&agents), place.pgconvoy(&agents, "verify"))
}

/// From the first part's begin to the last part's commit.
fn one_table(place: &Place, table: &str, arguments: &[String]) -> Result<Sample> {
    let mut sample = pgconvoy(
        place,
        &with(arguments, &["--no-verify", "--include-table", table]),
    )?;
    let span = ledger(
        place,
        "extract(epoch FROM max(committed_at) - min(started_at))",
    )?;
    sample.seconds = span.parse().context("the ledger has no parts")?;
    Ok(sample)
}

/// A table like the source's, without its indexes.
fn create_empty(place: &Place, table: &str) -> Result<()> {
    let create = format!(
        "SELECT format('CREATE TABLE {table} (%s)', string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum))
         FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0"
    );
    let create = place.at_source(&create)?;
    place.target.psql(DATABASE, &create).map(drop)
}

fn one_pipe(place: &Place, table: &str) -> Command {
    let text = "set -eo pipefail
        psql -X -q -d \"$SOURCE\" -c \"COPY $TABLE TO STDOUT (FORMAT binary)\" |
        psql -X -q -d \"$TARGET\" -c \"COPY $TABLE FROM STDIN (FORMAT binary)\"";
    let mut command = bash(place, text);
    command.env("TABLE", table);
    command
}

/// Each end by one session, both at once.
fn scan(place: &Place) -> Result<Command> {
    let tables = place.at_source(
        "SELECT format('COPY %s TO STDOUT (FORMAT binary);', oid::regclass) FROM pg_class
         WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY pg_table_size(oid) DESC",
    )?;
    let list = place.folder.path().join("scan.sql");
    std::fs::write(&list, tables)?;
    let text = "psql -X -q -f scan.sql -d \"$SOURCE\" >/dev/null & first=$!
        psql -X -q -f scan.sql -d \"$TARGET\" >/dev/null && wait $first";
    Ok(bash(place, text))
}
