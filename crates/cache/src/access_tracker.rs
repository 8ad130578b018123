//! Records when a viewer last requested an object that is refreshed in the background.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Shared by the object, on which hits record an access, and by the background refresh.
#[derive(Debug)]
pub struct AccessTracker {
    since: Instant,
    /// Milliseconds after `since`, plus one. Zero: no request yet.
    asked: AtomicU64,
    tended: AtomicBool,
    /// Time of the next poll, in milliseconds after `since`.
    looked_at: AtomicU64,
    /// Incremented at the first request.
    first: Option<Arc<AtomicU64>>,
}

impl AccessTracker {
    /// Creates a tracker without any request.
    pub fn new(now: Instant) -> AccessTracker {
        AccessTracker {
            since: now,
            asked: AtomicU64::new(0),
            tended: AtomicBool::new(false),
            looked_at: AtomicU64::new(0),
            first: None,
        }
    }

    /// As [`AccessTracker::new`]; the first request increments `first`.
    pub fn counted(now: Instant, first: Arc<AtomicU64>) -> AccessTracker {
        AccessTracker {
            first: Some(first),
            ..AccessTracker::new(now)
        }
    }

    /// Records a viewer's request.
    pub fn record_access(&self, now: Instant) {
        let since = now.saturating_duration_since(self.since).as_millis();
        let mark = u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1);
        // Two viewers in one millisecond write the same mark. A load is cheaper than a store, which
        // invalidates the cache line of other cores.
        let known = self.asked.load(Ordering::Relaxed);
        if known != mark
            && self.asked.swap(mark, Ordering::Relaxed) == 0
            && let Some(first) = &self.first
        {
            first.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Time since the last request. `None`: no request yet.
    pub fn idle_time(&self, now: Instant) -> Option<Duration> {
        let asked = self.asked.load(Ordering::Relaxed).checked_sub(1)?;
        Some(now.saturating_duration_since(self.since + Duration::from_millis(asked)))
    }

    /// When tracking began.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Sets the time of the next poll.
    pub fn set_next_poll(&self, at: Instant) {
        let after = at.saturating_duration_since(self.since).as_millis();
        let after = u64::try_from(after).unwrap_or(u64::MAX);
        self.looked_at.store(after, Ordering::Relaxed);
    }

    /// Time until the next poll. Zero while a poll is in progress.
    pub fn time_until_poll(&self, now: Instant) -> Duration {
        let after = Duration::from_millis(self.looked_at.load(Ordering::Relaxed));
        after.saturating_sub(now.saturating_duration_since(self.since))
    }

    /// Whether a background task refreshes the object, so that viewers need not start a refresh.
    pub fn has_refresher(&self) -> bool {
        self.tended.load(Ordering::Relaxed)
    }

    /// Sets whether a background task refreshes the object. True if this changes the state.
    pub fn set_has_refresher(&self, tended: bool) -> bool {
        self.tended.swap(tended, Ordering::Relaxed) != tended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_viewer_is_counted_and_the_last_one_remembered() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let first = Arc::new(AtomicU64::new(0));
        let attention = AccessTracker::counted(start, Arc::clone(&first));
        assert_eq!(attention.idle_time(at(50)), None);
        attention.record_access(start);
        attention.record_access(at(70));
        assert_eq!(first.load(Ordering::Relaxed), 1);
        assert_eq!(
            attention.idle_time(at(100)),
            Some(Duration::from_millis(30))
        );
    }

    #[test]
    fn looking_after_it_begins_and_ends_once() {
        let attention = AccessTracker::new(Instant::now());
        assert!(
            attention.set_has_refresher(true)
                && !attention.set_has_refresher(true)
                && attention.has_refresher()
        );
        assert!(attention.set_has_refresher(false) && !attention.set_has_refresher(false));
    }
}
