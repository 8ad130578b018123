//! The origin gets each low-latency HLS request for a version or part that does not exist yet once;
//! all its viewers are answered when the origin answers, and none before.

use std::time::Duration;

use seawall_policy::route::QueryPolicy;
use seawall_simulator::{
    self, BroadcastPlan, Clock, ClockControl, DemoRendition, Packaging, Resource, Utc,
};
use tokio::task::JoinHandle;

use crate::support::shield::{Builder, endpoint_at};
use crate::support::viewer::Viewer;
use crate::support::{Gate, Origin, Response, Shield, eventually, get, manifest, segment, status};

pub const PATH: &str = "/live/index.m3u8";
/// The version after [`version`] (20, 2).
pub const NEXT: &str = "/live/index.m3u8?_HLS_msn=21&_HLS_part=2";

/// Ten segments of four seconds up to this one, and parts of the next.
pub fn version(last: u64, parts: u64) -> String {
    let first = last - 9;
    let head = "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:4\n\
         #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=24.0,PART-HOLD-BACK=3.0\n\
         #EXT-X-PART-INF:PART-TARGET=1.0\n";
    // Long enough to be worth compressing.
    let title = "low latency ".repeat(40);
    let line = |number| format!("#EXTINF:4.0,{title}\n{number}.mp4\n");
    let segments: String = (first..=last).map(line).collect();
    let next = last + 1;
    let parts: String = (0..=parts)
        .map(|part| match part {
            _ if part == parts => {
                format!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{next}.{part}.mp4\"\n")
            }
            _ => format!("#EXT-X-PART:DURATION=1.0,URI=\"{next}.{part}.mp4\"\n"),
        })
        .collect();
    format!("{head}#EXT-X-MEDIA-SEQUENCE:{first}\n{segments}{parts}")
}

/// An origin that has this version, and sends the next one when the gate opens.
pub async fn holding(gate: &Gate) -> Origin {
    let next = manifest(version(20, 3)).cache_control("max-age=1");
    Origin::start()
        .await
        .on(PATH, manifest(version(20, 2)).cache_control("max-age=1"))
        .on(NEXT, next.hold_head(gate))
}

/// A shield that makes no requests of its own.
pub fn passive(origin: &Origin) -> Builder {
    Shield::in_front_of(origin).route(|route| {
        route.live.cadence = false;
        route.live.prefetch = false;
    })
}

#[tokio::test]
async fn concurrent_blocking_reloads_are_one_origin_request() {
    let gate = Gate::new();
    let origin = holding(&gate).await;
    let shield = passive(&origin).start().await;
    shield.get(PATH).await.assert_whole(version(20, 2));
    let crowd = shield.crowd(30, get(NEXT)).await;
    let otherwise = "/live/index.m3u8?_HLS_part=02&_HLS_msn=21";
    let others = shield.crowd(3, get(otherwise)).await;
    gate.wait_arrived(1).await;
    assert!(shield.get(PATH).await.is_hit(), "other requests are hits");
    gate.open();
    for answers in [crowd.read_all().await, others.read_all().await] {
        for answer in answers {
            answer.assert_whole(version(20, 3));
        }
    }
    assert_eq!(origin.hits(PATH), 2);
}

/// The newest version is the playlist, whichever request brought it.
#[tokio::test]
async fn stored_version_answers_blocking_reloads_it_satisfies() {
    let gate = Gate::new();
    gate.open();
    let origin = holding(&gate).await;
    let shield = passive(&origin).start().await;
    shield.get(NEXT).await.assert_whole(version(20, 3));
    for query in [
        "",
        "?_HLS_msn=21&_HLS_part=2",
        "?_HLS_msn=21&_HLS_part=0",
        "?_HLS_msn=20",
    ] {
        let answer = shield.get(&format!("{PATH}{query}")).await;
        answer.assert_whole(version(20, 3));
        assert!(answer.is_hit(), "{query}: {answer:?}");
        assert_eq!(answer.age(), 0);
    }
    assert_eq!(origin.hits(PATH), 1);
}

/// An old version in place of a new one makes players request again without a pause.
#[tokio::test]
async fn failed_blocking_reload_does_not_get_older_version() {
    let origin = Origin::start()
        .await
        .on(PATH, manifest(version(20, 2)).cache_control("max-age=1"))
        .on(NEXT, status(503));
    let shield = passive(&origin).start().await;
    shield.get(PATH).await.assert_whole(version(20, 2));
    assert_eq!(shield.get(NEXT).await.status, 503);
    shield.get(PATH).await.assert_whole(version(20, 2));
}

