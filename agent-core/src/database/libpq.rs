//! What pg_dump and pg_restore need to reach the same database in the same way.
//!
//! Credentials stay home: the password is in no argument, no environment variable and no named file. The child
//! finds it in a password file that has no name: it lives in the agent's memory and is gone with the agent, also
//! after kill -9.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::connect::{KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_RETRIES, UNANSWERED};
use super::conninfo::quote;
use super::{Database, Endpoint, Error};
use crate::dbtls::{self, Roots};

/// For pg_dump and pg_restore, which pin less than our own sessions: a dead agent's backend ends, no limit of the role or the database
/// cuts a long dump short, what they set makes nothing read-only, and no query of the catalogs is compiled.
pub(super) const PGOPTIONS: &str = "-c client_connection_check_interval=5000 -c statement_timeout=0 -c lock_timeout=0 \
                         -c idle_in_transaction_session_timeout=0 -c default_transaction_read_only=off \
                         -c default_transaction_deferrable=off -c jit=off";
/// Before the connection's own options, which may choose another: see `session`.
const OWN_ROLE: &str = "-c role=none";

/// A connection string and environment for a libpq program. Keep it until the child has ended: the password file
/// goes away with it.
pub struct LibpqEnv {
    /// For `-d`: quoted, without password.
    pub conninfo: String,
    /// Environment variables the child gets.
    pub set: Vec<(&'static str, OsString)>,
    /// Environment variables of the agent that the child must not see.
    pub remove: Vec<OsString>,
    files: Vec<SecretFile>,
}

impl Database {
    /// What pg_dump and pg_restore need to reach this database as this agent does. Options of ours go along where the server, and what
    /// may stand before it, takes them: PgBouncer refuses a connection that comes with any, some servers an option. Without them pg_dump
    /// and pg_restore still set their own time limits.
    pub async fn libpq(&self, application: &str) -> Result<LibpqEnv, Error> {
        let own = self
            .options
            .as_ref()
            .is_some_and(|own| !own.starts_with('-'));
        let takes = own
            || {
                let probe = Self {
                    options: Some(self.options_with(PGOPTIONS)),
                    ..self.clone()
                };
                let taken = async || match probe.connect("pgconvoy options check").await {
                    Ok(_) => true,
                    Err(error) => {
                        tracing::info!(%error, "pg_dump and pg_restore connect without options of ours");
                        false
                    }
                };
                *self.takes_options.get_or_init(taken).await
            };
        self.libpq_with(application, if takes { PGOPTIONS } else { "" })
    }

    fn options_with(&self, more: &str) -> String {
        let own = self.options.as_deref().unwrap_or_default();
        let words = [OWN_ROLE, own, more];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        words.join(" ")
    }

    pub(super) fn libpq_with(&self, application: &str, options: &str) -> Result<LibpqEnv, Error> {
        let mut files = Vec::new();
        let mut set: Vec<(&'static str, OsString)> = vec![("LC_ALL", "C".into())];
        if let Some(password) = &self.password {
            if password.contains(['\n', '\r']) {
                return Err(Error::Conninfo(
                    "the password has a line break, which libpq's password files cannot hold"
                        .into(),
                ));
            }
            let file = secret(
                "password file for pg_dump",
                passfile_line(password).as_bytes(),
            )?;
            set.push(("PGPASSFILE", file.path().into()));
            files.push(file);
        }
        let roots = match &self.tls.roots {
            None => None,
            Some(Roots::File(path)) => Some(path.clone()),
            Some(Roots::System) => {
                let file = secret(
                    "list of public CAs for pg_dump",
                    dbtls::system_roots_pem()?.as_bytes(),
                )?;
                let path = file.path().to_owned();
                files.push(file);
                Some(path)
            }
        };
        let mut conninfo = self.conninfo(application, roots.as_deref());
        match self.options.as_deref() {
            // Words for a proxy (`endpoint=...`, `reference=...`), which reads them as a whole.
            Some(own) if !own.starts_with('-') => {
                conninfo.push_str(&format!(" options={}", quote(own)));
            }
            None if options.is_empty() => {}
            _ => set.push(("PGOPTIONS", self.options_with(options).into())),
        }
        Ok(LibpqEnv {
            conninfo,
            set,
            remove: inherited(),
            files,
        })
    }

    fn conninfo(&self, application: &str, roots: Option<&Path>) -> String {
        let mut pairs = vec![("host", self.place())];
        if let Endpoint::Tcp {
            host,
            address: Some(address),
        } = &self.endpoint
        {
            pairs[0].1.clone_from(host);
            pairs.push(("hostaddr", address.to_string()));
        }
        let path = |path: &Path| path.to_string_lossy().into_owned();
        pairs.push(("port", self.port.to_string()));
        pairs.push(("user", self.user.clone()));
        pairs.push(("dbname", self.name.clone()));
        pairs.push(("application_name", application.to_owned()));
        pairs.push((
            "connect_timeout",
            self.connect_timeout.as_secs().to_string(),
        ));
        pairs.push(("keepalives_idle", KEEPALIVE_IDLE.as_secs().to_string()));
        pairs.push((
            "keepalives_interval",
            KEEPALIVE_INTERVAL.as_secs().to_string(),
        ));
        pairs.push(("keepalives_count", KEEPALIVE_RETRIES.to_string()));
        pairs.push(("tcp_user_timeout", UNANSWERED.as_millis().to_string()));
        pairs.push(("gssencmode", "disable".into())); // our own sessions never use it
        pairs.push(("sslmode", self.tls.mode.as_str().into()));
        pairs.extend(roots.map(|roots| ("sslrootcert", path(roots))));
        if let Some((certificate, key)) = &self.tls.identity {
            pairs.extend([("sslcert", path(certificate)), ("sslkey", path(key))]);
        }
        let direct = self.negotiation.as_ref().filter(|word| *word == "direct"); // libpq before 17 knows no such word
        pairs.extend(direct.map(|word| ("sslnegotiation", word.clone())));
        pairs.extend(
            self.channel_binding
                .iter()
                .map(|word| ("channel_binding", word.clone())),
        );
        pairs.extend(
            self.session_attrs
                .iter()
                .map(|word| ("target_session_attrs", word.clone())),
        );
        let words: Vec<_> = pairs
            .iter()
            .map(|(keyword, value)| format!("{keyword}={}", quote(value)))
            .collect();
        words.join(" ")
    }
}

impl LibpqEnv {
    /// Gives the environment (not the connection string) to a command.
    pub fn apply(&self, command: &mut Command) {
        for name in &self.remove {
            command.env_remove(name);
        }
        for (name, value) in &self.set {
            command.env(name, value);
        }
    }
}

impl std::fmt::Debug for LibpqEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LibpqEnv")
            .field("conninfo", &self.conninfo)
            .field("files", &self.files.len())
            .finish_non_exhaustive()
    }
}

