//! The private CA of one installation and the bundles it issues.
//!
//! Invariant: nothing is overwritten and nothing is half done. Keys and certificates are made in memory, written
//! under temporary names and put in place without replacing; what was put in place before a failure is taken away.
use std::fs::Permissions;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::DnsName;

use crate::identity::Role;

/// How long the CA lives; no certificate outlives it.
const AUTHORITY_DAYS: u32 = 3650;

/// Certificates are valid from a little before they are made: the clocks of two hosts differ.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(10);

const AUTHORITY: &str = "ca.pem";
const AUTHORITY_KEY: &str = "ca.key";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{} already holds a CA; nothing was changed. Its bundles remain valid: use them, or give another --dir, or move \
         the directory away (every bundle it issued must then be replaced)", .0.display()
    )]
    Exists(PathBuf),
    #[error("{} is in the way; nothing was changed. Give an empty --dir, or move the file away", .0.display())]
    InTheWay(PathBuf),
    #[error("`{0}` is neither a host name nor an IP address: give it without scheme, port or path")]
    BadName(String),
    #[error("the {} needs at least one name: --{role}-name HOST, as the other programs reach it", role.title())]
    NoName { role: Role },
    #[error("a certificate is valid for 1 to {AUTHORITY_DAYS} days, not {0}")]
    Days(u32),
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} holds no usable CA: {source}", dir.display())]
    Unusable { dir: PathBuf, source: rcgen::Error },
    #[error("could not make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// Makes a CA and one bundle per role in `dir`; returns the files in the order written.
pub fn init(
    dir: &Path,
    source: &[String],
    target: &[String],
    days: u32,
) -> Result<Vec<PathBuf>, Error> {
    refuse_existing(dir)?;
    if !(1..=AUTHORITY_DAYS).contains(&days) {
        return Err(Error::Days(days));
    }
    for (role, names) in [(Role::Source, source), (Role::Target, target)] {
        if names.is_empty() {
            return Err(Error::NoName { role });
        }
    }
    let authority = Authority::create()?;
    let from = Timestamp::now() - CLOCK_SKEW;
    let until = authority.not_after.min(from + CLOCK_SKEW + day_span(days));
    let bundle = |role, names| authority.issue(role, names, from, until);
    write_all(
        dir,
        &[
            File {
                name: bundle_name(Role::Source),
                mode: 0o600,
                text: bundle(Role::Source, source)?,
            },
            File {
                name: bundle_name(Role::Target),
                mode: 0o600,
                text: bundle(Role::Target, target)?,
            },
            File {
                name: bundle_name(Role::Coordinator),
                mode: 0o600,
                text: bundle(Role::Coordinator, &[])?,
            },
            File {
                name: AUTHORITY.into(),
                mode: 0o644,
                text: authority.certificate.clone(),
            },
            File {
                name: AUTHORITY_KEY.into(),
                mode: 0o600,
                text: authority.issuer.key().serialize_pem(),
            },
        ],
    )
}

/// A CA with its key: issues certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    not_after: Timestamp,
}

