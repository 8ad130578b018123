//! Redundant origins differ, lag and restart; viewers never see a live stream go backwards.

use seawall_upstream::Balance;

use crate::support::shield::{Builder, endpoint};
use crate::support::{Origin, Response, Shield, get, manifest, playlist, segment, status};

const PATH: &str = "/live/index.m3u8";
const UNFIT: &str = "seawall_manifests_unfit_total";

/// Stale on arrival, and refreshed in the background.
fn overdue(text: String) -> crate::support::origin::Reply {
    manifest(text).cache_control("max-age=1").age(1)
}

fn says(first: u64) -> impl Fn(&Response) -> bool {
    move |answer| answer.text() == playlist(first)
}

/// Round robin, so that the endpoints answer in turn.
fn in_front_of_two(first: &Origin, second: &Origin) -> Builder {
    Shield::in_front_of(first).origin(|group| {
        group.balance = Balance::RoundRobin;
        group.endpoints.push(endpoint(second));
    })
}

/// A version that lags is not shown, and the other endpoint is requested at once.
#[tokio::test]
async fn lagging_playlist_is_not_shown() {
    let first = Origin::start().await.on(PATH, overdue(playlist(10)));
    let second = Origin::start().await.on(PATH, overdue(playlist(10)));
    let shield = in_front_of_two(&first, &second).start().await;
    shield.get(PATH).await.assert_whole(playlist(10));
    for origin in [&first, &second] {
        origin.set_script(PATH, overdue(playlist(9)));
    }
    let unfit = [("reason", "behind")];
    while shield.counter(UNFIT, &unfit).await < 2 {
        shield.get(PATH).await.assert_whole(playlist(10));
    }
    let hits = first.hits(PATH).min(second.hits(PATH));
    assert!(
        hits >= 1,
        "both were asked, the other one in the same breath"
    );
    first.set_script(PATH, overdue(playlist(11)));
    second.set_script(PATH, overdue(playlist(9)));
    shield.repeat_until(get(PATH), says(11)).await;
    for _ in 0..20 {
        shield.get(PATH).await.assert_whole(playlist(11));
    }
}

/// A broken manifest is not used while another endpoint has a whole one.
#[tokio::test]
async fn other_endpoint_replaces_broken_manifest() {
    let whole = playlist(3);
    let cut = whole[..whole.len() - 5].to_owned();
    let first = Origin::start().await.on(PATH, manifest(cut));
    let second = Origin::start().await.on(PATH, manifest(whole.clone()));
    let shield = Shield::in_front_of(&first)
        .and_endpoint(&second)
        .start()
        .await;
    shield.get(PATH).await.assert_whole(whole);
    assert_eq!((first.hits(PATH), second.hits(PATH)), (1, 1));
    assert_eq!(shield.counter(UNFIT, &[("reason", "broken")]).await, 1);
}

/// A restarted packager reuses its names. No viewer gets an old segment with the new playlist.
#[tokio::test]
async fn packager_restart_drops_stored_segments() {
    let origin = Origin::start()
        .await
        .on(PATH, overdue(playlist(5000)))
        .on("/live/seg3.ts", segment("yesterday"))
        .on("/elsewhere/seg3.ts", segment("apart"));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole(playlist(5000));
    for path in ["/live/seg3.ts", "/elsewhere/seg3.ts"] {
        shield.get(path).await;
        origin.set_script(path, segment("today"));
    }
    shield.get("/live/seg3.ts").await.assert_whole("yesterday");
    origin.set_script(PATH, overdue(playlist(1)));
    shield.repeat_until(get(PATH), says(1)).await;
    shield.get("/live/seg3.ts").await.assert_whole("today");
    shield.get("/elsewhere/seg3.ts").await.assert_whole("apart");
    let stream = [("stream", PATH)];
    let restarts = shield.counter("seawall_stream_restarts_total", &stream);
    assert_eq!(restarts.await, 1);
}

/// Wherever its segments are: under another name of this host, or as ranges of one file.
#[tokio::test]
async fn packager_restart_drops_segments_in_other_directories() {
    let named = |first| {
        let text = playlist(first).replace("seg", "https://another.name/media/seg");
        let range = "#EXTINF:6,\n#EXT-X-BYTERANGE:9@0\n/all/whole.ts\n";
        text + range
    };
    let held = ["/media/seg3.ts", "/all/whole.ts"];
    let origin = Origin::start().await.on(PATH, overdue(named(5000)));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await;
    for path in held {
        origin.set_script(path, segment("yesterday"));
        shield.get(path).await.assert_whole("yesterday");
        origin.set_script(path, segment("today"));
    }
    origin.set_script(PATH, overdue(named(1)));
    let anew = |answer: &Response| answer.text() == named(1);
    shield.repeat_until(get(PATH), anew).await;
    for path in held {
        shield.get(path).await.assert_whole("today");
    }
}

