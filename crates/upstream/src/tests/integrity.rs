//! An incomplete body never looks complete.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;

use super::scripted::Scripted;
use super::{get, origin, request, settings, until, whole};
use crate::{Failure, Framing};

/// Sends a response, closes, and returns the result of a GET.
async fn fate(answer: &'static str) -> Result<String, (Failure, String)> {
    let script = Scripted::once(answer).await;
    let text = |body: bytes::Bytes| String::from_utf8(body.to_vec()).unwrap();
    whole(&origin(settings(script.address)), get("/x"))
        .await
        .map(|(_, body)| text(body))
        .map_err(|(failure, body)| (failure, text(body)))
}

fn cut(so_far: &str) -> Result<String, (Failure, String)> {
    Err((Failure::Truncated, so_far.to_owned()))
}

fn not_http() -> Result<String, (Failure, String)> {
    Err((Failure::Protocol, String::new()))
}

#[tokio::test]
async fn close_before_content_length_truncates() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    assert_eq!(fate(answer).await, cut("hello"));
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
    assert_eq!(fate(answer).await, cut(""));
}

#[tokio::test]
async fn missing_last_chunk_truncates() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    assert_eq!(fate(HEAD).await, cut("hello"));
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n";
    assert_eq!(fate(answer).await, cut("hello"));
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel";
    assert_eq!(fate(answer).await, cut("hel"));
}

#[tokio::test]
async fn malformed_chunk_truncates() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n";
    assert_eq!(fate(answer).await, cut("hello"));
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n";
    let (failure, _) = fate(answer).await.unwrap_err();
    assert_eq!(failure, Failure::Truncated);
}

#[tokio::test]
async fn complete_bodies_are_returned() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(fate(answer).await, Ok("hello".into()));
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: x\r\n\r\n";
    assert_eq!(fate(answer).await, Ok("hello world".into()));
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(fate(answer).await, Ok(String::new()));
}

#[tokio::test]
async fn extra_bytes_are_dropped_and_connection_is_not_reused() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and then some";
    let script = Scripted::always(answer).await;
    let origin = origin(settings(script.address));
    for _ in 0..2 {
        let (_, body) = whole(&origin, get("/x")).await.unwrap();
        assert_eq!(body, "hello");
    }
    assert_eq!(script.accepted(), 2);
}

#[tokio::test]
async fn close_delimited_body_is_reported_as_until_close() {
    let script = Scripted::once("HTTP/1.1 200 OK\r\n\r\nhello").await;
    let origin = origin(settings(script.address));
    let response = origin.fetch(get("/x")).await.ok().unwrap();
    assert_eq!(response.framing, Framing::UntilClose);
    assert_eq!(super::body(response).await.unwrap(), "hello");
    assert_eq!(origin.stats().total.success, 1);
    let _ = whole(&origin, get("/x")).await.unwrap();
    assert_eq!(script.accepted(), 2);
}

#[tokio::test]
async fn bodiless_responses_keep_the_connection_reusable() {
    let script = Scripted::play(|mut wire| async move {
        while let Some(head) = wire.request().await {
            let answer = match &head[..6] {
                "HEAD /" => "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
                _ if head.contains("/304") => "HTTP/1.1 304 X\r\nContent-Length: 99\r\n\r\n",
                _ => "HTTP/1.1 204 No Content\r\n\r\n",
            };
            wire.say(answer).await;
        }
    })
    .await;
    let origin = origin(settings(script.address));
    for (method, path) in [
        (Method::HEAD, "/"),
        (Method::GET, "/304"),
        (Method::GET, "/"),
    ] {
        let response = origin.fetch(request(method, path)).await.ok().unwrap();
        assert_eq!(response.framing, Framing::Length(0));
        assert_eq!(super::body(response).await.unwrap(), "");
    }
    assert_eq!(script.accepted(), 1);
    assert_eq!(origin.stats().total.connections_reused, 2);
}

#[tokio::test]
async fn interim_responses_are_skipped_and_101_is_rejected() {
    let answer = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
        HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    assert_eq!(fate(answer).await, Ok("ok".into()));
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
    assert_eq!(fate(answer).await, not_http());
}

#[tokio::test]
async fn rejects_ambiguous_or_malformed_responses() {
    for answer in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        assert_eq!(fate(answer).await, not_http(), "{answer:?}");
    }
}

