//! Configures TLS: rustls with ring, session tickets, ALPN, version 1.2 or later, and viewers'
//! certificates.

use std::io;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::{ServerConfig, ServerConnection, version};
use tokio_rustls::TlsAcceptor;

use super::certificate_error::CertificateError;
use super::certificates::Certificates;
use super::sniffing_stream::WRITE_BYTES_MAX;
use super::stats::ConnectionEvent;

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
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(versions)?;
    let builder = match certificates.viewer_verifier() {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
    };
    let mut config = builder.with_cert_resolver(certificates.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Viewers store their sessions in tickets; storing them here too would waste memory.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if certificates.viewer_verifier().is_none() {
        config.ticketer = tickets.clone();
    } else {
        // A resumed session has the certificate of before: it could have expired, or its authority
        // could be gone.
        config.send_tls13_tickets = 0;
    }
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Creates the issuer and reader of session tickets.
pub(super) fn tickets() -> Result<Arc<dyn ProducesTickets>, CertificateError> {
    Ok(ring::Ticketer::new()?)
}

/// How a failed handshake is counted.
pub(super) fn failure_event(failure: &io::Error) -> ConnectionEvent {
    let source = failure.get_ref();
    match source.and_then(|source| source.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::NoCertificatesPresented) => ConnectionEvent::CertificateMissing,
        Some(rustls::Error::InvalidCertificate(_)) => ConnectionEvent::CertificateInvalid,
        _ => ConnectionEvent::HandshakeFailed,
    }
}

/// Makes a session encrypt as much at once as one packet holds. It does so again when the socket
/// has taken all of it.
pub(super) fn limit_writes(session: &mut ServerConnection) {
    session.set_buffer_limit(Some(WRITE_BYTES_MAX));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::IoSlice;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use parking_lot::Mutex;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
    use tokio::io::{
        AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
    };
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;

    use crate::frontend::connection::serve_tls;
    use crate::frontend::connection_state::ConnectionState;
    use crate::frontend::sniffing_stream::Transport;
    use crate::frontend::test_support::{CertificateDirectory, RequestRecords, context_with_body};
    use crate::frontend::{Limits, Tls};
    use crate::proxy::ResponseBody;

    const LARGE: usize = 1 << 20;

    /// The least that the kernel sends as one packet: seven segments of an MTU of 9,000 over IPv6.
    const PACKET_BYTES_MIN: usize = 7 * (9000 - 40 - 32);

    /// A transport that notes how many bytes each write has.
    struct Counting(DuplexStream, Arc<Mutex<Vec<usize>>>);

    impl Transport for Counting {}

    impl AsyncRead for Counting {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Counting {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.1.lock().push(bytes.len());
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let lengths = slices.iter().map(|slice| slice.len());
            self.1.lock().push(lengths.sum());
            Pin::new(&mut self.0).poll_write_vectored(cx, slices)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    /// A viewer of 1 MiB from memory, and the lengths of the writes to its socket. The socket takes
    /// everything at once.
    async fn connect(
        version: &'static SupportedProtocolVersion,
    ) -> (TlsStream<DuplexStream>, Arc<Mutex<Vec<usize>>>) {
        let directory = CertificateDirectory::new();
        let certificates = Certificates::load(&Tls {
            certificates: vec![directory.make("a", &["a.example"])],
            tls12: true,
            client: None,
        });
        let acceptor = acceptor(&certificates.unwrap(), &tickets().unwrap()).unwrap();
        let (viewer, transport) = duplex(2 * LARGE);
        let writes = Arc::default();
        let transport = Counting(transport, Arc::clone(&writes));
        let records = RequestRecords::default();
        let context = context_with_body(Limits::default(), &records, || {
            ResponseBody::Whole(Some(Bytes::from(vec![7; LARGE])))
        });
        let connection = Arc::new(ConnectionState::new(records.recorder(), None, true, None));
        tokio::spawn(serve_tls(context, transport, connection, acceptor));
        let mut roots = RootCertStore::empty();
        roots.add(directory.certificate("a")).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("a.example").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        (connector.connect(name, viewer).await.unwrap(), writes)
    }

    #[tokio::test]
    async fn sends_a_large_body_with_one_write_per_packet() {
        for version in rustls::ALL_VERSIONS {
            let (mut viewer, writes) = connect(version).await;
            let request = b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n";
            viewer.write_all(request).await.unwrap();
            let mut body = vec![0; LARGE];
            viewer.read_exact(&mut body).await.unwrap();
            let writes: Vec<_> = writes.lock().drain(..).filter(|&n| n > 4096).collect();
            let packets = LARGE.div_ceil(WRITE_BYTES_MAX);
            assert_eq!(writes.len(), packets, "{version:?}: {writes:?}");
            let longest = writes.iter().copied().max();
            assert!(longest <= Some(PACKET_BYTES_MIN), "{version:?}: {writes:?}");
        }
    }
}
