//! When one of two endpoints hangs, stops, breaks off or lacks what it lists, viewers get the other
//! endpoint's response, whatever they request.
//!
//! No origin deadline passes within these scenarios: what arrives came from the other endpoint.

use std::time::Duration;

use crate::low_latency_hls;
use crate::support::metrics::{EJECTED, HEDGES, HEDGES_WON};
use crate::support::origin::Reply;
use crate::support::shield::Builder;
use crate::support::{
    End, Gate, Origin, Response, Shield, get, manifest, noise, playlist, reply, status,
};

const HOUR: Duration = Duration::from_hours(1);
const PATH: &str = "/live/index.m3u8";
const MPD: &str = r#"<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"
mediaPresentationDuration="PT8S"><Period><AdaptationSet mimeType="video/mp4"><SegmentTemplate
media="$Number$.m4s" initialization="init.mp4" duration="4" timescale="1"/><Representation id="v"
bandwidth="1000"/></AdaptationSet></Period></MPD>"#;

/// The first endpoint is preferred.
fn in_front_of(first: &Origin, second: &Origin) -> Builder {
    Shield::in_front_of(first)
        .and_endpoint(second)
        .without_deadlines()
}

/// What viewers request, by path.
fn everything() -> [(&'static str, &'static str, String); 7] {
    let hls = "application/vnd.apple.mpegurl";
    [
        (PATH, hls, playlist(1)),
        ("/live/seg1.ts", "video/mp2t", "segment".to_owned()),
        ("/live/init.mp4", "video/mp4", "init".to_owned()),
        ("/live/21.0.mp4", "video/mp4", "part".to_owned()),
        ("/dash/live.mpd", "application/dash+xml", MPD.to_owned()),
        ("/dash/1.m4s", "video/iso.segment", "segment".to_owned()),
        ("/dash/subtitles.vtt", "text/vtt", "WEBVTT\n\n".to_owned()),
    ]
}

fn answer(content_type: &str, body: &str) -> Reply {
    reply().content_type(content_type).body(body.to_owned())
}

/// No latency is known yet: viewers wait only for the default hedge delay.
#[tokio::test]
async fn second_endpoint_answers_when_first_hangs() {
    for (path, content_type, body) in everything() {
        let never = Gate::new();
        let whole = answer(content_type, &body);
        let first = Origin::start()
            .await
            .on(path, whole.clone().hold_head(&never));
        let second = Origin::start().await.on(path, whole);
        let shield = in_front_of(&first, &second).start().await;
        shield.get(path).await.assert_whole(&body);
        assert_eq!((first.hits(path), second.hits(path)), (1, 1), "{path}");
        assert_eq!(shield.counter(HEDGES_WON, &[]).await, 1, "{path}");
    }
}

/// Two of three endpoints hang, or hang and fail: the third is requested as soon as the second is
/// late too.
#[tokio::test]
async fn third_endpoint_answers_when_first_two_hang() {
    for (path, content_type, body) in everything() {
        let never = Gate::new();
        let whole = answer(content_type, &body);
        let first = Origin::start()
            .await
            .on(path, whole.clone().hold_head(&never));
        let second = Origin::start()
            .await
            .on(path, whole.clone().hold_head(&never));
        let third = Origin::start().await.on(path, whole);
        let shield = in_front_of(&first, &second)
            .and_endpoint(&third)
            .start()
            .await;
        shield.get(path).await.assert_whole(&body);
        let asked = [&first, &second, &third].map(|origin| origin.hits(path));
        assert_eq!(asked, [1, 1, 1], "{path}");
    }
}

/// An endpoint that has answered no request does not get a third one.
#[tokio::test]
async fn silent_endpoint_is_ejected_after_two_requests() {
    let never = Gate::new();
    let (mut first, mut second) = (Origin::start().await, Origin::start().await);
    for number in 0..6 {
        let path = format!("/live/{number}.ts");
        let whole = answer("video/mp2t", "whole");
        first = first.on(&path, whole.clone().hold_head(&never));
        second = second.on(&path, whole);
    }
    let shield = in_front_of(&first, &second)
        .origin(|group| {
            group.guards.ejection.base = HOUR;
            group.guards.ejection.max = HOUR;
        })
        .start()
        .await;
    for number in 0..6 {
        let path = format!("/live/{number}.ts");
        shield.get(&path).await.assert_whole("whole");
        assert_eq!(first.hits(&path), usize::from(number < 2), "{number}");
    }
    assert_eq!(shield.gauge(EJECTED).await, 1);
}

