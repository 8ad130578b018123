//! How is TLS spoken? rustls with ring, named explicitly; tickets, ALPN, nothing older than 1.2.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::{ServerConfig, version};
use tokio_rustls::TlsAcceptor;

use super::certificates::{CertificateError, Certificates};

/// What shakes hands on one listener. `tickets` is shared by all workers, so that a session begun
/// with one can be resumed with another.
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
    // Sessions live in the viewers' tickets; storing them here too would be memory for nothing.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = tickets.clone();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Makes and reads session tickets.
pub(super) fn tickets() -> Result<Arc<dyn ProducesTickets>, CertificateError> {
    Ok(ring::Ticketer::new()?)
}
