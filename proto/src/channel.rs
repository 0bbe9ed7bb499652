//! The calling end: a channel to an agent whose certificate, name and role have been verified.
//!
//! Invariant: a [`Channel`] only ever speaks to a server that proved the expected role, after every reconnection too,
//! and it is one TCP connection. What went wrong is told in words that name the address and what to do.
use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::AlertDescription;
use rustls::pki_types::ServerName;
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::alive::Alive;
use crate::identity::{Identity, Role};
use crate::serve::{ANSWER_TIMEOUT, CONNECTION_WINDOW, KEEPALIVE, MAX_FRAME, STREAM_WINDOW};
use crate::tls::{self, Fault, on_date};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("`{given}` is no agent's address ({reason}): give https://HOST:PORT")]
    BadAddress { given: String, reason: String },
    #[error("`{0}`: pgconvoy speaks TLS only: give https://HOST:PORT")]
    PlainText(String),
    #[error("cannot resolve the host name of {address}: {reason}")]
    Resolve { address: String, reason: String },
    #[error("connection refused: is the agent running at {address}?")]
    Refused { address: String },
    #[error(
        "timed out: {address} did not answer within {} s; is the agent running there, and does a firewall let this \
         host through?", CONNECT_TIMEOUT.as_secs()
    )]
    TimedOut { address: String },
    #[error("cannot reach {address}: {reason}")]
    Unreachable { address: String, reason: String },
    #[error(
        "the certificate of {address} was issued by another CA than ours: both ends need bundles of the same `pgconvoy \
         pki init`"
    )]
    OtherAuthority { address: String },
    #[error("the certificate of {address} expired{}: issue new bundles and restart the agent", on_date(*.at))]
    Expired {
        address: String,
        at: Option<Timestamp>,
    },
    #[error("the certificate of {address} is not valid yet: compare the clocks of the two hosts")]
    NotYetValid { address: String },
    #[error(
        "the certificate of {address} is not valid for the name {name}{}: use such a name, or issue the bundle for {name}",
        valid_for(.names)
    )]
    WrongName {
        address: String,
        name: String,
        names: Vec<String>,
    },
    #[error("{address} is a {}, not the {expected}", .presented.title())]
    WrongRole {
        address: String,
        presented: Role,
        expected: Role,
    },
    #[error("{address} is not an agent of pgconvoy: {reason}")]
    NotAnAgent { address: String, reason: String },
    #[error("{address} refused our certificate: {reason}")]
    CertificateRefused {
        address: String,
        reason: &'static str,
    },
    #[error("the connection to {address} broke before it was ready: {reason}")]
    Broken { address: String, reason: String },
}

fn valid_for(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!(" (it is valid for {})", names.join(", ")),
    }
}

/// Connects to the agent at `https://HOST:PORT` (or HOST:PORT). The channel reconnects by itself later on; the first
/// connection is made here, so that what is wrong shows at once.
pub async fn connect(address: &str, identity: &Identity, expect: Role) -> Result<Channel, Error> {
    let dialer = Arc::new(Dialer::new(address, identity, expect)?);
    let broken = |reason: String| Error::Broken {
        address: dialer.address.clone(),
        reason,
    };
    // The dialer speaks TLS; `http` here only keeps the transport from looking for its own.
    let endpoint = Endpoint::from_shared(format!("http://{}", dialer.authority))
        .map_err(|error| broken(error.to_string()))?
        .origin(http::Uri::try_from(&dialer.address).map_err(|error| broken(error.to_string()))?)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(ANSWER_TIMEOUT)
        .keep_alive_while_idle(true);
    let connector = {
        let dialer = dialer.clone();
        tower::service_fn(move |_| {
            let dialer = dialer.clone();
            async move { dialer.dial().await.map(TokioIo::new) }
        })
    };
    match endpoint.connect_with_connector(connector).await {
        Ok(channel) => Ok(channel),
        Err(error) => Err(find::<Error>(&error)
            .cloned()
            .unwrap_or_else(|| broken(root_of(&error)))),
    }
}

