//! How the connections of a listener begin: whether behind a proxy, and with TLS or without. A
//! reload replaces it for new connections.

use std::sync::Arc;

use rustls::server::ProducesTickets;
use tokio_rustls::TlsAcceptor;

use super::certificates::Certificates;
use super::client_certificates::Authorities;
use super::listen::{BindError, load_certificates};
use super::{Listener, tls};
use seawall_policy::access_rules::AddressList;

/// The settings of a listener.
pub(super) struct ListenerSettings {
    listener: Listener,
    certificates: Option<Arc<Certificates>>,
    acceptor: Option<TlsAcceptor>,
}

impl ListenerSettings {
    /// The settings of a listener with these certificates.
    pub(super) fn new(
        listener: Listener,
        certificates: Option<Arc<Certificates>>,
        tickets: &Arc<dyn ProducesTickets>,
    ) -> Result<ListenerSettings, BindError> {
        let acceptor = certificates.as_ref();
        let acceptor = acceptor.map(|certificates| tls::acceptor(certificates, tickets));
        let acceptor = acceptor.transpose();
        Ok(ListenerSettings {
            acceptor: acceptor.map_err(|source| BindError::tls(&listener, source))?,
            listener,
            certificates,
        })
    }

    /// What these settings become by other ones in the file: the same if nothing has changed there.
    pub(super) fn succeed(
        self: &Arc<Self>,
        listener: &Listener,
        tickets: &Arc<dyn ProducesTickets>,
    ) -> Result<Arc<ListenerSettings>, BindError> {
        if self.listener == *listener {
            return Ok(Arc::clone(self));
        }
        // Certificates that stay are watched already.
        let certificates = if self.listener.tls == listener.tls {
            self.certificates.clone()
        } else {
            load_certificates(listener)?
        };
        ListenerSettings::new(listener.clone(), certificates, tickets).map(Arc::new)
    }

    pub(super) fn listener(&self) -> &Listener {
        &self.listener
    }

    pub(super) fn certificates(&self) -> Option<&Arc<Certificates>> {
        self.certificates.as_ref()
    }

    pub(super) fn acceptor(&self) -> Option<&TlsAcceptor> {
        self.acceptor.as_ref()
    }

    /// Who vouches for viewers. `None`: they are not asked for certificates.
    pub(super) fn authorities(&self) -> Option<Arc<Authorities>> {
        let verifier = self.certificates.as_ref()?.viewer_verifier()?;
        Some(verifier.authorities())
    }

    /// Whether viewers are verified by the same files and in the same way.
    pub(super) fn verifies_viewers_as(&self, other: &ListenerSettings) -> bool {
        let verifier = |settings: &ListenerSettings| {
            let certificates = settings.certificates.as_ref()?;
            certificates.viewer_verifier().map(Arc::as_ptr)
        };
        verifier(self) == verifier(other)
    }

    /// The proxies that may connect, if connections begin with a header of the PROXY protocol.
    pub(super) fn proxies(&self) -> Option<&AddressList> {
        self.listener.proxy_protocol.as_ref()
    }
}
