//! Compares a version of a live manifest with the latest one that viewers have seen. Redundant
//! origins and packagers differ, lag and restart; viewers must never see a stream go backwards.
//!
//! # Decision table
//!
//! `held` is the latest version that viewers have seen, `arrived` the one to be judged. The first
//! row that matches decides; each row is a variant of `Situation`.
//!
//! A playlist reaches as far as its last complete segment and the parts after it, an MPD as far as
//! the end of its last segment on the media timeline. "Not dated later": both versions have a
//! clock, and the last segment of `arrived` ends no later by it.
//!
//! | arrived, compared with held | decision | reason |
//! |---|---|---|
//! | **any format** | | |
//! | nothing is held | onward | it is the first version |
//! | is of the other format | restarted | nothing of the two can be compared |
//! | **DASH** | | |
//! | starts earlier and was published earlier | behind | a packager that has died |
//! | starts at another time | restarted | a new timeline |
//! | was published earlier | behind | an older version |
//! | **any format** | | |
//! | lists no segments, held does; has not ended | behind | the packager has lost its input |
//! | one of the two lists no segments | onward | it does not say how far it reaches |
//! | **HLS** | | |
//! | dates the same numbers over 30 s too late, no new discontinuity | restarted | the packager has reached the old numbers again |
//! | reaches further | onward | |
//! | reaches as far | same | |
//! | less far; a common segment has the same name, or names count alike | behind | the same stream, late |
//! | less far; not dated later | behind | a restart is never dated before what it follows |
//! | less far; more discontinuities | restarted | the packager marks its restart |
//! | less far; common segments have other names, which did not change before | restarted | other segments under the same numbers |
//! | less far; no common segment, ends over six segments before held begins | restarted | no origin lags by that much |
//! | less far otherwise | behind | the origin lags |
//! | **DASH** | | |
//! | its last period begins earlier | behind | an older version |
//! | reaches further | onward | |
//! | reaches as far | same | |
//! | less far; its last period begins later | onward | the previous period was cut short |
//! | less far by a segment at most; more representations, the longest not shorter | onward | a new representation ends a little before the others |
//! | less far otherwise | behind | the origin lags |
//!
//! New names alone are not a restart: many packagers sign them again for each version. A newer
//! `publishTime` proves nothing: many packagers write the time of the request there.
//!
//! The history of the manifest changes the decision in these situations, unless it is "same":
//!
//! | arrived | decision | reason |
//! |---|---|---|
//! | continues the generation before the last restart; the current one has stalled | restarted | a stream that continues is better than one that stalls |
//! | belongs to the generation before the last restart | behind | viewers have seen the restart |
//! | behind, and nothing else came for [`STALLED_PERIODS`] | restarted | the current generation is over, whatever the reason; if the clocks show a lag, only after the origin had time to catch up |
//! | onward, and the manifest was not polled for much longer than the new segments last; no clock and no discontinuity explains that | restarted | a restarted packager has passed the old end |

mod comparison;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use self::comparison::{CommonNames, VersionComparer, compare_names, times};
use seawall_manifest::{Liveness, ManifestInfo};

/// How a version relates to the latest known one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It continues the stream, or does not say how far it reaches.
    Onward,
    /// It reaches as far.
    Same,
    /// It is older than what viewers have seen and must not be served.
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
    DatedAnew,
    ReachesFurther,
    ReachesAsFar,
    SharesNames,
    DatedNoLater,
    NewDiscontinuity,
    OtherNames,
    EndsLongBefore,
    Lags,
    EarlierPeriod,
    PeriodCutShort,
    NewRepresentation,
    // Rows of the history.
    FormerContinues,
    Former,
    GenerationOver,
    PassedOldEnd,
}

impl Situation {
    /// The decision column.
    fn progress(self) -> Progress {
        match self {
            Situation::FirstVersion
            | Situation::NothingToCompare
            | Situation::ReachesFurther
            | Situation::PeriodCutShort
            | Situation::NewRepresentation => Progress::Onward,
            Situation::ReachesAsFar => Progress::Same,
            Situation::EarlierStream
            | Situation::PublishedEarlier
            | Situation::ListsNothing
            | Situation::SharesNames
            | Situation::DatedNoLater
            | Situation::Lags
            | Situation::EarlierPeriod
            | Situation::Former => Progress::Behind,
            Situation::OtherFormat
            | Situation::OtherStart
            | Situation::DatedAnew
            | Situation::NewDiscontinuity
            | Situation::OtherNames
            | Situation::EndsLongBefore
            | Situation::FormerContinues
            | Situation::GenerationOver
            | Situation::PassedOldEnd => Progress::Restarted,
        }
    }
}

/// A live manifest is stalled after this many update periods without a change.
pub const STALLED_PERIODS: u32 = 3;
/// How long the previous generation is remembered. Until then versions of it are rejected.
const FORMER_MEMORY: Duration = Duration::from_mins(10);
/// Maximum lag in segments that is considered.
const LAG_SEGMENTS_MAX: u64 = 1000;

