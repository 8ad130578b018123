//! Writes the MPD (ISO/IEC 23009-1) of a broadcast at a given time. Knows no requests and no
//! faults.

use std::fmt::Write;
use std::time::Duration;

use super::broadcast::Broadcast;
use super::media_assets::DemoRendition;
use super::resource::{Packaging, TIME_SERVER_PATH};
use super::utc::{Utc, iso};

/// The MPD; `None` if no segment is complete.
pub(super) fn mpd(broadcast: &Broadcast, packaging: Packaging, now: Utc) -> Option<String> {
    let listed = broadcast.listed(now);
    if listed.is_empty() {
        return None;
    }
    // With `$Number$` the MPD is complete from the beginning and never changes.
    let published = match packaging {
        Packaging::Timeline => broadcast.segment_due(listed.end - 1),
        _ => broadcast.start(),
    };
    let segment = broadcast.segment_duration();
    // Not with a latency target: players add the delay to it.
    let delay = match packaging {
        Packaging::Chunked => String::new(),
        _ => format!(
            " suggestedPresentationDelay=\"{}\"",
            DemoPeriod(segment * 3)
        ),
    };
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" \
         profiles=\"urn:mpeg:dash:profile:isoff-live:2011\" type=\"dynamic\"\n     \
         availabilityStartTime=\"{}\" publishTime=\"{}\"\n     \
         minimumUpdatePeriod=\"{segment}\" timeShiftBufferDepth=\"{}\"{delay} \
         minBufferTime=\"{}\" \
         maxSegmentDuration=\"{segment}\">\n",
        iso(broadcast.start()),
        iso(published),
        DemoPeriod(segment * broadcast.window()),
        DemoPeriod(segment.min(Duration::from_secs(2))),
        segment = DemoPeriod(segment),
    );
    if packaging == Packaging::Chunked {
        text.push_str(
            " <ServiceDescription id=\"0\"><Latency target=\"2000\" min=\"1000\" max=\"6000\"/>\
             <PlaybackRate min=\"0.96\" max=\"1.04\"/></ServiceDescription>\n",
        );
    }
    text.push_str(" <Period id=\"0\" start=\"PT0S\">\n");
    set(broadcast, packaging, &DemoRendition::VIDEO, now, &mut text);
    set(
        broadcast,
        packaging,
        &[DemoRendition::Audio],
        now,
        &mut text,
    );
    let _ = write!(
        text,
        " </Period>\n \
         <UTCTiming schemeIdUri=\"urn:mpeg:dash:utc:http-iso:2014\" value=\"{TIME_SERVER_PATH}\"/>\n\
         </MPD>\n"
    );
    Some(text)
}

/// A duration, written as `PT2S`.
struct DemoPeriod(Duration);

impl std::fmt::Display for DemoPeriod {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "PT{}S", self.0.as_secs_f64())
    }
}

/// An adaptation set: renditions that a player may switch between.
fn set(
    broadcast: &Broadcast,
    packaging: Packaging,
    renditions: &[DemoRendition],
    now: Utc,
    text: &mut String,
) {
    let (id, kind) = match renditions {
        [DemoRendition::Audio] => (1, "audio"),
        _ => (0, "video"),
    };
    let language = if kind == "audio" { " lang=\"en\"" } else { "" };
    let _ = writeln!(
        text,
        "  <AdaptationSet id=\"{id}\" contentType=\"{kind}\" mimeType=\"{kind}/mp4\"{language} \
         segmentAlignment=\"true\" startWithSAP=\"1\">"
    );
    if let Some(first) = renditions.first() {
        template(broadcast, packaging, *first, now, text);
    }
    for rendition in renditions {
        representation(broadcast, *rendition, text);
    }
    text.push_str("  </AdaptationSet>\n");
}

fn template(
    broadcast: &Broadcast,
    packaging: Packaging,
    rendition: DemoRendition,
    now: Utc,
    text: &mut String,
) {
    let timescale = broadcast.track(rendition).timescale;
    let initialization = "initialization=\"$RepresentationID$/init.mp4\"";
    if packaging == Packaging::Timeline {
        let _ = writeln!(
            text,
            "   <SegmentTemplate timescale=\"{timescale}\" {initialization} \
             media=\"$RepresentationID$/$Time$.m4s\">\n    <SegmentTimeline>"
        );
        timeline(broadcast, rendition, now, text);
        text.push_str("    </SegmentTimeline>\n   </SegmentTemplate>\n");
        return;
    }
    let segment = broadcast.segment_duration();
    let availability_offset = if packaging == Packaging::Chunked {
        let offset = segment
            .saturating_sub(broadcast.part_duration())
            .as_secs_f64();
        // Rounded down, so that nothing is announced before it exists.
        let offset = (offset * 1000.0).floor() / 1000.0;
        format!(" availabilityTimeOffset=\"{offset:.3}\" availabilityTimeComplete=\"false\"")
    } else {
        String::new()
    };
    let ticks = segment.as_secs() * timescale;
    let _ = writeln!(
        text,
        "   <SegmentTemplate timescale=\"{timescale}\" duration=\"{ticks}\" \
         startNumber=\"0\"{availability_offset} \
         {initialization} media=\"$RepresentationID$/$Number$.m4s\"/>"
    );
}

