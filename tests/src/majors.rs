//! PostgreSQL servers and clients of several majors, for tests across versions: Debian's packages, and what scripts/majors.sh
//! fetches. A test that cannot have its servers says so aloud and is left out.
use std::path::{Path, PathBuf};

use pgconvoy_coordinator::demo::installation::Installation;
use rustix::process::geteuid;

use crate::pair::Options;
use crate::say_aloud;

/// The majors that pgconvoy knows.
pub const MAJORS: std::ops::RangeInclusive<u32> = 14..=18;

/// Servers of these majors at the two ends, and for each agent the oldest client programs that suit. None, said aloud,
/// where this machine does not have them.
pub fn options(source: u32, target: u32) -> Option<Options> {
    let found = || {
        Some(Options {
            source_bin: Some(server(source)?),
            target_bin: Some(server(target)?),
            source_pg_bin: Some(clients(source)?),
            target_pg_bin: Some(clients(source.max(target))?),
            ..Options::default()
        })
    };
    let options = found();
    if options.is_none() {
        say_aloud(&format!(
            "PostgreSQL {source} or {target} or clients for them are not there (scripts/majors.sh fetches them): \
             left out the migration from {source} to {target}"
        ));
    }
    options
}

/// The folder of a server that has what a [`pgconvoy_coordinator::demo::server::Server`] needs.
fn server(major: u32) -> Option<PathBuf> {
    [
        installed(major),
        fetched().join(major.to_string()).join("bin"),
    ]
    .into_iter()
    .find(|bin| Installation::find(Some(bin)).is_ok_and(|found| found.major == major))
}

/// The folder with pg_dump and pg_restore of the lowest major from this one on.
pub fn clients(from: u32) -> Option<PathBuf> {
    (from..=*MAJORS.end())
        .flat_map(|major| {
            [
                installed(major),
                fetched().join("clients").join(major.to_string()),
            ]
        })
        .find(|bin| bin.join("pg_dump").is_file() && bin.join("pg_restore").is_file())
}

/// Clients that read every server, for a judge who must see both ends with the same eyes.
pub fn newest_clients() -> Option<PathBuf> {
    clients(*MAJORS.end())
}

fn installed(major: u32) -> PathBuf {
    Path::new("/usr/lib/postgresql")
        .join(major.to_string())
        .join("bin")
}

/// Where scripts/majors.sh puts what it fetches.
fn fetched() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = variable("PGCONVOY_MAJORS") {
        return folder.into();
    }
    if geteuid().is_root() {
        return "/var/cache/pgconvoy/majors".into();
    }
    let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".cache"));
    cache
        .or_else(home)
        .unwrap_or_default()
        .join("pgconvoy/majors")
}
