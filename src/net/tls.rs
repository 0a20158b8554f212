//! TLS 1.2 and 1.3: the server's, from a certificate chain and key in PEM files, HTTP/1.1 only; and what our clients trust.

use hyper_rustls::ConfigBuilderExt;
use rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{fmt, path::Path, sync::Arc};
use tokio_rustls::TlsAcceptor;

/// A client that trusts Mozilla's certificate authorities.
///
/// # Panics
/// Never: `ring` has the cipher suites of TLS 1.2 and 1.3.
pub fn client() -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_webpki_roots()
        .with_no_client_auth()
}

/// Why TLS could not be set up: which file, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// Loads a chain (leaf first) and its private key (PKCS#8, PKCS#1 or SEC1), both PEM.
pub fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| TlsError(format!("{}: no certificate could be read: {e}", cert.display())))?;
    if chain.is_empty() {
        return Err(TlsError(format!(
            "{}: holds no certificate; a PEM chain is expected",
            cert.display()
        )));
    }
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|e| TlsError(format!("{}: no private key could be read: {e}", key.display())))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|e| {
            TlsError(format!(
                "{} and {} do not fit together: {e}",
                cert.display(),
                key.display()
            ))
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// TLS that believes the certificates of a PEM file and no other.
pub fn client_of(file: &Path) -> Result<ClientConfig, TlsError> {
    let wrong = |e: &dyn fmt::Display| {
        TlsError(format!(
            "{}: no certificate to believe could be read: {e}",
            file.display()
        ))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| wrong(&e))? {
        roots.add(certificate.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
    }
    if roots.is_empty() {
        return Err(wrong(&"it holds none"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(&e))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
