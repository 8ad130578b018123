//! Limits and deadlines: each rejects what exceeds it, and each is counted.

use std::time::Duration;

use bytes::Bytes;
use http::Method;

use crate::frontend::test_support::{TestServer, Viewer, answer, until};
use crate::frontend::{ConnectionEvent, Limits};
use crate::proxy::ResponseBody;

fn hello() -> ResponseBody {
    ResponseBody::Whole(Some(Bytes::from_static(b"hello")))
}

const SOON: Duration = Duration::from_millis(100);

#[tokio::test]
async fn closes_connections_over_the_limit_at_once() {
    let server = TestServer::with_body(
        Limits {
            connections_max: 1,
            ..Limits::default()
        },
        hello,
    );
    let mut first = Viewer::connect(&server).await;
    first.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    first.read_until("hello").await;
    let mut second = Viewer::connect(&server).await;
    let received = second.read_to_end().await.0;
    assert!(
        received.starts_with("HTTP/1.1 503 "),
        "the first is not idle yet: {received}"
    );
    assert_eq!(server.frontend.stats().of(ConnectionEvent::RefusedFull), 1);
    drop(first);
    until("the connection is closed", || {
        server.frontend.stats().open == 0
    })
    .await;
    let mut third = Viewer::connect(&server).await;
    third.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    third.read_until("hello").await;
}

#[tokio::test]
async fn limits_the_connections_of_one_address() {
    let limits = Limits {
        connections_per_client_max: 1,
        ..Limits::default()
    };
    let server = TestServer::with_body(limits, hello);
    let mut first = Viewer::connect(&server).await;
    first.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    first.read_until("hello").await;
    assert_eq!(Viewer::connect(&server).await.read_to_end().await.0, "");
    assert_eq!(
        server.frontend.stats().of(ConnectionEvent::RefusedClient),
        1
    );
}

#[tokio::test]
async fn answers_heads_over_the_limits_before_closing() {
    let server = TestServer::with_body(Limits::default(), hello);
    let field = "x".repeat(9000);
    let cases = [
        (format!("GET /{field} HTTP/1.1\r\nhost: a\r\n\r\n"), "414"),
        (
            format!("GET / HTTP/1.1\r\nhost: a\r\nb: {field}\r\n\r\n"),
            "431",
        ),
        (
            format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101)),
            "431",
        ),
        (
            format!("GET / HTTP/1.1\r\nb: {}", "x".repeat(80 << 10)),
            "431",
        ),
        (
            "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 2000000\r\n\r\n".to_owned(),
            "413",
        ),
    ];
    for (request, status) in cases {
        let mut viewer = Viewer::connect(&server).await;
        // The connection may end before all bytes are sent.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut viewer.0, request.as_bytes()).await;
        let (received, _) = viewer.read_to_end().await;
        assert!(
            received.starts_with(&format!("HTTP/1.1 {status} ")),
            "{status}: {received}"
        );
        assert!(received.contains("\r\nconnection: close\r\n"), "{received}");
    }
    assert_eq!(server.frontend.stats().of(ConnectionEvent::HeadRefused), 6);
}

/// The log of a rejected request contains the peer and the target, as far as they are known.
#[tokio::test]
async fn rejected_http1_head_is_recorded_with_peer_and_target() {
    let server = TestServer::with_body(Limits::default(), hello);
    let long = "x".repeat(9000);
    let endless = "x".repeat(80 << 10);
    let cases = [
        (
            format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"),
            414,
            Some("GET"),
            "/xxx",
        ),
        (
            format!("GET /a HTTP/1.1\r\nb: {endless}"),
            431,
            Some("GET"),
            "/a",
        ),
        (
            format!("HEAD /b?token HTTP/1.1\r\nb: {long}\r\n\r\n"),
            431,
            Some("HEAD"),
            "/b",
        ),
        (
            "PUT /c HTTP/1.1\r\nhost: a\r\ncontent-length: 2000000\r\n\r\n".into(),
            413,
            Some("PUT"),
            "/c",
        ),
        (
            "GET /d HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\nhello".into(),
            400,
            Some("GET"),
            "/d",
        ),
        (
            "GET http://u:p@a/e HTTP/1.1\r\nno colon\r\n\r\n".into(),
            400,
            Some("GET"),
            "/e",
        ),
        ("\u{1}\u{2} nonsense\r\n\r\n".into(), 400, None, ""),
    ];
    for (request, status, method, path) in cases {
        let mut viewer = Viewer::connect(&server).await;
        let _ = tokio::io::AsyncWriteExt::write_all(&mut viewer.0, request.as_bytes()).await;
        viewer.read_to_end().await;
        until("recorded", || server.records.count() == 1).await;
        let record = server.records.take().remove(0);
        let log_fields = record.log_fields.expect("fields of the access log");
        assert_eq!(record.status.as_u16(), status, "{path}");
        assert_eq!(
            log_fields.method.as_ref().map(Method::as_str),
            method,
            "{path}"
        );
        assert!(
            log_fields.path.starts_with(path) && !log_fields.path.contains('?'),
            "{}",
            log_fields.path
        );
        assert!(log_fields.address.viewer.is_some());
    }
}

