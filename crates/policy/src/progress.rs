//! Compares a version of a live manifest with the latest one that viewers have seen. Redundant
//! origins and packagers differ, lag and restart; viewers must never see a stream go backwards.
//!
//! # Decision table
//!
//! `seen` is the latest version that viewers have seen, `arrived` the one that is compared with
//! it. The first row that matches decides; each row is a variant of `Situation`.
//!
//! A playlist reaches as far as its last complete segment and the parts after it, an MPD as far as
//! the end of its last segment on the media timeline. "Not dated later": both versions have a
//! clock, and the last segment of `arrived` ends no later by it.
//!
//! | arrived, compared with `seen` | decision | reason |
//! |---|---|---|
//! | **any format** | | |
//! | nothing was seen before | newer | it is the first version |
//! | is of the other format | restarted | nothing of the two can be compared |
//! | **DASH** | | |
//! | starts earlier and was published earlier | behind | a packager that has died |
//! | starts at another time | restarted | a new timeline |
//! | was published earlier | behind | an older version |
//! | **any format** | | |
//! | lists no segments, `seen` does; has not ended | behind | the packager has lost its input |
//! | one of the two lists no segments | newer | it does not say how far it reaches |
//! | **HLS** | | |
//! | dates the same numbers over 30 s too late, no new discontinuity | restarted | the packager has reached the old numbers again |
//! | reaches further | newer | |
//! | reaches as far | same | |
//! | less far; a common segment has the same name, or names count alike | behind | the same stream, late |
//! | less far; not dated later | behind | a restart is never dated before what it follows |
//! | less far; more discontinuities | restarted | the packager marks its restart |
//! | less far; common segments have other names, which did not change before | restarted | other segments under the same numbers |
//! | less far; no common segment, ends over six segments before `seen` begins | restarted | no origin lags by that much |
//! | less far otherwise | behind | the origin lags |
//! | **DASH** | | |
//! | its last period begins earlier | behind | an older version |
//! | reaches further | newer | |
//! | reaches as far | same | |
//! | less far; its last period begins later | newer | the previous period was cut short |
//! | less far by a segment at most; more representations, the longest not shorter | newer | a new representation ends a little before the others |
//! | less far otherwise | behind | the origin lags |
//!
//! New names alone are not a restart: many packagers sign them again for each version. A newer
//! `publishTime` proves nothing: many packagers write the time of the request there.
//!
//! The history of the manifest changes the decision in these situations, unless it is "same":
//!
//! | arrived | decision | reason |
//! |---|---|---|
//! | continues the timeline before the last restart; the current one has stalled | restarted | a stream that continues is better than one that stalls |
//! | belongs to the timeline before the last restart | behind | viewers have seen the restart |
//! | behind, and nothing else came for [`STALLED_INTERVALS`] | restarted | the current timeline is over, whatever the reason; if the clocks show a lag, only after the origin had time to catch up |
//! | newer, and the manifest was not polled for much longer than the new segments last; no clock and no discontinuity explains that | restarted | a restarted packager has passed the old end |
//!
//! `previous` says to which of the two timelines a version belongs.

mod comparison;
mod previous;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use self::comparison::{CommonNames, VersionComparer, compare_names, times};
use self::previous::PreviousTimeline;
use seawall_manifest::{Liveness, ManifestInfo};

/// How a version relates to the latest known one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It continues the stream: it is the first one, reaches further, or does not say how far it
    /// reaches.
    Newer,
    /// It reaches as far.
    Same,
    /// It is older than what viewers have seen: it is not stored, and served only where nothing
    /// newer is stored.
    Behind,
    /// The packager began a new timeline: objects stored under the old numbers are other content.
    Restarted,
}

/// A row of the decision table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Situation {
    FirstVersion,
    OtherFormat,
    EarlierStream,
    OtherStart,
    PublishedEarlier,
    ListsNothing,
    NothingToCompare,
    DatedTooLate,
    ReachesFurther,
    ReachesAsFar,
    SameNames,
    DatedNoLater,
    NewDiscontinuity,
    OtherNames,
    EndsLongBefore,
    Lags,
    EarlierPeriod,
    PeriodCutShort,
    NewRepresentation,
    // Rows of the history.
    PreviousContinues,
    OfPrevious,
    TimelineOver,
    PassedOldEnd,
}

