//! While a stored object may be served, viewers do not see an origin's failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::metrics::{FILLS, ORIGIN_REQUESTS};
use crate::support::origin::Reply;
use crate::support::shield::Builder;
use crate::support::{
    Gate, Origin, Shield, eventually, get, hang_up, manifest, playlist, segment, status,
};

const PATH: &str = "/live/index.m3u8";

/// A playlist that arrives stale and beyond `stale-while-revalidate`, but may be served for a
/// minute if the origin fails.
fn overdue() -> Reply {
    manifest(playlist(1))
        .cache_control("max-age=1, stale-if-error=60")
        .age(10)
}

/// The origin is down within the window: 200 with the right Age, and no error.
#[tokio::test]
async fn serves_stale_while_origin_is_down() {
    let origin = Origin::start().await.on(PATH, overdue());
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole(playlist(1));
    origin.stop().await;
    for _ in 0..10 {
        let answer = shield.get(PATH).await;
        answer.assert_whole(playlist(1));
        assert!((10..30).contains(&answer.age()), "{answer:?}");
    }
}

/// At once, not after the origin's timeout: no head arrives and no origin deadline passes
/// here, yet the viewer gets a response.
#[tokio::test]
async fn serves_stale_at_once_while_origin_is_silent() {
    let silence = Gate::new();
    let script = overdue().then(manifest(playlist(2)).hold_head(&silence));
    let origin = Origin::start().await.on(PATH, script);
    let shield = Shield::in_front_of(&origin)
        .origin(|group| {
            group.deadlines.manifest = Duration::from_hours(1);
            group.deadlines.total = Duration::from_hours(1);
        })
        .proxy_settings(|waits| waits.wait_max = Duration::from_hours(1))
        .start()
        .await;
    shield.get(PATH).await.assert_whole(playlist(1));
    for answer in shield.crowd(20, get(PATH)).await.read_all().await {
        answer.assert_whole(playlist(1));
    }
    assert_eq!(origin.hits(PATH), 2);
}

/// Past the window nothing may be served: 504.
#[tokio::test]
async fn answers_504_after_stale_if_error_window() {
    let past = manifest(playlist(1))
        .cache_control("max-age=1, stale-if-error=1")
        .age(10);
    let origin = Origin::start().await.on(PATH, past);
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.lifetimes.manifest_stale_if_error = Some(Duration::from_secs(1)))
        .start()
        .await;
    shield.get(PATH).await.assert_whole(playlist(1));
    origin.stop().await;
    assert_eq!(shield.get(PATH).await.status, 504);
}

/// Must-revalidate: 504, whatever else is allowed.
#[tokio::test]
async fn must_revalidate_gets_504_while_origin_is_down() {
    for strict in ["must-revalidate", "proxy-revalidate"] {
        let directives = format!("max-age=1, stale-if-error=60, {strict}");
        let overdue = manifest(playlist(1)).cache_control(&directives).age(10);
        let origin = Origin::start().await.on(PATH, overdue);
        let shield = Shield::in_front_of(&origin).start().await;
        shield.get(PATH).await.assert_whole(playlist(1));
        origin.stop().await;
        assert_eq!(shield.get(PATH).await.status, 504, "{strict}");
    }
}

/// 5xx on revalidation: the old object is kept, and the origin gets no request during the
/// back-off.
#[tokio::test]
async fn failed_revalidation_serves_stale_during_backoff() {
    let origin = Origin::start().await.on(PATH, overdue().then(status(503)));
    let shield = Shield::in_front_of(&origin)
        .proxy_settings(|waits| waits.failure_backoff = Duration::from_hours(1))
        .start()
        .await;
    for _ in 0..20 {
        shield.get(PATH).await.assert_whole(playlist(1));
        shield.wait_gauge(FILLS, |fills| fills == 0).await;
    }
    assert_eq!(origin.hits(PATH), 2, "one retry in the whole back-off");
}

