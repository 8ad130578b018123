//! Records when a viewer last requested an object that is refreshed in the background.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Shared by the object, on which hits record an access, and by the background refresh.
#[derive(Debug)]
pub struct AccessTracker {
    since: Instant,
    /// Milliseconds after `since`, plus one. Zero: no request yet.
    last_access: AtomicU64,
    has_refresher: AtomicBool,
    /// Time of the next poll, in milliseconds after `since`.
    next_poll_ms: AtomicU64,
    /// Incremented at the first request.
    used_count: Option<Arc<AtomicU64>>,
}

impl AccessTracker {
    /// Creates a tracker without any request.
    pub fn new(now: Instant) -> AccessTracker {
        AccessTracker {
            since: now,
            last_access: AtomicU64::new(0),
            has_refresher: AtomicBool::new(false),
            next_poll_ms: AtomicU64::new(0),
            used_count: None,
        }
    }

    /// As [`AccessTracker::new`]; the first request increments `used_count`.
    pub fn counted(now: Instant, used_count: Arc<AtomicU64>) -> AccessTracker {
        AccessTracker {
            used_count: Some(used_count),
            ..AccessTracker::new(now)
        }
    }

    /// Records a viewer's request.
    pub fn record_access(&self, now: Instant) {
        let since = now.saturating_duration_since(self.since).as_millis();
        let mark = u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1);
        // Two viewers in one millisecond write the same mark. A load is cheaper than a store, which
        // invalidates the cache line of other cores.
        let known = self.last_access.load(Ordering::Relaxed);
        if known != mark
            && self.last_access.swap(mark, Ordering::Relaxed) == 0
            && let Some(used_count) = &self.used_count
        {
            used_count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Time since the last request. `None`: no request yet.
    pub fn idle_time(&self, now: Instant) -> Option<Duration> {
        let last_access = self.last_access.load(Ordering::Relaxed).checked_sub(1)?;
        Some(now.saturating_duration_since(self.since + Duration::from_millis(last_access)))
    }

    /// When tracking began.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Sets the time of the next poll.
    pub fn set_next_poll(&self, at: Instant) {
        let after = at.saturating_duration_since(self.since).as_millis();
        let after = u64::try_from(after).unwrap_or(u64::MAX);
        self.next_poll_ms.store(after, Ordering::Relaxed);
    }

    /// Time until the next poll. Zero while a poll is in progress.
    pub fn time_until_poll(&self, now: Instant) -> Duration {
        let after = Duration::from_millis(self.next_poll_ms.load(Ordering::Relaxed));
        after.saturating_sub(now.saturating_duration_since(self.since))
    }

    /// Whether a background task refreshes the object, so that viewers need not start a refresh.
    pub fn has_refresher(&self) -> bool {
        self.has_refresher.load(Ordering::Relaxed)
    }

    /// Sets whether a background task refreshes the object. True if this changes the state.
    pub fn set_has_refresher(&self, has_refresher: bool) -> bool {
        self.has_refresher.swap(has_refresher, Ordering::Relaxed) != has_refresher
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_first_access_once_and_measures_idle_time_from_last() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let used_count = Arc::new(AtomicU64::new(0));
        let tracker = AccessTracker::counted(start, Arc::clone(&used_count));
        assert_eq!(tracker.idle_time(at(50)), None);
        tracker.record_access(start);
        tracker.record_access(at(70));
        assert_eq!(used_count.load(Ordering::Relaxed), 1);
        assert_eq!(tracker.idle_time(at(100)), Some(Duration::from_millis(30)));
    }

    #[test]
    fn a_refresher_begins_and_ends_once() {
        let tracker = AccessTracker::new(Instant::now());
        assert!(
            tracker.set_has_refresher(true)
                && !tracker.set_has_refresher(true)
                && tracker.has_refresher()
        );
        assert!(tracker.set_has_refresher(false) && !tracker.set_has_refresher(false));
    }
}
