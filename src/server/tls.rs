//! TLS, by rustls with ring.

use std::io;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

use super::error::ServerError;
use super::options::TlsFiles;
use super::patient::PatientStream;

/// A certificate and its key, ready for connections.
pub(super) struct TlsSetup(TlsAcceptor);

impl TlsSetup {
    pub(super) fn new(files: &TlsFiles) -> Result<Self, ServerError> {
        let wrong = |reason: String| ServerError::Tls { reason };
        let certificates: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(&files.certificates).collect();
        let certificates = certificates.map_err(|error| wrong(error.to_string()))?;
        if certificates.is_empty() {
            return Err(wrong("there is no certificate".into()));
        }
        let key = PrivateKeyDer::from_pem_slice(&files.key);
        let key = key.map_err(|error| wrong(format!("the key: {error}")))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|it| it.with_no_client_auth().with_single_cert(certificates, key));
        let mut config = config.map_err(|error| wrong(error.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands with a client.
    pub(super) async fn accept(
        &self,
        stream: PatientStream,
    ) -> io::Result<TlsStream<PatientStream>> {
        self.0.accept(stream).await
    }
}
