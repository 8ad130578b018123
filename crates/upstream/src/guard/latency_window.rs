//! Estimates recent response times: the median and the 95th percentile, from counts in buckets.
//! Memory is bounded and recording takes constant time.
//!
//! A request that got no response counts only if the caller records it, with the time after which
//! it was given up.

use std::time::{Duration, Instant};

/// Buckets per doubling of the time, so an estimate is at most an eighth too high.
const BUCKETS_IN_OCTAVE: u32 = 1 << OCTAVE_BITS;
const OCTAVE_BITS: u32 = 3;
/// The first octave begins at 2^7 µs; shorter times count in its first bucket. The last octave ends
/// at 2^27 µs, which is over two minutes; longer times count in its last bucket.
const FIRST_OCTAVE: u32 = 7;
const OCTAVES_END: u32 = 27;
const BUCKETS: usize = ((OCTAVES_END - FIRST_OCTAVE) * BUCKETS_IN_OCTAVE) as usize;

/// The period of the estimate, and the number of samples it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Samples are kept for between one and two windows.
    pub window: Duration,
    /// Minimum number of samples for an estimate.
    pub samples_min: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            window: Duration::from_secs(10),
            samples_min: 20,
        }
    }
}

/// Estimated response times: never too low, and at most an eighth too high.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyReading {
    /// Median.
    pub p50: Duration,
    /// 95th percentile.
    pub p95: Duration,
    /// Number of samples.
    pub samples: u64,
}

/// Recent response times of an endpoint or a group.
#[derive(Debug)]
pub(crate) struct LatencyWindow {
    settings: Settings,
    /// Counts of the current window and of the window before it.
    present: [u32; BUCKETS],
    past: [u32; BUCKETS],
    present_began: Instant,
}

impl LatencyWindow {
    pub(crate) fn new(settings: Settings, now: Instant) -> LatencyWindow {
        LatencyWindow {
            settings: bounded(settings),
            present: [0; BUCKETS],
            past: [0; BUCKETS],
            present_began: now,
        }
    }

    /// Uses another window from now on. The samples stay.
    pub(crate) fn set_settings(&mut self, settings: Settings) {
        self.settings = bounded(settings);
    }

    /// Records a response time.
    pub(crate) fn record(&mut self, now: Instant, took: Duration) {
        let window = self.settings.window;
        match self.windows_passed(now) {
            0 => {}
            1 => {
                self.past = std::mem::replace(&mut self.present, [0; BUCKETS]);
                self.present_began += window;
            }
            _ => self.clear(now),
        }
        let count = &mut self.present[bucket(took)];
        *count = count.saturating_add(1);
    }

    /// Drops all samples. Used when an endpoint returns from an ejection for slowness, because its
    /// old times are out of date.
    pub(crate) fn clear(&mut self, now: Instant) {
        self.present = [0; BUCKETS];
        self.past = [0; BUCKETS];
        self.present_began = now;
    }

    /// The estimate, or `None` with too few samples.
    pub(crate) fn read(&self, now: Instant) -> Option<LatencyReading> {
        let (present, past) = match self.windows_passed(now) {
            0 => (Some(&self.present), Some(&self.past)),
            1 => (None, Some(&self.present)),
            _ => (None, None),
        };
        let windows = [present, past];
        let count = |at: usize| -> u64 {
            let counts = windows.iter().flatten().map(|window| u64::from(window[at]));
            counts.sum()
        };
        let samples: u64 = (0..BUCKETS).map(count).sum();
        if samples < u64::from(self.settings.samples_min.max(1)) {
            return None;
        }
        let percentile = |percent: u64| {
            let position = (samples * percent).div_ceil(100);
            let mut below = 0;
            let reached = |&at: &usize| {
                below += count(at);
                below >= position
            };
            upper_edge((0..BUCKETS).find(reached).unwrap_or(BUCKETS - 1))
        };
        Some(LatencyReading {
            p50: percentile(50),
            p95: percentile(95),
            samples,
        })
    }

    /// Whole windows since the current one began.
    fn windows_passed(&self, now: Instant) -> u128 {
        let since = now.saturating_duration_since(self.present_began);
        since.as_nanos() / self.settings.window.as_nanos()
    }
}

/// The settings with a window that is not empty.
fn bounded(settings: Settings) -> Settings {
    let window = settings.window.max(Duration::from_millis(1));
    Settings { window, ..settings }
}

/// Typical response time of an endpoint with few requests: the median of the last few responses.
#[derive(Debug, Default)]
pub(crate) struct TypicalLatency {
    last: [Duration; TYPICAL_OF],
    count: usize,
}