#[tokio::test]
async fn passes_on_400_for_reload_too_far_ahead() {
    let far = "/live/index.m3u8?_HLS_msn=40";
    let origin = Origin::start()
        .await
        .on(PATH, manifest(version(20, 2)).cache_control("max-age=1"))
        .on(far, status(400));
    let shield = passive(&origin).start().await;
    shield.get(PATH).await;
    for _ in 0..2 {
        assert_eq!(shield.get(far).await.status, 400);
    }
    assert_eq!(origin.hits(far), 2, "it is not kept");
}

#[tokio::test]
async fn directives_are_ignored_after_endlist() {
    let ended = version(20, 0) + "#EXT-X-ENDLIST\n";
    let origin = Origin::start()
        .await
        .on(PATH, manifest(ended.clone()).cache_control("max-age=60"));
    let shield = passive(&origin).start().await;
    shield.get(PATH).await;
    for query in ["_HLS_msn=21", "_HLS_msn=90&_HLS_part=1", "_HLS_skip=YES"] {
        let answer = shield.get(&format!("{PATH}?{query}")).await;
        answer.assert_whole(&ended);
        assert!(answer.is_hit(), "{query}");
    }
    assert_eq!(origin.hits(PATH), 1);
}

/// A blocking request takes no permit.
#[tokio::test]
async fn blocking_reload_takes_no_concurrency_permit() {
    let gate = Gate::new();
    let origin = holding(&gate).await.on("/live/20.mp4", segment("media"));
    let shield = passive(&origin)
        .origin(|group| {
            group.concurrency_max = 1;
            group.endpoints[0].concurrency_max = Some(1);
        })
        .start()
        .await;
    shield.get(PATH).await;
    let waiting = shield.crowd(1, get(NEXT)).await;
    gate.wait_arrived(1).await;
    assert_eq!(shield.gauge("seawall_origin_blocking").await, 1);
    shield.get("/live/20.mp4").await.assert_whole("media");
    gate.open();
    waiting.read_all().await[0].assert_whole(version(20, 3));
}

/// When the origin does not answer blocking requests, the playlist is polled by its cadence.
#[tokio::test]
async fn playlist_is_polled_when_blocking_reload_fails() {
    let quick = version(20, 2).replace("PART-TARGET=1.0", "PART-TARGET=0.2");
    let overdue = manifest(quick).cache_control("max-age=1").age(1);
    let origin = Origin::start()
        .await
        .on(PATH, overdue)
        .on(NEXT, status(503));
    let shield = Shield::in_front_of(&origin).start().await;
    // The first request is answered, the second causes a refresh, and from then on it is refreshed
    // by itself.
    shield.get(PATH).await;
    shield.get(PATH).await;
    origin.wait_hits(NEXT, 1).await;
    let before = origin.hits(PATH);
    origin.wait_hits(PATH, before + 3).await;
    let waits = origin.hits(NEXT);
    assert!(waits <= 2, "asked to wait {waits} times");
}

#[tokio::test]
async fn route_that_drops_queries_keeps_hls_directives() {
    let gate = Gate::new();
    gate.open();
    let origin = holding(&gate).await;
    let shield = passive(&origin)
        .route(|route| route.query = QueryPolicy::None.into())
        .start()
        .await;
    let asked = "/live/index.m3u8?_HLS_part=2&token=x&_HLS_msn=021";
    shield.get(asked).await.assert_whole(version(20, 3));
    assert_eq!(origin.hits(NEXT), 1);
}

/// Players with and without delta updates cause the same origin requests.
#[tokio::test]
async fn delta_update_is_generated_from_stored_playlist() {
    let gate = Gate::new();
    let origin = holding(&gate).await;
    let shield = passive(&origin).start().await;
    let delta = shield.get(&format!("{PATH}?_HLS_skip=YES")).await;
    assert!(
        delta
            .assert_200_text()
            .contains("#EXT-X-SKIP:SKIPPED-SEGMENTS=4")
    );
    assert!(!delta.text().contains("14.mp4") && delta.text().contains("15.mp4"));
    shield.get(PATH).await.assert_whole(version(20, 2));
    let whole = shield.crowd(1, get(NEXT)).await;
    let deltas = shield.crowd(1, get(&format!("{NEXT}&_HLS_skip=YES"))).await;
    gate.wait_arrived(1).await;
    gate.open();
    whole.read_all().await[0].assert_whole(version(20, 3));
    let delta = &deltas.read_all().await[0];
    assert!(delta.assert_200_text().contains("#EXT-X-SKIP"));
    assert!(delta.text().ends_with("21.3.mp4\"\n"), "{}", delta.text());
    let coded = get(&format!("{NEXT}&_HLS_skip=YES")).header("accept-encoding", "gzip");
    let coded = shield.ask(coded).await;
    assert!(coded.is_hit() && coded.body.len() < delta.body.len());
    assert_eq!(origin.hits(PATH), 2);
}

