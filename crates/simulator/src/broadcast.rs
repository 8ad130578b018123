//! The content of the stream at a given time. Pure: the same plan at the same time has the same
//! segments, parts and texts, to the byte. Knows no requests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::media_assets::{
    DemoRendition, FRAGMENTS_PER_GOP, FRAGMENTS_PER_SECOND, MediaAssets, MediaFragment, SampleTrack,
};
use super::utc::Utc;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// The segmentation of a stream and its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BroadcastPlan {
    start: Utc,
    segment_fragments: u64,
    part_fragments: u64,
    window: u64,
}

impl BroadcastPlan {
    /// Segments of 2 s in parts of 1/3 s; the last ten segments are listed.
    pub fn from(start: Utc) -> BroadcastPlan {
        BroadcastPlan {
            // Rounded to milliseconds as in manifests: nothing may come later than they say.
            start: Utc::from_millis(start.as_millis().try_into().unwrap_or(u64::MAX)),
            segment_fragments: FRAGMENTS_PER_GOP,
            part_fragments: 1,
            window: 10,
        }
    }

    /// Segments of this many seconds: a multiple of two, because IDR pictures are two seconds
    /// apart. Other values are rounded up.
    #[must_use]
    pub fn segment_seconds(self, seconds: u64) -> BroadcastPlan {
        let fragments = (seconds * FRAGMENTS_PER_SECOND).max(1);
        BroadcastPlan {
            segment_fragments: fragments.next_multiple_of(FRAGMENTS_PER_GOP),
            ..self
        }
    }

    /// Segments of this many thirds of a second, for tests that need short segments. Decoders
    /// cannot start with each of them. Not for DASH's `$Number$`.
    #[must_use]
    pub fn segment_thirds(self, thirds: u64) -> BroadcastPlan {
        BroadcastPlan {
            segment_fragments: thirds.max(1),
            ..self
        }
    }

    /// Parts of this many thirds of a second: one, two or three.
    #[must_use]
    pub fn part_thirds(self, thirds: u64) -> BroadcastPlan {
        BroadcastPlan {
            part_fragments: thirds.clamp(1, 3),
            ..self
        }
    }

    /// The number of listed segments.
    #[must_use]
    pub fn window(self, segments: u64) -> BroadcastPlan {
        BroadcastPlan {
            window: segments.max(1),
            ..self
        }
    }
}

/// A running stream.
#[derive(Clone, Debug)]
pub struct Broadcast {
    plan: BroadcastPlan,
    assets: Arc<MediaAssets>,
    /// The number of restarts.
    restarts: u64,
}

impl Broadcast {
    /// Starts a stream.
    pub fn new(plan: BroadcastPlan) -> Broadcast {
        Broadcast {
            plan,
            assets: MediaAssets::bundled(),
            restarts: 0,
        }
    }

    /// The stream after a restart of the packager: numbers from 0, the same names, other bytes. One
    /// segment is complete at once.
    #[must_use]
    pub fn restarted(&self, now: Utc) -> Broadcast {
        let start = now.saturating_sub(self.segment_duration());
        Broadcast {
            plan: BroadcastPlan { start, ..self.plan },
            assets: self.assets.clone(),
            restarts: self.restarts + 1,
        }
    }

    /// When segment 0 began.
    pub fn start(&self) -> Utc {
        self.plan.start
    }

    /// Duration of a segment.
    pub fn segment_duration(&self) -> Duration {
        duration_of(self.plan.segment_fragments)
    }

    /// Segment duration in whole seconds, as HLS requires (RFC 8216 §4.3.3.1).
    pub(super) fn target_duration(&self) -> u64 {
        let segment = self.segment_duration();
        segment.as_secs() + u64::from(segment.subsec_nanos() > 0)
    }

    /// Duration of a part.
    pub fn part_duration(&self) -> Duration {
        duration_of(self.plan.part_fragments)
    }

    /// Number of listed segments.
    pub fn window(&self) -> u32 {
        u32::try_from(self.plan.window).unwrap_or(u32::MAX)
    }

    /// Number of parts in a segment.
    pub fn parts_per_segment(&self) -> u64 {
        self.plan.segment_fragments / self.plan.part_fragments
    }

    /// Number of complete segments, which is also the number of the one being made.
    pub fn segments(&self, now: Utc) -> u64 {
        self.fragments(now) / self.plan.segment_fragments
    }

    /// Number of complete parts of this segment.
    pub fn parts(&self, segment: u64, now: Utc) -> u64 {
        let first_fragment = segment.saturating_mul(self.plan.segment_fragments);
        let fragments = self.fragments(now).saturating_sub(first_fragment);
        (fragments / self.plan.part_fragments).min(self.parts_per_segment())
    }

    /// When a segment is complete.
    pub fn segment_due(&self, segment: u64) -> Utc {
        self.part_due(segment, self.parts_per_segment() - 1)
    }

