//! When a restarted packager reuses a segment's name, every viewer gets the new segment, although
//! players with the old playlist still requested the old one.

use std::fmt::Write;

use crate::support::origin::Reply;
use crate::support::{Gate, Origin, Response, Shield, get, manifest, playlist, reply, segment};

const PATH: &str = "/live/index.m3u8";
const LEFT: &str = "/live/seg104.ts";

/// Stale on arrival, and refreshed in the background.
fn overdue(text: String) -> Reply {
    manifest(text).cache_control("max-age=1").age(1)
}

fn kept(bytes: &'static str) -> Reply {
    segment(bytes).cache_control("max-age=86400")
}

async fn shows(shield: &Shield, path: &str, text: String) {
    let shown = |answer: &Response| answer.text() == text;
    shield.repeat_until(get(path), shown).await;
}

#[tokio::test]
async fn segment_not_listed_yet_is_not_kept_after_restart() {
    let origin = Origin::start()
        .await
        .on(PATH, overdue(playlist(5000)))
        .on(LEFT, kept("yesterday"))
        .on("/live/seg1.ts", kept("listed"));
    let shield = Shield::in_front_of(&origin).start().await;
    shows(&shield, PATH, playlist(5000)).await;
    origin.set_script(PATH, overdue(playlist(1)));
    shows(&shield, PATH, playlist(1)).await;
    shield.get(LEFT).await.assert_whole("yesterday");
    for _ in 0..2 {
        shield.get("/live/seg1.ts").await.assert_whole("listed");
    }
    assert_eq!(origin.hits("/live/seg1.ts"), 1, "what is listed is kept");
    origin.set_script(LEFT, kept("today"));
    origin.set_script(PATH, overdue(playlist(102)));
    shows(&shield, PATH, playlist(102)).await;
    for _ in 0..2 {
        shield.get(LEFT).await.assert_whole("today");
    }
    assert_eq!(origin.hits(LEFT), 2);
}

/// A viewer who requests a newly listed segment does not join a fetch of the old one.
#[tokio::test]
async fn newly_listed_segment_does_not_join_fetch_of_old_one() {
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on(PATH, overdue(playlist(5000)))
        .on(LEFT, kept("yesterday").hold_head(&gate));
    let shield = Shield::in_front_of(&origin).start().await;
    shows(&shield, PATH, playlist(5000)).await;
    origin.set_script(PATH, overdue(playlist(1)));
    shows(&shield, PATH, playlist(1)).await;
    let before = shield.crowd(2, get(LEFT)).await;
    gate.wait_arrived(1).await;
    origin.set_script(LEFT, kept("today"));
    origin.set_script(PATH, overdue(playlist(102)));
    shows(&shield, PATH, playlist(102)).await;
    shield.get(LEFT).await.assert_whole("today");
    gate.open();
    for answer in before.read_all().await {
        answer.assert_whole("yesterday");
    }
    shield.get(LEFT).await.assert_whole("today");
}

/// Nor does a player whose playlist request has a query of its own.
#[tokio::test]
async fn restart_is_detected_with_per_session_playlist_urls() {
    for cache_control in ["max-age=1", "no-store"] {
        let listing = |first| overdue(playlist(first)).cache_control(cache_control);
        let origin = Origin::start()
            .await
            .on(PATH, listing(5000))
            .on(LEFT, kept("yesterday"));
        let shield = Shield::in_front_of(&origin)
            .route(|route| route.live.prefetch = false)
            .start()
            .await;
        shows(&shield, PATH, playlist(5000)).await;
        origin.set_script(PATH, listing(1));
        shows(&shield, PATH, playlist(1)).await;
        for session in 0..40 {
            shield.get(&format!("{PATH}?session={session}")).await;
        }
        shield.get(LEFT).await.assert_whole("yesterday");
        origin.set_script(LEFT, kept("today"));
        origin.set_script(PATH, listing(102));
        shows(&shield, PATH, playlist(102)).await;
        shield.get(LEFT).await.assert_whole("today");
    }
}

/// Renditions in one directory restart one after another.
#[tokio::test]
async fn restart_is_detected_when_renditions_restart_in_turn() {
    let rendition = |name: &str, first| playlist(first).replace("seg", name);
    let (one, other, left) = ("/live/a.m3u8", "/live/b.m3u8", "/live/b104.ts");
    let origin = Origin::start()
        .await
        .on(one, overdue(rendition("a", 104)))
        .on(other, overdue(rendition("b", 104)))
        .on(left, kept("yesterday"));
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.live.prefetch = false)
        .start()
        .await;
    shows(&shield, one, rendition("a", 104)).await;
    shows(&shield, other, rendition("b", 104)).await;
    origin.set_script(one, overdue(rendition("a", 1)));
    shows(&shield, one, rendition("a", 1)).await;
    shield.get(left).await.assert_whole("yesterday");
    origin.set_script(other, overdue(rendition("b", 1)));
    shows(&shield, other, rendition("b", 1)).await;
    origin.set_script(left, kept("today"));
    // In small steps: a jump to a number closer to the old timeline than to the latest version is
    // rejected.
    for first in [48, 75, 88, 95, 99, 101, 102] {
        origin.set_script(other, overdue(rendition("b", first)));
        shows(&shield, other, rendition("b", first)).await;
    }
    shield.get(left).await.assert_whole("today");
}

