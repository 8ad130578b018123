//! The MPD says when a DASH segment exists: until then the origin gets no request for it, and
//! segments of watched representations are prefetched when they exist, although no new MPD
//! announces them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{
    Origin, Shield, computed, eventually, get, manifest, playlist, reply, segment, status,
};

const MPD: &str = "/live/a.mpd";
const STEP: Duration = Duration::from_millis(250);

/// Segments of a quarter of a second since 1970, by number, in two representations.
fn by_number() -> String {
    let template = "<SegmentTemplate timescale=\"4\" duration=\"1\" startNumber=\"0\" \
                    initialization=\"$RepresentationID$/init.mp4\" \
                    media=\"$RepresentationID$/$Number$.m4s\"/>";
    let set = format!(
        "<AdaptationSet mimeType=\"video/mp4\">{template}\
         <Representation id=\"hd\" bandwidth=\"2\"/><Representation id=\"sd\" bandwidth=\"1\"/>\
         </AdaptationSet>"
    );
    format!(
        "<MPD type=\"dynamic\" availabilityStartTime=\"1970-01-01T00:00:00Z\" \
         minimumUpdatePeriod=\"PT1H\"><Period id=\"0\" start=\"PT0S\">{set}</Period></MPD>"
    )
}

fn name(representation: &str, number: u64) -> String {
    format!("/live/{representation}/{number}.m4s")
}

/// The newest segment that exists.
fn newest() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis() / STEP.as_millis()).unwrap() - 1
}

/// An origin that answers 404 for segments that do not exist yet, with this many of them.
async fn on_the_air() -> Origin {
    let mpd = reply()
        .content_type("application/dash+xml")
        .body(by_number());
    let origin = Origin::start().await.on(MPD, mpd);
    let first = newest();
    for number in first - 8..first + 120 {
        for representation in ["hd", "sd"] {
            let there = computed(move |_| {
                if newest() >= number {
                    segment("there")
                } else {
                    status(404)
                }
            });
            origin.set_script(&name(representation, number), there);
        }
    }
    origin
}

/// Viewers whose clocks are ahead wait for the segment; the origin gets one request when it has it.
#[tokio::test]
async fn early_segment_request_waits_for_availability_time() {
    let origin = on_the_air().await;
    let shield = Shield::in_front_of(&origin)
        .route(|route| {
            route.live.hold_early = Duration::from_secs(2);
            route.live.prefetch = false;
        })
        .start()
        .await;
    shield.get(MPD).await;
    let early = name("hd", newest() + 3);
    for answer in shield.crowd(20, get(&early)).await.read_all().await {
        answer.assert_whole("there");
    }
    assert_eq!(origin.hits(&early), 1);
}

/// A late packager answers 404 for a segment that should exist: the 404 is remembered for a moment
/// only, also for viewers who were held until then.
#[tokio::test]
async fn due_segment_404_is_remembered_only_briefly() {
    let origin = on_the_air().await;
    let late = name("hd", newest() + 3);
    origin.set_script(&late, status(404).then(segment("there")));
    let shield = Shield::in_front_of(&origin)
        .route(|route| {
            route.live.hold_early = Duration::from_secs(2);
            route.live.prefetch = false;
            route.lifetimes.negative_max = Duration::from_hours(1);
        })
        .start()
        .await;
    shield.get(MPD).await;
    assert_eq!(shield.get(&late).await.status, 404);
    let there = shield.repeat_until(get(&late), |answer| answer.status == 200);
    there.await.assert_whole("there");
}

