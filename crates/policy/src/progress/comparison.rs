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
    /// The longest expected time between two versions.
    pub(super) period: Duration,
    /// The last two versions use the same names for the segments that both list.
    pub(super) names_stay: bool,
}

impl VersionComparer {
    /// The row of the decision table for a version that arrived while another one is held.
    pub(super) fn compare(self, held: &ManifestInfo, arrived: &ManifestInfo) -> Situation {
        match (held, arrived) {
            (ManifestInfo::Hls(held), ManifestInfo::Hls(arrived)) => {
                self.compare_playlists(held, arrived)
            }
            (ManifestInfo::Dash(held), ManifestInfo::Dash(arrived)) => {
                self.compare_mpds(held, arrived)
            }
            _ => Situation::OtherFormat,
        }
    }

    fn compare_playlists(self, held: &PlaylistInfo, arrived: &PlaylistInfo) -> Situation {
        let (held_edge, edge) = match (&held.edge, &arrived.edge) {
            (Some(held_edge), Some(edge)) => (held_edge, edge),
            edges => return without_segments(edges.0.is_some(), arrived.liveness),
        };
        let segment_max = held
            .segment_duration_max()
            .max(arrived.segment_duration_max());
        let segment_max = self.period.max(segment_max.unwrap_or_default());
        if is_dated_anew(held_edge, edge, segment_max) {
            return Situation::DatedAnew;
        }
        match end(edge).cmp(&end(held_edge)) {
            Ordering::Greater => Situation::ReachesFurther,
            Ordering::Equal => Situation::ReachesAsFar,
            Ordering::Less => self.compare_with_longer_playlist(held_edge, edge),
        }
    }

    /// The arrived playlist ends before the held one: it lags, or its packager has restarted.
    fn compare_with_longer_playlist(
        self,
        held: &PlaylistEdge,
        arrived: &PlaylistEdge,
    ) -> Situation {
        let names = compare_names(held, arrived);
        let dates = held.end_time.zip(arrived.end_time);
        if names == Some(CommonNames::Same) {
            Situation::SharesNames
        } else if dates.is_some_and(|(held, arrived)| arrived <= held) {
            Situation::DatedNoLater
        } else if arrived.discontinuity_sequence > held.discontinuity_sequence {
            Situation::NewDiscontinuity
        } else if names == Some(CommonNames::Different) && self.names_stay {
            Situation::OtherNames
        } else if names.is_none() && ends_long_before(held, arrived) {
            Situation::EndsLongBefore
        } else {
            Situation::Lags
        }
    }

    fn compare_mpds(self, held: &MpdInfo, arrived: &MpdInfo) -> Situation {
        let starts = held.availability_start.zip(arrived.availability_start);
        let publish_times = held.publish_time.zip(arrived.publish_time);
        let is_published_earlier = publish_times.is_some_and(|(held, arrived)| arrived < held);
        match starts.map(|(held, arrived)| arrived.cmp(&held)) {
            Some(Ordering::Less) if is_published_earlier => return Situation::EarlierStream,
            Some(Ordering::Less | Ordering::Greater) => return Situation::OtherStart,
            Some(Ordering::Equal) | None => {}
        }
        if is_published_earlier {
            return Situation::PublishedEarlier;
        }
        match (&held.edge, &arrived.edge) {
            (Some(held), Some(arrived)) => self.compare_timelines(held, arrived),
            edges => without_segments(edges.0.is_some(), arrived.liveness),
        }
    }

    fn compare_timelines(self, held: &MpdEdge, arrived: &MpdEdge) -> Situation {
        // Redundant packagers do not begin periods at exactly the same time.
        let segment_ms = u64::try_from(self.period.as_millis()).unwrap_or(u64::MAX);
        let is_after =
            |start_ms: u64, other_ms: u64| start_ms.saturating_sub(other_ms) > segment_ms;
        if is_after(held.last_period_start_ms, arrived.last_period_start_ms) {
            return Situation::EarlierPeriod;
        }
        match arrived.end_ms.cmp(&held.end_ms) {
            Ordering::Greater => Situation::ReachesFurther,
            Ordering::Equal => Situation::ReachesAsFar,
            Ordering::Less if is_after(arrived.last_period_start_ms, held.last_period_start_ms) => {
                Situation::PeriodCutShort
            }
            Ordering::Less
                if arrived.representations > held.representations
                    && arrived.longest_end_ms >= held.longest_end_ms
                    && held.end_ms - arrived.end_ms <= segment_ms =>
            {
                Situation::NewRepresentation
            }
            Ordering::Less => Situation::Lags,
        }
    }
}

/// One of the two versions, or both, list no segments.
fn without_segments(held_lists_segments: bool, arrived: Liveness) -> Situation {
    if held_lists_segments && arrived == Liveness::Live {
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
fn is_dated_anew(held: &PlaylistEdge, arrived: &PlaylistEdge, segment_max: Duration) -> bool {
    let (Some(held_end), Some(end)) = (held.end_time, arrived.end_time) else {
        return false;
    };
    let share_numbers = arrived.media_sequence <= held.last_sequence
        && held.media_sequence <= arrived.last_sequence;
    // A lagging origin also ends earlier by the clock, whatever its segment duration.
    share_numbers
        && end > held_end
        && arrived.discontinuity_sequence <= held.discontinuity_sequence
        && latest_end(held, held_end, arrived, segment_max)
            .and_then(|latest| latest.checked_add(CLOCK_DIFFERENCE_MAX))
            .is_some_and(|latest| end > latest)
}

/// When the arrived version ends at the latest if the packager of the held one made it.
fn latest_end(
    held: &PlaylistEdge,
    held_end: SystemTime,
    arrived: &PlaylistEdge,
    segment_max: Duration,
) -> Option<SystemTime> {
    let segments = arrived.last_sequence.abs_diff(held.last_sequence);
    let distance = times(segment_max, segments);
    if arrived.last_sequence < held.last_sequence {
        held_end.checked_sub(distance)
    } else {
        held_end.checked_add(distance)
    }
}

/// Whether the arrived version ends so long before the held one begins that no origin lags by that
/// much.
fn ends_long_before(held: &PlaylistEdge, arrived: &PlaylistEdge) -> bool {
    arrived.last_sequence.saturating_add(LAG_SEGMENTS) < held.media_sequence
}

/// The duration of this many segments.
pub(super) fn times(segment: Duration, count: u64) -> Duration {
    segment.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
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
pub(super) fn compare_names(held: &PlaylistEdge, arrived: &PlaylistEdge) -> Option<CommonNames> {
    let last = held.last_sequence.min(arrived.last_sequence);
    let mut common = (0..)
        .map_while(|back| last.checked_sub(back))
        .map_while(|sequence| name(held, sequence).zip(name(arrived, sequence)))
        .peekable();
    common.peek()?;
    let offsets = held.name_number_offset.zip(arrived.name_number_offset);
    let count_alike = offsets.is_some_and(|(held, arrived)| held == arrived);
    let is_same = count_alike || common.any(|(held, arrived)| held == arrived);
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