impl Situation {
    /// Whether the version is an older one of the same stream, as far as that can be told.
    fn is_lag(self) -> bool {
        matches!(
            self,
            Situation::PublishedEarlier
                | Situation::SameNames
                | Situation::DatedNoLater
                | Situation::Lags
                | Situation::EarlierPeriod
        )
    }

    /// The decision column.
    fn progress(self) -> Progress {
        match self {
            Situation::FirstVersion
            | Situation::NothingToCompare
            | Situation::ReachesFurther
            | Situation::PeriodCutShort
            | Situation::NewRepresentation => Progress::Newer,
            Situation::ReachesAsFar => Progress::Same,
            Situation::EarlierStream
            | Situation::PublishedEarlier
            | Situation::ListsNothing
            | Situation::SameNames
            | Situation::DatedNoLater
            | Situation::Lags
            | Situation::EarlierPeriod
            | Situation::OfPrevious => Progress::Behind,
            Situation::OtherFormat
            | Situation::OtherStart
            | Situation::DatedTooLate
            | Situation::NewDiscontinuity
            | Situation::OtherNames
            | Situation::EndsLongBefore
            | Situation::PreviousContinues
            | Situation::TimelineOver
            | Situation::PassedOldEnd => Progress::Restarted,
        }
    }
}

/// A live manifest is stalled after this many reload intervals without a change.
pub const STALLED_INTERVALS: u32 = 3;
/// Maximum lag in segments that is considered.
const LAG_SEGMENTS_MAX: u64 = 1000;

/// The history of a manifest: its latest version and the timeline before the last restart, whatever
/// origin sent them.
#[derive(Clone, Debug)]
pub struct ManifestHistory {
    /// The latest version that continued the stream.
    latest: Option<ManifestInfo>,
    /// The timeline before the last restart.
    previous: Option<PreviousTimeline>,
    /// `latest` has been the newest version since then, as far as known.
    current_since: Instant,
    /// When the origin last sent a version of this timeline, old or new.
    last_response: Instant,
    comparer: VersionComparer,
}

impl ManifestHistory {
    /// Begins with the first version. `reload_interval_max` is the longest expected time between
    /// two versions.
    pub fn new(
        first: &ManifestInfo,
        reload_interval_max: Duration,
        now: Instant,
    ) -> ManifestHistory {
        ManifestHistory {
            latest: Some(first.clone()),
            previous: None,
            current_since: now,
            last_response: now,
            comparer: VersionComparer {
                reload_interval_max,
                names_stay: false,
            },
        }
    }

    /// Compares a version with the latest one.
    pub fn progress_of(&self, arrived: &ManifestInfo, now: Instant) -> Progress {
        self.situation(arrived, now).progress()
    }

    /// The row of the decision table.
    fn situation(&self, arrived: &ManifestInfo, now: Instant) -> Situation {
        let Some(seen) = &self.latest else {
            return Situation::FirstVersion;
        };
        let situation = self.comparer.compare(seen, arrived);
        let progress = situation.progress();
        if progress == Progress::Same {
            return situation;
        }
        match self.compare_with_previous(seen, arrived, now) {
            Some(Progress::Newer) if self.is_stalled(now) => return Situation::PreviousContinues,
            Some(_) => return Situation::OfPrevious,
            None => {}
        }
        if progress == Progress::Behind && self.is_over(seen, arrived, now) {
            Situation::TimelineOver
        } else if progress == Progress::Newer && self.has_passed_old_end(seen, arrived, now) {
            Situation::PassedOldEnd
        } else {
            situation
        }
    }

