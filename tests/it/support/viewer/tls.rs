//! A TLS viewer, with the scenario's own certificates.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{H2Viewer, Viewer};
use crate::support::patience::within;

/// A certificate for one name, its key, and their files.
pub struct Identity {
    name: String,
    certificate: CertificateDer<'static>,
    /// The chain as PEM.
    pub certificate_file: PathBuf,
    /// The key as PEM.
    pub key_file: PathBuf,
}

impl Identity {
    /// Creates a self-signed certificate for `name` and writes it to `folder`.
    pub fn new(name: &str, folder: &Path) -> Identity {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        let certificate_file = folder.join(format!("{name}.crt"));
        let key_file = folder.join(format!("{name}.key"));
        std::fs::write(&certificate_file, made.cert.pem()).expect("a writable folder");
        std::fs::write(&key_file, made.signing_key.serialize_pem()).expect("a writable folder");
        Identity {
            name: name.to_owned(),
            certificate: made.cert.der().clone(),
            certificate_file,
            key_file,
        }
    }
}

/// A viewer's own certificate, with its key.
pub struct ClientIdentity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl ClientIdentity {
    /// The key is in PKCS #8.
    pub fn new(certificate: CertificateDer<'static>, key: &[u8]) -> ClientIdentity {
        let key = PrivatePkcs8KeyDer::from(key.to_vec()).into();
        ClientIdentity { certificate, key }
    }
}

impl Clone for ClientIdentity {
    fn clone(&self) -> ClientIdentity {
        ClientIdentity {
            certificate: self.certificate.clone(),
            key: self.key.clone_key(),
        }
    }
}

/// A viewer that is about to connect over TLS and trusts exactly one certificate.
pub struct TlsViewer<'a> {
    address: SocketAddr,
    identity: &'a Identity,
    versions: Vec<&'static SupportedProtocolVersion>,
    proxy_header: Vec<u8>,
    client: Option<ClientIdentity>,
    /// Set if sessions are kept: with its first connection.
    kept: Option<OnceLock<ClientConfig>>,
}

impl<'a> TlsViewer<'a> {
    /// Requests the certificate's name and accepts that certificate only.
    pub fn new_trusting(address: SocketAddr, identity: &'a Identity) -> TlsViewer<'a> {
        TlsViewer {
            address,
            identity,
            versions: rustls::ALL_VERSIONS.to_vec(),
            proxy_header: Vec::new(),
            client: None,
            kept: None,
        }
    }

    /// Offers only this version.
    #[must_use]
    pub fn with_version(mut self, version: &'static SupportedProtocolVersion) -> TlsViewer<'a> {
        self.versions = vec![version];
        self
    }

    /// Begins the connection with what a proxy writes before TLS.
    #[must_use]
    pub fn with_proxy_header(mut self, header: &[u8]) -> TlsViewer<'a> {
        self.proxy_header = header.to_vec();
        self
    }

    /// Shows a certificate of its own.
    #[must_use]
    pub fn with_certificate(mut self, client: ClientIdentity) -> TlsViewer<'a> {
        self.client = Some(client);
        self
    }

    /// Keeps its sessions, and tries to resume the last one when it connects again.
    #[must_use]
    pub fn keeping_sessions(mut self) -> TlsViewer<'a> {
        self.kept = Some(OnceLock::new());
        self
    }

    /// Whether the shield ends the connection instead of answering. In TLS 1.3 the viewer learns
    /// it after its own handshake.
    pub async fn is_refused(&self) -> bool {
        let Ok((mut stream, _)) = self.try_connect(&[b"http/1.1"]).await else {
            return true;
        };
        let request = b"GET /is-refused HTTP/1.1\r\nHost: media.test\r\n\r\n";
        let answer = async {
            stream.write_all(request).await?;
            stream.read(&mut [0; 1]).await
        };
        !matches!(within("an answer or the end", answer).await, Ok(1))
    }

    /// Connects and offers only HTTP/1.1.
    pub async fn h1(&self) -> Viewer {
        let (stream, _) = self.connect(&[b"http/1.1"]).await;
        Viewer::over(stream)
    }

    /// The same, and whether the shield has resumed a session.
    pub async fn h1_and_resumed(&self) -> (Viewer, bool) {
        let (stream, _) = self.connect(&[b"http/1.1"]).await;
        let handshake = stream.get_ref().1.handshake_kind();
        let is_resumed = handshake == Some(HandshakeKind::Resumed);
        (Viewer::over(stream), is_resumed)
    }

    /// Connects and offers only HTTP/1.1, for raw bytes.
    pub async fn h1_wire(&self) -> TlsStream<TcpStream> {
        self.connect(&[b"http/1.1"]).await.0
    }

    /// Connects and offers only HTTP/2, for raw frames.
    pub async fn h2_wire(&self) -> TlsStream<TcpStream> {
        self.connect(&[b"h2"]).await.0
    }

    /// Connects, offers both, and uses HTTP/2, which the shield must have chosen.
    pub async fn h2(&self) -> H2Viewer {
        let (stream, chosen) = self.connect(&[b"h2", b"http/1.1"]).await;
        assert_eq!(chosen.as_deref(), Some(&b"h2"[..]), "ALPN");
        H2Viewer::over(stream, "https").await
    }

    async fn connect(&self, offered: &[&[u8]]) -> (TlsStream<TcpStream>, Option<Vec<u8>>) {
        let connected = self.try_connect(offered).await;
        connected.expect("a trusted certificate")
    }

    async fn try_connect(
        &self,
        offered: &[&[u8]],
    ) -> io::Result<(TlsStream<TcpStream>, Option<Vec<u8>>)> {
        let mut config = match &self.kept {
            None => self.config(),
            Some(kept) => kept.get_or_init(|| self.config()).clone(),
        };
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        let stream = within("a connection", TcpStream::connect(self.address)).await;
        let mut stream = stream.expect("the shield accepts viewers");
        let sent = within("room for a header", stream.write_all(&self.proxy_header)).await;
        sent.expect("the shield reads it");
        let name = ServerName::try_from(self.identity.name.clone()).expect("a host name");
        let hands = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let stream = within("a TLS handshake", hands).await?;
        let chosen = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        Ok((stream, chosen))
    }

    fn config(&self) -> ClientConfig {
        let mut trusted = RootCertStore::empty();
        trusted
            .add(self.identity.certificate.clone())
            .expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .expect("known versions")
            .with_root_certificates(trusted);
        match self.client.clone() {
            None => builder.with_no_client_auth(),
            Some(ClientIdentity { certificate, key }) => builder
                .with_client_auth_cert(vec![certificate], key)
                .expect("a certificate with its key"),
        }
    }
}
