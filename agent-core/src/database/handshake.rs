//! What comes between a socket and PostgreSQL's first message: TLS, where the sslmode wants it and the server has it. What comes
//! out is one kind of connection, encrypted or not, whose rows are [coalesced](super::coalesce).
use std::convert::Infallible;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::either::Either;

use super::coalesce::Coalesced;

/// SSLRequest and its answers: PostgreSQL manual, "SSL Session Encryption" in "Message Flow".
const YES: u8 = b'S';
const NO: u8 = b'N';

type Encrypted<S> = <MakeRustlsConnect as MakeTlsConnect<S>>::Stream;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Before TLS began.
    #[error(transparent)]
    Socket(io::Error),
    #[error("server does not support TLS")]
    NoTls,
    #[error(transparent)]
    Tls(io::Error),
}

/// Makes connections of sockets. tokio-postgres is told to require TLS from the first byte, and leaves it all to this.
#[derive(Clone)]
pub struct Handshake {
    pub tls: MakeRustlsConnect,
    pub mode: SslMode,
    /// TLS from the first byte (`sslnegotiation=direct`).
    pub direct: bool,
}

impl Handshake {
    /// `host` is what the server's certificate may have to name.
    pub fn with<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        mut self,
        host: &str,
    ) -> HandshakeWith<<MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect> {
        let Ok(tls) = MakeTlsConnect::<S>::make_tls_connect(&mut self.tls, host);
        HandshakeWith {
            tls,
            mode: self.mode,
            direct: self.direct,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Handshake {
    type Stream = Coalesced<Either<S, Encrypted<S>>>;
    type TlsConnect = HandshakeWith<<MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect>;
    type Error = Infallible;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Infallible> {
        Ok(self.clone().with::<S>(host))
    }
}

/// One handshake.
pub struct HandshakeWith<T> {
    tls: T,
    mode: SslMode,
    direct: bool,
}

impl<S, T> TlsConnect<S> for HandshakeWith<T>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: TlsConnect<S, Stream = Encrypted<S>, Error = io::Error> + Send + 'static,
    T::Future: Send,
{
    type Stream = Coalesced<Either<S, Encrypted<S>>>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, Error>> + Send>>;

    fn connect(self, mut socket: S) -> Self::Future {
        Box::pin(async move {
            let encrypted = match self.mode {
                SslMode::Disable => false,
                _ if self.direct => true,
                _ => asks_for_tls(&mut socket).await.map_err(Error::Socket)?,
            };
            let connection = if encrypted {
                Either::Right(self.tls.connect(socket).await.map_err(Error::Tls)?)
            } else if self.mode == SslMode::Require {
                return Err(Error::NoTls);
            } else {
                Either::Left(socket)
            };
            Ok(Coalesced::new(connection))
        })
    }
}

/// Whether the server goes on with TLS. Its answer is read alone: what follows it belongs to TLS, or to the first message.
async fn asks_for_tls<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut S) -> io::Result<bool> {
    let mut request = bytes::BytesMut::new();
    postgres_protocol::message::frontend::ssl_request(&mut request);
    socket.write_all(&request).await?;
    socket.flush().await?;
    match socket.read_u8().await? {
        YES => Ok(true),
        NO => Ok(false),
        // An error in the words of an old protocol, where no process can be had for the connection.
        _ => Err(io::Error::new(
            io::ErrorKind::ConnectionReset,
            "the server answered the question for TLS with an error",
        )),
    }
}
