//! The same guarantees over HTTP/2 with prior knowledge.

mod shared;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{Request, Response};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{SHORT, get, settings, until, whole};
use crate::{Failure, Framing, Origin, Protocol, Settings};

/// One request to the scripted origin.
struct Stream {
    request: Request<h2::RecvStream>,
    respond: SendResponse<Bytes>,
}

impl Stream {
    /// Sends a head, with a length or without; `end` ends the stream with it.
    fn head(&mut self, length: Option<u64>, end: bool) -> SendStream<Bytes> {
        let mut head = Response::new(());
        if let Some(length) = length {
            head.headers_mut().insert("content-length", length.into());
        }
        self.respond.send_response(head, end).unwrap()
    }

    fn whole(&mut self, body: &'static str) {
        let mut sending = self.head(Some(body.len() as u64), false);
        sending.send_data(body.into(), true).unwrap();
    }
}

struct Scripted {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

/// Runs `script` on every stream; after `streams_max` streams a connection sends GOAWAY.
async fn play<F>(streams_max: usize, script: impl Fn(Stream) -> F + Send + 'static) -> Scripted
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    let script = Arc::new(tokio::sync::Mutex::new(script));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let script = script.clone();
            connections.spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut streams = JoinSet::new();
                let mut seen = 0;
                while let Some(Ok((request, respond))) = connection.accept().await {
                    streams.spawn(script.lock().await(Stream { request, respond }));
                    seen += 1;
                    if seen == streams_max {
                        connection.graceful_shutdown();
                    }
                }
            });
        }
    });
    Scripted {
        address,
        accepted,
        _tasks: tasks,
    }
}

fn h2(script: &Scripted) -> Settings {
    let mut settings = settings(script.address);
    settings.protocol = Protocol::H2;
    settings
}

fn origin(script: &Scripted) -> Arc<Origin> {
    super::origin(h2(script))
}

async fn fate(script: &Scripted) -> Result<Bytes, (Failure, Bytes)> {
    whole(&origin(script), get("/x"))
        .await
        .map(|(_, body)| body)
}

#[tokio::test]
async fn requests_share_a_connection() {
    let script = play(usize::MAX, |mut stream| async move {
        assert_eq!(stream.request.uri().scheme_str(), Some("http"));
        assert!(stream.request.uri().authority().is_some());
        assert!(!stream.request.headers().contains_key("host"));
        stream.whole("hello");
    })
    .await;
    let origin = origin(&script);
    for _ in 0..3 {
        assert_eq!(whole(&origin, get("/x")).await.unwrap().1, "hello");
    }
    let bodies: Vec<_> = (0..8)
        .map(|_| {
            let origin = origin.clone();
            tokio::spawn(async move { whole(&origin, get("/x")).await })
        })
        .collect();
    for body in bodies {
        assert_eq!(body.await.unwrap().unwrap().1, "hello");
    }
    assert_eq!(script.accepted.load(Ordering::SeqCst), 1);
    assert_eq!(origin.stats().total.connections_reused, 10);
}

#[tokio::test]
async fn concurrent_first_requests_open_one_connection() {
    let script = play(
        usize::MAX,
        |mut stream| async move { stream.whole("hello") },
    )
    .await;
    let origin = origin(&script);
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let origin = origin.clone();
            tokio::spawn(async move { whole(&origin, get("/x")).await })
        })
        .collect();
    for asked in asking {
        assert_eq!(asked.await.unwrap().unwrap().1, "hello");
    }
    assert_eq!(script.accepted.load(Ordering::SeqCst), 1);
    assert_eq!(origin.stats().total.connections_new, 1);
}

#[tokio::test]
async fn trailers_complete_an_http2_body_without_length() {
    let script = play(usize::MAX, |mut stream| async move {
        let mut sending = stream.head(None, false);
        sending.send_data("hello".into(), false).unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        sending.send_trailers(trailers).unwrap();
    })
    .await;
    let origin = origin(&script);
    let response = origin.fetch(get("/x")).await.ok().unwrap();
    assert_eq!(response.framing, Framing::Delimited);
    assert_eq!(super::body(response).await.unwrap(), "hello");
    assert_eq!(origin.stats().total.success, 1);
}

#[tokio::test]
async fn end_stream_on_head_completes_an_empty_body() {
    let script = play(usize::MAX, |mut stream| async move {
        drop(stream.head(Some(0), true));
    })
    .await;
    assert_eq!(fate(&script).await.unwrap(), "");
}

#[tokio::test]
async fn stream_reset_truncates_the_body() {
    for reason in [Reason::INTERNAL_ERROR, Reason::NO_ERROR, Reason::CANCEL] {
        let read = Arc::new(Notify::new());
        let script = play(usize::MAX, {
            let read = read.clone();
            move |mut stream| {
                let read = read.clone();
                async move {
                    let mut sending = stream.head(None, false);
                    sending.send_data("hello".into(), false).unwrap();
                    read.notified().await;
                    sending.send_reset(reason);
                }
            }
        })
        .await;
        let mut response = origin(&script).fetch(get("/x")).await.ok().unwrap();
        assert_eq!(response.body.next().await, Some(Ok("hello".into())));
        read.notify_one();
        assert_eq!(response.body.next().await, Some(Err(Failure::Truncated)));
    }
}

