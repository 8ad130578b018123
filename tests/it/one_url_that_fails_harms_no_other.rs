//! Failures do not affect healthy objects: neither one URL, nor many, nor a dead channel makes the
//! shield refuse requests that its origin would answer.

use std::time::Duration;

use crate::support::metrics::{BREAKER_OPENED, EJECTED};
use crate::support::origin::Reply;
use crate::support::shield::Builder;
use crate::support::{Origin, Shield, hang_up, segment, status};

/// More failures than any guard needs.
const MANY: usize = 60;

/// How an origin handles a request that it cannot answer.
fn failures() -> [(&'static str, Reply); 6] {
    [
        ("500", status(500)),
        ("503", status(503)),
        ("429", status(429).header("Retry-After", 1)),
        ("reset", hang_up()),
        ("cut", segment("half").content_length(10).close()),
        ("not HTTP", status(200).header("Content-Length", "x")),
    ]
}

/// Responses that back-off would hide are requested from the origin each time.
fn in_front_of(origin: &Origin) -> Builder {
    Shield::in_front_of(origin).proxy_settings(|waits| waits.failure_backoff = Duration::ZERO)
}

fn with_good(mut origin: Origin, directory: &str) -> Origin {
    for number in 0..MANY {
        origin = origin.on(&format!("{directory}/good{number}.ts"), segment("good"));
    }
    origin
}

/// Requests failing URLs, and healthy ones in between.
async fn in_turns(shield: &Shield, bad: impl Fn(usize) -> String, why: &str) {
    for number in 0..MANY {
        let answer = shield.get(&bad(number)).await;
        assert!(answer.status >= 429 || answer.body != "good", "{why}");
        let answer = shield.get(&format!("/live/good{number}.ts")).await;
        assert_eq!(answer.status, 200, "{why}, {number}: {answer:?}");
    }
    assert_eq!(shield.counter(BREAKER_OPENED, &[]).await, 0, "{why}");
}

#[tokio::test]
async fn one_failing_url_does_not_open_the_breaker() {
    for (why, failure) in failures() {
        let origin = with_good(Origin::start().await, "/live");
        let origin = origin.on("/live/bad.ts", failure);
        let shield = in_front_of(&origin).start().await;
        in_turns(&shield, |_| "/live/bad.ts".to_owned(), why).await;
    }
}

/// The same beside healthy objects, and in its own directory each time.
#[tokio::test]
async fn failing_urls_among_healthy_ones_do_not_open_the_breaker() {
    for (why, failure) in failures() {
        for directories in [false, true] {
            let mut origin = with_good(Origin::start().await, "/live");
            let bad = move |number| {
                if directories {
                    format!("/{number}/bad.ts")
                } else {
                    format!("/live/bad{number}.ts")
                }
            };
            for number in 0..MANY {
                origin = origin.on(&bad(number), failure.clone());
            }
            let shield = in_front_of(&origin).start().await;
            in_turns(&shield, bad, why).await;
        }
    }
}

/// Only failing URLs are requested for a while; then a viewer requests a healthy channel, or a
/// healthy object in the failing directory.
#[tokio::test]
async fn dead_channel_alone_does_not_open_the_breaker() {
    for (why, failure) in failures() {
        let mut origin = with_good(Origin::start().await, "/live");
        origin = with_good(origin, "/dead");
        let bad = |number: usize| match number % 2 {
            0 => format!("/dead/bad{number}.ts"),
            _ => format!("/dead/audio/bad{number}.ts"),
        };
        for number in 0..MANY {
            origin = origin.on(&bad(number), failure.clone());
        }
        let shield = in_front_of(&origin).start().await;
        for number in 0..MANY {
            shield.get(&bad(number)).await;
        }
        shield.get("/dead/good0.ts").await.assert_whole("good");
        shield.get("/live/good0.ts").await.assert_whole("good");
        assert_eq!(shield.counter(BREAKER_OPENED, &[]).await, 0, "{why}");
    }
}

/// All requests fail, in many directories: the breaker opens, and a channel not yet requested is
/// still tried.
#[tokio::test]
async fn open_breaker_still_tries_channel_that_has_not_failed() {
    let mut origin = with_good(Origin::start().await, "/live");
    for number in 0..MANY {
        origin = origin.on(&format!("/{number}/bad.ts"), status(503));
    }
    let shield = in_front_of(&origin)
        .origin(|group| {
            group.guards.breaker.probe_after = Duration::from_hours(1);
            group.guards.breaker.probe_after_max = Duration::from_hours(1);
        })
        .start()
        .await;
    for number in 0..MANY {
        assert_eq!(shield.get(&format!("/{number}/bad.ts")).await.status, 503);
    }
    assert_eq!(shield.counter(BREAKER_OPENED, &[]).await, 1);
    let again = origin.hits("/1/bad.ts");
    assert_eq!(shield.get("/1/bad.ts").await.status, 503);
    assert_eq!(origin.hits("/1/bad.ts"), again, "it is left alone");
    shield.get("/live/good0.ts").await.assert_whole("good");
}

/// Neither of two endpoints is used last for one URL that fails at both.
#[tokio::test]
async fn url_failing_at_both_endpoints_ejects_neither() {
    for (why, failure) in failures() {
        let mut origins = Vec::new();
        for _ in 0..2 {
            let origin = with_good(Origin::start().await, "/live");
            origins.push(origin.on("/live/bad.ts", failure.clone()));
        }
        let shield = in_front_of(&origins[0])
            .and_endpoint(&origins[1])
            .start()
            .await;
        for _ in 0..MANY {
            shield.get("/live/bad.ts").await;
        }
        assert_eq!(shield.gauge(EJECTED).await, 0, "{why}");
        assert_eq!(shield.counter(BREAKER_OPENED, &[]).await, 0, "{why}");
        for number in 0..MANY {
            let good = format!("/live/good{number}.ts");
            shield.get(&good).await.assert_whole("good");
            assert_eq!(origins[0].hits(&good), 1, "{why}");
        }
    }
}
