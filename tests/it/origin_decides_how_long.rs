//! The lifetime of a response follows the origin's directives, then the playlist, then its kind.

use std::time::{Duration, SystemTime};

use crate::support::metrics::{FILLS, REQUESTS};
use crate::support::origin::Reply;
use crate::support::{
    Origin, Response, Shield, ended_playlist, get, manifest, playlist, reply, segment, status,
};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const SEGMENT: &str = "/live/seg1.ts";
const PLAYLIST: &str = "/live/index.m3u8";

/// The second of two GETs, which must be a hit.
async fn second(path: &str, answer: Reply) -> Response {
    let origin = Origin::start().await.on(path, answer);
    let shield = Shield::in_front_of(&origin).start().await;
    assert_eq!(shield.get(path).await.status, 200);
    let second = shield.get(path).await;
    assert!(second.is_hit(), "{second:?}");
    assert_eq!(origin.hits(path), 1);
    second
}

/// Seconds of freshness left when requested again at once.
async fn lifetime(path: &str, answer: Reply) -> i64 {
    let answer = second(path, answer).await;
    answer
        .cache_status()
        .value("ttl")
        .expect("a ttl on a hit")
        .parse()
        .unwrap()
}

/// Fails unless each of three GETs reaches the origin.
async fn is_not_stored(path: &str, answer: Reply) {
    let origin = Origin::start().await.on(path, answer);
    let shield = Shield::in_front_of(&origin).start().await;
    for fetch in 1..=3 {
        assert_eq!(shield.get(path).await.status, 200);
        assert_eq!(origin.hits(path), fetch, "{path}");
    }
}

/// `expected`, or a little less: time passes while the scenario runs.
#[track_caller]
fn is_about(lifetime: i64, expected: i64) {
    assert!(
        (expected - 8..=expected).contains(&lifetime),
        "{lifetime}, not {expected}"
    );
}

/// A segment without caching directives is stored for a day.
#[tokio::test]
async fn segment_without_directives_is_fresh_for_a_day() {
    is_about(lifetime(SEGMENT, segment("x")).await, DAY);
    is_about(
        lifetime(
            "/live/init.mp4",
            reply().content_type("video/mp4").body("x"),
        )
        .await,
        DAY,
    );
    is_about(
        lifetime("/live/1.vtt", reply().content_type("text/vtt").body("x")).await,
        DAY,
    );
}

/// The origin's directives apply; the more targeted field wins.
#[tokio::test]
async fn most_targeted_cache_directive_wins() {
    let said = |directives| segment("x").cache_control(directives);
    is_about(lifetime(SEGMENT, said("max-age=100")).await, 100);
    is_about(
        lifetime(SEGMENT, said("max-age=100, s-maxage=50")).await,
        50,
    );
    is_about(
        lifetime(SEGMENT, said("s-maxage=50, max-age=100, public")).await,
        50,
    );
    let targeted = said("max-age=100").header("CDN-Cache-Control", "max-age=300");
    is_about(lifetime(SEGMENT, targeted).await, 300);
    let surrogate = said("no-store").header("Surrogate-Control", "max-age=300");
    is_about(lifetime(SEGMENT, surrogate).await, 300);
    let override_expires = said("max-age=100").header("Expires", "0");
    is_about(lifetime(SEGMENT, override_expires).await, 100);
}

/// `Expires` counts from `Date`; an invalid date means expired.
#[tokio::test]
async fn expires_counts_from_date() {
    let now = SystemTime::now();
    let date = |ahead| httpdate::fmt_http_date(now + Duration::from_secs(ahead));
    let dated = segment("x")
        .header("Date", date(0))
        .header("Expires", date(600));
    is_about(lifetime(SEGMENT, dated).await, 600);
    is_not_stored(SEGMENT, segment("x").header("Expires", "0")).await;
}

/// The age on arrival is subtracted from the lifetime.
#[tokio::test]
async fn age_is_subtracted_from_lifetime() {
    let answer = second(SEGMENT, segment("x").cache_control("max-age=100").age(40)).await;
    assert!((40..=48).contains(&answer.age()), "{answer:?}");
    let left = answer.cache_status().value("ttl").unwrap().parse().unwrap();
    is_about(left, 60);
    assert_eq!(
        answer.fields.all("age").len(),
        1,
        "one Age, not the origin's besides"
    );
}