/// The same for segment numbers of an MPD, with and without a timeline.
#[tokio::test]
async fn old_mpd_segment_numbers_are_not_reused_after_restart() {
    let path = "/live/a.mpd";
    let mpd = |began: &str, first: u64| {
        let text = format!(
            "<MPD type=\"dynamic\" availabilityStartTime=\"{began}\" \
             minimumUpdatePeriod=\"PT2S\"><Period id=\"1\" start=\"PT0S\">\
             <AdaptationSet contentType=\"video\">\
             <SegmentTemplate timescale=\"1\" startNumber=\"{first}\" media=\"seg$Number$.ts\">\
             <SegmentTimeline><S t=\"{}\" d=\"2\" r=\"2\"/></SegmentTimeline></SegmentTemplate>\
             <Representation id=\"v\" bandwidth=\"1\"/></AdaptationSet></Period></MPD>",
            first * 2
        );
        let reply = reply().content_type("application/dash+xml").body(text);
        reply.cache_control("max-age=1").age(1)
    };
    let (old, new) = ("2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z");
    let origin = Origin::start()
        .await
        .on(path, mpd(old, 5000))
        .on(LEFT, kept("yesterday"))
        .on("/live/seg3.ts", kept("listed"));
    let shield = Shield::in_front_of(&origin).start().await;
    let lists = |first: u64| {
        let number = format!("startNumber=\"{first}\"");
        move |answer: &Response| answer.text().contains(&number)
    };
    shield.repeat_until(get(path), lists(5000)).await;
    origin.set_script(path, mpd(new, 1));
    shield.repeat_until(get(path), lists(1)).await;
    shield.get(LEFT).await.assert_whole("yesterday");
    for _ in 0..2 {
        shield.get("/live/seg3.ts").await.assert_whole("listed");
    }
    assert_eq!(origin.hits("/live/seg3.ts"), 1);
    origin.set_script(LEFT, kept("today"));
    origin.set_script(path, mpd(new, 102));
    shield.repeat_until(get(path), lists(102)).await;
    shield.get(LEFT).await.assert_whole("today");
}

/// A playlist that may not be stored is passed on to each viewer, and its restart is noticed all
/// the same.
#[tokio::test]
async fn restart_is_detected_in_uncacheable_playlist() {
    let (seg, new) = ("/live/seg2.ts", "/live/seg3.ts");
    for (name, value) in [
        ("Cache-Control", "no-store"),
        ("Cache-Control", "private, max-age=1"),
        ("Set-Cookie", "viewer=1"),
        ("Vary", "*"),
    ] {
        let unstored = |first| manifest(playlist(first)).header(name, value);
        let origin = Origin::start()
            .await
            .on(PATH, unstored(5000))
            .on(seg, segment("yesterday"))
            .on(LEFT, segment("yesterday"));
        let shield = Shield::in_front_of(&origin).start().await;
        for _ in 0..2 {
            shield.get(PATH).await;
            shield.get(seg).await.assert_whole("yesterday");
        }
        origin.set_script(PATH, unstored(1));
        origin.set_script(seg, segment("today"));
        origin.set_script(new, segment("today"));
        assert_eq!(shield.get(PATH).await.text(), playlist(1));
        for path in [seg, new] {
            shield.get(path).await.assert_whole("today");
            assert!(shield.get(path).await.is_hit(), "{value}: {path} is kept");
        }
        // A player has the old playlist; the new programme will reuse that name.
        shield.get(LEFT).await.assert_whole("yesterday");
        origin.set_script(LEFT, segment("today"));
        origin.set_script(PATH, unstored(102));
        shield.get(PATH).await;
        shield.get(LEFT).await.assert_whole("today");
    }
}

/// An MPD that may not be stored and arrives in chunks.
#[tokio::test]
async fn restart_is_detected_in_uncacheable_mpd() {
    let (path, seg) = ("/live/a.mpd", "/live/seg3.ts");
    let mpd = |began: &str| {
        let text = format!(
            "<MPD type=\"dynamic\" availabilityStartTime=\"{began}\" \
             minimumUpdatePeriod=\"PT2S\"><Period id=\"1\" start=\"PT0S\">\
             <AdaptationSet contentType=\"video\">\
             <SegmentTemplate timescale=\"1\" duration=\"2\" media=\"seg$Number$.ts\"/>\
             <Representation id=\"v\" bandwidth=\"1\"/></AdaptationSet></Period></MPD>"
        );
        let reply = reply().content_type("application/dash+xml").body(text);
        reply.cache_control("no-store").chunked()
    };
    let origin = Origin::start()
        .await
        .on(path, mpd("2024-01-01T00:00:00Z"))
        .on(seg, segment("yesterday"));
    let shield = Shield::in_front_of(&origin).start().await;
    for _ in 0..2 {
        shield.get(path).await;
        shield.get(seg).await.assert_whole("yesterday");
    }
    origin.set_script(path, mpd("2024-01-02T00:00:00Z"));
    origin.set_script(seg, segment("today"));
    shield.get(path).await;
    shield.get(seg).await.assert_whole("today");
    assert!(shield.get(seg).await.is_hit());
}

