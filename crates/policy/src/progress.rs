//! Compares a version of a live manifest with the latest one that viewers have seen. Redundant
//! origins and packagers differ, lag and restart; viewers must never see a stream go backwards.
//!
//! The first row that matches decides. "Reach" is the end of the last segment listed.
//!
//! | both versions have | the new version | result |
//! |---|---|---|
//! | a start of the stream (DASH) | starts earlier, with an earlier `publishTime` | behind: a dead packager |
//! | | starts at another time otherwise | restarted |
//! | `publishTime` (DASH) | an earlier one | behind |
//! | segments in the old one | lists none and has not ended | behind |
//! | segments with the same numbers (HLS) | dates them over 30 s too late, no new discontinuity | restarted |
//! | segments (HLS) | reaches further | onward |
//! | | reaches as far | same |
//! | | less far, but shares names with the old one | behind |
//! | | less far, more discontinuities, a later clock or none | restarted |
//! | | less far, no shared number keeps its usual name, a later clock or none | restarted |
//! | | ends over six segments before the old one begins, a later clock or none | restarted |
//! | | less far otherwise | behind: an origin that lags or has died |
//! | times (DASH) | its last period begins earlier | behind |
//! | | reaches further, as far | onward, same |
//! | | less far, its last period begins later | onward: the previous period was cut short |
//! | | less far by a segment at most, more representations, the longest of them not shorter | onward |
//! | | less far otherwise | behind |
//!
//! New names alone are not a restart: many packagers sign them again for each version. A newer
//! `publishTime` proves nothing: many packagers write the time of the request there.
//!
//! There are two exceptions. "Onward" becomes a restart if the manifest was not polled for much
//! longer than the new segments last, and no clock and no discontinuity explains that: a restarted
//! packager has reached the old numbers again. "Behind" becomes a restart if nothing else came for
//! [`STALLED_PERIODS`]; if the clocks show a lag, only after the origin had time to catch up.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::time::{Duration, Instant, SystemTime};

use seawall_manifest::{LiveEdge, Liveness, ManifestInfo};

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

/// A live manifest is stalled after this many update periods without a change.
pub const STALLED_PERIODS: u32 = 3;
/// How long the previous generation is remembered. Until then versions of it are rejected.
const FORMER_MEMORY: Duration = Duration::from_mins(10);
/// Upper bound of the clock difference between redundant packagers. If the same number is dated
/// later by more than this, it is another segment.
const LEAP: Duration = Duration::from_secs(30);
/// An origin may lag by this many segments more than a playlist lists; some list only three.
const LAG_LIKELY: u64 = 6;
/// Maximum lag in segments that is considered.
const LAG_MAX: u64 = 1000;

/// How far a manifest has come, from all URLs and origins that serve it.
#[derive(Clone, Debug)]
pub struct Timeline {
    latest: TimelineMark,
    /// The previous generation, and when it ended.
    former: Option<(TimelineMark, Instant)>,
    /// When the latest version arrived that continued the stream.
    moved: Instant,
    /// When the origin last sent a version of this generation, old or new.
    heard: Instant,
    period: Duration,
    /// The last two versions use the same names for the segments that both list.
    names_stay: bool,
}

/// The properties of a version that are compared.
#[derive(Clone, Debug, Default)]
struct TimelineMark {
    edge: Option<LiveEdge>,
    published: Option<SystemTime>,
    began: Option<SystemTime>,
    ended: bool,
    /// Maximum segment duration.
    segment: Duration,
}

impl TimelineMark {
    fn of(facts: &ManifestInfo) -> TimelineMark {
        TimelineMark {
            edge: facts.edge.clone(),
            published: facts.published,
            began: facts.began,
            ended: facts.liveness == Liveness::Ended,
            segment: facts.segment_max().unwrap_or_default(),
        }
    }
}

impl Timeline {
    /// Begins with the first version. `period` is the longest expected time between changes.
    pub fn new(facts: &ManifestInfo, period: Duration, now: Instant) -> Timeline {
        Timeline {
            latest: TimelineMark::of(facts),
            former: None,
            moved: now,
            heard: now,
            period,
            names_stay: false,
        }
    }

