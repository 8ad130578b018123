//! While a live stream is watched, its manifests are refreshed when they are due, and the objects
//! that they announce are prefetched.

use std::time::{Duration, Instant};

use seawall_policy::route::Live;

use crate::support::{
    Gate, Origin, Shield, computed, eventually, get, manifest, playlist, reply, segment, status,
};

const PATH: &str = "/live/index.m3u8";

/// Segments of a quarter of a second, without end.
fn quick(first: u64) -> String {
    let head = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n";
    let line = |number: u64| format!("#EXTINF:0.25,\nseg{number}.ts\n");
    let segments: String = (first..first + 3).map(line).collect();
    format!("{head}#EXT-X-MEDIA-SEQUENCE:{first}\n{segments}")
}

/// An origin whose playlist advances by itself.
async fn on_the_air() -> Origin {
    let start = Instant::now();
    let version = move || u64::try_from(start.elapsed().as_millis() / 250).unwrap_or(0);
    let live = computed(move |_| manifest(quick(version())).cache_control("max-age=1"));
    Origin::start().await.on(PATH, live)
}

/// Two viewers are enough: from then on the playlist is refreshed without viewers.
#[tokio::test]
async fn watched_playlist_is_refreshed_in_background() {
    let origin = on_the_air().await;
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await;
    // Until the playlist is stale, and a viewer has caused its refresh.
    let refreshed = |_: &_| origin.hits(PATH) >= 2;
    shield.repeat_until(get(PATH), refreshed).await;
    let before = origin.hits(PATH);
    origin.wait_hits(PATH, before + 3).await;
}

/// Directives that forbid stale use do not forbid a refresh before expiry.
#[tokio::test]
async fn refreshes_playlist_that_forbids_stale_responses() {
    for strict in [
        "s-maxage=1",
        "max-age=1, must-revalidate",
        "max-age=1, proxy-revalidate",
        "max-age=1, stale-while-revalidate=0",
    ] {
        let start = Instant::now();
        let version = move || u64::try_from(start.elapsed().as_millis() / 250).unwrap_or(0);
        let live = computed(move |_| manifest(quick(version())).cache_control(strict));
        let origin = Origin::start().await.on(PATH, live);
        let shield = Shield::in_front_of(&origin).start().await;
        shield
            .repeat_until(get(PATH), |_| origin.hits(PATH) >= 2)
            .await;
        let before = origin.hits(PATH);
        origin.wait_hits(PATH, before + 3).await;
        assert_eq!(
            shield.gauge("seawall_manifests_refreshed").await,
            1,
            "{strict}"
        );
    }
}

/// An MPD with segment numbers changes rarely. It is revalidated while it is fresh.
#[tokio::test]
async fn unchanged_mpd_is_revalidated_while_fresh() {
    let template = "<SegmentTemplate duration='2' media='$RepresentationID$/$Number$.m4s'/>";
    for period in ["minimumUpdatePeriod='PT0S'", ""] {
        let mpd = format!(
            "<MPD type='dynamic' availabilityStartTime='1970-01-01T00:00:00Z' {period}>\
             <Period id='0' start='PT0S'><AdaptationSet mimeType='video/mp4'>{template}\
             <Representation id='hd' bandwidth='1'/></AdaptationSet></Period></MPD>"
        );
        let mpd = reply().content_type("application/dash+xml").body(mpd);
        let mpd = mpd.cache_control("max-age=1").etag("\"1\"");
        let origin = Origin::start().await.on("/live/a.mpd", mpd);
        let shield = Shield::in_front_of(&origin).start().await;
        let viewer = get("/live/a.mpd");
        shield
            .repeat_until(viewer, |_| origin.hits("/live/a.mpd") >= 2)
            .await;
        for looks in 3..6 {
            origin.wait_hits("/live/a.mpd", looks).await;
            let answer = shield.get("/live/a.mpd").await;
            assert!(answer.is_hit(), "{period}: {answer:?}");
        }
    }
}

