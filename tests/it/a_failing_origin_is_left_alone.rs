//! A failing origin gets few requests: viewers get the stored object or an error at once.

use std::time::{Duration, Instant};

use crate::support::metrics::{BREAKER_OPENED, ORIGIN_REQUESTS, REQUESTS};
use crate::support::shield::{Builder, endpoint};
use crate::support::viewer::Viewer;
use crate::support::{
    Gate, Origin, Shield, eventually, get, hang_up, manifest, noise, playlist, segment, status,
};

const PATH: &str = "/0/index.m3u8";

/// A segment of one of three channels.
fn path(piece: usize) -> String {
    format!("/{}/{piece}.ts", piece % 3)
}

/// The breaker opens after three failures and probes only after an hour.
fn touchy(origin: &Origin) -> Builder {
    Shield::in_front_of(origin)
        .origin(|group| {
            let breaker = &mut group.guards.breaker;
            breaker.failed_urls_min = 3;
            breaker.probe_after = Duration::from_hours(1);
            breaker.probe_after_max = Duration::from_hours(1);
            group.retry.attempts_max = 0;
        })
        .proxy_settings(|waits| waits.failure_backoff = Duration::ZERO)
}

async fn failing(paths: usize) -> Origin {
    let mut origin = Origin::start().await;
    for piece in 0..paths {
        origin = origin.on(&path(piece), hang_up());
    }
    origin
}

/// After the breaker has opened, no request reaches the origin, and viewers get an error at once.
#[tokio::test]
async fn answers_503_without_origin_request_while_breaker_is_open() {
    let origin = failing(10).await;
    let shield = touchy(&origin).start().await;
    for piece in 0..3 {
        assert_eq!(shield.get(&path(piece)).await.status, 502);
    }
    for piece in 3..10 {
        let path = path(piece);
        let answer = shield.get(&path).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        assert_eq!(origin.hits(&path), 0);
    }
    let open = [("state", "open")];
    assert_eq!(shield.counter("seawall_origin_breaker", &open).await, 1);
}

/// A stored object is served without waiting for the origin.
#[tokio::test]
async fn serves_stale_at_once_while_breaker_is_open() {
    let silence = Gate::new();
    let overdue = manifest(playlist(1))
        .cache_control("max-age=1, stale-if-error=60")
        .age(10);
    let origin = failing(3).await.on(
        PATH,
        overdue.then(manifest(playlist(2)).hold_head(&silence)),
    );
    let shield = touchy(&origin)
        .origin(|group| group.guards.breaker.error_share = 0.5)
        .proxy_settings(|waits| waits.stale_wait_max = Duration::from_hours(1))
        .start()
        .await;
    shield.get(PATH).await.assert_whole(playlist(1));
    for piece in 0..3 {
        shield.get(&path(piece)).await;
    }
    let answer = shield.get(PATH).await;
    answer.assert_whole(playlist(1));
    assert_eq!(origin.hits(PATH), 1, "no viewer waited for the origin");
}

/// One request probes whether the origin is back; then all requests pass again.
#[tokio::test]
async fn breaker_closes_after_one_successful_probe() {
    let origin = failing(3).await.on("/0/back.ts", segment("whole"));
    let shield = touchy(&origin)
        .origin(|group| {
            group.guards.breaker.probe_after = Duration::from_millis(1);
            group.guards.breaker.probe_after_max = Duration::from_millis(1);
        })
        .start()
        .await;
    for piece in 0..3 {
        shield.get(&path(piece)).await;
    }
    let answered = |answer: &crate::support::Response| answer.status == 200;
    shield.repeat_until(get("/0/back.ts"), answered).await;
    let closed = [("state", "closed")];
    assert_eq!(shield.counter("seawall_origin_breaker", &closed).await, 1);
}

/// While another endpoint answers, the probe is a HEAD request in the background: no viewer waits
/// for it.
#[tokio::test]
async fn probes_in_background_while_another_endpoint_answers() {
    let silence = Gate::new();
    let mut first = failing(3).await;
    let mut second = Origin::start().await;
    for piece in 0..3 {
        second = second.on(&path(piece), status(500));
    }
    for piece in 3..10 {
        let path = path(piece);
        first = first.on(&path, segment("first").hold_head(&silence));
        second = second.on(&path, segment("second"));
    }
    let shield = touchy(&first)
        .origin(|group| {
            group.endpoints.push(endpoint(&second));
            group.retry.attempts_max = 1;
            group.guards.breaker.probe_after = Duration::from_millis(1);
            group.guards.breaker.probe_after_max = Duration::from_millis(1);
        })
        .start()
        .await;
    for piece in 0..3 {
        assert_eq!(shield.get(&path(piece)).await.status, 500);
    }
    let mut heads = 0;
    for piece in 3..10 {
        let path = path(piece);
        shield.get(&path).await.assert_whole("second");
        let asked = first.requests(&path);
        assert!(asked.iter().all(|request| request.method == "HEAD"));
        heads += asked.len();
    }
    silence.open();
    let closed = [("endpoint", &*format!("http://{}", first.address()))];
    eventually("the first endpoint is good again", async || {
        let labels = [closed[0], ("state", "closed")];
        shield.counter("seawall_origin_breaker", &labels).await == 1
    })
    .await;
    assert!(heads <= 7, "{heads}");
}

