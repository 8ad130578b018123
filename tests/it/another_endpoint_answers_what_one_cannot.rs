//! When one of two endpoints sends an unusable response, viewers get the other endpoint's; an
//! unknown URL is requested from one endpoint only.

use std::time::Duration;

use crate::support::origin::Reply;
use crate::support::{Origin, Response, Shield, get, manifest, playlist, reply, segment, status};

const PATH: &str = "/live/index.m3u8";
const MPD: &str = r#"<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"
mediaPresentationDuration="PT8S"><Period><AdaptationSet mimeType="video/mp4"><SegmentTemplate
media="$Number$.m4s" initialization="init.mp4" duration="4" timescale="1"/><Representation id="v"
bandwidth="1000"/></AdaptationSet></Period></MPD>"#;

/// Statuses that say that an endpoint could not answer.
const FAILURES: [u16; 17] = [
    408, 421, 429, 500, 501, 502, 503, 504, 505, 507, 508, 511, 520, 521, 529, 599, 600,
];
/// Statuses without a body, or with a body that was not requested.
const VOID: [u16; 4] = [204, 205, 206, 304];
/// Statuses that are valid responses for an unknown URL.
const REFUSALS: [u16; 12] = [300, 301, 302, 307, 308, 400, 401, 403, 404, 410, 416, 451];

/// What viewers request, by path.
fn everything() -> [(&'static str, &'static str, String); 5] {
    let hls = "application/vnd.apple.mpegurl";
    [
        (PATH, hls, playlist(1)),
        ("/live/seg1.ts", "video/mp2t", "segment".to_owned()),
        ("/live/init.mp4", "video/mp4", "init".to_owned()),
        ("/dash/live.mpd", "application/dash+xml", MPD.to_owned()),
        ("/dash/1.m4s", "video/iso.segment", "segment".to_owned()),
    ]
}

fn odd(code: u16) -> Reply {
    let answer = status(code);
    match code {
        204 | 304 => answer,
        300..400 => answer.header("Location", "/elsewhere"),
        _ => answer.body("odd"),
    }
}

#[tokio::test]
async fn other_endpoint_answers_after_failure_or_bodiless_status() {
    for code in FAILURES.into_iter().chain(VOID) {
        for (path, content_type, body) in everything() {
            let good = reply().content_type(content_type).body(body.clone());
            let first = Origin::start().await.on(path, odd(code));
            let second = Origin::start().await.on(path, good);
            let shield = Shield::in_front_of(&first)
                .and_endpoint(&second)
                .start()
                .await;
            shield.get(path).await.assert_whole(&body);
            let asked = (first.hits(path), second.hits(path));
            assert_eq!(asked, (1, 1), "{code} {path}");
        }
    }
}

/// A stream goes on, version by version, though the first endpoint has no usable response any more.
#[tokio::test]
async fn live_playlist_advances_while_first_endpoint_is_unusable() {
    let all = FAILURES
        .into_iter()
        .chain(VOID)
        .chain(REFUSALS)
        .chain([425]);
    for code in all {
        let version = |number| {
            manifest(playlist(number))
                .cache_control("max-age=1")
                .age(10)
        };
        let first = Origin::start().await.on(PATH, version(1).then(odd(code)));
        let second = Origin::start()
            .await
            .on(PATH, version(2).then(version(3)).then(version(4)));
        let shield = Shield::in_front_of(&first)
            .and_endpoint(&second)
            .proxy_settings(|waits| waits.failure_backoff = Duration::from_hours(1))
            .start()
            .await;
        for number in [1, 4] {
            let come = |answer: &Response| {
                assert_eq!(answer.status, 200, "{code}");
                answer.text() == playlist(number)
            };
            shield.repeat_until(get(PATH), come).await;
        }
    }
}

#[tokio::test]
async fn other_endpoint_serves_listed_segment_on_unusable_status() {
    for code in FAILURES.into_iter().chain(VOID).chain(REFUSALS) {
        let (path, list) = ("/live/seg3.ts", manifest(playlist(1)));
        let first = Origin::start().await.on(PATH, list).on(path, odd(code));
        let second = Origin::start().await.on(path, segment("whole"));
        let shield = Shield::in_front_of(&first)
            .and_endpoint(&second)
            .route(|route| {
                route.live.cadence = false;
                route.live.prefetch = false;
            })
            .start()
            .await;
        shield.get(PATH).await.assert_whole(playlist(1));
        shield.get(path).await.assert_whole("whole");
        assert_eq!((first.hits(path), second.hits(path)), (1, 1), "{code}");
    }
}