/// When no viewer is left, the origin gets no more polls.
#[tokio::test]
async fn refresh_stops_when_no_viewer_is_left() {
    let origin = on_the_air().await;
    let idle = Duration::from_millis(100);
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.live.idle = idle)
        .start()
        .await;
    shield
        .repeat_until(get(PATH), |_| origin.hits(PATH) >= 3)
        .await;
    // Three segment durations, in which a few more polls may happen. The wait is for a silence: it
    // can only be measured.
    eventually("the origin is left alone", async || {
        let hits = origin.hits(PATH);
        tokio::time::sleep(Duration::from_millis(700)).await;
        origin.hits(PATH) == hits
    })
    .await;
}

/// A failing origin is polled once a second, like any other object that fails.
#[tokio::test]
async fn failing_origin_is_polled_once_a_second() {
    let origin = on_the_air().await;
    let shield = Shield::in_front_of(&origin).start().await;
    shield
        .repeat_until(get(PATH), |_| origin.hits(PATH) >= 4)
        .await;
    origin.set_script(PATH, status(500));
    let hits = origin.hits(PATH);
    // The promise is a rate: requests per second.
    tokio::time::sleep(Duration::from_millis(900)).await;
    let looks = origin.hits(PATH) - hits;
    assert!((1..=2).contains(&looks), "{looks} looks in 0.9 s");
}

/// Segments that a new version lists are fetched once, before the first viewer's request.
#[tokio::test]
async fn new_segment_is_prefetched_before_its_first_viewer() {
    let overdue = |first| manifest(playlist(first)).cache_control("max-age=1").age(1);
    let origin = Origin::start()
        .await
        .on(PATH, overdue(1))
        .on("/live/seg4.ts", segment("new"));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await;
    origin.set_script(PATH, overdue(2));
    shield
        .repeat_until(get(PATH), |answer| answer.text() == playlist(2))
        .await;
    origin.wait_hits("/live/seg4.ts", 1).await;
    assert_eq!(origin.hits("/live/seg3.ts"), 0, "it was listed before");
    let stored = |answer: &crate::support::Response| {
        let status = answer.header("cache-status").unwrap_or_default();
        status.contains("; hit")
    };
    shield
        .repeat_until(get("/live/seg4.ts"), stored)
        .await
        .assert_whole("new");
    assert_eq!(origin.hits("/live/seg4.ts"), 1);
    assert_eq!(
        shield.counter("seawall_prefetches_used_total", &[]).await,
        1
    );
}

/// A version is shown when its new segment has begun to arrive: the first viewer of a segment does
/// not wait.
#[tokio::test]
async fn new_version_waits_briefly_for_its_newest_segment() {
    // Long segments, so that there is time for the checks.
    let long = |first| playlist(first).replace(":6", ":60");
    let overdue = |text| manifest(text).cache_control("max-age=1").age(1);
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on(PATH, overdue(long(1)))
        .on("/live/seg4.ts", segment("new").hold_head(&gate))
        .on("/live/seg5.ts", segment("newer").hold_head(&Gate::new()));
    // Viewers cause the refresh, so that it happens at once.
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.live.cadence = false)
        .start()
        .await;
    shield.get(PATH).await;
    origin.set_script(PATH, overdue(long(2)));
    let asked = |_: &_| origin.hits("/live/seg4.ts") == 1;
    shield
        .repeat_until(get(PATH), asked)
        .await
        .assert_whole(long(1));
    gate.open();
    let newer = |answer: &crate::support::Response| answer.text() == long(2);
    shield.repeat_until(get(PATH), newer).await;
    shield.get("/live/seg4.ts").await.assert_whole("new");
    // A segment that does not arrive holds the version back for a moment only.
    origin.set_script(PATH, overdue(long(3)));
    let newer = |answer: &crate::support::Response| answer.text() == long(3);
    shield.repeat_until(get(PATH), newer).await;
    assert_eq!(origin.hits("/live/seg5.ts"), 1);
}

