//! TLS for outgoing connections: rustls with ring, certificates checked against the system's roots and those
//! that the operator adds.
//!
//! The cryptography provider is handed to the configuration itself, so nothing depends on, sets, or trips over
//! the process-wide default. There is no switch that turns verification off.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::SetupError;

/// Which certificate authorities are believed.
#[derive(Debug, Clone)]
pub struct Roots {
    /// Take the roots of the operating system (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured).
    pub system: bool,
    /// More roots as PEM, for an authority of the house. Unreadable text is an error at start.
    pub extra_pem: Vec<u8>,
}

impl Default for Roots {
    fn default() -> Self {
        Self { system: true, extra_pem: Vec::new() }
    }
}

pub(crate) fn client_config(roots: &Roots) -> Result<Arc<rustls::ClientConfig>, SetupError> {
    let mut store = rustls::RootCertStore::empty();
    if roots.system {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::warn!(%error, "a system certificate could not be read");
        }
        store.add_parsable_certificates(loaded.certs);
    }
    for certificate in CertificateDer::pem_slice_iter(&roots.extra_pem) {
        let certificate = certificate.map_err(|error| SetupError::RootsUnreadable(error.to_string()))?;
        store.add(certificate).map_err(SetupError::Tls)?;
    }
    let given = !roots.extra_pem.iter().all(u8::is_ascii_whitespace);
    if given && CertificateDer::pem_slice_iter(&roots.extra_pem).next().is_none() {
        return Err(SetupError::RootsUnreadable("it holds no certificate".to_owned()));
    }
    if store.is_empty() {
        // Not an error: an installation may speak plain HTTP to its own house only. Every TLS handshake fails.
        tracing::warn!("no root certificates: no https destination can be reached");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(SetupError::Tls)?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_roots_that_cannot_be_read_stop_the_start() {
        let broken: &[&[u8]] = &[
            b"not a certificate",
            b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n",
        ];
        for pem in broken {
            let roots = Roots { system: false, extra_pem: pem.to_vec() };
            assert!(client_config(&roots).is_err(), "{}", String::from_utf8_lossy(pem));
        }
        assert!(client_config(&Roots { system: false, extra_pem: b"\n".to_vec() }).is_ok());
        // A machine without any certificates starts as well; it just reaches nobody over TLS.
        assert!(client_config(&Roots::default()).is_ok());
    }

    #[test]
    fn a_process_default_provider_is_neither_needed_nor_set() {
        let roots = Roots { system: false, extra_pem: Vec::new() };
        client_config(&roots).unwrap();
        assert!(rustls::crypto::CryptoProvider::get_default().is_none());
        rustls::crypto::ring::default_provider().install_default().unwrap();
        client_config(&roots).unwrap();
    }
}