/// Buggy players count upwards through numbers that are hours ahead. One in a while is requested
/// from the origin; the others get 404 by the MPD's clock and a margin.
#[tokio::test]
async fn segments_hours_ahead_get_404_with_few_origin_requests() {
    for text in [
        by_number(),
        by_number().replace("$Number$", "$Number%010d$"),
    ] {
        let mpd = reply()
            .content_type("application/dash+xml")
            .body(text.clone());
        let origin = Origin::start().await.on(MPD, mpd);
        let shield = Shield::in_front_of(&origin)
            .route(|route| route.live.prefetch = false)
            .start()
            .await;
        shield.get(MPD).await;
        let written = |number: u128| {
            if text.contains("%010d") {
                format!("/live/hd/{number:010}.m4s")
            } else {
                format!("/live/hd/{number}.m4s")
            }
        };
        let mut viewer = shield.viewer().await;
        // An hour ahead; beyond representable times; beyond 64-bit numbers.
        let hour = u128::from(newest() + 14_400);
        let most = u128::from(u64::MAX);
        for far in [
            hour,
            10_u128.pow(11),
            10_u128.pow(17),
            most - 150,
            10_u128.pow(30),
        ] {
            let start = std::time::Instant::now();
            for number in far..far + 300 {
                let answer = viewer.ask(get(&written(number))).await;
                assert_eq!(answer.status, 404, "{answer:?}");
            }
            let windows = usize::try_from(start.elapsed().as_secs() / 2).unwrap() + 1;
            let asked = (far..far + 300).map(|number| origin.hits(&written(number)));
            let asked: usize = asked.sum();
            let asked_min = usize::from(far == hour);
            assert!(
                (asked_min..=4 * windows).contains(&asked),
                "{asked} requests for {far}"
            );
        }
    }
}

/// An MPD clock that is wrong by hours hides no existing segment.
#[tokio::test]
async fn wrong_mpd_clock_hides_no_existing_segment() {
    let origin = on_the_air().await;
    // By this MPD everything exists an hour later.
    let late = by_number().replace("1970-01-01T00:00:00Z", "1970-01-01T01:00:00Z");
    let mpd = reply().content_type("application/dash+xml").body(late);
    origin.set_script(MPD, mpd);
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.live.prefetch = false)
        .start()
        .await;
    shield.get(MPD).await;
    // An object does not exist at all, and the origin says so.
    assert_eq!(shield.get(&name("hd", newest() + 9_000)).await.status, 404);
    let first = newest() - 5;
    for number in first..first + 5 {
        for representation in ["hd", "sd"] {
            let answer = shield.get(&name(representation, number)).await;
            answer.assert_whole("there");
        }
    }
}

/// Segment names without an extension are recognised by the MPD.
#[tokio::test]
async fn early_request_waits_for_segment_without_extension() {
    let odd = |number| format!("/live/hd/Fragments(video={number},format=mpd)");
    let text = by_number().replace("/$Number$.m4s", "/Fragments(video=$Number$,format=mpd)");
    let mpd = reply().content_type("application/dash+xml").body(text);
    let early = newest() + 3;
    let there = computed(move |_| {
        if newest() >= early {
            segment("there")
        } else {
            status(404)
        }
    });
    let origin = Origin::start().await.on(MPD, mpd).on(&odd(early), there);
    let shield = Shield::in_front_of(&origin)
        .route(|route| {
            route.live.hold_early = Duration::from_secs(2);
            route.live.prefetch = false;
        })
        .start()
        .await;
    shield.get(MPD).await;
    shield.get(&odd(early)).await.assert_whole("there");
    assert_eq!(origin.hits(&odd(early)), 1);
}

/// With `hold_early` off, viewers get a 404 that is remembered until the segment exists.
#[tokio::test]
async fn early_404_expires_when_segment_becomes_available() {
    let origin = on_the_air().await;
    let shield = Shield::in_front_of(&origin)
        .route(|route| {
            route.live.hold_early = Duration::ZERO;
            route.live.prefetch = false;
            route.lifetimes.negative_max = Duration::from_hours(1);
        })
        .start()
        .await;
    shield.get(MPD).await;
    let early = name("hd", newest() + 4);
    assert_eq!(shield.get(&early).await.status, 404);
    let there = shield.repeat_until(get(&early), |answer| answer.status == 200);
    there.await.assert_whole("there");
    assert_eq!(origin.hits(&early), 2);
}

