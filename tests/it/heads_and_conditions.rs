//! HEAD and conditional requests cost no more than necessary and disturb no other request.

use std::time::Duration;

use crate::support::origin::{Reply, Script};
use crate::support::{Gate, Origin, Shield, get, head, manifest, noise, playlist, segment, status};

const PATH: &str = "/vod/seg1.ts";

/// A HEAD miss, then GET: the GET gets a whole body.
#[tokio::test]
async fn get_after_head_miss_gets_whole_body() {
    let body = noise(1, 1000);
    let origin = Origin::start().await.on(PATH, segment(body.clone()));
    let shield = Shield::in_front_of(&origin).start().await;
    let mut viewer = shield.viewer().await;
    let answer = viewer.ask(head(PATH)).await;
    answer.assert_is(200, "");
    assert_eq!(answer.header("content-length"), Some("1000"));
    viewer.get(PATH).await.assert_whole(&body);
    assert!(viewer.get(PATH).await.assert_whole(&body).is_hit());
}

/// HEAD is answered from what a GET stored, with the same fields.
#[tokio::test]
async fn head_is_answered_from_object_stored_by_get() {
    let object = segment(noise(1, 1000)).etag("\"1\"");
    let origin = Origin::start().await.on(PATH, object);
    let shield = Shield::in_front_of(&origin).start().await;
    let mut viewer = shield.viewer().await;
    let whole = viewer.get(PATH).await;
    let answer = viewer.ask(head(PATH)).await;
    answer.assert_is(200, "");
    assert!(answer.is_hit());
    for name in ["content-length", "content-type", "etag"] {
        assert_eq!(answer.header(name), whole.header(name), "{name}");
    }
    assert_eq!(origin.hits(PATH), 1);
}

/// HEAD during a fill does not wait for the body and starts no request.
#[tokio::test]
async fn head_during_fill_does_not_wait_for_body() {
    let (gate, body) = (Gate::new(), noise(1, 1000));
    let half = segment(body.slice(..500))
        .hold(&gate)
        .send(body.slice(500..));
    let origin = Origin::start().await.on(PATH, half);
    let shield = Shield::in_front_of(&origin).start().await;
    let mut filling = shield.begin(get(PATH)).await;
    filling.read(500).await;
    let answer = shield.ask(head(PATH)).await;
    answer.assert_is(200, "");
    gate.open();
    filling.finish().await.assert_whole(&body);
    assert_eq!(origin.hits(PATH), 1);
}

/// If-None-Match on a miss: a plain GET upstream, 304 to the viewer.
#[tokio::test]
async fn if_none_match_on_miss_is_not_forwarded_and_gets_304() {
    let object = segment("whole").header("ETag", "\"1\"");
    let origin = Origin::start().await.on(PATH, object);
    let shield = Shield::in_front_of(&origin).start().await;
    let answer = shield.ask(get(PATH).header("If-None-Match", "\"1\"")).await;
    answer.assert_is(304, "");
    assert_eq!(answer.header("etag"), Some("\"1\""));
    assert_eq!(origin.latest(PATH).header("if-none-match"), None);
    assert!(shield.get(PATH).await.assert_whole("whole").is_hit());
}

/// Conditions against a stored object: 304 on a match, the whole object otherwise.
#[tokio::test]
async fn conditional_requests_are_evaluated_on_hits() {
    const DATE: &str = "Wed, 01 Jan 2025 00:00:00 GMT";
    const BEFORE: &str = "Tue, 31 Dec 2024 00:00:00 GMT";
    let object = segment("whole")
        .header("ETag", "\"1\"")
        .header("Last-Modified", DATE);
    let origin = Origin::start().await.on(PATH, object);
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole("whole");
    let cases = [
        ("If-None-Match", "\"1\"", 304),
        ("If-None-Match", "W/\"1\"", 304),
        ("If-None-Match", "\"0\", \"1\"", 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", "\"2\"", 200),
        ("If-Modified-Since", DATE, 304),
        ("If-Modified-Since", BEFORE, 200),
        ("If-Match", "\"2\"", 412),
        ("If-Match", "\"1\"", 200),
        ("If-Unmodified-Since", BEFORE, 412),
    ];
    for (name, value, expected) in cases {
        let answer = shield.ask(get(PATH).header(name, value)).await;
        assert_eq!(answer.status, expected, "{name}: {value}: {answer:?}");
    }
    assert_eq!(origin.hits(PATH), 1);
}

/// `If-None-Match` takes precedence over `If-Modified-Since`.
#[tokio::test]
async fn if_none_match_takes_precedence_over_if_modified_since() {
    const DATE: &str = "Wed, 01 Jan 2025 00:00:00 GMT";
    let object = segment("whole")
        .header("ETag", "\"2\"")
        .header("Last-Modified", DATE);
    let origin = Origin::start().await.on(PATH, object);
    let shield = Shield::in_front_of(&origin).start().await;
    let ask = get(PATH)
        .header("If-None-Match", "\"1\"")
        .header("If-Modified-Since", DATE);
    shield.ask(ask).await.assert_whole("whole");
}

