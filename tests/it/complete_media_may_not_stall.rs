//! When a manifest says that media are complete, an endpoint that stalls or is too slow is
//! replaced; media still in production may pause.
//!
//! No origin deadline passes within these scenarios.

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::low_latency_hls;
use crate::support::origin::Reply;
use crate::support::shield::{Builder, endpoint};
use crate::support::{Gate, Origin, Response, Shield, get, manifest, noise, playlist, reply};

const HOUR: Duration = Duration::from_hours(1);
const PLAYLIST: &str = "/live/index.m3u8";
const MPD: &str = "/live/live.mpd";
const LISTED_PART: &str = "/live/21.1.mp4";
const HINTED_PART: &str = "/live/21.2.mp4";
const STEP_S: u64 = 3600;

/// The path of a segment, by its number.
type NameOf = fn(u64) -> String;

/// The first endpoint is preferred.
fn in_front_of(first: &Origin, second: &Origin) -> Builder {
    Shield::in_front_of(first)
        .origin(|group| {
            group.endpoints.push(endpoint(second));
            group.deadlines.between_bytes = HOUR;
            group.deadlines.total = HOUR;
        })
        .route(|route| {
            route.live.cadence = false;
            route.live.prefetch = false;
        })
        .proxy_settings(|waits| waits.wait_max = HOUR)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn chunked() -> Reply {
    reply().content_type("video/mp4").chunked()
}

async fn serving(list: (&str, Reply), media: (&str, Reply)) -> Origin {
    let origin = Origin::start().await.on(list.0, list.1);
    origin.on(media.0, media.1)
}

fn low_latency() -> Reply {
    manifest(low_latency_hls::version(20, 2)).cache_control("max-age=60")
}

/// The number of the segment that is being produced.
fn produced() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs() / STEP_S
}

/// Segments of an hour since 1970, by number and clock, or listed with their times: the last one
/// can be requested while it is produced.
fn mpds() -> [(Reply, NameOf); 2] {
    let mpd = |template: String| {
        let text = format!(
            "<MPD type=\"dynamic\" availabilityStartTime=\"1970-01-01T00:00:00Z\" \
             minimumUpdatePeriod=\"PT1H\"><Period id=\"p\" start=\"PT0S\">\
             <AdaptationSet mimeType=\"video/mp4\">{template}\
             <Representation id=\"v\" bandwidth=\"1000\"/></AdaptationSet></Period></MPD>"
        );
        let reply = reply().content_type("application/dash+xml");
        reply.cache_control("max-age=60").body(text)
    };
    let early = format!("timescale=\"1\" availabilityTimeOffset=\"{}\"", STEP_S - 1);
    let by_clock = format!(
        "<SegmentTemplate {early} availabilityTimeComplete=\"false\" duration=\"{STEP_S}\" \
         startNumber=\"0\" media=\"$Number$.m4s\"/>"
    );
    let first = (produced() - 9) * STEP_S;
    let listed = format!(
        "<SegmentTemplate {early} availabilityTimeComplete=\"false\" media=\"$Time$.m4s\">\
         <SegmentTimeline><S t=\"{first}\" d=\"{STEP_S}\" r=\"9\"/></SegmentTimeline>\
         </SegmentTemplate>"
    );
    [
        (mpd(by_clock), |number| format!("/live/{number}.m4s")),
        (mpd(listed), |number| {
            format!("/live/{}.m4s", number * STEP_S)
        }),
    ]
}

/// Complete media, with the manifest that says so.
fn complete() -> Vec<(&'static str, Reply, String)> {
    let mut all = vec![
        (PLAYLIST, low_latency(), LISTED_PART.to_owned()),
        (PLAYLIST, low_latency(), "/live/20.mp4".to_owned()),
    ];
    for (mpd, name) in mpds() {
        all.push((MPD, mpd, name(produced() - 3)));
    }
    all
}

/// In parallel, because each case waits for seconds.
async fn each<F: Future<Output = ()> + Send + 'static>(cases: impl IntoIterator<Item = F>) {
    let mut cases: JoinSet<()> = cases.into_iter().collect();
    while let Some(done) = cases.join_next().await {
        done.unwrap();
    }
}

