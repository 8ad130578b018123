//! Summarises many durations in a few figures.

use std::time::Duration;

/// Durations, shortest first.
pub struct Spread(Vec<Duration>);

impl Spread {
    pub fn of(durations: impl Iterator<Item = Duration>) -> Spread {
        let mut durations: Vec<_> = durations.collect();
        durations.sort_unstable();
        Spread(durations)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The number of durations above this.
    pub fn count_over(&self, bound: Duration) -> usize {
        self.0.iter().filter(|one| **one > bound).count()
    }

    pub fn mean(&self) -> Duration {
        let count = u32::try_from(self.0.len().max(1)).unwrap_or(u32::MAX);
        self.0.iter().sum::<Duration>() / count
    }

    /// In milliseconds, this percentile and the longest: `p99 / max`.
    pub fn percentile_and_max(&self, percent: usize) -> String {
        let place = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        let at = |place: usize| millis(self.0.get(place).copied().unwrap_or_default());
        format!("{} / {}", at(place), at(self.0.len().saturating_sub(1)))
    }

    /// The median, in milliseconds.
    pub fn median(&self) -> String {
        millis(self.0.get(self.0.len() / 2).copied().unwrap_or_default())
    }
}

pub fn millis(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1e3)
}

/// `1.07`.
pub fn ratio(count: u64, of: u64) -> String {
    format!("{:.2}", count as f64 / of.max(1) as f64)
}

/// `3.2 %`.
pub fn percent(count: usize, of: usize) -> String {
    format!("{:.1} %", 100.0 * count as f64 / of.max(1) as f64)
}
