//! Plans the prefetch of segments that only an MPD's clock announces: when to look for new ones,
//! which are new, and when to stop.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::ManifestTracker;
use super::expected_segment::ExpectedSegment;
use super::listed_window::WindowChange;
use seawall_policy::access::CacheRequest;
use seawall_policy::{Key, Rules};

/// The prefetch ends if the next segment is farther away than this.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// The prefetch ends after this many checks without a wanted segment: two segment durations, or
/// less where representations have segments of different durations.
const UNWANTED_MAX: u32 = 6;

/// The prefetch of one MPD; at most one exists per MPD.
pub(crate) struct ClockPrefetch {
    tracker: Arc<ManifestTracker>,
    /// The newest segments that have been counted.
    counted: Vec<Key>,
    /// Checks since viewers last wanted a segment.
    unwanted_checks: u32,
}

impl Drop for ClockPrefetch {
    fn drop(&mut self) {
        let has_clock_prefetch = &self.tracker.has_clock_prefetch;
        has_clock_prefetch.store(false, Ordering::Relaxed);
    }
}

impl ClockPrefetch {
    /// Begins, unless the route forbids it, another one exists, or the clock announces nothing.
    pub(crate) fn begin(tracker: &Arc<ManifestTracker>, now: SystemTime) -> Option<ClockPrefetch> {
        let is_of_use =
            tracker.route().live.prefetch && wait_for_next_check(tracker, now).is_some();
        if !is_of_use || tracker.has_clock_prefetch.swap(true, Ordering::Relaxed) {
            return None;
        }
        Some(ClockPrefetch {
            tracker: Arc::clone(tracker),
            counted: Vec::new(),
            unwanted_checks: 0,
        })
    }

    /// The MPD.
    pub(crate) fn tracker(&self) -> &Arc<ManifestTracker> {
        &self.tracker
    }

    /// Time to the next check. `None`: the prefetch ends.
    pub(crate) fn next_wait(&self, now: SystemTime) -> Option<Duration> {
        if self.unwanted_checks >= UNWANTED_MAX {
            return None;
        }
        wait_for_next_check(&self.tracker, now)
    }

    /// Records which of the newest segments viewers want. Returns the change of the window of each
    /// representation that has a new one.
    pub(crate) fn record_wanted(
        &mut self,
        rules: &Rules,
        wanted: &[CacheRequest],
        now: SystemTime,
    ) -> Vec<WindowChange> {
        let mpd = &self.tracker;
        let representations = mpd.representations();
        let is_new = |segment: &&CacheRequest| !self.counted.contains(&segment.key);
        let new: Vec<&CacheRequest> = wanted.iter().filter(is_new).collect();
        mpd.stream.add_ideal_requests(new.len() as u64);
        let rules_and_mpd = (rules, &mpd.request);
        let changes = new.iter().filter_map(|segment| {
            let dropped = representations.dropped_by(rules_and_mpd, segment, now)?;
            Some(WindowChange {
                advances: vec![mpd.clock_advance(dropped.template_index)],
                dropped: dropped.keys.iter().map(Key::fingerprint).collect(),
            })
        });
        let changes = changes.collect();
        self.counted = wanted.iter().map(|segment| segment.key.clone()).collect();
        self.unwanted_checks = if wanted.is_empty() {
            self.unwanted_checks + 1
        } else {
            0
        };
        changes
    }
}

/// Time to the next check. `None`: no segment is due soon.
fn wait_for_next_check(tracker: &ManifestTracker, now: SystemTime) -> Option<Duration> {
    let next_check = tracker.representations().next_check(now)?;
    let wait = next_check.duration_since(now).ok()?;
    (wait <= WAIT_MAX).then_some(wait)
}

impl ManifestTracker {
    /// The newest available segment of each representation that is timed by the clock.
    pub(crate) fn newest_by_clock(&self, rules: &Rules, now: SystemTime) -> Vec<ExpectedSegment> {
        self.representations().newest(rules, &self.request, now)
    }
}