/// The origin confirms with a 304: the body stays, its fields are updated, and it is fresh again.
#[tokio::test]
async fn revalidation_304_makes_stored_object_fresh_again() {
    const PLAYLIST: &str = "/live/index.m3u8";
    let stale = manifest(playlist(1))
        .cache_control("max-age=1, stale-if-error=60")
        .age(10)
        .header("ETag", "\"1\"")
        .header("X-Turn", "first");
    let confirmed = status(304)
        .cache_control("max-age=2")
        .header("ETag", "\"1\"")
        .header("X-Turn", "second");
    let origin = Origin::start().await.on(PLAYLIST, stale.then(confirmed));
    let shield = Shield::in_front_of(&origin).start().await;
    let first = shield.get(PLAYLIST).await;
    assert_eq!(
        first.assert_whole(playlist(1)).header("x-turn"),
        Some("first")
    );
    let renewed = shield.repeat_until(get(PLAYLIST), |answer| {
        answer.header("x-turn") == Some("second")
    });
    let renewed = renewed.await;
    assert!(renewed.assert_whole(playlist(1)).age() <= 2, "{renewed:?}");
    let asked = origin.requests(PLAYLIST);
    assert_eq!(asked[0].header("if-none-match"), None);
    assert_eq!(asked[1].header("if-none-match"), Some("\"1\""));
}

/// Fields of a 304 that describe a body do not replace those of the stored body.
#[tokio::test]
async fn revalidation_304_does_not_replace_content_fields() {
    const PLAYLIST: &str = "/live/index.m3u8";
    let stale = manifest(playlist(1))
        .cache_control("max-age=1, stale-if-error=60")
        .age(10)
        .header("ETag", "\"1\"");
    let confirmed = status(304)
        .cache_control("max-age=2")
        .content_type("text/html")
        .header("Content-Encoding", "gzip")
        .header("X-Turn", "second");
    let origin = Origin::start().await.on(PLAYLIST, stale.then(confirmed));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PLAYLIST).await.assert_whole(playlist(1));
    let renewed = shield.repeat_until(get(PLAYLIST), |answer| {
        answer.header("x-turn") == Some("second")
    });
    let renewed = renewed.await;
    assert_eq!(
        renewed.header("content-type"),
        Some("application/vnd.apple.mpegurl")
    );
    assert_eq!(renewed.header("content-encoding"), None);
    renewed.assert_whole(playlist(1));
}

/// HEAD on an uncacheable object: `Content-Length` is the origin's or absent, and never 0.
#[tokio::test]
async fn head_of_uncacheable_object_has_origin_length_or_none() {
    let body = noise(1, 1000);
    let object = segment(body.clone()).cache_control("private");
    let origin = Origin::start().await.on(PATH, object);
    let shield = Shield::in_front_of(&origin).start().await;
    let mut viewer = shield.viewer().await;
    for _ in 0..3 {
        let answer = viewer.ask(head(PATH)).await;
        answer.assert_is(200, "");
        let length = answer.header("content-length").unwrap_or("1000");
        assert_eq!(length, "1000", "{answer:?}");
        viewer.get(PATH).await.assert_whole(&body);
    }
}

const LIVE: &str = "/live/index.m3u8";

/// A playlist that may be served stale only if the origin fails, and is revalidated by every
/// viewer.
fn overdue() -> Reply {
    manifest(playlist(1))
        .cache_control("max-age=1, stale-if-error=60")
        .age(10)
}

/// A shield whose viewers wait for the origin rather than get a stale object.
async fn patient(script: Script) -> (Origin, Shield) {
    let origin = Origin::start().await.on(LIVE, script);
    let shield = Shield::in_front_of(&origin)
        .proxy_settings(|waits| waits.stale_wait_max = Duration::from_hours(1))
        .start()
        .await;
    (origin, shield)
}

/// A 304 to a request without a validator confirms nothing: the object is requested again.
#[tokio::test]
async fn rejects_304_without_validator() {
    let new = manifest(playlist(2)).cache_control("max-age=60");
    let (origin, shield) = patient(overdue().then(status(304)).then(new)).await;
    shield.get(LIVE).await.assert_whole(playlist(1));
    shield.get(LIVE).await.assert_whole(playlist(2));
    assert!(shield.get(LIVE).await.assert_whole(playlist(2)).is_hit());
    assert_eq!(origin.hits(LIVE), 3);
}

/// A 304 with another validator than the stored object's: the object is requested again,
/// unconditionally.
#[tokio::test]
async fn refetches_after_304_with_another_validator() {
    let old = overdue().header("ETag", "\"1\"");
    let new = manifest(playlist(2)).cache_control("max-age=60");
    let new = new.header("ETag", "\"2\"");
    let confused = status(304).header("ETag", "\"2\"");
    let (origin, shield) = patient(old.then(confused).then(new)).await;
    shield.get(LIVE).await.assert_whole(playlist(1));
    let answer = shield.get(LIVE).await;
    assert_eq!(
        answer.assert_whole(playlist(2)).header("etag"),
        Some("\"2\"")
    );
    let asked = origin.requests(LIVE);
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[1].header("if-none-match"), Some("\"1\""));
    assert_eq!(asked[2].header("if-none-match"), None);
}

/// A 304 without `must-revalidate` leaves the stored directive in force.
#[tokio::test]
async fn revalidation_304_keeps_stored_must_revalidate() {
    let strict = manifest(playlist(1))
        .cache_control("max-age=0, must-revalidate")
        .etag("\"1\"");
    let confirmed = status(304).header("ETag", "\"1\"").header("Expires", "0");
    let (origin, shield) = patient(strict.then(confirmed)).await;
    for _ in 0..2 {
        shield.get(LIVE).await.assert_whole(playlist(1));
    }
    assert_eq!(origin.hits(LIVE), 2);
    origin.stop().await;
    assert_eq!(shield.get(LIVE).await.status, 504);
}
