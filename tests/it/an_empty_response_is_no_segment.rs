//! An empty response is no segment, part or initialization segment: it is requested elsewhere, and
//! never stored.

use std::time::Duration;

use crate::support::origin::Reply;
use crate::support::{Origin, Shield, reply, segment};

const HOUR: Duration = Duration::from_hours(1);

fn nothing() -> [Reply; 3] {
    let empty = || segment("").cache_control("max-age=86400");
    [empty(), empty().chunked(), empty().etag("\"1\"")]
}

#[tokio::test]
async fn empty_media_response_is_requested_from_other_endpoint() {
    for path in [
        "/live/1.ts",
        "/live/1.m4s",
        "/live/init.mp4",
        "/live/21.0.mp4",
    ] {
        for empty in nothing() {
            let first = Origin::start().await.on(path, empty);
            let second = Origin::start().await.on(path, segment("whole"));
            let shield = Shield::in_front_of(&first)
                .and_endpoint(&second)
                .start()
                .await;
            shield.get(path).await.assert_whole("whole");
            assert!(shield.get(path).await.assert_whole("whole").is_hit());
            assert_eq!((first.hits(path), second.hits(path)), (1, 1), "{path}");
        }
    }
}

/// An encoder creates the file first: the bytes are there a moment later.
#[tokio::test]
async fn empty_segment_is_requested_once_more() {
    for empty in nothing() {
        let script = empty.then(segment("written"));
        let origin = Origin::start().await.on("/1.ts", script);
        let shield = Shield::in_front_of(&origin).start().await;
        shield.get("/1.ts").await.assert_whole("written");
        assert!(shield.get("/1.ts").await.assert_whole("written").is_hit());
        assert_eq!(origin.hits("/1.ts"), 2);
    }
}

/// An object that stays empty counts as a failure, and is forgotten like any other failure.
#[tokio::test]
async fn empty_segment_gets_502_and_is_not_stored() {
    for empty in nothing() {
        let script = empty.clone().then(empty).then(segment("written"));
        let origin = Origin::start().await.on("/1.ts", script);
        let shield = Shield::in_front_of(&origin)
            .proxy_settings(|waits| waits.failure_backoff = Duration::ZERO)
            .start()
            .await;
        assert_eq!(shield.get("/1.ts").await.status, 502);
        shield.get("/1.ts").await.assert_whole("written");
        assert_eq!(origin.hits("/1.ts"), 3);
    }
}

/// A thousand viewers of it do not cause a thousand requests.
#[tokio::test]
async fn empty_segment_is_not_requested_again_during_backoff() {
    let origin = Origin::start().await.on("/1.ts", segment(""));
    let shield = Shield::in_front_of(&origin)
        .proxy_settings(|waits| waits.failure_backoff = HOUR)
        .start()
        .await;
    for _ in 0..5 {
        assert_eq!(shield.get("/1.ts").await.status, 502);
    }
    assert_eq!(origin.hits("/1.ts"), 2);
}

/// Other kinds of objects may be empty.
#[tokio::test]
async fn empty_non_media_response_is_stored() {
    let beacon = reply()
        .content_type("text/plain")
        .cache_control("max-age=60");
    let origin = Origin::start().await.on("/beacon", beacon);
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get("/beacon").await.assert_whole("");
    assert!(shield.get("/beacon").await.assert_whole("").is_hit());
}