#[tokio::test]
async fn rejects_oversized_response_head() {
    let script = Scripted::play(|mut wire| async move {
        wire.request().await;
        let field = format!("X-Filler: {}\r\n", "x".repeat(1 << 10));
        wire.say(&format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n",
            field.repeat(80)
        ))
        .await;
        wire.closed().await;
    })
    .await;
    let refused = whole(&origin(settings(script.address)), get("/x")).await;
    assert_eq!(refused.unwrap_err().0, Failure::Protocol);
}

#[tokio::test]
async fn dropped_body_closes_connection_and_releases_permit() {
    let seen = Arc::new(AtomicUsize::new(0));
    let closed = seen.clone();
    let script = Scripted::play(move |mut wire| {
        let closed = closed.clone();
        async move {
            wire.request().await;
            wire.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
                .await;
            wire.closed().await;
            closed.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let origin = origin(settings(script.address));
    let mut response = origin.fetch(get("/x")).await.ok().unwrap();
    assert_eq!(response.body.next().await, Some(Ok("hello".into())));
    assert_eq!(origin.stats().in_flight, 1);
    drop(response);
    until("the connection closed", || seen.load(Ordering::SeqCst) == 1).await;
    let stats = origin.stats();
    assert_eq!((stats.in_flight, stats.total.abandoned), (0, 1));
}

#[tokio::test]
async fn a_large_body_arrives_byte_for_byte() {
    let script = Scripted::play(|mut wire| async move {
        while wire.request().await.is_some() {
            let numbers: Vec<_> = (0..200_000).map(|n| format!("{n:07},")).collect();
            let body = numbers.concat();
            let length = body.len();
            wire.say(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        }
    })
    .await;
    let origin = origin(settings(script.address));
    let (_, body) = whole(&origin, get("/x")).await.unwrap();
    assert_eq!(body.len(), 1_600_000);
    let numbers = body.chunks(8).enumerate();
    assert!(
        numbers
            .into_iter()
            .all(|(n, chunk)| chunk == format!("{n:07},").as_bytes())
    );
    assert_eq!(origin.stats().total.bytes_received, 1_600_000);
}

/// Trailers of any size are dropped: the body was complete before them. Long ones cost the
/// connection.
#[tokio::test]
async fn body_is_complete_with_trailers_of_any_size() {
    for (bytes, connections) in [(1000, 1), (60_000, 1), (200_000, 2)] {
        let script = Scripted::play(move |mut wire| async move {
            while wire.request().await.is_some() {
                let trailer = format!("x-sum: {}\r\n", "y".repeat(bytes));
                let chunks = format!("5\r\nhello\r\n0\r\n{trailer}\r\n");
                wire.say(&format!(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
                ))
                .await;
            }
        })
        .await;
        let origin = origin(settings(script.address));
        for _ in 0..2 {
            let answer = whole(&origin, get("/x")).await;
            assert_eq!(answer, Ok((200, "hello".into())), "{bytes}");
        }
        assert_eq!(script.accepted(), connections, "{bytes}");
    }
}

/// An invalid end is rejected, with trailers or without.
#[tokio::test]
async fn incomplete_trailers_truncate_the_body() {
    for tail in ["0\r\nx-sum: 1\r\n", "0\r\nx-sum: 1\r\n\rx", "0\r\n"] {
        let script = Scripted::play(move |mut wire| async move {
            wire.request().await;
            wire.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
                .await;
            wire.say(tail).await;
        })
        .await;
        let answer = whole(&origin(settings(script.address)), get("/x")).await;
        assert_eq!(answer.unwrap_err().0, Failure::Truncated, "{tail:?}");
    }
}

/// 1xx responses are skipped, up to the number that an origin that reports progress may send.
#[tokio::test]
async fn skips_100_interim_responses_but_not_1000() {
    let script = Scripted::answering(|_| {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n".repeat(100);
        format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    })
    .await;
    let answer = whole(&origin(settings(script.address)), get("/x")).await;
    assert_eq!(answer, Ok((200, "ok".into())));
    let endless = Scripted::answering(|_| "HTTP/1.1 102 Processing\r\n\r\n".repeat(1000)).await;
    let answer = whole(&origin(settings(endless.address)), get("/x")).await;
    assert_eq!(answer.unwrap_err().0, Failure::Protocol);
}
