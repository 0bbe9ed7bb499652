//! Real handshakes on loopback, with the health service behind them: who is let in, and what both ends say otherwise.
#![allow(clippy::unwrap_used)]
use std::net::SocketAddr;
use std::sync::Mutex;

use jiff::ToSpan;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::service::Routes;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::identity::Peer;
use crate::pki::Authority;
use crate::serve::{admit, serve};

fn identity_between(ca: &Authority, role: Role, from: i64, until: i64) -> Identity {
    let names = match role {
        Role::Coordinator => vec![],
        _ => vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
    };
    let now = Timestamp::now();
    let bundle = ca
        .issue(role, &names, now + from.hours(), now + until.hours())
        .unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bundle).unwrap();
    Identity::load(file.path()).unwrap()
}

fn identity(ca: &Authority, role: Role) -> Identity {
    identity_between(ca, role, -1, 24)
}

/// Warnings of this test's thread: both ends of a connection run on it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut *self.0.lock().unwrap(), bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn watch() -> (Log, tracing::subscriber::DefaultGuard) {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// Waits for a warning: the server logs after the client has its answer.
    async fn expect(&self, part: &str) {
        for _ in 0..200 {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            if text.contains(part) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "no warning `{part}` in: {}",
            String::from_utf8_lossy(&self.0.lock().unwrap())
        );
    }
}

