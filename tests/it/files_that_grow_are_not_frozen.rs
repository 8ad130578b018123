//! A packager may write all segments into one file, and list ranges of it: the file grows with each version.

use std::fmt::Write;

use bytes::Bytes;

use crate::support::{Origin, Shield, get, manifest, noise, segment};

const PLAYLIST: &str = "/live/index.m3u8";
const FILE: &str = "/live/all.mp4";
const SEGMENT: usize = 500;

/// A playlist of so many segments, whole or in parts, of one file.
fn listing(segments: usize, in_parts: bool) -> String {
    let mut text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-PLAYLIST-TYPE:EVENT\n".to_owned();
    if in_parts {
        text += "#EXT-X-PART-INF:PART-TARGET=1\n#EXT-X-SERVER-CONTROL:PART-HOLD-BACK=3\n";
    }
    for number in 0..segments {
        let at = number * SEGMENT;
        if in_parts {
            let half = SEGMENT / 2;
            for at in [at, at + half] {
                let range = format!("{half}@{at}");
                let part = "#EXT-X-PART:DURATION=1,URI=\"all.mp4\"";
                writeln!(text, "{part},BYTERANGE=\"{range}\"").unwrap();
            }
        }
        write!(
            text,
            "#EXTINF:2,\n#EXT-X-BYTERANGE:{SEGMENT}@{at}\nall.mp4\n"
        )
        .unwrap();
    }
    text
}

/// An origin that has so many segments by now.
fn comes_to(origin: &Origin, bytes: &Bytes, segments: usize, in_parts: bool) {
    let playlist = manifest(listing(segments, in_parts))
        .cache_control("max-age=1")
        .age(1);
    origin.now(PLAYLIST, playlist);
    let file = segment("").cache_control("max-age=86400");
    let file = file.validated_by(&format!("\"{segments}\""));
    origin.now(FILE, file.ranged(bytes.slice(..segments * SEGMENT)));
}

async fn plays_on(in_parts: bool, in_slices: bool) {
    let bytes = noise(7, 20 * SEGMENT);
    let origin = Origin::start().await;
    comes_to(&origin, &bytes, 8, in_parts);
    let shield = Shield::in_front_of(&origin)
        .waits(|waits| {
            if in_slices {
                waits.whole_fetch_max = 2000;
                waits.slice_bytes = 1000;
            }
        })
        .start()
        .await;
    shield.get(PLAYLIST).await;
    shield
        .ask(get(FILE).range("0-499"))
        .await
        .is(206, &bytes[..500]);
    for segments in [9, 10] {
        comes_to(&origin, &bytes, segments, in_parts);
        let text = listing(segments, in_parts);
        let newer = |answer: &crate::support::Response| answer.text() == text;
        shield.until(get(PLAYLIST), newer).await;
        let (start, end) = ((segments - 1) * SEGMENT, segments * SEGMENT);
        // One that begins behind the end of what was held, one that begins before it.
        for start in [start, start - 100] {
            let asking = get(FILE).range(&format!("{start}-{}", end - 1));
            let there = |answer: &crate::support::Response| {
                answer.status == 206 && answer.body.len() == end - start
            };
            shield
                .until(asking, there)
                .await
                .is(206, &bytes[start..end]);
        }
        if in_slices {
            continue;
        }
        let before = origin.hits(FILE);
        shield
            .ask(get(FILE).range("0-499"))
            .await
            .is(206, &bytes[..500]);
        assert_eq!(origin.hits(FILE), before, "what is held is enough");
    }
}

#[tokio::test]
async fn what_was_added_is_there_when_the_playlist_lists_it() {
    plays_on(false, false).await;
}

#[tokio::test]
async fn also_where_it_lists_parts() {
    plays_on(true, false).await;
}

#[tokio::test]
async fn also_where_it_is_so_long_that_it_comes_in_slices() {
    plays_on(false, true).await;
}

/// Nobody asks the origin for what no playlist lists.
#[tokio::test]
async fn but_what_is_listed_nowhere_is_no_reason_to_ask() {
    let bytes = noise(7, 20 * SEGMENT);
    let origin = Origin::start().await;
    comes_to(&origin, &bytes, 8, false);
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PLAYLIST).await;
    shield.get(FILE).await.is_whole(bytes.slice(..8 * SEGMENT));
    // Longer than what has just come is left alone.
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    for range in ["4000-4499", "3900-4499", "4000-"] {
        let answer = shield.ask(get(FILE).range(range)).await;
        assert!([206, 416].contains(&answer.status), "{answer:?}");
    }
    assert_eq!(origin.hits(FILE), 1);
}