    /// Compares a version with the latest one.
    pub fn judge(&self, facts: &ManifestInfo, now: Instant) -> Progress {
        let mark = TimelineMark::of(facts);
        let progress = self.compare(&self.latest, &mark);
        match self.as_former(&mark, now) {
            // A stream that continues is better than a stalled one, even in the previous
            // generation.
            Some(Progress::Onward) if self.stalled(now) && progress != Progress::Same => {
                Progress::Restarted
            }
            Some(_) if progress != Progress::Same => Progress::Behind,
            // Nothing newer came for a long time: this generation is over, whatever the reason.
            None if progress == Progress::Behind && self.is_over(&mark, now) => Progress::Restarted,
            None if progress == Progress::Onward && self.has_passed_old_end(&mark, now) => {
                Progress::Restarted
            }
            _ => progress,
        }
    }

    /// Records a version with the result of [`Timeline::judge`].
    pub fn record(&mut self, facts: &ManifestInfo, progress: Progress, now: Instant) {
        let mut mark = TimelineMark::of(facts);
        match progress {
            Progress::Behind | Progress::Same => return self.record_response(now),
            Progress::Onward => {
                self.learn_names(&mark);
                mark.carry_over(&mut self.latest);
                self.latest = mark;
            }
            Progress::Restarted => {
                let former = std::mem::replace(&mut self.latest, mark);
                self.former = Some((former, now));
            }
        }
        self.record_response(now);
        self.moved = now;
    }

    /// Records that the origin still serves this generation.
    pub fn record_response(&mut self, now: Instant) {
        self.heard = self.heard.max(now);
    }

    /// Drops the history. The next version counts as the first.
    pub fn forget(&mut self) {
        (self.latest, self.former) = (TimelineMark::default(), None);
    }

    /// Sets the expected time between changes.
    pub fn set_period(&mut self, period: Duration) {
        self.period = period;
    }