struct Agent {
    address: SocketAddr,
    peers: Arc<Mutex<Vec<Peer>>>,
    stop: CancellationToken,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl Agent {
    async fn start(identity: &Identity) -> Agent {
        Agent::start_at(
            identity,
            "127.0.0.1:0".parse().unwrap(),
            Duration::from_millis(200),
        )
        .await
    }

    /// A health service whose every call admits the coordinator only.
    async fn start_at(identity: &Identity, address: SocketAddr, drain: Duration) -> Agent {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let peers = Arc::new(Mutex::new(Vec::new()));
        let seen = peers.clone();
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter
            .set_service_status("agent", tonic_health::ServingStatus::Serving)
            .await;
        let guarded = tonic::service::interceptor::InterceptedService::new(
            health,
            move |request: Request<()>| {
                let peer = admit(&request, &[Role::Coordinator])?;
                seen.lock().unwrap().push(peer);
                Ok(request)
            },
        );
        let (identity, stop) = (identity.clone(), CancellationToken::new());
        let stopped = stop.clone();
        let serving = tokio::spawn(async move {
            let _reporter = reporter;
            serve(listener, &identity, Routes::new(guarded), stopped, drain).await
        });
        Agent {
            address,
            peers,
            stop,
            serving,
        }
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(Duration::from_secs(5), self.serving)
            .await
            .expect("serve returns")
            .unwrap()
            .unwrap();
    }
}

async fn check(channel: &Channel) -> Result<(), Status> {
    let request = HealthCheckRequest {
        service: "agent".into(),
    };
    HealthClient::new(channel.clone())
        .check(request)
        .await
        .map(|_| ())
}

async fn refused(address: &str, identity: &Identity, expect: Role) -> String {
    connect(address, identity, expect)
        .await
        .unwrap_err()
        .to_string()
}

#[tokio::test]
async fn the_right_roles_meet_and_the_server_knows_its_peer() {
    let ca = Authority::create().unwrap();
    let agent = Agent::start(&identity(&ca, Role::Source)).await;
    let coordinator = identity(&ca, Role::Coordinator);
    for address in [
        agent.url(),
        agent.address.to_string(),
        format!("https://localhost:{}/", agent.address.port()),
    ] {
        let channel = connect(&address, &coordinator, Role::Source).await.unwrap();
        check(&channel).await.unwrap();
    }
    let peers = agent.peers.lock().unwrap().clone();
    assert_eq!(peers.len(), 3);
    assert!(
        peers
            .iter()
            .all(|peer| peer.role == Role::Coordinator && peer.address.ip() == agent.address.ip())
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_call_that_is_not_for_the_callers_role_is_denied() {
    let ca = Authority::create().unwrap();
    let agent = Agent::start(&identity(&ca, Role::Target)).await;
    let channel = connect(&agent.url(), &identity(&ca, Role::Source), Role::Target)
        .await
        .unwrap();
    let status = check(&channel).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    assert_eq!(
        status.message(),
        "this call admits the coordinator only; the certificate presented is the source agent's"
    );
    assert_eq!(
        explain(&status),
        None,
        "an answer of the agent is no failure of the connection"
    );
}

#[tokio::test]
async fn an_agent_of_another_role_is_not_taken_for_the_expected_one() {
    let ca = Authority::create().unwrap();
    let (log, _guard) = Log::watch();
    let agent = Agent::start(&identity(&ca, Role::Target)).await;
    let message = refused(
        &agent.url(),
        &identity(&ca, Role::Coordinator),
        Role::Source,
    )
    .await;
    assert_eq!(
        message,
        format!("{} is a target agent, not the source", agent.url())
    );
    log.expect("it refused this agent's certificate").await;

    let impostor = Agent::start(&identity(&ca, Role::Coordinator)).await;
    let message = refused(&impostor.url(), &identity(&ca, Role::Source), Role::Target).await;
    assert_eq!(
        message,
        format!("{} is a coordinator, not the target", impostor.url())
    );
}

#[tokio::test]
async fn a_foreign_ca_is_told_at_both_ends() {
    let (ours, theirs) = (Authority::create().unwrap(), Authority::create().unwrap());
    let (log, _guard) = Log::watch();
    let agent = Agent::start(&identity(&ours, Role::Source)).await;
    let message = refused(
        &agent.url(),
        &identity(&theirs, Role::Coordinator),
        Role::Source,
    )
    .await;
    assert!(
        message.contains("was issued by another CA than ours"),
        "{message}"
    );
    log.expect("it refused this agent's certificate (UnknownCA)")
        .await;
}

/// A client that trusts the server's CA, with a certificate of another one: only the server can refuse.
#[tokio::test]
async fn a_certificate_of_a_foreign_ca_is_refused_by_the_server() {
    let (ours, theirs) = (Authority::create().unwrap(), Authority::create().unwrap());
    let (log, _guard) = Log::watch();
    let agent = Agent::start(&identity(&ours, Role::Source)).await;
    let message = handshake_with(
        &agent,
        &identity(&ours, Role::Target),
        Some(&identity(&theirs, Role::Target)),
    )
    .await;
    let reason = "refused our certificate: it was issued by another CA than the agent's";
    assert!(message.contains(reason), "{message}");
    log.expect("refused: its certificate was issued by another CA")
        .await;
}

#[tokio::test]
async fn an_expired_certificate_is_told_at_both_ends() {
    let ca = Authority::create().unwrap();
    let (log, _guard) = Log::watch();
    let coordinator = identity(&ca, Role::Coordinator);
    let agent = Agent::start(&identity(&ca, Role::Source)).await;
    let expired = identity_between(&ca, Role::Coordinator, -200, -100);
    let message = refused(&agent.url(), &expired, Role::Source).await;
    assert!(
        message.contains("refused our certificate: it has expired"),
        "{message}"
    );
    let date = expired.not_after().strftime("%Y-%m-%d").to_string();
    log.expect(&format!("refused: its certificate expired on {date}"))
        .await;

    let old = Agent::start(&identity_between(&ca, Role::Source, -200, -100)).await;
    let message = refused(&old.url(), &coordinator, Role::Source).await;
    assert_eq!(
        message,
        format!(
            "the certificate of {} expired on {date}: issue new bundles and restart the agent",
            old.url()
        )
    );
    let early = Agent::start(&identity_between(&ca, Role::Source, 10, 20)).await;
    let message = refused(&early.url(), &coordinator, Role::Source).await;
    assert!(
        message.contains("is not valid yet: compare the clocks"),
        "{message}"
    );
}

/// The handshake of [`Dialer`] with another client certificate than the identity's, or with none.
async fn handshake_with(agent: &Agent, trust: &Identity, present: Option<&Identity>) -> String {
    let mut dialer = Dialer::new(&agent.url(), trust, Role::Source).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(
            tls::RoleVerifier::new(trust, Role::Source).unwrap(),
        ));
    let mut config = match present {
        Some(other) => config
            .with_client_auth_cert(vec![other.certificate()], other.key())
            .unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    dialer.tls = TlsConnector::from(Arc::new(config));
    dialer.dial().await.unwrap_err().to_string()
}

#[tokio::test]
async fn without_a_certificate_nobody_is_let_in() {
    let ca = Authority::create().unwrap();
    let (log, _guard) = Log::watch();
    let agent = Agent::start(&identity(&ca, Role::Source)).await;
    let message = handshake_with(&agent, &identity(&ca, Role::Coordinator), None).await;
    assert!(
        message.contains("refused our certificate: none was presented"),
        "{message}"
    );
    log.expect("refused: it presented no certificate").await;
}

#[tokio::test]
async fn a_wrong_host_name_is_told_with_the_right_ones() {
    let ca = Authority::create().unwrap();
    let now = Timestamp::now();
    let bundle = ca.issue(
        Role::Source,
        &["db.example.org".into(), "10.9.8.7".into()],
        now - 1.hour(),
        now + 1.hour(),
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bundle.unwrap()).unwrap();
    let agent = Agent::start(&Identity::load(file.path()).unwrap()).await;
    let coordinator = identity(&ca, Role::Coordinator);
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("https://{host}:{}", agent.address.port());
        let message = refused(&url, &coordinator, Role::Source).await;
        let names = "(it is valid for db.example.org, 10.9.8.7)";
        assert!(
            message.contains(&format!("is not valid for the name {host} {names}")),
            "{message}"
        );
    }
}

#[tokio::test]
async fn what_is_no_agent_is_told_as_such() {
    let ca = Authority::create().unwrap();
    let coordinator = identity(&ca, Role::Coordinator);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let web = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    });
    let message = refused(&url, &coordinator, Role::Source).await;
    assert_eq!(
        message,
        format!("{url} is not an agent of pgconvoy: it does not speak TLS")
    );
    web.await.unwrap();
    let message = refused(&url, &coordinator, Role::Source).await;
    assert_eq!(
        message,
        format!("connection refused: is the agent running at {url}?")
    );
    let message = refused("https://no-such-host.invalid:1", &coordinator, Role::Source).await;
    assert!(
        message.starts_with("cannot resolve the host name of https://no-such-host.invalid:1"),
        "{message}"
    );
}