struct Dialer {
    /// As in messages: `https://HOST:PORT`.
    address: String,
    authority: String,
    host: String,
    port: u16,
    name: ServerName<'static>,
    expect: Role,
    tls: TlsConnector,
}

impl Dialer {
    fn new(given: &str, identity: &Identity, expect: Role) -> Result<Dialer, Error> {
        let bad = |reason: &str| Error::BadAddress {
            given: given.to_owned(),
            reason: reason.to_owned(),
        };
        let authority = match given.split_once("://") {
            None => given,
            Some(("https", rest)) => rest,
            Some(("http", _)) => return Err(Error::PlainText(given.to_owned())),
            Some(_) => return Err(bad("its scheme is not https")),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains(['/', '@', '?', '#']) {
            return Err(bad("it has more than host and port"));
        }
        let parsed: http::uri::Authority =
            authority.parse().map_err(|_| bad("it cannot be parsed"))?;
        let port = parsed.port_u16().ok_or_else(|| bad("it has no port"))?;
        let host = parsed
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name =
            ServerName::try_from(host.clone()).map_err(|_| bad("its host is no valid name"))?;
        let config =
            tls::client_config(identity, expect).map_err(|error| bad(&error.to_string()))?;
        Ok(Dialer {
            address: format!("https://{parsed}"),
            authority: parsed.to_string(),
            host,
            port,
            name,
            expect,
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    async fn dial(&self) -> Result<TlsStream<Alive<TcpStream>>, Error> {
        let dialed = timeout(CONNECT_TIMEOUT, async {
            let tcp = self.reach().await?;
            self.greet(tcp).await.map_err(|error| self.explain(&error))
        });
        dialed.await.unwrap_or_else(|_| {
            Err(Error::TimedOut {
                address: self.address.clone(),
            })
        })
    }

    async fn reach(&self) -> Result<TcpStream, Error> {
        let address = self.address.clone();
        let candidates: Vec<_> =
            match tokio::net::lookup_host((self.host.as_str(), self.port)).await {
                Ok(found) => found.collect(),
                Err(error) => {
                    return Err(Error::Resolve {
                        address,
                        reason: error.to_string(),
                    });
                }
            };
        // One address that swallows packets must not use up the time of the others.
        let share = CONNECT_TIMEOUT / candidates.len().clamp(1, 8) as u32;
        let mut last = Error::Resolve {
            address,
            reason: "the name has no address".into(),
        };
        for candidate in candidates {
            match timeout(share, TcpStream::connect(candidate)).await {
                Ok(Ok(tcp)) => {
                    let _ = tcp.set_nodelay(true);
                    return Ok(tcp);
                }
                Ok(Err(error)) => last = self.unreachable(&error),
                Err(_) => {
                    last = Error::TimedOut {
                        address: self.address.clone(),
                    }
                }
            }
        }
        Err(last)
    }

    fn unreachable(&self, error: &io::Error) -> Error {
        let address = self.address.clone();
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Error::Refused { address },
            io::ErrorKind::TimedOut => Error::TimedOut { address },
            _ => Error::Unreachable {
                address,
                reason: error.to_string(),
            },
        }
    }

    /// The handshake, and then the server's first bytes (it speaks first, its HTTP/2 settings): in TLS 1.3 a client
    /// learns only by reading whether its certificate was accepted.
    async fn greet(&self, tcp: TcpStream) -> io::Result<TlsStream<Alive<TcpStream>>> {
        let mut stream = self.tls.connect(self.name.clone(), Alive::new(tcp)).await?;
        match stream.fill_buf().await? {
            [] => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(stream),
        }
    }

    fn explain(&self, error: &io::Error) -> Error {
        let address = self.address.clone();
        let Some(tls) = find::<rustls::Error>(error) else {
            return Error::Broken {
                address,
                reason: error.to_string(),
            };
        };
        match Fault::of(tls) {
            Some(Fault::OtherAuthority) => return Error::OtherAuthority { address },
            Some(Fault::Expired(at)) => return Error::Expired { address, at },
            Some(Fault::NotYetValid(_)) => return Error::NotYetValid { address },
            Some(Fault::WrongName(names)) => {
                return Error::WrongName {
                    address,
                    name: self.host.clone(),
                    names,
                };
            }
            Some(Fault::WrongRole(presented)) => {
                return Error::WrongRole {
                    address,
                    presented,
                    expected: self.expect,
                };
            }
            Some(Fault::NoRole) => {
                return Error::NotAnAgent {
                    address,
                    reason: "its certificate names no role".into(),
                };
            }
            None => {}
        }
        match tls {
            rustls::Error::AlertReceived(alert) => match why_refused(*alert) {
                Some(reason) => Error::CertificateRefused { address, reason },
                None => Error::NotAnAgent {
                    address,
                    reason: tls.to_string(),
                },
            },
            rustls::Error::InvalidMessage(_) => Error::NotAnAgent {
                address,
                reason: "it does not speak TLS".into(),
            },
            tls => Error::NotAnAgent {
                address,
                reason: tls.to_string(),
            },
        }
    }
}

/// The alerts with which a server answers a client's certificate.
const REFUSALS: [(AlertDescription, &str); 8] = {
    const OTHER_CA: &str = "it was issued by another CA than the agent's; both ends need bundles of the same `pgconvoy pki init`";
    const UNFIT: &str = "it is not fit for a client; use a bundle that `pgconvoy pki init` wrote";
    [
        (
            AlertDescription::CertificateRequired,
            "none was presented; give a bundle with --identity",
        ),
        (AlertDescription::UnknownCA, OTHER_CA),
        (AlertDescription::DecryptError, OTHER_CA),
        (
            AlertDescription::CertificateExpired,
            "it has expired or is not valid yet; issue new bundles, or compare the clocks of the two hosts",
        ),
        (
            AlertDescription::CertificateRevoked,
            "it was revoked; issue a new bundle",
        ),
        (AlertDescription::BadCertificate, UNFIT),
        (AlertDescription::UnsupportedCertificate, UNFIT),
        (AlertDescription::CertificateUnknown, UNFIT),
    ]
};

fn why_refused(alert: AlertDescription) -> Option<&'static str> {
    REFUSALS
        .iter()
        .find(|(known, _)| *known == alert)
        .map(|(_, why)| *why)
}

/// What a failed call means when the connection, and not the agent, is the cause; `None` for an answer of the agent.
pub fn explain(status: &Status) -> Option<String> {
    let error = status.source()?;
    if let Some(dialing) = find::<Error>(error) {
        return Some(dialing.to_string());
    }
    let refused = |reason: &str| Some(format!("the agent refused our certificate: {reason}"));
    if let Some(rustls::Error::AlertReceived(alert)) = find::<rustls::Error>(error)
        && let Some(reason) = why_refused(*alert)
    {
        return refused(reason);
    }
    let root = root_of(error);
    // Below HTTP/2 an error is kept as text only.
    let by_text = |(alert, _): &&(AlertDescription, _)| {
        root == rustls::Error::AlertReceived(*alert).to_string()
    };
    if let Some((_, reason)) = REFUSALS.iter().find(by_text) {
        return refused(reason);
    }
    connection_broke(error).then(|| format!("the connection to the agent broke: {root}"))
}

fn connection_broke(error: &(dyn StdError + 'static)) -> bool {
    find::<tonic::transport::Error>(error).is_some()
        || find::<io::Error>(error).is_some()
        || find::<h2::Error>(error).is_some_and(|error| error.is_io() || error.is_go_away())
        || find::<hyper::Error>(error)
            .is_some_and(|error| error.is_closed() || error.is_canceled() || error.is_timeout())
}

/// The causes of an error, itself first. Two kinds hide theirs: an `io::Error` hands out the source of its inner error
/// and skips the inner error itself, and `h2::Error` has no source at all.
fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.get_ref().map(|inner| inner as &(dyn StdError + 'static));
        }
        if let Some(io) = error
            .downcast_ref::<h2::Error>()
            .and_then(h2::Error::get_io)
        {
            return Some(io as &(dyn StdError + 'static));
        }
        error.source()
    })
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    chain(error).find_map(|error| error.downcast_ref::<E>())
}

fn root_of(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().unwrap_or(error).to_string()
}

#[cfg(test)]
mod tests;