impl Authority {
    pub fn create() -> Result<Authority, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        // A name of its own: two CAs of one name would be told apart only by a bad signature, not as "another CA".
        let serial: String = key
            .public_key_raw()
            .iter()
            .skip(1)
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        params.distinguished_name = common_name(format!("pgconvoy CA {serial}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let not_after = Timestamp::now() + day_span(AUTHORITY_DAYS);
        set_validity(&mut params, Timestamp::now() - CLOCK_SKEW, not_after);
        let certificate = params.self_signed(&key)?.pem();
        Ok(Authority {
            issuer: Issuer::new(params, key),
            certificate,
            not_after,
        })
    }

    /// The CA that `init` left in `dir`.
    pub fn load(dir: &Path) -> Result<Authority, Error> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path).map_err(|source| Error::Io { path, source })
        };
        let unusable = |source| Error::Unusable {
            dir: dir.to_owned(),
            source,
        };
        let certificate = read(AUTHORITY)?;
        let key = KeyPair::from_pem(&read(AUTHORITY_KEY)?).map_err(unusable)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(unusable)?;
        let not_after =
            end_of(&certificate).ok_or_else(|| unusable(rcgen::Error::CouldNotParseCertificate))?;
        Ok(Authority {
            issuer,
            certificate,
            not_after,
        })
    }

    /// A new key and its certificate, as a bundle: certificate, CA certificate, private key, in PEM.
    pub fn issue(
        &self,
        role: Role,
        names: &[String],
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> Result<String, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(format!("pgconvoy {role}"));
        params.subject_alt_names = names
            .iter()
            .map(|name| subject_name(name))
            .collect::<Result<_, _>>()?;
        params
            .subject_alt_names
            .push(SanType::URI(Ia5String::try_from(role.uri())?));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match role {
            Role::Source | Role::Target => {
                vec![
                    ExtendedKeyUsagePurpose::ServerAuth,
                    ExtendedKeyUsagePurpose::ClientAuth,
                ]
            }
            Role::Coordinator => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, not_before, not_after);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(format!(
            "{}{}{}",
            certificate.pem(),
            self.certificate,
            key.serialize_pem()
        ))
    }
}

fn bundle_name(role: Role) -> String {
    format!("{role}.pem")
}

fn refuse_existing(dir: &Path) -> Result<(), Error> {
    if dir.join(AUTHORITY).exists() && dir.join(AUTHORITY_KEY).exists() {
        return Err(Error::Exists(dir.to_owned()));
    }
    let bundles = Role::ALL.map(bundle_name);
    let names = bundles
        .iter()
        .map(String::as_str)
        .chain([AUTHORITY, AUTHORITY_KEY]);
    // symlink_metadata, for a dangling link is in the way too.
    match names
        .map(|name| dir.join(name))
        .find(|path| path.symlink_metadata().is_ok())
    {
        Some(path) => Err(Error::InTheWay(path)),
        None => Ok(()),
    }
}

fn subject_name(name: &str) -> Result<SanType, Error> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    DnsName::try_from(name).map_err(|_| Error::BadName(name.to_owned()))?;
    Ok(SanType::DnsName(Ia5String::try_from(name)?))
}

fn common_name(name: String) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn set_validity(params: &mut CertificateParams, not_before: Timestamp, not_after: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch =
        |at: Timestamp| std::time::Duration::from_secs(at.as_second().try_into().unwrap_or(0));
    params.not_before = epoch + since_epoch(not_before);
    params.not_after = epoch + since_epoch(not_after);
}

fn day_span(days: u32) -> SignedDuration {
    SignedDuration::from_hours(24 * i64::from(days))
}

fn end_of(pem: &str) -> Option<Timestamp> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = block.parse_x509().ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

struct File {
    name: String,
    mode: u32,
    text: String,
}

fn write_all(dir: &Path, files: &[File]) -> Result<Vec<PathBuf>, Error> {
    let io = |path: &Path, source| Error::Io {
        path: path.to_owned(),
        source,
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| io(dir, source))?;
    let mut staged = Vec::new();
    for file in files {
        let path = dir.join(&file.name);
        let temporary = stage(dir, file).map_err(|source| io(&path, source))?;
        staged.push((temporary, path));
    }
    let mut placed: Vec<PathBuf> = Vec::new();
    for (temporary, path) in staged {
        if let Err(failed) = temporary.persist_noclobber(&path) {
            for path in &placed {
                let _ = std::fs::remove_file(path);
            }
            return Err(io(&path, failed.error));
        }
        placed.push(path);
    }
    Ok(placed)
}

