//! Finding pg_dump and pg_restore in the version that a migration needs.
//!
//! pg_dump refuses servers newer than itself, and pg_restore archives of a newer pg_dump: which binary is run is
//! decided here, by version, never by what happens to come first in PATH.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::process::Command;

/// Folders of packages and builds; `*` stands for any version.
const FOLDERS: &[&str] = &[
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/lib/postgresql*/bin",
    "/usr/libexec/postgresql*",
    "/usr/local/pgsql*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/opt/homebrew/opt/libpq/bin",
    "/usr/local/opt/postgresql*/bin",
    "/usr/local/opt/libpq/bin",
];

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "no {program} found (looked in {looked}): install postgresql-client-{major} or give --pg-bin DIR{broken}"
    )]
    None {
        program: &'static str,
        looked: String,
        major: u32,
        broken: String,
    },
    #[error(
        "pg_dump {} in {} is older than the server ({server}): install postgresql-client-{server} or newer, \
         or give --pg-bin DIR{broken}",
        newest.number(), newest.folder()
    )]
    DumpTooOld {
        newest: Tool,
        server: u32,
        broken: String,
    },
    #[error(
        "pg_restore {} in {} is older than the pg_dump at the source ({dump}): install postgresql-client-{dump} or \
         newer, or give --pg-bin DIR{broken}",
        newest.number(), newest.folder()
    )]
    RestoreTooOld {
        newest: Tool,
        dump: u32,
        broken: String,
    },
}

/// One binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    pub path: PathBuf,
    /// Major and minor.
    pub version: (u32, u32),
}

impl Tool {
    fn number(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
    }

    fn folder(&self) -> String {
        self.path
            .parent()
            .unwrap_or(&self.path)
            .display()
            .to_string()
    }
}

/// Every pg_dump and pg_restore of this machine.
#[derive(Clone, Debug, Default)]
pub struct Tools {
    dump: Vec<Tool>,
    restore: Vec<Tool>,
    looked: Vec<PathBuf>,
    /// What is there but did not say its version, and why.
    broken: Vec<String>,
}

impl Tools {
    /// Looks in `pg_bin` only when it is given, else in PATH and where packages put their versions.
    pub async fn find(pg_bin: Option<&Path>) -> Self {
        let looked = match pg_bin {
            Some(folder) => vec![folder.to_owned()],
            None => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                // Many folders, maybe on a slow disk: not on a thread that serves others.
                match tokio::task::spawn_blocking(move || folders(&path)).await {
                    Ok(folders) => folders,
                    Err(stopped) => std::panic::resume_unwind(stopped.into_panic()),
                }
            }
        };
        Self::find_in(looked).await
    }

    async fn find_in(looked: Vec<PathBuf>) -> Self {
        let mut tools = Self {
            looked,
            ..Self::default()
        };
        tools.dump = tools.ask("pg_dump").await;
        tools.restore = tools.ask("pg_restore").await;
        tools
    }

    /// The lowest version that can read the server; of one major the newest minor.
    pub fn pick_dump(&self, server_major: u32) -> Result<&Tool, Error> {
        lowest_from(&self.dump, server_major).ok_or_else(|| match newest(&self.dump) {
            Some(newest) => Error::DumpTooOld {
                newest: newest.clone(),
                server: server_major,
                broken: self.broken_note(),
            },
            None => self.none("pg_dump", server_major),
        })
    }

    /// The newest pg_restore: it reads every archive.
    pub fn newest_restore(&self) -> Result<&Tool, Error> {
        newest(&self.restore).ok_or_else(|| self.none("pg_restore", 0))
    }

    /// The majors of pg_restore that are there.
    pub fn restore_majors(&self) -> Result<Vec<u32>, Error> {
        self.newest_restore()?;
        Ok(self.restore.iter().map(|tool| tool.version.0).collect())
    }

    /// One that can read the archive: of the target server's own major when that is enough (it writes nothing the
    /// server does not know), else the lowest.
    pub fn pick_restore(&self, dump_major: u32, server_major: u32) -> Result<&Tool, Error> {
        let of_server = lowest_from(&self.restore, server_major.max(dump_major));
        of_server
            .filter(|tool| tool.version.0 == server_major)
            .or_else(|| lowest_from(&self.restore, dump_major))
            .ok_or_else(|| match newest(&self.restore) {
                Some(newest) => Error::RestoreTooOld {
                    newest: newest.clone(),
                    dump: dump_major,
                    broken: self.broken_note(),
                },
                None => self.none("pg_restore", dump_major.max(server_major)),
            })
    }

    fn none(&self, program: &'static str, major: u32) -> Error {
        let looked: Vec<_> = self
            .looked
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        let looked = if looked.is_empty() {
            "no folder".into()
        } else {
            looked.join(", ")
        };
        Error::None {
            program,
            looked,
            major,
            broken: self.broken_note(),
        }
    }

    fn broken_note(&self) -> String {
        if self.broken.is_empty() {
            String::new()
        } else {
            format!(" (not usable: {})", self.broken.join("; "))
        }
    }

    async fn ask(&mut self, program: &str) -> Vec<Tool> {
        let candidates = candidates(&self.looked, program);
        let answers = join_all(candidates.iter().map(|path| version(path))).await;
        let mut found = Vec::new();
        for (path, answer) in candidates.into_iter().zip(answers) {
            match answer {
                Ok(version) => found.push(Tool { path, version }),
                Err(reason) => self.broken.push(format!("{}: {reason}", path.display())),
            }
        }
        found
    }
}

