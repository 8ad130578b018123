//! Viewers get an error's status without waiting for an error body that stalls.
//!
//! No origin deadline passes within these scenarios.

use std::time::Duration;

use crate::support::origin::Reply;
use crate::support::shield::Builder;
use crate::support::{End, Origin, Shield, manifest, playlist, segment, status};

const HOUR: Duration = Duration::from_hours(1);
const PATH: &str = "/live/index.m3u8";
const SEGMENT: &str = "/live/seg1.ts";

fn in_front_of(origin: &Origin) -> Builder {
    Shield::in_front_of(origin)
        .origin(|group| {
            group.deadlines.between_bytes = HOUR;
            group.deadlines.total = HOUR;
        })
        .route(|route| {
            route.live.cadence = false;
            route.live.prefetch = false;
        })
        .proxy_settings(|waits| {
            waits.wait_max = HOUR;
            waits.failure_backoff = Duration::ZERO;
        })
}

/// Storable errors whose bodies stall or break off.
fn errors() -> Vec<(u16, Reply)> {
    let mut errors = Vec::new();
    for code in [403, 404, 500] {
        let begun = || status(code).cache_control("max-age=60");
        let with_length = begun().content_length(100).send("not ");
        errors.push((code, with_length.clone().stall()));
        errors.push((code, with_length.close()));
        errors.push((code, begun().chunked().send("not ").stall()));
    }
    errors
}

#[tokio::test]
async fn serves_error_status_when_its_body_stalls() {
    for (code, error) in errors() {
        let origin = Origin::start().await.on(SEGMENT, error);
        let shield = in_front_of(&origin).start().await;
        let answer = shield.get(SEGMENT).await;
        assert_eq!((answer.status, answer.end), (code, End::Whole));
    }
}

/// The endpoint does not get the request again when another endpoint has the object.
#[tokio::test]
async fn other_endpoint_answers_when_error_body_stalls() {
    for (code, error) in errors() {
        let list = manifest(playlist(1)).cache_control("max-age=60");
        let first = Origin::start().await.on(PATH, list).on(SEGMENT, error);
        let second = Origin::start().await.on(SEGMENT, segment("whole"));
        let shield = in_front_of(&first).and_endpoint(&second).start().await;
        shield.get(PATH).await.assert_whole(playlist(1));
        shield.get(SEGMENT).await.assert_whole("whole");
        assert_eq!(first.hits(SEGMENT), 1, "{code}");
    }
}

/// An incomplete error body is not stored.
#[tokio::test]
async fn incomplete_error_body_is_not_stored() {
    let error = status(404).cache_control("max-age=60");
    let begun = error.content_length(100).send("not ").stall();
    let origin = Origin::start()
        .await
        .on(SEGMENT, begun.then(segment("whole")));
    let shield = in_front_of(&origin).start().await;
    assert_eq!(shield.get(SEGMENT).await.status, 404);
    shield.get(SEGMENT).await.assert_whole("whole");
}

/// An error body that arrives is sent and stored as before, however long.
#[tokio::test]
async fn complete_error_body_is_sent_and_stored() {
    for length in [0, 100, 200_000] {
        let page = "n".repeat(length);
        let error = status(404).cache_control("max-age=60").body(page.clone());
        let origin = Origin::start().await.on(SEGMENT, error);
        let shield = in_front_of(&origin).start().await;
        for _ in 0..2 {
            let answer = shield.get(SEGMENT).await;
            assert_eq!((answer.status, answer.text().len()), (404, length));
        }
        assert_eq!(origin.hits(SEGMENT), 1, "{length}");
    }
}
