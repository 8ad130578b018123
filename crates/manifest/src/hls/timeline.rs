//! Collects the segments and parts of a media playlist, their byte ranges and their extent. Keeps
//! those near the live edge and counts the rest.

use std::collections::VecDeque;
use std::time::Duration;

use super::names::{fingerprints, number_offset};
use super::syntax::{ByteRange, RangeEnd, attribute, attributes, count, seconds};
use super::variables::Variables;
use crate::date_time::date_time;
use crate::info::{ListedResource, Listing, PlaylistEdge};
use crate::limits::{LISTED_MAX, NAMES_MAX};
use crate::typical_duration::{TYPICAL_OF, median};

/// The segments read so far.
#[derive(Default)]
pub(super) struct PlaylistTimeline<'a> {
    media_sequence: u64,
    skipped: u64,
    discontinuity_sequence: u64,
    discontinuities: u64,
    /// Tags since the last segment that apply to the next one.
    next: NextSegment,
    segments: u64,
    recent: VecDeque<PlaylistResource<'a>>,
    /// Durations of the last segments.
    durations: VecDeque<Duration>,
    segment_range: RangeEnd<'a>,
    /// Parts of the segment after the last one, and of the last one.
    parts: SegmentParts<'a>,
    last_parts: u64,
    part_range: RangeEnd<'a>,
    inits: VecDeque<PlaylistResource<'a>>,
    hints: Vec<PlaylistResource<'a>>,
    /// The last date, as written, and the duration listed since.
    date: Option<&'a str>,
    since_date: Option<Duration>,
}

#[derive(Default)]
struct NextSegment {
    duration: Option<Duration>,
    range: Option<ByteRange>,
    gap: bool,
}

#[derive(Default)]
struct SegmentParts<'a> {
    count: u64,
    /// Total duration; unknown if one is not stated.
    duration: Option<Duration>,
    recent: VecDeque<PlaylistResource<'a>>,
}

/// A listed object. Numbered from the first listed segment, since the media sequence number may
/// follow later.
#[derive(Clone, Copy, PartialEq, Eq)]
struct PlaylistResource<'a> {
    index: u64,
    uri: &'a str,
    bytes: ResourceBytes,
}

/// The bytes of a resource.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ResourceBytes {
    /// All.
    All,
    /// Offset and length.
    Range(u64, Option<u64>),
    /// Not fetchable: a gap, or the start of its range is unknown.
    Unknown,
}

impl<'a> PlaylistTimeline<'a> {
    /// `EXTINF`: a duration and a title.
    pub(super) fn take_duration(&mut self, value: &str) {
        let comma = value.bytes().position(|byte| byte == b',');
        self.next.duration = seconds(&value[..comma.unwrap_or(value.len())]);
    }

    pub(super) fn take_tag(&mut self, tag: &str, value: &'a str) {
        match tag {
            "#EXT-X-PROGRAM-DATE-TIME" => {
                self.date = Some(value);
                self.since_date = Some(Duration::ZERO);
            }
            "#EXT-X-PART" => self.take_part(value),
            "#EXT-X-BYTERANGE" => self.next.range = ByteRange::of(value),
            "#EXT-X-GAP" => self.next.gap = true,
            "#EXT-X-MAP" => self.take_init(value),
            "#EXT-X-PRELOAD-HINT" => self.take_hint(value),
            "#EXT-X-DISCONTINUITY" => self.discontinuities += 1,
            "#EXT-X-MEDIA-SEQUENCE" => self.media_sequence = count(value).unwrap_or(0),
            "#EXT-X-DISCONTINUITY-SEQUENCE" => {
                self.discontinuity_sequence = count(value).unwrap_or(0);
            }
            "#EXT-X-SKIP" => {
                let skipped = attribute(value, "SKIPPED-SEGMENTS");
                self.skipped = skipped.and_then(count).unwrap_or(0);
            }
            _ => {}
        }
    }

    pub(super) fn take_segment(&mut self, uri: &'a str) {
        let next = std::mem::take(&mut self.next);
        let bytes = match next.range {
            None => ResourceBytes::All,
            Some(range) => ResourceBytes::of(self.segment_range.offset(uri, range), range),
        };
        let bytes = if next.gap {
            ResourceBytes::Unknown
        } else {
            bytes
        };
        let index = self.segments;
        keep_last(
            &mut self.recent,
            LISTED_MAX,
            PlaylistResource { index, uri, bytes },
        );
        if let Some(duration) = next.duration {
            keep_last(&mut self.durations, TYPICAL_OF, duration);
        }
        let since = self.since_date.zip(next.duration);
        self.since_date = since.and_then(|(since, more)| since.checked_add(more));
        self.segments += 1;
        self.last_parts = self.parts.count;
        self.parts.count = 0;
        self.parts.recent.clear();
    }