fn lowest_from(tools: &[Tool], major: u32) -> Option<&Tool> {
    tools
        .iter()
        .filter(|tool| tool.version.0 >= major)
        .min_by_key(|tool| (tool.version.0, std::cmp::Reverse(tool.version.1)))
}

fn newest(tools: &[Tool]) -> Option<&Tool> {
    tools.iter().max_by_key(|tool| tool.version)
}

fn folders(path: &OsStr) -> Vec<PathBuf> {
    let mut folders: Vec<_> = std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .collect();
    folders.extend(FOLDERS.iter().flat_map(|pattern| expand(pattern)));
    let mut seen = HashSet::new();
    folders.retain(|folder| folder.is_dir() && seen.insert(folder.clone()));
    folders
}

/// Replaces the one `*` of a pattern by what is there.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![pattern.into()];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    // A folder that is not there has no versions in it.
    let Ok(entries) = std::fs::read_dir(format!("{parent}/")) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    names
        .into_iter()
        .map(|name| PathBuf::from(format!("{parent}/{name}{after}")))
        .collect()
}

/// One path for each different binary.
fn candidates(folders: &[PathBuf], program: &str) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for folder in folders {
        let path = folder.join(program);
        let Ok(real) = path.canonicalize() else {
            continue;
        }; // not in this folder
        // Debian's wrapper runs another version depending on the clusters it finds; the real ones have own folders.
        if real.is_file() && !real.ends_with("pg_wrapper") && seen.insert(real) {
            found.push(path);
        }
    }
    found
}

async fn version(path: &Path) -> Result<(u32, u32), String> {
    let mut command = Command::new(path);
    command
        .arg("--version")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(ANSWER_TIMEOUT, command.output())
        .await
        .map_err(|_| "it does not answer".to_owned())?
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    match parse_version(&text) {
        Some(version) if output.status.success() => Ok(version),
        _ => Err(String::from_utf8_lossy(&output.stderr)
            .lines()
            .next()
            .unwrap_or("it does not say its version")
            .into()),
    }
}

/// From `pg_dump (PostgreSQL) 15.14 (Debian ...)`, `... 19devel`, `... 18beta1`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let number = text
        .split_once("(PostgreSQL)")?
        .1
        .split_whitespace()
        .next()?;
    let digits = |text: &str| {
        text.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
            .parse()
            .ok()
    };
    let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
    Some((digits(major)?, digits(minor)?))
}

#[cfg(test)]
mod tests;
