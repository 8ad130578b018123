//! Tests of delivery directives and delta updates against rfc8216bis.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::hls::syntax::{ByteRange, RangeEnd, attribute};
use crate::{Kind, read_manifest};

fn directives(msn: Option<u64>, part: Option<u64>, skip: Option<Skip>) -> ReloadDirectives {
    ReloadDirectives { msn, part, skip }
}

#[test]
fn directives_in_any_order_have_one_canonical_form() {
    let read = ReloadDirectives::of("a=1&_HLS_part=002&_HLS_skip=YES&b&_HLS_msn=7").unwrap();
    assert_eq!(read, directives(Some(7), Some(2), Some(Skip::Segments)));
    assert_eq!(read.canonical(), "_HLS_msn=7&_HLS_part=2&_HLS_skip=YES");
    let read = ReloadDirectives::of("_HLS_skip=v2").unwrap();
    assert_eq!(read.skip, Some(Skip::SegmentsAndDateRanges));
    assert_eq!(read.canonical(), "_HLS_skip=v2");
    for none in ["", "a=_HLS_msn", "_HLS_msnx=1", "_hls_msn=1", "&&="] {
        assert!(ReloadDirectives::of(none).unwrap().is_empty(), "{none}");
    }
    assert_eq!(ReloadDirectives::default().canonical(), "");
}

#[test]
fn rejects_malformed_directives() {
    for query in [
        "_HLS_part=1",
        "_HLS_part=1&_HLS_skip=YES",
        "_HLS_msn",
        "_HLS_msn=",
        "_HLS_msn=-1",
        "_HLS_msn=+1",
        "_HLS_msn=1.0",
        "_HLS_msn=%31",
        "_HLS_msn=18446744073709551616",
        "_HLS_msn=1&_HLS_msn=1",
        "_HLS_msn=1&_HLS_part=x",
        "_HLS_skip=yes",
        "_HLS_skip=YES&_HLS_skip=v2",
    ] {
        assert_eq!(
            ReloadDirectives::of(query),
            Err(MalformedDirectives),
            "{query}"
        );
    }
}

#[test]
fn recognizes_percent_encoded_directive_names() {
    for name in ["_HLS_msn", "%5FHLS_msn", "%5fHLS%5Fms%6e", "_HLS_ski%70"] {
        assert!(is_directive(name), "{name}");
    }
    for name in [
        "",
        "_HLS_msn%",
        "_HLS_msn%0",
        "%",
        "%5",
        "_HLS_",
        "_hls_msn",
        "%255FHLS_msn",
    ] {
        assert!(!is_directive(name), "{name}");
    }
    assert!(is_blocking("%5FHLS_msn") && !is_blocking("_HLS_part"));
}

fn edge(last: u64, last_segment_parts: u64, next_segment_parts: u64) -> PlaylistEdge {
    PlaylistEdge {
        media_sequence: last - 5,
        last_sequence: last,
        last_segment_parts,
        next_segment_parts,
        ..PlaylistEdge::default()
    }
}

/// What a delta update and its whole playlist have in common.
fn extent(edge: &PlaylistEdge) -> (u64, u64, u64, u64) {
    (
        edge.media_sequence,
        edge.last_sequence,
        edge.last_segment_parts,
        edge.next_segment_parts,
    )
}

// rfc8216bis §6.2.5.2.
#[test]
fn live_edge_has_segments_and_parts_up_to_its_last() {
    let edge = edge(100, 4, 2);
    for there in [
        (99, None),
        (100, None),
        (99, Some(77)),
        (100, Some(3)),
        // A complete segment has no fifth part: it is the first of the next segment.
        (100, Some(4)),
        (101, Some(0)),
        (101, Some(1)),
    ] {
        assert!(edge.has(there.0, there.1), "{there:?}");
    }
    for not_there in [(101, None), (101, Some(2)), (102, Some(0)), (102, None)] {
        assert!(!edge.has(not_there.0, not_there.1), "{not_there:?}");
    }
    let just_whole = self::edge(100, 4, 0);
    assert!(just_whole.has(100, Some(3)));
    assert!(!just_whole.has(100, Some(4)));
    assert!(!just_whole.has(101, Some(0)));
    let without_parts = self::edge(100, 0, 0);
    assert!(without_parts.has(100, Some(9)));
}