/// A prefetch may hang for long, but not once a viewer waits for it.
#[tokio::test]
async fn hung_prefetch_is_hedged_once_a_viewer_waits() {
    let never = Gate::new();
    let newest = "/live/seg4.ts";
    let stale = manifest(playlist(1)).cache_control("max-age=1").age(10);
    let first = Origin::start()
        .await
        .on(PATH, stale.then(manifest(playlist(2))))
        .on(newest, answer("video/mp2t", "first").hold_head(&never));
    let second = Origin::start()
        .await
        .on(PATH, manifest(playlist(2)))
        .on(newest, answer("video/mp2t", "second"));
    let shield = in_front_of(&first, &second).start().await;
    shield.get(PATH).await;
    let newer = |answer: &Response| answer.text() == playlist(2);
    shield.repeat_until(get(PATH), newer).await;
    never.wait_arrived(1).await;
    assert_eq!(second.hits(newest), 0, "no viewer waits for it");
    let viewers = shield.crowd(3, get(newest)).await;
    for answer in viewers.read_all().await {
        answer.assert_whole("second");
    }
    assert_eq!((first.hits(newest), second.hits(newest)), (1, 1));
}

/// With one endpoint, it gets one request, however late.
#[tokio::test]
async fn single_endpoint_is_never_hedged() {
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on("/a.ts", answer("video/mp2t", "late").hold_head(&gate))
        .on("/b.ts", answer("video/mp2t", "quick"));
    let shield = Shield::in_front_of(&origin).start().await;
    let waiting = shield.crowd(2, get("/a.ts")).await;
    gate.wait_arrived(1).await;
    shield.get("/b.ts").await.assert_whole("quick");
    gate.open();
    for answer in waiting.read_all().await {
        answer.assert_whole("late");
    }
    assert_eq!(origin.hits("/a.ts"), 1);
    assert_eq!(shield.counter(HEDGES, &[]).await, 0);
}

/// A response head without any body bytes.
#[tokio::test]
async fn second_endpoint_answers_when_first_stops_after_head() {
    for (path, content_type, body) in everything() {
        for end in [Reply::stall, Reply::close, Reply::reset] {
            let begun = reply().content_type(content_type).content_length(9999);
            let first = Origin::start().await.on(path, end(begun));
            let second = Origin::start().await.on(path, answer(content_type, &body));
            let shield = in_front_of(&first, &second).start().await;
            shield.get(path).await.assert_whole(&body);
            assert_eq!((first.hits(path), second.hits(path)), (1, 1), "{path}");
        }
    }
}

/// Viewers have half of it, and a strong validator says that the other endpoint has the same
/// object.
#[tokio::test]
async fn resumes_stopped_body_at_endpoint_with_same_etag() {
    let body = noise(7, 300_000);
    for end in [Reply::stall, Reply::close, Reply::reset] {
        let half = reply()
            .content_type("video/mp4")
            .header("ETag", "\"same\"")
            .content_length(300_000)
            .send(body.slice(..123_456));
        let whole = reply()
            .content_type("video/mp4")
            .etag("\"same\"")
            .with_ranges(body.clone());
        let first = Origin::start().await.on("/1.m4s", end(half));
        let second = Origin::start().await.on("/1.m4s", whole);
        let shield = in_front_of(&first, &second).start().await;
        shield.get("/1.m4s").await.assert_whole(&body);
        let asked = second.latest("/1.m4s");
        assert_eq!(asked.header("range"), Some("bytes=123456-"));
        assert_eq!(asked.header("if-match"), Some("\"same\""));
        let again = shield.get("/1.m4s").await;
        assert!(again.assert_whole(&body).is_hit(), "it is kept as one");
    }
}

