//! The TLS that every connection speaks: 1.3 only, one provider, both ends authenticated by the CA of the bundle.
//!
//! Invariant: a connection exists only after both certificates were verified for *this* connection. Sessions are not
//! resumed, for a resumed one would outlive the certificate it began with.
use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    RootCertStore, ServerConfig, SignatureScheme, version,
};

use crate::identity::{Identity, Role, RoleError, names_of, role_of};

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The server's end: admits any certificate of the CA that is fit for a client. Roles are looked at per call.
pub(crate) fn server_config(identity: &Identity) -> Result<ServerConfig, Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(identity)?, provider())
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate()], identity.key())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The client's end: admits a server of the CA whose name and role are the expected ones.
pub(crate) fn client_config(identity: &Identity, expect: Role) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(RoleVerifier::new(identity, expect)?))
        .with_client_auth_cert(vec![identity.certificate()], identity.key())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn roots(identity: &Identity) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(identity.authority())?;
    Ok(Arc::new(roots))
}

/// The server's certificate names a role that the caller did not ask for.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the certificate is the {}'s", .presented.title())]
pub(crate) struct WrongRole {
    pub presented: Role,
}

/// The usual verification of chain, dates and name, and then the role.
#[derive(Debug)]
pub(crate) struct RoleVerifier {
    inner: Arc<WebPkiServerVerifier>,
    expect: Role,
}

impl RoleVerifier {
    pub(crate) fn new(identity: &Identity, expect: Role) -> Result<RoleVerifier, Error> {
        let inner = WebPkiServerVerifier::builder_with_provider(roots(identity)?, provider())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(RoleVerifier { inner, expect })
    }

    fn check_role(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        match role_of(certificate) {
            Ok(presented) if presented == self.expect => Ok(()),
            Ok(presented) => Err(other(WrongRole { presented })),
            Err(error) => Err(other(error)),
        }
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

impl ServerCertVerifier for RoleVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // A certificate unfit for servers is a coordinator's: saying so helps more.
            Err(Error::InvalidCertificate(
                CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
            )) => self.check_role(end_entity)?,
            // The names as an operator writes them, instead of the verifier's own notation.
            Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                expected,
                ..
            })) => {
                let presented = names_of(end_entity).unwrap_or_default();
                return Err(CertificateError::NotValidForNameContext {
                    expected,
                    presented,
                }
                .into());
            }
            Err(_) => {}
            Ok(_) => self.check_role(end_entity)?,
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.inner.root_hint_subjects()
    }
}

/// What is wrong with a certificate that we refused, whichever of rustls's variants says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    OtherAuthority,
    Expired(Option<Timestamp>),
    NotYetValid(Option<Timestamp>),
    WrongName(Vec<String>),
    WrongRole(Role),
    NoRole,
}

impl Fault {
    pub(crate) fn of(error: &Error) -> Option<Fault> {
        let Error::InvalidCertificate(error) = error else {
            return None;
        };
        match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Some(Fault::OtherAuthority)
            }
            CertificateError::Expired => Some(Fault::Expired(None)),
            CertificateError::ExpiredContext { not_after, .. } => {
                Some(Fault::Expired(timestamp(*not_after)))
            }
            CertificateError::NotValidYet => Some(Fault::NotYetValid(None)),
            CertificateError::NotValidYetContext { not_before, .. } => {
                Some(Fault::NotYetValid(timestamp(*not_before)))
            }
            CertificateError::NotValidForName => Some(Fault::WrongName(Vec::new())),
            CertificateError::NotValidForNameContext { presented, .. } => {
                Some(Fault::WrongName(presented.clone()))
            }
            CertificateError::Other(OtherError(error)) => match error.downcast_ref::<WrongRole>() {
                Some(wrong) => Some(Fault::WrongRole(wrong.presented)),
                None => error.downcast_ref::<RoleError>().map(|_| Fault::NoRole),
            },
            _ => None,
        }
    }
}

fn timestamp(time: UnixTime) -> Option<Timestamp> {
    Timestamp::from_second(time.as_secs().try_into().ok()?).ok()
}

/// " on 2026-01-31", or nothing when the date is not known.
pub(crate) fn on_date(at: Option<Timestamp>) -> String {
    at.map(|at| format!(" on {}", at.strftime("%Y-%m-%d")))
        .unwrap_or_default()
}