/// Both endpoints agree: viewers get the first endpoint's response.
#[tokio::test]
async fn first_response_is_served_when_both_endpoints_agree() {
    for code in [302, 404, 451, 501] {
        let path = "/live/seg3.ts";
        let in_words = |words: &str| {
            let answer = status(code).header("Location", words);
            answer.header("X-Said", words).cache_control("max-age=60")
        };
        let first = Origin::start()
            .await
            .on(PATH, manifest(playlist(1)))
            .on(path, in_words("/first"));
        let second = Origin::start().await.on(path, in_words("/second"));
        let shield = Shield::in_front_of(&first)
            .and_endpoint(&second)
            .route(|route| {
                route.live.cadence = false;
                route.live.prefetch = false;
            })
            .start()
            .await;
        shield.get(PATH).await.assert_whole(playlist(1));
        let answer = shield.get(path).await;
        assert_eq!(answer.status, code);
        assert_eq!(answer.header("x-said"), Some("/first"), "{code}");
        assert_eq!((first.hits(path), second.hits(path)), (1, 1), "{code}");
    }
}

/// Invented URLs must not double the origin's requests.
#[tokio::test]
async fn refused_unknown_url_is_not_requested_elsewhere() {
    for code in REFUSALS.into_iter().chain([425]) {
        for path in [PATH, "/live/seg1.ts", "/else"] {
            let first = Origin::start().await.on(path, odd(code));
            let second = Origin::start().await.on(path, segment("whole"));
            let shield = Shield::in_front_of(&first)
                .and_endpoint(&second)
                .start()
                .await;
            assert_eq!(shield.get(path).await.status, code);
            assert_eq!((first.hits(path), second.hits(path)), (1, 0), "{code}");
        }
    }
}

/// With one endpoint another request would be a retry, and these statuses are not retried.
#[tokio::test]
async fn single_failing_endpoint_is_not_retried() {
    for code in [408, 421, 429, 500, 501, 505, 507, 520, 599] {
        let origin = Origin::start().await.on("/a.ts", odd(code));
        let shield = Shield::in_front_of(&origin).start().await;
        assert_eq!(shield.get("/a.ts").await.status, code);
        assert_eq!(origin.hits("/a.ts"), 1, "{code}");
    }
}

/// A group that fails as a whole does not get twice the requests.
#[tokio::test]
async fn retries_stay_within_budget_when_both_endpoints_fail() {
    const REQUESTS: usize = 40;
    let (mut first, mut second) = (Origin::start().await, Origin::start().await);
    for piece in 0..REQUESTS {
        first = first.on(&format!("/{piece}.ts"), status(500));
        second = second.on(&format!("/{piece}.ts"), status(500));
    }
    let shield = Shield::in_front_of(&first)
        .and_endpoint(&second)
        .origin(|group| {
            group.retry.budget.share = 0.1;
            group.retry.budget.per_s_min = 0;
            group.guards.breaker.failed_urls_min = 1000;
            group.guards.ejection.failures = 1000;
        })
        .start()
        .await;
    let mut asked = 0;
    for piece in 0..REQUESTS {
        let path = format!("/{piece}.ts");
        assert_eq!(shield.get(&path).await.status, 500);
        asked += first.hits(&path) + second.hits(&path);
    }
    assert!((41..=45).contains(&asked), "{asked}");
}

/// No other endpoint is available: a stored object is better than a response that says nothing
/// about it.
#[tokio::test]
async fn serves_stale_playlist_on_unusable_status() {
    for code in [204, 205, 206, 304, 400, 416, 421, 425, 500, 501, 508] {
        let old = manifest(playlist(1)).cache_control("max-age=1").age(10);
        let origin = Origin::start().await.on(PATH, old.then(odd(code)));
        let shield = Shield::in_front_of(&origin).start().await;
        for _ in 0..3 {
            shield.get(PATH).await.assert_whole(playlist(1));
        }
        origin.wait_hits(PATH, 2).await;
        shield.get(PATH).await.assert_whole(playlist(1));
    }
}
