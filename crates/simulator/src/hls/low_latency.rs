//! Writes LL-HLS playlists, and computes how long a blocking request has to wait (rfc8216bis
//! §4.4.3.7, §4.4.4.9, §6.2.5). The handler does the waiting.

use std::fmt::Write;
use std::ops::Range;

use super::super::broadcast::Broadcast;
use super::super::media_assets::DemoRendition;
use super::super::resource::Packaging;
use super::super::utc::Utc;
use super::{MAP, begin, end, head, segments};

/// Parts are listed for the segments of the last three target durations.
const SEGMENTS_WITH_PARTS: u64 = 3;

/// A delta update skips segments further than this many target durations from the end.
const SKIP_DURATIONS: u64 = 6;

/// The delivery directives of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlaylistQuery {
    /// Respond when this segment is complete (`_HLS_msn`).
    pub(crate) segment: Option<u64>,
    /// Respond when this part of it is complete (`_HLS_part`).
    pub(crate) part: Option<u64>,
    /// Request a delta update (`_HLS_skip`).
    pub(crate) skip: bool,
}

/// When a request may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerTime {
    /// At once.
    Now,
    /// Not before this time on the manifest's clock.
    Until(Utc),
    /// Never: 400.
    Invalid,
}

impl PlaylistQuery {
    /// Parses a query; `None` if a number is invalid.
    pub(crate) fn of(query: &str) -> Option<PlaylistQuery> {
        let mut directives = PlaylistQuery::default();
        for pair in query.split('&') {
            match pair.split_once('=') {
                Some(("_HLS_msn", number)) => directives.segment = Some(number.parse().ok()?),
                Some(("_HLS_part", number)) => directives.part = Some(number.parse().ok()?),
                Some(("_HLS_skip", "YES" | "v2")) => directives.skip = true,
                _ => {}
            }
        }
        Some(directives)
    }

    /// When the requested segment or part is complete.
    pub(crate) fn answer_time(self, broadcast: &Broadcast, now: Utc) -> AnswerTime {
        /// Requests for a segment further ahead are rejected.
        const AHEAD_MAX: u64 = 2;
        let Some(segment) = self.segment else {
            let is_invalid = self.part.is_some();
            return if is_invalid {
                AnswerTime::Invalid
            } else {
                AnswerTime::Now
            };
        };
        let last = broadcast.segments(now);
        if segment > last + AHEAD_MAX {
            return AnswerTime::Invalid;
        }
        // A part after the segment's last one is the first of the next segment.
        let parts = broadcast.parts_per_segment();
        let due = match self.part {
            None => broadcast.segment_due(segment),
            Some(part) if part < parts => broadcast.part_due(segment, part),
            Some(_) => broadcast.part_due(segment + 1, 0),
        };
        if due <= now {
            AnswerTime::Now
        } else {
            AnswerTime::Until(due)
        }
    }
}

pub(super) fn playlist(
    broadcast: &Broadcast,
    playlist: (Packaging, DemoRendition),
    now: Utc,
    skip: bool,
) -> Option<String> {
    let listed = broadcast.listed(now);
    if listed.is_empty() {
        return None;
    }
    let skipped = if skip { skipped_segments(&listed) } else { 0 };
    let mut text = head(broadcast, if skipped > 0 { 9 } else { 6 }, listed.start);
    write_server_control(broadcast, playlist.1, &mut text);
    if skipped > 0 {
        let _ = writeln!(text, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}");
    } else {
        text.push_str(MAP);
    }
    let with_parts = listed
        .end
        .saturating_sub(SEGMENTS_WITH_PARTS)
        .max(listed.start);
    let first = listed.start + skipped;
    segments(broadcast, playlist, first..with_parts.max(first), &mut text);
    for segment in with_parts.max(first)..=listed.end {
        let parts_produced = broadcast.parts(segment, now);
        begin(broadcast, segment, &mut text);
        parts(broadcast, playlist, (segment, parts_produced), &mut text);
        if segment < listed.end {
            end(broadcast, playlist, segment, &mut text);
        } else {
            write_preload_hint(broadcast, playlist, (segment, parts_produced), &mut text);
        }
    }
    write_rendition_reports(broadcast, playlist.1, now, &mut text);
    Some(text)
}

/// How many of these segments are before the skip boundary.
fn skipped_segments(listed: &Range<u64>) -> u64 {
    let count = listed.end - listed.start;
    count.saturating_sub(SKIP_DURATIONS)
}

