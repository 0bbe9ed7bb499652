//! TLS with the Storage API: certificates that the system trusts (SSL_CERT_FILE and SSL_CERT_DIR say otherwise). A host without any can still
//! speak plain HTTP.
use std::sync::Arc;

use anyhow::Context;
use rustls::{ClientConfig, RootCertStore};

pub fn config() -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS for the Storage API")?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}
