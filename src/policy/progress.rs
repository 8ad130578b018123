//! Does a manifest go on from the one before it? Redundant origins and packagers differ, lag and restart;
//! viewers must never see a stream go backwards. Pure: the clock is an argument.
//!
//! What a version is to the latest one that was shown, the first row that fits:
//!
//! | both say | the new one | it is |
//! |---|---|---|
//! | when the stream began (DASH) | another time, written and begun earlier | behind: a dead packager |
//! | | another time else | restarted |
//! | `publishTime` (DASH) | an earlier one | behind |
//! | segments, or nothing any more | lists none and has not ended | behind |
//! | numbers in common (HLS) | half a minute or more later than its numbers allow, no new discontinuity | restarted |
//! | | reaches further | onward |
//! | | as far | the same |
//! | | less far, names in common | behind |
//! | | less far, all common numbers renamed, where names stay otherwise | restarted |
//! | | less far, more discontinuities, not earlier by the clock | restarted |
//! | no numbers in common (HLS) | far less far, not earlier by the clock | restarted |
//! | | less far else, or earlier by the clock | behind: an origin that lags or has died |
//! | times (DASH) | its last period began later | onward, though it ends earlier: the one before was cut short |
//! | | its last period began earlier | behind |
//! | | reaches further, as far | onward, the same |
//! | | less far, with more representations, none of which reaches less far than before | onward |
//! | | less far | behind |
//!
//! Names alone are no restart: many a packager signs them anew with each version. Nor does a newer
//! `publishTime` excuse anything: many a packager writes the time of the request there.
//!
//! What the table calls onward is a restart all the same where nobody looked for much longer than the
//! new segments take, and no clock and no discontinuity accounts for that: a packager that began anew has
//! come to the old numbers again. What it calls behind is a restart once nothing else has come for
//! [`STALLED_PERIODS`]; where clocks say that it merely lags, only when it should have caught up since.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::time::{Duration, Instant, SystemTime};

use crate::manifest::{LiveEdge, Liveness, ManifestInfo};

/// What a version is to the one that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It goes on, or says nothing about how far it reaches.
    Onward,
    /// It reaches as far.
    Same,
    /// It lags behind what viewers have seen: not for them.
    Behind,
    /// The packager began anew: what was stored under the old numbers is another programme.
    Restarted,
}

/// A live manifest that has not changed for so many of its periods has stalled.
pub const STALLED_PERIODS: u32 = 3;
/// An old generation is remembered for so long: an origin that still serves it is not believed.
const FORMER_MEMORY: Duration = Duration::from_mins(10);
/// The clocks of redundant packagers do not differ by so much. Where the same number has a time that
/// is so much later, it is another segment.
const LEAP: Duration = Duration::from_secs(30);
/// By so many segments more than a playlist lists an origin may well lag: some list but three.
const LAG_LIKELY: u64 = 6;
/// A lag of more segments than this is not reckoned with.
const LAG_MAX: u64 = 1000;

/// How far a manifest has come, whichever URL and origin told it.
#[derive(Clone, Debug)]
pub struct Timeline {
    latest: TimelineMark,
    /// The generation before this one, and when it ended.
    former: Option<(TimelineMark, Instant)>,
    /// When the latest version came that went on.
    moved: Instant,
    /// When the origin last said something of this generation, old or new.
    heard: Instant,
    period: Duration,
    /// Segments that the last two versions list have the same names in both: others would say something.
    names_stay: bool,
}

/// What is compared of a version.
#[derive(Clone, Debug, Default)]
struct TimelineMark {
    edge: Option<LiveEdge>,
    published: Option<SystemTime>,
    began: Option<SystemTime>,
    ended: bool,
    /// How long its segments are at most.
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
    /// Begins with the first version seen. `period`: how often it is to change, at the least.
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

    /// What a version is to the latest one.
    pub fn judge(&self, facts: &ManifestInfo, now: Instant) -> Progress {
        let mark = TimelineMark::of(facts);
        let progress = self.compare(&self.latest, &mark);
        match self.as_former(&mark, now) {
            // Whoever goes on is better than nobody, even with what was left.
            Some(Progress::Onward) if self.stalled(now) && progress != Progress::Same => {
                Progress::Restarted
            }
            Some(_) if progress != Progress::Same => Progress::Behind,
            // Nobody has gone on with what is known for long: it is over, whatever the reason.
            None if progress == Progress::Behind && self.is_over(&mark, now) => Progress::Restarted,
            None if progress == Progress::Onward && self.has_come_again(&mark, now) => {
                Progress::Restarted
            }
            _ => progress,
        }
    }

    /// Takes a version that was judged, and may be shown unless it is behind.
    pub fn take(&mut self, facts: &ManifestInfo, progress: Progress, now: Instant) {
        let mut mark = TimelineMark::of(facts);
        match progress {
            Progress::Behind | Progress::Same => return self.hears(now),
            Progress::Onward => {
                self.learn_names(&mark);
                mark.goes_on_from(&mut self.latest);
                self.latest = mark;
            }
            Progress::Restarted => {
                let former = std::mem::replace(&mut self.latest, mark);
                self.former = Some((former, now));
            }
        }
        self.hears(now);
        self.moved = now;
    }

    /// The origin still speaks of this generation.
    pub fn hears(&mut self, now: Instant) {
        self.heard = self.heard.max(now);
    }