#[tokio::test]
async fn records_a_rejected_head_separately_from_the_request_before() {
    let server = TestServer::with_body(Limits::default(), hello);
    for bad in ["content-length: +5", "no colon"] {
        let mut viewer = Viewer::connect(&server).await;
        viewer
            .send(&format!(
                "GET /good HTTP/1.1\r\nhost: a\r\n\r\nGET /bad HTTP/1.1\r\n{bad}\r\n\r\n"
            ))
            .await;
        viewer.read_to_end().await;
        until("recorded", || server.records.count() == 2).await;
        let record = server.records.take().remove(1);
        let log_fields = record.log_fields.expect("fields of the access log");
        assert_eq!(record.status, 400);
        assert!(
            ["/bad", ""].contains(&&*log_fields.path),
            "{}",
            log_fields.path
        );
    }
}

#[tokio::test]
async fn cuts_a_head_that_does_not_end() {
    for server in TestServer::on_both_paths(
        Limits {
            head_timeout: SOON,
            ..Limits::default()
        },
        hello,
    ) {
        let mut viewer = Viewer::connect(&server).await;
        viewer.send("GET / HT").await;
        viewer.read_to_end().await;
        assert_eq!(server.frontend.stats().of(ConnectionEvent::HeadTimeout), 1);
    }
}

#[tokio::test]
async fn applies_the_idle_timeout_between_requests() {
    let limits = Limits {
        head_timeout: SOON,
        idle_timeout: SOON * 5,
        ..Limits::default()
    };
    for server in TestServer::on_both_paths(limits, hello) {
        let mut viewer = Viewer::connect(&server).await;
        viewer.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        viewer.read_until("hello").await;
        assert_eq!(viewer.read_to_end().await.0, "");
        assert_eq!(server.frontend.stats().of(ConnectionEvent::IdleTimeout), 1);
        assert_eq!(server.frontend.stats().of(ConnectionEvent::HeadTimeout), 0);
    }
}

#[tokio::test]
async fn cuts_a_viewer_that_receives_nothing() {
    let limits = Limits {
        send_rate_window: SOON,
        ..Limits::default()
    };
    for server in TestServer::on_both_paths(limits, || {
        ResponseBody::Whole(Some(Bytes::from(vec![0; 64 << 20])))
    }) {
        let mut viewer = Viewer::connect(&server).await;
        viewer.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        until("cut", || {
            server.frontend.stats().of(ConnectionEvent::SlowViewer) == 1
        })
        .await;
        until("recorded", || server.records.count() == 1).await;
        let record = server.records.take().remove(0);
        assert!(record.aborted_by.is_some() && record.bytes < 64 << 20);
        assert!(!viewer.read_to_end().await.1, "a reset, not a clean end");
    }
}

#[tokio::test]
async fn passes_an_upload_to_the_handler() {
    let server = TestServer::start(Limits::default(), None, |mut request| async move {
        assert_eq!(request.method, Method::PUT);
        let mut body = request.body.take().unwrap();
        let mut received = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            received.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        answer(&request, ResponseBody::Whole(Some(Bytes::from(received))))
    });
    let mut viewer = Viewer::connect(&server).await;
    viewer
        .send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nthere")
        .await;
    viewer.read_until("\r\n\r\nthere").await;
}

#[tokio::test]
async fn counts_a_viewer_that_disconnects_before_the_response() {
    let server = TestServer::start(Limits::default(), None, |request| async move {
        std::future::pending::<()>().await;
        answer(&request, ResponseBody::Empty)
    });
    let mut viewer = Viewer::connect(&server).await;
    viewer.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    drop(viewer);
    until("counted", || {
        server.frontend.stats().of(ConnectionEvent::Abandoned) == 1
    })
    .await;
}