#[tokio::test]
async fn data_short_of_content_length_truncates() {
    let script = play(usize::MAX, |mut stream| async move {
        let mut sending = stream.head(Some(10), false);
        sending.send_data("hello".into(), true).unwrap();
    })
    .await;
    assert_eq!(fate(&script).await.unwrap_err().0, Failure::Truncated);
}

#[tokio::test]
async fn data_beyond_content_length_truncates() {
    let script = play(usize::MAX, |mut stream| async move {
        let mut sending = stream.head(Some(3), false);
        sending.send_data("hello".into(), true).unwrap();
    })
    .await;
    assert_eq!(fate(&script).await.unwrap_err().0, Failure::Truncated);
}

#[tokio::test]
async fn lost_connection_truncates_the_body() {
    let script = play(usize::MAX, |mut stream| async move {
        let mut sending = stream.head(Some(10), false);
        sending.send_data("hello".into(), false).unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let origin = origin(&script);
    let mut response = origin.fetch(get("/x")).await.ok().unwrap();
    assert_eq!(response.body.next().await, Some(Ok("hello".into())));
    drop(script);
    assert_eq!(response.body.next().await, Some(Err(Failure::Truncated)));
}

#[tokio::test]
async fn stalled_stream_truncates_and_connection_is_not_reused() {
    let script = play(usize::MAX, |mut stream| async move {
        if stream.request.uri().path() == "/stalls" {
            let mut sending = stream.head(Some(10), false);
            sending.send_data("hello".into(), false).unwrap();
            std::future::pending::<()>().await;
        }
        stream.whole("hello");
    })
    .await;
    let mut settings = h2(&script);
    settings.deadlines.between_bytes = SHORT * 3;
    let origin = super::origin(settings);
    let (failure, body) = whole(&origin, get("/stalls")).await.unwrap_err();
    assert_eq!((failure, &body[..]), (Failure::Truncated, &b"hello"[..]));
    assert_eq!(whole(&origin, get("/x")).await.unwrap().1, "hello");
    assert_eq!(script.accepted.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn dropped_body_resets_only_its_stream() {
    let resets = Arc::new(AtomicUsize::new(0));
    let script = play(usize::MAX, {
        let resets = resets.clone();
        move |mut stream| {
            let resets = resets.clone();
            async move {
                if stream.request.uri().path() == "/x" {
                    return stream.whole("hello");
                }
                let mut sending = stream.head(Some(10), false);
                sending.send_data("hello".into(), false).unwrap();
                let reset = std::future::poll_fn(|cx| sending.poll_reset(cx)).await;
                assert_eq!(reset.unwrap(), Reason::CANCEL);
                resets.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let origin = origin(&script);
    let mut response = origin.fetch(get("/long")).await.ok().unwrap();
    assert_eq!(response.body.next().await, Some(Ok("hello".into())));
    drop(response);
    until("the stream is reset", || resets.load(Ordering::SeqCst) == 1).await;
    assert_eq!(whole(&origin, get("/x")).await.unwrap().1, "hello");
    assert_eq!(script.accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn refused_stream_is_resent_on_a_new_connection() {
    let asked = Arc::new(AtomicUsize::new(0));
    let script = play(usize::MAX, move |mut stream| {
        let number = asked.fetch_add(1, Ordering::SeqCst);
        async move {
            if number == 1 {
                return stream.respond.send_reset(Reason::REFUSED_STREAM);
            }
            stream.whole("hello");
        }
    })
    .await;
    let origin = origin(&script);
    for _ in 0..3 {
        assert_eq!(whole(&origin, get("/x")).await.unwrap().1, "hello");
    }
    assert_eq!(script.accepted.load(Ordering::SeqCst), 2);
    assert_eq!(origin.stats().total.resent, 1);
}

#[tokio::test]
async fn connection_with_goaway_is_replaced() {
    let script = play(1, |mut stream| async move { stream.whole("hello") }).await;
    let origin = origin(&script);
    for _ in 0..4 {
        assert_eq!(whole(&origin, get("/x")).await.unwrap().1, "hello");
    }
}

#[tokio::test]
async fn http2_interim_responses_are_skipped() {
    let script = play(usize::MAX, |mut stream| async move {
        for status in [103, 103] {
            let mut interim = Response::new(());
            *interim.status_mut() = http::StatusCode::from_u16(status).unwrap();
            stream.respond.send_informational(interim).unwrap();
            tokio::task::yield_now().await;
        }
        stream.whole("hello");
    })
    .await;
    let origin = origin(&script);
    for _ in 0..2 {
        assert_eq!(
            whole(&origin, get("/x")).await.unwrap(),
            (200, "hello".into())
        );
    }
    assert_eq!(script.accepted.load(Ordering::SeqCst), 1);
}

/// A `Content-Length` on a response without a body is that of the omitted body.
#[tokio::test]
async fn bodiless_http2_responses_may_have_content_length() {
    let script = play(usize::MAX, |mut stream| async move {
        let mut head = Response::new(());
        head.headers_mut().insert("content-length", 9.into());
        if stream.request.method() == http::Method::GET {
            *head.status_mut() = http::StatusCode::NOT_MODIFIED;
        }
        stream.respond.send_response(head, true).unwrap();
    })
    .await;
    let origin = origin(&script);
    for (method, status) in [(http::Method::HEAD, 200), (http::Method::GET, 304)] {
        let request = super::request(method, "/x");
        assert_eq!(
            whole(&origin, request).await.unwrap(),
            (status, Bytes::new())
        );
    }
    assert_eq!(script.accepted.load(Ordering::SeqCst), 1);
}