/// The body is still being produced: its end at the other endpoint need not be the end of the
/// object.
#[tokio::test]
async fn growing_body_is_not_resumed_at_endpoint_with_less_of_it() {
    let (body, gate) = (noise(8, 300_000), Gate::new());
    let begun = reply()
        .content_type("video/mp4")
        .header("ETag", "\"same\"")
        .chunked()
        .send(body.slice(..200_000));
    let growing = begun.hold(&gate).send(body.slice(200_000..));
    let behind = reply()
        .content_type("video/mp4")
        .etag("\"same\"")
        .with_ranges(body.slice(..250_000));
    let first = Origin::start().await.on("/1.m4s", growing);
    let second = Origin::start().await.on("/1.m4s", behind);
    let shield = in_front_of(&first, &second).start().await;
    let waiting = shield.crowd(2, get("/1.m4s")).await;
    gate.wait_arrived(1).await;
    // Longer than the silence that starts a takeover: only time makes a silence.
    tokio::time::sleep(Duration::from_secs(2)).await;
    gate.open();
    for answer in waiting.read_all().await {
        answer.assert_whole(&body);
    }
    assert!(shield.get("/1.m4s").await.assert_whole(&body).is_hit());
    assert_eq!((first.hits("/1.m4s"), second.hits("/1.m4s")), (1, 0));
}

/// The endpoint that continues states the total length: a shorter body is not whole, however it
/// ends.
#[tokio::test]
async fn cuts_resumed_body_shorter_than_its_content_range() {
    let (body, path) = (noise(9, 300_000), "/live/seg1.ts");
    for framing in [Reply::until_close as fn(Reply) -> Reply, Reply::chunked] {
        let begun = reply()
            .content_type("video/mp2t")
            .header("ETag", "\"same\"")
            .chunked()
            .send(body.slice(..100_000))
            .close();
        let short = status(206)
            .content_type("video/mp2t")
            .header("ETag", "\"same\"")
            .header("Content-Range", "bytes 100000-299999/300000");
        let short = framing(short).send(body.slice(100_000..250_000));
        let list = || manifest(playlist(1)).cache_control("max-age=60");
        let whole = answer("video/mp2t", "whole");
        let first = Origin::start().await.on(PATH, list()).on(path, begun);
        let second = Origin::start()
            .await
            .on(PATH, list())
            .on(path, short.then(whole));
        let shield = in_front_of(&first, &second)
            .route(|route| {
                route.live.cadence = false;
                route.live.prefetch = false;
            })
            .start()
            .await;
        shield.get(PATH).await.assert_whole(playlist(1));
        shield.get(path).await.assert_cut(&body);
        assert_eq!(second.hits(path), 1);
        assert_ne!(shield.get(path).await.body, body.slice(..250_000));
    }
}

/// Without a shared validator, viewers with half of the body are cut, and get the other endpoint's
/// body when they request again.
#[tokio::test]
async fn cuts_stopped_body_without_shared_validator() {
    let (one, other) = (noise(1, 300_000), noise(2, 300_000));
    for (etag, end) in [
        (None, Reply::stall as fn(Reply) -> Reply),
        (None, Reply::close),
        (Some("\"one\""), Reply::stall),
        (Some("W/\"other\""), Reply::close),
    ] {
        let mut half = reply()
            .content_type("video/mp4")
            .content_length(300_000)
            .send(one.slice(..123_456));
        if let Some(etag) = etag {
            half = half.header("ETag", etag);
        }
        let whole = reply()
            .content_type("video/mp4")
            .etag("\"other\"")
            .with_ranges(other.clone());
        let first = Origin::start().await.on("/1.m4s", end(half));
        let second = Origin::start().await.on("/1.m4s", whole);
        let shield = in_front_of(&first, &second).start().await;
        let begun = shield.get("/1.m4s").await;
        // A viewer without any bytes is not cut.
        if begun.end == End::Whole {
            begun.assert_whole(&other);
        } else {
            begun.assert_cut(&one);
        }
        shield.get("/1.m4s").await.assert_whole(&other);
        assert_eq!(first.hits("/1.m4s"), 1);
    }
}

