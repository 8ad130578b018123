//! When a packager appends all segments to one file, viewers get each new byte range as soon as a
//! manifest lists it.

use std::fmt::Write;

use bytes::Bytes;

use crate::support::viewer::HOST;
use crate::support::{Origin, Response, Shield, get, manifest, noise, reply, segment};

const FILE: &str = "/live/all.mp4";
const SEGMENT: usize = 500;

/// How the file's ranges are listed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Segments,
    Parts,
    /// The initialization segment names the same file by another URL.
    Absolute,
    /// The playlist may not be stored.
    Unstored,
    /// A `SegmentList` whose ranges refer to the base URL.
    SegmentList,
    /// The same with the file's name at each range.
    NamedSegmentList,
}

impl Form {
    fn path(self) -> &'static str {
        match self {
            Form::SegmentList | Form::NamedSegmentList => "/live/index.mpd",
            _ => "/live/index.m3u8",
        }
    }

    fn text(self, segments: usize) -> String {
        match self {
            Form::SegmentList => mpd(segments, ""),
            Form::NamedSegmentList => mpd(segments, "media=\"all.mp4\" "),
            _ => self.playlist(segments),
        }
    }

    /// A playlist with this many segments of one file.
    fn playlist(self, segments: usize) -> String {
        let mut text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-PLAYLIST-TYPE:EVENT\n".to_owned();
        let file = match self {
            Form::Absolute => &format!("http://{HOST}{FILE}"),
            _ => "all.mp4",
        };
        if self == Form::Absolute {
            for name in ["all.mp4", "./all.mp4", FILE, "../live/all.mp4"] {
                writeln!(text, "#EXT-X-MAP:URI=\"{name}\",BYTERANGE=\"100@0\"").unwrap();
            }
        }
        if self == Form::Parts {
            text += "#EXT-X-PART-INF:PART-TARGET=1\n#EXT-X-SERVER-CONTROL:PART-HOLD-BACK=3\n";
        }
        for number in 0..segments {
            let at = number * SEGMENT;
            if self == Form::Parts {
                let half = SEGMENT / 2;
                for at in [at, at + half] {
                    let range = format!("{half}@{at}");
                    let part = "#EXT-X-PART:DURATION=1,URI=\"all.mp4\"";
                    writeln!(text, "{part},BYTERANGE=\"{range}\"").unwrap();
                }
            }
            write!(
                text,
                "#EXTINF:2,\n#EXT-X-BYTERANGE:{SEGMENT}@{at}\n{file}\n"
            )
            .unwrap();
        }
        text
    }
}

/// An MPD with this many segments of one file.
fn mpd(segments: usize, media: &str) -> String {
    let mut list = String::new();
    for number in 0..segments {
        let (start, last) = (number * SEGMENT, (number + 1) * SEGMENT - 1);
        write!(list, "<SegmentURL {media}mediaRange=\"{start}-{last}\"/>").unwrap();
    }
    format!(
        "<MPD type=\"dynamic\" availabilityStartTime=\"2024-01-01T00:00:00Z\" \
         publishTime=\"2024-01-01T00:{segments:02}:00Z\" minimumUpdatePeriod=\"PT1S\">\
         <Period id=\"1\" start=\"PT0S\"><AdaptationSet contentType=\"video\">\
         <Representation id=\"v\" bandwidth=\"1\"><BaseURL>all.mp4</BaseURL>\
         <SegmentList timescale=\"1\" duration=\"2\"><Initialization range=\"0-99\"/>{list}\
         </SegmentList></Representation></AdaptationSet></Period></MPD>"
    )
}

/// An origin that currently has this many segments.
fn comes_to(origin: &Origin, bytes: &Bytes, segments: usize, form: Form) {
    let text = form.text(segments);
    let text = match form {
        Form::SegmentList | Form::NamedSegmentList => {
            reply().content_type("application/dash+xml").body(text)
        }
        _ => manifest(text),
    };
    let text = match form {
        Form::Unstored => text.cache_control("no-store"),
        _ => text.cache_control("max-age=1").age(1),
    };
    origin.set_script(form.path(), text);
    let file = segment("").cache_control("max-age=86400");
    let file = file.etag(&format!("\"{segments}\""));
    origin.set_script(FILE, file.with_ranges(bytes.slice(..segments * SEGMENT)));
}