    /// Whatever comes next is the first.
    pub fn forget(&mut self) {
        (self.latest, self.former) = (TimelineMark::default(), None);
    }

    /// How often it changes, from now on.
    pub fn paced(&mut self, period: Duration) {
        self.period = period;
    }

    /// It should have changed by now: half a period ago.
    pub fn late(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.moved);
        self.latest.edge.is_some() && since > self.period * 3 / 2
    }

    /// It should have changed long ago.
    pub fn stalled(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.moved);
        self.latest.edge.is_some() && since > self.period * STALLED_PERIODS
    }

    /// The number of its last segment, where segments are numbered.
    pub fn reach(&self) -> Option<u64> {
        let edge = self.latest.edge.as_ref();
        edge.filter(|edge| edge.numbered).map(|edge| edge.last)
    }

    /// It has begun anew, and has not come as far yet as the generation before it: what that one left lying
    /// has the names of what is still to come.
    pub fn is_short_of_former(&self) -> bool {
        let Some((former, _)) = &self.former else {
            return false;
        };
        match (&self.latest.edge, &former.edge) {
            (Some(latest), Some(former)) => latest.last <= former.last,
            _ => true,
        }
    }

    /// What it is to the generation that was left, if it belongs to that and not to the latest.
    fn as_former(&self, mark: &TimelineMark, now: Instant) -> Option<Progress> {
        let (former, ended) = self.former.as_ref()?;
        let remembered = now.saturating_duration_since(*ended) < FORMER_MEMORY;
        let progress = self.compare(former, mark);
        let belongs = remembered && progress != Progress::Restarted;
        (belongs && !self.latest.is_nearer(mark, former)).then_some(progress)
    }

    /// Is a generation over of which this version, which is behind, is all that has come for long? An origin
    /// that lags, as clocks tell, is given the time to catch up in.
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

    /// Nobody looked for so long that a packager which is just past the known end must have stood still or
    /// begun anew; and if it stood still, nothing is lost but what is fetched again.
    fn has_come_again(&self, mark: &TimelineMark, now: Instant) -> bool {
        let (Some(old), Some(new)) = (&self.latest.edge, &mark.edge) else {
            return false;
        };
        let is_dated = if old.numbered {
            old.ends.is_some() && new.ends.is_some()
        } else {
            // With one clock for both, the timeline itself is dated.
            self.latest.began.is_some() && mark.began.is_some()
        };
        if is_dated || mark.ended || new.discontinuity > old.discontinuity {
            return false;
        }
        let segment = self.period.max(mark.segment).max(self.latest.segment);
        let more = match new.last.saturating_sub(old.last) {
            // Segments may be a little longer than they say.
            segments if new.numbered => times(segment, segments).saturating_mul(5) / 4,
            millis => Duration::from_millis(millis),
        };
        let since = now.saturating_duration_since(self.heard);
        !segment.is_zero() && since > more.saturating_add(segment * (STALLED_PERIODS + 1))
    }

    /// A version that goes on shows whether names stay as they are from one to the next.
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
            // What began before that and was written before that is a packager that has died.
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
            // It listed segments, and now lists none: the packager has lost its input.
            (Some(_), None) if !new.ended => Progress::Behind,
            _ => Progress::Onward,
        }
    }

    /// DASH: what ends where is in milliseconds.
    fn times(&self, old: &LiveEdge, new: &LiveEdge) -> Progress {
        // Redundant packagers do not cut periods at the very same moment.
        let segment = u64::try_from(self.period.as_millis()).unwrap_or(u64::MAX);
        let began_later = new.period.saturating_sub(old.period) > segment;
        if old.period.saturating_sub(new.period) > segment {
            return Progress::Behind;
        }
        match new.last.cmp(&old.last) {
            Ordering::Greater => Progress::Onward,
            Ordering::Equal => Progress::Same,
            // A period that was to be longer has been cut short.
            Ordering::Less if began_later => Progress::Onward,
            // A representation that has just come may end a little before the others.
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

    /// HLS: what is listed has numbers.
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
        // What no clock tells, the distance must: nobody lags by much more than all that is listed.
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

/// So many segments' time.
fn times(segment: Duration, count: u64) -> Duration {
    segment.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Do both list the same numbers, with times that are far apart? Where that is no gap that the packager
/// itself tells of, it has begun anew and has come to the same numbers again.
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
    // One that lags ends earlier by the clock as well, however long its segments are.
    common
        && now > then
        && new.discontinuity <= old.discontinuity
        && later.is_some_and(|by| by > LEAP)
}

impl TimelineMark {
    /// A delta update leaves out old segments, and perhaps discontinuities among them: those that the
    /// version before it told are not forgotten. Nor is how far it had come, by one that lists nothing.
    fn goes_on_from(&mut self, before: &mut TimelineMark) {
        if self.edge.is_none() {
            self.edge = before.edge.take();
        } else if let (Some(edge), Some(before)) = (&mut self.edge, &before.edge)
            && edge.skipped > 0
        {
            edge.discontinuity = edge.discontinuity.max(before.discontinuity);
        }
    }

    /// Is this one the nearer to a version than another is?
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

/// Do the segments that both list have the same names, as far as names that are signed anew can be
/// told? `None`: there are none.
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
