//! Tests of playlists against RFC 8216 and rfc8216bis, and of truncated playlists.

use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::{LISTED_MAX, ListedResource, PlaylistEdge};

const LIVE: &str = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:6\n\
    #EXT-X-MEDIA-SEQUENCE:100\n#EXT-X-KEY:METHOD=AES-128,URI=\"k,1.key\"\n\
    #EXTINF:6.006,\nseg100.ts\n#EXTINF:5.9,title, more\n\
    #EXT-X-PROGRAM-DATE-TIME:2024-01-01T00:00:00Z\nseg101.ts\n\
    #EXT-X-DISCONTINUITY\n#EXTINF:6,\nseg102.ts\n";

const LOW_LATENCY: &str = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n\
    #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.0\n\
    #EXT-X-PART-INF:X=\"PART-TARGET=9,\",PART-TARGET=0.33334\n#EXT-X-MEDIA-SEQUENCE:266\n\
    #EXT-X-SKIP:SKIPPED-SEGMENTS=3\n#EXTINF:4.08,\nfile269.mp4\n\
    #EXT-X-PART:DURATION=0.33,URI=\"file270.1.mp4\"\n\
    #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"file270.2.mp4\"\n";

const MULTIVARIANT: &str = "#EXTM3U\n#EXT-X-INDEPENDENT-SEGMENTS\n\
    #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"n\",URI=\"a.m3u8\"\n\
    #EXT-X-STREAM-INF:BANDWIDTH=1280000,CODECS=\"avc1.4d401f,mp4a.40.2\",AUDIO=\"a\"\nlow.m3u8\n\
    #EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=86000,URI=\"i.m3u8\"\n";

