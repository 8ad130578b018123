//! When does a watched manifest change next, and when is it looked at? Pure: the clock is an argument.
//!
//! A live manifest changes about once a segment. When exactly is learnt from looks: one that found the old
//! version says that the change came later, one that found a new version says that it came before. Both,
//! carried on by a period, bracket the next change. While the bracket is wide, looks narrow it; once it is
//! narrow, one look at its end is enough.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

/// A bracket narrower than this share of the period is good enough: with more looks the origin would pay
/// for what no viewer notices.
const TOLERANCE: f64 = 0.05;
/// The bracket grows by this share of the period with each version: clocks drift and packagers dawdle.
const DRIFT: f64 = 0.002;
/// A change that is late is looked for again after this share of the period …
const STEP: f64 = 0.02;
/// … and then after so many times as long, each time.
const STEP_GROWTH: f64 = 1.6;
/// Searching looks at this share of the bracket: one that finds the new version costs nothing and
/// comes later than it might, one that finds nothing costs a request.
const SEARCH_AT: f64 = 0.75;
/// Searching costs looks that find nothing: so many a version at most.
const SEARCH_LOOKS_MAX: u32 = 1;
/// Nothing changes faster, and nothing is watched that changes more slowly.
const PERIOD_MIN: Duration = Duration::from_millis(100);
const PERIOD_MAX: Duration = Duration::from_secs(30);

/// What is known of a manifest's changes.
#[derive(Clone, Debug)]
pub struct Cadence {
    period: Duration,
    /// The next change comes after this, as far as is known …
    after: Instant,
    /// … and not later than this, if it is in time.
    by: Instant,
    /// The last look that found nothing new, or found the version that is to change next.
    looked: Instant,
    /// Looks at this version that found nothing new.
    in_vain: u32,
}

/// A version came: the one before it was out of date for so long, as far as can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionChange {
    /// From the estimated change to the look that found it.
    pub late: Duration,
}

impl Cadence {
    /// Begins with a version that was found at a moment, by a look that nobody planned.
    pub fn new(period: Duration, found: Instant) -> Cadence {
        let period = period.clamp(PERIOD_MIN, PERIOD_MAX);
        Cadence {
            period,
            after: found,
            by: found + period,
            looked: found,
            in_vain: 0,
        }
    }

    /// When to look next.
    pub fn next(&self) -> Instant {
        if self.looked < self.by {
            let width = self.by.saturating_duration_since(self.after);
            let narrow = width <= self.share(TOLERANCE) || self.in_vain >= SEARCH_LOOKS_MAX;
            return if narrow {
                self.by
            } else {
                self.after + width.mul_f64(SEARCH_AT)
            };
        }
        self.looked + self.step()
    }

    /// A look that was sent at a moment found nothing new.
    pub fn unchanged(&mut self, sent: Instant) {
        self.looked = self.looked.max(sent);
        self.after = self.after.max(sent);
        self.in_vain += 1;
    }

    /// A look found a new version, which says how long the next one will take.
    pub fn changed(&mut self, sent: Instant, period: Duration) -> VersionChange {
        let overdue = self.looked >= self.by;
        let by = if overdue { sent } else { self.by.min(sent) };
        let after = self.after.min(by);
        let width = by.saturating_duration_since(after);
        let late = sent.saturating_duration_since(after + width / 2);
        self.period = period.clamp(PERIOD_MIN, PERIOD_MAX);
        let drift = self.share(DRIFT);
        // What changed just now will not have changed again by the time of this look.
        self.after = (after + self.period.saturating_sub(drift)).max(sent);
        self.by = (by + self.period).max(self.after);
        self.looked = sent;
        self.in_vain = 0;
        VersionChange { late }
    }

    fn share(&self, share: f64) -> Duration {
        self.period.mul_f64(share)
    }

    /// Each later look for a change that is overdue is further away, up to half a period.
    fn step(&self) -> Duration {
        let overdue = self.looked.saturating_duration_since(self.by);
        // The sum of a geometric series tells how far it has come.
        let step = self.share(STEP) + overdue.mul_f64(STEP_GROWTH - 1.0);
        step.min(self.period / 2)
    }
}