/// The next numbers of a watched representation are prefetched; those of the other one are not.
#[tokio::test]
async fn prefetches_next_numbers_of_watched_representation() {
    let origin = on_the_air().await;
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(MPD).await;
    let first = newest();
    shield.get(&name("hd", first)).await.assert_whole("there");
    for number in first + 1..first + 4 {
        origin.wait_hits(&name("hd", number), 1).await;
        let held = |answer: &crate::support::Response| answer.is_hit();
        shield.repeat_until(get(&name("hd", number)), held).await;
    }
    for number in first - 8..first + 5 {
        assert_eq!(origin.hits(&name("sd", number)), 0, "no viewer watches it");
    }
    assert_eq!(origin.hits(MPD), 1);
    let templates = [("source", "template")];
    assert!(shield.counter("seawall_prefetches_total", &templates).await >= 3);
}

/// A representation that its viewer has left is not prefetched, although the other one goes on.
#[tokio::test]
async fn does_not_prefetch_representation_its_viewer_left() {
    let origin = on_the_air().await;
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(MPD).await;
    let first = newest();
    shield.get(&name("sd", first)).await.assert_whole("there");
    // The player switches up, and stays there.
    for number in first + 1..first + 16 {
        eventually("the next segment to be due", async || newest() >= number).await;
        shield.get(&name("hd", number)).await.assert_whole("there");
    }
    let fetched = |number: &u64| origin.hits(&name("sd", *number)) > 0;
    let late = (first + 8..first + 16).filter(fetched).count();
    assert_eq!(late, 0, "two segments' time and half a second are over");
}

/// A long timeline lists segments that were requested long ago: they are no sign of current
/// viewers.
#[tokio::test]
async fn does_not_prefetch_representation_watched_long_ago() {
    let text = |last| by_timeline(last).replace("d=\"6\"", "d=\"1\"");
    let version = |last| {
        let reply = reply().content_type("application/dash+xml");
        let reply = reply.cache_control("max-age=1").age(1);
        reply.body(text(last))
    };
    let origin = Origin::start().await.on(MPD, version(10));
    for number in 9..13 {
        origin.set_script(&name("hd", number), segment("there"));
    }
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.live.cadence = false)
        .start()
        .await;
    shield.get(MPD).await;
    shield.get(&name("hd", 9)).await.assert_whole("there");
    // Segments of a second: after two and a half seconds the stream is unwatched. Nothing shows it
    // from outside before the next request.
    tokio::time::sleep(Duration::from_millis(2700)).await;
    origin.set_script(MPD, version(11));
    let newer = |answer: &crate::support::Response| answer.text() == text(11);
    shield.repeat_until(get(MPD), newer).await;
    assert_eq!(shield.counter("seawall_prefetches_total", &[]).await, 0);
}

/// Prefetch ends when the stream is unwatched.
#[tokio::test]
async fn prefetch_stops_when_stream_is_unwatched() {
    let origin = on_the_air().await;
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(MPD).await;
    let first = newest();
    shield.get(&name("hd", first)).await.assert_whole("there");
    // Two segment durations and half a second: four requests in vain at most. A request that is not
    // made has no event: the time in which it would be made must pass.
    origin.wait_hits(&name("hd", first + 2), 1).await;
    tokio::time::sleep(8 * STEP).await;
    let fetched = |number: &u64| origin.hits(&name("hd", *number)) > 0;
    let late = (first + 8..first + 20).filter(fetched).count();
    assert_eq!(late, 0);
}