    /// Whether the next change is overdue by more than half a period.
    pub fn late(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.moved);
        self.latest.edge.is_some() && since > self.period * 3 / 2
    }

    /// Whether the manifest has stalled; see [`STALLED_PERIODS`].
    pub fn stalled(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.moved);
        self.latest.edge.is_some() && since > self.period * STALLED_PERIODS
    }

    /// The number of the last segment, if segments are numbered.
    pub fn last_number(&self) -> Option<u64> {
        let edge = self.latest.edge.as_ref();
        edge.filter(|edge| edge.numbered).map(|edge| edge.last)
    }

    /// Whether the packager has restarted and has not yet passed the end of the previous
    /// generation. Until then, old segments at the origin may have the names of future ones.
    pub fn is_short_of_former(&self) -> bool {
        let Some((former, _)) = &self.former else {
            return false;
        };
        match (&self.latest.edge, &former.edge) {
            (Some(latest), Some(former)) => latest.last <= former.last,
            _ => true,
        }
    }

    /// Compares a version with the previous generation. `None` if it does not belong to that one.
    fn as_former(&self, mark: &TimelineMark, now: Instant) -> Option<Progress> {
        let (former, ended) = self.former.as_ref()?;
        let remembered = now.saturating_duration_since(*ended) < FORMER_MEMORY;
        let progress = self.compare(former, mark);
        let belongs = remembered && progress != Progress::Restarted;
        (belongs && !self.latest.is_nearer(mark, former)).then_some(progress)
    }

    /// Whether this generation is over, given that only versions behind it, like this one, have
    /// come for a long time. An origin whose clock shows a lag gets the time to catch up.
    fn is_over(&self, mark: &TimelineMark, now: Instant) -> bool {
        if !self.stalled(now) {
            return false;
        }
        let (Some(old), Some(new)) = (&self.latest.edge, &mark.edge) else {
            return true;
        };
        let lags = old.ends.zip(new.ends).is_some_and(|(then, now)| now < then);
        let segment = self.period.max(mark.segment);
        let lag = match old.last.saturating_sub(new.last) {
            segments if old.numbered => times(segment, segments.min(LAG_MAX)),
            millis => Duration::from_millis(millis).min(times(segment, LAG_MAX)),
        };
        let since = now.saturating_duration_since(self.moved);
        !lags || since > lag.saturating_add(segment * STALLED_PERIODS)
    }

    /// Whether a version just past the known end is a restart: the manifest was not polled for so
    /// long that the packager must have stalled or restarted. If it only stalled, the cost is some
    /// repeated fetches.
    fn has_passed_old_end(&self, mark: &TimelineMark, now: Instant) -> bool {
        let (Some(old), Some(new)) = (&self.latest.edge, &mark.edge) else {
            return false;
        };
        let is_dated = if old.numbered {
            old.ends.is_some() && new.ends.is_some()
        } else {
            // All times come from one clock, so the timeline itself is dated.
            self.latest.began.is_some() && mark.began.is_some()
        };
        if is_dated || mark.ended || new.discontinuity > old.discontinuity {
            return false;
        }
        let segment = self.period.max(mark.segment).max(self.latest.segment);
        let more = match new.last.saturating_sub(old.last) {
            // Segments may be a little longer than declared.
            segments if new.numbered => times(segment, segments).saturating_mul(5) / 4,
            millis => Duration::from_millis(millis),
        };
        let since = now.saturating_duration_since(self.heard);
        !segment.is_zero() && since > more.saturating_add(segment * (STALLED_PERIODS + 1))
    }

    /// Learns from a version that continues the stream whether segment names stay the same.
    fn learn_names(&mut self, mark: &TimelineMark) {
        let edges = self.latest.edge.as_ref().zip(mark.edge.as_ref());
        if let Some(found) = edges.and_then(|(old, new)| names(old, new)) {
            self.names_stay = found == SegmentNames::Same;
        }
    }

    fn compare(&self, old: &TimelineMark, new: &TimelineMark) -> Progress {
        let published = old.published.zip(new.published);
        let older = published.is_some_and(|(then, now)| now < then);
        if let (Some(then), Some(now)) = (old.began, new.began)
            && then != now
        {
            // An earlier start with an earlier publish time: a packager that has died.
            return if older && now < then {
                Progress::Behind
            } else {
                Progress::Restarted
            };
        }
        if older {
            return Progress::Behind;
        }
        match (&old.edge, &new.edge) {
            (Some(then), Some(now)) if then.numbered && now.numbered => self.numbers(old, new),
            (Some(old), Some(new)) => self.times(old, new),
            // The version lists no segments any more: the packager has lost its input.
            (Some(_), None) if !new.ended => Progress::Behind,
            _ => Progress::Onward,
        }
    }

    /// DASH: positions are times in milliseconds.
    fn times(&self, old: &LiveEdge, new: &LiveEdge) -> Progress {
        // Redundant packagers do not begin periods at exactly the same time.
        let segment = u64::try_from(self.period.as_millis()).unwrap_or(u64::MAX);
        let began_later = new.period.saturating_sub(old.period) > segment;
        if old.period.saturating_sub(new.period) > segment {
            return Progress::Behind;
        }
        match new.last.cmp(&old.last) {
            Ordering::Greater => Progress::Onward,
            Ordering::Equal => Progress::Same,
            // The previous period was cut short.
            Ordering::Less if began_later => Progress::Onward,
            // A new representation may end a little before the others.
            Ordering::Less
                if new.tracks > old.tracks
                    && new.furthest >= old.furthest
                    && old.last - new.last <= segment =>
            {
                Progress::Onward
            }
            Ordering::Less => Progress::Behind,
        }
    }

    /// HLS: segments are numbered.
    fn numbers(&self, old_mark: &TimelineMark, new_mark: &TimelineMark) -> Progress {
        let (Some(old), Some(new)) = (&old_mark.edge, &new_mark.edge) else {
            return Progress::Onward;
        };
        let segment = self.period.max(old_mark.segment).max(new_mark.segment);
        if is_later(old, new, segment) {
            return Progress::Restarted;
        }
        match (new.last, new.parts).cmp(&(old.last, old.parts)) {
            Ordering::Greater => return Progress::Onward,
            Ordering::Equal => return Progress::Same,
            Ordering::Less => {}
        }
        let names = names(old, new);
        let apart = new.last.saturating_add(LAG_LIKELY) < old.first;
        let clock = old.ends.zip(new.ends).map(|(then, now)| now > then);
        let discontinued = new.discontinuity > old.discontinuity && clock != Some(false);
        // Without a clock the distance decides: no origin lags by much more than a playlist's
        // length.
        let anew = match names {
            Some(SegmentNames::Same) => false,
            Some(SegmentNames::Other) => self.names_stay && clock != Some(false) || discontinued,
            None => apart && clock != Some(false) || discontinued,
        };
        if anew {
            Progress::Restarted
        } else {
            Progress::Behind
        }
    }
}

