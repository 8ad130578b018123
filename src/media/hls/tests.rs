//! What RFC 8216 and its successor say of playlists, and what a cut one looks like.

use proptest::prelude::*;

use super::*;

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

fn facts(text: &str) -> Facts {
    read(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_live_playlist() {
    let expected = Facts {
        liveness: Liveness::Live,
        target_duration: Some(Duration::from_secs(6)),
        part_target: None,
        last_sequence: Some(102),
        multivariant: false,
    };
    assert_eq!(facts(LIVE), expected);
    assert_eq!(facts(&LIVE.replace('\n', "\r\n")), expected);
    assert_eq!(facts(LIVE.trim_end()), expected);
}

#[test]
fn a_low_latency_playlist() {
    let read = facts(LOW_LATENCY);
    assert_eq!(read.part_target, Some(Duration::from_secs_f64(0.33334)));
    // rfc8216bis §4.4.5.2: skipped segments keep their numbers.
    assert_eq!(read.last_sequence, Some(269));
    assert_eq!(read.liveness, Liveness::Live);
}

#[test]
fn a_multivariant_playlist() {
    let read = facts(MULTIVARIANT);
    assert!(read.multivariant);
    assert_eq!((read.last_sequence, read.target_duration), (None, None));
    assert_eq!(read.liveness, Liveness::Live);
}

// RFC 8216 §4.3.3.4 and §4.3.3.5.
#[test]
fn an_end_is_an_end() {
    for tag in [
        "#EXT-X-ENDLIST\n",
        "#EXT-X-ENDLIST",
        "#EXT-X-PLAYLIST-TYPE:VOD\n",
    ] {
        assert_eq!(facts(&format!("{LIVE}{tag}")).liveness, Liveness::Ended);
    }
    for tag in [
        "#EXT-X-PLAYLIST-TYPE:EVENT\n",
        "#EXT-X-ENDLISTING\n",
        "# #EXT-X-ENDLIST\n",
    ] {
        assert_eq!(facts(&format!("{LIVE}{tag}")).liveness, Liveness::Live);
    }
}

// RFC 8216 §4.3.3.2: without the tag the first number is 0.
#[test]
fn numbers() {
    let read = facts("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.ts\n#EXTINF:2,\nb.ts\n");
    assert_eq!(read.last_sequence, Some(1));
    assert_eq!(
        facts("#EXTM3U\n#EXT-X-TARGETDURATION:2\n").last_sequence,
        None
    );
    let huge = "#EXT-X-MEDIA-SEQUENCE:18446744073709551615";
    let read = facts(&LIVE.replace("#EXT-X-MEDIA-SEQUENCE:100", huge));
    assert_eq!(read.last_sequence, None);
}

#[test]
fn odd_durations() {
    let target = |value: &str| {
        facts(&format!("#EXTM3U\n#EXT-X-TARGETDURATION:{value}\na.ts\n")).target_duration
    };
    assert_eq!(target(" 6.5 "), Some(Duration::from_millis(6500)));
    assert_eq!(target("1e300"), Some(Duration::from_hours(24)));
    for value in ["0", "-1", "NaN", "inf", "-inf", "x", ""] {
        assert_eq!(target(value), None, "{value}");
    }
    let twice = facts(&format!("{LIVE}#EXT-X-TARGETDURATION:2\n"));
    assert_eq!(twice.target_duration, Some(Duration::from_secs(2)));
}

#[test]
fn what_is_not_whole_is_broken() {
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
fn a_missing_line_break_alone_is_no_cut() {
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
    fn a_cut_is_seen_or_harmless(at in 0..LIVE.len()) {
        // What passes for whole says nothing false: fewer segments, nothing ended.
        if let Ok(facts) = read(&LIVE[..at]) {
            prop_assert_eq!(facts.liveness, Liveness::Live);
            prop_assert!(facts.last_sequence.is_none_or(|last| last <= 102));
        }
    }

    #[test]
    fn no_mutation_panics(
        text in prop_oneof![Just(LIVE), Just(LOW_LATENCY), Just(MULTIVARIANT)],
        at in 0_usize..250, width in 0_usize..20, new in "[#EXTINF:=\",.0-9é\r\n-]{0,8}",
    ) {
        let at = at.min(text.len());
        let end = (at + width).min(text.len());
        let _ = read(&[&text[..at], &new, &text[end..]].concat());
    }

    #[test]
    fn no_text_panics(
        lines in "((#EXT(INF|-X-(SKIP|PART-INF)):?)?[A-Z=\",.0-9é-]{0,9}\r?\n?){0,8}",
    ) {
        let _ = read(&format!("#EXTM3U\n{lines}"));
    }

    #[test]
    fn segments_are_counted(first in 0..u64::MAX / 2, count in 1_u64..50) {
        let segments: String = (0..count).map(|_| "#EXTINF:6,\na.ts\n").collect();
        let text = format!("#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:{first}\n{segments}");
        prop_assert_eq!(facts(&text).last_sequence, Some(first + count - 1));
    }
}