/// A timeline that ends with this number, in two representations.
fn by_timeline(last: u64) -> String {
    let template = format!(
        "<SegmentTemplate timescale=\"1\" startNumber=\"{}\" \
         media=\"$RepresentationID$/$Number$.m4s\"><SegmentTimeline><S t=\"{}\" d=\"6\" r=\"3\"/></SegmentTimeline></SegmentTemplate>",
        last - 3,
        6 * (last - 3),
    );
    by_number()
        .replace("PT1H", "PT6S")
        .replace("<AdaptationSet mimeType=\"video/mp4\">", "<AdaptationSet>")
        .split_once("<SegmentTemplate")
        .map(|(before, after)| {
            let after = after.split_once("/>").unwrap().1;
            format!("{before}{template}{after}")
        })
        .unwrap()
}

/// A new version lists the next segment of all representations: only those of watched ones are
/// prefetched.
#[tokio::test]
async fn new_mpd_version_prefetches_only_watched_representations() {
    let version = |last| {
        reply()
            .content_type("application/dash+xml")
            .cache_control("max-age=1")
            .age(1)
            .body(by_timeline(last))
    };
    let origin = Origin::start().await.on(MPD, version(10));
    for number in 9..12 {
        for representation in ["hd", "sd"] {
            origin.set_script(&name(representation, number), segment("there"));
        }
    }
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(MPD).await;
    shield.get(&name("hd", 9)).await.assert_whole("there");
    origin.set_script(MPD, version(11));
    let newer = |answer: &crate::support::Response| answer.text() == by_timeline(11);
    shield.repeat_until(get(MPD), newer).await;
    origin.wait_hits(&name("hd", 11), 1).await;
    let stored = |answer: &crate::support::Response| answer.is_hit();
    shield.repeat_until(get(&name("hd", 11)), stored).await;
    assert_eq!(origin.hits(&name("sd", 11)), 0, "no viewer watches it");
    assert_eq!(origin.hits(&name("hd", 10)), 0, "it was listed before");
}

/// A timeline ahead of the clock delays no request: listed segments are requested at once.
#[tokio::test]
async fn timeline_ahead_of_clock_delays_no_listed_segment() {
    let ahead = by_timeline(10).replace("1970-", "2099-");
    let mpd = reply().content_type("application/dash+xml").body(ahead);
    let origin = Origin::start().await.on(MPD, mpd);
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(MPD).await;
    let due = async |number| {
        let url = format!("http://media.test{}", name("hd", number));
        let explanation = shield.admin(get(&format!("/explain?url={url}"))).await;
        explanation.text().contains("due_in_seconds")
    };
    assert!(!due(10).await && due(11).await);
}

/// Invented streams push the state of this one out. Its MPD never changes, but its availability
/// times are known again after the next request for it.
#[tokio::test]
async fn evicted_mpd_state_is_rebuilt_on_next_request() {
    const OTHERS: usize = 300;
    let mpd = reply()
        .content_type("application/dash+xml")
        .cache_control("max-age=1")
        .age(1)
        .etag("\"1\"")
        .body(by_number());
    let mut origin = Origin::start().await.on(MPD, mpd);
    for number in 0..OTHERS {
        origin = origin.on(&format!("/{number}.m3u8"), manifest(playlist(1)));
    }
    let shield = Shield::in_front_of(&origin)
        .with(|config| config.cache.memory_bytes = 8 << 20)
        .start()
        .await;
    let is_known = async || {
        let url = format!("/explain?url=http://media.test{MPD}");
        let explanation = shield.admin(get(&url)).await;
        let explanation: serde_json::Value = serde_json::from_str(explanation.text()).unwrap();
        explanation["followed"].is_object()
    };
    shield.get(MPD).await.assert_whole(by_number());
    assert!(is_known().await);
    for number in 0..OTHERS {
        shield.get(&format!("/{number}.m3u8")).await;
    }
    assert!(!is_known().await);
    shield.get(MPD).await.assert_whole(by_number());
    eventually("the MPD to be known", is_known).await;
    // From now on it is revalidated again.
    let is_confirmed = async || origin.latest(MPD).header("if-none-match").is_some();
    eventually("it to be confirmed", async || {
        shield.get(MPD).await.assert_whole(by_number());
        is_confirmed().await
    })
    .await;
}