/// A manifest is useful only when it is whole.
#[tokio::test]
async fn second_endpoint_answers_when_manifest_stops_mid_body() {
    for end in [Reply::stall, Reply::close, Reply::reset] {
        let text = playlist(1);
        let half = reply()
            .content_type("application/vnd.apple.mpegurl")
            .content_length(9999)
            .send(text[..40].to_owned());
        let first = Origin::start().await.on(PATH, end(half));
        let second = Origin::start().await.on(PATH, manifest(text.clone()));
        let shield = in_front_of(&first, &second).start().await;
        shield.get(PATH).await.assert_whole(&text);
    }
}

/// The endpoint lists a part that it lacks: it gets no request for other parts for a while.
#[tokio::test]
async fn second_endpoint_serves_listed_parts_that_first_lacks() {
    let parts = ["/live/21.0.mp4", "/live/21.1.mp4", "/live/21.2.mp4"];
    let version = low_latency_hls::version(20, 2);
    let list = manifest(version.clone()).cache_control("max-age=1");
    let first = Origin::start().await.on(PATH, list);
    let mut second = Origin::start().await;
    for part in parts {
        first.set_script(part, status(404));
        second = second.on(part, answer("video/mp4", "part"));
    }
    let shield = in_front_of(&first, &second)
        .route(|route| {
            route.live.cadence = false;
            route.live.prefetch = false;
        })
        .start()
        .await;
    shield.get(PATH).await.assert_whole(&version);
    for part in parts {
        shield.get(part).await.assert_whole("part");
    }
    let asked: Vec<_> = parts.iter().map(|part| first.hits(part)).collect();
    assert_eq!(asked, [1, 0, 0]);
}

/// The newest segments and older ones, all listed by the manifest.
#[tokio::test]
async fn second_endpoint_serves_listed_segments_that_first_lacks() {
    let mpd = "<MPD type=\"dynamic\" availabilityStartTime=\"2024-01-01T00:00:00Z\" \
        minimumUpdatePeriod=\"PT6S\"><Period id=\"p\" start=\"PT0S\">\
        <AdaptationSet mimeType=\"video/mp4\"><SegmentTemplate timescale=\"1\" startNumber=\"1\" \
        initialization=\"init.mp4\" media=\"$Number$.m4s\"><SegmentTimeline>\
        <S t=\"6\" d=\"6\" r=\"2\"/></SegmentTimeline></SegmentTemplate>\
        <Representation id=\"v\" bandwidth=\"1000\"/></AdaptationSet></Period></MPD>";
    let dash = answer("application/dash+xml", mpd);
    let cases = [
        (
            PATH,
            manifest(playlist(1)),
            ["seg1.ts", "seg2.ts", "seg3.ts"],
        ),
        ("/live/live.mpd", dash, ["1.m4s", "2.m4s", "3.m4s"]),
    ];
    for (path, list, segments) in cases {
        let first = Origin::start().await.on(path, list);
        let mut second = Origin::start().await;
        for segment in segments {
            let segment = format!("/live/{segment}");
            first.set_script(&segment, status(404));
            second = second.on(&segment, answer("video/mp4", "segment"));
        }
        let shield = in_front_of(&first, &second)
            .route(|route| {
                route.live.cadence = false;
                route.live.prefetch = false;
            })
            .start()
            .await;
        assert_eq!(shield.get(path).await.status, 200);
        for segment in segments {
            let segment = format!("/live/{segment}");
            shield.get(&segment).await.assert_whole("segment");
        }
    }
}

/// With `hedge` off the second endpoint gets no request.
#[tokio::test]
async fn media_is_not_hedged_when_hedging_is_off() {
    let gate = Gate::new();
    let late = answer("video/mp2t", "late").hold_head(&gate);
    let first = Origin::start().await.on("/a.ts", late);
    let second = Origin::start()
        .await
        .on("/a.ts", answer("video/mp2t", "no"));
    let shield = in_front_of(&first, &second)
        .origin(|group| {
            group.retry.hedge = false;
            group.deadlines.first_byte = Duration::from_millis(1500);
            group.retry.attempts_max = 0;
        })
        .start()
        .await;
    let gone: Response = shield.get("/a.ts").await;
    assert_eq!(gone.status, 504);
    assert_eq!(second.hits("/a.ts"), 0);
}