/// Number of responses that the typical value is taken from.
const TYPICAL_OF: usize = 7;

impl TypicalLatency {
    pub(crate) fn record(&mut self, took: Duration) {
        self.last[self.count % TYPICAL_OF] = took;
        self.count = self.count.wrapping_add(1);
    }

    /// `None` until there are enough responses.
    pub(crate) fn read(&self) -> Option<Duration> {
        let mut last = self.last;
        last.sort_unstable();
        (self.count >= TYPICAL_OF).then_some(last[TYPICAL_OF / 2])
    }
}

/// The octave is the highest bit of the microseconds; the bucket within it is the next three bits.
fn bucket(took: Duration) -> usize {
    let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
    let micros = micros.clamp(1 << FIRST_OCTAVE, (1 << OCTAVES_END) - 1);
    let octave = micros.ilog2();
    let step = (micros >> (octave - OCTAVE_BITS)) % BUCKETS_IN_OCTAVE;
    ((octave - FIRST_OCTAVE) * BUCKETS_IN_OCTAVE + step) as usize
}

/// The end of a bucket, which is the start of the next.
fn upper_edge(bucket: usize) -> Duration {
    let bucket = u64::try_from(bucket).unwrap_or_default();
    let (octave, step) = (bucket >> OCTAVE_BITS, bucket % u64::from(BUCKETS_IN_OCTAVE));
    let eighths = u64::from(BUCKETS_IN_OCTAVE) + step + 1;
    Duration::from_micros((eighths << octave) << (FIRST_OCTAVE - OCTAVE_BITS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn empty(now: Instant) -> LatencyWindow {
        LatencyWindow::new(Settings::default(), now)
    }

    #[test]
    fn latency_buckets_are_contiguous() {
        for at in 0..BUCKETS {
            let edge = upper_edge(at);
            assert_eq!(bucket(edge.saturating_sub(Duration::from_nanos(1))), at);
            assert_eq!(bucket(edge), (at + 1).min(BUCKETS - 1));
        }
        assert_eq!(
            (bucket(Duration::ZERO), bucket(Duration::MAX)),
            (0, BUCKETS - 1)
        );
    }

    #[test]
    fn typical_latency_is_median_of_the_last_responses() {
        let mut typical = TypicalLatency::default();
        (0..6).for_each(|_| typical.record(millis(80)));
        assert_eq!(typical.read(), None);
        (0..3).for_each(|_| typical.record(millis(900)));
        assert_eq!(typical.read(), Some(millis(80)));
        typical.record(millis(900));
        assert_eq!(typical.read(), Some(millis(900)));
    }

    #[test]
    fn no_latency_estimate_below_20_samples() {
        let now = Instant::now();
        let mut window = empty(now);
        (0..19).for_each(|_| window.record(now, millis(80)));
        assert_eq!(window.read(now), None);
        window.record(now, millis(80));
        assert_eq!(window.read(now).unwrap().samples, 20);
        window.clear(now);
        assert_eq!(window.read(now), None);
    }

    #[test]
    fn samples_expire_after_two_windows() {
        let start = Instant::now();
        let mut window = empty(start);
        (0..20).for_each(|_| window.record(start, millis(80)));
        let second = start + WINDOW;
        assert_eq!(window.read(second).unwrap().samples, 20);
        (0..30).for_each(|_| window.record(second, millis(10)));
        assert_eq!(window.read(second).unwrap().samples, 50);
        let third = second + WINDOW;
        assert_eq!(window.read(third).unwrap().samples, 30);
        assert_eq!(window.read(third + WINDOW), None);
        window.record(third + WINDOW, millis(10));
        assert_eq!(window.read(third + WINDOW), None);
    }

    proptest! {
        #[test]
        fn estimate_exceeds_true_percentile_by_at_most_a_bucket(
            mut micros in proptest::collection::vec(128_u64..100_000_000, 20..300),
        ) {
            let now = Instant::now();
            let mut window = empty(now);
            for (at, &took) in micros.iter().enumerate() {
                let later = if at % 2 == 0 { Duration::ZERO } else { WINDOW };
                window.record(now + later, Duration::from_micros(took));
            }
            micros.sort_unstable();
            let reading = window.read(now + WINDOW).unwrap();
            for (percent, estimate) in [(50, reading.p50), (95, reading.p95)] {
                let truth = micros[(micros.len() * percent).div_ceil(100) - 1];
                let truth = Duration::from_micros(truth);
                prop_assert!(truth < estimate && estimate <= truth * 9 / 8 + millis(1));
            }
        }
    }
}
