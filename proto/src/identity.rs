//! Who a process is: one role, proven by the certificate of its bundle file.
//!
//! Invariant: a role is read from the certificate alone, by [`role_of`], and by nothing else: a name, an address or a
//! message never makes a peer a source, a target or a coordinator. A private key is never printed.
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls;

/// What a certificate entitles its holder to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The agent beside the source database: reads, and pushes rows to the target agent.
    Source,
    /// The agent beside the target database: loads.
    Target,
    /// The operator's program: commands both agents, serves nobody.
    Coordinator,
}

const ROLE_URI: &str = "pgconvoy://role/";

impl Role {
    pub const ALL: [Role; 3] = [Role::Source, Role::Target, Role::Coordinator];

    /// The URI that the certificate carries as a subject alternative name.
    pub fn uri(self) -> String {
        format!("{ROLE_URI}{self}")
    }

    /// The program that runs under this role.
    pub fn program(self) -> &'static str {
        match self {
            Role::Source => "pgconvoy-source",
            Role::Target => "pgconvoy-target",
            Role::Coordinator => "pgconvoy",
        }
    }

    /// The role as a noun: "source agent".
    pub fn title(self) -> &'static str {
        match self {
            Role::Source => "source agent",
            Role::Target => "target agent",
            Role::Coordinator => "coordinator",
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Target => "target",
            Role::Coordinator => "coordinator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no role of pgconvoy: source, target or coordinator")]
pub struct UnknownRole(pub String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Role, UnknownRole> {
        Role::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// Why a certificate names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    #[error("it cannot be parsed")]
    Malformed,
    #[error("it names no pgconvoy role")]
    None,
    #[error("it names more than one pgconvoy role")]
    Several,
    #[error(transparent)]
    Unknown(#[from] UnknownRole),
}

/// The role in a certificate. Says nothing of who issued it: the handshake has to have verified that.
pub fn role_of(certificate: &CertificateDer<'_>) -> Result<Role, RoleError> {
    let parsed = webpki::EndEntityCert::try_from(certificate).map_err(|_| RoleError::Malformed)?;
    let mut roles = parsed
        .valid_uri_names()
        .filter_map(|uri| uri.strip_prefix(ROLE_URI));
    let role = roles.next().ok_or(RoleError::None)?.parse()?;
    match roles.next() {
        None => Ok(role),
        Some(_) => Err(RoleError::Several),
    }
}

/// The other end of a connection that the server has admitted.
#[derive(Debug, Clone)]
pub struct Peer {
    pub role: Role,
    pub address: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot read the identity bundle {}: {source}; name the bundle that `pgconvoy pki init` wrote with --identity \
         (or PGCONVOY_IDENTITY)", path.display()
    )]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "{} holds no private key; --identity needs a bundle (source.pem, target.pem or coordinator.pem) written by \
         `pgconvoy pki init`", .0.display()
    )]
    NoKey(PathBuf),
    #[error(
        "{} is not a pgconvoy identity bundle: {reason}; --identity needs a file written by `pgconvoy pki init`",
        path.display()
    )]
    NotBundle { path: PathBuf, reason: String },
    #[error(
        "{}: {role}; it was written by another version of pgconvoy: issue the bundles again with this one",
        path.display()
    )]
    UnknownRole { path: PathBuf, role: UnknownRole },
    #[error("{} is the {have}'s bundle; {} needs {need}.pem", path.display(), need.program())]
    WrongRole {
        path: PathBuf,
        have: Role,
        need: Role,
    },
}

