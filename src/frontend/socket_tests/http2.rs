//! HTTP/2: prior knowledge, ALPN, and stalled streams.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Version};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::frontend::test_support::{CertificateDirectory, TestServer, answer, until};
use crate::frontend::{ConnectionEvent, Limits, Tls};
use crate::proxy::ResponseBody;

const LARGE: usize = 1 << 20;

fn large() -> ResponseBody {
    ResponseBody::Whole(Some(Bytes::from(vec![7; LARGE])))
}

async fn speak<W>(transport: W) -> SendRequest<Bytes>
where
    W: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = h2::client::handshake(transport).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn connect(server: &TestServer) -> SendRequest<Bytes> {
    speak(TcpStream::connect(server.address).await.unwrap()).await
}

async fn ask(client: &SendRequest<Bytes>) -> http::Response<h2::RecvStream> {
    let mut client = client.clone().ready().await.unwrap();
    let request = Request::get("http://a.example/")
        .version(Version::HTTP_2)
        .body(())
        .unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    timeout(Duration::from_secs(10), response)
        .await
        .unwrap()
        .unwrap()
}

async fn read_out(mut body: h2::RecvStream) -> Result<usize, h2::Error> {
    let mut received = 0;
    while let Some(data) = body.data().await {
        let data = data?;
        received += data.len();
        let _ = body.flow_control().release_capacity(data.len());
    }
    Ok(received)
}

#[tokio::test]
async fn serves_large_bodies_over_http2_with_prior_knowledge() {
    let server = TestServer::with_body(Limits::default(), large);
    let client = connect(&server).await;
    let first = tokio::spawn(read_out(ask(&client).await.into_body()));
    let response = ask(&client).await;
    assert_eq!(response.headers()["content-length"], LARGE.to_string());
    assert!(response.headers().contains_key("date"));
    assert_eq!(read_out(response.into_body()).await.unwrap(), LARGE);
    assert_eq!(first.await.unwrap().unwrap(), LARGE);
    until("both requests are recorded", || server.records.count() == 2).await;
    assert!(
        server
            .records
            .take()
            .iter()
            .all(|record| record.aborted_by.is_none() && record.bytes == LARGE as u64)
    );
}

#[tokio::test]
async fn resets_a_stream_whose_window_stays_closed() {
    let limits = Limits {
        send_rate_window: Duration::from_millis(100),
        send_rate_min_bytes_per_second: 1 << 30,
        ..Limits::default()
    };
    let server = TestServer::with_body(limits, large);
    let client = connect(&server).await;
    let held = ask(&client).await;
    until("reset", || {
        server.frontend.stats().of(ConnectionEvent::SlowViewer) == 1
    })
    .await;
    until("recorded", || server.records.count() == 1).await;
    assert!(server.records.take()[0].aborted_by.is_some());
    assert!(read_out(held.into_body()).await.unwrap_err().is_reset());
}

/// The same as over HTTP/1.1.
#[tokio::test]
async fn rejected_http2_head_is_recorded_with_method_and_path() {
    let server = TestServer::with_body(Limits::default(), large);
    let client = connect(&server).await;
    let cases = [
        (1, 9_000, "/one", 431),
        (5, 7_000, "/together", 431),
        (101, 1, "/many", 431),
        (0, 0, "/long?", 414),
    ];
    for (count, size, path, status) in cases {
        let rest = if status == 414 { 9_000 } else { 0 };
        let uri = format!("http://a.example{path}{}", "x".repeat(rest));
        let mut request = Request::get(uri).version(Version::HTTP_2);
        for number in 0..count {
            request = request.header(format!("a-{number}"), "x".repeat(size));
        }
        let mut client = client.clone().ready().await.unwrap();
        let (response, _) = client
            .send_request(request.body(()).unwrap(), true)
            .unwrap();
        assert_eq!(response.await.unwrap().status(), status, "{path}");
        until("recorded", || server.records.count() == 1).await;
        let record = server.records.take().remove(0);
        assert_eq!(record.status, status, "{path}");
        let log_fields = record.log_fields.unwrap();
        assert_eq!(
            (log_fields.method, log_fields.protocol),
            (Some(http::Method::GET), "HTTP/2.0")
        );
        assert_eq!(log_fields.path, path.trim_end_matches('?'));
    }
    assert_eq!(server.frontend.stats().of(ConnectionEvent::HeadRefused), 4);
}

