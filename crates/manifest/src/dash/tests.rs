//! Tests of MPDs as packagers write them, of truncated ones, and of arbitrary input.

mod hostile;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::super::limits::{EACH_MIN, LISTED_MAX};
use super::*;

const LIVE: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <!-- made > by a packager -->\n\
    <MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" xsi:type='none' type=\"dynamic\"\n\
      minimumUpdatePeriod = 'PT1.5S' publishTime=\"2024-01-01T00:00:00Z\">\n\
      <Period type=\"static\" id=\"1\"/>\n</MPD>\n";

fn mpd_info(text: &str) -> MpdInfo {
    let manifest = read(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    mpd_of(manifest.info)
}

fn mpd_of(info: ManifestInfo) -> MpdInfo {
    match info {
        ManifestInfo::Dash(mpd) => mpd,
        ManifestInfo::Hls(_) => panic!("an MPD is DASH"),
    }
}

fn liveness(text: &str) -> Option<Liveness> {
    read(text).ok().map(|manifest| manifest.info.liveness())
}

#[test]
fn parses_live_mpd() {
    let expected = MpdInfo {
        liveness: Liveness::Live,
        is_patch: false,
        update_period: Some(Duration::from_millis(1500)),
        segment_duration: None,
        publish_time: date_time("2024-01-01T00:00:00Z"),
        availability_start: None,
        edge: None,
    };
    assert_eq!(mpd_info(LIVE), expected);
}

#[test]
fn minimum_update_period_of_zero_is_kept() {
    let text = LIVE.replace("PT1.5S", "PT0S");
    assert_eq!(mpd_info(&text).update_period, Some(Duration::ZERO));
}

// ISO/IEC 23009-1, table of the MPD element: `@type` defaults to static.
#[test]
fn mpd_type_defaults_to_static() {
    assert_eq!(liveness("<MPD></MPD>"), Some(Liveness::Ended));
    assert_eq!(liveness("<MPD type='static'></MPD>"), Some(Liveness::Ended));
    assert_eq!(liveness("<MPD type='dynamic'></MPD>"), Some(Liveness::Live));
    assert_eq!(liveness("<MPD type='new'></MPD>"), Some(Liveness::Live));
    assert_eq!(
        liveness("<d:MPD xsi:type=\"dynamic\"></d:MPD >"),
        Some(Liveness::Ended)
    );
}

#[test]
fn dynamic_mpd_with_end_and_no_update_period_is_ended() {
    let mpd = |inside: &str| format!("<MPD type='dynamic' {inside}</MPD>");
    let with_end = "mediaPresentationDuration='PT60S'";
    assert_eq!(
        liveness(&mpd(&format!("{with_end}>"))),
        Some(Liveness::Ended)
    );
    let updated = format!("{with_end} minimumUpdatePeriod='PT2S'>");
    assert_eq!(liveness(&mpd(&updated)), Some(Liveness::Live));
    let by_events = format!(
        "{with_end}><Period><AdaptationSet><InbandEventStream \
         schemeIdUri='urn:mpeg:dash:event:2012'/></AdaptationSet></Period>"
    );
    assert_eq!(liveness(&mpd(&by_events)), Some(Liveness::Live));
}

#[test]
fn accepts_comments_after_the_end_tag() {
    let noted = format!("{LIVE}<!-- </x --> <?pi a?>\n<!-- b -->\n");
    assert!(read(&noted).is_ok());
    assert!(read(&format!("{LIVE} x")).is_err());
    assert!(read(&format!("{LIVE}<!-- open")).is_err());
}

#[test]
fn rejects_truncated_or_wrong_format() {
    for text in [
        "<MPD",
        "<MPD>",
        "<MPD/>",
        "<MPD></MPD",
        "<MPD></Mpd>",
        "<a:MPD></MPD>",
        "<MPDX></MPDX>",
        "<MPD type=dynamic></MPD>",
        "<MPD type=\"dynamic></MPD>",
        "<html></html>",
        "<Patch>",
        "<Patch></MPD>",
        "<MPD><Period></MPD>",
        "#EXTM3U\na.ts\n",
        "<?xml version='1.0'",
        "</MPD>",
        "<!-- </MPD>",
    ] {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn live_edge_follows_video_and_audio_not_text() {
    let set = |medium: &str, start: u64, count: u64| {
        format!(
            "<AdaptationSet contentType='{medium}'><Representation id='{medium}'/>\
             <SegmentTemplate media='$RepresentationID$$Time$' timescale='10'><SegmentTimeline>\
             <S t='{start}' d='20' r='{}'/></SegmentTimeline></SegmentTemplate></AdaptationSet>",
            count - 1
        )
    };
    let edge = |sets: &[String]| {
        let period = format!("<MPD><Period>{}</Period></MPD>", sets.concat());
        let edge = mpd_info(&period).edge.unwrap();
        (edge.start_ms, edge.end_ms)
    };
    let [text, video, audio] = [set("text", 0, 2), set("video", 20, 5), set("audio", 40, 3)];
    assert_eq!(edge(&[text.clone(), video.clone()]), (2_000, 12_000));
    assert_eq!(edge(&[text.clone(), video, audio]), (4_000, 10_000));
    assert_eq!(edge(&[text]), (0, 4_000));
}

/// A live MPD of one video representation, with one period per timeline.
fn timelines(periods: &[&str]) -> String {
    let period = |entries: &&str| {
        format!(
            "<Period start='PT0S'><AdaptationSet contentType='video'><Representation/>\
             <SegmentTemplate media='$Number$' timescale='1000'><SegmentTimeline>{entries}\
             </SegmentTimeline></SegmentTemplate></AdaptationSet></Period>"
        )
    };
    let periods: String = periods.iter().map(period).collect();
    format!("<MPD type='dynamic'>{periods}</MPD>")
}

#[test]
fn short_ad_segment_does_not_change_typical_duration() {
    let long = "<S t='0' d='4000' r='9'/>";
    for periods in [
        &[&*format!("{long}<S d='40'/>")][..],
        &[&format!("{long}<S d='40'/><S d='500'/>")],
        &[long, "<S t='0' d='40'/>"],
        &[&format!("{long}<S d='40'/>"), "<S t='0' d='500'/>"],
    ] {
        let text = timelines(periods);
        assert_eq!(
            mpd_info(&text).segment_duration,
            Some(Duration::from_secs(4)),
            "{text}"
        );
    }
    let other = timelines(&[long, "<S t='0' d='2000' r='4'/>"]);
    assert_eq!(
        mpd_info(&other).segment_duration,
        Some(Duration::from_secs(2))
    );
}

#[test]
fn overflowing_durations_are_capped_at_a_year() {
    let text = timelines(&["<S t='0' d='9223372036854775807'/>"])
        .replace("<MPD", "<MPD minimumUpdatePeriod='PT9223372036854775807S'");
    let mpd = mpd_info(&text);
    let year = Duration::from_hours(365 * 24);
    assert_eq!(
        (mpd.update_period, mpd.segment_duration),
        (Some(year), Some(year))
    );
}

#[test]
fn lists_last_segments_of_each_representation_up_to_limit() {
    let mut representations = String::new();
    for number in 0..LISTED_MAX + 9 {
        write!(representations, "<Representation id='{number}'/>").unwrap();
    }
    let text = timelines(&["<S t='0' d='1000' r='99'/>"])
        .replace("<Representation/>", &representations)
        .replace("media='", "media='$RepresentationID$/");
    let listed = read(&text).unwrap().listing.segments;
    assert_eq!(listed.len(), LISTED_MAX * EACH_MIN);
    let own = listed.iter().filter(|listed| listed.representation == 40);
    let own: Vec<_> = own.map(|listed| listed.uri.as_str()).collect();
    let expected: Vec<_> = (94..101).map(|number| format!("40/{number}")).collect();
    assert_eq!(own, expected);
}

#[test]
fn empty_announced_period_does_not_hide_the_live_edge() {
    let period = |start: u64, entries: &str| {
        format!(
            "<Period start='PT{start}S'><AdaptationSet contentType='video'><Representation/>\
             <SegmentTemplate media='{start}/$Number$'><SegmentTimeline>{entries}\
             </SegmentTimeline></SegmentTemplate></AdaptationSet></Period>"
        )
    };
    let some = "<S t='0' d='2' r='4'/>";
    let mut periods: Vec<_> = (0..6).map(|nth| period(nth * 10, some)).collect();
    periods.push(period(60, ""));
    periods.push("<Period><AdaptationSet/></Period>".to_owned());
    let text = format!("<MPD type='dynamic'>{}</MPD>", periods.concat());
    let manifest = read(&text).unwrap();
    let edge = mpd_of(manifest.info).edge.unwrap();
    assert_eq!((edge.start_ms, edge.end_ms), (0, 60_000));
    assert_eq!(manifest.listing.segments.last().unwrap().uri, "50/5");
    // The period is full: no segment follows the fifth.
    let now = SystemTime::UNIX_EPOCH;
    assert_eq!(manifest.listing.templates[0].next(now), None);
}

#[test]
fn rounding_remainder_at_period_end_is_not_a_segment() {
    let next = |period: &str| {
        let text = format!(
            "<MPD type='dynamic'><Period duration='{period}'><AdaptationSet><Representation/>\
             <SegmentTemplate media='$Number$' timescale='10'><SegmentTimeline><S t='0' d='20'/>\
             </SegmentTimeline></SegmentTemplate></AdaptationSet></Period></MPD>"
        );
        let manifest = read(&text).unwrap();
        manifest.listing.templates[0].next(SystemTime::UNIX_EPOCH)
    };
    assert_eq!(
        (next("PT2.05S"), next("PT3.5S"), next("PT4S")),
        (None, Some(2), Some(2))
    );
}

#[test]
fn open_ended_timeline_follows_the_clock() {
    let text = "<MPD type='dynamic' availabilityStartTime='1970-01-01T00:00:00Z'><Period>\
        <AdaptationSet><Representation/><SegmentTemplate media='$Time$.m4s' timescale='1'>\
        <SegmentTimeline><S t='0' d='3' r='-1'/></SegmentTimeline></SegmentTemplate>\
        </AdaptationSet></Period></MPD>";
    let manifest = read(text).unwrap();
    assert!(!manifest.info.has_edge());
    assert_eq!(
        manifest.info.segment_duration(),
        Some(Duration::from_secs(3))
    );
    let template = &manifest.listing.templates[0];
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10);
    assert_eq!(
        (template.newest(now), template.next(now)),
        (Some(6), Some(9))
    );
}

#[test]
fn fixtures_match_their_facts_files() {
    let mut wrong = String::new();
    let paths = fixtures();
    for path in &paths {
        let text = std::fs::read_to_string(path).unwrap();
        let expected = std::fs::read_to_string(path.with_extension("facts")).unwrap();
        let summary = summary(&read(&text).unwrap());
        if summary != expected {
            write!(wrong, "{}:\n{summary}\n", path.display()).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(paths.len() >= 11, "{} fixtures", paths.len());
}

fn fixtures() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dash");
    let entries = std::fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|it| it == "mpd"))
        .collect()
}

/// What a manifest says, one line each; absent values have no line.
fn summary(manifest: &Manifest) -> String {
    let Manifest { info, listing } = manifest;
    let mpd = mpd_of(info.clone());
    let mut lines = vec![format!("{:?}", mpd.liveness)];
    for (name, time) in [
        ("update", mpd.update_period),
        ("segment", mpd.segment_duration),
    ] {
        lines.extend(time.map(|time| format!("{name} {time:?}")));
    }
    for (name, moment) in [
        ("published", mpd.publish_time),
        ("began", mpd.availability_start),
        ("ends", info.end_time()),
    ] {
        lines.extend(moment.map(|moment| format!("{name} {}", since_new_year(moment))));
    }
    if let Some(edge) = &mpd.edge {
        lines.push(format!("edge {} {}", edge.start_ms, edge.end_ms));
    }
    lines.extend(mpd.is_patch.then(|| "patch".to_owned()));
    lines.extend(
        listing
            .time_servers
            .iter()
            .map(|url| format!("time server {url}")),
    );
    lines.extend(
        listing
            .inits
            .iter()
            .map(|init| format!("init {}", init.uri)),
    );
    lines.extend(listing.templates.iter().flat_map(told_next));
    let segments = listing.segments.iter();
    lines.extend(segments.map(|it| format!("segment {} {}", it.position, it.uri)));
    lines.join("\n") + "\n"
}

/// What a template says. Fixtures are for one moment, 2024-01-01T00:10:00Z.
fn told_next(template: &SegmentNaming) -> Vec<String> {
    let now = date_time("2024-01-01T00:10:00Z").unwrap();
    let newest = template
        .newest(now)
        .map(|newest| format!("newest {}", template.name(newest)));
    let next = template.next(now).map(|next| {
        let name = template.name(next);
        assert_eq!(template.number_of(&name), Some(next), "{name}");
        let at = template
            .available_at(next)
            .map(since_new_year)
            .unwrap_or_default();
        format!("next {name} at {at}")
    });
    newest.into_iter().chain(next).collect()
}

/// Seconds since the year 2024 began.
fn since_new_year(moment: SystemTime) -> String {
    let new_year = date_time("2024-01-01T00:00:00Z").unwrap();
    match moment.duration_since(new_year) {
        Ok(after) => format!("{:?}", after.as_secs_f64()),
        Err(before) => format!("-{:?}", before.duration().as_secs_f64()),
    }
}

fn any_fixture() -> impl Strategy<Value = String> {
    let texts: Vec<_> = fixtures()
        .iter()
        .map(|it| std::fs::read_to_string(it).unwrap())
        .collect();
    prop::sample::select(texts)
}

proptest! {
    #[test]
    fn rejects_mpd_truncated_at_any_byte(text in any_fixture(), at: prop::sample::Index) {
        let text = text.trim_end();
        let at = at.index(text.len());
        prop_assert!(read(text.get(..at).unwrap_or_default()).is_err());
    }

    #[test]
    fn mutated_fixture_does_not_panic(
        text in any_fixture(), at: prop::sample::Index, width in 0_usize..40,
        new in "([<>!?/='\"&; -]|[0-9]{1,21}|PT|S|MPD|\\$|-1|r=|t=){0,4}",
    ) {
        let at = at.index(text.len());
        let end = (at + width).min(text.len());
        if let (Some(before), Some(after)) = (text.get(..at), text.get(end..)) {
            harmless(&[before, &new, after].concat());
        }
    }

    // Well-formed, with arbitrary values.
    #[test]
    fn arbitrary_attribute_values_do_not_panic(
        text in any_fixture(), values in prop::collection::vec(VALUE, 1..40), every in 1_usize..7,
    ) {
        let mut values = values.iter().cycle();
        let pieces = text.split('"').enumerate().map(|(place, piece)| {
            let is_chosen = place % 2 == 1 && place % every == 0;
            values.next().filter(|_| is_chosen).map_or(piece, String::as_str)
        });
        harmless(&pieces.collect::<Vec<_>>().join("\""));
    }

    #[test]
    fn arbitrary_text_does_not_panic(text in TEXT) {
        harmless(&text);
    }
}

const VALUE: &str =
    "-?[0-9]{0,20}|PT[0-9]{1,20}(\\.[0-9]{1,3})?S|INF|-1|\\$Number(%0[0-9]d)?\\$|\\$Time\\$|";

const TEXT: &str = "(<MPD |<Period>|<AdaptationSet>|<SegmentTemplate |<S |<!-|-->|\
    <!\\[CDATA\\[|[<>!?/='\"MPDT0-9.\\-é ]){0,80}";

/// Parses the text and calls every function of the result.
fn harmless(text: &str) {
    let Ok(Manifest { listing, .. }) = read(text) else {
        return;
    };
    assert!(listing.segments.len() <= LISTED_MAX * EACH_MIN);
    for template in &listing.templates {
        for now in [
            SystemTime::UNIX_EPOCH,
            date_time("2030-01-01T00:00:00Z").unwrap(),
        ] {
            let values = [
                template.newest(now),
                template.next(now),
                Some(0),
                Some(u64::MAX),
            ];
            for value in values.into_iter().flatten() {
                let _ = (
                    template.available_at(value),
                    template.number_of(&template.name(value)),
                );
            }
        }
    }
}