/// A live playlist lives for seconds: half its target duration at most.
#[tokio::test]
async fn live_playlist_is_fresh_for_half_a_target_duration() {
    assert!((1..=3).contains(&lifetime(PLAYLIST, manifest(playlist(1))).await));
    is_about(
        lifetime(PLAYLIST, manifest(playlist(1)).cache_control("max-age=2")).await,
        2,
    );
}

/// A live playlist never outlives its own cadence, whatever the origin says.
#[tokio::test]
async fn long_max_age_is_capped_for_live_playlist() {
    let careless = manifest(playlist(1)).cache_control("max-age=86400");
    assert!((1..=3).contains(&lifetime(PLAYLIST, careless).await));
}

/// A playlist that has ended does not change any more.
#[tokio::test]
async fn ended_playlist_is_fresh_for_an_hour_by_default() {
    is_about(lifetime(PLAYLIST, manifest(ended_playlist(1))).await, HOUR);
    let said = manifest(ended_playlist(1)).cache_control("max-age=600");
    is_about(lifetime(PLAYLIST, said).await, 600);
}

/// DASH: a static MPD lives like an ended playlist, a dynamic one for seconds.
#[tokio::test]
async fn static_mpd_is_fresh_for_an_hour_dynamic_for_seconds() {
    let mpd = |attributes| {
        let text = format!("<?xml version=\"1.0\"?>\n<MPD {attributes}><Period/></MPD>\n");
        reply().content_type("application/dash+xml").body(text)
    };
    is_about(lifetime("/vod/a.mpd", mpd("type=\"static\"")).await, HOUR);
    let live = mpd("type=\"dynamic\" minimumUpdatePeriod=\"PT2S\"");
    assert!((1..=2).contains(&lifetime("/live/a.mpd", live).await));
}

/// Forbidden responses are not stored, whatever other directives say.
#[tokio::test]
async fn no_store_private_and_set_cookie_are_not_stored() {
    is_not_stored(SEGMENT, segment("x").cache_control("no-store")).await;
    is_not_stored(SEGMENT, segment("x").cache_control("max-age=60, no-store")).await;
    is_not_stored(SEGMENT, segment("x").cache_control("private, max-age=60")).await;
    is_not_stored(SEGMENT, segment("x").cache_control("private=\"x-a\"")).await;
    let cookie = segment("x")
        .cache_control("max-age=60")
        .header("Set-Cookie", "id=1");
    is_not_stored(SEGMENT, cookie).await;
    let targeted = segment("x").cache_control("max-age=60");
    is_not_stored(SEGMENT, targeted.header("CDN-Cache-Control", "no-store")).await;
}

/// `no-cache` may be stored and is revalidated each time.
#[tokio::test]
async fn no_cache_segment_is_revalidated_each_time() {
    let object = segment("x").cache_control("no-cache").etag("\"1\"");
    let origin = Origin::start().await.on(SEGMENT, object);
    let shield = Shield::in_front_of(&origin).start().await;
    for fetch in 1..=3 {
        shield.get(SEGMENT).await.assert_whole("x");
        assert_eq!(origin.hits(SEGMENT), fetch);
    }
}

/// The same for objects that are neither playlist nor media: all viewers share one revalidation.
#[tokio::test]
async fn no_cache_json_with_etag_is_revalidated_each_time() {
    const PATH: &str = "/api/schedule";
    let object = reply()
        .content_type("application/json")
        .body("{}")
        .cache_control("no-cache")
        .etag("\"1\"");
    let origin = Origin::start().await.on(PATH, object);
    let shield = Shield::in_front_of(&origin).start().await;
    for fetch in 1..=3 {
        shield.get(PATH).await.assert_whole("{}");
        assert_eq!(origin.hits(PATH), fetch);
    }
    assert_eq!(origin.latest(PATH).header("if-none-match"), Some("\"1\""));
    is_not_stored("/api/other", reply().body("?").cache_control("no-cache")).await;
}