/// A bundle file: the certificate of this process, its private key, and the CA that it trusts in others.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    path: PathBuf,
    role: Role,
    names: Vec<String>,
    not_after: Timestamp,
    certificate: CertificateDer<'static>,
    authority: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads a bundle. An expired certificate loads: it is the peer that refuses it, and tells both ends.
    pub fn load(path: &Path) -> Result<Identity, Error> {
        let text = std::fs::read(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        warn_if_shared(path);
        Identity::from_pem(path, &text)
    }

    fn from_pem(path: &Path, text: &[u8]) -> Result<Identity, Error> {
        let not_bundle = |reason: String| Error::NotBundle {
            path: path.to_owned(),
            reason,
        };
        let certificates = CertificateDer::pem_slice_iter(text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| not_bundle(format!("damaged PEM ({error})")))?;
        let key = match PrivateKeyDer::pem_slice_iter(text).next() {
            Some(key) => key.map_err(|_| not_bundle("its private key is damaged".into()))?,
            None if certificates.is_empty() => {
                return Err(not_bundle("it holds no PEM certificate".into()));
            }
            None => return Err(Error::NoKey(path.to_owned())),
        };
        let [certificate, authority] = <[_; 2]>::try_from(certificates).map_err(|found| {
            not_bundle(format!(
                "it holds {} certificates, not one and its CA",
                found.len()
            ))
        })?;
        let role = role_of(&certificate).map_err(|error| match error {
            RoleError::Unknown(role) => Error::UnknownRole {
                path: path.to_owned(),
                role,
            },
            error => not_bundle(format!("its first certificate is not ours, {error}")),
        })?;
        CertifiedKey::from_der(vec![certificate.clone()], key.clone_key(), &tls::provider())
            .map_err(|error| {
                not_bundle(format!(
                    "key and certificate do not belong together ({error})"
                ))
            })?;
        let (Some(names), Some(not_after)) = (names_of(&certificate), end_of(&certificate)) else {
            return Err(not_bundle("its certificate cannot be parsed".into()));
        };
        Ok(Identity(Arc::new(Inner {
            path: path.to_owned(),
            role,
            names,
            not_after,
            certificate,
            authority,
            key,
        })))
    }

    /// Passes an identity of that role through and refuses another: each program runs under its own.
    pub fn require(self, need: Role) -> Result<Identity, Error> {
        match self.role() {
            have if have == need => Ok(self),
            have => Err(Error::WrongRole {
                path: self.0.path.clone(),
                have,
                need,
            }),
        }
    }

    pub fn role(&self) -> Role {
        self.0.role
    }

    /// The host names and addresses that the certificate is valid for; none for a coordinator.
    pub fn names(&self) -> &[String] {
        &self.0.names
    }

    pub fn not_after(&self) -> Timestamp {
        self.0.not_after
    }

    pub fn expired(&self) -> bool {
        self.not_after() < Timestamp::now()
    }

    /// For people: "source (vps.example.org, until 2027-11-22)".
    pub fn describe(&self) -> String {
        let until = if self.expired() { "expired" } else { "until" };
        let mut parts = self.0.names.clone();
        parts.push(format!("{until} {}", self.not_after().strftime("%Y-%m-%d")));
        format!("{} ({})", self.role(), parts.join(", "))
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.0.certificate.clone()
    }

    pub(crate) fn authority(&self) -> CertificateDer<'static> {
        self.0.authority.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.0.key.clone_key()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("path", &self.0.path)
            .field("role", &self.0.role)
            .field("names", &self.0.names)
            .field("not_after", &self.0.not_after)
            .finish_non_exhaustive()
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(certificate)
        .ok()
        .map(|(_, parsed)| parsed)
}

fn end_of(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    Timestamp::from_second(parse(certificate)?.validity().not_after.timestamp()).ok()
}

/// The host names and addresses in a certificate.
pub(crate) fn names_of(certificate: &CertificateDer<'_>) -> Option<Vec<String>> {
    let parsed = parse(certificate)?;
    let names = parsed.subject_alternative_name().ok()??;
    Some(
        names
            .value
            .general_names
            .iter()
            .filter_map(host_name)
            .collect(),
    )
}

