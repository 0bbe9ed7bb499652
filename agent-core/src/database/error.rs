//! Why the database cannot be reached, in words an operator can act on.
//!
//! Credentials stay home: nothing here carries a password, a connection string or a line of a password file.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use tokio_postgres::error::{DbError, SqlState};

use super::handshake;
use crate::dbtls;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database connection string is not usable: {0}")]
    Conninfo(String),
    #[error("cannot use the {what} {}: {source}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    TlsSettings(#[from] dbtls::Error),

    #[error(
        "connection refused: is PostgreSQL listening at {at}, and does a firewall let this machine through?"
    )]
    Refused { at: String },
    #[error(
        "there is no PostgreSQL socket at {at}: is the server running here, and is this its socket directory?"
    )]
    NoSocket { at: String },
    #[error("unknown host in {at} ({reason}): check the name, and the DNS of this machine")]
    UnknownHost { at: String, reason: String },
    #[error(
        "{at} cannot be reached from here ({reason}): a host with only an IPv6 address needs IPv6 on this machine, \
         or the provider's pooler in session mode"
    )]
    Unreachable { at: String, reason: String },
    #[error(
        "no answer from {at} within {seconds} s: check the address, the port and the firewalls in between"
    )]
    TimedOut { at: String, seconds: u64 },

    #[error("password authentication failed for user \"{user}\" at {at}: check the password")]
    Password { at: String, user: String },
    #[error(
        "{at} asks for a password for user \"{user}\" and none was given: use PGPASSWORD, a password file, or the URL"
    )]
    NoPassword { at: String, user: String },
    #[error(
        "{at} does not admit this connection: {message}: check the role and pg_hba.conf of the server"
    )]
    NotAdmitted { at: String, message: String },
    #[error("database \"{database}\" does not exist at {at}: create it, or correct the name")]
    NoDatabase { at: String, database: String },
    #[error(
        "{at} has no connection left ({message}): end other sessions, or raise max_connections or the pooler's limit"
    )]
    TooManyConnections { at: String, message: String },
    #[error("{at} is not accepting connections yet: {message}")]
    NotReady { at: String, message: String },
    #[error("no TLS connection to {at}: {reason}: {remedy}")]
    Tls {
        at: String,
        reason: String,
        remedy: &'static str,
    },
    #[error("{at} is PostgreSQL {version}: pgconvoy needs 14 or newer at both ends")]
    TooOld { at: String, version: String },

    #[error(
        "{at} is a transaction pooler, which cannot hold a snapshot: connect directly, or through a session pooler (Supabase: port 5432)"
    )]
    TransactionPooler { at: String },

    #[error("{at} closed the connection while it was being opened: {reason}")]
    Lost { at: String, reason: String },
    #[error("{at} refused: {message} (SQLSTATE {code})")]
    Server {
        at: String,
        message: String,
        code: String,
    },
    #[error("cannot open a session at {at}: {reason}: is this a PostgreSQL server?")]
    Other { at: String, reason: String },
}

impl Error {
    /// Whether trying again later may help without anybody changing anything.
    pub fn transient(&self) -> bool {
        match self {
            Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::TooManyConnections { .. }
            | Self::NotReady { .. }
            | Self::Lost { .. } => true,
            Self::UnknownHost { reason, .. } => reason.contains("Temporary failure"),
            Self::Server { code, .. } => ["08", "53", "57P"]
                .iter()
                .any(|class| code.starts_with(class)),
            _ => false,
        }
    }

    /// Whether the same server may decide otherwise when asked with (or without) TLS.
    pub(super) fn depends_on_tls(&self) -> bool {
        matches!(self, Self::Tls { .. } | Self::NotAdmitted { .. })
    }

    fn from_socket(at: String, cause: &io::Error, reason: String) -> Self {
        match cause.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused { at },
            io::ErrorKind::NotFound => Self::NoSocket { at },
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::TimedOut => Self::Unreachable { at, reason },
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => Self::Lost { at, reason },
            _ if reason.contains("lookup") || reason.contains("could not resolve") => {
                Self::UnknownHost { at, reason }
            }
            _ => Self::Other { at, reason },
        }
    }
}

/// What is being opened, for the words of an error.
pub(crate) struct Opening<'a> {
    pub at: &'a str,
    pub user: &'a str,
    pub database: &'a str,
    /// The connection's options choose a role, which stays.
    pub keeps_role: bool,
    /// The session's settings are pinned.
    pub pins: bool,
}

impl Opening<'_> {
    /// Puts words to what tokio-postgres reports while a session is being opened.
    pub(crate) fn failed(&self, error: &tokio_postgres::Error) -> Error {
        if let Some(refusal) = error.as_db_error() {
            return self.refused(refusal);
        }
        let at = self.at.to_owned();
        let source = error.source();
        let reason = source.map_or_else(|| error.to_string(), ToString::to_string);
        if let Some(error) = source.and_then(|source| source.downcast_ref()) {
            return match error {
                handshake::Error::Socket(cause) => self.unreached(cause),
                handshake::Error::NoTls => self.without_tls(None, &reason),
                handshake::Error::Tls(cause) => self.without_tls(Some(cause), &reason),
            };
        }
        match source.and_then(|source| source.downcast_ref::<io::Error>()) {
            Some(cause) => Error::from_socket(at, cause, reason),
            None if error.is_closed() => Error::Lost { at, reason },
            None if reason == "password missing" => Error::NoPassword {
                at,
                user: self.user.to_owned(),
            },
            None if reason.contains("authentication method") => Error::NotAdmitted {
                at,
                message: reason,
            },
            None => Error::Other { at, reason },
        }
    }

    pub(super) fn unreached(&self, cause: &io::Error) -> Error {
        Error::from_socket(self.at.to_owned(), cause, cause.to_string())
    }

    fn without_tls(&self, cause: Option<&io::Error>, reason: &str) -> Error {
        let (reason, remedy) = dbtls::explain(cause, reason);
        Error::Tls {
            at: self.at.to_owned(),
            reason,
            remedy,
        }
    }

    fn refused(&self, refusal: &DbError) -> Error {
        let at = self.at.to_owned();
        let message = refusal.message().to_owned();
        // Poolers say "full" in their own words and codes.
        let full = ["max clients", "MaxClients", "no more connections allowed"];
        match refusal.code() {
            code if *code == SqlState::INVALID_PASSWORD => Error::Password {
                at,
                user: self.user.to_owned(),
            },
            code if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
                Error::NotAdmitted { at, message }
            }
            code if *code == SqlState::INVALID_CATALOG_NAME => Error::NoDatabase {
                at,
                database: self.database.to_owned(),
            },
            code if *code == SqlState::TOO_MANY_CONNECTIONS => {
                Error::TooManyConnections { at, message }
            }
            _ if full.iter().any(|words| message.contains(words)) => {
                Error::TooManyConnections { at, message }
            }
            code if *code == SqlState::CANNOT_CONNECT_NOW => Error::NotReady { at, message },
            code => Error::Server {
                at,
                message,
                code: code.code().to_owned(),
            },
        }
    }
}
