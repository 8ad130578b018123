//! Configures TLS: rustls with ring, session tickets, ALPN, version 1.2 or later.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::{ServerConfig, version};
use tokio_rustls::TlsAcceptor;

use super::certificates::{CertificateError, Certificates};

/// The TLS acceptor of one listener. All workers share `tickets`, so a session of one worker can be
/// resumed at another.
pub(super) fn acceptor(
    certificates: &Arc<Certificates>,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<TlsAcceptor, CertificateError> {
    let versions: &[_] = if certificates.tls12() {
        &[&version::TLS13, &version::TLS12]
    } else {
        &[&version::TLS13]
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(certificates.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Viewers store their sessions in tickets; storing them here too would waste memory.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = tickets.clone();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Creates the issuer and reader of session tickets.
pub(super) fn tickets() -> Result<Arc<dyn ProducesTickets>, CertificateError> {
    Ok(ring::Ticketer::new()?)
}
