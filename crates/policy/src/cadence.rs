//! Predicts when a live manifest changes next, and schedules the polls. The time is an argument.
//!
//! A live manifest changes about once per segment. The exact time is learned from polls: a poll
//! that finds the old version shows that the change comes later, and a poll that finds a new
//! version shows that it came before. Both times plus one interval bracket the next change. While
//! the bracket is wide, polls narrow it; once it is narrow, one poll at its end is enough.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

/// A bracket narrower than this share of the interval is narrow enough. More polls would cost
/// origin requests for a gain that no viewer notices.
const TOLERANCE: f64 = 0.05;
/// The bracket grows by this share of the interval with each version, because clocks drift and
/// packagers are not exact.
const DRIFT: f64 = 0.002;
/// Wait before the next poll for an overdue change, as a share of the interval …
const OVERDUE_WAIT: f64 = 0.02;
/// … and the factor by which each further wait grows.
const OVERDUE_WAIT_GROWTH: f64 = 1.6;
/// A search polls at this share of the bracket. A later poll finds the new version later; an
/// earlier one is more often a wasted request.
const SEARCH_AT: f64 = 0.75;
/// Maximum number of search polls per version that find nothing new.
const SEARCH_POLLS_MAX: u32 = 1;
/// Range of the interval between two versions. Changes are not expected faster, and slower
/// manifests are polled at the maximum.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(30);

/// The learned schedule of a manifest's changes.
#[derive(Clone, Debug)]
pub struct Cadence {
    interval: Duration,
    /// The next change is expected after this time …
    earliest: Instant,
    /// … and no later than this, unless it is overdue.
    latest: Instant,
    /// When the last poll was sent, whether it found a new version or not.
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
    /// Begins with a version requested at `sent`, by a request that this schedule did not plan.
    pub fn new(interval: Duration, sent: Instant) -> Cadence {
        let interval = interval.clamp(INTERVAL_MIN, INTERVAL_MAX);
        Cadence {
            interval,
            earliest: sent,
            latest: sent + interval,
            last_poll: sent,
            empty_polls: 0,
        }
    }

    /// The time of the next poll.
    pub fn next(&self) -> Instant {
        if self.last_poll < self.latest {
            let width = self.latest.saturating_duration_since(self.earliest);
            let narrow = width <= self.share(TOLERANCE) || self.empty_polls >= SEARCH_POLLS_MAX;
            return if narrow {
                self.latest
            } else {
                self.earliest + width.mul_f64(SEARCH_AT)
            };
        }
        self.last_poll + self.overdue_wait()
    }

    /// Records that a poll sent at `sent` found nothing new.
    pub fn unchanged(&mut self, sent: Instant) {
        self.last_poll = self.last_poll.max(sent);
        self.earliest = self.earliest.max(sent);
        self.empty_polls += 1;
    }

    /// Records that a poll found a new version. `interval` is the time to the next version that it
    /// states.
    pub fn changed(&mut self, sent: Instant, interval: Duration) -> VersionChange {
        let overdue = self.last_poll >= self.latest;
        let latest = if overdue { sent } else { self.latest.min(sent) };
        let earliest = self.earliest.min(latest);
        let width = latest.saturating_duration_since(earliest);
        let late = sent.saturating_duration_since(earliest + width / 2);
        self.interval = interval.clamp(INTERVAL_MIN, INTERVAL_MAX);
        let drift = self.share(DRIFT);
        // A version that was just found has not been replaced before this poll.
        self.earliest = (earliest + self.interval.saturating_sub(drift)).max(sent);
        self.latest = (latest + self.interval).max(self.earliest);
        self.last_poll = sent;
        self.empty_polls = 0;
        VersionChange { late }
    }

    fn share(&self, share: f64) -> Duration {
        self.interval.mul_f64(share)
    }

    /// Wait between polls for an overdue change. Grows with each poll, up to half an interval.
    fn overdue_wait(&self) -> Duration {
        let overdue = self.last_poll.saturating_duration_since(self.latest);
        // The time overdue is the sum of a geometric series of waits, so it gives the last wait.
        let wait = self.share(OVERDUE_WAIT) + overdue.mul_f64(OVERDUE_WAIT_GROWTH - 1.0);
        wait.min(self.interval / 2)
    }
}
