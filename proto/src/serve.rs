//! The listening end of an agent: accepts connections, admits peers by certificate, and stops within a stated time.
//!
//! Invariants: no RPC is reached by a connection whose peer has not proven a role, and [`serve`] returns at most `drain`
//! after it was told to stop, whatever the streams do. Memory per connection is bounded by the windows below.
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tonic::{Request, Status};

use crate::alive::Alive;
use crate::identity::{Identity, Peer, Role, role_of};
use crate::tls::{self, Fault, on_date};

/// What one stream, and all streams of a connection, may have in flight: about the product of 1 Gbit/s and 130 ms, and
/// four such streams. The defaults of HTTP/2 would cap a long link at a fraction of it.
pub const STREAM_WINDOW: u32 = 16 << 20;
pub const CONNECTION_WINDOW: u32 = 64 << 20;
pub const MAX_FRAME: u32 = 1 << 20;
/// Who has heard nothing for so long asks for a sign of life.
pub const KEEPALIVE: Duration = Duration::from_secs(20);
/// For the answer, which may stand behind much on a slow link: [`Alive`] notices a peer that is gone.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(3600);

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Strangers hold at most this many sockets: further connections wait in the kernel's queue.
const HANDSHAKES: usize = 256;

/// Serves `routes` to peers with a certificate of the same CA until `stop`; lets calls finish for `drain`, then cuts.
pub async fn serve(
    listener: TcpListener,
    identity: &Identity,
    routes: Routes,
    stop: CancellationToken,
    drain: Duration,
) -> anyhow::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(
        tls::server_config(identity).context("cannot set TLS up")?,
    ));
    // Dropping a tonic server leaves its connections running: this token, cancelled at return, ends them.
    let cut = CancellationToken::new();
    let _cut_at_return = cut.clone().drop_guard();
    let (admitted, incoming) = mpsc::channel(16);
    let accepting = accept(listener, acceptor, admitted, stop.clone());
    let incoming = ReceiverStream::new(incoming)
        .map(move |(stream, peer)| Ok::<_, io::Error>(Connection::new(stream, peer, cut.clone())));
    let serving = tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(ANSWER_TIMEOUT))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        (served, ()) = async { tokio::join!(Box::pin(serving), accepting) } => served.context("the gRPC server failed"),
        () = overdue => {
            tracing::warn!("calls were still open {drain:?} after the request to stop: they are cut");
            Ok(())
        }
    }
}

/// Passes when the caller's certificate carries one of `roles`.
// A Status is large, and it is what every caller of this returns.
#[allow(clippy::result_large_err)]
pub fn admit<T>(request: &Request<T>, roles: &[Role]) -> Result<Peer, Status> {
    let Some(peer) = request.extensions().get::<Peer>() else {
        return Err(Status::permission_denied(
            "this call did not arrive over an authenticated connection",
        ));
    };
    if roles.contains(&peer.role) {
        return Ok(peer.clone());
    }
    let admitted: Vec<String> = roles
        .iter()
        .map(|role| format!("the {}", role.title()))
        .collect();
    let message = format!(
        "this call admits {} only; the certificate presented is the {}'s",
        admitted.join(" and "),
        peer.role.title()
    );
    tracing::warn!("peer {} refused: {message}", peer.address);
    Err(Status::permission_denied(message))
}

