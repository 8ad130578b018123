//! Decides whether a version belongs to the timeline before the last restart.
//!
//! Often nothing but the numbers tells the two timelines apart. A version belongs to the current
//! one
//!
//! - if its names or its start are those of the current one, or it ends nearer to that;
//! - if it reaches further than the seen version, by no more than the time since then explains;
//! - if the seen version only seemed to lag when it was accepted, so that both timelines may be
//!   one stream, and this version reaches beyond both.

use std::time::{Duration, Instant};

use super::comparison::{CommonNames, compare_names};
use super::{ManifestHistory, Progress, Situation, advance};
use seawall_manifest::{ManifestInfo, MpdInfo, PlaylistEdge, PlaylistInfo};

/// How long the timeline before a restart is remembered. Until then versions of it are rejected.
const REMEMBERED_FOR: Duration = Duration::from_mins(10);

/// The last version of a timeline that ended with a restart.
#[derive(Clone, Debug)]
pub(super) struct PreviousTimeline {
    pub(super) latest: ManifestInfo,
    pub(super) ended: Instant,
    /// The version after it seemed to lag behind it, and was accepted because nothing newer came.
    /// Both timelines may be one stream, from two origins.
    pub(super) may_be_same_stream: bool,
}

impl ManifestHistory {
    /// Compares a version with the previous timeline. `None` if it does not belong to that one.
    pub(super) fn compare_with_previous(
        &self,
        seen: &ManifestInfo,
        arrived: &ManifestInfo,
        now: Instant,
    ) -> Option<Progress> {
        let previous = self.previous.as_ref()?;
        if now.saturating_duration_since(previous.ended) >= REMEMBERED_FOR {
            return None;
        }
        let progress = self.comparer.compare(&previous.latest, arrived).progress();
        let continues_seen = is_nearer(arrived, seen, &previous.latest)
            || (previous.may_be_same_stream && progress == Progress::Newer)
            || (self.follows_in_time(seen, arrived, now)
                && !is_marked_as_previous(arrived, seen, &previous.latest));
        let belongs = progress != Progress::Restarted && !continues_seen;
        belongs.then_some(progress)
    }

    /// Whether a version reaches further than the seen one, by no more than the time since then
    /// explains. One segment more is allowed: versions are found some time after their publication.
    fn follows_in_time(&self, seen: &ManifestInfo, arrived: &ManifestInfo, now: Instant) -> bool {
        let segment_duration = self.comparer.segment_duration_max([arrived]);
        let explained = self.unchanged_for(now).saturating_add(segment_duration);
        let reaches_further = self.comparer.compare(seen, arrived) == Situation::ReachesFurther;
        reaches_further
            && advance(seen, arrived, segment_duration).is_some_and(|new| new <= explained)
    }
}

/// Whether a version is nearer to the latest one of this timeline than to that of the previous one.
fn is_nearer(arrived: &ManifestInfo, latest: &ManifestInfo, previous: &ManifestInfo) -> bool {
    match (arrived, latest, previous) {
        (ManifestInfo::Hls(arrived), ManifestInfo::Hls(latest), ManifestInfo::Hls(previous)) => {
            is_nearer_playlist(arrived, latest, previous)
        }
        (ManifestInfo::Dash(arrived), ManifestInfo::Dash(latest), ManifestInfo::Dash(previous)) => {
            is_nearer_mpd(arrived, latest, previous)
        }
        _ => false,
    }
}

/// Its segments have the names of this timeline, or it ends nearer to it.
fn is_nearer_playlist(
    arrived: &PlaylistInfo,
    latest: &PlaylistInfo,
    previous: &PlaylistInfo,
) -> bool {
    let (Some(arrived), Some(latest), Some(previous)) =
        (&arrived.edge, &latest.edge, &previous.edge)
    else {
        return false;
    };
    have_same_names(latest, arrived)
        || ends_nearer(
            arrived.last_sequence,
            (latest.last_sequence, previous.last_sequence),
        )
}

/// It starts when this timeline does; where both start at the same time, it ends nearer to it.
fn is_nearer_mpd(arrived: &MpdInfo, latest: &MpdInfo, previous: &MpdInfo) -> bool {
    if latest.availability_start != previous.availability_start {
        return arrived.availability_start == latest.availability_start;
    }
    let (Some(arrived), Some(latest), Some(previous)) =
        (&arrived.edge, &latest.edge, &previous.edge)
    else {
        return false;
    };
    ends_nearer(arrived.end_ms, (latest.end_ms, previous.end_ms))
}

/// Whether `end` is nearer to the end of the latest version than to that of the previous timeline.
fn ends_nearer(end: u64, (latest, previous): (u64, u64)) -> bool {
    end.abs_diff(latest) < end.abs_diff(previous)
}

fn have_same_names(one: &PlaylistEdge, other: &PlaylistEdge) -> bool {
    compare_names(one, other) == Some(CommonNames::Same)
}

/// Whether its dates, its discontinuities or its names mark a playlist as one of the previous
/// timeline, although it reaches further than the latest version of this one.
fn is_marked_as_previous(
    arrived: &ManifestInfo,
    latest: &ManifestInfo,
    previous: &ManifestInfo,
) -> bool {
    let edges = latest.playlist_edge().zip(arrived.playlist_edge());
    edges.is_some_and(|(latest, arrived)| {
        let dates = latest.end_time.zip(arrived.end_time);
        let is_dated_earlier = dates.is_some_and(|(latest, arrived)| arrived < latest);
        // A delta update does not state the discontinuities that it skips.
        let lacks_discontinuity = arrived.skipped_segments == 0
            && arrived.discontinuity_sequence < latest.discontinuity_sequence;
        let has_its_names = |previous: &PlaylistEdge| have_same_names(previous, arrived);
        is_dated_earlier
            || lacks_discontinuity
            || previous.playlist_edge().is_some_and(has_its_names)
    })
}