    /// When a part is complete.
    pub fn part_due(&self, segment: u64, part: u64) -> Utc {
        let (_, end) = self.part_fragments(segment, part);
        self.plan.start.saturating_add(duration_of(end))
    }

    /// When a segment begins.
    pub fn segment_begins(&self, segment: u64) -> Utc {
        let fragments = segment.saturating_mul(self.plan.segment_fragments);
        self.plan.start.saturating_add(duration_of(fragments))
    }

    /// The segments listed at this time.
    pub fn listed(&self, now: Utc) -> std::ops::Range<u64> {
        let end = self.segments(now);
        end.saturating_sub(self.plan.window)..end
    }

    /// Whether a segment is not deleted yet: it stays for more than twice the window.
    pub fn is_kept(&self, segment: u64, now: Utc) -> bool {
        let segments_kept = 2 * self.plan.window + 3;
        segment.saturating_add(segments_kept) >= self.segments(now)
    }

    /// The segment of a rendition that begins at this tick (DASH's `$Time$`).
    pub fn segment_at(&self, rendition: DemoRendition, ticks: u64) -> Option<u64> {
        // Audio begins up to one frame before video: rounding up finds its segment.
        let per_segment = self.track(rendition).timescale * self.plan.segment_fragments;
        let segment = (ticks * FRAGMENTS_PER_SECOND).div_ceil(per_segment);
        (self.segment_ticks(rendition, segment).0 == ticks).then_some(segment)
    }

    /// The begin and the duration of a rendition's segment, in ticks.
    pub fn segment_ticks(&self, rendition: DemoRendition, segment: u64) -> (u64, u64) {
        let from = segment * self.plan.segment_fragments;
        let track = self.track(rendition);
        let duration_ticks = track.ticks_between(from, from + self.plan.segment_fragments);
        (track.ticks(from), duration_ticks)
    }

    /// The duration of a rendition's segment, in seconds.
    pub fn segment_seconds(&self, rendition: DemoRendition, segment: u64) -> f64 {
        let (_, ticks) = self.segment_ticks(rendition, segment);
        seconds(ticks, self.track(rendition))
    }

    /// The duration of a rendition's part, in seconds.
    pub fn part_seconds(&self, rendition: DemoRendition, segment: u64, part: u64) -> f64 {
        let (from, to) = self.part_fragments(segment, part);
        let track = self.track(rendition);
        seconds(track.ticks_between(from, to), track)
    }

    /// Whether a part begins with an IDR picture.
    pub fn is_independent(&self, rendition: DemoRendition, segment: u64, part: u64) -> bool {
        let (from, _) = self.part_fragments(segment, part);
        rendition == DemoRendition::Audio || from.is_multiple_of(FRAGMENTS_PER_GOP)
    }

    /// A rendition's init segment.
    pub fn init(&self, rendition: DemoRendition) -> Bytes {
        self.track(rendition).init.clone()
    }

    /// A segment, whether or not it is due yet.
    pub fn segment(&self, rendition: DemoRendition, segment: u64) -> Bytes {
        let from = segment * self.plan.segment_fragments;
        self.concatenated(rendition, from, from + self.plan.segment_fragments)
    }

    /// A part, whether or not it is due yet. The parts of a segment, concatenated, are the segment.
    pub fn part(&self, rendition: DemoRendition, segment: u64, part: u64) -> Bytes {
        let (from, to) = self.part_fragments(segment, part);
        self.concatenated(rendition, from, to)
    }

    /// The length of [`Broadcast::part`] in bytes.
    pub fn part_bytes(&self, rendition: DemoRendition, segment: u64, part: u64) -> u64 {
        let (from, to) = self.part_fragments(segment, part);
        let track = self.track(rendition);
        (from..to)
            .map(|number| track.fragment_bytes(self.fragment(number)))
            .sum()
    }

    /// A segment as a transport stream, with audio.
    pub fn ts_segment(&self, rendition: DemoRendition, segment: u64) -> Bytes {
        let from = segment * self.plan.segment_fragments;
        let to = from + self.plan.segment_fragments;
        let (from, to) = (self.fragment(from), self.fragment(to));
        self.assets.ts(rendition, from..to)
    }

    pub(super) fn track(&self, rendition: DemoRendition) -> &SampleTrack {
        self.assets.track(rendition)
    }

    fn concatenated(&self, rendition: DemoRendition, from: u64, to: u64) -> Bytes {
        let track = self.track(rendition);
        let mut fragments = (from..to).map(|number| track.fragment(self.fragment(number)));
        if to - from == 1 {
            return fragments.next().unwrap_or_default();
        }
        fragments.collect::<Vec<_>>().concat().into()
    }

    fn fragment(&self, number: u64) -> MediaFragment {
        let shift = self.restarts * FRAGMENTS_PER_GOP;
        MediaFragment { number, shift }
    }