/// Playlists may name segments with the viewers' own host and with variables. Nothing is fetched
/// from any other host.
#[tokio::test]
async fn prefetches_from_own_host_only_and_resolves_variables() {
    let overdue = |text| manifest(text).cache_control("max-age=1").age(1);
    let named = |first, name: &str| playlist(first).replace("seg", name);
    for (name, times) in [
        ("https://media.test/live/seg", 1),
        ("//MEDIA.TEST:8443/live/seg", 1),
        ("/{$where}/seg", 1),
        ("https://cdn.example/live/seg", 0),
        ("/{$unknown}/seg", 0),
    ] {
        let define = "#EXT-X-VERSION:8\n#EXT-X-DEFINE:NAME=\"where\",VALUE=\"live\"";
        let version = |first| {
            // Segments on the same host are fetched, whatever the others are called.
            let known = named(first, name) + &format!("#EXTINF:6,\nknown{first}.ts\n");
            known.replace("#EXT-X-VERSION:6", define)
        };
        let origin = Origin::start()
            .await
            .on(PATH, overdue(version(1)))
            .on("/live/seg5.ts", segment("new"))
            .on("/live/known3.ts", segment("new"));
        let shield = Shield::in_front_of(&origin).start().await;
        shield.get(PATH).await;
        origin.set_script(PATH, overdue(version(3)));
        let newer = |answer: &crate::support::Response| answer.text() == version(3);
        shield.repeat_until(get(PATH), newer).await;
        origin.wait_hits("/live/known3.ts", 1).await;
        origin.wait_hits("/live/seg5.ts", times).await;
        assert_eq!(origin.hits("/live/seg5.ts"), times, "{name}");
    }
}

/// Segment URLs that are signed anew with each version are not fetched anew.
#[tokio::test]
async fn resigned_segment_urls_are_not_prefetched_again() {
    let signed = |first: u64, by: &str| playlist(first).replace(".ts", &format!(".ts?sig={by}"));
    let overdue = |text| manifest(text).cache_control("max-age=1").age(1);
    let new = "/live/seg4.ts?sig=two";
    let origin = Origin::start()
        .await
        .on(PATH, overdue(signed(1, "one")))
        .on(new, segment("new"));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await;
    let next = signed(2, "two");
    origin.set_script(PATH, overdue(next.clone()));
    shield
        .repeat_until(get(PATH), |answer| answer.text() == next)
        .await;
    origin.wait_hits(new, 1).await;
    assert_eq!(shield.counter("seawall_prefetches_total", &[]).await, 1);
    for known in [2, 3] {
        assert_eq!(origin.hits(&format!("/live/seg{known}.ts?sig=two")), 0);
    }
}

/// A viewer who returns to a long playlist plays its end: only the last new segments are
/// prefetched.
#[tokio::test]
async fn prefetches_only_last_new_segments_of_long_playlist() {
    let long = |first: u64, last: u64| {
        let line = |number: u64| format!("#EXTINF:6.0,\nseg{number}.ts\n");
        let segments: String = (first..=last).map(line).collect();
        format!(
            "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXT-X-PLAYLIST-TYPE:EVENT\n\
             #EXT-X-MEDIA-SEQUENCE:{first}\n{segments}"
        )
    };
    let overdue = |text| manifest(text).cache_control("max-age=1").age(1);
    let origin = Origin::start().await.on(PATH, overdue(long(1, 20)));
    for number in 1..=80 {
        origin.set_script(&format!("/live/seg{number}.ts"), segment("there"));
    }
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.live.cadence = false)
        .start()
        .await;
    shield.get(PATH).await;
    origin.set_script(PATH, overdue(long(1, 80)));
    let newer = |answer: &crate::support::Response| answer.text() == long(1, 80);
    shield.repeat_until(get(PATH), newer).await;
    for number in 78..=80 {
        origin.wait_hits(&format!("/live/seg{number}.ts"), 1).await;
        let segment = shield.get(&format!("/live/seg{number}.ts")).await;
        segment.assert_whole("there");
    }
    assert_eq!(shield.counter("seawall_prefetches_total", &[]).await, 3);
    assert_eq!(
        shield.counter("seawall_prefetches_used_total", &[]).await,
        3
    );
}