    /// Records a version with the result of [`ManifestHistory::progress_of`].
    pub fn record(&mut self, arrived: &ManifestInfo, progress: Progress, now: Instant) {
        self.record_response(now);
        match progress {
            Progress::Behind | Progress::Same => return,
            Progress::Newer => self.continue_with(arrived),
            Progress::Restarted => {
                let ended = self.latest.replace(arrived.clone());
                self.previous = ended.map(|latest| PreviousTimeline {
                    may_be_same_stream: self.comparer.compare(&latest, arrived).is_lag(),
                    latest,
                    ended: now,
                });
            }
        }
        self.current_since = now;
    }

    fn continue_with(&mut self, arrived: &ManifestInfo) {
        let Some(seen) = &self.latest else {
            self.latest = Some(arrived.clone());
            return;
        };
        let edges = seen.playlist_edge().zip(arrived.playlist_edge());
        if let Some(names) = edges.and_then(|(seen, arrived)| compare_names(seen, arrived)) {
            self.comparer.names_stay = names == CommonNames::Same;
        }
        self.latest = Some(completed(arrived, seen));
    }

    /// Records that the origin still serves this timeline.
    pub fn record_response(&mut self, now: Instant) {
        self.last_response = self.last_response.max(now);
    }

    /// Whether there is a version to compare the next one with.
    pub fn has_version(&self) -> bool {
        self.latest.is_some()
    }

    /// Drops the history. The next version counts as the first.
    pub fn forget(&mut self) {
        (self.latest, self.previous) = (None, None);
    }

    /// Sets the longest expected time between two versions.
    pub fn set_reload_interval_max(&mut self, reload_interval_max: Duration) {
        self.comparer.reload_interval_max = reload_interval_max;
    }

    /// Whether the next change is overdue by more than half a reload interval.
    pub fn is_late(&self, now: Instant) -> bool {
        self.lists_segments() && self.unchanged_for(now) > self.comparer.reload_interval_max * 3 / 2
    }

    /// Whether the manifest has stalled; see [`STALLED_INTERVALS`].
    pub fn is_stalled(&self, now: Instant) -> bool {
        self.lists_segments()
            && self.unchanged_for(now) > self.comparer.reload_interval_max * STALLED_INTERVALS
    }

    fn lists_segments(&self) -> bool {
        self.latest.as_ref().is_some_and(ManifestInfo::has_edge)
    }

    fn unchanged_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.current_since)
    }

    /// The media sequence number of the last segment (HLS).
    pub fn last_sequence(&self) -> Option<u64> {
        let edge = self.latest.as_ref()?.playlist_edge()?;
        Some(edge.last_sequence)
    }

    /// Whether the packager has restarted and has not yet passed the end of the previous
    /// timeline. Until then, old segments at the origin may have the names of future ones.
    pub fn is_before_previous_end(&self) -> bool {
        let Some(previous) = &self.previous else {
            return false;
        };
        let ends = self
            .latest
            .as_ref()
            .and_then(end)
            .zip(end(&previous.latest));
        ends.is_none_or(|(latest, previous)| latest <= previous)
    }

    /// Whether this timeline is over, given that only versions behind it, like this one, have
    /// come for a long time. An origin whose clock shows a lag gets the time to catch up.
    fn is_over(&self, seen: &ManifestInfo, arrived: &ManifestInfo, now: Instant) -> bool {
        self.is_stalled(now)
            && self
                .catch_up_time(seen, arrived)
                .is_none_or(|catch_up_time| self.unchanged_for(now) > catch_up_time)
    }

    /// The time that an origin gets to catch up; `None` if its clock does not show a lag.
    fn catch_up_time(&self, seen: &ManifestInfo, arrived: &ManifestInfo) -> Option<Duration> {
        if arrived.end_time()? >= seen.end_time()? {
            return None;
        }
        let segment_duration = self.comparer.segment_duration_max([arrived]);
        let lag_max = times(segment_duration, LAG_SEGMENTS_MAX);
        let lag = advance(arrived, seen, segment_duration)?.min(lag_max);
        Some(lag.saturating_add(segment_duration * STALLED_INTERVALS))
    }

    /// Whether a version just past the known end is a restart: the manifest was not polled for much
    /// longer than the new media last, so the packager must have stalled or restarted meanwhile. If
    /// it only stalled, the cost is some repeated fetches.
    fn has_passed_old_end(
        &self,
        seen: &ManifestInfo,
        arrived: &ManifestInfo,
        now: Instant,
    ) -> bool {
        if arrived.liveness() == Liveness::Ended || explains_silence(seen, arrived) {
            return false;
        }
        let segment_duration = self.comparer.segment_duration_max([seen, arrived]);
        let Some(added) = added_media_max(seen, arrived, segment_duration) else {
            return false;
        };
        let tolerance = segment_duration * (STALLED_INTERVALS + 1);
        let silence = now.saturating_duration_since(self.last_response);
        !segment_duration.is_zero() && silence > added.saturating_add(tolerance)
    }
}

