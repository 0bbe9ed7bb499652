//! Opening a session: the attempts that an sslmode permits, within a time limit.
//!
//! Credentials stay home: only `prefer` and `allow` ever connect without TLS, and the log then says so.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation, TargetSessionAttrs};

use super::error::Opening;
use super::handshake::Handshake;
use super::{Database, Endpoint, Error};
use crate::dbtls::Mode;
use crate::session::Session;

/// A host has several addresses, and TLS, authentication and the first query come after the socket.
const OPENING_TIMEOUT_FACTOR: u32 = 3;
/// A peer that vanished is noticed after [`UNANSWERED`], not after the kernel's two hours: where that is set, Linux goes by it and not by the
/// count of keepalives (tcp(7), TCP_USER_TIMEOUT). Shorter it cannot be: a session that copies in has the same.
pub(super) const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
pub(super) const KEEPALIVE_RETRIES: u32 = 6;
/// The kernel asks a peer that owes an answer to what was sent not by keepalives but by sending again, for a quarter of an hour
/// (tcp_retries2). This long too a server may take nothing of a COPY, whose connection is alive all the same.
pub(super) const UNANSWERED: Duration = Duration::from_secs(300);

impl Database {
    /// Opens a session with pinned settings, or says why that is not possible.
    pub async fn connect(&self, application: &str) -> Result<Session, Error> {
        let (first, second) = self.attempts();
        let refused = match (self.attempt(application, first).await, second) {
            (Err(error), Some(_)) if error.depends_on_tls() => error,
            (outcome, _) => return outcome,
        };
        tracing::warn!(error = %refused, "sslmode {} permits another attempt", self.tls.mode.as_str());
        let outcome = self.attempt(application, second.unwrap_or(first)).await;
        // Where the second attempt only finds the door shut, the first one knows why.
        outcome.map_err(|error| {
            if error.depends_on_tls() {
                refused
            } else {
                error
            }
        })
    }

    /// What to try, and what to try when the server wants it the other way; as libpq does. A Unix socket never has
    /// TLS.
    pub(super) fn attempts(&self) -> (SslMode, Option<SslMode>) {
        match (&self.endpoint, self.tls.mode) {
            (Endpoint::Socket(_), _) | (_, Mode::Disable) => (SslMode::Disable, None),
            (_, Mode::Allow) => (SslMode::Disable, Some(SslMode::Require)),
            (_, Mode::Prefer) => (SslMode::Prefer, Some(SslMode::Disable)),
            (_, Mode::Require | Mode::VerifyCa | Mode::VerifyFull) => (SslMode::Require, None),
        }
    }

    async fn attempt(&self, application: &str, mode: SslMode) -> Result<Session, Error> {
        let at = self.at();
        let limit = self.connect_timeout * OPENING_TIMEOUT_FACTOR;
        let opening = Opening {
            at: &at,
            user: &self.user,
            database: &self.name,
            keeps_role: self.chooses_role(),
            pins: !self.is_pooled(),
        };
        let session = Box::pin(async {
            let config = self.config(application);
            let handshake = Handshake {
                tls: self.tls.connector(),
                mode,
                direct: self.tls.direct,
            };
            let failed = |error| opening.failed(&error);
            match &self.endpoint {
                Endpoint::Socket(directory) => {
                    let socket = self
                        .socket(directory)
                        .await
                        .map_err(|error| opening.unreached(&error))?;
                    let handshake = handshake.with::<UnixStream>("");
                    let (client, connection) = config
                        .connect_raw(socket, handshake)
                        .await
                        .map_err(failed)?;
                    let session = Session::pin(client, connection, &opening).await?;
                    self.admit(session, &opening).await
                }
                Endpoint::Tcp { .. } => {
                    let (client, connection) = config.connect(handshake).await.map_err(failed)?;
                    Session::pin(client, connection, &opening).await
                }
            }
        });
        let seconds = limit.as_secs();
        tokio::time::timeout(limit, session)
            .await
            .unwrap_or_else(|_| {
                Err(Error::TimedOut {
                    at: at.clone(),
                    seconds,
                })
            })
    }

    async fn socket(&self, directory: &Path) -> io::Result<UnixStream> {
        let connecting = UnixStream::connect(directory.join(format!(".s.PGSQL.{}", self.port)));
        tokio::time::timeout(self.connect_timeout, connecting).await?
    }

    /// target_session_attrs, which tokio-postgres looks at where it opens the socket itself.
    async fn admit(&self, session: Session, opening: &Opening<'_>) -> Result<Session, Error> {
        let Some(wanted) = self.session_attrs.as_deref().filter(|word| *word != "any") else {
            return Ok(session);
        };
        let standby: bool = session
            .query_one("SELECT pg_catalog.pg_is_in_recovery()", &[])
            .await
            .map_err(|error| opening.failed(&error))?
            .get(0);
        if standby == (wanted == "read-only") {
            return Ok(session);
        }
        Err(Error::NotAdmitted {
            at: opening.at.to_owned(),
            message: format!("target_session_attrs is {wanted}, and the server is not"),
        })
    }

    /// TLS is negotiated by [`Handshake`], whatever is said here.
    fn config(&self, application: &str) -> Config {
        let mut config = Config::new();
        if let Endpoint::Tcp { host, address } = &self.endpoint {
            address.map(|address| config.hostaddr(address));
            config.host(host);
        }
        config
            .port(self.port)
            .user(&self.user)
            .dbname(&self.name)
            .application_name(application)
            .connect_timeout(self.connect_timeout)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(UNANSWERED)
            .ssl_mode(SslMode::Require)
            .ssl_negotiation(SslNegotiation::Direct);
        if let Some(password) = &self.password {
            config.password(password);
        }
        if let Some(options) = &self.options {
            config.options(options);
        }
        match self.channel_binding.as_deref() {
            Some("disable") => config.channel_binding(ChannelBinding::Disable),
            Some("require") => config.channel_binding(ChannelBinding::Require),
            _ => &mut config,
        };
        match self.session_attrs.as_deref() {
            Some("read-write") => config.target_session_attrs(TargetSessionAttrs::ReadWrite),
            Some("read-only") => config.target_session_attrs(TargetSessionAttrs::ReadOnly),
            _ => &mut config,
        };
        config
    }
}