/// Browsers accept codings, and many origins send `Vary: Accept-Encoding`. Media have one variant
/// for all.
#[tokio::test]
async fn media_prefetch_serves_every_accept_encoding() {
    let overdue = |first| manifest(playlist(first)).cache_control("max-age=1").age(1);
    let new = "/live/seg4.ts";
    let varied = segment("new").header("Vary", "Accept-Encoding, Origin");
    let origin = Origin::start().await.on(PATH, overdue(1)).on(new, varied);
    let shield = Shield::in_front_of(&origin).start().await;
    let browser = |path| get(path).header("accept-encoding", "gzip, deflate, br, zstd");
    shield.ask(browser(PATH)).await;
    origin.set_script(PATH, overdue(2));
    let newer = |_: &crate::support::Response| origin.hits(new) == 1;
    shield.repeat_until(browser(PATH), newer).await;
    let stored = |answer: &crate::support::Response| answer.is_hit();
    shield
        .repeat_until(browser(new), stored)
        .await
        .assert_whole("new");
    shield.get(new).await.assert_whole("new");
    let plain = get(new).header("accept-encoding", "identity");
    shield.ask(plain).await.assert_whole("new");
    assert_eq!(origin.hits(new), 1);
    assert_eq!(origin.latest(new).header("accept-encoding"), None);
}

/// Subtitles are text: prefetch for browsers requests the coding that they will request.
#[tokio::test]
async fn subtitle_prefetch_uses_accept_encoding_of_browsers() {
    let text = |first| playlist(first).replace(".ts", ".vtt");
    let overdue = |first| manifest(text(first)).cache_control("max-age=1").age(1);
    let new = "/live/seg4.vtt";
    let coded = computed(|request| {
        let reply = reply().content_type("text/vtt").body("WEBVTT");
        let reply = reply.header("Vary", "Accept-Encoding");
        match request.header("accept-encoding") {
            Some("gzip") => reply.header("Content-Encoding", "gzip"),
            _ => reply,
        }
    });
    let origin = Origin::start().await.on(PATH, overdue(1)).on(new, coded);
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await;
    origin.set_script(PATH, overdue(2));
    let newer = |_: &crate::support::Response| origin.hits(new) == 1;
    shield.repeat_until(get(PATH), newer).await;
    let browser = get(new).header("accept-encoding", "gzip, deflate, br");
    let stored = |answer: &crate::support::Response| answer.is_hit();
    let answer = shield.repeat_until(browser, stored).await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(origin.hits(new), 1);
    // A viewer who does not accept that coding gets another variant.
    assert_eq!(shield.get(new).await.header("content-encoding"), None);
}

/// A playlist may be refreshed for longer than any viewer stays: its segments are not prefetched
/// then.
#[tokio::test]
async fn does_not_prefetch_after_last_viewer_left() {
    let origin = on_the_air().await;
    for number in 0..200 {
        origin.set_script(&format!("/live/seg{number}.ts"), segment("there"));
    }
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.live.idle = Duration::from_secs(30))
        .start()
        .await;
    let ahead = || shield.counter("seawall_prefetches_total", &[]);
    let began = async || {
        shield.get(PATH).await;
        ahead().await > 0
    };
    eventually("a prefetch begins", began).await;
    // The playlist says that its segments last a second: two of these, and half a second. The end
    // of the interest in prefetches shows nowhere: its time must pass.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (looks, fetched) = (origin.hits(PATH), ahead().await);
    origin.wait_hits(PATH, looks + 6).await;
    assert_eq!(ahead().await, fetched);
}