fn host_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => match octets.len() {
            4 => <[u8; 4]>::try_from(*octets)
                .ok()
                .map(|v4| IpAddr::from(v4).to_string()),
            _ => <[u8; 16]>::try_from(*octets)
                .ok()
                .map(|v6| IpAddr::from(v6).to_string()),
        },
        _ => None,
    }
}

/// A warning and no refusal: a bundle mounted as a container secret has the mode that its platform chose.
fn warn_if_shared(path: &Path) {
    let Ok(metadata) = std::fs::metadata(path) else {
        return;
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o044 != 0 {
        tracing::warn!(
            "{} holds a private key and others may read it (mode {mode:04o}): chmod 600 {}",
            path.display(),
            path.display()
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pki::Authority;
    use jiff::ToSpan;

    fn bundle(role: Role, names: &[&str], days: i64) -> String {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let end = Timestamp::now() + (days * 24).hours();
        Authority::create()
            .unwrap()
            .issue(role, &names, end - 10_000.hours(), end)
            .unwrap()
    }

    fn load(text: &str) -> Result<Identity, Error> {
        Identity::from_pem(Path::new("x.pem"), text.as_bytes())
    }

    #[test]
    fn a_bundle_tells_its_role_names_and_end() {
        let identity = load(&bundle(
            Role::Source,
            &["vps.example.org", "10.0.0.7", "::1"],
            30,
        ))
        .unwrap();
        assert_eq!(identity.role(), Role::Source);
        assert_eq!(identity.names(), ["vps.example.org", "10.0.0.7", "::1"]);
        assert!(!identity.expired());
        let date = identity.not_after().strftime("%Y-%m-%d").to_string();
        assert_eq!(
            identity.describe(),
            format!("source (vps.example.org, 10.0.0.7, ::1, until {date})")
        );
    }

    #[test]
    fn an_expired_bundle_loads_and_says_so() {
        let identity = load(&bundle(Role::Coordinator, &[], -2)).unwrap();
        assert!(identity.expired());
        assert!(
            identity.describe().starts_with("coordinator (expired 2"),
            "{}",
            identity.describe()
        );
    }

    #[test]
    fn another_programs_bundle_is_refused_by_name() {
        let identity = load(&bundle(Role::Target, &["t"], 1)).unwrap();
        let error = identity
            .clone()
            .require(Role::Source)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "x.pem is the target's bundle; pgconvoy-source needs source.pem"
        );
        assert!(identity.require(Role::Target).is_ok());
    }

    #[test]
    fn debug_output_holds_no_key() {
        let text = bundle(Role::Source, &["s"], 1);
        let shown = format!("{:?}", load(&text).unwrap());
        assert!(
            shown.contains("Source") && !shown.contains("key"),
            "{shown}"
        );
    }

    #[test]
    fn what_is_no_bundle_is_said_plainly() {
        let missing = Identity::load(Path::new("/nonexistent/source.pem"))
            .unwrap_err()
            .to_string();
        assert!(
            missing.contains("/nonexistent/source.pem") && missing.contains("--identity"),
            "{missing}"
        );

        let text = bundle(Role::Source, &["s"], 1);
        let key_at = text.find("-----BEGIN PRIVATE KEY").unwrap();
        let no_key = load(&text[..key_at]).unwrap_err();
        assert!(matches!(no_key, Error::NoKey(_)), "{no_key}");
        assert!(
            load("hello")
                .unwrap_err()
                .to_string()
                .contains("holds no PEM certificate")
        );

        let other = bundle(Role::Source, &["s"], 1);
        let swapped = format!(
            "{}{}",
            &text[..key_at],
            &other[other.find("-----BEGIN PRIVATE KEY").unwrap()..]
        );
        assert!(
            load(&swapped)
                .unwrap_err()
                .to_string()
                .contains("do not belong together")
        );
    }

    #[test]
    fn roles_round_trip() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert_eq!("admin".parse::<Role>(), Err(UnknownRole("admin".into())));
        assert_eq!(Role::Source.uri(), "pgconvoy://role/source");
    }
}
