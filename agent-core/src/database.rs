//! Where the database of an agent is and how to reach it: for the agent's own sessions, and for pg_dump and
//! pg_restore, which must end up in the same place in the same way.
//!
//! Credentials stay home: the password is known here only. It leaves this module to the server, and in a
//! [`LibpqEnv`] to a child of the agent; no `Debug`, `describe` or error has it.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::dbtls;

mod coalesce;
mod connect;
mod conninfo;
mod error;
mod handshake;
mod libpq;
mod passfile;

use conninfo::Conninfo;
pub use error::Error;
pub(crate) use error::Opening;
pub use libpq::LibpqEnv;

const SOCKET_DIRECTORY: &str = "/var/run/postgresql";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone)]
enum Endpoint {
    /// The directory of a Unix socket.
    Socket(PathBuf),
    /// `address`, when given, is connected to; `host` is what the certificate must name.
    Tcp {
        host: String,
        address: Option<IpAddr>,
    },
}

/// One database, resolved: nothing about it is looked up again later.
#[derive(Clone)]
pub struct Database {
    endpoint: Endpoint,
    port: u16,
    user: String,
    name: String,
    password: Option<String>,
    tls: dbtls::Settings,
    negotiation: Option<String>,
    channel_binding: Option<String>,
    session_attrs: Option<String>,
    options: Option<String>,
    /// Whether it takes options of ours; once that was tried.
    takes_options: Arc<OnceCell<bool>>,
    /// It was found to be a transaction pooler.
    pooled: Arc<AtomicBool>,
    connect_timeout: Duration,
}

impl Database {
    /// From a URL or `keyword=value` string; what it leaves open comes from libpq's PG* variables, a password file
    /// and libpq's defaults.
    pub fn resolve(url: Option<&str>, env: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let mut given = url.map_or_else(|| Ok(Conninfo::default()), Conninfo::parse)?;
        given.fill_from(&env)?;
        let home = env("HOME").map(PathBuf::from).or_else(std::env::home_dir);
        Self::from_conninfo(&given, home.as_deref())
    }

    /// As [`Self::resolve`], for the target agent: with neither a URL nor PGHOST, the runbook's
    /// SELF_HOSTED_DB_HOST, _PORT, _NAME, _USER and _PASSWORD are read in place of their PG* counterparts.
    pub fn resolve_target(
        url: Option<&str>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let given = |name: &str| env(name).filter(|value| !value.is_empty());
        let elsewhere = url.is_some() || given("PGHOST").or_else(|| given("PGHOSTADDR")).is_some();
        if elsewhere || given("SELF_HOSTED_DB_HOST").is_none() {
            return Self::resolve(url, env);
        }
        Self::resolve(None, |name| {
            let runbook = match name {
                "PGHOST" => given("SELF_HOSTED_DB_HOST"),
                "PGPORT" => given("SELF_HOSTED_DB_PORT"),
                "PGDATABASE" => given("SELF_HOSTED_DB_NAME"),
                "PGUSER" => given("SELF_HOSTED_DB_USER"),
                "PGPASSWORD" => given("SELF_HOSTED_DB_PASSWORD"),
                _ => None,
            };
            runbook.or_else(|| env(name))
        })
    }

    fn from_conninfo(given: &Conninfo, home: Option<&Path>) -> Result<Self, Error> {
        let owned = |keyword: &str| given.get(keyword).map(str::to_owned);
        let user = match given.get("user") {
            Some(user) => user.to_owned(),
            None => os_user()?,
        };
        let negotiation = one_of(given, "sslnegotiation", &["postgres", "direct"])?;
        let mut database = Self {
            endpoint: endpoint(given)?,
            port: port(given.get("port"))?,
            name: owned("dbname").unwrap_or_else(|| user.clone()),
            user,
            password: owned("password"),
            tls: dbtls::Settings::new(
                given.get("sslmode"),
                given.get("sslrootcert"),
                (given.get("sslcert"), given.get("sslkey")),
                negotiation.as_deref() == Some("direct"),
                home,
            )?,
            negotiation,
            channel_binding: one_of(given, "channel_binding", &["disable", "prefer", "require"])?,
            session_attrs: one_of(
                given,
                "target_session_attrs",
                &["any", "read-write", "read-only"],
            )?,
            options: owned("options"),
            takes_options: Arc::default(),
            pooled: Arc::default(),
            connect_timeout: connect_timeout(given.get("connect_timeout"))?,
        };
        if database.password.is_none() {
            database.password = database.password_from_file(given.get("passfile"), home)?;
        }
        Ok(database)
    }

    fn password_from_file(
        &self,
        named: Option<&str>,
        home: Option<&Path>,
    ) -> Result<Option<String>, Error> {
        let default = || home.map(|home| home.join(".pgpass"));
        let Some(path) = named.map(PathBuf::from).or_else(default) else {
            return Ok(None);
        };
        let place = self.place();
        let mut hosts = vec![place.as_str()];
        if [SOCKET_DIRECTORY, "/tmp"].contains(&place.as_str()) {
            hosts.push("localhost");
        }
        let wanted = passfile::Wanted {
            hosts: &hosts,
            port: self.port,
            database: &self.name,
            user: &self.user,
        };
        passfile::look_up(&path, named.is_some(), &wanted)
    }

