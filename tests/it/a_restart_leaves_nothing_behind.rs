//! After a restart a player with the old playlist goes on asking for what the old programme left lying. It may
//! have that, but when the new programme comes to the same name, everybody gets the new one.

use crate::support::origin::Reply;
use crate::support::{Gate, Origin, Response, Shield, get, manifest, playlist, reply, segment};

const PATH: &str = "/live/index.m3u8";
const LEFT: &str = "/live/seg104.ts";

/// Out of date at once, and refreshed behind the viewer.
fn overdue(text: String) -> Reply {
    manifest(text).cache_control("max-age=1").age(1)
}

fn kept(bytes: &'static str) -> Reply {
    segment(bytes).cache_control("max-age=86400")
}

async fn shows(shield: &Shield, path: &str, text: String) {
    let shown = |answer: &Response| answer.text() == text;
    shield.until(get(path), shown).await;
}

#[tokio::test]
async fn what_is_not_listed_yet_is_not_kept() {
    let origin = Origin::start()
        .await
        .on(PATH, overdue(playlist(5000)))
        .on(LEFT, kept("yesterday"))
        .on("/live/seg1.ts", kept("listed"));
    let shield = Shield::in_front_of(&origin).start().await;
    shows(&shield, PATH, playlist(5000)).await;
    origin.now(PATH, overdue(playlist(1)));
    shows(&shield, PATH, playlist(1)).await;
    shield.get(LEFT).await.is_whole("yesterday");
    for _ in 0..2 {
        shield.get("/live/seg1.ts").await.is_whole("listed");
    }
    assert_eq!(origin.hits("/live/seg1.ts"), 1, "what is listed is kept");
    origin.now(LEFT, kept("today"));
    origin.now(PATH, overdue(playlist(102)));
    shows(&shield, PATH, playlist(102)).await;
    for _ in 0..2 {
        shield.get(LEFT).await.is_whole("today");
    }
    assert_eq!(origin.hits(LEFT), 2);
}

/// Nobody who comes when it is listed joins those who asked for the old one.
#[tokio::test]
async fn what_is_on_its_way_is_for_those_who_asked_before() {
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on(PATH, overdue(playlist(5000)))
        .on(LEFT, kept("yesterday").hold_head(&gate));
    let shield = Shield::in_front_of(&origin).start().await;
    shows(&shield, PATH, playlist(5000)).await;
    origin.now(PATH, overdue(playlist(1)));
    shows(&shield, PATH, playlist(1)).await;
    let before = shield.crowd(2, get(LEFT)).await;
    gate.wait_arrived(1).await;
    origin.now(LEFT, kept("today"));
    origin.now(PATH, overdue(playlist(102)));
    shows(&shield, PATH, playlist(102)).await;
    shield.get(LEFT).await.is_whole("today");
    gate.open();
    for answer in before.answers().await {
        answer.is_whole("yesterday");
    }
    shield.get(LEFT).await.is_whole("today");
}

/// Renditions in one directory tell of the restart one after the other.
#[tokio::test]
async fn nor_what_a_neighbour_listed_before() {
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
    origin.now(one, overdue(rendition("a", 1)));
    shows(&shield, one, rendition("a", 1)).await;
    shield.get(left).await.is_whole("yesterday");
    origin.now(other, overdue(rendition("b", 1)));
    shows(&shield, other, rendition("b", 1)).await;
    origin.now(left, kept("today"));
    // Step by step: what is nearer to the old numbers than to the latest is not believed.
    for first in [48, 75, 88, 95, 99, 101, 102] {
        origin.now(other, overdue(rendition("b", first)));
        shows(&shield, other, rendition("b", first)).await;
    }
    shield.get(left).await.is_whole("today");
}

/// The same for the numbers of an MPD, with and without a timeline.
#[tokio::test]
async fn nor_the_numbers_of_an_mpd() {
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
    shield.until(get(path), lists(5000)).await;
    origin.now(path, mpd(new, 1));
    shield.until(get(path), lists(1)).await;
    shield.get(LEFT).await.is_whole("yesterday");
    for _ in 0..2 {
        shield.get("/live/seg3.ts").await.is_whole("listed");
    }
    assert_eq!(origin.hits("/live/seg3.ts"), 1);
    origin.now(LEFT, kept("today"));
    origin.now(path, mpd(new, 102));
    shield.until(get(path), lists(102)).await;
    shield.get(LEFT).await.is_whole("today");
}
