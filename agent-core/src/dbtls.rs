//! TLS to the database: libpq's sslmode words on top of rustls, with the aws-lc-rs provider, TLS 1.2 and 1.3.
//!
//! Credentials stay home: a mode that checks certificates never falls back to one that does not, and what our own
//! sessions check is what pg_dump and pg_restore are told to check.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

mod verify;

use verify::{Check, Verifier};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "sslmode \"{0}\" is not known: use disable, allow, prefer, require, verify-ca or verify-full"
    )]
    Mode(String),
    #[error(
        "sslrootcert=system trusts every public CA, so only sslmode=verify-full proves anything with it: use that"
    )]
    WeakWithSystem,
    #[error(
        "sslnegotiation=direct needs TLS, which sslmode={0} does not: use require, verify-ca or verify-full"
    )]
    WeakWithDirect(&'static str),
    #[error("cannot read {what} {}: {reason}: give a PEM file", path.display())]
    Pem {
        what: &'static str,
        path: PathBuf,
        reason: String,
    },
    #[error(
        "this machine has no list of public CAs ({0}): install ca-certificates, or give sslrootcert=FILE"
    )]
    NoSystemRoots(String),
    #[error("the client certificate {} and its key do not work together: {reason}", path.display())]
    ClientCertificate { path: PathBuf, reason: String },
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Disable,
    /// Plain first, TLS when the server insists.
    Allow,
    /// TLS when the server has it, plain otherwise: libpq's default.
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

impl FromStr for Mode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        use Mode::{Allow, Disable, Prefer, Require, VerifyCa, VerifyFull};
        [Disable, Allow, Prefer, Require, VerifyCa, VerifyFull]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| Error::Mode(text.to_owned()))
    }
}

/// Without it a server refuses TLS from the first byte (PostgreSQL manual, "SSL Session Encryption" in "Message Flow").
const ALPN: &[u8] = b"postgresql";

/// Which authorities may have signed the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// The operating system's list of public CAs.
    System,
    File(PathBuf),
}

/// How to speak TLS with one database. Made once: certificates are read when the agent starts, so that a wrong path
/// shows then.
#[derive(Clone)]
pub struct Settings {
    pub mode: Mode,
    /// `None` where no certificate is checked.
    pub roots: Option<Roots>,
    /// Client certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// TLS from the first byte (`sslnegotiation=direct`).
    pub direct: bool,
    connector: MakeRustlsConnect,
}

impl Settings {
    /// Applies libpq's rules. `home` is where `.postgresql/root.crt` and `.postgresql/postgresql.crt` may be.
    pub fn new(
        mode: Option<&str>,
        rootcert: Option<&str>,
        identity: (Option<&str>, Option<&str>),
        direct: bool,
        home: Option<&Path>,
    ) -> Result<Self, Error> {
        let system = rootcert == Some("system");
        let mode = match mode {
            Some(text) => text.parse()?,
            None if system => Mode::VerifyFull,
            None => Mode::Prefer,
        };
        if system && mode != Mode::VerifyFull {
            return Err(Error::WeakWithSystem);
        }
        if direct && matches!(mode, Mode::Disable | Mode::Allow | Mode::Prefer) {
            return Err(Error::WeakWithDirect(mode.as_str()));
        }
        let default_file =
            |name: &str| Some(home?.join(".postgresql").join(name)).filter(|path| path.exists());
        let root_file = rootcert
            .map(PathBuf::from)
            .or_else(|| default_file("root.crt"));
        let roots = match (mode, root_file) {
            (Mode::Disable | Mode::Allow | Mode::Prefer, _) | (Mode::Require, None) => None,
            (Mode::VerifyCa | Mode::VerifyFull, None) => Some(Roots::System),
            (_, Some(_)) if system => Some(Roots::System),
            (_, Some(file)) => Some(Roots::File(file)),
        };
        let certificate = identity
            .0
            .map(PathBuf::from)
            .or_else(|| default_file("postgresql.crt"));
        let key = identity
            .1
            .map(PathBuf::from)
            .or_else(|| default_file("postgresql.key"));
        let identity = certificate.zip(key).filter(|_| mode != Mode::Disable);
        let check = match (mode, &roots) {
            (_, None) => Check::Nothing,
            (Mode::VerifyFull, _) => Check::ChainAndName,
            // `require` with a root certificate behaves like `verify-ca`, as libpq has it.
            _ => Check::Chain,
        };
        let mut config = client_config(check, roots.as_ref(), identity.as_ref())?;
        if direct {
            config.alpn_protocols = vec![ALPN.to_vec()];
        }
        Ok(Self {
            mode,
            roots,
            identity,
            direct,
            connector: MakeRustlsConnect::new(config),
        })
    }

    pub fn connector(&self) -> MakeRustlsConnect {
        self.connector.clone()
    }
}

