//! HTTP/1.1: keep-alive, pipelining, framing, and unwanted request bodies.

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, StatusCode};

use crate::frontend::Limits;
use crate::frontend::test_support::{Scene, Viewer, answer, until};
use crate::proxy::ResponseBody;

fn hello() -> ResponseBody {
    ResponseBody::Whole(Some(Bytes::from_static(b"hello")))
}

#[tokio::test]
async fn requests_follow_one_another_on_a_connection() {
    for scene in Scene::in_both_lanes(Limits::default(), hello) {
        let mut viewer = Viewer::meet(&scene).await;
        for _ in 0..3 {
            viewer.say("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let heard = viewer.hear_until("hello").await;
            assert!(heard.starts_with("HTTP/1.1 200 OK\r\n"), "{heard}");
            assert!(heard.contains("\r\ncontent-length: 5\r\n"), "{heard}");
            assert!(heard.contains("\r\ndate: "), "{heard}");
        }
        until("three tales", || scene.tales.count() == 3).await;
        let tales = scene.tales.take();
        assert!(
            tales
                .iter()
                .all(|tale| tale.bytes == 5 && tale.cut_by.is_none())
        );
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let scene = Scene::start(Limits::default(), None, |arrival| async move {
        let path = Bytes::from(arrival.uri.path().to_owned());
        answer(&arrival, ResponseBody::Whole(Some(path)))
    });
    let mut viewer = Viewer::meet(&scene).await;
    viewer
        .say("GET /one HTTP/1.1\r\nhost: a\r\n\r\nGET /two HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    viewer.hear_until("/one").await;
    viewer.hear_until("/two").await;
}

#[tokio::test]
async fn a_head_answer_keeps_the_length_it_was_given() {
    let scene = Scene::start(Limits::default(), None, |arrival| async move {
        let mut answer = answer(&arrival, hello());
        answer
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
        answer
    });
    let mut viewer = Viewer::meet(&scene).await;
    viewer
        .say("HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await;
    let (heard, _) = viewer.hear_out().await;
    assert!(heard.contains("\r\ncontent-length: 5\r\n"), "{heard}");
    assert!(heard.ends_with("\r\n\r\n"), "{heard}");
}

#[tokio::test]
async fn a_status_without_a_name_has_no_reason() {
    let scene = Scene::start(Limits::default(), None, |arrival| async move {
        let mut answer = answer(&arrival, hello());
        answer.status = StatusCode::from_u16(599).unwrap();
        answer
    });
    let mut viewer = Viewer::meet(&scene).await;
    viewer.say("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let heard = viewer.hear_until("hello").await;
    assert!(heard.starts_with("HTTP/1.1 599 \r\n"), "{heard}");
}

#[tokio::test]
async fn a_304_has_no_body() {
    let scene = Scene::start(Limits::default(), None, |arrival| async move {
        let mut answer = answer(&arrival, hello());
        answer.status = StatusCode::NOT_MODIFIED;
        answer
    });
    let mut viewer = Viewer::meet(&scene).await;
    viewer
        .say("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await;
    let (heard, _) = viewer.hear_out().await;
    assert!(heard.ends_with("\r\n\r\n"), "{heard}");
}

#[tokio::test]
async fn an_unwanted_body_is_read_and_the_next_request_parses_right() {
    let scene = Scene::with_body(Limits::default(), hello);
    let mut viewer = Viewer::meet(&scene).await;
    viewer
        .say("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 20\r\n\r\nGET /x ")
        .await;
    viewer
        .say("HTTP/1.1\r\n\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    viewer.hear_until("hello").await;
    viewer.hear_until("hello").await;
    until("two tales", || scene.tales.count() == 2).await;
}

#[tokio::test]
async fn an_unwanted_body_beyond_the_bound_ends_the_connection_after_its_answer() {
    let limits = Limits {
        drain_bytes_max: 10,
        ..Limits::default()
    };
    let scene = Scene::with_body(limits, hello);
    let mut viewer = Viewer::meet(&scene).await;
    viewer
        .say("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\n12345678901")
        .await;
    let (heard, _) = viewer.hear_out().await;
    assert!(heard.contains("\r\nconnection: close\r\n"), "{heard}");
    assert!(heard.ends_with("hello"), "{heard}");
}

#[tokio::test]
async fn whoever_expects_a_continue_gets_the_answer_instead() {
    let scene = Scene::with_body(Limits::default(), hello);
    let mut viewer = Viewer::meet(&scene).await;
    viewer
        .say("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n")
        .await;
    let (heard, _) = viewer.hear_out().await;
    assert!(
        heard.starts_with("HTTP/1.1 200 OK\r\n") && heard.ends_with("hello"),
        "{heard}"
    );
}

#[tokio::test]
async fn a_panic_costs_one_answer() {
    let scene = Scene::start(Limits::default(), None, |arrival| async move {
        assert_ne!(
            arrival.uri.path(),
            "/trap",
            "this panic is part of the test"
        );
        answer(&arrival, hello())
    });
    let mut trapped = Viewer::meet(&scene).await;
    let mut other = Viewer::meet(&scene).await;
    trapped.say("GET /trap HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(trapped.hear_out().await.0, "");
    other.say("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    other.hear_until("hello").await;
    until("one seat", || scene.edge.stats().open == 1).await;
}

#[tokio::test]
async fn accepted_sockets_inherit_nodelay() {
    use crate::frontend::{BoundListener, ListenAddress, Listener, listen::ListeningSocket};
    let address = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
    let door = BoundListener::bind(&Listener { address, tls: None }).unwrap();
    let ListeningSocket::Tcp(socket) = door.socket else {
        unreachable!()
    };
    let socket = tokio::net::TcpListener::from_std(socket).unwrap();
    let _viewer = tokio::net::TcpStream::connect(socket.local_addr().unwrap())
        .await
        .unwrap();
    assert!(socket.accept().await.unwrap().0.nodelay().unwrap());
}