/// Nothing is stored: the failure itself is remembered for the back-off.
#[tokio::test]
async fn failed_miss_is_not_requested_during_backoff() {
    let origin = Origin::start().await.on(PATH, status(503));
    let shield = Shield::in_front_of(&origin)
        .proxy_settings(|waits| waits.failure_backoff = Duration::from_hours(1))
        .start()
        .await;
    for _ in 0..20 {
        assert_eq!(shield.get(PATH).await.status, 503);
    }
    assert_eq!(origin.hits(PATH), 2, "once, and one retry");
}

/// The origin returns: fresh within one probe, without a herd of requests.
#[tokio::test]
async fn returning_origin_gets_one_request() {
    let fresh = manifest(playlist(2)).cache_control("max-age=60");
    let origin = Origin::start().await.on(PATH, overdue().then(fresh));
    let shield = Shield::in_front_of(&origin)
        .proxy_settings(|waits| waits.failure_backoff = Duration::from_millis(50))
        .start()
        .await;
    shield.get(PATH).await.assert_whole(playlist(1));
    origin.stop().await;
    for answer in shield.crowd(50, get(PATH)).await.read_all().await {
        answer.assert_whole(playlist(1));
    }
    origin.resume();
    eventually("the new playlist", async || {
        let answers = shield.crowd(50, get(PATH)).await.read_all().await;
        answers
            .iter()
            .all(|answer| answer.assert_200_text() == playlist(2))
    })
    .await;
    assert_eq!(origin.hits(PATH), 2, "one request brought it back");
}

/// Stale while revalidating: no viewer waits, and one request refreshes it for all.
#[tokio::test]
async fn stale_while_revalidate_refreshes_in_background() {
    let gate = Gate::new();
    let stale = segment("old")
        .cache_control("max-age=1, stale-while-revalidate=60")
        .age(10);
    let new = segment("new").cache_control("max-age=60").hold_head(&gate);
    let origin = Origin::start().await.on("/live/seg.ts", stale.then(new));
    let shield = Shield::in_front_of(&origin)
        .proxy_settings(|waits| waits.stale_wait_max = Duration::from_hours(1))
        .start()
        .await;
    shield.get("/live/seg.ts").await.assert_whole("old");
    for answer in shield.crowd(20, get("/live/seg.ts")).await.read_all().await {
        answer.assert_whole("old");
    }
    gate.open();
    let renewed = shield.repeat_until(get("/live/seg.ts"), |answer| answer.text() == "new");
    assert!(renewed.await.is_hit());
    assert_eq!(origin.hits("/live/seg.ts"), 2);
}

/// Another endpoint answers when the first refuses.
#[tokio::test]
async fn second_endpoint_answers_while_first_is_down() {
    let primary = Origin::start().await;
    let secondary = Origin::start().await.on(PATH, overdue());
    let shield = Shield::in_front_of(&primary)
        .and_endpoint(&secondary)
        .start()
        .await;
    primary.stop().await;
    shield.get(PATH).await.assert_whole(playlist(1));
}

/// Names that stop resolving keep their last good addresses.
#[tokio::test]
async fn failed_dns_lookup_keeps_last_addresses() {
    let origin = Origin::start()
        .await
        .on("/a.ts", segment("a"))
        .on("/b.ts", segment("b"));
    let (asked, address) = (Arc::new(AtomicUsize::new(0)), origin.address());
    let count = asked.clone();
    let shield = Shield::in_front_of(&origin)
        .origin(|group| {
            group.endpoints[0].host = "origin.test".to_owned();
            group.resolve_every = Duration::from_millis(10);
        })
        .with_resolver(Arc::new(move |_, _| {
            match count.fetch_add(1, Ordering::Relaxed) {
                0 => Ok(vec![address]),
                _ => Err(std::io::Error::other("no such name")),
            }
        }))
        .start()
        .await;
    shield.get("/a.ts").await.assert_whole("a");
    eventually("more lookups", async || asked.load(Ordering::Relaxed) >= 3).await;
    shield.get("/b.ts").await.assert_whole("b");
}