    /// The fragments of a part: the first, and the one after the last.
    fn part_fragments(&self, segment: u64, part: u64) -> (u64, u64) {
        let first_fragment = segment.saturating_mul(self.plan.segment_fragments);
        let from = first_fragment.saturating_add(part.saturating_mul(self.plan.part_fragments));
        (from, from.saturating_add(self.plan.part_fragments))
    }

    /// Number of complete fragments.
    fn fragments(&self, now: Utc) -> u64 {
        let on_air = now.saturating_sub(self.plan.start).as_nanos();
        let fragments = on_air * u128::from(FRAGMENTS_PER_SECOND) / NANOS_PER_SECOND;
        u64::try_from(fragments).unwrap_or(u64::MAX)
    }
}

/// The duration of this many fragments, rounded up so that they are complete when it has passed.
fn duration_of(fragments: u64) -> Duration {
    let nanos = u128::from(fragments) * NANOS_PER_SECOND;
    let nanos = nanos.div_ceil(u128::from(FRAGMENTS_PER_SECOND));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[expect(clippy::cast_precision_loss, reason = "a few seconds in ticks")]
fn seconds(ticks: u64, track: &SampleTrack) -> f64 {
    ticks as f64 / track.timescale as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Utc = Duration::from_secs(1_750_000_000);

    fn at(millis: u64) -> Utc {
        START + Duration::from_millis(millis)
    }

    #[test]
    fn makes_parts_and_segments_available_when_due() {
        let broadcast =
            Broadcast::new(BroadcastPlan::from(START).segment_seconds(4).part_thirds(2));
        assert_eq!(broadcast.parts_per_segment(), 6);
        assert_eq!(broadcast.parts(0, at(666)), 0);
        assert_eq!(broadcast.parts(0, at(667)), 1);
        assert_eq!(broadcast.segments(at(3999)), 0);
        assert_eq!(broadcast.segments(at(4000)), 1);
        assert_eq!(broadcast.parts(0, at(90_000)), 6);
        assert_eq!(broadcast.parts(9, Utc::ZERO), 0);
        for (segment, part) in [(0, 0), (0, 5), (7, 2), (12_345, 4)] {
            let due = broadcast.part_due(segment, part);
            assert_eq!(broadcast.parts(segment, due), part + 1);
            assert_eq!(
                broadcast.parts(segment, due.saturating_sub(Duration::from_nanos(1))),
                part
            );
        }
        assert_eq!(broadcast.segment_due(1), at(8000));
        assert_eq!(broadcast.segment_begins(1), at(4000));
    }

    #[test]
    fn concatenated_parts_equal_the_segment() {
        for thirds in 1..=3 {
            let plan = BroadcastPlan::from(START)
                .segment_seconds(4)
                .part_thirds(thirds);
            let broadcast = Broadcast::new(plan);
            for rendition in DemoRendition::ALL {
                for segment in [0, 5, 6, 100] {
                    let parts = (0..broadcast.parts_per_segment())
                        .map(|part| broadcast.part(rendition, segment, part));
                    let parts: Vec<Bytes> = parts.collect();
                    for (part, bytes) in (0..).zip(&parts) {
                        let part_bytes = broadcast.part_bytes(rendition, segment, part);
                        assert_eq!(part_bytes, bytes.len() as u64);
                    }
                    assert_eq!(parts.concat(), broadcast.segment(rendition, segment));
                }
            }
        }
    }

    #[test]
    fn restart_keeps_names_and_changes_bytes() {
        let first = Broadcast::new(BroadcastPlan::from(START));
        let second = first.restarted(at(60_000));
        assert_eq!(second.segments(at(60_000)), 1);
        for segment in 0..12 {
            for rendition in DemoRendition::ALL {
                let both = [&first, &second].map(|one| one.segment(rendition, segment));
                assert_ne!(both[0], both[1]);
            }
            let both = [&first, &second].map(|one| one.ts_segment(DemoRendition::Low, segment));
            assert_ne!(both[0], both[1]);
        }
    }

    #[test]
    fn finds_segments_by_start_time() {
        let broadcast = Broadcast::new(BroadcastPlan::from(START).segment_seconds(6));
        for rendition in DemoRendition::ALL {
            for segment in 0..30 {
                let (ticks, _) = broadcast.segment_ticks(rendition, segment);
                assert_eq!(broadcast.segment_at(rendition, ticks), Some(segment));
                assert_eq!(broadcast.segment_at(rendition, ticks + 1), None);
            }
        }
    }

    #[test]
    fn moves_the_window() {
        let broadcast = Broadcast::new(BroadcastPlan::from(START).window(3));
        assert_eq!(broadcast.listed(at(0)), 0..0);
        assert_eq!(broadcast.listed(at(4000)), 0..2);
        assert_eq!(broadcast.listed(at(20_000)), 7..10);
        assert!(broadcast.is_kept(1, at(20_000)));
        assert!(!broadcast.is_kept(0, at(20_000)));
    }
}