/// Lines that an origin skips in its own delta update are not missing from the playlist.
#[tokio::test]
async fn origin_delta_update_does_not_replace_full_playlist() {
    let text = "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:4\n\
         #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=24.0,PART-HOLD-BACK=3.0\n\
         #EXT-X-PART-INF:PART-TARGET=1.0\n#EXT-X-MEDIA-SEQUENCE:11\n\
         #EXT-X-SKIP:SKIPPED-SEGMENTS=9\n#EXTINF:4.0,\n20.mp4\n\
         #EXT-X-PART:DURATION=1.0,URI=\"21.0.mp4\"\n";
    let skipping = "/live/index.m3u8?_HLS_msn=21&_HLS_part=0&_HLS_skip=YES";
    let origin = Origin::start()
        .await
        .on(PATH, manifest(version(20, 0)).cache_control("max-age=1"))
        .on(skipping, manifest(text).cache_control("max-age=1"));
    let shield = passive(&origin)
        .route(|route| route.live.delta_updates = false)
        .start()
        .await;
    shield.get(PATH).await;
    shield.get(skipping).await.assert_whole(text);
    shield.get(PATH).await.assert_whole(version(20, 0));
    assert!(shield.get(skipping).await.is_hit());
}

#[tokio::test]
async fn purge_drops_response_of_blocking_reload() {
    let gate = Gate::new();
    gate.open();
    let origin = holding(&gate).await;
    let shield = passive(&origin).start().await;
    shield.get(NEXT).await;
    shield.purge(PATH).await;
    shield.get(NEXT).await.assert_whole(version(20, 3));
    assert_eq!(origin.hits(NEXT), 2);
}

/// Two responses in progress may arrive in the wrong order. No endpoint is blamed for that.
#[tokio::test]
async fn overtaken_response_does_not_replace_newer_version() {
    let (slow, gate) = (Gate::new(), Gate::new());
    gate.open();
    let origin = holding(&gate).await;
    let shield = passive(&origin).start().await;
    shield.get(PATH).await;
    shield.purge(PATH).await;
    let old = manifest(version(20, 2)).cache_control("max-age=1");
    origin.set_script(PATH, old.hold_head(&slow));
    let plain = shield.crowd(1, get(PATH)).await;
    slow.wait_arrived(1).await;
    shield.get(NEXT).await.assert_whole(version(20, 3));
    slow.open();
    plain.read_all().await[0].assert_whole(version(20, 3));
    let unfit = shield.counter("seawall_manifests_unfit_total", &[]);
    assert_eq!(unfit.await, 0);
}

/// An origin that does not block for an announced part answers 404: viewers who come when it is
/// listed do not get that.
#[tokio::test]
async fn early_part_404_ends_when_part_is_listed() {
    let gate = Gate::new();
    gate.open();
    let part = "/live/21.2.mp4";
    let origin = holding(&gate).await.on(part, status(404));
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.live.cadence = false)
        .start()
        .await;
    shield.get(PATH).await;
    let early =
        |answer: &Response| answer.status == 404 && answer.cache_status().has_parameter("hit");
    shield.repeat_until(get(part), early).await;
    origin.set_script(part, segment("part"));
    shield.get(NEXT).await.assert_whole(version(20, 3));
    shield.get(part).await.assert_whole("part");
}

const START: Utc = Duration::from_secs(1_750_000_000);
const PART: Duration = Duration::from_nanos(333_333_334);

/// The simulator's stream on a manual clock: twenty segments and two parts exist.
async fn on_air() -> (seawall_simulator::SimulatedOrigin, ClockControl, Shield) {
    let (clock, hand) = Clock::manual(START + Duration::from_secs(40) + 2 * PART);
    let demo =
        seawall_simulator::SimulatedOrigin::start(BroadcastPlan::from(START), clock).unwrap();
    let shield = Shield::in_front_of_endpoint(endpoint_at(demo.address()))
        .start()
        .await;
    (demo, hand, shield)
}

fn asking(shield: &Shield, target: String) -> JoinHandle<Response> {
    let address = shield.address();
    tokio::spawn(async move { Viewer::connect(address).await.get(&target).await })
}

async fn waits_at(demo: &seawall_simulator::SimulatedOrigin, target: &str) {
    eventually(format!("{target} to wait at the origin"), async || {
        demo.request_log().count_of_target(target).in_flight == 1
    })
    .await;
}