    /// The same server and user, another database.
    pub fn with_database(&self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self.clone()
        }
    }

    /// Whether it is reached through a Unix socket or the loopback interface.
    pub fn is_on_this_machine(&self) -> bool {
        match &self.endpoint {
            Endpoint::Socket(_) => true,
            Endpoint::Tcp { host, address } => address.map_or_else(
                || host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
                |address| address.is_loopback(),
            ),
        }
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    /// For people: `app at db.example.org:5432 as postgres`.
    pub fn describe(&self) -> String {
        format!("{} at {} as {}", self.name, self.at(), self.user)
    }

    /// Whether the connection's options (`-c role=owner`) say who its sessions are.
    fn chooses_role(&self) -> bool {
        let options = self.options.as_deref().unwrap_or_default();
        let sets_role = |word: &str| {
            let word = word.trim_start_matches("--").trim_start_matches("-c");
            word.starts_with("role=")
        };
        options.split_whitespace().any(sets_role)
    }

    /// Host, address or socket directory.
    fn place(&self) -> String {
        match &self.endpoint {
            Endpoint::Socket(directory) => directory.display().to_string(),
            Endpoint::Tcp { host, .. } => host.clone(),
        }
    }

    /// A transaction pooler: its backends are lent to the application too, and sessions of ours set nothing there from now on. They may ask;
    /// what rows are read or written by is refused by [`Self::refuse_pooler`].
    pub(crate) fn set_pooled(&self) {
        self.pooled.store(true, Relaxed);
    }

    fn is_pooled(&self) -> bool {
        self.pooled.load(Relaxed)
    }

    /// For work that needs a backend of its own.
    pub fn refuse_pooler(&self) -> Result<(), Error> {
        match self.is_pooled() {
            true => Err(Error::TransactionPooler { at: self.at() }),
            false => Ok(()),
        }
    }

    fn at(&self) -> String {
        let place = self.place();
        if place.contains(':') {
            format!("[{place}]:{}", self.port)
        } else {
            format!("{place}:{}", self.port)
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("is", &self.describe())
            .field("sslmode", &self.tls.mode)
            .finish_non_exhaustive()
    }
}

fn wrong(reason: impl Into<String>) -> Error {
    Error::Conninfo(reason.into())
}

fn endpoint(given: &Conninfo) -> Result<Endpoint, Error> {
    let host = given.get("host");
    if host
        .or(given.get("hostaddr"))
        .is_some_and(|list| list.contains(','))
    {
        return Err(wrong(
            "it names several hosts: give one, as all sessions of a migration must reach the same server",
        ));
    }
    let address = given
        .get("hostaddr")
        .map(|text| {
            text.parse()
                .map_err(|_| wrong("hostaddr is not an IP address"))
        })
        .transpose()?;
    Ok(match (host, address) {
        (Some(directory), _) if directory.starts_with('/') => Endpoint::Socket(directory.into()),
        (Some(host), address) => Endpoint::Tcp {
            host: host.to_owned(),
            address,
        },
        (None, Some(address)) => Endpoint::Tcp {
            host: address.to_string(),
            address: Some(address),
        },
        (None, None) if Path::new(SOCKET_DIRECTORY).is_dir() => {
            Endpoint::Socket(SOCKET_DIRECTORY.into())
        }
        (None, None) => Endpoint::Tcp {
            host: "localhost".into(),
            address: None,
        },
    })
}

fn port(given: Option<&str>) -> Result<u16, Error> {
    match given.unwrap_or("5432").parse() {
        Ok(0) | Err(_) => Err(wrong(
            "the port is not a number from 1 to 65535 (special characters in a password must be percent-encoded in a URL)",
        )),
        Ok(port) => Ok(port),
    }
}

fn connect_timeout(given: Option<&str>) -> Result<Duration, Error> {
    let Some(text) = given else {
        return Ok(CONNECT_TIMEOUT);
    };
    let seconds: i64 = text
        .parse()
        .map_err(|_| wrong("connect_timeout is not a number of seconds"))?;
    // libpq waits for ever at 0; an agent never does.
    Ok(u64::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds > 0)
        .map_or(CONNECT_TIMEOUT, Duration::from_secs))
}

fn one_of(given: &Conninfo, keyword: &str, words: &[&str]) -> Result<Option<String>, Error> {
    match given.get(keyword) {
        Some(word) if !words.contains(&word) => Err(wrong(format!(
            "{keyword} must be one of {}",
            words.join(", ")
        ))),
        word => Ok(word.map(str::to_owned)),
    }
}

fn os_user() -> Result<String, Error> {
    whoami::username().map_err(|error| {
        wrong(format!(
            "no user is given, and this process has no user name ({error})"
        ))
    })
}

#[cfg(test)]
mod tests;
