//! What is checked about the server's certificate, as libpq checks it.
//!
//! Two things rustls alone would refuse are common with PostgreSQL, whose manual produces them: a self-signed
//! certificate that is its own authority (accepted when it is exactly the one in sslrootcert), and a certificate
//! that names its host in the subject's common name only (looked at when there is no alternative name).

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::db::rfc4519::CN;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Encrypt only: anybody in between could be the other end.
    Nothing,
    Chain,
    ChainAndName,
}

#[derive(Debug)]
pub(super) struct Verifier {
    check: Check,
    roots: RootCertStore,
    /// Certificates that may be presented by the server itself.
    pinned: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(
        check: Check,
        roots: RootCertStore,
        pinned: Vec<CertificateDer<'static>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self {
            check,
            roots,
            pinned,
            algorithms,
        }
    }

    fn verify_chain(
        &self,
        certificate: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if self
            .pinned
            .iter()
            .any(|pinned| pinned.as_ref() == certificate.as_ref())
        {
            return verify_dates(certificate, now);
        }
        let checked = verify_server_cert_signed_by_trust_anchor(
            parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        );
        // webpki stops at the CA flag that most self-signed certificates have; what is wrong is their issuer.
        if checked.is_err() && is_self_signed(certificate)? {
            return Err(CertificateError::UnknownIssuer.into());
        }
        checked
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.check != Check::Nothing {
            let parsed = ParsedCertificate::try_from(certificate)?;
            self.verify_chain(certificate, &parsed, intermediates, now)?;
            if self.check == Check::ChainAndName {
                verify_name(certificate, &parsed, name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.check {
            // A signature under a certificate that nobody checked proves nothing, and the check would shut out
            // servers with X.509 version 1 certificates, which libpq's `require` accepts.
            Check::Nothing => Ok(HandshakeSignatureValid::assertion()),
            _ => verify_tls12_signature(message, certificate, signed, &self.algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.check {
            Check::Nothing => Ok(HandshakeSignatureValid::assertion()),
            _ => verify_tls13_signature(message, certificate, signed, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn parse(certificate: &CertificateDer<'_>) -> Result<Certificate, Error> {
    Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding.into())
}

fn is_self_signed(certificate: &CertificateDer<'_>) -> Result<bool, Error> {
    let inside = parse(certificate)?.tbs_certificate;
    Ok(inside.issuer == inside.subject)
}

/// A pinned certificate is not walked by the chain check, so its dates are looked at here.
fn verify_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let validity = parse(certificate)?.tbs_certificate.validity;
    let at = |time: x509_cert::time::Time| UnixTime::since_unix_epoch(time.to_unix_duration());
    let (not_before, not_after) = (at(validity.not_before), at(validity.not_after));
    if now < not_before {
        return Err(CertificateError::NotValidYetContext {
            time: now,
            not_before,
        }
        .into());
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext {
            time: now,
            not_after,
        }
        .into());
    }
    Ok(())
}

fn verify_name(
    certificate: &CertificateDer<'_>,
    parsed: &ParsedCertificate<'_>,
    name: &ServerName<'_>,
) -> Result<(), Error> {
    match verify_server_name(parsed, name) {
        Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            presented,
            expected,
        })) if presented.is_empty() => {
            let common = common_names(certificate)?;
            if common
                .iter()
                .any(|common| matches_host(common, &name.to_str()))
            {
                return Ok(());
            }
            Err(CertificateError::NotValidForNameContext {
                presented: common,
                expected,
            }
            .into())
        }
        other => other,
    }
}

fn common_names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, Error> {
    let subject = parse(certificate)?.tbs_certificate.subject;
    let attributes = subject.0.iter().flat_map(|relative| relative.0.iter());
    Ok(attributes
        .filter(|attribute| attribute.oid == CN)
        .filter_map(|attribute| String::from_utf8(attribute.value.value().to_vec()).ok())
        .collect())
}

/// libpq's rule: equal without regard to case, or a leading `*.` that stands for one label.
fn matches_host(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    match (pattern.strip_prefix("*."), host.split_once('.')) {
        (Some(domain), Some((label, rest))) => {
            !domain.is_empty() && !label.is_empty() && domain.eq_ignore_ascii_case(rest)
        }
        _ => false,
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustls::pki_types::pem::PemObject;

    /// Self-signed, CN=localhost, no alternative name, valid from 2020 to 2120.
    pub const LOCALHOST_PEM: &str = "\
-----BEGIN CERTIFICATE-----
MIIBSzCB8aADAgECAgEBMAoGCCqGSM49BAMCMBQxEjAQBgNVBAMMCWxvY2FsaG9z
dDAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEwMTAwMDAwMFowFDESMBAGA1UEAwwJ
bG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE9cq/AYl2ndEEz4M+
YBLg/zdYgjNrX8DI0ZLgRmR+58bQWnZ/JMpdKlttE0Nqrng/6N5zZCS++zoY+TVY
h6bYL6MyMDAwDwYDVR0TAQH/BAUwAwEB/zAdBgNVHQ4EFgQUsXNC1AQboRzThKXk
tZ9YQvWmoMcwCgYIKoZIzj0EAwIDSQAwRgIhAM80adDGgh4Q2WVZB8BNXIcxbZfj
fMpj2SgzwrpmLQCxAiEAh5Z16yp/WOXAnOZWeoUVemyKyIK43JwTLF1oyKEJhJ4=
-----END CERTIFICATE-----";

    fn verify(check: Check, roots: &str, name: &str) -> Result<(), Error> {
        let certificate = CertificateDer::from_pem_slice(LOCALHOST_PEM.as_bytes()).unwrap();
        let pinned: Vec<_> = CertificateDer::pem_slice_iter(roots.as_bytes())
            .map(Result::unwrap)
            .collect();
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(pinned.iter().cloned());
        let algorithms =
            rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        let name = ServerName::try_from(name).unwrap();
        Verifier::new(check, store, pinned, algorithms)
            .verify_server_cert(&certificate, &[], &name, &[], UnixTime::now())
            .map(|_| ())
    }

    #[test]
    fn a_self_signed_certificate_is_accepted_when_it_is_the_one_given() {
        assert!(verify(Check::Chain, LOCALHOST_PEM, "elsewhere").is_ok());
        let unknown = Error::from(CertificateError::UnknownIssuer);
        assert_eq!(verify(Check::Chain, "", "localhost"), Err(unknown));
        assert!(verify(Check::Nothing, "", "elsewhere").is_ok());
    }

    #[test]
    fn the_common_name_counts_when_there_is_no_other_name() {
        assert!(verify(Check::ChainAndName, LOCALHOST_PEM, "localhost").is_ok());
        let error = verify(Check::ChainAndName, LOCALHOST_PEM, "elsewhere")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("elsewhere") && error.contains("localhost"),
            "{error}"
        );
    }

    #[test]
    fn dates_of_a_pinned_certificate_are_checked() {
        let certificate = CertificateDer::from_pem_slice(LOCALHOST_PEM.as_bytes()).unwrap();
        let early = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1));
        assert!(verify_dates(&certificate, early).is_err());
        assert!(verify_dates(&certificate, UnixTime::now()).is_ok());
    }

    #[test]
    fn wildcards_stand_for_one_label() {
        assert!(matches_host("*.Example.org", "db.example.org"));
        assert!(!matches_host("*.example.org", "a.b.example.org"));
        assert!(!matches_host("*.example.org", "example.org"));
        assert!(!matches_host("*", "localhost"));
        assert!(!matches_host("*.", "localhost."));
    }
}