fn client_config(
    check: Check,
    roots: Option<&Roots>,
    identity: Option<&(PathBuf, PathBuf)>,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificates = match roots {
        None => Vec::new(),
        Some(Roots::System) => system_roots()?,
        Some(Roots::File(path)) => certificates("sslrootcert", path)?,
    };
    let mut store = RootCertStore::empty();
    let (_, unusable) = store.add_parsable_certificates(certificates.iter().cloned());
    if let (Some(Roots::File(path)), true) = (roots, store.is_empty()) {
        let reason = format!("none of its {unusable} certificates can be used as an authority");
        return Err(Error::Pem {
            what: "sslrootcert",
            path: path.clone(),
            reason,
        });
    }
    let pinned = if matches!(roots, Some(Roots::File(_))) {
        certificates
    } else {
        Vec::new()
    };
    let verifier = Verifier::new(
        check,
        store,
        pinned,
        provider.signature_verification_algorithms,
    );
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let Some((certificate, key)) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates_of_client(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| pem("sslkey", key, &error))?;
    builder
        .with_client_auth_cert(chain, private)
        .map_err(|error| Error::ClientCertificate {
            path: certificate.clone(),
            reason: error.to_string(),
        })
}

fn certificates_of_client(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    certificates("sslcert", path)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| pem(what, path, &error))?;
    if found.is_empty() {
        return Err(Error::Pem {
            what,
            path: path.to_owned(),
            reason: "it holds no certificate".into(),
        });
    }
    Ok(found)
}

fn pem(what: &'static str, path: &Path, error: &rustls::pki_types::pem::Error) -> Error {
    Error::Pem {
        what,
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>, Error> {
    let loaded = rustls_native_certs::load_native_certs();
    if loaded.certs.is_empty() {
        let reasons: Vec<_> = loaded.errors.iter().map(ToString::to_string).collect();
        return Err(Error::NoSystemRoots(reasons.join("; ")));
    }
    for error in &loaded.errors {
        tracing::warn!(%error, "a public CA could not be read");
    }
    Ok(loaded.certs)
}

/// The operating system's public CAs as one PEM file: libpq before 16 does not know `sslrootcert=system`.
pub fn system_roots_pem() -> Result<String, Error> {
    use base64::Engine as _;
    let mut text = String::new();
    for certificate in system_roots()? {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = base64::engine::general_purpose::STANDARD.encode(&certificate);
        for line in encoded.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    Ok(text)
}

/// What went wrong in a handshake, and what to do about it. `cause`: nothing where the server has no TLS.
pub(crate) fn explain(cause: Option<&io::Error>, reason: &str) -> (String, &'static str) {
    let inner = cause.and_then(io::Error::get_ref);
    let mut reason = reason.to_owned();
    let remedy = match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(problem)) => match problem {
            CertificateError::UnknownIssuer => {
                "give the CA that signed the server's certificate (or that certificate itself) as sslrootcert=FILE"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "connect by a name that is in the certificate, or use sslmode=verify-ca with your own CA"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "renew the server's certificate"
            }
            CertificateError::Other(problem) => {
                reason = format!("the server's certificate is not usable ({problem})");
                "it must be an X.509 version 3 certificate of a server, not of a CA"
            }
            _ => "look at the server's certificate (ssl_cert_file)",
        },
        Some(rustls::Error::AlertReceived(_)) => {
            "the server ended the handshake: its log has the reason; it may want a client certificate (sslcert, sslkey)"
        }
        _ if reason.contains("does not support TLS") => {
            "set ssl = on at the server, or use sslmode=disable"
        }
        _ => "is this PostgreSQL, and not a proxy that expects TLS from the first byte?",
    };
    (reason, remedy)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings(mode: Option<&str>, root: Option<&str>) -> Result<Settings, Error> {
        Settings::new(mode, root, (None, None), false, None)
    }

    #[test]
    fn the_default_is_prefer_and_checks_nothing() {
        let settings = settings(None, None).unwrap();
        assert_eq!((settings.mode, settings.roots), (Mode::Prefer, None));
    }

    #[test]
    fn system_roots_demand_verify_full() {
        assert!(matches!(
            settings(Some("require"), Some("system")),
            Err(Error::WeakWithSystem)
        ));
        if system_roots().is_ok() {
            let settings = settings(None, Some("system")).unwrap();
            assert_eq!(
                (settings.mode, settings.roots),
                (Mode::VerifyFull, Some(Roots::System))
            );
        }
    }

    #[test]
    fn unknown_modes_and_unusable_files_are_errors() {
        assert!(
            settings(Some("on"), None)
                .err()
                .unwrap()
                .to_string()
                .contains("verify-full")
        );
        let missing = settings(Some("verify-ca"), Some("/nonexistent/root.crt"));
        assert!(
            missing
                .err()
                .unwrap()
                .to_string()
                .contains("/nonexistent/root.crt")
        );
        let empty = tempfile::NamedTempFile::new().unwrap();
        let path = empty.path().to_str().unwrap();
        assert!(
            settings(Some("require"), Some(path))
                .err()
                .unwrap()
                .to_string()
                .contains("no certificate")
        );
        // As in libpq, a file that nobody looks into need not be there.
        assert!(settings(Some("prefer"), Some("/nonexistent/root.crt")).is_ok());
    }

    #[test]
    fn the_root_certificate_in_the_home_directory_turns_require_into_verify_ca() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(".postgresql/root.crt");
        std::fs::create_dir(file.parent().unwrap()).unwrap();
        std::fs::write(&file, verify::tests::LOCALHOST_PEM).unwrap();
        let settings = Settings::new(
            Some("require"),
            None,
            (None, None),
            false,
            Some(home.path()),
        )
        .unwrap();
        assert_eq!(settings.roots, Some(Roots::File(file)));
    }
}
