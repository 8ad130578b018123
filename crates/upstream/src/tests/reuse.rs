//! Connections are reused, also when the origin has closed them meanwhile.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::sync::{Barrier, Notify};

use super::scripted::Scripted;
use super::{LONG, endpoint, get, origin, request, settings, whole};
use crate::{Endpoint, Failure, Origin, Resolver};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn idle_connection_is_reused() {
    let script = Scripted::always(OK).await;
    let origin = origin(settings(script.address));
    for _ in 0..5 {
        assert_eq!(whole(&origin, get("/x")).await.unwrap().1, "ok");
    }
    assert_eq!(script.accepted(), 1);
    let stats = origin.stats();
    assert_eq!(
        (stats.total.connections_new, stats.total.connections_reused),
        (1, 4)
    );
}

#[tokio::test]
async fn connection_close_prevents_reuse() {
    let script =
        Scripted::always("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
            .await;
    let origin = origin(settings(script.address));
    for _ in 0..2 {
        assert_eq!(whole(&origin, get("/x")).await.unwrap().1, "ok");
    }
    assert_eq!(script.accepted(), 2);
}

/// Answers the first request of the first `dead` connections, and closes them at the second one,
/// like an origin with an idle timeout.
async fn closes_when_asked_again(dead: usize) -> Scripted {
    let meeting = Arc::new(Barrier::new(dead));
    Scripted::play(move |mut wire| {
        let meeting = meeting.clone();
        async move {
            if wire.number < dead {
                wire.request().await;
                // All are open at once, so that the pool holds this many.
                meeting.wait().await;
                wire.say(OK).await;
                wire.request().await;
                return;
            }
            while wire.request().await.is_some() {
                wire.say(OK).await;
            }
        }
    })
    .await
}

async fn fill_pool(origin: &Arc<Origin>, connections: usize) {
    let asking = (0..connections).map(|_| {
        let origin = Arc::clone(origin);
        tokio::spawn(async move { whole(&origin, get("/fill")).await.unwrap() })
    });
    for asked in asking.collect::<Vec<_>>() {
        asked.await.unwrap();
    }
}

#[tokio::test]
async fn reset_on_reused_connection_is_resent_on_a_new_one() {
    let script = closes_when_asked_again(3).await;
    let origin = origin(settings(script.address));
    fill_pool(&origin, 3).await;
    assert_eq!(whole(&origin, get("/x")).await.unwrap().1, "ok");
    assert_eq!(script.accepted(), 4);
    let stats = origin.stats();
    assert_eq!((stats.total.resent, stats.total.success), (1, 4));
}

#[tokio::test]
async fn post_uses_a_new_connection() {
    let script = closes_when_asked_again(1).await;
    let origin = origin(settings(script.address));
    fill_pool(&origin, 1).await;
    let answer = whole(&origin, request(Method::POST, "/x")).await;
    assert_eq!(answer.unwrap().1, "ok");
    assert_eq!(script.accepted(), 2);
    assert_eq!(origin.stats().total.resent, 0);
}

#[tokio::test]
async fn reset_on_new_connection_is_not_resent() {
    let script = Scripted::once("").await;
    let mut settings = settings(script.address);
    settings.retry.attempts_max = 0;
    let origin = origin(settings);
    let (failure, _) = whole(&origin, get("/x")).await.unwrap_err();
    assert_eq!(failure, Failure::Reset);
    assert_eq!(script.accepted(), 1);
}

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";
const BUSY_CHUNKED: &str = "HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\n\r\n\
                            4\r\nbusy\r\n0\r\n\r\n";

/// The first endpoint refuses, the second answers; the first is never ejected for that.
fn refused_then_answered(first: &Scripted, second: &Scripted) -> Arc<Origin> {
    let mut settings = settings(first.address);
    settings.endpoints.push(endpoint(second.address));
    settings.guards.ejection.failures = u32::MAX;
    settings.guards.breaker.failed_urls_min = u32::MAX;
    settings.retry.budget.share = 1.0;
    origin(settings)
}

#[tokio::test]
async fn rejected_response_is_drained_and_connection_reused() {
    for busy in [BUSY, BUSY_CHUNKED] {
        let (first, second) = (Scripted::always(busy).await, Scripted::always(OK).await);
        let origin = refused_then_answered(&first, &second);
        for _ in 0..6 {
            assert_eq!(whole(&origin, get("/x")).await.unwrap().1, "ok");
        }
        assert_eq!((first.accepted(), second.accepted()), (1, 1));
        let stats = origin.stats().endpoints;
        assert_eq!(stats[0].counts.connections_reused, 5);
    }
}

#[tokio::test]
async fn long_or_incomplete_rejected_response_closes_connection() {
    let long = "HTTP/1.1 503 Busy\r\nContent-Length: 70000\r\n\r\nmuch";
    let endless = "HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmuch\r\n";
    let late = "HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nmuch";
    for answer in [long, endless, late] {
        let closed = Arc::new(Notify::new());
        let first = Scripted::play({
            let closed = closed.clone();
            move |mut wire| {
                let closed = closed.clone();
                async move {
                    wire.request().await;
                    wire.say(answer).await;
                    wire.closed().await;
                    closed.notify_one();
                }
            }
        })
        .await;
        let second = Scripted::always(OK).await;
        let origin = refused_then_answered(&first, &second);
        assert_eq!(whole(&origin, get("/x")).await.unwrap().1, "ok");
        let left = tokio::time::timeout(LONG, closed.notified()).await;
        left.expect("the connection is closed");
    }
}

#[tokio::test]
async fn breaker_probes_reuse_one_connection() {
    let failing = "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n";
    let (first, second) = (Scripted::always(failing).await, Scripted::always(OK).await);
    let mut settings = settings(first.address);
    settings.endpoints.push(endpoint(second.address));
    settings.guards.breaker.failed_urls_min = 1;
    settings.guards.breaker.probe_after = Duration::from_millis(1);
    settings.guards.breaker.probe_after_max = Duration::from_millis(1);
    let origin = origin(settings);
    assert_eq!(whole(&origin, get("/x")).await.unwrap().1, "ok");
    let asked = || origin.stats().endpoints[0].counts.connections_reused;
    let asking = async {
        while asked() < 5 && first.accepted() == 1 {
            assert_eq!(whole(&origin, get("/x")).await.unwrap().1, "ok");
        }
    };
    let probed = tokio::time::timeout(LONG, asking).await;
    probed.expect("probes");
    assert_eq!(first.accepted(), 1);
}

#[test]
fn one_origin_serves_several_runtimes() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let home = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let script = home.block_on(Scripted::always(OK));
    let origin = origin(settings(script.address));
    for _ in 0..3 {
        // Each runtime ends before the next begins: connections left in the pool must not be waited
        // for.
        let asked = runtime().block_on(whole(&origin, get("/x")));
        assert_eq!(asked.unwrap().1, "ok");
    }
    let idle = runtime();
    assert_eq!(
        idle.block_on(whole(&origin, get("/x"))).unwrap().1,
        "ok",
        "a runtime that stands still afterwards"
    );
    let asked = runtime().block_on(whole(&origin, get("/x")));
    assert_eq!(asked.unwrap().1, "ok");
    assert_eq!(origin.stats().total.success, 5);
    drop(idle);
}

/// One of a name's two addresses returns, the other stays dead: the endpoint is found again,
/// whichever address the resolver returns first.
#[tokio::test]
async fn endpoint_recovers_when_one_of_its_addresses_is_back() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let other = Scripted::always(OK).await;
    for order in [[1, 2], [2, 1]] {
        let mut settings = settings(other.address);
        settings
            .endpoints
            .insert(0, Endpoint::new(false, "two.example", port));
        let lookup: Resolver = Arc::new(move |_, port| {
            let address = |last| std::net::SocketAddr::from(([127, 0, 0, last], port));
            Ok(order.map(address).to_vec())
        });
        let origin = Arc::new(Origin::new(settings, lookup).unwrap());
        let reachable = || origin.stats().endpoints[0].condition.reachable;
        let _ = whole(&origin, get("/x")).await;
        assert!(!reachable());
        let back = tokio::net::TcpListener::bind(("127.0.0.1", port))
            .await
            .unwrap();
        let asking = async {
            while !reachable() {
                let _ = whole(&origin, get("/x")).await;
            }
        };
        let found = tokio::time::timeout(LONG, asking).await;
        found.expect("it is found again");
        drop(back);
    }
}
