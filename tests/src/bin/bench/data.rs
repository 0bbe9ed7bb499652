//! The data sets, and how the source gets them.
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::place::{DATABASE, Place};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Data {
    /// One big narrow table: pgbench's.
    Pgbench,
    /// An application's: wide rows, TOAST, many small tables, foreign keys.
    Mixed,
    /// Thousands of tables of ten rows.
    Small,
    /// Nothing at all: what a migration costs by itself.
    Empty,
    /// One table that does not compress.
    Noise,
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pgbench => "pgbench",
            Self::Mixed => "mixed",
            Self::Small => "small",
            Self::Empty => "empty",
            Self::Noise => "noise",
        })
    }
}

impl Data {
    /// Makes the source database anew; its size in bytes.
    pub fn build(self, place: &Place, percent: u32) -> Result<u64> {
        place.renew_source()?;
        match self {
            Self::Empty => {}
            Self::Pgbench => pgbench(place, percent)?,
            Self::Mixed => file(place, "mixed.sql", "percent", percent)?,
            Self::Small => file(place, "small.sql", "tables", (percent * 50).max(100))?,
            Self::Noise => file(place, "noise.sql", "megabytes", (percent * 5).max(10))?,
        }
        let size = place.at_source("SELECT pg_database_size(current_database())")?;
        Ok(size.trim().parse()?)
    }

    /// The table that holds most of it, where one table alone is measured.
    pub fn one_table(self) -> Option<&'static str> {
        match self {
            Self::Pgbench => Some("public.pgbench_accounts"),
            Self::Mixed => Some("public.orders"),
            Self::Noise => Some("public.noise"),
            Self::Small | Self::Empty => None,
        }
    }
}

/// 100,000 rows for each unit of scale.
fn pgbench(place: &Place, percent: u32) -> Result<()> {
    let status = place
        .source
        .client("pgbench")?
        .args([
            "-i",
            "-q",
            "-s",
            &percent.to_string(),
            "-d",
            &place.source.url(DATABASE),
        ])
        .stderr(std::process::Stdio::null())
        .status()
        .context("pgbench (Debian: postgresql-contrib)")?;
    ensure!(status.success(), "pgbench failed");
    Ok(())
}

fn file(place: &Place, name: &str, variable: &str, value: u32) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("bench")
        .join(name);
    let status = place
        .source
        .client("psql")?
        .args([
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-v",
            &format!("{variable}={value}"),
        ])
        .arg("-f")
        .arg(&path)
        .args(["-o", "/dev/null", "-d", &place.source.url(DATABASE)])
        .status()?;
    ensure!(status.success(), "{} failed", path.display());
    Ok(())
}
