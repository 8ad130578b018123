//! HTTP/1.1: keep-alive, pipelining, framing, and unwanted request bodies.

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, StatusCode};

use crate::frontend::Limits;
use crate::frontend::test_support::{TestServer, Viewer, answer, until};
use crate::proxy::ResponseBody;

fn hello() -> ResponseBody {
    ResponseBody::Whole(Some(Bytes::from_static(b"hello")))
}

#[tokio::test]
async fn answers_several_requests_on_a_connection() {
    for server in TestServer::on_both_paths(Limits::default(), hello) {
        let mut viewer = Viewer::connect(&server).await;
        for _ in 0..3 {
            viewer.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let received = viewer.read_until("hello").await;
            assert!(received.starts_with("HTTP/1.1 200 OK\r\n"), "{received}");
            assert!(received.contains("\r\ncontent-length: 5\r\n"), "{received}");
            assert!(received.contains("\r\ndate: "), "{received}");
        }
        until("three requests are recorded", || {
            server.records.count() == 3
        })
        .await;
        let records = server.records.take();
        assert!(
            records
                .iter()
                .all(|record| record.bytes == 5 && record.aborted_by.is_none())
        );
    }
}

#[tokio::test]
async fn answers_pipelined_requests_in_order() {
    let server = TestServer::start(Limits::default(), None, |request| async move {
        let path = Bytes::from(request.uri.path().to_owned());
        answer(&request, ResponseBody::Whole(Some(path)))
    });
    let mut viewer = Viewer::connect(&server).await;
    viewer
        .send("GET /one HTTP/1.1\r\nhost: a\r\n\r\nGET /two HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    viewer.read_until("/one").await;
    viewer.read_until("/two").await;
}

#[tokio::test]
async fn keeps_the_content_length_of_a_head_response() {
    let server = TestServer::start(Limits::default(), None, |request| async move {
        let mut answer = answer(&request, hello());
        answer
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
        answer
    });
    let mut viewer = Viewer::connect(&server).await;
    viewer
        .send("HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await;
    let (received, _) = viewer.read_to_end().await;
    assert!(received.contains("\r\ncontent-length: 5\r\n"), "{received}");
    assert!(received.ends_with("\r\n\r\n"), "{received}");
}

#[tokio::test]
async fn sends_no_reason_phrase_for_an_unknown_status() {
    let server = TestServer::start(Limits::default(), None, |request| async move {
        let mut answer = answer(&request, hello());
        answer.status = StatusCode::from_u16(599).unwrap();
        answer
    });
    let mut viewer = Viewer::connect(&server).await;
    viewer.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let received = viewer.read_until("hello").await;
    assert!(received.starts_with("HTTP/1.1 599 \r\n"), "{received}");
}

#[tokio::test]
async fn sends_no_body_with_304() {
    let server = TestServer::start(Limits::default(), None, |request| async move {
        let mut answer = answer(&request, hello());
        answer.status = StatusCode::NOT_MODIFIED;
        answer
    });
    let mut viewer = Viewer::connect(&server).await;
    viewer
        .send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await;
    let (received, _) = viewer.read_to_end().await;
    assert!(received.ends_with("\r\n\r\n"), "{received}");
}

#[tokio::test]
async fn drains_an_unread_body_before_the_next_request() {
    let server = TestServer::with_body(Limits::default(), hello);
    let mut viewer = Viewer::connect(&server).await;
    viewer
        .send("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 20\r\n\r\nGET /x ")
        .await;
    viewer
        .send("HTTP/1.1\r\n\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    viewer.read_until("hello").await;
    viewer.read_until("hello").await;
    until("two requests are recorded", || server.records.count() == 2).await;
}

#[tokio::test]
async fn closes_after_the_response_when_the_unread_body_is_too_large() {
    let limits = Limits {
        unwanted_body_bytes_max: 10,
        ..Limits::default()
    };
    let server = TestServer::with_body(limits, hello);
    let mut viewer = Viewer::connect(&server).await;
    viewer
        .send("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\n12345678901")
        .await;
    let (received, _) = viewer.read_to_end().await;
    assert!(received.contains("\r\nconnection: close\r\n"), "{received}");
    assert!(received.ends_with("hello"), "{received}");
}

#[tokio::test]
async fn answers_expect_continue_without_100() {
    let server = TestServer::with_body(Limits::default(), hello);
    let mut viewer = Viewer::connect(&server).await;
    viewer
        .send("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n")
        .await;
    let (received, _) = viewer.read_to_end().await;
    assert!(
        received.starts_with("HTTP/1.1 200 OK\r\n") && received.ends_with("hello"),
        "{received}"
    );
}

#[tokio::test]
async fn survives_a_panic_in_a_handler() {
    let server = TestServer::start(Limits::default(), None, |request| async move {
        assert_ne!(
            request.uri.path(),
            "/trap",
            "this panic is part of the test"
        );
        answer(&request, hello())
    });
    let mut trapped = Viewer::connect(&server).await;
    let mut other = Viewer::connect(&server).await;
    trapped.send("GET /trap HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(trapped.read_to_end().await.0, "");
    other.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    other.read_until("hello").await;
    until("one connection is open", || {
        server.frontend.stats().open == 1
    })
    .await;
}

#[tokio::test]
async fn accepted_sockets_inherit_nodelay() {
    use crate::frontend::{BoundListener, ListenAddress, Listener, listen::ListeningSocket};
    let address = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
    let listener = BoundListener::bind(&Listener {
        address,
        tls: None,
        proxy_protocol: None,
    })
    .unwrap();
    let ListeningSocket::Tcp(socket) = listener.socket else {
        unreachable!()
    };
    let socket = tokio::net::TcpListener::from_std(socket).unwrap();
    let _viewer = tokio::net::TcpStream::connect(socket.local_addr().unwrap())
        .await
        .unwrap();
    assert!(socket.accept().await.unwrap().0.nodelay().unwrap());
}