/// An endpoint that still serves the former timeline is not used: there is no way back.
#[tokio::test]
async fn old_timeline_is_rejected_after_packager_restart() {
    let origin = Origin::start().await.on(PATH, overdue(playlist(5000)));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole(playlist(5000));
    origin.set_script(PATH, overdue(playlist(1)));
    shield.repeat_until(get(PATH), says(1)).await;
    origin.set_script(PATH, overdue(playlist(5001)));
    while shield.counter(UNFIT, &[("reason", "behind")]).await == 0 {
        shield.get(PATH).await.assert_whole(playlist(1));
    }
    origin.set_script(PATH, overdue(playlist(2)));
    shield.repeat_until(get(PATH), says(2)).await;
}

/// A restarted packager begins all its renditions anew, each in its own directory.
#[tokio::test]
async fn packager_restart_drops_segments_of_every_rendition() {
    let master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv0/i.m3u8\n\
         #EXT-X-STREAM-INF:BANDWIDTH=2\nv1/i.m3u8\n";
    let mut origin = Origin::start().await.on("/live/m.m3u8", manifest(master));
    for rendition in ["v0", "v1"] {
        origin = origin
            .on(
                &format!("/live/{rendition}/i.m3u8"),
                overdue(playlist(5000)),
            )
            .on(&format!("/live/{rendition}/seg3.ts"), segment("yesterday"));
    }
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get("/live/m.m3u8").await.assert_whole(master);
    for rendition in ["v0", "v1"] {
        shield.get(&format!("/live/{rendition}/i.m3u8")).await;
        let path = format!("/live/{rendition}/seg3.ts");
        shield.get(&path).await.assert_whole("yesterday");
        origin.set_script(&path, segment("today"));
    }
    for rendition in ["v0", "v1"] {
        let path = format!("/live/{rendition}/i.m3u8");
        origin.set_script(&path, overdue(playlist(1)));
        shield.repeat_until(get(&path), says(1)).await;
        let path = format!("/live/{rendition}/seg3.ts");
        shield.get(&path).await.assert_whole("today");
    }
    let restarts = shield.counter("seawall_stream_restarts_total", &[]);
    assert_eq!(restarts.await, 1, "one restart");
}

/// A twin that stopped yesterday does not take the audience over because the other endpoint failed
/// once.
#[tokio::test]
async fn endpoint_with_old_timeline_does_not_take_over() {
    let first = Origin::start().await.on(PATH, overdue(playlist(5000)));
    let second = Origin::start().await.on(PATH, overdue(playlist(300)));
    let shield = Shield::in_front_of(&first)
        .and_endpoint(&second)
        .start()
        .await;
    shield.get(PATH).await.assert_whole(playlist(5000));
    first.set_script(PATH, status(503).then(overdue(playlist(5001))));
    while second.hits(PATH) == 0 {
        let answer = shield.get(PATH).await;
        assert_ne!(answer.text(), playlist(300));
    }
    shield.repeat_until(get(PATH), says(5001)).await;
    let restarts = shield.counter("seawall_stream_restarts_total", &[]);
    assert_eq!(restarts.await, 0);
}

/// The version of an origin that reports itself as stalled is compared with another endpoint's,
/// from the first request.
#[tokio::test]
async fn playlist_marked_as_stalled_is_requested_from_other_endpoint() {
    let updated = "x-mediapackage-manifest-last-updated";
    let old = overdue(playlist(10)).header(updated, "1000");
    let first = Origin::start().await.on(PATH, old);
    let second = Origin::start().await.on(PATH, overdue(playlist(50)));
    let shield = Shield::in_front_of(&first)
        .and_endpoint(&second)
        .start()
        .await;
    shield.get(PATH).await.assert_whole(playlist(50));
    assert_eq!((first.hits(PATH), second.hits(PATH)), (1, 1));
    assert_eq!(shield.counter(UNFIT, &[("reason", "stalled")]).await, 1);
}

