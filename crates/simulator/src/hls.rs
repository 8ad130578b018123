//! Writes HLS playlists (RFC 8216, rfc8216bis) of a broadcast at a given time. Knows no requests
//! and no faults.

mod low_latency;

use std::fmt::Write;
use std::ops::Range;

use super::broadcast::Broadcast;
use super::media_assets::DemoRendition;
use super::resource::Packaging;
use super::utc::{Utc, iso};

pub(super) use low_latency::{AnswerTime, PlaylistQuery};

/// The multivariant playlist.
pub(super) fn multivariant(broadcast: &Broadcast, packaging: Packaging) -> String {
    let mut text = String::from("#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    let sound = broadcast.track(DemoRendition::Audio);
    let has_audio_group = packaging.has_rendition(DemoRendition::Audio);
    if has_audio_group {
        text.push_str(
            "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"sound\",NAME=\"Beeps\",LANGUAGE=\"en\",DEFAULT=YES,\
             AUTOSELECT=YES,CHANNELS=\"1\",URI=\"audio/index.m3u8\"\n",
        );
    }
    for rendition in DemoRendition::VIDEO {
        let track = broadcast.track(rendition);
        let ((peak, average), (sound_peak, sound_average)) =
            (track.bits_per_second(), sound.bits_per_second());
        let (peak, average) = (peak + sound_peak, average + sound_average);
        let (width, height) = track.size.unwrap_or_default();
        let _ = write!(
            text,
            "#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average},\
             CODECS=\"{},{}\",RESOLUTION={width}x{height},FRAME-RATE=30.000",
            track.codec, sound.codec
        );
        let group = if has_audio_group {
            ",AUDIO=\"sound\""
        } else {
            ""
        };
        let _ = writeln!(text, "{group}\n{}/index.m3u8", rendition.name());
    }
    text
}

/// A rendition's playlist; `None` if no segment is complete.
pub(super) fn media(
    broadcast: &Broadcast,
    (packaging, rendition): (Packaging, DemoRendition),
    now: Utc,
) -> Option<String> {
    if packaging.is_low_latency_hls() {
        return low_latency::playlist(broadcast, (packaging, rendition), now, false);
    }
    let listed = broadcast.listed(now);
    if listed.is_empty() {
        return None;
    }
    let version = if packaging == Packaging::Ts { 3 } else { 6 };
    let mut text = head(broadcast, version, listed.start);
    if packaging != Packaging::Ts {
        text.push_str(MAP);
    }
    segments(broadcast, (packaging, rendition), listed, &mut text);
    Some(text)
}

/// A rendition's playlist for LL-HLS delivery directives.
pub(super) fn media_with_directives(
    broadcast: &Broadcast,
    playlist: (Packaging, DemoRendition),
    now: Utc,
    directives: PlaylistQuery,
) -> Option<String> {
    if playlist.0.is_low_latency_hls() {
        low_latency::playlist(broadcast, playlist, now, directives.skip)
    } else {
        media(broadcast, playlist, now)
    }
}

const MAP: &str = "#EXT-X-MAP:URI=\"init.mp4\"\n";

fn head(broadcast: &Broadcast, version: u32, first: u64) -> String {
    format!(
        "#EXTM3U\n#EXT-X-VERSION:{version}\n#EXT-X-TARGETDURATION:{}\n\
         #EXT-X-MEDIA-SEQUENCE:{first}\n\
         #EXT-X-INDEPENDENT-SEGMENTS\n",
        broadcast.target_duration()
    )
}

fn segments(
    broadcast: &Broadcast,
    playlist: (Packaging, DemoRendition),
    range: Range<u64>,
    text: &mut String,
) {
    for segment in range {
        begin(broadcast, segment, text);
        end(broadcast, playlist, segment, text);
    }
}

fn begin(broadcast: &Broadcast, segment: u64, text: &mut String) {
    let start = iso(broadcast.segment_begins(segment));
    let _ = writeln!(text, "#EXT-X-PROGRAM-DATE-TIME:{start}");
}

fn end(
    broadcast: &Broadcast,
    (packaging, rendition): (Packaging, DemoRendition),
    segment: u64,
    text: &mut String,
) {
    let seconds = broadcast.segment_seconds(rendition, segment);
    let extension = if packaging == Packaging::Ts {
        "ts"
    } else {
        "m4s"
    };
    let _ = writeln!(text, "#EXTINF:{seconds:.5},\n{segment}.{extension}");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::broadcast::BroadcastPlan;
    use super::*;

    const START: Utc = Duration::from_secs(1_750_000_000);

    #[test]
    fn writes_a_playlist_of_transport_streams() {
        let broadcast = Broadcast::new(BroadcastPlan::from(START).window(2));
        let now = START + Duration::from_millis(7_999);
        let text = media(&broadcast, (Packaging::Ts, DemoRendition::Low), now).unwrap();
        let expected = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n\
            #EXT-X-MEDIA-SEQUENCE:1\n#EXT-X-INDEPENDENT-SEGMENTS\n\
            #EXT-X-PROGRAM-DATE-TIME:2025-06-15T15:06:42.000Z\n#EXTINF:2.00000,\n1.ts\n\
            #EXT-X-PROGRAM-DATE-TIME:2025-06-15T15:06:44.000Z\n#EXTINF:2.00000,\n2.ts\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn lists_real_durations_of_audio_segments() {
        let broadcast = Broadcast::new(BroadcastPlan::from(START).window(2));
        let now = START + Duration::from_secs(4);
        let text = media(&broadcast, (Packaging::Cmaf, DemoRendition::Audio), now).unwrap();
        let lines: Vec<_> = text
            .lines()
            .filter(|line| line.contains("EXTINF"))
            .collect();
        // 93 audio frames, then 94.
        assert_eq!(lines, ["#EXTINF:1.98400,", "#EXTINF:2.00533,"]);
        assert!(text.contains("#EXT-X-MAP:URI=\"init.mp4\"\n"));
    }

    #[test]
    fn writes_no_playlist_before_the_first_segment() {
        let broadcast = Broadcast::new(BroadcastPlan::from(START));
        let now = START + Duration::from_millis(1_999);
        assert_eq!(
            media(&broadcast, (Packaging::Ts, DemoRendition::Low), now),
            None
        );
    }

    #[test]
    fn lists_every_video_size_with_the_audio_group() {
        let broadcast = Broadcast::new(BroadcastPlan::from(START));
        let together = multivariant(&broadcast, Packaging::Ts);
        assert!(!together.contains("audio"), "{together}");
        assert!(together.contains("\n360p/index.m3u8\n"), "{together}");
        let has_audio_group = multivariant(&broadcast, Packaging::Cmaf);
        assert!(has_audio_group.contains("CODECS=\"avc1.4D400D,mp4a.40.2\",RESOLUTION=320x180"));
        assert!(
            has_audio_group.contains(",AUDIO=\"sound\"\n180p/index.m3u8\n"),
            "{has_audio_group}"
        );
    }
}
