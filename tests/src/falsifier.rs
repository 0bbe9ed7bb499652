//! A proxy in front of the target agent that ends TLS, as only somebody with the CA's key could, and flips one bit in the
//! rows on their way: after the source's digest, before the target's.
//!
//! HTTP/2 frames towards the agent are counted; everything else passes as it is.
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use jiff::{Timestamp, ToSpan};
use pgconvoy_proto::identity::Role;
use pgconvoy_proto::pki::Authority;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const PREFACE: usize = 24;
const FRAME_HEADER: usize = 9;
const DATA: u8 = 0;
/// Frames of this many bytes carry rows; smaller ones may be a header or a trailer.
const BIG: usize = 8 * 1024;

/// Ends with the value: its connections live on a runtime of its own.
#[derive(Debug)]
pub struct Falsifier {
    port: u16,
    state: Arc<State>,
    // Dropped with the value; nothing else needs it.
    _runtime: Runtime,
}

#[derive(Debug, Default)]
struct State {
    /// How many big frames to go until the one that is falsified; 0: none.
    countdown: AtomicU32,
    flipped: AtomicU32,
}

/// Both ends of what passes.
#[derive(Clone)]
struct Ends {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    destination: u16,
    state: Arc<State>,
}

impl Falsifier {
    /// `pki` is a folder that `pki init` made: the key of the CA is in it.
    pub fn to(port: u16, pki: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let state = Arc::new(State::default());
        let ends = Ends {
            acceptor: TlsAcceptor::from(Arc::new(server_config(pki)?)),
            connector: TlsConnector::from(Arc::new(client_config(pki)?)),
            destination: port,
            state: state.clone(),
        };
        let port = listener.local_addr()?.port();
        runtime.spawn(accept(listener, ends));
        Ok(Self {
            port,
            state,
            _runtime: runtime,
        })
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Flips a bit in the middle of the `n`th big frame from now on (1: the next one).
    pub fn arm(&self, n: u32) {
        self.state.countdown.store(n, Ordering::SeqCst);
    }

    /// How many bits have been flipped.
    pub fn flipped(&self) -> u32 {
        self.state.flipped.load(Ordering::SeqCst)
    }
}

impl State {
    fn pass(&self, payload: &mut [u8]) {
        let down = |left: u32| left.checked_sub(1);
        let left = self
            .countdown
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, down);
        if left == Ok(1) {
            let middle = payload.len() / 2;
            payload[middle] ^= 0b0001_0000;
            self.flipped.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn accept(listener: TcpListener, ends: Ends) {
    while let Ok((client, _)) = listener.accept().await {
        let ends = ends.clone();
        // A connection that breaks is one that broke: both ends notice.
        tokio::spawn(async move { carry(client, ends).await.ok() });
    }
}

async fn carry(client: TcpStream, ends: Ends) -> Result<()> {
    client.set_nodelay(true)?;
    let client = ends.acceptor.accept(client).await?;
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, ends.destination)).await?;
    server.set_nodelay(true)?;
    let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
    let server = ends.connector.connect(name, server).await?;
    let (from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, to_server) = tokio::io::split(server);
    tokio::select! {
        forward = frames(from_client, to_server, &ends.state) => forward?,
        back = tokio::io::copy(&mut from_server, &mut to_client) => { back?; }
    }
    Ok(())
}

async fn frames(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    state: &State,
) -> Result<()> {
    let mut preface = [0; PREFACE];
    from.read_exact(&mut preface).await?;
    to.write_all(&preface).await?;
    let mut frame = vec![0; FRAME_HEADER];
    loop {
        frame.resize(FRAME_HEADER, 0);
        from.read_exact(&mut frame).await?;
        let length =
            usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2]);
        let kind = frame[3];
        frame.resize(FRAME_HEADER + length, 0);
        from.read_exact(&mut frame[FRAME_HEADER..]).await?;
        if kind == DATA && length >= BIG {
            state.pass(&mut frame[FRAME_HEADER..]);
        }
        to.write_all(&frame).await?;
        to.flush().await?;
    }
}

/// To the source agent the proxy is the target agent.
fn server_config(pki: &Path) -> Result<ServerConfig> {
    let (chain, key) = identity(pki, Role::Target)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// To the target agent it is the source agent.
fn client_config(pki: &Path) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.join("ca.pem"))?)?;
    let (chain, key) = identity(pki, Role::Source)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn identity(
    pki: &Path,
    role: Role,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let now = Timestamp::now();
    let bundle = Authority::load(pki)?.issue(
        role,
        &["127.0.0.1".to_owned()],
        now - 1.hour(),
        now + 1.hour(),
    )?;
    let chain = CertificateDer::pem_slice_iter(bundle.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .context("the chain of a new bundle")?;
    let key =
        PrivateKeyDer::from_pem_slice(bundle.as_bytes()).context("the key of a new bundle")?;
    Ok((chain, key))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len())
            .expect("a short payload")
            .to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, 0, 0, 0, 0, 1]);
        frame.extend(payload);
        frame
    }

    #[test]
    fn one_bit_of_the_chosen_big_data_frame_is_flipped_and_nothing_else() {
        let pki = tempfile::tempdir().expect("a folder");
        let names = ["127.0.0.1".to_owned()];
        pgconvoy_proto::pki::init(pki.path(), &names, &names, 1).expect("a CA");
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .expect("a port");
        let falsifier = Falsifier::to(
            listener.local_addr().expect("its address").port(),
            pki.path(),
        )
        .expect("a falsifier");
        falsifier.arm(2);

        let big = vec![0_u8; BIG];
        let mut sent = vec![b'P'; PREFACE];
        for (kind, payload) in [
            (1, &big[..]),
            (DATA, &big),
            (DATA, b"small"),
            (DATA, &big),
            (DATA, &big),
        ] {
            sent.extend(frame(kind, payload));
        }
        let client = TlsConnector::from(Arc::new(client_config(pki.path()).expect("a client")));
        let server = TlsAcceptor::from(Arc::new(server_config(pki.path()).expect("a server")));
        let proxy = falsifier.port();
        let (length, outgoing) = (sent.len(), sent.clone());
        let mut arrived = runtime.block_on(async move {
            let sending = tokio::spawn(async move {
                let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy))
                    .await
                    .expect("a connection");
                let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
                let mut stream = client.connect(name, tcp).await.expect("TLS");
                stream
                    .write_all(&outgoing)
                    .await
                    .expect("everything is taken");
                stream.flush().await.expect("everything is taken");
                stream
            });
            let (tcp, _) = listener.accept().await.expect("a connection");
            let mut stream = server.accept(tcp).await.expect("TLS");
            let mut arrived = vec![0; length];
            stream
                .read_exact(&mut arrived)
                .await
                .expect("everything arrives");
            drop(sending.await);
            arrived
        });

        assert_eq!(falsifier.flipped(), 1);
        let third_big = sent.len() - 2 * (FRAME_HEADER + BIG);
        let flipped = third_big + FRAME_HEADER + BIG / 2;
        assert_eq!(arrived[flipped], 0b0001_0000);
        arrived[flipped] = 0;
        assert!(arrived == sent, "other bytes have changed too");
    }
}