// rfc8216bis §6.2.5.2.
#[test]
fn part_beyond_its_segment_becomes_first_of_the_next() {
    let text = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES\n\
        #EXT-X-PART-INF:PART-TARGET=1\n#EXT-X-MEDIA-SEQUENCE:7\n\
        #EXT-X-PART:DURATION=1,URI=\"7.0\"\n#EXT-X-PART:DURATION=1,URI=\"7.1\"\n\
        #EXTINF:2,\n7.mp4\n#EXT-X-PART:DURATION=1,URI=\"8.0\"\n";
    let facts = read_manifest(Kind::Hls, text.as_bytes()).unwrap().info;
    for (asked, read) in [
        ((7, Some(1)), (7, Some(1))),
        ((7, Some(2)), (8, Some(0))),
        ((8, Some(8)), (8, Some(8))),
        ((8, Some(9)), (9, Some(0))),
        ((9, Some(6000)), (10, Some(0))),
        ((u64::MAX, Some(u64::MAX)), (u64::MAX, Some(0))),
        ((8, None), (8, None)),
    ] {
        let asked = directives(Some(asked.0), asked.1, Some(Skip::Segments));
        let read = directives(Some(read.0), read.1, Some(Skip::Segments));
        assert_eq!(asked.at(&facts), read);
    }
    let skip = directives(None, None, Some(Skip::Segments));
    assert_eq!(skip.at(&facts), skip);
    let edge = facts.playlist_edge().unwrap();
    assert!(!edge.is_too_far(9) && edge.is_too_far(10) && edge.is_too_far(u64::MAX));
}

const HEAD: &str = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:4\n\
    #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=24,PART-HOLD-BACK=3\n";

#[test]
fn delta_update_skips_old_segments_and_repeats_their_tags() {
    let old = "#VENDOR-OF-PLAYLIST\n#EXT-X-PART-INF:PART-TARGET=1\n#EXT-X-MEDIA-SEQUENCE:10\n\
        #VENDOR-OF-SEGMENT\n#EXT-X-MAP:URI=\"i.mp4\"\n#EXT-X-KEY:METHOD=AES-128,URI=\"0\"\n\
        #EXTINF:4,\n0.mp4\n#EXT-X-DATERANGE:ID=\"a\"\n#EXT-X-KEY:METHOD=AES-128,URI=\"1\"\n\
        #EXT-X-KEY:METHOD=SAMPLE-AES,KEYFORMAT=\"f\",URI=\"f\"\n#EXT-X-BITRATE:9\n\
        #EXT-X-DISCONTINUITY\n#EXTINF:4,\n1.mp4\n";
    let kept = (2..8)
        .map(|number| format!("#EXTINF:4,\n{number}.mp4\n"))
        .collect::<Vec<_>>()
        .concat();
    let kept =
        format!("#EXT-X-DISCONTINUITY\n#VENDOR\n{kept}#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"8\"");
    let expected = "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:4\n\
        #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=24,PART-HOLD-BACK=3\n\
        #VENDOR-OF-PLAYLIST\n#EXT-X-PART-INF:PART-TARGET=1\n#EXT-X-MEDIA-SEQUENCE:10\n\
        #EXT-X-DATERANGE:ID=\"a\"\n#EXT-X-SKIP:SKIPPED-SEGMENTS=1\n\
        #EXT-X-MAP:URI=\"i.mp4\"\n#EXT-X-KEY:METHOD=AES-128,URI=\"0\"\n";
    // 2.mp4 to 7.mp4 are exactly the 24 s that may not be skipped; 1.mp4 ends before them.
    let full = format!("{HEAD}{old}{kept}");
    let update = delta(&full).unwrap();
    assert!(
        update.starts_with(&expected.replace("#EXT-X-DATERANGE:ID=\"a\"\n", "")),
        "{update}"
    );
    let part = "\n#EXT-X-PART:DURATION=0.5,URI=\"8\"\n";
    let update = delta(&format!("{full}{part}")).unwrap();
    let again = "#EXT-X-MAP:URI=\"i.mp4\"\n#EXT-X-KEY:METHOD=AES-128,URI=\"1\"\n\
        #EXT-X-KEY:METHOD=SAMPLE-AES,KEYFORMAT=\"f\",URI=\"f\"\n#EXT-X-BITRATE:9\n";
    let (head, _) = expected.split_once("#EXT-X-SKIP").unwrap();
    let two = format!("{head}#EXT-X-SKIP:SKIPPED-SEGMENTS=2\n{again}{kept}{part}");
    assert_eq!(update, two);
}