/// Where each viewer gets other numbers under one URL, the numbers show no restart, and stored
/// objects stay.
#[tokio::test]
async fn per_viewer_media_sequences_do_not_count_as_restart() {
    let seg = "/live/seg2.ts";
    let unstored = |first| manifest(playlist(first)).cache_control("private");
    let origin = Origin::start()
        .await
        .on(PATH, unstored(5000))
        .on(seg, segment("whole").cache_control("max-age=86400"));
    let shield = Shield::in_front_of(&origin).start().await;
    for first in (1..=60).map(|viewer| (viewer * 7919) % 10_007) {
        origin.set_script(PATH, unstored(first));
        shield.get(PATH).await;
        shield.get(seg).await.assert_whole("whole");
    }
    assert!(origin.hits(seg) <= 5, "{}", origin.hits(seg));
}

/// This many segments, each in its own directory.
fn in_directories(first: u64, count: u64) -> String {
    let mut text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:{first}\n");
    for number in first..first + count {
        write!(text, "#EXTINF:2,\n{number}/seg.ts\n").unwrap();
    }
    text
}

/// Where each segment has its own directory, no version lists the directories to come …
#[tokio::test]
async fn segment_directory_not_listed_yet_is_not_kept_after_restart() {
    let left = "/live/104/seg.ts";
    for cache_control in ["max-age=1", "no-store"] {
        let listing = |first| {
            let text = manifest(in_directories(first, 3));
            text.cache_control(cache_control).age(1)
        };
        let origin = Origin::start()
            .await
            .on(PATH, listing(5000))
            .on(left, kept("yesterday"))
            .on("/live/2/seg.ts", kept("listed"));
        let shield = Shield::in_front_of(&origin).start().await;
        shows(&shield, PATH, in_directories(5000, 3)).await;
        origin.set_script(PATH, listing(1));
        shows(&shield, PATH, in_directories(1, 3)).await;
        shield.get(left).await.assert_whole("yesterday");
        for _ in 0..2 {
            shield.get("/live/2/seg.ts").await.assert_whole("listed");
        }
        assert_eq!(origin.hits("/live/2/seg.ts"), 1, "what is listed is kept");
        origin.set_script(left, kept("today"));
        origin.set_script(PATH, listing(102));
        shows(&shield, PATH, in_directories(102, 3)).await;
        for _ in 0..2 {
            shield.get(left).await.assert_whole("today");
        }
        assert_eq!(origin.hits(left), 2, "{cache_control}");
    }
}

/// … and the directories listed long ago exceed the history that is kept.
#[tokio::test]
async fn long_delisted_segment_directory_is_dropped_on_restart() {
    let left = "/live/104/seg.ts";
    let listing = |first| overdue(in_directories(first, 60));
    let origin = Origin::start()
        .await
        .on(PATH, listing(100))
        .on(left, kept("yesterday"));
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.live.prefetch = false)
        .start()
        .await;
    shows(&shield, PATH, in_directories(100, 60)).await;
    shield.get(left).await.assert_whole("yesterday");
    for first in (1..10).map(|version| 100 + 50 * version) {
        origin.set_script(PATH, listing(first));
        shows(&shield, PATH, in_directories(first, 60)).await;
    }
    assert!(shield.get(left).await.is_hit());
    origin.set_script(left, kept("today"));
    origin.set_script(PATH, listing(1));
    shows(&shield, PATH, in_directories(1, 60)).await;
    shield.get(left).await.assert_whole("today");
}

/// The same where only the MPD's clock says which numbers exist.
#[tokio::test]
async fn clock_derived_segment_directory_is_dropped_on_restart() {
    let (path, left) = ("/live/a.mpd", "/live/1000/seg.ts");
    let mpd = |began: &str| {
        let text = format!(
            "<MPD type=\"dynamic\" availabilityStartTime=\"{began}\" \
             minimumUpdatePeriod=\"PT2S\"><Period id=\"1\" start=\"PT0S\">\
             <AdaptationSet contentType=\"video\">\
             <SegmentTemplate timescale=\"1\" duration=\"2\" media=\"$Number$/seg.ts\"/>\
             <Representation id=\"v\" bandwidth=\"1\"/></AdaptationSet></Period></MPD>"
        );
        let reply = reply().content_type("application/dash+xml").body(text);
        reply.cache_control("max-age=1").age(1)
    };
    let (old, new) = ("2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z");
    let origin = Origin::start()
        .await
        .on(path, mpd(old))
        .on(left, kept("yesterday"));
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.live.prefetch = false)
        .start()
        .await;
    shield.get(path).await;
    shield.get(left).await.assert_whole("yesterday");
    assert!(shield.get(left).await.is_hit());
    origin.set_script(path, mpd(new));
    origin.set_script(left, kept("today"));
    let began_anew = |answer: &Response| answer.text().contains(new);
    shield.repeat_until(get(path), began_anew).await;
    shield.get(left).await.assert_whole("today");
}