async fn plays_on(form: Form, in_slices: bool) {
    let bytes = noise(7, 20 * SEGMENT);
    let origin = Origin::start().await;
    comes_to(&origin, &bytes, 8, form);
    let shield = Shield::in_front_of(&origin)
        .proxy_settings(|waits| {
            if in_slices {
                waits.whole_fetch_max = 2000;
                waits.slice_bytes = 1000;
            }
        })
        .start()
        .await;
    shield.get(form.path()).await;
    shield
        .ask(get(FILE).range("0-499"))
        .await
        .assert_is(206, &bytes[..500]);
    for segments in [9, 10] {
        comes_to(&origin, &bytes, segments, form);
        let text = form.text(segments);
        let newer = |answer: &Response| answer.text() == text;
        shield.repeat_until(get(form.path()), newer).await;
        let (start, end) = ((segments - 1) * SEGMENT, segments * SEGMENT);
        // One range begins behind the end of the stored bytes, one before it.
        for start in [start, start - 100] {
            let asking = get(FILE).range(&format!("{start}-{}", end - 1));
            let there =
                |answer: &Response| answer.status == 206 && answer.body.len() == end - start;
            shield
                .repeat_until(asking, there)
                .await
                .assert_is(206, &bytes[start..end]);
        }
        if in_slices {
            continue;
        }
        let before = origin.hits(FILE);
        shield
            .ask(get(FILE).range("0-499"))
            .await
            .assert_is(206, &bytes[..500]);
        assert_eq!(origin.hits(FILE), before, "what is held is enough");
    }
}

#[tokio::test]
async fn serves_newly_listed_byte_ranges_of_growing_file() {
    plays_on(Form::Segments, false).await;
}

#[tokio::test]
async fn serves_newly_listed_byte_ranges_of_parts() {
    plays_on(Form::Parts, false).await;
}

#[tokio::test]
async fn serves_newly_listed_byte_ranges_of_sliced_file() {
    plays_on(Form::Segments, true).await;
}

#[tokio::test]
async fn serves_new_byte_ranges_when_ext_x_map_uses_another_url() {
    plays_on(Form::Absolute, false).await;
}

#[tokio::test]
async fn serves_new_byte_ranges_of_uncacheable_playlist() {
    plays_on(Form::Unstored, false).await;
    plays_on(Form::Unstored, true).await;
}

#[tokio::test]
async fn serves_new_segment_list_ranges_of_base_url() {
    plays_on(Form::SegmentList, false).await;
    plays_on(Form::SegmentList, true).await;
}

#[tokio::test]
async fn serves_new_segment_list_ranges_with_media_attribute() {
    plays_on(Form::NamedSegmentList, false).await;
}

/// A downstream cache may fetch the whole file, or several ranges at once.
#[tokio::test]
async fn whole_file_request_includes_newly_listed_bytes() {
    let bytes = noise(7, 20 * SEGMENT);
    let form = Form::Segments;
    let origin = Origin::start().await;
    comes_to(&origin, &bytes, 8, form);
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(form.path()).await;
    shield.get(FILE).await.assert_whole(&bytes[..8 * SEGMENT]);
    for (segments, asking) in [
        (9, get(FILE)),
        (10, get(FILE).range("0-9,4900-4999")),
        (11, get(FILE).range("lines=1-2")),
    ] {
        comes_to(&origin, &bytes, segments, form);
        let text = form.text(segments);
        let newer = |answer: &Response| answer.text() == text;
        shield.repeat_until(get(form.path()), newer).await;
        let has_grown = |_: &Response| origin.hits(FILE) == segments - 7;
        shield.repeat_until(asking, has_grown).await;
        let all = shield.get(FILE).await;
        all.assert_whole(&bytes[..segments * SEGMENT]);
        assert!(all.is_hit(), "{all:?}");
    }
}

/// The origin gets no request for bytes that no playlist lists.
#[tokio::test]
async fn unlisted_byte_range_causes_no_origin_request() {
    let bytes = noise(7, 20 * SEGMENT);
    let origin = Origin::start().await;
    comes_to(&origin, &bytes, 8, Form::Segments);
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(Form::Segments.path()).await;
    shield
        .get(FILE)
        .await
        .assert_whole(bytes.slice(..8 * SEGMENT));
    // Longer than the 500 ms after a fetch in which a grown file is not requested again. Nothing
    // shows from outside that they are over.
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    for range in ["4000-4499", "3900-4499", "4000-"] {
        let answer = shield.ask(get(FILE).range(range)).await;
        assert!([206, 416].contains(&answer.status), "{answer:?}");
    }
    shield
        .get(FILE)
        .await
        .assert_whole(bytes.slice(..8 * SEGMENT));
    assert_eq!(origin.hits(FILE), 1);
}