    fn take_part(&mut self, list: &'a str) {
        let (mut uri, mut range, mut duration, mut gap) = (None, None, None, false);
        for (name, value) in attributes(list) {
            match name {
                "URI" => uri = Some(value),
                "DURATION" => duration = seconds(value),
                "BYTERANGE" => range = ByteRange::of(value),
                "GAP" => gap = value == "YES",
                _ => {}
            }
        }
        let Some(uri) = uri else { return };
        let bytes = match range {
            None => ResourceBytes::All,
            Some(range) => ResourceBytes::of(self.part_range.offset(uri, range), range),
        };
        let bytes = if gap { ResourceBytes::Unknown } else { bytes };
        let index = self.segments;
        let parts = &mut self.parts;
        keep_last(
            &mut parts.recent,
            LISTED_MAX,
            PlaylistResource { index, uri, bytes },
        );
        let before = if parts.count == 0 {
            Some(Duration::ZERO)
        } else {
            parts.duration
        };
        parts.duration = before
            .zip(duration)
            .and_then(|(before, more)| before.checked_add(more));
        parts.count += 1;
    }

    fn take_init(&mut self, list: &'a str) {
        let (mut uri, mut bytes) = ("", ResourceBytes::All);
        for (name, value) in attributes(list) {
            match name {
                "URI" => uri = value,
                "BYTERANGE" => {
                    bytes = ByteRange::of(value).map_or(ResourceBytes::Unknown, |range| {
                        ResourceBytes::of(range.offset.or(Some(0)), range)
                    });
                }
                _ => {}
            }
        }
        let index = self.segments;
        let is_new = |init: &PlaylistResource<'_>| (init.uri, init.bytes) != (uri, bytes);
        if self.inits.iter().rev().all(is_new) {
            keep_last(
                &mut self.inits,
                LISTED_MAX,
                PlaylistResource { index, uri, bytes },
            );
        }
    }

    fn take_hint(&mut self, list: &'a str) {
        let (mut uri, mut start, mut length) = ("", None, None);
        for (name, value) in attributes(list) {
            match name {
                "URI" => uri = value,
                "BYTERANGE-START" => start = count(value),
                "BYTERANGE-LENGTH" => length = count(value),
                _ => {}
            }
        }
        if self.hints.len() < LISTED_MAX {
            self.hints.push(PlaylistResource {
                index: self.segments,
                uri,
                bytes: match (start, length) {
                    (None, None) => ResourceBytes::All,
                    (start, length) => ResourceBytes::Range(start.unwrap_or(0), length),
                },
            });
        }
    }

    /// Number of listed segments.
    pub(super) fn segments(&self) -> u64 {
        self.segments
    }

    /// The typical duration of the last few segments.
    pub(super) fn typical_duration(&self) -> Option<Duration> {
        median(self.durations.iter().copied())
    }

    pub(super) fn edge(&self) -> Option<PlaylistEdge> {
        let count = self.segments.saturating_add(self.skipped);
        if count == 0 && self.parts.count == 0 {
            return None;
        }
        let end = self.media_sequence.checked_add(count)?;
        let recent = self.recent.len().saturating_sub(NAMES_MAX);
        let recent: Vec<&str> = self.recent.iter().skip(recent).map(|one| one.uri).collect();
        let last = end.checked_sub(1)?;
        Some(PlaylistEdge {
            media_sequence: self.media_sequence,
            last_sequence: last,
            skipped_segments: self.skipped,
            last_segment_parts: self.last_parts,
            next_segment_parts: self.parts.count,
            discontinuity_sequence: self
                .discontinuity_sequence
                .saturating_add(self.discontinuities),
            name_fingerprints: fingerprints(&recent),
            name_number_offset: number_offset(&recent, last),
            end_time: self.end_time(),
        })
    }

    fn end_time(&self) -> Option<std::time::SystemTime> {
        let since = self.since_date?;
        let parts = match self.parts.count {
            0 => Duration::ZERO,
            _ => self.parts.duration?,
        };
        date_time(self.date?)?.checked_add(since.checked_add(parts)?)
    }

    pub(super) fn listing(&self, variables: &Variables<'_>) -> Listing {
        let Some(base) = self.media_sequence.checked_add(self.skipped) else {
            return Listing::default();
        };
        let listed = |resource: &PlaylistResource<'_>| resource.listed(base, variables);
        // Nearly all are listed: room for them at once.
        let mut segments = Vec::with_capacity(self.recent.len());
        segments.extend(self.recent.iter().filter_map(listed));
        Listing {
            inits: self.inits.iter().filter_map(listed).collect(),
            segments,
            parts: self.parts.recent.iter().filter_map(listed).collect(),
            preload_hints: self.hints.iter().filter_map(listed).collect(),
            ..Listing::default()
        }
    }
}

impl PlaylistResource<'_> {
    fn listed(&self, base: u64, variables: &Variables<'_>) -> Option<ListedResource> {
        let range = match self.bytes {
            ResourceBytes::All => None,
            ResourceBytes::Range(start, length) => Some((start, length)),
            ResourceBytes::Unknown => return None,
        };
        Some(ListedResource {
            position: base.checked_add(self.index)?,
            representation: 0,
            uri: variables.fill(self.uri)?,
            range,
        })
    }
}

impl ResourceBytes {
    fn of(offset: Option<u64>, range: ByteRange) -> ResourceBytes {
        offset.map_or(ResourceBytes::Unknown, |offset| {
            ResourceBytes::Range(offset, Some(range.length))
        })
    }
}

fn keep_last<T>(kept: &mut VecDeque<T>, max: usize, new: T) {
    if kept.len() == max {
        kept.pop_front();
    }
    kept.push_back(new);
}
