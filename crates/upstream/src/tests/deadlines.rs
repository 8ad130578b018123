//! Every wait ends.

use std::sync::Arc;
use std::time::Duration;

use super::scripted::Scripted;
use super::{LONG, SHORT, endpoint, get, origin, settings, until, whole};
use crate::Failure;

#[tokio::test]
async fn incomplete_head_times_out_at_first_byte_deadline() {
    let script = Scripted::then_silent("HTTP/1.1 200 OK\r\nContent-").await;
    let mut settings = settings(script.address);
    settings.deadlines.first_byte = SHORT;
    let origin = origin(settings);
    let (failure, _) = whole(&origin, get("/x")).await.unwrap_err();
    assert_eq!(failure, Failure::Timeout);
    let stats = origin.stats();
    assert_eq!(stats.total.failed(failure), 1);
    assert_eq!(stats.in_flight, 0);
}

#[tokio::test]
async fn stalled_body_is_truncated_at_between_bytes_deadline() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    let script = Scripted::then_silent(answer).await;
    let mut settings = settings(script.address);
    settings.deadlines.between_bytes = SHORT;
    let (failure, body) = whole(&origin(settings), get("/x")).await.unwrap_err();
    assert_eq!((failure, &body[..]), (Failure::Truncated, &b"hello"[..]));
}

#[tokio::test]
async fn trickling_body_is_truncated_at_total_deadline() {
    let script = Scripted::play(|mut wire| async move {
        wire.request().await;
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            .await;
        loop {
            wire.say("x").await;
            tokio::time::sleep(SHORT / 8).await;
        }
    })
    .await;
    let mut settings = settings(script.address);
    settings.deadlines.total = SHORT * 6;
    let (failure, body) = whole(&origin(settings), get("/x")).await.unwrap_err();
    assert_eq!(failure, Failure::Truncated);
    assert!(!body.is_empty());
}

/// A body that keeps arriving has no total deadline; the time that its reader takes does not count.
#[tokio::test]
async fn steady_body_may_exceed_total_deadline() {
    const PIECES: usize = 40;
    let script = Scripted::play(|mut wire| async move {
        wire.request().await;
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n")
            .await;
        for _ in 0..PIECES {
            wire.say(&"x".repeat(1000)).await;
            tokio::time::sleep(SHORT / 8).await;
        }
    })
    .await;
    let mut settings = settings(script.address);
    settings.deadlines.total = SHORT * 2;
    let origin = origin(settings);
    assert_eq!(whole(&origin, get("/x")).await.unwrap().1.len(), 40_000);
    let mut response = origin.fetch(get("/x")).await.ok().unwrap();
    let first = response.body.next().await.unwrap().unwrap();
    tokio::time::sleep(SHORT * 4).await;
    let rest = super::body(response).await.unwrap();
    assert_eq!(first.len() + rest.len(), 40_000);
}

#[tokio::test]
async fn total_deadline_ends_the_wait_for_a_head() {
    let script = Scripted::then_silent("").await;
    let mut settings = settings(script.address);
    settings.deadlines.total = SHORT;
    let (failure, _) = whole(&origin(settings), get("/x")).await.unwrap_err();
    assert_eq!(failure, Failure::Timeout);
}

#[tokio::test]
async fn full_permit_queue_fails_as_busy() {
    let script = Scripted::then_silent("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n").await;
    let mut settings = settings(script.address);
    settings.concurrency_max = 1;
    settings.queue_max = 1;
    settings.deadlines.queue = LONG;
    let origin = origin(settings);
    let first = origin.fetch(get("/1")).await.ok().unwrap();
    let second = tokio::spawn({
        let origin = Arc::clone(&origin);
        async move { origin.fetch(get("/2")).await.map(drop) }
    });
    until("one waits", || origin.stats().queued == 1).await;
    assert_eq!(
        origin.fetch(get("/3")).await.err(),
        Some(Failure::Busy),
        "the queue is full"
    );
    drop(first);
    assert_eq!(second.await.unwrap(), Ok(()));
    let stats = origin.stats();
    assert_eq!((stats.in_flight, stats.queued), (0, 0));
}

#[tokio::test]
async fn dropped_fetch_releases_permit_and_counts_as_abandoned() {
    let script = Scripted::then_silent("").await;
    let origin = origin(settings(script.address));
    let asking = tokio::spawn({
        let origin = Arc::clone(&origin);
        async move { origin.fetch(get("/x")).await.map(drop) }
    });
    until("it is under way", || script.accepted() == 1).await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    let stats = origin.stats();
    assert_eq!((stats.in_flight, stats.total.abandoned), (0, 1));
}

/// A port that was closed a moment ago.
async fn port_without_listener() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn next_endpoint_answers_if_the_first_refuses_connections() {
    let gone = port_without_listener().await;
    let script = Scripted::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let mut settings = settings(gone);
    settings.endpoints.push(endpoint(script.address));
    let origin = origin(settings);
    assert_eq!(whole(&origin, get("/x")).await.unwrap().1, "ok");
    assert_eq!(whole(&origin, get("/x")).await.unwrap().1, "ok");
}

#[tokio::test]
async fn unanswered_connect_leaves_time_for_the_next_endpoint() {
    // Reserved for documentation (RFC 5737): no answer, or a router refuses.
    let black_hole = "192.0.2.1:9".parse().unwrap();
    let script = Scripted::once("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let mut settings = settings(black_hole);
    settings.endpoints.push(endpoint(script.address));
    settings.deadlines.connect = SHORT * 4;
    assert_eq!(whole(&origin(settings), get("/x")).await.unwrap().1, "ok");
}

#[tokio::test]
async fn refused_connection_is_a_connect_failure() {
    let origin = origin(settings(port_without_listener().await));
    let (failure, _) = whole(&origin, get("/x")).await.unwrap_err();
    assert_eq!(failure, Failure::Connect);
}

/// The queue used the time, not the endpoint.
#[tokio::test]
async fn time_spent_in_queue_does_not_count_against_endpoint() {
    let slow = Scripted::play(|mut wire| async move {
        while wire.request().await.is_some() {
            tokio::time::sleep(Duration::from_millis(300)).await;
            wire.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
        }
    })
    .await;
    let mut settings = settings(slow.address);
    settings.concurrency_max = 1;
    settings.deadlines.queue = Duration::from_millis(500);
    settings.deadlines.total = Duration::from_millis(500);
    settings.deadlines.first_byte = Duration::from_millis(500);
    settings.retry.attempts_max = 0;
    settings.guards.breaker.failed_urls_min = 1;
    let origin = origin(settings);
    let one = tokio::spawn({
        let origin = Arc::clone(&origin);
        async move { whole(&origin, get("/x")).await }
    });
    tokio::task::yield_now().await;
    let two = whole(&origin, get("/y")).await;
    assert_eq!(one.await.unwrap().unwrap().0, 200);
    assert!(two.is_err());
    let endpoint = &origin.stats().endpoints[0];
    assert_eq!(endpoint.condition.breaker, "closed");
}
