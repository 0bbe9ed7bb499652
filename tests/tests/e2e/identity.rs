//! Who may speak to an agent: the other two roles of the same CA, each for its own calls, and nobody else.
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{Timestamp, ToSpan};
use pgconvoy_proto::channel;
use pgconvoy_proto::identity::{Identity, Role};
use pgconvoy_proto::pki::{self, Authority};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::source_client::SourceClient;
use pgconvoy_proto::wire::target_client::TargetClient;
use pgconvoy_tests::{PATIENCE, Pair, eventually};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

fn pair() -> Pair {
    Pair::new().expect("two servers and two agents")
}

/// `status` under another identity: refused with these words at the caller, and with those in the agent's log.
fn refused(pair: &Pair, bundle: &Path, at_the_caller: &str, at_the_agent: &str) {
    let before = pair.target_agent.log().len();
    let bundle = bundle.to_string_lossy();
    let status = pair
        .pgconvoy(&["status", "--identity", &bundle])
        .expect("status runs");
    assert_ne!(status.code, 0, "somebody was let in: {}", status.text());
    let status = status.says(at_the_caller);
    assert_eq!(status.code, 1, "refused is an error: {}", status.text());
    if !at_the_agent.is_empty() {
        eventually("the agent's log tells it too", PATIENCE, || {
            pair.target_agent.log()[before..].contains(at_the_agent)
        });
    }
}

fn issue(pair: &Pair, role: Role, not_before: Timestamp, not_after: Timestamp) -> PathBuf {
    let authority = Authority::load(&pair.pki()).expect("the CA");
    let bundle = authority
        .issue(role, &["127.0.0.1".to_owned()], not_before, not_after)
        .expect("a bundle");
    let path = pair.folder().join(format!("{role}-other.pem"));
    fs::write(&path, bundle).expect("the bundle is written");
    path
}

#[test]
fn the_coordinators_own_identity_is_let_in() {
    let pair = pair();
    // The counterpart of the refusals below: they do not fail for another reason.
    let status = pair.pgconvoy(&["preflight"]).expect("preflight runs");
    assert_eq!(status.code, 0, "{}", status.text());
}

#[test]
fn an_agents_bundle_does_not_command() {
    let pair = pair();
    refused(&pair, &pair.pki().join("source.pem"), "coordinator.pem", "");
}

#[test]
fn a_bundle_of_another_authority_is_refused() {
    let pair = pair();
    let foreign = pair.folder().join("foreign");
    let names = ["127.0.0.1".to_owned()];
    pki::init(&foreign, &names, &names, 30).expect("another CA");
    refused(&pair, &foreign.join("coordinator.pem"), "another CA", "");
}

#[test]
fn an_agent_tells_a_caller_of_another_authority_so() {
    let pair = pair();
    // It trusts our CA but shows a certificate of another.
    let foreign = pair.folder().join("foreign");
    let names = ["127.0.0.1".to_owned()];
    pki::init(&foreign, &names, &names, 30).expect("another CA");
    let theirs = fs::read_to_string(foreign.join("coordinator.pem")).expect("their bundle");
    let our_ca = fs::read_to_string(pair.pki().join("ca.pem")).expect("our CA");
    let their_ca = fs::read_to_string(foreign.join("ca.pem")).expect("their CA");
    let mixed = pair.folder().join("mixed.pem");
    fs::write(&mixed, theirs.replace(&their_ca, &our_ca)).expect("a mixed bundle");
    refused(&pair, &mixed, "refused our certificate", "another CA");
}

#[test]
fn an_expired_certificate_is_refused() {
    let pair = pair();
    let now = Timestamp::now();
    let expired = issue(&pair, Role::Coordinator, now - 48.hours(), now - 24.hours());
    refused(&pair, &expired, "expired", "expired");
}

#[test]
fn a_certificate_of_the_future_is_refused() {
    let pair = pair();
    let now = Timestamp::now();
    let future = issue(&pair, Role::Coordinator, now + 24.hours(), now + 48.hours());
    refused(&pair, &future, "refused our certificate", "clocks");
}

#[test]
fn a_bundle_without_a_certificate_of_its_own_is_refused() {
    let pair = pair();
    refused(&pair, &pair.pki().join("ca.pem"), "bundle", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_a_certificate_is_refused() {
    let pair = pair();
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(pair.pki().join("ca.pem")).expect("our CA");
    roots.add(ca).expect("our CA");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    for agent in [&pair.source_agent, &pair.target_agent] {
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", agent.port()))
            .await
            .expect("a connection");
        // In TLS 1.3 the client is done first: the refusal comes with what it reads next.
        let refusal = async {
            let mut stream = connector.connect(name.clone(), tcp).await?;
            stream
                .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                .await?;
            let mut answer = [0; 1];
            stream.read_exact(&mut answer).await
        };
        let refusal = refusal
            .await
            .expect_err("an agent speaks to somebody without a certificate")
            .to_string();
        assert!(refusal.contains("CertificateRequired"), "{refusal}");
        eventually("the agent's log tells it too", PATIENCE, || {
            agent.log().contains("presented no certificate")
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_does_not_command_the_other_agent() {
    let pair = pair();
    let load = |name: &str| Identity::load(&pair.pki().join(name)).expect("a bundle");
    let target =
        channel::connect(&pair.target_agent.url(), &load("source.pem"), Role::Target).await;
    let refusal = TargetClient::new(target.expect("the source agent may connect"))
        .clean(wire::CleanRequest::default())
        .await
        .expect_err("the source agent commands the target agent");
    assert_eq!(refusal.code(), tonic::Code::PermissionDenied);
    assert!(refusal.message().contains("coordinator"), "{refusal}");

    let source =
        channel::connect(&pair.source_agent.url(), &load("target.pem"), Role::Source).await;
    let refusal = SourceClient::new(source.expect("the target agent may connect"))
        .open_snapshot(wire::OpenSnapshotRequest::default())
        .await
        .expect_err("the target agent commands the source agent");
    assert_eq!(refusal.code(), tonic::Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_source_agent_pushes_rows() {
    let pair = pair();
    let coordinator = Identity::load(&pair.pki().join("coordinator.pem")).expect("a bundle");
    let channel = channel::connect(&pair.target_agent.url(), &coordinator, Role::Target).await;
    let refusal = TargetClient::new(channel.expect("the coordinator may connect"))
        .load_part(tokio_stream_of_nothing())
        .await
        .expect_err("the coordinator pushes rows");
    assert_eq!(refusal.code(), tonic::Code::PermissionDenied);
    assert!(refusal.message().contains("source agent"), "{refusal}");
}

/// A stream that ends at once.
fn tokio_stream_of_nothing() -> impl tonic::IntoStreamingRequest<Message = wire::PartFrame> {
    tonic::codegen::tokio_stream::empty()
}

#[test]
fn one_agent_in_the_place_of_the_other_is_recognised() {
    let pair = pair();
    let source = pair.source_agent.url();
    pair.pgconvoy(&["preflight", "--target", &source])
        .expect("preflight runs")
        .expect(1)
        .says("source agent");
}
