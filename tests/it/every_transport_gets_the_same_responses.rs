//! Viewers get the same responses over HTTP/1.1 and HTTP/2, in cleartext, over TLS and over a Unix
//! socket.

use tempfile::tempdir;

use crate::support::viewer::{Identity, TlsViewer, Viewer};
use crate::support::{Origin, Shield, get, head, noise, segment};

const PATH: &str = "/live/seg1.ts";

/// Keep-alive: many requests on one connection.
#[tokio::test]
async fn keep_alive_serves_many_requests_on_one_connection() {
    let body = noise(1, 10_000);
    let origin = Origin::start().await.on(PATH, segment(body.clone()));
    let shield = Shield::in_front_of(&origin).start().await;
    let mut viewer = shield.viewer().await;
    for _ in 0..50 {
        viewer.get(PATH).await.assert_whole(&body);
        assert_eq!(viewer.get("/missing.ts").await.status, 404);
        viewer.ask(head(PATH)).await.assert_is(200, "");
    }
}

/// `Connection: close` is obeyed.
#[tokio::test]
async fn connection_close_is_obeyed() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = Shield::in_front_of(&origin).start().await;
    let mut viewer = shield.viewer().await;
    viewer
        .ask(get(PATH).header("Connection", "close"))
        .await
        .assert_whole("whole");
    viewer.wait_closed().await;
}

/// Pipelining: responses arrive in the order of the requests, misses and hits alike.
#[tokio::test]
async fn pipelined_responses_arrive_in_request_order() {
    let mut origin = Origin::start().await;
    let paths: Vec<_> = (0..20)
        .map(|number| format!("/live/seg{}.ts", number % 7))
        .collect();
    for path in &paths[..7] {
        origin = origin.on(path, segment(path.clone()));
    }
    let shield = Shield::in_front_of(&origin).start().await;
    let mut viewer = shield.viewer().await;
    for path in &paths {
        viewer.send(&get(path)).await;
    }
    for path in &paths {
        viewer.receive(&get(path)).await.assert_whole(path);
    }
}

/// HTTP/1.0 viewers get responses that HTTP/1.0 can express.
#[tokio::test]
async fn http10_viewer_gets_no_transfer_encoding() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = Shield::in_front_of(&origin).start().await;
    let mut viewer = shield.viewer().await;
    let request = format!("GET {PATH} HTTP/1.0\r\nHost: media.test\r\n\r\n");
    viewer.send_raw(request.as_bytes()).await;
    let answer = viewer.receive(&get(PATH)).await;
    assert_eq!(
        answer.assert_whole("whole").header("transfer-encoding"),
        None
    );
    viewer.wait_closed().await;
}

/// HTTP/2 by prior knowledge: many streams on one connection.
#[tokio::test]
async fn http2_by_prior_knowledge_serves_concurrent_streams() {
    let body = noise(1, 100_000);
    let origin = Origin::start().await.on(PATH, segment(body.clone()));
    let shield = Shield::in_front_of(&origin).start().await;
    let viewer = shield.h2_viewer().await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(viewer.begin(get(PATH)).await);
    }
    for stream in streams {
        stream.finish().await.assert_whole(&body);
    }
    viewer
        .ask(get(PATH).range("0-9"))
        .await
        .assert_is(206, &body[..10]);
    viewer.ask(head(PATH)).await.assert_is(200, "");
    assert_eq!(viewer.get("/missing.ts").await.status, 404);
    assert_eq!(origin.hits(PATH), 1);
}

/// An HTTP/2 origin serves HTTP/1.1 viewers.
#[tokio::test]
async fn http2_origin_serves_http1_viewer() {
    let body = noise(1, 10_000);
    let origin = Origin::start_h2().await.on(PATH, segment(body.clone()));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole(&body);
    assert!(shield.get(PATH).await.assert_whole(&body).is_hit());
    assert_eq!(origin.hits(PATH), 1);
}

/// TLS 1.2 and 1.3, and by ALPN HTTP/1.1 and HTTP/2.
#[tokio::test]
async fn tls12_and_tls13_serve_http1_and_http2() {
    let folder = tempdir().unwrap();
    let identity = Identity::new("media.test", folder.path());
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = Shield::in_front_of(&origin)
        .with_tls(&[&identity])
        .start()
        .await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let viewer = TlsViewer::new_trusting(shield.address(), &identity).with_version(version);
        viewer.h1().await.get(PATH).await.assert_whole("whole");
        viewer.h2().await.get(PATH).await.assert_whole("whole");
    }
    assert_eq!(origin.hits(PATH), 1);
}

/// Each server name gets its own certificate.
#[tokio::test]
async fn each_server_name_gets_its_own_certificate() {
    let folder = tempdir().unwrap();
    let identities = ["a.test", "b.test"].map(|name| Identity::new(name, folder.path()));
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let [a, b] = &identities;
    let shield = Shield::in_front_of(&origin).with_tls(&[a, b]).start().await;
    for identity in &identities {
        let mut viewer = TlsViewer::new_trusting(shield.address(), identity)
            .h1()
            .await;
        viewer.get(PATH).await.assert_whole("whole");
    }
}

/// A Unix socket in addition to the TCP listener.
#[tokio::test]
async fn unix_socket_serves_beside_tcp_listener() {
    let folder = tempdir().unwrap();
    let socket = folder.path().join("viewers.sock");
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = Shield::in_front_of(&origin)
        .on_unix(socket.clone())
        .start()
        .await;
    Viewer::connect_unix(&socket)
        .await
        .get(PATH)
        .await
        .assert_whole("whole");
    assert!(shield.get(PATH).await.assert_whole("whole").is_hit());
}
