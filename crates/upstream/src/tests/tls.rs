//! The origin's certificate is verified, and HTTP/2 is negotiated where offered.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{get, origin, settings, whole};
use crate::{Failure, Origin, Protocol, Settings, SetupError};

/// An origin with a certificate for `media.example`, and the CA that signed it.
pub(super) struct Secured {
    address: SocketAddr,
    authority: NamedTempFile,
    _tasks: JoinSet<()>,
}

pub(super) fn authority() -> (Issuer<'static, KeyPair>, NamedTempFile) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(certificate.pem().as_bytes()).unwrap();
    (Issuer::new(params, key), file)
}

/// Answers with the negotiated protocol.
pub(super) async fn secured(offers: &[&str]) -> Secured {
    secured_for(WebPkiClientVerifier::no_client_auth(), offers).await
}

/// The same, for clients that are accepted.
pub(super) async fn secured_for(clients: Arc<dyn ClientCertVerifier>, offers: &[&str]) -> Secured {
    let (issuer, authority) = authority();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["media.example".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = offers
        .iter()
        .map(|offer| offer.as_bytes().to_vec())
        .collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    answer(stream).await;
                }
            });
        }
    });
    Secured {
        address,
        authority,
        _tasks: tasks,
    }
}

async fn answer(mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>) {
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let head = http::Response::new(());
            let mut sending = respond.send_response(head, false).unwrap();
            sending.send_data("two".into(), true).unwrap();
        }
        return;
    }
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if head.ends_with(b"\r\n\r\n") {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none";
            stream.write_all(answer).await.unwrap();
            head.clear();
        }
    }
}

pub(super) fn trusting(secured: &Secured) -> Settings {
    let mut settings = settings(secured.address);
    settings.endpoints[0].tls = true;
    settings.protocol = Protocol::Auto;
    settings.ca_file = Some(secured.authority.path().to_owned());
    settings.sni = Some("media.example".to_owned());
    settings
}

pub(super) async fn answered(origin: &Origin) -> Result<bytes::Bytes, Failure> {
    let answer = whole(origin, get("/x")).await;
    answer.map(|(_, body)| body).map_err(|(failure, _)| failure)
}

#[tokio::test]
async fn uses_http2_if_alpn_offers_it_unless_h1_is_set() {
    let secured = secured(&["h2", "http/1.1"]).await;
    let auto = origin(trusting(&secured));
    for _ in 0..2 {
        assert_eq!(answered(&auto).await.unwrap(), "two");
    }
    assert_eq!(auto.stats().total.connections_reused, 1);
    let mut settings = trusting(&secured);
    settings.protocol = Protocol::H1;
    assert_eq!(answered(&origin(settings)).await.unwrap(), "one");
}

#[tokio::test]
async fn uses_http1_without_alpn_and_fails_if_h2_is_required() {
    let secured = secured(&[]).await;
    let auto = origin(trusting(&secured));
    for _ in 0..2 {
        assert_eq!(answered(&auto).await.unwrap(), "one");
    }
    assert_eq!(auto.stats().total.connections_reused, 1);
    let mut settings = trusting(&secured);
    settings.protocol = Protocol::H2;
    assert_eq!(answered(&origin(settings)).await, Err(Failure::Protocol));
}

#[tokio::test]
async fn rejects_certificate_for_another_name_unless_verify_is_off() {
    let secured = secured(&[]).await;
    let mut settings = trusting(&secured);
    settings.sni = Some("other.example".to_owned());
    assert_eq!(answered(&origin(settings.clone())).await, Err(Failure::Tls));
    settings.verify = false;
    assert_eq!(answered(&origin(settings)).await.unwrap(), "one");
}

#[tokio::test]
async fn rejects_certificate_of_unknown_ca() {
    let secured = secured(&[]).await;
    let (_, strange) = authority();
    let mut settings = trusting(&secured);
    settings.ca_file = Some(strange.path().to_owned());
    assert_eq!(answered(&origin(settings)).await, Err(Failure::Tls));
}

#[test]
fn ca_file_without_certificates_is_a_setup_error() {
    let mut settings = settings("192.0.2.1:443".parse().unwrap());
    settings.endpoints[0].tls = true;
    let empty = NamedTempFile::new().unwrap();
    for path in [empty.path(), &empty.path().with_extension("missing")] {
        settings.ca_file = Some(path.to_owned());
        let refused = Origin::new(settings.clone(), super::no_lookup());
        let Err(SetupError::CaFile { path: named, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(named, path);
    }
}