fn stage(dir: &Path, file: &File) -> std::io::Result<tempfile::NamedTempFile> {
    let mut temporary = tempfile::Builder::new().prefix(".pki-").tempfile_in(dir)?;
    temporary.write_all(file.text.as_bytes())?;
    // The temporary file is born 0600 and may be less strict only now; the mode is set past the umask.
    temporary
        .as_file()
        .set_permissions(Permissions::from_mode(file.mode))?;
    temporary.as_file().sync_all()?;
    Ok(temporary)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::identity::Identity;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn entries(dir: &Path) -> Vec<String> {
        let mut found: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        found
    }

    #[test]
    fn init_writes_a_ca_and_three_bundles_for_the_owner_only() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("deep/pki");
        let files = init(
            &dir,
            &names(&["db.example.org", "10.1.2.3"]),
            &names(&["vps"]),
            825,
        )
        .unwrap();
        assert_eq!(files.len(), 5);
        assert_eq!(
            entries(&dir),
            [
                "ca.key",
                "ca.pem",
                "coordinator.pem",
                "source.pem",
                "target.pem"
            ]
        );
        for file in &files {
            let mode = file.metadata().unwrap().permissions().mode() & 0o777;
            let public = file.file_name().unwrap() == "ca.pem";
            assert_eq!(
                mode,
                if public { 0o644 } else { 0o600 },
                "{}",
                file.display()
            );
        }
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);

        let source = Identity::load(&dir.join("source.pem")).unwrap();
        assert_eq!(
            (source.role(), source.names()),
            (Role::Source, &names(&["db.example.org", "10.1.2.3"])[..])
        );
        let left = source.not_after().as_second() - Timestamp::now().as_second();
        assert_eq!((left + 60) / 86_400, 825);
        assert_eq!(
            Identity::load(&dir.join("coordinator.pem"))
                .unwrap()
                .names(),
            names(&[])
        );
        let error = Identity::load(&dir.join("ca.pem")).unwrap_err().to_string();
        assert!(error.contains("holds no private key"), "{error}");
    }

    #[test]
    fn a_directory_in_use_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), &names(&["s"]), &names(&["t"]), 10).unwrap();
        let before = std::fs::read(dir.path().join("source.pem")).unwrap();
        let error = init(dir.path(), &names(&["s"]), &names(&["t"]), 10).unwrap_err();
        assert!(matches!(error, Error::Exists(_)), "{error}");
        assert!(error.to_string().contains("another --dir"), "{error}");
        assert_eq!(
            std::fs::read(dir.path().join("source.pem")).unwrap(),
            before
        );

        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        let error = init(dir.path(), &names(&["s"]), &names(&["t"]), 10).unwrap_err();
        assert!(matches!(error, Error::InTheWay(_)), "{error}");
    }

    #[test]
    fn bad_input_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["https://db", "db:7400", "", "a b", "[::1]"] {
            let error = init(dir.path(), &names(&[bad]), &names(&["t"]), 10).unwrap_err();
            assert!(matches!(error, Error::BadName(_)), "{bad}: {error}");
        }
        let error = init(dir.path(), &[], &names(&["t"]), 10)
            .unwrap_err()
            .to_string();
        assert!(error.contains("--source-name"), "{error}");
        assert!(matches!(
            init(dir.path(), &names(&["s"]), &names(&["t"]), 0),
            Err(Error::Days(0))
        ));
        assert_eq!(entries(dir.path()), names(&[]));
    }

    #[test]
    fn a_loaded_authority_issues_bundles_that_its_ca_signs() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), &names(&["s"]), &names(&["t"]), 10).unwrap();
        let authority = Authority::load(dir.path()).unwrap();
        let now = Timestamp::now();
        let bundle = authority
            .issue(Role::Target, &names(&["u"]), now, now + day_span(1))
            .unwrap();
        assert!(bundle.contains(&std::fs::read_to_string(dir.path().join("ca.pem")).unwrap()));
        assert_eq!(bundle.matches("PRIVATE KEY").count(), 2);
        assert!(Authority::load(Path::new("/nonexistent")).is_err());
    }
}