/// The duration of `count` segments.
fn times(segment: Duration, count: u64) -> Duration {
    segment.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Whether both list the same numbers with times that are far apart, without a new discontinuity:
/// the packager restarted and reached the same numbers again.
fn is_later(old: &LiveEdge, new: &LiveEdge, segment: Duration) -> bool {
    let (Some(then), Some(now)) = (old.ends, new.ends) else {
        return false;
    };
    let common = new.first <= old.last && old.first <= new.last;
    let apart = times(segment, new.last.abs_diff(old.last));
    let expected = if new.last < old.last {
        then.checked_sub(apart)
    } else {
        then.checked_add(apart)
    };
    let later = expected.and_then(|expected| now.duration_since(expected).ok());
    // A lagging origin also ends earlier by the clock, whatever its segment duration.
    common
        && now > then
        && new.discontinuity <= old.discontinuity
        && later.is_some_and(|by| by > LEAP)
}

impl TimelineMark {
    /// Keeps what the new version does not state: the discontinuities that a delta update skips,
    /// and the reach if the new version lists no segments.
    fn carry_over(&mut self, before: &mut TimelineMark) {
        if self.edge.is_none() {
            self.edge = before.edge.take();
        } else if let (Some(edge), Some(before)) = (&mut self.edge, &before.edge)
            && edge.skipped > 0
        {
            edge.discontinuity = edge.discontinuity.max(before.discontinuity);
        }
    }

    /// Whether this mark is nearer to `version` than `other` is.
    fn is_nearer(&self, version: &TimelineMark, other: &TimelineMark) -> bool {
        if self.began != other.began {
            return self.began == version.began;
        }
        let (Some(own), Some(version_edge), Some(other_edge)) =
            (&self.edge, &version.edge, &other.edge)
        else {
            return false;
        };
        if names(own, version_edge) == Some(SegmentNames::Same) {
            return true;
        }
        version_edge.last.abs_diff(own.last) < version_edge.last.abs_diff(other_edge.last)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SegmentNames {
    Same,
    Other,
}

/// Whether the segments that both list have the same names. Names that are signed again for each
/// version are compared by their numbers. `None`: no segment is in both.
fn names(old: &LiveEdge, new: &LiveEdge) -> Option<SegmentNames> {
    let name = |edge: &LiveEdge, back: u64| {
        let back = usize::try_from(back).ok()?;
        let at = edge.names.len().checked_sub(back.checked_add(1)?)?;
        edge.names.get(at).copied()
    };
    let last = old.last.min(new.last);
    let common = (0..).map_while(|back| {
        let sequence = last.checked_sub(back)?;
        let then = name(old, old.last - sequence)?;
        Some((then, name(new, new.last - sequence)?))
    });
    let mut any = false;
    for (then, now) in common {
        if then == now {
            return Some(SegmentNames::Same);
        }
        any = true;
    }
    let counts = old.numbering.zip(new.numbering);
    let counts_on = counts.is_some_and(|(then, now)| then == now);
    any.then_some(if counts_on {
        SegmentNames::Same
    } else {
        SegmentNames::Other
    })
}
