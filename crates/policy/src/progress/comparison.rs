//! Compares two versions of one manifest by what they say: the first two parts of the decision
//! table.

use std::cmp::Ordering;
use std::time::{Duration, SystemTime};

use super::Situation;
use seawall_manifest::{Liveness, ManifestInfo, MpdEdge, MpdInfo, PlaylistEdge, PlaylistInfo};

/// Upper bound of the clock difference between redundant packagers. If the same number is dated
/// later by more than this, it is another segment.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(30);
/// An origin may lag by this many segments more than a playlist lists; some list only three.
const LAG_SEGMENTS: u64 = 6;

/// Compares two versions of a manifest, with what is known from the versions before them.
#[derive(Clone, Copy, Debug)]
pub(super) struct VersionComparer {
    /// The longest time that may pass between two versions: the reload interval, or a segment
    /// duration where that is longer.
    pub(super) reload_interval_max: Duration,
    /// The last two versions use the same names for the segments that both list.
    pub(super) names_stay: bool,
}

impl VersionComparer {
    /// The longest duration that a segment of these versions may have.
    pub(super) fn segment_duration_max<const N: usize>(
        self,
        versions: [&ManifestInfo; N],
    ) -> Duration {
        let stated = versions.map(|version| version.segment_duration_max().unwrap_or_default());
        stated
            .into_iter()
            .fold(self.reload_interval_max, Duration::max)
    }

    /// The row of the decision table for a version that arrived after viewers saw another one.
    pub(super) fn compare(self, seen: &ManifestInfo, arrived: &ManifestInfo) -> Situation {
        match (seen, arrived) {
            (ManifestInfo::Hls(seen), ManifestInfo::Hls(arrived)) => {
                self.compare_playlists(seen, arrived)
            }
            (ManifestInfo::Dash(seen), ManifestInfo::Dash(arrived)) => {
                self.compare_mpds(seen, arrived)
            }
            _ => Situation::OtherFormat,
        }
    }

    fn compare_playlists(self, seen: &PlaylistInfo, arrived: &PlaylistInfo) -> Situation {
        let (seen_edge, edge) = match (&seen.edge, &arrived.edge) {
            (Some(seen_edge), Some(edge)) => (seen_edge, edge),
            edges => return without_segments(edges.0.is_some(), arrived.liveness),
        };
        let stated_max = seen
            .segment_duration_max()
            .max(arrived.segment_duration_max());
        let segment_duration_max = self.reload_interval_max.max(stated_max.unwrap_or_default());
        if is_dated_too_late(seen_edge, edge, segment_duration_max) {
            return Situation::DatedTooLate;
        }
        match end(edge).cmp(&end(seen_edge)) {
            Ordering::Greater => Situation::ReachesFurther,
            Ordering::Equal => Situation::ReachesAsFar,
            Ordering::Less => self.compare_with_longer_playlist(seen_edge, edge),
        }
    }

    /// The arrived playlist ends before the seen one: it lags, or its packager has restarted.
    fn compare_with_longer_playlist(
        self,
        seen: &PlaylistEdge,
        arrived: &PlaylistEdge,
    ) -> Situation {
        let names = compare_names(seen, arrived);
        let dates = seen.end_time.zip(arrived.end_time);
        if names == Some(CommonNames::Same) {
            Situation::SameNames
        } else if dates.is_some_and(|(seen, arrived)| arrived <= seen) {
            Situation::DatedNoLater
        } else if arrived.discontinuity_sequence > seen.discontinuity_sequence {
            Situation::NewDiscontinuity
        } else if names == Some(CommonNames::Different) && self.names_stay {
            Situation::OtherNames
        } else if names.is_none() && ends_long_before(seen, arrived) {
            Situation::EndsLongBefore
        } else {
            Situation::Lags
        }
    }

    fn compare_mpds(self, seen: &MpdInfo, arrived: &MpdInfo) -> Situation {
        let starts = seen.availability_start.zip(arrived.availability_start);
        let publish_times = seen.publish_time.zip(arrived.publish_time);
        let is_published_earlier = publish_times.is_some_and(|(seen, arrived)| arrived < seen);
        match starts.map(|(seen, arrived)| arrived.cmp(&seen)) {
            Some(Ordering::Less) if is_published_earlier => return Situation::EarlierStream,
            Some(Ordering::Less | Ordering::Greater) => return Situation::OtherStart,
            Some(Ordering::Equal) | None => {}
        }
        if is_published_earlier {
            return Situation::PublishedEarlier;
        }
        match (&seen.edge, &arrived.edge) {
            (Some(seen), Some(arrived)) => self.compare_timelines(seen, arrived),
            edges => without_segments(edges.0.is_some(), arrived.liveness),
        }
    }