/// Viewers have no byte yet: they get the object from the other endpoint.
#[tokio::test]
async fn takes_over_complete_media_slow_from_first_byte() {
    let (one, other) = (noise(1, 2_000), noise(2, 60_000));
    each(complete().into_iter().map(|(list, text, path)| {
        let (one, other) = (one.clone(), other.clone());
        async move {
            let dribble = chunked().send_slowly(&one, 5, millis(250));
            let first = serving((list, text.clone()), (&path, dribble)).await;
            let second = serving((list, text), (&path, chunked().send(other.clone()))).await;
            let shield = in_front_of(&first, &second).start().await;
            assert_eq!(shield.get(list).await.status, 200);
            shield.get(&path).await.assert_whole(&other);
            assert_eq!((first.hits(&path), second.hits(&path)), (1, 1), "{path}");
        }
    }))
    .await;
}

/// Viewers have a part of it: they are cut, and get it from the other endpoint when they request
/// again. A shared `ETag` does not prove that the other endpoint has all of it, unless a playlist
/// lists it as a segment.
#[tokio::test]
async fn cuts_complete_media_that_stalls_or_slows_mid_body() {
    let (one, other) = (noise(3, 60_000), noise(4, 60_000));
    let ends: [fn(Reply, &Bytes) -> Reply; 2] = [
        |begun, _| begun.stall(),
        |begun, rest| begun.send_slowly(rest, 5, Duration::from_millis(250)),
    ];
    let cases = ends.into_iter().flat_map(|end| {
        let complete = complete().into_iter();
        complete.map(move |(list, text, path)| (end, list, text, path))
    });
    each(cases.map(|(end, list, text, path)| {
        let (one, other) = (one.clone(), other.clone());
        async move {
            let is_segment_of_playlist = path == "/live/20.mp4";
            let begun = chunked().header("ETag", "\"one\"");
            let begun = begun.send(one.slice(..30_000));
            let begun = end(begun, &one.slice(30_000..32_000));
            let first = serving((list, text.clone()), (&path, begun)).await;
            let whole = reply().content_type("video/mp4");
            let whole = if is_segment_of_playlist {
                whole.etag("\"other\"").with_ranges(other.clone())
            } else {
                whole.etag("\"one\"").with_ranges(other.clone())
            };
            let second = serving((list, text), (&path, whole)).await;
            let shield = in_front_of(&first, &second).start().await;
            assert_eq!(shield.get(list).await.status, 200);
            shield.get(&path).await.assert_cut(&one);
            shield.get(&path).await.assert_whole(&other);
            let asked = if is_segment_of_playlist { 2 } else { 1 };
            assert_eq!(
                (first.hits(&path), second.hits(&path)),
                (1, asked),
                "{path}"
            );
        }
    }))
    .await;
}

/// An announced part, and the segment of an MPD that has not ended, arrive as they are produced.
#[tokio::test]
async fn no_takeover_of_media_that_pauses_while_produced() {
    let body = noise(5, 3_000);
    let mut all = vec![(PLAYLIST, low_latency(), HINTED_PART.to_owned())];
    for (mpd, name) in mpds() {
        all.push((MPD, mpd, name(produced())));
    }
    each(all.into_iter().map(|(list, text, path)| {
        let body = body.clone();
        async move {
            let gate = Gate::new();
            let slow = chunked().send_slowly(&body.slice(..1_000), 100, millis(100));
            let paused = slow.hold(&gate).send(body.slice(1_000..));
            let first = serving((list, text.clone()), (&path, paused)).await;
            let second = serving((list, text), (&path, chunked().send("other"))).await;
            let shield = in_front_of(&first, &second).start().await;
            assert_eq!(shield.get(list).await.status, 200);
            let waiting = shield.crowd(1, get(&path)).await;
            gate.wait_arrived(1).await;
            // Longer than the allowed pause of a complete object: only time makes a pause.
            tokio::time::sleep(millis(3_000)).await;
            gate.open();
            for answer in waiting.read_all().await {
                answer.assert_whole(&body);
            }
            assert_eq!((first.hits(&path), second.hits(&path)), (1, 0), "{path}");
        }
    }))
    .await;
}

