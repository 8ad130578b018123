//! Latency histogram since the start, with upper bounds that monitoring can add up over instances
//! and compare over time. Recent latency is in `guard::latency_window`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Response times by upper bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatencyHistogram {
    /// Number of responses that took at most the bound at the same index of
    /// [`LatencyHistogram::BOUNDS`].
    pub within: [u64; LatencyHistogram::BOUNDS.len()],
    /// Number of responses.
    pub count: u64,
    /// Sum of the response times.
    pub sum: Duration,
}

impl LatencyHistogram {
    /// From a response out of a neighbour's memory to a blocking playlist.
    pub const BOUNDS: [Duration; 13] = [
        Duration::from_millis(1),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(25),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(250),
        Duration::from_millis(500),
        Duration::from_secs(1),
        Duration::from_millis(2500),
        Duration::from_secs(5),
        Duration::from_secs(10),
        Duration::from_secs(30),
    ];
}

/// The counters behind [`LatencyHistogram`].
#[derive(Default)]
pub(super) struct LatencyTimer {
    /// By the first bound that is long enough; the last entry is for longer times.
    buckets: [AtomicU64; LatencyHistogram::BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl LatencyTimer {
    pub(super) fn record(&self, took: Duration) {
        let bucket = LatencyHistogram::BOUNDS.partition_point(|&bound| bound < took);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> LatencyHistogram {
        let mut latency = LatencyHistogram {
            sum: Duration::from_micros(self.micros.load(Ordering::Relaxed)),
            ..LatencyHistogram::default()
        };
        for (index, count) in self.buckets.iter().enumerate() {
            latency.count += count.load(Ordering::Relaxed);
            if let Some(within) = latency.within.get_mut(index) {
                *within = latency.count;
            }
        }
        latency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_histogram_buckets_are_cumulative() {
        assert!(LatencyHistogram::BOUNDS.is_sorted());
        let clocked = LatencyTimer::default();
        for millis in [0, 5, 6, 31_000] {
            clocked.record(Duration::from_millis(millis));
        }
        let latency = clocked.read();
        assert_eq!(latency.within[..4], [1, 2, 3, 3]);
        assert_eq!((latency.within[12], latency.count), (3, 4));
        assert_eq!(latency.sum, Duration::from_millis(31_011));
    }
}