#[tokio::test]
async fn a_server_survives_strangers() {
    let ca = Authority::create().unwrap();
    let (log, _guard) = Log::watch();
    let agent = Agent::start(&identity(&ca, Role::Source)).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(agent.address).await.unwrap());
    }
    let mut plain = TcpStream::connect(agent.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    log.expect("it does not speak TLS").await;
    let channel = connect(
        &agent.url(),
        &identity(&ca, Role::Coordinator),
        Role::Source,
    )
    .await
    .unwrap();
    check(&channel).await.unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn addresses_are_checked_before_anything_is_sent() {
    let ca = Authority::create().unwrap();
    let coordinator = identity(&ca, Role::Coordinator);
    for (address, part) in [
        ("http://h:1", "pgconvoy speaks TLS only"),
        ("ftp://h:1", "its scheme is not https"),
        ("h", "it has no port"),
        ("https://h:1/path", "it has more than host and port"),
        ("https://u:p@h:1", "it has more than host and port"),
        ("https://h h:1", "it cannot be parsed"),
        ("", "give https://HOST:PORT"),
        ("https://-:1", "its host is no valid name"),
    ] {
        let message = refused(address, &coordinator, Role::Source).await;
        assert!(message.contains(part), "{address}: {message}");
    }
    assert_eq!(
        Dialer::new("[::1]:7", &coordinator, Role::Source)
            .unwrap()
            .host,
        "::1"
    );
}

#[tokio::test]
async fn a_channel_finds_a_restarted_agent_again() {
    let ca = Authority::create().unwrap();
    let source = identity(&ca, Role::Source);
    let agent = Agent::start(&source).await;
    let (address, url) = (agent.address, agent.url());
    let channel = connect(&url, &identity(&ca, Role::Coordinator), Role::Source)
        .await
        .unwrap();
    check(&channel).await.unwrap();
    agent.stop().await;
    let told = loop {
        let status = check(&channel).await.unwrap_err();
        let told = explain(&status).unwrap_or_else(|| panic!("{status:?}"));
        if !told.contains("broke") {
            break told;
        }
    };
    assert_eq!(
        told,
        format!("connection refused: is the agent running at {url}?")
    );

    let agent = Agent::start_at(&source, address, Duration::ZERO).await;
    check(&channel).await.unwrap();
    agent.stop().await;

    // Another agent has taken the port: a reconnection verifies the role as the first connection did.
    let _other = Agent::start_at(&identity(&ca, Role::Target), address, Duration::ZERO).await;
    let told = loop {
        let told = explain(&check(&channel).await.unwrap_err()).unwrap();
        if !told.contains("broke") {
            break told;
        }
    };
    assert_eq!(told, format!("{url} is a target agent, not the source"));
}

#[tokio::test]
async fn stopping_ends_open_streams_after_the_drain() {
    let ca = Authority::create().unwrap();
    let (log, _guard) = Log::watch();
    let agent = Agent::start(&identity(&ca, Role::Source)).await;
    let channel = connect(
        &agent.url(),
        &identity(&ca, Role::Coordinator),
        Role::Source,
    )
    .await
    .unwrap();
    let request = HealthCheckRequest {
        service: "agent".into(),
    };
    let mut stream = HealthClient::new(channel)
        .watch(request)
        .await
        .unwrap()
        .into_inner();
    stream.message().await.unwrap().unwrap();
    agent.stop().await;
    log.expect("calls were still open").await;
    let status = timeout(Duration::from_secs(5), stream.message())
        .await
        .expect("the stream ends")
        .unwrap_err();
    let told = explain(&status).unwrap_or_else(|| panic!("{status:?}"));
    assert!(
        told.starts_with("the connection to the agent broke: "),
        "{told}"
    );
}

#[test]
fn a_refusal_is_recognised_however_it_is_wrapped() {
    let alert = || rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
    let wrapped: [Box<dyn StdError + Send + Sync>; 4] = [
        Box::new(io::Error::new(io::ErrorKind::InvalidData, alert())),
        Box::new(io::Error::other(io::Error::new(
            io::ErrorKind::InvalidData,
            alert(),
        ))),
        // Below HTTP/2 the cause is kept as text.
        Box::new(io::Error::new(
            io::ErrorKind::InvalidData,
            alert().to_string(),
        )),
        Box::new(Error::CertificateRefused {
            address: "the agent".into(),
            reason: REFUSALS[0].1,
        }),
    ];
    for error in wrapped {
        let shown = format!("{error:?}");
        let told = explain(&Status::from_error(error)).expect(&shown);
        assert_eq!(
            told,
            "the agent refused our certificate: none was presented; give a bundle with --identity"
        );
    }
    assert_eq!(explain(&Status::not_found("no such table")), None);
}