/// Runs of segments of equal duration.
fn timeline(broadcast: &Broadcast, rendition: DemoRendition, now: Utc, text: &mut String) {
    let segments = broadcast.listed(now);
    let mut segments = segments
        .map(|segment| broadcast.segment_ticks(rendition, segment))
        .peekable();
    let mut first_start = segments.peek().map(|(start, _)| *start);
    while let Some((_, duration)) = segments.next() {
        let mut repeated = 0;
        while segments.next_if(|(_, next)| *next == duration).is_some() {
            repeated += 1;
        }
        // Each run begins where the last one ended; only the first needs its begin.
        let start = first_start.take().map(|start| format!(" t=\"{start}\""));
        let start = start.unwrap_or_default();
        let repeat = if repeated > 0 {
            format!(" r=\"{repeated}\"")
        } else {
            String::new()
        };
        let _ = writeln!(text, "     <S{start} d=\"{duration}\"{repeat}/>");
    }
}

fn representation(broadcast: &Broadcast, rendition: DemoRendition, text: &mut String) {
    let track = broadcast.track(rendition);
    let (bandwidth, _) = track.bits_per_second();
    let picture = match track.size {
        Some((width, height)) => {
            format!("width=\"{width}\" height=\"{height}\" frameRate=\"30\"")
        }
        None => "audioSamplingRate=\"48000\"".to_owned(),
    };
    let _ = writeln!(
        text,
        "   <Representation id=\"{}\" codecs=\"{}\" bandwidth=\"{bandwidth}\" {picture}/>",
        rendition.name(),
        track.codec
    );
}

#[cfg(test)]
mod tests {
    use super::super::broadcast::BroadcastPlan;
    use super::*;

    const START: Utc = Duration::from_secs(1_750_000_000);

    fn mpd_text(packaging: Packaging, plan: BroadcastPlan, seconds: u64) -> String {
        mpd(
            &Broadcast::new(plan),
            packaging,
            START + Duration::from_secs(seconds),
        )
        .unwrap()
    }

    #[test]
    fn lists_available_segments_and_publish_time_in_a_timeline() {
        let text = mpd_text(
            Packaging::Timeline,
            BroadcastPlan::from(START).window(4),
            21,
        );
        // Ten segments are complete, the last at 20 s; 6 to 9 are listed.
        assert!(
            text.contains("publishTime=\"2025-06-15T15:07:00.000Z\""),
            "{text}"
        );
        assert!(
            text.contains("     <S t=\"360000\" d=\"60000\" r=\"3\"/>\n"),
            "{text}"
        );
        // Audio: frames 562, 656, 750, 843, 937.
        let sound = "     <S t=\"575488\" d=\"96256\" r=\"1\"/>\n     \
            <S d=\"95232\"/>\n     <S d=\"96256\"/>\n";
        assert!(text.contains(sound), "{text}");
    }

    #[test]
    fn number_templates_never_change() {
        for packaging in [Packaging::Number, Packaging::Chunked] {
            let plan = BroadcastPlan::from(START).segment_seconds(4);
            assert_eq!(
                mpd_text(packaging, plan, 4),
                mpd_text(packaging, plan, 4000)
            );
        }
    }

    /// Shaka Player adds the delay to the target.
    #[test]
    fn sends_either_latency_target_or_presentation_delay() {
        for packaging in [Packaging::Timeline, Packaging::Number, Packaging::Chunked] {
            let text = mpd_text(packaging, BroadcastPlan::from(START).segment_seconds(4), 21);
            let has_delay = text.contains("suggestedPresentationDelay");
            let has_target = text.contains("<Latency target");
            assert!(has_delay != has_target, "{text}");
        }
    }

    #[test]
    fn announces_chunks_early_with_an_availability_offset() {
        let plan = BroadcastPlan::from(START).segment_seconds(4).part_thirds(2);
        let text = mpd_text(Packaging::Chunked, plan, 4);
        assert!(text.contains("availabilityTimeOffset=\"3.333\""), "{text}");
        assert!(text.contains("duration=\"192000\""), "{text}");
    }
}
