//! A refreshed playlist reaches downstream caches with freshness left, and the origin's
//! `CDN-Cache-Control` reaches them unchanged.

use std::time::{Duration, SystemTime};

use crate::support::origin::Reply;
use crate::support::{Origin, Response, Shield, get, manifest, playlist, segment};

const PATH: &str = "/live/index.m3u8";

/// Segments of six seconds; fresh for three by its `fields`; five seconds old.
fn version(fields: &[(&str, &str)]) -> Reply {
    let reply = manifest(playlist(1)).age(5).etag("\"1\"");
    let add = |reply: Reply, (name, value): &(&str, &str)| reply.header(name, value);
    fields.iter().fold(reply, add)
}

/// A shield that refreshes such a playlist.
async fn looking_after(reply: Reply) -> (Origin, Shield) {
    let origin = Origin::start().await.on(PATH, reply);
    let shield = Shield::in_front_of(&origin).start().await;
    let watched = async |shield: &Shield| shield.gauge("seawall_manifests_refreshed").await == 1;
    crate::support::eventually("the playlist is refreshed", async || {
        shield.get(PATH).await;
        watched(&shield).await
    })
    .await;
    (origin, shield)
}

/// The seconds that a field grants.
fn granted(answer: &Response, field: &str, directive: &str) -> u64 {
    let field = answer.header(field).unwrap_or_default();
    let granted = field
        .split(',')
        .find_map(|one| one.trim().strip_prefix(directive)?.strip_prefix('='));
    granted
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(0)
}

#[track_caller]
fn has_some_left(answer: &Response, field: &str, directive: &str) {
    let (age, granted) = (answer.age(), granted(answer, field, directive));
    assert!(
        age >= 5,
        "what the origin said of its age stays true: {answer:?}"
    );
    assert!(granted > age, "{granted} at an age of {age}: {answer:?}");
    // Not longer than the origin allows from now on.
    assert!(
        granted <= age + 3,
        "{granted} at an age of {age}: {answer:?}"
    );
}

/// Whichever field states the lifetime, and also with a 304 to the viewer.
#[tokio::test]
async fn refreshed_playlist_has_freshness_left() {
    let now = SystemTime::now();
    let date = |ahead| httpdate::fmt_http_date(now + Duration::from_secs(ahead));
    let (made, expires) = (date(0), date(3));
    let cases = [
        (
            &[("Cache-Control", "max-age=3")][..],
            "cache-control",
            "max-age",
        ),
        (
            &[(
                "Cache-Control",
                "public, s-maxage=3, stale-while-revalidate=9",
            )],
            "cache-control",
            "s-maxage",
        ),
        (
            &[
                ("Cache-Control", "max-age=60"),
                ("CDN-Cache-Control", "max-age=3"),
            ],
            "cdn-cache-control",
            "max-age",
        ),
        (
            &[("Date", &made), ("Expires", &expires)],
            "cache-control",
            "max-age",
        ),
    ];
    for (fields, field, directive) in cases {
        let (_origin, shield) = looking_after(version(fields)).await;
        for _ in 0..3 {
            let answer = shield.get(PATH).await;
            has_some_left(answer.assert_whole(playlist(1)), field, directive);
            let gzip = get(PATH).header("accept-encoding", "gzip");
            has_some_left(&shield.ask(gzip).await, field, directive);
            let known = get(PATH).header("if-none-match", "\"1\"");
            let known = shield.ask(known).await;
            assert_eq!(known.status, 304);
            if field == "cache-control" {
                has_some_left(&known, field, directive);
            }
        }
        let h2 = shield.h2_viewer().await;
        has_some_left(&h2.ask(get(PATH)).await, field, directive);
    }
}

/// Low-latency players wait for the next part: no cache in between may store it for longer.
#[tokio::test]
async fn low_latency_playlist_gets_no_extra_freshness() {
    let text = playlist(1).replace(
        "#EXT-X-TARGETDURATION:6\n",
        "#EXT-X-TARGETDURATION:6\n#EXT-X-PART-INF:PART-TARGET=1\n\
         #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=3\n",
    );
    let reply = manifest(text).age(5).cache_control("max-age=3");
    let origin = Origin::start().await.on(PATH, reply);
    let shield = Shield::in_front_of(&origin).start().await;
    for _ in 0..5 {
        let answer = shield.get(PATH).await;
        assert_eq!(
            answer.header("cache-control"),
            Some("max-age=3"),
            "{answer:?}"
        );
    }
}

/// RFC 9213 §3.1: the field is for every CDN on the way. `Surrogate-Control` is for the next one
/// alone.
#[tokio::test]
async fn forwards_cdn_cache_control_but_not_surrogate_control() {
    let directive = "max-age=600";
    let stored = segment("x")
        .cache_control("max-age=60")
        .header("CDN-Cache-Control", directive)
        .header("Surrogate-Control", "max-age=5");
    let passed = segment("x")
        .cache_control("max-age=600")
        .header("CDN-Cache-Control", "no-store");
    let origin = Origin::start()
        .await
        .on("/a.ts", stored)
        .on("/b.ts", passed);
    let shield = Shield::in_front_of(&origin).start().await;
    for _ in 0..2 {
        let answer = shield.get("/a.ts").await;
        assert_eq!(answer.header("cdn-cache-control"), Some(directive));
        assert_eq!(answer.header("surrogate-control"), None);
        let answer = shield.get("/b.ts").await;
        assert_eq!(answer.header("cdn-cache-control"), Some("no-store"));
    }
    assert_eq!((origin.hits("/a.ts"), origin.hits("/b.ts")), (1, 2));
}
