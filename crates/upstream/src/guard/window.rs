//! Counts events over a sliding window that is divided into slices. Memory and work are bounded.
//! Some events are counted as marked; the owner decides what that means.

use std::time::{Duration, Instant};

/// The window slides by one slice at a time: it covers nine whole slices and the current one.
const SLICES: usize = 10;

/// The number of events, and how many of them are marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WindowCounts {
    pub(super) all: u32,
    pub(super) marked: u32,
}

/// Counts of the recent past.
#[derive(Clone, Debug)]
pub(super) struct SlidingWindow {
    slice: Duration,
    slices: [WindowCounts; SLICES],
    newest: usize,
    newest_began: Instant,
}

impl SlidingWindow {
    pub(super) fn new(span: Duration, now: Instant) -> SlidingWindow {
        let slices = u32::try_from(SLICES).unwrap_or(u32::MAX);
        SlidingWindow {
            slice: (span / slices).max(Duration::from_millis(1)),
            slices: [WindowCounts::default(); SLICES],
            newest: 0,
            newest_began: now,
        }
    }

    /// Covers another span from now on. The events counted so far count as if they happened now:
    /// they stay at most one new span longer.
    pub(super) fn set_span(&mut self, span: Duration, now: Instant) {
        let counts = self.counts(now);
        *self = SlidingWindow::new(span, now);
        self.slices[self.newest] = counts;
    }

    /// The current slice. If another caller has already advanced the window past `now`, the later
    /// slice is returned.
    pub(super) fn slice(&mut self, now: Instant) -> &mut WindowCounts {
        let passed = self.passed(now);
        if passed >= SLICES {
            self.clear(now);
            return &mut self.slices[self.newest];
        }
        for _ in 0..passed {
            self.newest = (self.newest + 1) % SLICES;
            self.slices[self.newest] = WindowCounts::default();
            self.newest_began += self.slice;
        }
        &mut self.slices[self.newest]
    }

    /// The sum over the window.
    pub(super) fn counts(&self, now: Instant) -> WindowCounts {
        let live = SLICES.saturating_sub(self.passed(now));
        let mut counts = WindowCounts::default();
        for back in 0..live {
            let slice = self.slices[(self.newest + SLICES - back) % SLICES];
            counts.all = counts.all.saturating_add(slice.all);
            counts.marked = counts.marked.saturating_add(slice.marked);
        }
        counts
    }

    /// Drops all counts.
    pub(super) fn clear(&mut self, now: Instant) {
        self.slices = [WindowCounts::default(); SLICES];
        self.newest_began = now;
    }

    /// Whole slices since the newest one began.
    fn passed(&self, now: Instant) -> usize {
        let since = now.saturating_duration_since(self.newest_began);
        let passed = since.as_nanos() / self.slice.as_nanos();
        usize::try_from(passed).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPAN: Duration = Duration::from_secs(10);

    fn count(window: &mut SlidingWindow, now: Instant) {
        window.slice(now).all += 1;
    }

    #[test]
    fn events_older_than_the_span_are_dropped() {
        let start = Instant::now();
        let mut window = SlidingWindow::new(SPAN, start);
        count(&mut window, start);
        window.slice(start).marked += 1;
        assert_eq!(
            window.counts(start + SPAN / 2),
            WindowCounts { all: 1, marked: 1 }
        );
        count(&mut window, start + SPAN / 2);
        assert_eq!(
            window.counts(start + SPAN),
            WindowCounts { all: 1, marked: 0 }
        );
        assert_eq!(window.counts(start + SPAN * 2), WindowCounts::default());
    }

    #[test]
    fn events_stay_when_the_span_changes() {
        let start = Instant::now();
        for span in [SPAN / 10, SPAN * 10] {
            let mut window = SlidingWindow::new(SPAN, start);
            count(&mut window, start);
            count(&mut window, start + SPAN / 2);
            window.set_span(span, start + SPAN / 2);
            assert_eq!(window.counts(start + SPAN / 2).all, 2);
            assert_eq!(window.counts(start + SPAN / 2 + span).all, 0);
        }
    }

    #[test]
    fn event_with_earlier_clock_counts_as_newest() {
        let start = Instant::now();
        let mut window = SlidingWindow::new(SPAN, start + SPAN);
        count(&mut window, start);
        assert_eq!(window.counts(start).all, 1);
        assert_eq!(window.counts(start + SPAN).all, 1);
    }

    #[test]
    fn zero_span_becomes_a_short_span() {
        let start = Instant::now();
        let mut window = SlidingWindow::new(Duration::ZERO, start);
        count(&mut window, start);
        assert_eq!(window.counts(start).all, 1);
        assert_eq!(window.counts(start + SPAN).all, 0);
    }

    proptest! {
        #[test]
        fn window_covers_between_nine_and_ten_slices(
            steps in proptest::collection::vec(
                prop_oneof![9 => 0_u64..3_000, 1 => 0_u64..30_000],
                1..60,
            ),
        ) {
            let mut now = Instant::now();
            let mut window = SlidingWindow::new(SPAN, now);
            let mut counted = Vec::new();
            for step in steps {
                now += Duration::from_millis(step);
                count(&mut window, now);
                counted.push(now);
                let within = |span| counted.iter().filter(|&&at| now - at < span).count();
                let remembered = usize::try_from(window.counts(now).all).unwrap();
                prop_assert!(remembered <= within(SPAN));
                prop_assert!(remembered >= within(SPAN * 9 / 10));
            }
        }
    }
}