type Admitted = (TlsStream<Alive<TcpStream>>, Peer);

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    admitted: mpsc::Sender<Admitted>,
    stop: CancellationToken,
) {
    // Dropped at return, and with it the handshakes that are still going on.
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = admitted.closed() => return,
            Some(_) = handshakes.join_next() => {}
            accepted = listener.accept(), if handshakes.len() < HANDSHAKES => match accepted {
                Ok((tcp, address)) => {
                    handshakes.spawn(greet(tcp, address, acceptor.clone(), admitted.clone()));
                }
                Err(error) => {
                    tracing::warn!("could not accept a connection: {error}");
                    // Out of file descriptors, as a rule: it stays so for a while.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn greet(
    tcp: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    admitted: mpsc::Sender<Admitted>,
) {
    let greeted = timeout(HANDSHAKE_TIMEOUT, handshake(tcp, address, &acceptor)).await;
    match greeted
        .unwrap_or_else(|_| Err(Refused::Because("the TLS handshake took too long".into())))
    {
        Ok(connection) => {
            tracing::debug!("peer {address} admitted as {}", connection.1.role);
            // An error means that the server has stopped meanwhile.
            let _ = admitted.send(connection).await;
        }
        Err(Refused::Because(reason)) => tracing::warn!("peer {address} refused: {reason}"),
        Err(Refused::Left) => {
            tracing::debug!("peer {address} left before it had introduced itself")
        }
    }
}

#[derive(Debug)]
enum Refused {
    Because(String),
    /// Port checks of load balancers and monitors: no refusal, and no warning.
    Left,
}

async fn handshake(
    tcp: TcpStream,
    address: SocketAddr,
    acceptor: &TlsAcceptor,
) -> Result<Admitted, Refused> {
    let _ = tcp.set_nodelay(true);
    let stream = match acceptor.accept(Alive::new(tcp)).into_fallible().await {
        Ok(stream) => stream,
        Err((error, tcp)) => {
            linger(tcp).await;
            return Err(refusal(&error));
        }
    };
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first());
    let role = match certificate.map(role_of) {
        Some(Ok(role)) => role,
        Some(Err(error)) => {
            return Err(Refused::Because(format!(
                "its certificate is not a pgconvoy one: {error}"
            )));
        }
        None => return Err(Refused::Because("it presented no certificate".into())),
    };
    Ok((stream, Peer { role, address }))
}

/// Reads what the refused peer has sent already: closing over unread bytes resets the connection, and the alert that
/// tells the peer why could be lost.
async fn linger(mut tcp: Alive<TcpStream>) {
    let _ = tcp.shutdown().await;
    let mut scratch = [0; 4096];
    let drain = async { while tcp.read(&mut scratch).await.is_ok_and(|read| read > 0) {} };
    let _ = timeout(Duration::from_secs(1), drain).await;
}

fn refusal(error: &io::Error) -> Refused {
    let Some(error) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => Refused::Left,
            _ => Refused::Because(error.to_string()),
        };
    };
    let by_fault = Fault::of(error).and_then(|fault| match fault {
        Fault::OtherAuthority => Some("its certificate was issued by another CA".into()),
        Fault::Expired(at) => Some(format!("its certificate expired{}", on_date(at))),
        Fault::NotYetValid(at) => Some(format!(
            "its certificate is valid only{}: compare the clocks",
            from_date(at)
        )),
        Fault::WrongName(_) | Fault::WrongRole(_) | Fault::NoRole => None,
    });
    Refused::Because(by_fault.unwrap_or_else(|| match error {
        rustls::Error::NoCertificatesPresented => "it presented no certificate".into(),
        rustls::Error::AlertReceived(alert) => {
            format!("it refused this agent's certificate ({alert:?})")
        }
        rustls::Error::PeerIncompatible(_) => format!("it does not speak TLS 1.3 ({error})"),
        rustls::Error::InvalidMessage(_) => "it does not speak TLS".into(),
        error => error.to_string(),
    }))
}

fn from_date(at: Option<jiff::Timestamp>) -> String {
    at.map(|at| format!(" from {}", at.strftime("%Y-%m-%d %H:%M:%SZ")))
        .unwrap_or_else(|| " later".into())
}

/// One admitted connection: its peer, and a cord to cut it by.
struct Connection {
    stream: TlsStream<Alive<TcpStream>>,
    peer: Peer,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection {
    fn new(stream: TlsStream<Alive<TcpStream>>, peer: Peer, cut: CancellationToken) -> Connection {
        Connection {
            stream,
            peer,
            cut: Box::pin(cut.cancelled_owned()),
        }
    }

    fn check_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the agent is stopping",
            )),
            Poll::Pending => Ok(()),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_cut(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_cut(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_cut(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_cut(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_cut(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
