//! Does a manifest go on from the one before it? Redundant origins and packagers differ, lag and restart;
//! viewers must never see a stream go backwards. Pure: the clock is an argument.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::time::{Duration, Instant, SystemTime};

use crate::media::{Edge, Facts, Liveness};

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

/// How far a manifest has come, whichever URL and origin told it.
#[derive(Clone, Debug)]
pub struct Track {
    latest: Mark,
    /// The generation before this one, and when it ended.
    former: Option<(Mark, Instant)>,
    /// When the latest version came that went on.
    moved: Instant,
    period: Duration,
}

/// What is compared of a version.
#[derive(Clone, Debug, Default)]
struct Mark {
    edge: Option<Edge>,
    published: Option<SystemTime>,
    began: Option<SystemTime>,
    ended: bool,
}

impl Mark {
    fn of(facts: &Facts) -> Mark {
        Mark {
            edge: facts.edge.clone(),
            published: facts.published,
            began: facts.began,
            ended: facts.liveness == Liveness::Ended,
        }
    }
}

impl Track {
    /// Begins with the first version seen. `period`: how often it is to change, at the least.
    pub fn new(facts: &Facts, period: Duration, now: Instant) -> Track {
        Track {
            latest: Mark::of(facts),
            former: None,
            moved: now,
            period,
        }
    }

    /// What a version is to the latest one.
    pub fn judge(&self, facts: &Facts, now: Instant) -> Progress {
        let mark = Mark::of(facts);
        let progress = self.compare(&self.latest, &mark);
        match self.as_former(&mark, now) {
            // Whoever goes on is better than nobody, even with what was left.
            Some(Progress::Onward) if self.stalled(now) && progress != Progress::Same => {
                Progress::Restarted
            }
            Some(_) if progress != Progress::Same => Progress::Behind,
            // Nobody has gone on with what is known for long: it is over, whatever the reason.
            None if progress == Progress::Behind && self.stalled(now) => Progress::Restarted,
            _ => progress,
        }
    }

    /// Takes a version that was judged and may be shown.
    pub fn take(&mut self, facts: &Facts, progress: Progress, now: Instant) {
        let mut mark = Mark::of(facts);
        if progress == Progress::Onward {
            mark.goes_on_from(&mut self.latest);
        }
        match progress {
            Progress::Same | Progress::Behind => return,
            Progress::Onward => self.latest = mark,
            Progress::Restarted => {
                let former = std::mem::replace(&mut self.latest, mark);
                self.former = Some((former, now));
            }
        }
        self.moved = now;
    }

    /// Whatever comes next is the first.
    pub fn forget(&mut self) {
        (self.latest, self.former) = (Mark::default(), None);
    }

    /// How often it changes, from now on.
    pub fn paced(&mut self, period: Duration) {
        self.period = period;
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

    /// What it is to the generation that was left, if it belongs to that and not to the latest.
    fn as_former(&self, mark: &Mark, now: Instant) -> Option<Progress> {
        let (former, ended) = self.former.as_ref()?;
        let remembered = now.saturating_duration_since(*ended) < FORMER_MEMORY;
        let progress = self.compare(former, mark);
        let belongs = remembered && progress != Progress::Restarted;
        (belongs && !self.latest.is_nearer(mark, former)).then_some(progress)
    }

    fn compare(&self, old: &Mark, new: &Mark) -> Progress {
        let published = old.published.zip(new.published);
        let older = published.is_some_and(|(then, now)| now < then);
        let newer = published.is_some_and(|(then, now)| now > then);
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
            (Some(old), Some(new)) if old.numbered && new.numbered => self.numbers(old, new),
            (Some(old), Some(new)) => self.times(old, new, newer),
            // It listed segments, and now lists none: the packager has lost its input.
            (Some(_), None) if !(newer || new.ended) => Progress::Behind,
            _ => Progress::Onward,
        }
    }

    /// DASH: what ends where is in milliseconds.
    fn times(&self, old: &Edge, new: &Edge, newer: bool) -> Progress {
        match new.last.cmp(&old.last) {
            Ordering::Greater => Progress::Onward,
            Ordering::Equal => Progress::Same,
            // A representation that has just come may end a little before the others.
            Ordering::Less
                if newer && u128::from(old.last - new.last) <= self.period.as_millis() =>
            {
                Progress::Onward
            }
            Ordering::Less => Progress::Behind,
        }
    }

    /// HLS: what is listed has numbers.
    fn numbers(&self, old: &Edge, new: &Edge) -> Progress {
        let names = names(old, new);
        if names == Some(Names::Other) || self.is_later(old, new) {
            return Progress::Restarted;
        }
        match (new.last, new.parts).cmp(&(old.last, old.parts)) {
            Ordering::Greater => return Progress::Onward,
            Ordering::Equal => return Progress::Same,
            Ordering::Less => {}
        }
        let apart = new.last < old.first;
        let clock = old.ends.zip(new.ends).map(|(then, now)| now > then);
        let discontinued = new.discontinuity > old.discontinuity && clock != Some(false);
        // What no clock tells, the distance must: nobody lags by more than all that is listed.
        let anew = names.is_none() && (apart && clock != Some(false) || discontinued);
        if anew {
            Progress::Restarted
        } else {
            Progress::Behind
        }
    }

    /// Do both list the same numbers, with times that are far apart? Where that is no gap that the packager
    /// itself tells of, it has begun anew and has come to the same numbers again.
    fn is_later(&self, old: &Edge, new: &Edge) -> bool {
        let (Some(then), Some(now)) = (old.ends, new.ends) else {
            return false;
        };
        let common = new.first <= old.last && old.first <= new.last;
        let apart = u32::try_from(new.last.abs_diff(old.last)).unwrap_or(u32::MAX);
        let apart = self.period.saturating_mul(apart);
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
}

impl Mark {
    /// A delta update leaves out old segments, and perhaps discontinuities among them: those that the
    /// version before it told are not forgotten. Nor is how far it had come, by one that lists nothing.
    fn goes_on_from(&mut self, before: &mut Mark) {
        if self.edge.is_none() {
            self.edge = before.edge.take();
        } else if let (Some(edge), Some(before)) = (&mut self.edge, &before.edge)
            && edge.skipped > 0
        {
            edge.discontinuity = edge.discontinuity.max(before.discontinuity);
        }
    }

    /// Is this one the nearer to a version than another is?
    fn is_nearer(&self, version: &Mark, other: &Mark) -> bool {
        if self.began != other.began {
            return self.began == version.began;
        }
        let (Some(own), Some(version_edge), Some(other_edge)) =
            (&self.edge, &version.edge, &other.edge)
        else {
            return false;
        };
        if names(own, version_edge) == Some(Names::Same) {
            return true;
        }
        version_edge.last.abs_diff(own.last) < version_edge.last.abs_diff(other_edge.last)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Same,
    Other,
}

/// Do the segments that both list have the same names? `None`: there are none.
fn names(old: &Edge, new: &Edge) -> Option<Names> {
    let name = |edge: &Edge, back: u64| {
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
            return Some(Names::Same);
        }
        any = true;
    }
    any.then_some(Names::Other)
}
