//! Predicts when a live manifest changes next, and schedules the polls. The time is an argument.
//!
//! A live manifest changes about once per segment. The exact time is learned from polls: a poll
//! that finds the old version shows that the change comes later, and a poll that finds a new
//! version shows that it came before. Both times plus one period bracket the next change. While the
//! bracket is wide, polls narrow it; once it is narrow, one poll at its end is enough.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

/// A bracket narrower than this share of the period is narrow enough. More polls would cost origin
/// requests for a gain that no viewer notices.
const TOLERANCE: f64 = 0.05;
/// The bracket grows by this share of the period with each version, because clocks drift and
/// packagers are not exact.
const DRIFT: f64 = 0.002;
/// Wait before the next poll for an overdue change, as a share of the period …
const STEP: f64 = 0.02;
/// … and the factor by which each further wait grows.
const STEP_GROWTH: f64 = 1.6;
/// A search polls at this share of the bracket. A later poll finds the new version later; an
/// earlier one is more often a wasted request.
const SEARCH_AT: f64 = 0.75;
/// Maximum number of search polls per version that find nothing new.
const SEARCH_LOOKS_MAX: u32 = 1;
/// Range of the period. Changes are not expected faster, and slower manifests are polled at the
/// maximum.
const PERIOD_MIN: Duration = Duration::from_millis(100);
const PERIOD_MAX: Duration = Duration::from_secs(30);

/// The learned schedule of a manifest's changes.
#[derive(Clone, Debug)]
pub struct Cadence {
    period: Duration,
    /// The next change is expected after this time …
    after: Instant,
    /// … and no later than this, unless it is overdue.
    by: Instant,
    /// The last poll: it found nothing new, or the current version.
    last_poll: Instant,
    /// Polls for the next version that found nothing new.
    empty_polls: u32,
}

/// A new version, and how long the version before it was out of date (estimated).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionChange {
    /// Time from the estimated change to the poll that found it.
    pub late: Duration,
}

impl Cadence {
    /// Begins with a version found at `found`, by a request that this schedule did not plan.
    pub fn new(period: Duration, found: Instant) -> Cadence {
        let period = period.clamp(PERIOD_MIN, PERIOD_MAX);
        Cadence {
            period,
            after: found,
            by: found + period,
            last_poll: found,
            empty_polls: 0,
        }
    }

    /// The time of the next poll.
    pub fn next(&self) -> Instant {
        if self.last_poll < self.by {
            let width = self.by.saturating_duration_since(self.after);
            let narrow = width <= self.share(TOLERANCE) || self.empty_polls >= SEARCH_LOOKS_MAX;
            return if narrow {
                self.by
            } else {
                self.after + width.mul_f64(SEARCH_AT)
            };
        }
        self.last_poll + self.step()
    }

    /// Records that a poll sent at `sent` found nothing new.
    pub fn unchanged(&mut self, sent: Instant) {
        self.last_poll = self.last_poll.max(sent);
        self.after = self.after.max(sent);
        self.empty_polls += 1;
    }

    /// Records that a poll found a new version. `period` is the time to the next version that it
    /// states.
    pub fn changed(&mut self, sent: Instant, period: Duration) -> VersionChange {
        let overdue = self.last_poll >= self.by;
        let by = if overdue { sent } else { self.by.min(sent) };
        let after = self.after.min(by);
        let width = by.saturating_duration_since(after);
        let late = sent.saturating_duration_since(after + width / 2);
        self.period = period.clamp(PERIOD_MIN, PERIOD_MAX);
        let drift = self.share(DRIFT);
        // A version that was just found has not been replaced before this poll.
        self.after = (after + self.period.saturating_sub(drift)).max(sent);
        self.by = (by + self.period).max(self.after);
        self.last_poll = sent;
        self.empty_polls = 0;
        VersionChange { late }
    }

    fn share(&self, share: f64) -> Duration {
        self.period.mul_f64(share)
    }

    /// Wait between polls for an overdue change. Grows with each poll, up to half a period.
    fn step(&self) -> Duration {
        let overdue = self.last_poll.saturating_duration_since(self.by);
        // The time overdue is the sum of a geometric series of waits, so it gives the last wait.
        let step = self.share(STEP) + overdue.mul_f64(STEP_GROWTH - 1.0);
        step.min(self.period / 2)
    }
}