/// An endpoint that fails repeatedly is used after the others.
#[tokio::test]
async fn endpoint_that_fails_repeatedly_is_ejected() {
    let (mut first, mut second) = (Origin::start().await, Origin::start().await);
    for piece in 0..10 {
        let path = format!("/{piece}.ts");
        first = first.on(&path, status(503));
        second = second.on(&path, segment("second"));
    }
    let shield = Shield::in_front_of(&first)
        .origin(|group| {
            group.endpoints.push(endpoint(&second));
            group.guards.ejection.failures = 2;
            group.guards.ejection.base = Duration::from_hours(1);
        })
        .start()
        .await;
    for piece in 0..10 {
        let path = format!("/{piece}.ts");
        shield.get(&path).await.assert_whole("second");
    }
    let asked: usize = (0..10)
        .map(|piece| first.hits(&format!("/{piece}.ts")))
        .sum();
    assert_eq!(asked, 2);
    let ejected = shield.counter("seawall_origin_ejected", &[]).await;
    assert_eq!(ejected, 1);
    let status = shield.admin(get("/status")).await;
    let status: serde_json::Value = serde_json::from_str(status.text()).unwrap();
    let endpoints = &status["origins"][0]["endpoints"];
    assert_eq!(endpoints[0]["ejected"], true);
    assert_eq!(endpoints[1]["requests"]["2xx"], 10);
}

/// With an open breaker requests are rejected before the queue: waiting for a permit would be
/// useless.
#[tokio::test]
async fn open_breaker_rejects_before_the_concurrency_queue() {
    let silence = Gate::new();
    let origin = failing(4)
        .await
        .on("/0/hangs.ts", segment("late").hold_head(&silence));
    let shield = touchy(&origin)
        .origin(|group| {
            group.concurrency_max = 2;
            group.deadlines.queue = Duration::from_hours(1);
        })
        .proxy_settings(|waits| waits.wait_max = Duration::from_hours(1))
        .start()
        .await;
    let hanging = shield.crowd(1, get("/0/hangs.ts")).await;
    origin.wait_hits("/0/hangs.ts", 1).await;
    for piece in 0..3 {
        shield.get(&path(piece)).await;
    }
    let also = shield.get(&path(3)).await;
    assert_eq!((also.status, origin.hits(&path(3))), (503, 0));
    silence.open();
    hanging.read_all().await[0].assert_whole("late");
}

/// An upload that its viewer breaks off says nothing about the origin and does not open its
/// breaker.
#[tokio::test]
async fn aborted_uploads_do_not_open_the_breaker() {
    let origin = Origin::start().await.on("/a.ts", segment("whole"));
    let shield = touchy(&origin)
        .route(|route| route.pass_methods = true)
        .start()
        .await;
    for _ in 0..6 {
        let mut viewer = shield.viewer().await;
        let head = "PUT /up HTTP/1.1\r\nHost: media.test\r\nContent-Length: 10\r\n\r\nhalf";
        viewer.send_raw(head.as_bytes()).await;
        drop(viewer);
    }
    let ended = async || shield.counter(REQUESTS, &[]).await >= 6;
    eventually("their requests ended", ended).await;
    shield.get("/a.ts").await.assert_whole("whole");
    assert_eq!(shield.counter(BREAKER_OPENED, &[]).await, 0);
}

/// A viewer who uploads slowly does not open it either: the origin gets the request only when the
/// body is complete.
#[tokio::test]
async fn stalled_uploads_do_not_open_the_breaker() {
    let origin = Origin::start().await.on("/a.ts", segment("whole"));
    let shield = touchy(&origin)
        .route(|route| route.pass_methods = true)
        .start()
        .await;
    let mut stalling = Vec::new();
    for _ in 0..6 {
        let mut viewer = shield.viewer().await;
        let head = "PUT /up HTTP/1.1\r\nHost: media.test\r\nContent-Length: 10\r\n\r\nhalf";
        viewer.send_raw(head.as_bytes()).await;
        stalling.push(viewer);
    }
    shield.get("/a.ts").await.assert_whole("whole");
    assert_eq!(origin.hits("/up"), 0);
    drop(stalling);
    let ended = async || shield.counter(REQUESTS, &[]).await >= 7;
    eventually("their requests ended", ended).await;
    assert_eq!(origin.hits("/up"), 0);
    assert_eq!(shield.counter(BREAKER_OPENED, &[]).await, 0);
}

/// Viewers who read a pass-through body more slowly than the origin's total deadline allows do not
/// open the breaker, and get the whole body.
#[tokio::test]
async fn slow_readers_do_not_open_the_breaker() {
    const TOTAL: Duration = Duration::from_millis(500);
    let large = noise(0, 16 << 20);
    let passed = segment(large.clone()).cache_control("no-store");
    let origin = Origin::start()
        .await
        .on("/large.ts", passed)
        .on("/a.ts", segment("whole"));
    let shield = touchy(&origin)
        .origin(|group| {
            group.deadlines.total = TOTAL;
            group.deadlines.between_bytes = Duration::from_hours(1);
        })
        .start()
        .await;
    let mut readers = Vec::new();
    for _ in 0..6 {
        let viewer = Viewer::connect_with_small_buffer(shield.address()).await;
        readers.push(viewer.begin(get("/large.ts")).await);
    }
    let began = Instant::now();
    eventually("the time to be over", async || began.elapsed() > TOTAL).await;
    for reader in readers {
        reader.finish().await.assert_whole(&large);
    }
    let truncated = [("result", "truncated")];
    assert_eq!(shield.counter(ORIGIN_REQUESTS, &truncated).await, 0);
    shield.get("/a.ts").await.assert_whole("whole");
    assert_eq!(shield.counter(BREAKER_OPENED, &[]).await, 0);
}