// RFC 8216 §4.3.2.5: an initialization segment is encrypted by the keys before it.
#[test]
fn an_initialization_segment_keeps_the_keys_that_were_before_it() {
    const FAIR: &str = "#EXT-X-KEY:METHOD=SAMPLE-AES,KEYFORMAT=\"f\",URI=\"f\"\n";
    const MAP: &str = "#EXT-X-MAP:URI=\"i.mp4\"\n";
    let key = |name: &str| format!("#EXT-X-KEY:METHOD=AES-128,URI=\"{name}\"\n");
    let none = "#EXT-X-KEY:METHOD=NONE\n";
    for (old, again) in [
        ([MAP, &*key("0"), &*key("1")], [MAP, &*key("1"), ""]),
        ([&*key("0"), MAP, &*key("1")], [&*key("0"), MAP, &*key("1")]),
        ([&*key("0"), MAP, none], [&*key("0"), MAP, none]),
        ([&*key("0"), FAIR, MAP], [&*key("0"), FAIR, MAP]),
    ] {
        let text = plain(9, "").replacen("#EXTINF", &(old.concat() + "#EXTINF"), 1);
        let update = delta(&text).unwrap();
        let (_, after) = update.split_once("SKIPPED-SEGMENTS=2\n").unwrap();
        let (listed, _) = after.split_once("#EXTINF").unwrap();
        assert_eq!(listed, again.concat());
    }
}

fn plain(count: usize, line_before: &str) -> String {
    let segments = (0..count)
        .map(|number| format!("{line_before}#EXTINF:4.0,\n{number}.ts\n"))
        .collect::<Vec<_>>()
        .concat();
    format!("{HEAD}{segments}")
}

#[test]
fn no_delta_update_if_nothing_can_be_skipped() {
    assert!(delta(&plain(8, "")).is_some());
    assert_eq!(delta(&plain(7, "")), None);
    let with_parts = plain(7, "#EXT-X-PART:DURATION=4,URI=\"p\"\n");
    assert_eq!(
        delta(&with_parts),
        None,
        "a segment's parts are none of its time"
    );
    assert_eq!(delta(&plain(20, "").replace("CAN-SKIP-UNTIL", "X")), None);
    let skip = plain(20, "") + "#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n";
    assert_eq!(delta(&skip), None);
    assert_eq!(delta(&(plain(20, "") + "#EXT-X-ENDLIST\n")), None);
    let vod = HEAD.replace("#EXTM3U\n", "#EXTM3U\n#EXT-X-PLAYLIST-TYPE:VOD\n");
    assert_eq!(delta(&plain(20, "").replace(HEAD, &vod)), None);
    assert_eq!(delta(&plain(20, "").replace("4.0", "x")), None);
    assert_eq!(delta(""), None);
    let mixed = "#EXT-X-STREAM-INF:BANDWIDTH=1\nv/i.m3u8\n#EXTINF:4.0,\n20.ts\n";
    assert_eq!(delta(&(plain(20, "") + mixed)), None);
}

#[test]
fn delta_update_never_skips_the_last_segment() {
    let text = plain(3, "").replace("UNTIL=24", "UNTIL=0") + "#EXT-X-PART:DURATION=1,URI=\"p\"\n";
    let update = delta(&text).unwrap();
    assert!(
        update.contains("SKIPPED-SEGMENTS=2\n#EXTINF:4.0,\n2.ts\n"),
        "{update}"
    );
    assert_eq!(
        delta(&text.replace("#EXTINF:4.0,\n0.ts\n#EXTINF:4.0,\n1.ts\n", "")),
        None
    );
}