/// Servers send `text/plain` for unknown extensions. What a live playlist lists is a segment.
#[tokio::test]
async fn text_plain_file_listed_by_playlist_is_a_segment() {
    let plain = |body: &'static str| reply().content_type("text/plain").body(body);
    let origin = Origin::start()
        .await
        .on("/live/index.m3u8", manifest(playlist(1)))
        .on("/live/seg1.ts", plain("one"))
        .on("/live/secret.ts", plain("other"));
    let shield = Shield::in_front_of(&origin).start().await;
    shield
        .get("/live/index.m3u8")
        .await
        .assert_whole(playlist(1));
    for _ in 0..3 {
        shield.get("/live/seg1.ts").await.assert_whole("one");
        shield.get("/live/secret.ts").await.assert_whole("other");
    }
    assert_eq!(origin.hits("/live/seg1.ts"), 1);
    assert_eq!(origin.hits("/live/secret.ts"), 3, "a name is not enough");
}

/// Responses to requests with credentials are stored only if they are public.
#[tokio::test]
async fn authorized_response_is_stored_only_if_public() {
    let object = |directives| segment("x").cache_control(directives);
    let origin = Origin::start()
        .await
        .on("/private.ts", object("max-age=60"))
        .on("/public.ts", object("max-age=60, public"))
        .on("/shared.ts", object("s-maxage=60"));
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.forward_headers = vec![http::header::AUTHORIZATION])
        .start()
        .await;
    for path in ["/private.ts", "/public.ts", "/shared.ts"] {
        for _ in 0..2 {
            let ask = get(path).header("Authorization", "Bearer of-one-viewer");
            shield.ask(ask).await.assert_whole("x");
        }
    }
    assert_eq!(origin.hits("/private.ts"), 2);
    assert_eq!(origin.hits("/public.ts"), 1);
    assert_eq!(origin.hits("/shared.ts"), 1);
}

/// An extension alone never makes an object storable.
#[tokio::test]
async fn extension_alone_does_not_make_object_storable() {
    let page = || {
        reply()
            .content_type("text/html")
            .body("<p>your account</p>")
    };
    is_not_stored("/account/x.ts", page()).await;
    is_not_stored("/account;x.ts", page()).await;
    is_not_stored("/account/%23x.ts", page()).await;
    is_not_stored("/account/page", reply().body("?")).await;
}

/// Keys and the answers of time servers are never stored unless a route says so.
#[tokio::test]
async fn keys_and_clocks_are_not_stored_by_default() {
    let key = || reply().cache_control("max-age=60").body("0123456789abcdef");
    is_not_stored(
        "/drm/one.key",
        key().content_type("application/octet-stream"),
    )
    .await;
    is_not_stored(
        "/time",
        reply()
            .content_type("text/plain")
            .body("2025-01-01T00:00:00Z"),
    )
    .await;
    let origin = Origin::start().await.on("/drm/one.key", key());
    let shield = Shield::in_front_of(&origin).route(|route| route.store_keys = true);
    let shield = shield.start().await;
    shield
        .get("/drm/one.key")
        .await
        .assert_whole("0123456789abcdef");
    assert!(shield.get("/drm/one.key").await.is_hit());
}

/// A 404 is remembered for a second at most, whatever lifetime the origin states.
#[tokio::test]
async fn not_found_is_remembered_for_a_second_at_most() {
    let missing = status(404).cache_control("max-age=600").body("not yet");
    let origin = Origin::start()
        .await
        .on(SEGMENT, missing.then(segment("now it is")));
    let shield = Shield::in_front_of(&origin).start().await;
    for answer in shield.crowd(20, get(SEGMENT)).await.read_all().await {
        assert_eq!(answer.status, 404);
    }
    assert_eq!(origin.hits(SEGMENT), 1);
    let there = shield
        .repeat_until(get(SEGMENT), |answer| answer.status == 200)
        .await;
    there.assert_whole("now it is");
    assert_eq!(origin.hits(SEGMENT), 2);
}