/// A stopping encoder marks the stream as ended. When it starts again, the end is not stored for an
/// hour.
#[tokio::test]
async fn new_endlist_is_fresh_for_ten_seconds_at_most() {
    let ended = playlist(11) + "#EXT-X-ENDLIST\n";
    let reply = manifest(ended.clone()).cache_control("max-age=3600");
    let origin = Origin::start()
        .await
        .on(PATH, overdue(playlist(10)).then(reply));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole(playlist(10));
    let end = |answer: &Response| answer.text() == ended;
    let answer = shield.repeat_until(get(PATH), end).await;
    let told = shield.get(PATH).await;
    let status = told.header("cache-status").unwrap_or_default();
    let ttl = status
        .split("ttl=")
        .nth(1)
        .and_then(|ttl| ttl.parse::<u64>().ok());
    assert!(ttl.is_some_and(|ttl| ttl <= 10), "{status} {answer:?}");
}

/// Cache directives that forbid stale use, and one that allows it.
const WORDS: [&str; 5] = [
    "no-cache",
    "max-age=1, must-revalidate",
    "s-maxage=1",
    "max-age=0",
    "max-age=1",
];

/// Several nodes behind one name, one of which lags: there is no other endpoint to request.
#[tokio::test]
async fn lagging_node_causes_no_error_under_any_cache_directive() {
    for words in WORDS {
        let says = |first| manifest(playlist(first)).cache_control(words).age(1);
        let turns = says(10)
            .then(says(9))
            .then(says(10))
            .then(says(8))
            .then(says(11))
            .then(says(9))
            .then(says(10));
        let origin = Origin::start().await.on(PATH, turns);
        let shield = Shield::in_front_of(&origin).start().await;
        let mut newest = 10;
        while origin.hits(PATH) < 12 {
            let answer = shield.get(PATH).await;
            let text = answer.assert_200_text().to_owned();
            let first = (8..=11).find(|first| text == playlist(*first)).unwrap();
            assert!(first >= newest, "{words}: {first} after {newest}");
            newest = first;
        }
        assert_eq!(newest, 11, "{words}");
        let restarts = shield.counter("seawall_stream_restarts_total", &[]);
        assert_eq!(restarts.await, 0, "{words}");
    }
}

/// A version that lags confirms the stored one: it is fresh again, as after a 304.
#[tokio::test]
async fn lagging_response_makes_stored_playlist_fresh_again() {
    let fresh = |first| manifest(playlist(first)).cache_control("max-age=60, must-revalidate");
    let origin = Origin::start()
        .await
        .on(PATH, fresh(10).age(60).then(fresh(9)));
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.live.cadence = false)
        .start()
        .await;
    shield.get(PATH).await.assert_whole(playlist(10));
    shield.get(PATH).await.assert_whole(playlist(10));
    for ask in [get(PATH), crate::support::viewer::ask("HEAD", PATH)] {
        let answer = shield.ask(ask).await;
        assert!(answer.status == 200 && answer.is_hit(), "{answer:?}");
    }
    assert_eq!(origin.hits(PATH), 2);
}

/// With nothing stored, an older version is better than an error. The same holds for uncacheable
/// manifests.
#[tokio::test]
async fn lagging_playlist_is_served_when_none_newer_is_stored() {
    let never = |first| manifest(playlist(first)).cache_control("no-store");
    let turns = never(10).then(never(9)).then(never(11)).then(never(8));
    let origin = Origin::start().await.on(PATH, turns);
    let shield = Shield::in_front_of(&origin).start().await;
    for first in [10, 9, 11, 8] {
        shield.get(PATH).await.assert_whole(playlist(first));
    }
    // The object may leave memory; the record of its progress stays.
    let origin = Origin::start().await.on(PATH, overdue(playlist(10)));
    let shield = Shield::in_front_of(&origin)
        .with(|config| config.cache.memory_bytes = 64 << 10)
        .route(|route| route.live.cadence = false)
        .start()
        .await;
    shield.get(PATH).await.assert_whole(playlist(10));
    origin.set_script(PATH, overdue(playlist(9)));
    for number in 0..200 {
        let path = format!("/other/{number}.ts");
        origin.set_script(&path, segment(vec![b'x'; 8 << 10]));
        shield.get(&path).await;
        assert_eq!(shield.get(PATH).await.status, 200);
    }
}