#[test]
fn delta_update_has_version_9_or_higher() {
    let version = |head: &str| {
        let update = delta(&plain(20, "").replace("#EXT-X-VERSION:6\n", head)).unwrap();
        let lines = update.lines().filter(|line| line.contains("VERSION"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(version("#EXT-X-VERSION:6\n"), ["#EXT-X-VERSION:9"]);
    assert_eq!(version("#EXT-X-VERSION:12\n"), ["#EXT-X-VERSION:12"]);
    assert_eq!(version(""), ["#EXT-X-VERSION:9"]);
}

#[test]
fn delta_update_adds_offset_to_a_continued_byterange() {
    let text = plain(20, "#EXT-X-BYTERANGE:100\n");
    let text = (0..20).fold(text, |text, number| {
        text.replace(&format!("\n{number}.ts"), "\nv.ts")
    });
    assert_eq!(
        delta(&text),
        None,
        "it is unknown where the first one begins"
    );
    let text = text.replacen("BYTERANGE:100", "BYTERANGE:100@50", 1);
    let update = delta(&text).unwrap();
    // 13 of 20 are skipped.
    assert_eq!(update.matches("BYTERANGE:100@1350\n").count(), 1);
    assert_eq!(update.matches("BYTERANGE:100\n").count(), 6);
    let range = "#EXT-X-BYTERANGE:100\n#EXTINF:4.0,\nv.ts\n";
    let before_last_old = text.match_indices(range).nth(11).unwrap().0;
    let (before, after) = text.split_at(before_last_old);
    let whole_between = before.to_owned() + &after.replacen("#EXT-X-BYTERANGE:100\n", "", 1);
    assert_eq!(
        delta(&whole_between),
        None,
        "the last old segment is no range"
    );
    let part = "#EXT-X-PART:DURATION=1,URI=\"p\",BYTERANGE=\"7\"\n";
    assert_eq!(delta(&plain(20, part)), None);
    assert!(delta(&plain(20, &part.replace('7', "7@0"))).is_some());
}

/// One segment as a player reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Played {
    uri: String,
    duration: String,
    keys: Vec<String>,
    /// With the keys that encrypt it.
    map: Option<(String, Vec<String>)>,
    offset: Option<u64>,
    discontinuity: bool,
    parts: usize,
}

type Playlist = BTreeMap<u64, Played>;

/// Reads a playlist as a player does; segments that a delta update skips are taken from the
/// previous version.
fn play(text: &str, before: &Playlist) -> Playlist {
    let mut playlist = Playlist::new();
    let (mut number, mut duration, mut discontinuity, mut parts) = (0, "", false, 0);
    let (mut keys, mut map) = (Vec::<String>::new(), None);
    let (mut range, mut ranges) = (None, RangeEnd::default());
    for line in text.lines() {
        let (tag, value) = line.split_once(':').unwrap_or((line, ""));
        match tag {
            "#EXT-X-MEDIA-SEQUENCE" => number = value.parse().unwrap(),
            "#EXT-X-SKIP" => {
                let end = number + value.rsplit('=').next().unwrap().parse::<u64>().unwrap();
                let known = (number..end).map(|number| (number, before[&number].clone()));
                playlist.extend(known);
                number = end;
            }
            "#EXTINF" => duration = value,
            "#EXT-X-KEY" if value == "METHOD=NONE" => keys.clear(),
            "#EXT-X-KEY" => {
                let format = |key: &str| attribute(key, "KEYFORMAT").map(str::to_owned);
                keys.retain(|key| format(key) != format(value));
                keys.push(value.to_owned());
                keys.sort_unstable();
            }
            "#EXT-X-MAP" => map = Some((value.to_owned(), keys.clone())),
            "#EXT-X-DISCONTINUITY" => discontinuity = true,
            "#EXT-X-BYTERANGE" => range = ByteRange::of(value),
            "#EXT-X-PART" => parts += 1,
            _ if line.starts_with('#') => {}
            uri => {
                let played = Played {
                    uri: uri.to_owned(),
                    duration: duration.to_owned(),
                    keys: keys.clone(),
                    map: map.clone(),
                    offset: range.take().and_then(|range| ranges.offset(uri, range)),
                    discontinuity: std::mem::take(&mut discontinuity),
                    parts: std::mem::take(&mut parts),
                };
                playlist.insert(number, played);
                number += 1;
            }
        }
    }
    playlist
}

/// Lines that may precede a segment.
fn tags() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        6 => Just(""),
        1 => Just("#EXT-X-KEY:METHOD=AES-128,URI=\"a\"\n"),
        1 => Just("#EXT-X-KEY:METHOD=SAMPLE-AES,KEYFORMAT=\"f\",URI=\"b\"\n"),
        1 => Just("#EXT-X-KEY:METHOD=NONE\n"),
        1 => Just("#EXT-X-MAP:URI=\"i.mp4\"\n"),
        1 => Just("#EXT-X-MAP:URI=\"j.mp4\",BYTERANGE=\"7@0\"\n"),
        1 => Just("#EXT-X-DISCONTINUITY\n"),
        1 => Just("#EXT-X-DATERANGE:ID=\"a\",START-DATE=\"2026-11-21T10:00:00Z\"\n"),
        1 => Just("#EXT-X-VENDOR\n"),
    ]
}