/// A segment stalls while it is produced. From the moment the playlist lists it, that is a fault.
#[tokio::test]
async fn cuts_stalled_part_once_playlist_lists_it() {
    let (one, other) = (noise(6, 60_000), noise(7, 60_000));
    let versions = || {
        let stale = |parts| {
            let version = manifest(low_latency_hls::version(20, parts));
            version.cache_control("max-age=1").age(1)
        };
        stale(2).then(stale(3))
    };
    let begun = chunked().send(one.slice(..30_000)).stall();
    let first = Origin::start().await.on(PLAYLIST, versions());
    let first = first.on(HINTED_PART, begun);
    let second = Origin::start().await.on(PLAYLIST, versions());
    let second = second.on(HINTED_PART, chunked().send(other.clone()));
    let shield = in_front_of(&first, &second).start().await;
    let announces = low_latency_hls::version(20, 2);
    shield.get(PLAYLIST).await.assert_whole(announces);
    let mut begun = shield.begin(get(HINTED_PART)).await;
    begun.read(30_000).await;
    let lists = low_latency_hls::version(20, 3);
    let listed = |answer: &Response| answer.text() == lists;
    shield.repeat_until(get(PLAYLIST), listed).await;
    begun.finish().await.assert_cut(&one);
    shield.get(HINTED_PART).await.assert_whole(&other);
}

/// An object beside the segments that no manifest lists: their duration says nothing about its
/// required speed.
#[tokio::test]
async fn no_takeover_of_slow_object_that_no_manifest_lists() {
    const LENGTH: usize = 12_000_000;
    let (body, path) = (noise(8, LENGTH), "/live/extra.m4s");
    let short = mpds().map(|(mpd, _)| (MPD, mpd));
    let list = manifest(playlist(1)).cache_control("max-age=60");
    each(
        short
            .into_iter()
            .chain([(PLAYLIST, list)])
            .map(|(list, text)| {
                let body = body.clone();
                async move {
                    // At this speed it would not arrive within the longest duration of all.
                    let flowing = reply().content_type("video/mp4");
                    let flowing = flowing.content_length(LENGTH as u64);
                    let flowing =
                        flowing.send_slowly(&body.slice(..1_500_000), 60_000, millis(100));
                    let flowing = flowing.send(body.slice(1_500_000..));
                    let first = serving((list, text.clone()), (path, flowing)).await;
                    let second = serving((list, text), (path, reply().body("other"))).await;
                    let shield = in_front_of(&first, &second).start().await;
                    assert_eq!(shield.get(list).await.status, 200);
                    shield.get(path).await.assert_whole(&body);
                    assert_eq!((first.hits(path), second.hits(path)), (1, 0), "{list}");
                }
            }),
    )
    .await;
}

/// A body was too slow while it was kept from viewers, and no other endpoint was faster. Once
/// viewers have it, it gets the usual time before they are cut.
#[tokio::test]
async fn slow_body_is_not_cut_as_soon_as_viewers_have_it() {
    const LENGTH: usize = 600_000;
    let (one, other) = (noise(9, LENGTH), noise(10, LENGTH));
    let path = "/live/seg1.ts";
    let list = || manifest(playlist(1)).cache_control("max-age=60");
    let media = || {
        reply()
            .content_type("video/mp2t")
            .content_length(LENGTH as u64)
    };
    let late = media().send_slowly(&one.slice(..36_000), 1_000, millis(100));
    let late = late.send(one.slice(36_000..));
    let later = media().send_slowly(&other.slice(..36_000), 100, millis(100));
    let first = serving((PLAYLIST, list()), (path, late)).await;
    let second = serving((PLAYLIST, list()), (path, later)).await;
    let shield = in_front_of(&first, &second).start().await;
    shield.get(PLAYLIST).await.assert_whole(playlist(1));
    shield.get(path).await.assert_whole(&one);
    assert_eq!((first.hits(path), second.hits(path)), (1, 1));
}