/// The agent's own variables which would redirect libpq, or which hold a password.
fn inherited() -> Vec<OsString> {
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.to_str().is_some_and(concerns_the_database))
        .collect()
}

fn concerns_the_database(name: &str) -> bool {
    // PG covers libpq's variables and PGCONVOY_DATABASE_URL alike.
    name.starts_with("PG") || name.starts_with("SELF_HOSTED_DB_")
}

/// The text of a password file which matches every connection.
fn passfile_line(password: &str) -> String {
    format!(
        "*:*:*:*:{}\n",
        password.replace('\\', "\\\\").replace(':', "\\:")
    )
}

fn secret(what: &'static str, content: &[u8]) -> Result<SecretFile, Error> {
    SecretFile::new(content).map_err(|source| Error::File {
        what,
        path: "(in memory)".into(),
        source,
    })
}

/// A file of mode 0600 that children of the same user can open by path, and nobody can find by name.
struct SecretFile {
    _file: File,
    path: PathBuf,
}

impl SecretFile {
    /// Anonymous memory: nothing is on any disk. /proc is how a child opens it again from its start.
    fn new(content: &[u8]) -> io::Result<Self> {
        use rustix::fs::{MemfdFlags, Mode, fchmod, memfd_create};
        use std::os::fd::AsRawFd;

        let mut file = File::from(memfd_create("pgconvoy", MemfdFlags::CLOEXEC)?);
        fchmod(&file, Mode::RUSR | Mode::WUSR)?; // libpq ignores a password file that others can read
        file.write_all(content)?;
        let path = PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            file.as_raw_fd()
        ));
        Ok(Self { _file: file, path })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_secret_file_is_private_and_gone_when_dropped() {
        let file = SecretFile::new(passfile_line(r"a:b\c").as_bytes()).unwrap();
        let path = file.path().to_owned();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "*:*:*:*:a\\:b\\\\c\n"
        );
        let metadata = std::fs::metadata(&path).unwrap();
        assert!(metadata.is_file());
        assert_eq!(metadata.mode() & 0o777, 0o600);
        // Another process of this user can open it, as pg_dump will.
        let seen = std::process::Command::new("cat")
            .arg(&path)
            .output()
            .unwrap();
        assert!(seen.stdout.starts_with(b"*:*:*:*:"));
        drop(file);
        assert_ne!(
            std::fs::metadata(&path).map(|now| now.ino()).ok(),
            Some(metadata.ino())
        );
    }

    #[test]
    fn variables_of_the_agent_that_lead_elsewhere_are_taken_away() {
        for name in [
            "PGPASSWORD",
            "PGHOST",
            "PGSERVICE",
            "PGCONVOY_DATABASE_URL",
            "SELF_HOSTED_DB_PASSWORD",
        ] {
            assert!(concerns_the_database(name), "{name}");
        }
        assert!(!concerns_the_database("PATH"));
    }
}