proptest! {
    #[test]
    fn delta_update_applied_to_old_playlist_gives_the_full_one(
        segments in proptest::collection::vec((tags(), tags(), 1_u64..5, 1_u64..99), 1..40),
        appeared in 0_usize..4, parts in 0_usize..3,
    ) {
        let head = format!("{HEAD}#EXT-X-MEDIA-SEQUENCE:7\n");
        let lines: Vec<String> = segments.iter().enumerate().map(|(number, segment)| {
            let (one, other, duration, length) = segment;
            let at = if number == 0 { "@0" } else { "" };
            format!("{one}{other}#EXTINF:{duration},\n#EXT-X-BYTERANGE:{length}{at}\nv.mp4\n")
        }).collect();
        let known = lines.len().saturating_sub(appeared);
        let before = play(&(head.clone() + &lines[..known].concat()), &Playlist::new());
        let tail = "#EXT-X-PART:DURATION=0.5,URI=\"p\"\n".repeat(parts);
        let full = head + &lines.concat() + &tail;
        let Some(update) = delta(&full) else { return Ok(()) };
        prop_assert_eq!(play(&update, &before), play(&full, &Playlist::new()));
        let facts = |text: &str| read_manifest(Kind::Hls, text.as_bytes()).unwrap().info;
        let (update, full) = (facts(&update), facts(&full));
        let (update, full) = (update.playlist_edge().unwrap(), full.playlist_edge().unwrap());
        prop_assert_eq!(extent(update), extent(full));
        prop_assert!(full.name_fingerprints.ends_with(&update.name_fingerprints));
    }

    #[test]
    fn canonical_directives_parse_back(
        msn in proptest::option::of(any::<u64>()), part in any::<u64>(), with_part in any::<bool>(),
        skip in proptest::option::of(prop_oneof![
            Just(Skip::Segments), Just(Skip::SegmentsAndDateRanges)]),
    ) {
        let part = Some(part).filter(|_| with_part && msn.is_some());
        let asked = directives(msn, part, skip);
        prop_assert_eq!(ReloadDirectives::of(&asked.canonical()), Ok(asked));
    }

    #[test]
    fn arbitrary_query_does_not_panic(query in "((_HLS_)?(msn|part|skip)?[=&0-9é%]{0,5}){0,6}") {
        let _ = ReloadDirectives::of(&query);
    }

    #[test]
    fn arbitrary_playlist_does_not_panic(
        lines in "((#EXT(INF|-X-(PART|MAP|KEY|BYTERANGE|SERVER-CONTROL)):?)?\
                  (CAN-SKIP-UNTIL|URI|BYTERANGE)?[=\"@,.0-9é]{0,9}\r?\n?){0,9}",
    ) {
        let _ = delta(&lines);
        let _ = delta(&plain(9, &lines));
    }
}

/// For any number of keys, formats and ranges, a delta update takes no longer than parsing the
/// playlist, or there is none.
#[test]
fn hostile_playlist_does_not_slow_the_delta_update() {
    const MANY: usize = 60_000;
    let head = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n\
         #EXT-X-SERVER-CONTROL:CAN-SKIP-UNTIL=24.0\n#EXT-X-MEDIA-SEQUENCE:0\n";
    let segment = "#EXTINF:4,\na.mp4\n";
    let window = segment.repeat(20);
    let lines = |line: fn(usize) -> String| -> String { (0..MANY).map(line).collect() };
    let formats = lines(|number| format!("#EXT-X-KEY:METHOD=A,KEYFORMAT=\"f{number}\"\n"));
    assert_eq!(delta(&format!("{head}{formats}{window}")), None);
    let maps = lines(|number| {
        let format = number % 30;
        format!("#EXT-X-KEY:METHOD=A,KEYFORMAT=\"f{format}\"\n#EXT-X-MAP:URI=\"{number}\"\n")
    });
    assert!(delta(&format!("{head}{maps}{window}")).is_some());
    let ranged = "#EXTINF:4,\n#EXT-X-BYTERANGE:9@0\na.mp4\n".repeat(MANY);
    let ranges = "#EXT-X-BYTERANGE:9\n".repeat(MANY);
    let tail = format!("#EXTINF:4,\n{ranges}a.mp4\n") + &segment.repeat(5);
    assert!(delta(&format!("{head}{ranged}{tail}")).is_some());
    let blank = "\n".repeat(1 << 24);
    assert_eq!(delta(&format!("{head}{blank}{window}")), None);
}