/// A 405 concerns a request, not the object: it is remembered as briefly as a 404.
#[tokio::test]
async fn method_not_allowed_is_remembered_for_a_second_at_most() {
    let refused = status(405).cache_control("max-age=3600");
    let origin = Origin::start()
        .await
        .on("/young.ts", refused.clone())
        .on("/old.ts", refused.age(5));
    let shield = Shield::in_front_of(&origin).start().await;
    for _ in 0..2 {
        let status = shield.get("/young.ts").await.cache_status();
        let left: i64 = status.value("ttl").map_or(0, |ttl| ttl.parse().unwrap());
        assert!(left <= 1, "{status:?}");
        assert_eq!(shield.get("/old.ts").await.status, 405);
        shield.wait_gauge(FILLS, |fills| fills == 0).await;
    }
    assert_eq!(origin.hits("/old.ts"), 2, "five seconds are too old");
}

/// An impossibly large age counts as very old, without an overflow.
#[tokio::test]
async fn overflowing_age_counts_as_stale() {
    for age in ["18446744073709551615", "99999999999999999999"] {
        let object = segment("x").cache_control("max-age=60").header("Age", age);
        let origin = Origin::start().await.on(SEGMENT, object);
        let shield = Shield::in_front_of(&origin).start().await;
        for fetch in 1..=2 {
            shield.get(SEGMENT).await.assert_whole("x");
            assert_eq!(origin.hits(SEGMENT), fetch, "{age}");
            shield.wait_gauge(FILLS, |fills| fills == 0).await;
        }
    }
}

/// With `store_errors` an error is stored for the lifetime that it states, and is never served in
/// place of an object that may be served stale.
#[tokio::test]
async fn store_errors_stores_errors_that_state_a_lifetime() {
    let error = || status(500).cache_control("max-age=60").age(20).body("why");
    for (wanted, fetches) in [(false, 3), (true, 1)] {
        let origin = Origin::start().await.on(SEGMENT, error());
        let shield = Shield::in_front_of(&origin)
            .route(|route| route.store_errors = wanted)
            .proxy_settings(|waits| waits.failure_backoff = Duration::ZERO)
            .start()
            .await;
        for _ in 0..3 {
            let answer = shield.get(SEGMENT).await;
            assert_eq!((answer.status, answer.text()), (500, "why"), "{answer:?}");
            assert!(!wanted || answer.age() >= 20, "{answer:?}");
            shield.wait_gauge(FILLS, |fills| fills == 0).await;
        }
        assert_eq!(origin.hits(SEGMENT), fetches, "{wanted}");
    }
    let held = segment("held").cache_control("max-age=60").age(60);
    let origin = Origin::start().await.on(SEGMENT, held.then(error()));
    let shield = Shield::in_front_of(&origin).route(|route| route.store_errors = true);
    let shield = shield.start().await;
    for _ in 0..3 {
        shield.get(SEGMENT).await.assert_whole("held");
    }
    assert_eq!(origin.hits(SEGMENT), 2);
}

/// Viewers' cache directives are ignored by default and honoured where a route says so.
#[tokio::test]
async fn request_no_cache_is_ignored_unless_route_honours_it() {
    for (honoured, fetches) in [(false, 1), (true, 2)] {
        let origin = Origin::start().await.on(SEGMENT, segment("x"));
        let shield = Shield::in_front_of(&origin)
            .route(|route| route.honour_request_directives = honoured)
            .start()
            .await;
        shield.get(SEGMENT).await.assert_whole("x");
        shield
            .ask(get(SEGMENT).header("Cache-Control", "no-cache"))
            .await
            .assert_whole("x");
        assert_eq!(origin.hits(SEGMENT), fetches, "honoured: {honoured}");
    }
}

/// `only-if-cached` on a route that honours directives: 504 instead of a fetch. The viewer wanted
/// no fetch, so the origin has not failed.
#[tokio::test]
async fn only_if_cached_miss_answers_504() {
    let origin = Origin::start().await.on(SEGMENT, segment("x"));
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.honour_request_directives = true)
        .start()
        .await;
    let ask = get(SEGMENT).header("Cache-Control", "only-if-cached");
    assert_eq!(shield.ask(ask).await.status, 504);
    assert_eq!(origin.hits(SEGMENT), 0);
    let refused = shield.counter(REQUESTS, &[("outcome", "refused")]).await;
    let failed = shield.counter(REQUESTS, &[("outcome", "failed")]).await;
    assert_eq!((refused, failed), (1, 0));
}
