//! An unexpected body of a GET delays no response, and is not taken for the next request.

use std::time::Duration;

use crate::support::frames::{FrameViewer, HEADERS, request};
use crate::support::metrics::VIEWER_EVENTS;
use crate::support::viewer::Viewer;
use crate::support::{Origin, Shield, ask, get, segment};

const HELD: &str = "/live/held.ts";
const OTHER: &str = "/live/other.ts";

/// Heads that announce a body, and the status of their response.
fn promises() -> Vec<(String, u16)> {
    let mut promises = Vec::new();
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        for (target, host, status) in [
            (HELD, "media.test", 200),
            (OTHER, "media.test", 200),
            ("/live/missing.ts", "media.test", 404),
            (HELD, "a,b", 400),
        ] {
            let head = format!("{target} HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n\r\n");
            promises.push((format!("GET {head}"), status));
        }
    }
    promises
}

/// A deadline that does not pass within a scenario.
async fn shield(origin: &Origin) -> Shield {
    let shield = Shield::in_front_of(origin)
        .with(|config| config.frontend.limits.head_timeout = Duration::from_hours(1))
        .start()
        .await;
    shield.get(HELD).await.assert_whole("held");
    shield
}

async fn origin() -> Origin {
    Origin::start()
        .await
        .on(HELD, segment("held").cache_control("max-age=60"))
        .on(OTHER, segment("other").cache_control("no-store"))
}

/// The response does not wait for the body, whatever it is.
#[tokio::test]
async fn response_does_not_wait_for_unexpected_body() {
    let origin = origin().await;
    let shield = shield(&origin).await;
    for (promise, status) in promises() {
        let mut viewer = shield.viewer().await;
        viewer.send_raw(promise.as_bytes()).await;
        assert_eq!(
            viewer.receive(&get(HELD)).await.status,
            status,
            "{promise:?}"
        );
        let mut viewer = shield.viewer().await;
        let head = promise.replacen("GET", "HEAD", 1);
        viewer.send_raw(head.as_bytes()).await;
        let answer = viewer.receive(&ask("HEAD", HELD)).await;
        assert_eq!(answer.status, status, "{head:?}");
    }
    let mut viewer = FrameViewer::connect(shield.address()).await;
    viewer.send(&[request(1, "GET", HELD, false)]).await;
    viewer
        .read_until(|frame| frame.kind == HEADERS)
        .await
        .expect("an answer");
}

/// A body that arrives after the response is read and dropped, and is never the next request.
#[tokio::test]
async fn late_body_is_not_read_as_next_request() {
    let origin = origin().await;
    let shield = shield(&origin).await;
    let body = format!("GET {OTHER} HTTP/1.1\r\nHost: media.test\r\n\r\n");
    let length = body.len();
    for target in [HELD, "/live/missing.ts"] {
        let mut viewer = shield.viewer().await;
        for half in [0, length / 2] {
            let head = format!(
                "GET {target} HTTP/1.1\r\nHost: media.test\r\nContent-Length: {length}\r\n\r\n"
            );
            viewer.send_raw(head.as_bytes()).await;
            viewer.send_raw(&body.as_bytes()[..half]).await;
            let answer = viewer.receive(&get(target)).await;
            assert_eq!(answer.header("connection"), None);
            viewer.send_raw(&body.as_bytes()[half..]).await;
        }
        viewer.get(HELD).await.assert_whole("held");
    }
    assert_eq!(origin.hits(OTHER), 0);
}

/// A body that does not arrive in time ends the connection, after the viewer has its response.
#[tokio::test]
async fn missing_body_closes_connection_after_response() {
    let origin = origin().await;
    let shield = Shield::in_front_of(&origin)
        .with(|config| {
            config.frontend.limits.head_timeout = Duration::from_millis(200);
            config.frontend.limits.idle_timeout = Duration::from_hours(1);
        })
        .start()
        .await;
    for version in ["1.0", "1.1"] {
        let mut viewer: Viewer = shield.viewer().await;
        let head = format!(
            "GET {HELD} HTTP/{version}\r\nHost: media.test\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nabcd"
        );
        viewer.send_raw(head.as_bytes()).await;
        viewer.receive(&get(HELD)).await.assert_whole("held");
        viewer.wait_closed().await;
    }
    let labels = [("event", "body_timeout")];
    assert_eq!(shield.counter(VIEWER_EVENTS, &labels).await, 2);
}

/// A body above `unwanted_body_max` is not read: the response says `Connection: close`.
#[tokio::test]
async fn body_above_unwanted_body_max_gets_connection_close() {
    let origin = origin().await;
    let shield = shield(&origin).await;
    let mut viewer = shield.viewer().await;
    let head = format!("GET {HELD} HTTP/1.1\r\nHost: media.test\r\nContent-Length: 70000\r\n\r\n");
    viewer.send_raw(head.as_bytes()).await;
    let answer = viewer.receive(&get(HELD)).await;
    assert_eq!(
        answer.assert_whole("held").header("connection"),
        Some("close")
    );
    viewer.wait_closed().await;
}