/// Both can be turned off.
#[tokio::test]
async fn route_can_disable_refresh_and_prefetch() {
    let origin = on_the_air().await;
    let passive = Live {
        cadence: false,
        prefetch: false,
        ..Live::default()
    };
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.live = passive)
        .start()
        .await;
    shield
        .repeat_until(get(PATH), |_| origin.hits(PATH) >= 3)
        .await;
    assert_eq!(shield.counter("seawall_prefetches_total", &[]).await, 0);
    let hits = origin.hits(PATH);
    // A refresh that must not happen has no event: three segment durations pass.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(
        origin.hits(PATH),
        hits,
        "no refresh except those that viewers cause"
    );
}

/// Background requests carry the fields of viewers' requests that the route forwards.
#[tokio::test]
async fn background_requests_carry_forwarded_headers_except_cookie() {
    let start = Instant::now();
    let version = move || u64::try_from(start.elapsed().as_millis() / 250).unwrap_or(0);
    let live = computed(move |request| match request.header("x-token") {
        Some("let-me-in") => manifest(quick(version())).cache_control("max-age=1"),
        _ => status(404),
    });
    let origin = Origin::start().await.on(PATH, live);
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.forward_headers = vec!["x-token".parse().unwrap()])
        .start()
        .await;
    let asking = || get(PATH).header("x-token", "let-me-in");
    shield
        .repeat_until(asking(), |_| origin.hits(PATH) >= 2)
        .await;
    let before = origin.hits(PATH);
    origin.wait_hits(PATH, before + 4).await;
    assert_eq!(shield.ask(asking()).await.status, 200);
    // A field of one viewer is not sent without that viewer.
    let own = Origin::start().await.on(PATH, overdue_for_all());
    let shield = Shield::in_front_of(&own)
        .route(|route| route.forward_headers = vec!["cookie".parse().unwrap()])
        .start()
        .await;
    let asking = || get(PATH).header("cookie", "own=1");
    shield.repeat_until(asking(), |_| own.hits(PATH) >= 2).await;
    assert_eq!(shield.gauge("seawall_manifests_refreshed").await, 0);
}

/// A manifest with variants by viewers' fields is refreshed only by its viewers.
#[tokio::test]
async fn manifest_that_varies_by_viewer_field_is_not_refreshed() {
    let start = Instant::now();
    let version = move || u64::try_from(start.elapsed().as_millis() / 250).unwrap_or(0);
    let live = computed(move |_| {
        let reply = manifest(quick(version())).cache_control("max-age=1");
        reply.header("vary", "x-side, accept-encoding")
    });
    let origin = Origin::start().await.on(PATH, live);
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.forward_headers = vec!["x-side".parse().unwrap()])
        .start()
        .await;
    for side in ["left", "right"] {
        let hits = origin.hits(PATH);
        let asking = get(PATH).header("x-side", side);
        shield
            .repeat_until(asking, |_| origin.hits(PATH) >= hits + 2)
            .await;
    }
    assert_eq!(shield.gauge("seawall_manifests_refreshed").await, 0);
}

fn overdue_for_all() -> crate::support::origin::Reply {
    manifest(quick(7)).cache_control("public, max-age=1").age(1)
}

/// A 404 of a segment is remembered only until the next version may list it.
#[tokio::test]
async fn segment_404_expires_with_next_playlist_version() {
    let origin = on_the_air().await;
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.lifetimes.negative_max = Duration::from_hours(1))
        .start()
        .await;
    shield.get(PATH).await;
    assert_eq!(shield.get("/live/seg99.ts").await.status, 404);
    origin.set_script("/live/seg99.ts", segment("there"));
    let there = shield.repeat_until(get("/live/seg99.ts"), |answer| answer.status == 200);
    there.await.assert_whole("there");
}
