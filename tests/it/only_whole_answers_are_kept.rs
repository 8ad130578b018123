//! A malformed or partial response is not stored, and never served as a complete one.

use std::time::Duration;

use crate::support::{Origin, Shield, get, hang_up, noise, reply, segment, status};

const PATH: &str = "/live/seg1.ts";

/// More bytes than promised. The object is exact, and the connection is not reused.
#[tokio::test]
async fn bytes_beyond_content_length_end_connection_reuse() {
    let (body, rest) = (noise(1, 100), "HTTP/1.1 200 OK\r\n\r\n");
    let too_much = [&body[..], rest.as_bytes()].concat();
    let origin = Origin::start()
        .await
        .on(PATH, segment(too_much).content_length(100))
        .on("/next.ts", segment("next"));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole(&body);
    assert!(shield.get(PATH).await.assert_whole(&body).is_hit());
    shield.get("/next.ts").await.assert_whole("next");
    let connections = [PATH, "/next.ts"].map(|path| origin.latest(path).connection);
    assert_ne!(connections[0], connections[1]);
}

/// A body that ends with the connection is passed on and not stored.
#[tokio::test]
async fn close_delimited_body_is_passed_on_and_not_stored() {
    let body = noise(1, 100_000);
    let endless = reply()
        .content_type("video/mp2t")
        .cache_control("max-age=60")
        .until_close();
    let origin = Origin::start().await.on(PATH, endless.send(body.clone()));
    let shield = Shield::in_front_of(&origin).start().await;
    for fetch in 1..=3 {
        shield.get(PATH).await.assert_whole(&body);
        assert_eq!(origin.hits(PATH), fetch);
    }
}

/// 206 to a plain GET is not stored, and not served as the whole.
#[tokio::test]
async fn unrequested_206_is_neither_stored_nor_served_as_200() {
    let body = noise(1, 1000);
    let part = status(206)
        .content_type("video/mp2t")
        .cache_control("max-age=60")
        .header("Content-Range", "bytes 0-99/1000")
        .body(body.slice(..100));
    let origin = Origin::start()
        .await
        .on(PATH, part.then(segment(body.clone())));
    let shield = Shield::in_front_of(&origin)
        .proxy_settings(|waits| waits.failure_backoff = Duration::ZERO)
        .start()
        .await;
    assert_ne!(shield.get(PATH).await.status, 200);
    shield.get(PATH).await.assert_whole(&body);
    assert!(shield.get(PATH).await.assert_whole(&body).is_hit());
}

/// 304 to a request without validators is fetched again.
#[tokio::test]
async fn refetches_after_304_to_unconditional_request() {
    let confused = status(304).header("ETag", "\"1\"");
    let origin = Origin::start()
        .await
        .on(PATH, confused.then(segment("whole")));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole("whole");
    assert_eq!(origin.hits(PATH), 2);
}

/// A reset on a reused connection is retried once, and the viewer gets 200.
#[tokio::test]
async fn reset_on_reused_connection_is_retried_once() {
    let origin = Origin::start()
        .await
        .on("/first.ts", segment("first"))
        .on(PATH, hang_up().then(segment("whole")));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get("/first.ts").await.assert_whole("first");
    shield.get(PATH).await.assert_whole("whole");
    let tries = origin.requests(PATH);
    assert_eq!(tries.len(), 2);
    assert_eq!(
        tries[0].connection,
        origin.latest("/first.ts").connection,
        "reused"
    );
    assert_ne!(
        tries[0].connection, tries[1].connection,
        "a fresh one for the retry"
    );
}

/// One retry, not more.
#[tokio::test]
async fn second_reset_gets_502_without_another_retry() {
    let origin = Origin::start()
        .await
        .on("/first.ts", segment("first"))
        .on(PATH, hang_up());
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get("/first.ts").await.assert_whole("first");
    assert_eq!(shield.get(PATH).await.status, 502);
    assert_eq!(origin.hits(PATH), 2);
}

/// A response that a viewer's malformed request caused says nothing about the object.
#[tokio::test]
async fn origin_failure_is_not_stored_despite_max_age() {
    for code in [500, 502, 503, 504, 408, 429] {
        let failure = status(code).cache_control("max-age=60").body("sorry");
        let origin = Origin::start()
            .await
            .on(PATH, failure.then(segment("whole")));
        let shield = Shield::in_front_of(&origin)
            .proxy_settings(|waits| waits.failure_backoff = Duration::ZERO)
            .origin(|group| group.retry.attempts_max = 0)
            .start()
            .await;
        assert_eq!(shield.ask(get(PATH)).await.status, code);
        shield.get(PATH).await.assert_whole("whole");
    }
}
