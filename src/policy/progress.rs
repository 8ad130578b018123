//! Does a manifest go on from the one before it? Redundant origins and packagers differ, lag and restart;
//! viewers must never see a stream go backwards. Pure: the clock is an argument.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::time::{Duration, Instant, SystemTime};

use crate::media::{Edge, Facts};

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
const STALLED_PERIODS: u32 = 3;
/// An old generation is remembered for so long: an origin that still serves it is not believed.
const FORMER_MEMORY: Duration = Duration::from_mins(10);

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
#[derive(Clone, Debug)]
struct Mark {
    edge: Option<Edge>,
    published: Option<SystemTime>,
    began: Option<SystemTime>,
}

impl Mark {
    fn of(facts: &Facts) -> Mark {
        Mark {
            edge: facts.edge.clone(),
            published: facts.published,
            began: facts.began,
        }
    }
}

impl Track {
    /// Begins with the first version seen. `period`: how often it is to change.
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
        match compare(&self.latest, &mark) {
            // Nobody has gone on with what is known for long: it is over, whatever the reason.
            Progress::Behind if self.stalled(now) => Progress::Restarted,
            Progress::Restarted | Progress::Onward if self.is_former(&mark, now) => {
                Progress::Behind
            }
            progress => progress,
        }
    }

    /// Takes a version that was judged and may be shown.
    pub fn take(&mut self, facts: &Facts, progress: Progress, now: Instant) {
        let mut mark = Mark::of(facts);
        if progress == Progress::Onward {
            mark.goes_on_from(&self.latest);
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

    /// Does it go on from the generation that was left, and not from the latest?
    fn is_former(&self, mark: &Mark, now: Instant) -> bool {
        let Some((former, ended)) = &self.former else {
            return false;
        };
        let remembered = now.saturating_duration_since(*ended) < FORMER_MEMORY;
        let goes_on = compare(former, mark) != Progress::Restarted;
        remembered && goes_on && !self.latest.is_nearer(mark, former)
    }
}

impl Mark {
    /// A delta update leaves out old segments, and perhaps discontinuities among them: those that the
    /// version before it told are not forgotten.
    fn goes_on_from(&mut self, before: &Mark) {
        if let (Some(edge), Some(before)) = (&mut self.edge, &before.edge)
            && edge.skipped > 0
        {
            edge.discontinuity = edge.discontinuity.max(before.discontinuity);
        }
    }

    /// Is this one the nearer to a version than another is?
    fn is_nearer(&self, version: &Mark, other: &Mark) -> bool {
        let (Some(own), Some(version_edge), Some(other_edge)) =
            (&self.edge, &version.edge, &other.edge)
        else {
            return self.began == version.began && self.began != other.began;
        };
        if names(own, version_edge) == Some(Names::Same) {
            return true;
        }
        version_edge.last.abs_diff(own.last) < version_edge.last.abs_diff(other_edge.last)
    }
}

fn compare(old: &Mark, new: &Mark) -> Progress {
    if let (Some(then), Some(now)) = (old.began, new.began)
        && then != now
    {
        return Progress::Restarted;
    }
    let published = old.published.zip(new.published);
    if published.is_some_and(|(then, now)| now < then) {
        return Progress::Behind;
    }
    match (&old.edge, &new.edge) {
        (Some(old), Some(new)) => reach(old, new),
        _ => Progress::Onward,
    }
}

fn reach(old: &Edge, new: &Edge) -> Progress {
    let names = names(old, new);
    if names == Some(Names::Other) {
        return Progress::Restarted;
    }
    match (new.last, new.parts).cmp(&(old.last, old.parts)) {
        Ordering::Greater => return Progress::Onward,
        Ordering::Equal => return Progress::Same,
        Ordering::Less => {}
    }
    let apart = new.last < old.first;
    let later = match (old.ends, new.ends) {
        (Some(then), Some(now)) => now > then,
        // What no clock tells, the distance must: nobody lags by more than all that is listed.
        _ => apart,
    };
    let discontinued = new.discontinuity > old.discontinuity;
    if names.is_none() && (apart && later || discontinued) {
        Progress::Restarted
    } else {
        Progress::Behind
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
    if !(old.numbered && new.numbered) {
        return None;
    }
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