/// One viewer is enough: from then on the shield requests each part and version itself, and viewers
/// join these requests.
#[tokio::test]
async fn each_part_and_version_is_requested_once_before_viewers() {
    let (demo, hand, shield) = on_air().await;
    let (form, low) = (Packaging::LowLatency, DemoRendition::Low);
    let playlist = Resource::Playlist(form, low).path();
    let state = |part: u64| format!("{playlist}?_HLS_msn=20&_HLS_part={part}");
    let part = |part: u64| Resource::Part(form, low, 20, part).path();
    shield.get(&playlist).await;
    let first = asking(&shield, state(2));
    waits_at(&demo, &state(2)).await;
    hand.advance(PART);
    assert!(first.await.unwrap().text().contains("20.2.m4s\"\n"));
    for next in 3..6 {
        waits_at(&demo, &state(next)).await;
        waits_at(&demo, &part(next)).await;
        let texts = shield.crowd(10, get(&state(next))).await;
        let parts = shield.crowd(10, get(&part(next))).await;
        hand.advance(PART);
        for answer in texts.read_all().await {
            let listed = format!("URI=\"20.{next}.m4s\"");
            assert!(
                answer.assert_200_text().contains(&listed),
                "{}",
                answer.text()
            );
        }
        for answer in parts.read_all().await {
            answer.assert_whole(demo.broadcast().part(low, 20, next));
        }
        assert_eq!(demo.request_log().count_of_target(&state(next)).requests, 1);
    }
    assert_eq!(
        demo.request_log().count_of_target(&playlist).requests,
        1,
        "no other poll is made"
    );
    assert_eq!(demo.request_log().duplicates(), []);
}

/// Parts as byte ranges: the segment is fetched once, as it is written, and each range is sent when
/// it exists.
#[tokio::test]
async fn part_byte_ranges_are_served_from_one_growing_fill() {
    let (demo, hand, shield) = on_air().await;
    let place = Resource::Segment(Packaging::LowLatencyRanges, DemoRendition::Low, 20).path();
    let mut first = 0;
    for part in 0..6 {
        let expected = demo.broadcast().part(DemoRendition::Low, 20, part);
        let last = first + expected.len() - 1;
        let viewer = shield.viewer().await;
        let ask = get(&place).range(&format!("{first}-{last}"));
        let answer = tokio::spawn(async move { { viewer }.ask(ask).await });
        if part >= 2 {
            hand.advance(PART);
        }
        answer.await.unwrap().assert_is(206, &expected);
        first = last + 1;
    }
    assert_eq!(demo.request_log().count_of_target(&place).requests, 1);
}

/// A 304 for an old version arrives after a newer version: viewers keep getting the newer one.
#[tokio::test]
async fn overtaken_304_does_not_restore_older_version() {
    let (slow, gate) = (Gate::new(), Gate::new());
    gate.open();
    let tagged = || manifest(version(20, 2)).cache_control("max-age=0");
    let origin = holding(&gate).await;
    origin.set_script(PATH, tagged().etag("\"2\""));
    let shield = passive(&origin).start().await;
    shield.get(PATH).await.assert_whole(version(20, 2));
    origin.set_script(PATH, tagged().etag("\"2\"").hold_head(&slow));
    let plain = shield.crowd(1, get(PATH)).await;
    slow.wait_arrived(1).await;
    shield.get(NEXT).await.assert_whole(version(20, 3));
    slow.open();
    plain.read_all().await[0].assert_whole(version(20, 3));
    shield
        .get(&format!("{PATH}?_HLS_msn=21&_HLS_part=2"))
        .await
        .assert_whole(version(20, 3));
}

/// A version from a node that lags: the stored one is newer, whole or as a delta update.
#[tokio::test]
async fn version_from_lagging_node_does_not_replace_newer_one() {
    for words in ["no-cache", "max-age=1, must-revalidate", "max-age=1"] {
        let says = |last, parts| manifest(version(last, parts)).cache_control(words);
        let after = "/live/index.m3u8?_HLS_msn=21&_HLS_part=3";
        let origin = Origin::start()
            .await
            .on(PATH, says(20, 2).then(says(19, 1)))
            .on(NEXT, says(20, 3))
            .on(after, says(19, 3));
        let shield = passive(&origin).start().await;
        shield.get(PATH).await.assert_whole(version(20, 2));
        shield.get(NEXT).await.assert_whole(version(20, 3));
        for _ in 0..3 {
            shield.get(after).await.assert_whole(version(20, 3));
            let delta = shield.get(&format!("{after}&_HLS_skip=YES")).await;
            assert!(delta.assert_200_text().contains("21.2.mp4\"\n"), "{words}");
            shield.get(PATH).await.assert_whole(version(20, 3));
            let delta = shield.get(&format!("{PATH}?_HLS_skip=YES")).await;
            assert!(delta.assert_200_text().contains("#EXT-X-SKIP"), "{words}");
        }
    }
}