fn write_server_control(broadcast: &Broadcast, rendition: DemoRendition, text: &mut String) {
    let target = broadcast.target_duration();
    let part = part_target(broadcast, rendition);
    let _ = writeln!(
        text,
        "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL={}.0,\
         PART-HOLD-BACK={:.5},HOLD-BACK={}.0\n#EXT-X-PART-INF:PART-TARGET={part:.5}",
        target * SKIP_DURATIONS,
        part * 3.0,
        target * 3,
    );
}

/// The duration of the longest part: audio parts differ by one frame. Twelve segments of two
/// seconds or more cover the whole media loop.
fn part_target(broadcast: &Broadcast, rendition: DemoRendition) -> f64 {
    let parts = 0..12 * broadcast.parts_per_segment();
    let longest = parts
        .map(|part| broadcast.part_seconds(rendition, 0, part))
        .fold(0.0, f64::max);
    // Rounded up: no part may be longer than the target.
    (longest * 100_000.0).ceil() / 100_000.0
}

fn parts(
    broadcast: &Broadcast,
    (packaging, rendition): (Packaging, DemoRendition),
    (segment, count): (u64, u64),
    text: &mut String,
) {
    let mut offset = 0;
    for part in 0..count {
        let seconds = broadcast.part_seconds(rendition, segment, part);
        let _ = write!(text, "#EXT-X-PART:DURATION={seconds:.5},");
        if packaging == Packaging::LowLatency {
            let _ = write!(text, "URI=\"{segment}.{part}.m4s\"");
        } else {
            let bytes = broadcast.part_bytes(rendition, segment, part);
            let _ = write!(text, "URI=\"{segment}.m4s\",BYTERANGE=\"{bytes}@{offset}\"");
            offset += bytes;
        }
        let independent = broadcast.is_independent(rendition, segment, part);
        text.push_str(if independent {
            ",INDEPENDENT=YES\n"
        } else {
            "\n"
        });
    }
}

/// The preload hint for the next part.
fn write_preload_hint(
    broadcast: &Broadcast,
    (packaging, rendition): (Packaging, DemoRendition),
    (segment, part): (u64, u64),
    text: &mut String,
) {
    if packaging == Packaging::LowLatency {
        let _ = writeln!(
            text,
            "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{segment}.{part}.m4s\""
        );
    } else {
        let parts_produced = (0..part).map(|part| broadcast.part_bytes(rendition, segment, part));
        let start: u64 = parts_produced.sum();
        let _ = writeln!(
            text,
            "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{segment}.m4s\",BYTERANGE-START={start}"
        );
    }
}