/// The same for an MPD whose packager writes the time of the request into `publishTime`.
#[tokio::test]
async fn mpd_with_publish_time_of_request_never_goes_backwards() {
    let path = "/live/a.mpd";
    let mpd = |last: u64, published: u64| {
        let first = last - 5;
        let text = format!(
            "<MPD type=\"dynamic\" availabilityStartTime=\"2024-01-01T00:00:00Z\" \
             publishTime=\"2024-01-01T01:00:{published:02}Z\" minimumUpdatePeriod=\"PT2S\">\
             <Period id=\"1\" start=\"PT0S\"><AdaptationSet contentType=\"video\">\
             <SegmentTemplate timescale=\"1\" startNumber=\"{first}\" media=\"$Number$.m4s\">\
             <SegmentTimeline><S t=\"{}\" d=\"2\" r=\"4\"/></SegmentTimeline></SegmentTemplate>\
             <Representation id=\"v\" bandwidth=\"1\"/></AdaptationSet></Period></MPD>",
            first * 2
        );
        let reply = crate::support::origin::reply().content_type("application/dash+xml");
        reply.body(text).cache_control("no-cache")
    };
    let turns = mpd(96, 0)
        .then(mpd(93, 1))
        .then(mpd(97, 2))
        .then(mpd(94, 3))
        .then(mpd(96, 4));
    let origin = Origin::start().await.on(path, turns);
    let shield = Shield::in_front_of(&origin).start().await;
    for last in [96, 96, 97, 97, 97] {
        let answer = shield.get(path).await;
        let number = format!("startNumber=\"{}\"", last - 5);
        assert!(answer.assert_200_text().contains(&number), "{answer:?}");
    }
}

/// Each country has its own timeline: its advertisements make it later than others, with other
/// names.
#[tokio::test]
async fn each_variant_has_its_own_timeline() {
    use crate::support::origin::{Request, computed};
    let text = |request: &Request| match request.header("x-country") {
        Some("de") => playlist(20).replace("seg", "de-"),
        Some("fr") => playlist(17).replace("seg", "fr-"),
        _ => playlist(30),
    };
    let script = computed(move |request| overdue(text(request)).header("Vary", "X-Country"));
    let origin = Origin::start()
        .await
        .on(PATH, script)
        .on("/live/de-20.ts", segment("de"))
        .on("/live/fr-17.ts", segment("fr"));
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.forward_headers = vec!["x-country".parse().unwrap()])
        .start()
        .await;
    let asks = |country: &str| get(PATH).header("x-country", country);
    for _ in 0..24 {
        shield
            .ask(asks("de"))
            .await
            .assert_whole(playlist(20).replace("seg", "de-"));
        shield
            .ask(asks("fr"))
            .await
            .assert_whole(playlist(17).replace("seg", "fr-"));
        for path in ["/live/de-20.ts", "/live/fr-17.ts"] {
            assert_eq!(shield.get(path).await.status, 200);
        }
    }
    assert_eq!(origin.hits("/live/de-20.ts"), 1, "it was not dropped");
    for name in [UNFIT, "seawall_stream_restarts_total"] {
        assert_eq!(shield.counter(name, &[]).await, 0, "{name}");
    }
}

/// A name that is signed anew with each version is the same segment, wherever the signature stands.
#[tokio::test]
async fn segment_paths_signed_per_version_are_no_restart() {
    for form in ["/t{}/seg", "seg-{}-", "/t{}/a/{}/seg"] {
        let signed = move |first: u64, version: usize| {
            let prefix = form.replace("{}", &format!("s{version}x"));
            playlist(first).replace("seg", &prefix)
        };
        let script = crate::support::origin::computed({
            let versions = std::sync::atomic::AtomicUsize::new(0);
            move |_| {
                let version = versions.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                // Every third version is from a node that lags.
                let lag = u64::from(version % 3 == 2) * 2;
                overdue(signed(10 + version as u64 / 4 - lag, version))
            }
        });
        let origin = Origin::start().await.on(PATH, script);
        let shield = Shield::in_front_of(&origin).start().await;
        while origin.hits(PATH) < 16 {
            assert_eq!(shield.get(PATH).await.status, 200, "{form}");
        }
        let restarts = shield.counter("seawall_stream_restarts_total", &[]);
        assert_eq!(restarts.await, 0, "{form}");
        let ahead = shield.counter("seawall_prefetches_total", &[]).await;
        assert!(ahead <= 12, "{form}: {ahead} fetched ahead of viewers");
    }
}