fn manifest(text: &str) -> Manifest {
    read(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn playlist(text: &str) -> PlaylistInfo {
    playlist_of(manifest(text).info)
}

fn playlist_of(info: ManifestInfo) -> PlaylistInfo {
    match info {
        ManifestInfo::Hls(playlist) => playlist,
        ManifestInfo::Dash(_) => panic!("a playlist is HLS"),
    }
}

fn last(text: &str) -> Option<u64> {
    playlist(text).edge.map(|edge| edge.last_sequence)
}

/// A playlist of these lines.
fn listing(lines: &str) -> Listing {
    manifest(&format!(
        "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXT-X-MEDIA-SEQUENCE:10\n{lines}"
    ))
    .listing
}

type Range = Option<(u64, Option<u64>)>;

fn names(listed: &[ListedResource]) -> Vec<(u64, &str, Range)> {
    listed
        .iter()
        .map(|one| (one.position, one.uri.as_str(), one.range))
        .collect()
}

#[test]
fn parses_live_playlist() {
    let read = playlist(LIVE);
    assert_eq!(read.liveness, Liveness::Live);
    assert_eq!(read.target_duration, Some(Duration::from_secs(6)));
    assert_eq!(read.segment_duration, Some(Duration::from_secs(6)));
    assert_eq!((read.part_target, read.is_multivariant), (None, false));
    let edge = read.edge.clone().unwrap();
    assert_eq!(
        (
            edge.media_sequence,
            edge.last_sequence,
            edge.next_segment_parts
        ),
        (100, 102, 0)
    );
    assert_eq!(
        (edge.discontinuity_sequence, edge.name_fingerprints.len()),
        (1, 3)
    );
    // 5.9 s of the segment with the date, and the 6 s after it.
    let date = SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 19_723);
    assert_eq!(edge.end_time, Some(date + Duration::from_millis(11_900)));
    assert_eq!(playlist(&LIVE.replace('\n', "\r\n")), read);
    assert_eq!(playlist(LIVE.trim_end()), read);
}

#[test]
fn parses_low_latency_playlist() {
    let Manifest { info, listing } = manifest(LOW_LATENCY);
    let playlist = playlist_of(info);
    assert_eq!(playlist.part_target, Some(Duration::from_secs_f64(0.33334)));
    // rfc8216bis §4.4.5.2: skipped segments keep their numbers.
    let edge = playlist.edge.unwrap();
    assert_eq!((edge.media_sequence, edge.last_sequence), (266, 269));
    assert_eq!((edge.last_segment_parts, edge.next_segment_parts), (0, 1));
    assert_eq!(playlist.liveness, Liveness::Live);
    assert!(playlist.server_control.can_block_reload);
    assert_eq!(playlist.server_control.can_skip_until, None);
    assert_eq!(names(&listing.parts), [(270, "file270.1.mp4", None)]);
    assert_eq!(
        names(&listing.preload_hints),
        [(270, "file270.2.mp4", None)]
    );
}

#[test]
fn parses_multivariant_playlist() {
    let Manifest { info, listing } = manifest(MULTIVARIANT);
    let playlist = playlist_of(info);
    assert!(playlist.is_multivariant);
    assert_eq!((playlist.edge, playlist.target_duration), (None, None));
    assert_eq!(playlist.liveness, Liveness::Live);
    assert_eq!(listing.renditions, ["a.m3u8", "low.m3u8", "i.m3u8"]);
    assert_eq!(listing.segments, []);
    let twice = manifest(&format!("{MULTIVARIANT}#EXT-X-STREAM-INF:A=1\nlow.m3u8\n"));
    assert_eq!(twice.listing.renditions, listing.renditions);
}

#[test]
fn renditions_are_limited() {
    let many = (0..RENDITIONS_MAX + 9)
        .map(|number| format!("#EXT-X-STREAM-INF:BANDWIDTH=1\n{number}.m3u8\n"))
        .collect::<Vec<_>>()
        .concat();
    let listed = manifest(&format!("#EXTM3U\n{many}")).listing.renditions;
    assert_eq!(listed.len(), RENDITIONS_MAX);
}

#[test]
fn listed_inits_parts_and_hints_are_limited() {
    let many = (0..LISTED_MAX + 9)
        .map(|number| {
            format!(
                "#EXT-X-MAP:URI=\"{number}\"\n#EXT-X-PART:URI=\"{number}\"\n\
                 #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{number}\"\n"
            )
        })
        .collect::<Vec<_>>()
        .concat();
    let listing = listing(&many);
    for (list, last) in [
        (&listing.inits, 72),
        (&listing.parts, 72),
        (&listing.preload_hints, 63),
    ] {
        assert_eq!(list.len(), LISTED_MAX);
        assert_eq!(list.last().unwrap().uri, last.to_string());
    }
}

// rfc8216bis §4.4.3.8.
#[test]
fn parses_server_control() {
    let control = |list: &str| {
        let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-SERVER-CONTROL:{list}\n");
        let control = playlist(&text).server_control;
        (
            control.can_block_reload,
            control.can_skip_until.map(|until| until.as_secs()),
        )
    };
    assert_eq!(
        control("CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=24.0"),
        (true, Some(24))
    );
    assert_eq!(control("CAN-BLOCK-RELOAD=NO,HOLD-BACK=12"), (false, None));
}

// RFC 8216 §4.3.2.2 and §4.3.2.5.
#[test]
fn byterange_gives_offset_and_length() {
    let listing = listing(
        "#EXT-X-MAP:URI=\"v.mp4\",BYTERANGE=\"700@0\"\n\
         #EXTINF:6,\n#EXT-X-BYTERANGE:1000@700\nv.mp4\n\
         #EXT-X-BYTERANGE:50\n#EXTINF:6,\nv.mp4\n\
         #EXT-X-BYTERANGE:60\n#EXTINF:6,\nw.mp4\n\
         #EXTINF:6,\nw.mp4\n\
         #EXT-X-MAP:URI=\"v.mp4\",BYTERANGE=\"700\"\n\
         #EXT-X-MAP:URI=\"u.mp4\",BYTERANGE=\"9\"\n\
         #EXT-X-MAP:URI=\"w.mp4\"\n\
         #EXT-X-PART:DURATION=1,URI=\"x.mp4\",BYTERANGE=\"10@0\"\n\
         #EXT-X-PART:DURATION=1,URI=\"x.mp4\",BYTERANGE=\"20\"\n\
         #EXT-X-PART:DURATION=1,URI=\"y.mp4\",BYTERANGE=\"20\"\n\
         #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"x.mp4\",BYTERANGE-START=30\n\
         #EXT-X-PRELOAD-HINT:TYPE=MAP,URI=\"z.mp4\",BYTERANGE-LENGTH=7\n",
    );
    let range = |start, length| Some((start, Some(length)));
    assert_eq!(
        names(&listing.segments),
        [
            (10, "v.mp4", range(700, 1000)),
            (11, "v.mp4", range(1700, 50)),
            (13, "w.mp4", None),
        ]
    );
    assert_eq!(
        names(&listing.inits),
        [
            (10, "v.mp4", range(0, 700)),
            (14, "u.mp4", range(0, 9)),
            (14, "w.mp4", None)
        ]
    );
    assert_eq!(
        names(&listing.parts),
        [(14, "x.mp4", range(0, 10)), (14, "x.mp4", range(10, 20))]
    );
    assert_eq!(
        names(&listing.preload_hints),
        [(14, "x.mp4", Some((30, None))), (14, "z.mp4", range(0, 7))]
    );
}

#[test]
fn gaps_and_unresolved_uris_are_not_listed() {
    let text = "#EXT-X-KEY:METHOD=AES-128,URI=\"k\"\n\
        #EXTINF:6,\n#EXT-X-GAP\ngone.ts\n#EXTINF:6,\n{$base}/b.ts\n#EXTINF:6,\n{$c}.ts\n\
        #EXT-X-DEFINE:NAME=\"c\",VALUE=\"c\"\n\
        #EXT-X-MAP:URI=\"\"\n#EXT-X-PART:DURATION=1,URI=\"p\",GAP=YES\n\
        #EXT-X-PART:DURATION=1\n";
    let expected = Listing {
        keys: vec!["k".to_owned()],
        segments: vec![ListedResource {
            representation: 0,
            position: 12,
            uri: "c.ts".to_owned(),
            range: None,
        }],
        ..Listing::default()
    };
    assert_eq!(listing(text), expected);
    let edge = playlist(&format!("#EXTM3U\n{text}")).edge.unwrap();
    assert_eq!(
        (
            edge.last_sequence,
            edge.next_segment_parts,
            edge.name_fingerprints.len()
        ),
        (2, 1, 3)
    );
}

#[test]
fn parts_belong_to_the_following_segment() {
    let part = "#EXT-X-PART:DURATION=1.5,URI=\"p\"\n";
    let date = "#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:01:00Z\n";
    let edge = |lines: &str| {
        let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:4\n{lines}");
        playlist(&text).edge
    };
    let head = format!("#EXT-X-MEDIA-SEQUENCE:5\n{date}{part}{part}");
    let reached = |edge: PlaylistEdge| {
        let ends = edge
            .end_time
            .unwrap()
            .duration_since(SystemTime::UNIX_EPOCH);
        (
            edge.media_sequence,
            edge.last_sequence,
            edge.last_segment_parts,
            edge.next_segment_parts,
            ends.unwrap().as_secs(),
        )
    };
    assert_eq!(reached(edge(&head).unwrap()), (5, 4, 0, 2, 63));
    let whole = format!("{head}#EXTINF:4,\na.ts\n");
    assert_eq!(reached(edge(&whole).unwrap()), (5, 5, 2, 0, 64));
    let next = format!("{whole}{part}");
    assert_eq!(reached(edge(&next).unwrap()), (5, 5, 2, 1, 65));
    // There is no number before the first one.
    assert_eq!(edge(part), None);
    let undated = format!("{next}#EXT-X-PART:URI=\"p\"\n");
    assert_eq!(edge(&undated).unwrap().end_time, None);
}

#[test]
fn segment_fingerprints_ignore_signatures() {
    let names = |text: &str| {
        playlist(&LIVE.replace("seg102.ts", text))
            .edge
            .unwrap()
            .name_fingerprints
    };
    assert_eq!(names("seg102.ts?sig=1"), names("seg102.ts?sig=2"));
    assert_eq!(names("seg102.ts?sig=1"), names("seg102.ts"));
    assert_eq!(names("seg102.ts"), names("b/seg102.ts"));
    // FNV-1a, 64 bits: of "a", as published.
    assert_eq!(names("a").last(), Some(&0xaf63_dc4c_8601_ec8c));
}

#[test]
fn typical_duration_ignores_a_single_short_segment() {
    let segments = |durations: &[&str]| -> String {
        durations
            .iter()
            .map(|text| format!("#EXTINF:{text},\na.ts\n"))
            .collect::<Vec<_>>()
            .concat()
    };
    let median = |durations: &[&str]| {
        let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:6\n{}", segments(durations));
        playlist(&text)
            .segment_duration
            .map(|duration| duration.as_secs_f64())
    };
    assert_eq!(median(&["6", "6", "6", "0.4"]), Some(6.0));
    assert_eq!(median(&["6", "6", "6", "6", "2", "2", "2"]), Some(2.0));
    assert_eq!(median(&["4"]), Some(4.0));
    assert_eq!(median(&["0"]), None);
    assert_eq!(median(&["x"]), None);
    assert_eq!(median(&[]), None);
}

// RFC 8216 §4.3.3.4 and §4.3.3.5.
#[test]
fn endlist_or_vod_type_means_ended() {
    for tag in [
        "#EXT-X-ENDLIST\n",
        "#EXT-X-ENDLIST",
        "#EXT-X-PLAYLIST-TYPE:VOD\n",
    ] {
        assert_eq!(playlist(&format!("{LIVE}{tag}")).liveness, Liveness::Ended);
    }
    for tag in [
        "#EXT-X-PLAYLIST-TYPE:EVENT\n",
        "#EXT-X-ENDLISTING\n",
        "# #EXT-X-ENDLIST\n",
    ] {
        assert_eq!(playlist(&format!("{LIVE}{tag}")).liveness, Liveness::Live);
    }
}

// RFC 8216 §4.3.3.2: without the tag the first number is 0.
#[test]
fn media_sequence_defaults_to_zero_and_overflow_has_no_edge() {
    let two = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.ts\n#EXTINF:2,\nb.ts\n";
    assert_eq!(last(two), Some(1));
    assert_eq!(last("#EXTM3U\n#EXT-X-TARGETDURATION:2\n"), None);
    let huge = "#EXT-X-MEDIA-SEQUENCE:18446744073709551615";
    let huge = LIVE.replace("#EXT-X-MEDIA-SEQUENCE:100", huge);
    assert_eq!(last(&huge), None);
    assert_eq!(manifest(&huge).listing.segments.len(), 1);
}

#[test]
fn target_duration_is_capped_and_ignored_if_malformed() {
    let target = |value: &str| {
        playlist(&format!("#EXTM3U\n#EXT-X-TARGETDURATION:{value}\na.ts\n")).target_duration
    };
    assert_eq!(target(" 6.5 "), Some(Duration::from_millis(6500)));
    assert_eq!(target("1e300"), Some(Duration::from_hours(24)));
    for value in ["0", "-1", "NaN", "inf", "-inf", "x", ""] {
        assert_eq!(target(value), None, "{value}");
    }
    let twice = playlist(&format!("{LIVE}#EXT-X-TARGETDURATION:2\n"));
    assert_eq!(twice.target_duration, Some(Duration::from_secs(2)));
}

#[test]
fn rejects_truncated_or_wrong_format() {
    for text in [
        "#EXTM3U",
        "#EXTM3U\n",
        "#EXTM3U\n\n \n",
        "#EXTM3U\n#EXT-X-VERSION:3\n",
        "\n#EXTM3U\na.ts\n",
        "#EXTM3U8\na.ts\n",
        "<html>#EXTM3U\n</html>",
        "seg.ts\n",
    ] {
        assert!(read(text).is_err(), "{text:?}");
    }
    for tail in [
        "#EXTINF:6,\n",
        "#EXTINF\n",
        "#EXTINF:6,",
        "#EXTINF:6.0",
        "#EXTINF:6,\n#EXT-X-GAP\n",
        "#EXT-X-STREAM-INF:BANDWIDTH=1\n",
        "#EXT-X-ENDLI",
        "#EX",
        "#",
        "#EXT-X-PART",
        "#EXT-X-MEDIA-SEQUENCE:",
        "#EXT-X-KEY:METHOD=AES-128,URI=\"ke",
        "#EXT-X-KEY:METHOD=AES-128,",
        "#EXT-X-KEY:METHOD=",
        "#EXTINF:6,\nseg103.t",
        "#EXTINF:6,\nseg103.",
        "#EXTINF:6,\nseg103",
    ] {
        assert!(read(&format!("{LIVE}{tail}")).is_err(), "{tail:?}");
    }
}

#[test]
fn missing_final_line_break_is_not_a_truncation() {
    for tail in [
        "#EXTINF:6,\nseg103.ts",
        "#EXTINF:6,\nseg103.ts?token=a",
        "#EXTINF:6,\nad.m4s",
        "#EXT-X-DISCONTINUITY",
        "#EXT-X-GAP",
        "#EXT-X-VENDOR",
        "#EXT-X-VENDOR:a=",
        "# it's a \"comment",
        "#EXT-X-PART:DURATION=0.33,URI=\"a.mp4\"",
    ] {
        assert!(read(&format!("{LIVE}{tail}")).is_ok(), "{tail:?}");
    }
}

proptest! {
    #[test]
    fn truncated_playlist_is_rejected_or_says_nothing_false(at in 0..LIVE.len()) {
        // A truncated playlist that is accepted says nothing false: fewer segments, no end.
        if let Ok(Manifest { info, .. }) = read(&LIVE[..at]) {
            let playlist = playlist_of(info);
            prop_assert_eq!(playlist.liveness, Liveness::Live);
            prop_assert!(playlist.edge.is_none_or(|edge| edge.last_sequence <= 102));
        }
    }

    #[test]
    fn arbitrary_text_does_not_panic(
        lines in "((#EXT(INF|-X-(SKIP|PART|MAP|BYTERANGE|PRELOAD-HINT|PROGRAM-DATE-TIME)):?)?\
                  (URI|BYTERANGE|DURATION)?[=\"@,.0-9TZé-]{0,9}\r?\n?){0,9}",
    ) {
        let _ = read(&format!("#EXTM3U\n{lines}"));
    }

    #[test]
    fn counts_all_segments_and_lists_the_last_64(
        first in 0..u64::MAX / 2, count in 1_u64..150,
    ) {
        let segments: String = (0..count).map(|_| "#EXTINF:6,\na.ts\n").collect();
        let text = format!("#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:{first}\n{segments}");
        let Manifest { info, listing } = manifest(&text);
        let edge = playlist_of(info).edge.unwrap();
        prop_assert_eq!((edge.media_sequence, edge.last_sequence), (first, first + count - 1));
        prop_assert_eq!(edge.name_fingerprints.len() as u64, count.min(16));
        prop_assert_eq!(listing.segments.len() as u64, count.min(64));
        prop_assert_eq!(listing.segments.last().map(|last| last.position), Some(edge.last_sequence));
    }

    #[test]
    fn live_edge_advances_with_each_segment(
        durations in proptest::collection::vec(1_u64..9000, 1..40), first in 0_u64..999,
    ) {
        let mut text = format!(
            "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-MEDIA-SEQUENCE:{first}\n\
             #EXT-X-PROGRAM-DATE-TIME:2026-11-21T10:00:00Z\n");
        let mut before: Option<PlaylistEdge> = None;
        for (number, millis) in durations.iter().enumerate() {
            let seconds = Duration::from_millis(*millis).as_secs_f64();
            let name = number.to_string();
            text.extend(["#EXTINF:", &seconds.to_string(), ",\n", &name, ".ts\n"]);
            let edge = playlist(&text).edge.unwrap();
            prop_assert_eq!(edge.last_sequence, first + number as u64);
            if let Some(before) = before {
                let added = edge.end_time.unwrap().duration_since(before.end_time.unwrap());
                prop_assert_eq!(added.ok(), Some(Duration::from_millis(*millis)));
                // Names known to both are the same.
                let known = edge.name_fingerprints.len() - 1;
                prop_assert!(before.name_fingerprints.ends_with(&edge.name_fingerprints[..known]));
            }
            before = Some(edge);
        }
    }
}

#[test]
fn keys_are_listed_once_and_limited_to_the_latest() {
    let key =
        |number| format!("#EXT-X-KEY:METHOD=AES-128,URI=\"{number}\"\n#EXTINF:4,\n{number}.ts\n");
    let twice = listing(&(key(0) + "#EXT-X-KEY:METHOD=NONE\n" + &key(0)));
    assert_eq!(twice.keys, ["0"]);
    let session = listing("#EXT-X-SESSION-KEY:METHOD=AES-128,URI=\"s\"\n#EXTINF:4,\na.ts\n");
    assert_eq!(session.keys, ["s"]);
    let many = listing(&(0..2 * KEYS_MAX).map(key).collect::<String>());
    assert_eq!(many.keys.len(), KEYS_MAX);
    assert_eq!(many.keys[0], KEYS_MAX.to_string());
}