    fn compare_timelines(self, seen: &MpdEdge, arrived: &MpdEdge) -> Situation {
        // Redundant packagers do not begin periods at exactly the same time.
        let reload_interval_ms =
            u64::try_from(self.reload_interval_max.as_millis()).unwrap_or(u64::MAX);
        let is_after =
            |start_ms: u64, other_ms: u64| start_ms.saturating_sub(other_ms) > reload_interval_ms;
        if is_after(seen.last_period_start_ms, arrived.last_period_start_ms) {
            return Situation::EarlierPeriod;
        }
        match arrived.end_ms.cmp(&seen.end_ms) {
            Ordering::Greater => return Situation::ReachesFurther,
            Ordering::Equal => return Situation::ReachesAsFar,
            Ordering::Less => {}
        }
        let has_new_representation = arrived.representations > seen.representations
            && arrived.longest_end_ms >= seen.longest_end_ms
            && seen.end_ms - arrived.end_ms <= reload_interval_ms;
        if is_after(arrived.last_period_start_ms, seen.last_period_start_ms) {
            Situation::PeriodCutShort
        } else if has_new_representation {
            Situation::NewRepresentation
        } else {
            Situation::Lags
        }
    }
}

/// One of the two versions, or both, list no segments.
fn without_segments(seen_lists_segments: bool, arrived: Liveness) -> Situation {
    if seen_lists_segments && arrived == Liveness::Live {
        Situation::ListsNothing
    } else {
        Situation::NothingToCompare
    }
}

/// The last complete segment and the number of parts after it.
fn end(edge: &PlaylistEdge) -> (u64, u64) {
    (edge.last_sequence, edge.next_segment_parts)
}

/// Whether segments that both versions list are dated far apart, without a new discontinuity: the
/// packager restarted and has reached the same numbers again.
fn is_dated_too_late(
    seen: &PlaylistEdge,
    arrived: &PlaylistEdge,
    segment_duration_max: Duration,
) -> bool {
    let (Some(seen_end), Some(end)) = (seen.end_time, arrived.end_time) else {
        return false;
    };
    let share_numbers = arrived.media_sequence <= seen.last_sequence
        && seen.media_sequence <= arrived.last_sequence;
    // A lagging origin also ends earlier by the clock, whatever its segment duration.
    share_numbers
        && end > seen_end
        && arrived.discontinuity_sequence <= seen.discontinuity_sequence
        && latest_end(seen, seen_end, arrived, segment_duration_max)
            .and_then(|latest| latest.checked_add(CLOCK_DIFFERENCE_MAX))
            .is_some_and(|latest| end > latest)
}

/// When the arrived version ends at the latest if the packager of the seen one made it.
fn latest_end(
    seen: &PlaylistEdge,
    seen_end: SystemTime,
    arrived: &PlaylistEdge,
    segment_duration_max: Duration,
) -> Option<SystemTime> {
    let segments = arrived.last_sequence.abs_diff(seen.last_sequence);
    let distance = times(segment_duration_max, segments);
    if arrived.last_sequence < seen.last_sequence {
        seen_end.checked_sub(distance)
    } else {
        seen_end.checked_add(distance)
    }
}

/// Whether the arrived version ends further before the seen one begins than an origin lags.
fn ends_long_before(seen: &PlaylistEdge, arrived: &PlaylistEdge) -> bool {
    arrived.last_sequence.saturating_add(LAG_SEGMENTS) < seen.media_sequence
}

/// The duration of this many segments.
pub(super) fn times(segment_duration: Duration, count: u64) -> Duration {
    segment_duration.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}

/// How the names of the segments that two versions list compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommonNames {
    /// A segment has the same name in both, or the names count the segments alike.
    Same,
    /// All have different names.
    Different,
}

/// Compares the names of the segments that both versions list. Names that are signed again for each
/// version are compared by the numbers in them. `None`: no segment is in both.
pub(super) fn compare_names(seen: &PlaylistEdge, arrived: &PlaylistEdge) -> Option<CommonNames> {
    let last = seen.last_sequence.min(arrived.last_sequence);
    let mut common = (0..)
        .map_while(|back| last.checked_sub(back))
        .map_while(|sequence| name(seen, sequence).zip(name(arrived, sequence)))
        .peekable();
    common.peek()?;
    let offsets = seen.name_number_offset.zip(arrived.name_number_offset);
    let count_alike = offsets.is_some_and(|(seen, arrived)| seen == arrived);
    let is_same = count_alike || common.any(|(seen, arrived)| seen == arrived);
    Some(if is_same {
        CommonNames::Same
    } else {
        CommonNames::Different
    })
}

/// The fingerprint of a segment's name. The last segments have one.
fn name(edge: &PlaylistEdge, sequence: u64) -> Option<u64> {
    let back = usize::try_from(edge.last_sequence.checked_sub(sequence)?).ok()?;
    edge.name_fingerprints.iter().rev().nth(back).copied()
}