#[tokio::test]
async fn sends_goaway_and_finishes_streams_while_draining() {
    let server = TestServer::with_body(Limits::default(), large);
    let client = connect(&server).await;
    let response = ask(&client).await;
    let frontend = server.frontend.clone();
    let draining = tokio::spawn(async move { frontend.drain().await });
    assert_eq!(read_out(response.into_body()).await.unwrap(), LARGE);
    timeout(Duration::from_secs(10), draining)
        .await
        .unwrap()
        .unwrap();
    assert!(client.ready().await.is_err(), "no more requests");
}

#[tokio::test]
async fn resets_one_stream_after_a_panic() {
    let server = TestServer::start(Limits::default(), None, |request| async move {
        assert_ne!(
            request.method,
            http::Method::DELETE,
            "this panic is part of the test"
        );
        answer(&request, large())
    });
    let mut client = connect(&server).await.ready().await.unwrap();
    let request = Request::delete("http://a.example/").body(()).unwrap();
    let (trapped, _) = client.send_request(request, true).unwrap();
    assert!(trapped.await.is_err());
    assert_eq!(
        read_out(ask(&client).await.into_body()).await.unwrap(),
        LARGE
    );
}

struct Secure {
    server: TestServer,
    directory: CertificateDirectory,
}

fn secure(limits: Limits, tls12: bool) -> Secure {
    let directory = CertificateDirectory::new();
    let certificates = vec![
        directory.make("a", &["a.example"]),
        directory.make("b", &["b.example"]),
    ];
    let answering = |request: crate::proxy::ViewerRequest| async move {
        assert!(request.tls && request.address.viewer.is_some());
        answer(
            &request,
            ResponseBody::Whole(Some(Bytes::from_static(b"hello"))),
        )
    };
    let server = TestServer::start(
        limits,
        Some(Tls {
            certificates,
            tls12,
            client: None,
        }),
        answering,
    );
    Secure { server, directory }
}

impl Secure {
    async fn connect(&self, name: &str, alpn: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for file in ["a", "b"] {
            roots.add(self.directory.certificate(file)).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let transport = TcpStream::connect(self.server.address).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, transport)
            .await
    }
}

#[tokio::test]
async fn serves_the_negotiated_protocol_with_the_requested_certificate() {
    let secure = secure(Limits::default(), true);
    let client = speak(secure.connect("b.example", b"h2").await.unwrap()).await;
    assert_eq!(read_out(ask(&client).await.into_body()).await.unwrap(), 5);

    let mut transport = secure.connect("a.example", b"http/1.1").await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n";
    transport.write_all(request).await.unwrap();
    let mut received = String::new();
    transport.read_to_string(&mut received).await.unwrap();
    assert!(
        received.starts_with("HTTP/1.1 200 OK\r\n") && received.ends_with("hello"),
        "{received}"
    );
}

#[tokio::test]
async fn counts_failed_and_slow_handshakes() {
    let limits = Limits {
        handshake_timeout: Duration::from_millis(400),
        ..Limits::default()
    };
    let secure = secure(limits, false);
    let stats = || secure.server.frontend.stats();
    let mut transport = TcpStream::connect(secure.server.address).await.unwrap();
    transport
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    until("the handshake has failed", || {
        stats().of(ConnectionEvent::HandshakeFailed) == 1
    })
    .await;
    let _silent = TcpStream::connect(secure.server.address).await.unwrap();
    until("the handshake has timed out", || {
        stats().of(ConnectionEvent::HandshakeTimeout) == 1
    })
    .await;
    until("all connections are closed", || stats().open == 0).await;
}