/// A private error, or one with a cookie, is an error all the same: the stored object is served,
/// and the origin gets no request during the back-off.
#[tokio::test]
async fn serves_stale_on_private_error() {
    let errors = [
        status(503).cache_control("private").body("dear viewer"),
        status(503).header("Set-Cookie", "id=1").body("dear viewer"),
    ];
    for error in errors {
        let old = manifest(playlist(1))
            .cache_control("max-age=1, stale-if-error=600")
            .age(10);
        let origin = Origin::start().await.on(PATH, old.then(error));
        let shield = Shield::in_front_of(&origin)
            .proxy_settings(|waits| waits.failure_backoff = Duration::from_hours(1))
            .start()
            .await;
        for _ in 0..10 {
            let answer = shield.get(PATH).await;
            assert_eq!(answer.assert_whole(playlist(1)).header("set-cookie"), None);
            shield.wait_gauge(FILLS, |fills| fills == 0).await;
        }
        assert_eq!(origin.hits(PATH), 2);
    }
}

/// A 404 or 410 is no failure: it is accepted, and the stored object is dropped.
#[tokio::test]
async fn accepts_404_and_410_and_drops_stored_manifest() {
    for code in [404, 410] {
        let gone = status(code).cache_control("no-store").body("gone");
        let script = overdue().then(gone).then(status(503));
        let origin = Origin::start().await.on(PATH, script);
        let shield = Shield::in_front_of(&origin)
            .proxy_settings(|waits| waits.stale_wait_max = Duration::from_hours(1))
            .start()
            .await;
        shield.get(PATH).await.assert_whole(playlist(1));
        assert_eq!(shield.get(PATH).await.status, code);
        assert_eq!(shield.get(PATH).await.status, 503, "after {code}");
    }
}

/// With `manifest_stale_if_missing`, a manifest that suddenly gets 404 is still served, and
/// `Cache-Status` says why.
#[tokio::test]
async fn serves_stale_within_manifest_stale_if_missing() {
    for code in [403, 404, 410] {
        for directives in ["no-store", "max-age=60", "private"] {
            let flap = status(code).cache_control(directives).body("not there");
            let fresh = manifest(playlist(2)).cache_control("max-age=60");
            let origin = Origin::start().await.on(PATH, overdue().then(flap));
            let shield = doubting(&origin, 30).start().await;
            shield.get(PATH).await.assert_whole(playlist(1));
            for _ in 0..3 {
                let answer = shield.get(PATH).await;
                answer.assert_whole(playlist(1));
                assert!((10..30).contains(&answer.age()), "{answer:?}");
                let said = answer.header("cache-status").unwrap_or_default();
                assert!(said.ends_with("; detail=origin-says-missing"), "{said}");
            }
            assert_eq!(origin.hits(PATH), 4, "{code} {directives}");
            origin.set_script(PATH, fresh);
            shield.get(PATH).await.assert_whole(playlist(2));
        }
    }
}

/// Meanwhile the origin gets no request during the back-off, as after any other failure.
#[tokio::test]
async fn missing_manifest_is_not_requested_during_backoff() {
    let origin = Origin::start().await.on(PATH, overdue().then(status(404)));
    let shield = doubting(&origin, 30)
        .proxy_settings(|waits| waits.failure_backoff = Duration::from_hours(1))
        .start()
        .await;
    for _ in 0..10 {
        shield.get(PATH).await.assert_whole(playlist(1));
    }
    assert_eq!(origin.hits(PATH), 2);
}

/// Past that window, without one, and with directives against stale use, the 404 is accepted.
#[tokio::test]
async fn missing_manifest_is_accepted_outside_stale_if_missing() {
    let strict = manifest(playlist(1))
        .cache_control("max-age=1, must-revalidate")
        .age(10);
    for (held, window) in [(overdue(), 5), (overdue(), 0), (strict, 30)] {
        for code in [403, 404, 410] {
            let script = held.clone().then(status(code).body("not there"));
            let origin = Origin::start().await.on(PATH, script);
            let shield = doubting(&origin, window).start().await;
            shield.get(PATH).await.assert_whole(playlist(1));
            let answer = shield.get(PATH).await;
            assert_eq!((answer.status, answer.text()), (code, "not there"));
        }
    }
}