/// The rendition reports.
fn write_rendition_reports(
    broadcast: &Broadcast,
    rendition: DemoRendition,
    now: Utc,
    text: &mut String,
) {
    let segment = broadcast.segments(now);
    let (segment, part) = match broadcast.parts(segment, now) {
        0 => (segment.saturating_sub(1), broadcast.parts_per_segment() - 1),
        parts_produced => (segment, parts_produced - 1),
    };
    for other in DemoRendition::ALL
        .into_iter()
        .filter(|other| *other != rendition)
    {
        let name = other.name();
        let _ = writeln!(
            text,
            "#EXT-X-RENDITION-REPORT:URI=\"../{name}/index.m3u8\",\
             LAST-MSN={segment},LAST-PART={part}"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::broadcast::BroadcastPlan;
    use super::*;

    const START: Utc = Duration::from_secs(1_750_000_000);

    fn at(millis: u64) -> Utc {
        START + Duration::from_millis(millis)
    }

    fn told(packaging: Packaging, plan: BroadcastPlan, millis: u64, skip: bool) -> String {
        let broadcast = Broadcast::new(plan);
        playlist(
            &broadcast,
            (packaging, DemoRendition::Low),
            at(millis),
            skip,
        )
        .unwrap()
    }

    #[test]
    fn lists_the_newest_segments_in_parts() {
        let plan = BroadcastPlan::from(START).window(4).part_thirds(3);
        let text = told(Packaging::LowLatency, plan, 9_000, false);
        let expected = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:2\n\
            #EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-INDEPENDENT-SEGMENTS\n\
            #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12.0,\
            PART-HOLD-BACK=3.00000,HOLD-BACK=6.0\n#EXT-X-PART-INF:PART-TARGET=1.00000\n\
            #EXT-X-MAP:URI=\"init.mp4\"\n\
            #EXT-X-PROGRAM-DATE-TIME:2025-06-15T15:06:40.000Z\n#EXTINF:2.00000,\n0.m4s\n\
            #EXT-X-PROGRAM-DATE-TIME:2025-06-15T15:06:42.000Z\n\
            #EXT-X-PART:DURATION=1.00000,URI=\"1.0.m4s\",INDEPENDENT=YES\n\
            #EXT-X-PART:DURATION=1.00000,URI=\"1.1.m4s\"\n#EXTINF:2.00000,\n1.m4s\n\
            #EXT-X-PROGRAM-DATE-TIME:2025-06-15T15:06:44.000Z\n\
            #EXT-X-PART:DURATION=1.00000,URI=\"2.0.m4s\",INDEPENDENT=YES\n\
            #EXT-X-PART:DURATION=1.00000,URI=\"2.1.m4s\"\n#EXTINF:2.00000,\n2.m4s\n\
            #EXT-X-PROGRAM-DATE-TIME:2025-06-15T15:06:46.000Z\n\
            #EXT-X-PART:DURATION=1.00000,URI=\"3.0.m4s\",INDEPENDENT=YES\n\
            #EXT-X-PART:DURATION=1.00000,URI=\"3.1.m4s\"\n#EXTINF:2.00000,\n3.m4s\n\
            #EXT-X-PROGRAM-DATE-TIME:2025-06-15T15:06:48.000Z\n\
            #EXT-X-PART:DURATION=1.00000,URI=\"4.0.m4s\",INDEPENDENT=YES\n\
            #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"4.1.m4s\"\n\
            #EXT-X-RENDITION-REPORT:URI=\"../360p/index.m3u8\",LAST-MSN=4,LAST-PART=0\n\
            #EXT-X-RENDITION-REPORT:URI=\"../audio/index.m3u8\",LAST-MSN=4,LAST-PART=0\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn lists_contiguous_part_byte_ranges() {
        let plan = BroadcastPlan::from(START).window(1).part_thirds(1);
        let broadcast = Broadcast::new(plan);
        let text = told(Packaging::LowLatencyRanges, plan, 2_700, false);
        let parts_produced: Vec<u64> = (0..2)
            .map(|part| broadcast.part_bytes(DemoRendition::Low, 1, part))
            .collect();
        let second = format!(
            "URI=\"1.m4s\",BYTERANGE=\"{}@{}\"\n",
            parts_produced[1], parts_produced[0]
        );
        assert!(text.contains(&second), "{text}");
        let hint = format!(
            "URI=\"1.m4s\",BYTERANGE-START={}\n",
            parts_produced[0] + parts_produced[1]
        );
        assert!(text.contains(&hint), "{text}");
    }

    #[test]
    fn omits_segments_beyond_the_skip_boundary_in_a_delta_update() {
        let plan = BroadcastPlan::from(START).window(10);
        let (whole, delta) = (
            told(Packaging::LowLatency, plan, 60_000, false),
            told(Packaging::LowLatency, plan, 60_000, true),
        );
        assert!(delta.contains("#EXT-X-VERSION:9\n"), "{delta}");
        assert!(
            delta.contains("#EXT-X-SKIP:SKIPPED-SEGMENTS=4\n"),
            "{delta}"
        );
        assert!(!delta.contains("23.m4s"), "{delta}");
        let tail = |text: &str| text[text.find("24.m4s").unwrap()..].to_owned();
        assert_eq!(tail(&whole), tail(&delta));
        // Nothing to skip: the full playlist.
        let short = |skip| told(Packaging::LowLatency, plan.window(6), 60_000, skip);
        assert_eq!(short(true), short(false));
    }

    #[test]
    fn blocking_requests_wait_for_the_named_part() {
        let broadcast = Broadcast::new(BroadcastPlan::from(START).part_thirds(3));
        // Four segments and one part.
        let now = at(9_000);
        let wait = |query| {
            PlaylistQuery::of(query)
                .unwrap()
                .answer_time(&broadcast, now)
        };
        assert_eq!(wait(""), AnswerTime::Now);
        assert_eq!(wait("_HLS_msn=3"), AnswerTime::Now);
        assert_eq!(wait("_HLS_msn=4"), AnswerTime::Until(at(10_000)));
        assert_eq!(wait("_HLS_msn=4&_HLS_part=0"), AnswerTime::Now);
        assert_eq!(
            wait("_HLS_part=1&_HLS_msn=4"),
            AnswerTime::Until(at(10_000))
        );
        assert_eq!(
            wait("_HLS_msn=4&_HLS_part=2"),
            AnswerTime::Until(at(11_000))
        );
        assert_eq!(wait("_HLS_msn=6"), AnswerTime::Until(at(14_000)));
        assert_eq!(wait("_HLS_msn=7"), AnswerTime::Invalid);
        assert_eq!(wait("_HLS_part=1"), AnswerTime::Invalid);
        assert_eq!(PlaylistQuery::of("_HLS_msn=x"), None);
        assert!(PlaylistQuery::of("a=b&_HLS_skip=YES").unwrap().skip);
    }
}