/// Whether a clock or a new discontinuity explains that a manifest did not grow while it was not
/// polled.
fn explains_silence(seen: &ManifestInfo, arrived: &ManifestInfo) -> bool {
    match (seen, arrived) {
        (ManifestInfo::Hls(seen), ManifestInfo::Hls(arrived)) => {
            let edges = seen.edge.as_ref().zip(arrived.edge.as_ref());
            edges.is_some_and(|(seen, arrived)| {
                seen.end_time.is_some() && arrived.end_time.is_some()
                    || arrived.discontinuity_sequence > seen.discontinuity_sequence
            })
        }
        // All times count from the start of the stream, so the timeline itself is dated.
        (ManifestInfo::Dash(seen), ManifestInfo::Dash(arrived)) => {
            seen.availability_start.is_some() && arrived.availability_start.is_some()
        }
        _ => false,
    }
}

/// The end of the last segment: a media sequence number (HLS), or milliseconds (DASH).
fn end(info: &ManifestInfo) -> Option<u64> {
    match info {
        ManifestInfo::Hls(playlist) => Some(playlist.edge.as_ref()?.last_sequence),
        ManifestInfo::Dash(mpd) => Some(mpd.edge.as_ref()?.end_ms),
    }
}

/// By how much media `later` ends after `earlier`; zero if it does not. `None` if one of the two
/// does not say where it ends.
fn advance(
    earlier: &ManifestInfo,
    later: &ManifestInfo,
    segment_duration: Duration,
) -> Option<Duration> {
    let advance = end(later)?.saturating_sub(end(earlier)?);
    Some(match later {
        ManifestInfo::Hls(_) => times(segment_duration, advance),
        ManifestInfo::Dash(_) => Duration::from_millis(advance),
    })
}

/// The most media that `arrived` may have beyond the end of `seen`: in HLS, where segments are
/// counted, these may be a little longer than declared.
fn added_media_max(
    seen: &ManifestInfo,
    arrived: &ManifestInfo,
    segment_duration: Duration,
) -> Option<Duration> {
    let added = advance(seen, arrived, segment_duration)?;
    Some(match arrived {
        ManifestInfo::Hls(_) => added.saturating_mul(5) / 4,
        ManifestInfo::Dash(_) => added,
    })
}

/// A version with what it does not state and the version before it did: the discontinuities that a
/// delta update skips, and the edge if it lists no segments.
fn completed(arrived: &ManifestInfo, before: &ManifestInfo) -> ManifestInfo {
    let mut arrived = arrived.clone();
    match (&mut arrived, before) {
        (ManifestInfo::Hls(arrived), ManifestInfo::Hls(before)) => {
            if arrived.edge.is_none() {
                arrived.edge.clone_from(&before.edge);
            } else if let (Some(edge), Some(before)) = (&mut arrived.edge, &before.edge)
                && edge.skipped_segments > 0
            {
                let skipped = before.discontinuity_sequence;
                edge.discontinuity_sequence = edge.discontinuity_sequence.max(skipped);
            }
        }
        (ManifestInfo::Dash(arrived), ManifestInfo::Dash(before)) if arrived.edge.is_none() => {
            arrived.edge.clone_from(&before.edge);
        }
        _ => {}
    }
    arrived
}