/// This concerns manifests only: a missing segment is accepted as missing.
#[tokio::test]
async fn missing_segment_is_accepted_at_once() {
    let old = segment("old")
        .cache_control("max-age=1, stale-if-error=60")
        .age(10);
    let origin = Origin::start().await.on("/a.ts", old.then(status(404)));
    let shield = doubting(&origin, 30).start().await;
    shield.get("/a.ts").await.assert_whole("old");
    assert_eq!(shield.get("/a.ts").await.status, 404);
}

/// Covers a missing manifest for this many seconds, and requests it each time.
fn doubting(origin: &Origin, seconds: u64) -> Builder {
    let window = Duration::from_secs(seconds);
    Shield::in_front_of(origin)
        .route(|route| route.lifetimes.manifest_stale_if_missing = window)
        .proxy_settings(|waits| {
            waits.failure_backoff = Duration::ZERO;
            waits.stale_wait_max = Duration::from_hours(1);
        })
}

/// A slow refresh completes even when the viewer who caused it got the stale object and left, and
/// even where fills without viewers are cancelled.
#[tokio::test]
async fn refresh_completes_after_its_viewer_left() {
    let gate = Gate::new();
    let new = manifest(playlist(2))
        .cache_control("max-age=60")
        .hold_head(&gate);
    let origin = Origin::start().await.on(PATH, overdue().then(new));
    let shield = Shield::in_front_of(&origin)
        .proxy_settings(|waits| {
            waits.finish_abandoned = false;
            waits.stale_wait_max = Duration::from_millis(50);
        })
        .start()
        .await;
    shield.get(PATH).await.assert_whole(playlist(1));
    shield.get(PATH).await.assert_whole(playlist(1));
    origin.wait_hits(PATH, 2).await;
    gate.open();
    shield.wait_gauge(FILLS, |fills| fills == 0).await;
    assert!(shield.get(PATH).await.assert_whole(playlist(2)).is_hit());
    assert_eq!(origin.hits(PATH), 2);
}

/// A stored object that may not be served covers nothing: the request is retried as if nothing were
/// stored.
#[tokio::test]
async fn must_revalidate_object_does_not_prevent_retry() {
    let strict = segment("old")
        .cache_control("max-age=1, must-revalidate")
        .age(10);
    for trouble in [status(503), hang_up()] {
        let script = strict.clone().then(trouble).then(segment("new"));
        let origin = Origin::start().await.on("/a.ts", script);
        let shield = Shield::in_front_of(&origin).start().await;
        shield.get("/a.ts").await.assert_whole("old");
        shield.get("/a.ts").await.assert_whole("new");
    }
}

/// Bodies that break off: such a refresh is not repeated at once, though every viewer
/// gets a stale object.
#[tokio::test]
async fn truncated_refresh_is_not_repeated_during_backoff() {
    let stale = segment("whole")
        .cache_control("max-age=1, stale-while-revalidate=60")
        .age(10);
    let half = segment("half").content_length(1000).close();
    let origin = Origin::start().await.on("/a.ts", stale.then(half));
    let shield = Shield::in_front_of(&origin)
        .proxy_settings(|waits| waits.failure_backoff = Duration::from_hours(1))
        .start()
        .await;
    shield.get("/a.ts").await.assert_whole("whole");
    shield.get("/a.ts").await.assert_whole("whole");
    let truncated = [("result", "truncated")];
    eventually("the refresh to break off", async || {
        shield.counter(ORIGIN_REQUESTS, &truncated).await > 0
    })
    .await;
    for _ in 0..20 {
        shield.get("/a.ts").await.assert_whole("whole");
    }
    assert_eq!(origin.hits("/a.ts"), 2);
}
