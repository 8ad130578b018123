//! Limits and deadlines: each refuses what exceeds it, and each is counted.

use std::time::Duration;

use bytes::Bytes;
use http::Method;

use crate::frontend::test_support::{Scene, Viewer, answer, until};
use crate::frontend::{ConnectionEvent, Limits};
use crate::proxy::ResponseBody;

fn hello() -> ResponseBody {
    ResponseBody::Whole(Some(Bytes::from_static(b"hello")))
}

const SOON: Duration = Duration::from_millis(100);

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let scene = Scene::with_body(
        Limits {
            connections_max: 1,
            ..Limits::default()
        },
        hello,
    );
    let mut first = Viewer::meet(&scene).await;
    first.say("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    first.hear_until("hello").await;
    let mut second = Viewer::meet(&scene).await;
    let heard = second.hear_out().await.0;
    assert!(
        heard.starts_with("HTTP/1.1 503 "),
        "the first was busy just now: {heard}"
    );
    assert_eq!(scene.edge.stats().of(ConnectionEvent::RefusedFull), 1);
    drop(first);
    until("the seat is free", || scene.edge.stats().open == 0).await;
    let mut third = Viewer::meet(&scene).await;
    third.say("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    third.hear_until("hello").await;
}

#[tokio::test]
async fn one_address_has_its_own_limit() {
    let limits = Limits {
        connections_per_client_max: 1,
        ..Limits::default()
    };
    let scene = Scene::with_body(limits, hello);
    let mut first = Viewer::meet(&scene).await;
    first.say("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    first.hear_until("hello").await;
    assert_eq!(Viewer::meet(&scene).await.hear_out().await.0, "");
    assert_eq!(scene.edge.stats().of(ConnectionEvent::RefusedClient), 1);
}

#[tokio::test]
async fn heads_beyond_the_limits_are_answered_and_the_viewer_hears_it() {
    let scene = Scene::with_body(Limits::default(), hello);
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
        let mut viewer = Viewer::meet(&scene).await;
        // The connection may end before all bytes are sent.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut viewer.0, request.as_bytes()).await;
        let (heard, _) = viewer.hear_out().await;
        assert!(
            heard.starts_with(&format!("HTTP/1.1 {status} ")),
            "{status}: {heard}"
        );
        assert!(heard.contains("\r\nconnection: close\r\n"), "{heard}");
    }
    assert_eq!(scene.edge.stats().of(ConnectionEvent::HeadRefused), 6);
}

/// The log of a refused request contains the peer and the target, as far as they are known.
#[tokio::test]
async fn a_refused_head_is_told_with_what_is_known_of_it() {
    let scene = Scene::with_body(Limits::default(), hello);
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
        let mut viewer = Viewer::meet(&scene).await;
        let _ = tokio::io::AsyncWriteExt::write_all(&mut viewer.0, request.as_bytes()).await;
        viewer.hear_out().await;
        until("told", || scene.tales.count() == 1).await;
        let tale = scene.tales.take().remove(0);
        let line = tale.line.expect("a line");
        assert_eq!(tale.status.as_u16(), status, "{path}");
        assert_eq!(line.method.as_ref().map(Method::as_str), method, "{path}");
        assert!(
            line.path.starts_with(path) && !line.path.contains('?'),
            "{}",
            line.path
        );
        assert!(line.peer.is_some());
    }
}

#[tokio::test]
async fn a_refused_head_behind_another_request_is_told_as_itself() {
    let scene = Scene::with_body(Limits::default(), hello);
    for bad in ["content-length: +5", "no colon"] {
        let mut viewer = Viewer::meet(&scene).await;
        viewer
            .say(&format!(
                "GET /good HTTP/1.1\r\nhost: a\r\n\r\nGET /bad HTTP/1.1\r\n{bad}\r\n\r\n"
            ))
            .await;
        viewer.hear_out().await;
        until("told", || scene.tales.count() == 2).await;
        let tale = scene.tales.take().remove(1);
        let line = tale.line.expect("a line");
        assert_eq!(tale.status, 400);
        assert!(["/bad", ""].contains(&&*line.path), "{}", line.path);
    }
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut() {
    for scene in Scene::in_both_lanes(
        Limits {
            head_timeout: SOON,
            ..Limits::default()
        },
        hello,
    ) {
        let mut viewer = Viewer::meet(&scene).await;
        viewer.say("GET / HT").await;
        viewer.hear_out().await;
        assert_eq!(scene.edge.stats().of(ConnectionEvent::HeadTimeout), 1);
    }
}

#[tokio::test]
async fn a_kept_alive_connection_has_the_idle_time_and_not_the_heads() {
    let limits = Limits {
        head_timeout: SOON,
        idle_timeout: SOON * 5,
        ..Limits::default()
    };
    for scene in Scene::in_both_lanes(limits, hello) {
        let mut viewer = Viewer::meet(&scene).await;
        viewer.say("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        viewer.hear_until("hello").await;
        assert_eq!(viewer.hear_out().await.0, "");
        assert_eq!(scene.edge.stats().of(ConnectionEvent::IdleTimeout), 1);
        assert_eq!(scene.edge.stats().of(ConnectionEvent::HeadTimeout), 0);
    }
}

#[tokio::test]
async fn a_viewer_who_takes_nothing_is_cut() {
    let limits = Limits {
        send_rate_window: SOON,
        ..Limits::default()
    };
    for scene in Scene::in_both_lanes(limits, || {
        ResponseBody::Whole(Some(Bytes::from(vec![0; 64 << 20])))
    }) {
        let mut viewer = Viewer::meet(&scene).await;
        viewer.say("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        until("cut", || {
            scene.edge.stats().of(ConnectionEvent::SlowViewer) == 1
        })
        .await;
        until("told", || scene.tales.count() == 1).await;
        let tale = scene.tales.take().remove(0);
        assert!(tale.cut_by.is_some() && tale.bytes < 64 << 20);
        assert!(!viewer.hear_out().await.1, "a reset, not an end");
    }
}

#[tokio::test]
async fn an_upload_reaches_the_answer() {
    let scene = Scene::start(Limits::default(), None, |mut arrival| async move {
        assert_eq!(arrival.method, Method::PUT);
        let mut body = arrival.body.take().unwrap();
        let mut came = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            came.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        answer(&arrival, ResponseBody::Whole(Some(Bytes::from(came))))
    });
    let mut viewer = Viewer::meet(&scene).await;
    viewer
        .say("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nthere")
        .await;
    viewer.hear_until("\r\n\r\nthere").await;
}

#[tokio::test]
async fn a_viewer_who_leaves_before_the_answer_is_counted() {
    let scene = Scene::start(Limits::default(), None, |arrival| async move {
        std::future::pending::<()>().await;
        answer(&arrival, ResponseBody::Empty)
    });
    let mut viewer = Viewer::meet(&scene).await;
    viewer.say("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    drop(viewer);
    until("counted", || {
        scene.edge.stats().of(ConnectionEvent::Abandoned) == 1
    })
    .await;
}
