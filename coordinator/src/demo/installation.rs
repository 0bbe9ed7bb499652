//! Where PostgreSQL's programs live on this machine. The newest installation that can run a server wins.
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Folders whose children may hold `bin/postgres`: Debian's, the PostgreSQL project's RPMs', a build from source.
const PARENTS: [&str; 3] = ["/usr/lib/postgresql", "/usr", "/usr/local"];

/// One `bin` folder of a PostgreSQL server.
#[derive(Clone, Debug)]
pub struct Installation {
    pub bin: PathBuf,
    pub major: u32,
}

impl Installation {
    /// The one in `explicit` when it is given, else the newest that this machine has.
    pub fn find(explicit: Option<&Path>) -> Result<Self> {
        if let Some(bin) = explicit {
            return Self::at(bin)
                .with_context(|| format!("{} does not hold a PostgreSQL server", bin.display()));
        }
        let newest = candidates()
            .iter()
            .filter_map(|bin| Self::at(bin).ok())
            .max_by_key(|installation| installation.major);
        match newest {
            Some(installation) => Ok(installation),
            None => bail!(
                "no PostgreSQL server was found in PATH or under /usr/lib/postgresql; install one \
                 (Debian, Ubuntu: apt-get install postgresql postgresql-client)"
            ),
        }
    }

    fn at(bin: &Path) -> Result<Self> {
        for name in ["initdb", "postgres", "psql"] {
            ensure!(bin.join(name).is_file(), "{name} is missing");
        }
        let output = Command::new(bin.join("postgres"))
            .arg("--version")
            .stdin(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let major = major(&text).with_context(|| format!("a strange version: {text:?}"))?;
        Ok(Self {
            bin: bin.to_path_buf(),
            major,
        })
    }

    /// A program of this installation, by an absolute path. Never Debian's wrapper of it in /usr/bin.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// A command that takes nothing about PostgreSQL from the caller's environment.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.program(name));
        for (variable, _) in env::vars_os().filter(|(name, _)| is_libpq(name)) {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null());
        command
    }
}

fn is_libpq(variable: &OsString) -> bool {
    let name = variable.to_string_lossy();
    name.starts_with("PG") && !name.starts_with("PGCONVOY_")
}

fn candidates() -> Vec<PathBuf> {
    let in_path = env::var_os("PATH").unwrap_or_default();
    let installed = PARENTS
        .iter()
        .filter_map(|parent| fs::read_dir(parent).ok())
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("bin"));
    env::split_paths(&in_path)
        .chain(installed)
        // /usr/local/bin/initdb may be a link into the folder that holds all of them.
        .filter_map(|folder| fs::canonicalize(folder.join("initdb")).ok())
        .filter_map(|initdb| initdb.parent().map(Path::to_path_buf))
        .collect()
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is 15.
fn major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn the_major_version_is_the_first_number_after_the_name() {
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n";
        assert_eq!(major(debian), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major("something else 15.1"), None);
    }
}