/// How far a manifest has come, from all URLs and origins that serve it.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// The latest version that continued the stream.
    latest: Option<ManifestInfo>,
    /// The generation before the last restart.
    former: Option<FormerGeneration>,
    /// When `latest` arrived.
    last_change: Instant,
    /// When the origin last sent a version of this generation, old or new.
    last_response: Instant,
    comparer: VersionComparer,
}

/// A generation that ended with a restart.
#[derive(Clone, Debug)]
struct FormerGeneration {
    latest: ManifestInfo,
    ended: Instant,
}

impl Timeline {
    /// Begins with the first version. `period` is the longest expected time between changes.
    pub fn new(first: &ManifestInfo, period: Duration, now: Instant) -> Timeline {
        Timeline {
            latest: Some(first.clone()),
            former: None,
            last_change: now,
            last_response: now,
            comparer: VersionComparer {
                period,
                names_stay: false,
            },
        }
    }

    /// Compares a version with the latest one.
    pub fn judge(&self, arrived: &ManifestInfo, now: Instant) -> Progress {
        self.situation(arrived, now).progress()
    }

    /// The row of the decision table.
    fn situation(&self, arrived: &ManifestInfo, now: Instant) -> Situation {
        let Some(held) = &self.latest else {
            return Situation::FirstVersion;
        };
        let situation = self.comparer.compare(held, arrived);
        let progress = situation.progress();
        match self.compare_with_former(held, arrived, now) {
            _ if progress == Progress::Same => situation,
            Some(Progress::Onward) if self.stalled(now) => Situation::FormerContinues,
            Some(_) => Situation::Former,
            None if progress == Progress::Behind && self.is_over(held, arrived, now) => {
                Situation::GenerationOver
            }
            None if progress == Progress::Onward && self.has_passed_old_end(held, arrived, now) => {
                Situation::PassedOldEnd
            }
            None => situation,
        }
    }

    /// Records a version with the result of [`Timeline::judge`].
    pub fn record(&mut self, arrived: &ManifestInfo, progress: Progress, now: Instant) {
        self.record_response(now);
        match progress {
            Progress::Behind | Progress::Same => return,
            Progress::Onward => self.continue_with(arrived),
            Progress::Restarted => {
                let ended = self.latest.replace(arrived.clone());
                self.former = ended.map(|latest| FormerGeneration { latest, ended: now });
            }
        }
        self.last_change = now;
    }

    fn continue_with(&mut self, arrived: &ManifestInfo) {
        let Some(held) = &self.latest else {
            self.latest = Some(arrived.clone());
            return;
        };
        let edges = held.playlist_edge().zip(arrived.playlist_edge());
        if let Some(names) = edges.and_then(|(held, arrived)| compare_names(held, arrived)) {
            self.comparer.names_stay = names == CommonNames::Same;
        }
        self.latest = Some(completed(arrived, held));
    }

    /// Records that the origin still serves this generation.
    pub fn record_response(&mut self, now: Instant) {
        self.last_response = self.last_response.max(now);
    }

    /// Whether there is a version to compare the next one with.
    pub fn has_version(&self) -> bool {
        self.latest.is_some()
    }

    /// Drops the history. The next version counts as the first.
    pub fn forget(&mut self) {
        (self.latest, self.former) = (None, None);
    }

    /// Sets the expected time between changes.
    pub fn set_period(&mut self, period: Duration) {
        self.comparer.period = period;
    }

    /// Whether the next change is overdue by more than half a period.
    pub fn late(&self, now: Instant) -> bool {
        self.lists_segments() && self.unchanged_for(now) > self.comparer.period * 3 / 2
    }

    /// Whether the manifest has stalled; see [`STALLED_PERIODS`].
    pub fn stalled(&self, now: Instant) -> bool {
        self.lists_segments() && self.unchanged_for(now) > self.comparer.period * STALLED_PERIODS
    }

    fn lists_segments(&self) -> bool {
        self.latest.as_ref().is_some_and(ManifestInfo::has_edge)
    }

    fn unchanged_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_change)
    }

    /// The media sequence number of the last segment (HLS).
    pub fn last_sequence(&self) -> Option<u64> {
        let edge = self.latest.as_ref()?.playlist_edge()?;
        Some(edge.last_sequence)
    }

    /// Whether the packager has restarted and has not yet passed the end of the previous
    /// generation. Until then, old segments at the origin may have the names of future ones.
    pub fn is_short_of_former(&self) -> bool {
        let Some(former) = &self.former else {
            return false;
        };
        let ends = self.latest.as_ref().and_then(end).zip(end(&former.latest));
        ends.is_none_or(|(latest, former)| latest <= former)
    }

    /// Compares a version with the previous generation. `None` if it does not belong to that one.
    fn compare_with_former(
        &self,
        held: &ManifestInfo,
        arrived: &ManifestInfo,
        now: Instant,
    ) -> Option<Progress> {
        let former = self.former.as_ref()?;
        let is_remembered = now.saturating_duration_since(former.ended) < FORMER_MEMORY;
        let progress = self.comparer.compare(&former.latest, arrived).progress();
        let belongs = is_remembered
            && progress != Progress::Restarted
            && !is_nearer(arrived, held, &former.latest);
        belongs.then_some(progress)
    }

    /// Whether this generation is over, given that only versions behind it, like this one, have
    /// come for a long time. An origin whose clock shows a lag gets the time to catch up.
    fn is_over(&self, held: &ManifestInfo, arrived: &ManifestInfo, now: Instant) -> bool {
        self.stalled(now)
            && self
                .catch_up_time(held, arrived)
                .is_none_or(|catch_up_time| self.unchanged_for(now) > catch_up_time)
    }

    /// The time that an origin gets to catch up; `None` if its clock does not show a lag.
    fn catch_up_time(&self, held: &ManifestInfo, arrived: &ManifestInfo) -> Option<Duration> {
        if arrived.end_time()? >= held.end_time()? {
            return None;
        }
        let segment = self.comparer.period.max(segment_max(arrived));
        let lag_max = times(segment, LAG_SEGMENTS_MAX);
        let lag = advance(arrived, held, segment)?.min(lag_max);
        Some(lag.saturating_add(segment * STALLED_PERIODS))
    }

    /// Whether a version just past the known end is a restart: the manifest was not polled for so
    /// long that the packager must have stalled or restarted. If it only stalled, the cost is some
    /// repeated fetches.
    fn has_passed_old_end(
        &self,
        held: &ManifestInfo,
        arrived: &ManifestInfo,
        now: Instant,
    ) -> bool {
        if arrived.liveness() == Liveness::Ended || explains_silence(held, arrived) {
            return false;
        }
        let segment = segment_max(arrived).max(segment_max(held));
        let segment = self.comparer.period.max(segment);
        let Some(new) = advance(held, arrived, segment) else {
            return false;
        };
        // Segments may be a little longer than declared.
        let new = match arrived {
            ManifestInfo::Hls(_) => new.saturating_mul(5) / 4,
            ManifestInfo::Dash(_) => new,
        };
        let silence = now.saturating_duration_since(self.last_response);
        !segment.is_zero() && silence > new.saturating_add(segment * (STALLED_PERIODS + 1))
    }
}

/// Whether a clock or a new discontinuity explains that a manifest did not grow while it was not
/// polled.
fn explains_silence(held: &ManifestInfo, arrived: &ManifestInfo) -> bool {
    match (held, arrived) {
        (ManifestInfo::Hls(held), ManifestInfo::Hls(arrived)) => {
            let edges = held.edge.as_ref().zip(arrived.edge.as_ref());
            edges.is_some_and(|(held, arrived)| {
                held.end_time.is_some() && arrived.end_time.is_some()
                    || arrived.discontinuity_sequence > held.discontinuity_sequence
            })
        }
        // All times count from the start of the stream, so the timeline itself is dated.
        (ManifestInfo::Dash(held), ManifestInfo::Dash(arrived)) => {
            held.availability_start.is_some() && arrived.availability_start.is_some()
        }
        _ => false,
    }
}

/// The maximum segment duration; zero if unknown.
fn segment_max(info: &ManifestInfo) -> Duration {
    info.segment_duration_max().unwrap_or_default()
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
fn advance(earlier: &ManifestInfo, later: &ManifestInfo, segment: Duration) -> Option<Duration> {
    let advance = end(later)?.saturating_sub(end(earlier)?);
    Some(match later {
        ManifestInfo::Hls(_) => times(segment, advance),
        ManifestInfo::Dash(_) => Duration::from_millis(advance),
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

/// Whether a version is nearer to the latest one of this generation than to that of the former.
fn is_nearer(arrived: &ManifestInfo, latest: &ManifestInfo, former: &ManifestInfo) -> bool {
    match (arrived, latest, former) {
        (ManifestInfo::Dash(arrived), ManifestInfo::Dash(latest), ManifestInfo::Dash(former))
            if latest.availability_start != former.availability_start =>
        {
            latest.availability_start == arrived.availability_start
        }
        (ManifestInfo::Hls(arrived), ManifestInfo::Hls(latest), ManifestInfo::Hls(former)) => {
            let (Some(arrived), Some(latest), Some(former)) =
                (&arrived.edge, &latest.edge, &former.edge)
            else {
                return false;
            };
            let end = arrived.last_sequence;
            compare_names(latest, arrived) == Some(CommonNames::Same)
                || end.abs_diff(latest.last_sequence) < end.abs_diff(former.last_sequence)
        }
        (ManifestInfo::Dash(arrived), ManifestInfo::Dash(latest), ManifestInfo::Dash(former)) => {
            let (Some(arrived), Some(latest), Some(former)) =
                (&arrived.edge, &latest.edge, &former.edge)
            else {
                return false;
            };
            let end = arrived.end_ms;
            // This generation began within the former one's window: it is the same stream, from an
            // origin that lags. Whatever reaches further continues it.
            let has_lagged = (former.start_ms..=former.end_ms).contains(&latest.end_ms);
            has_lagged && end > latest.end_ms
                || end.abs_diff(latest.end_ms) < end.abs_diff(former.end_ms)
        }
        _ => false,
    }
}
