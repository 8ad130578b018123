//! Limits how often a log line is repeated.

use std::time::{Duration, Instant};

/// Minimum time between two lines.
const INTERVAL_MIN: Duration = Duration::from_secs(10);

/// Rate limit of one log line.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle {
    next: Option<Instant>,
    suppressed: u64,
}

impl LogThrottle {
    /// Returns the number of lines dropped since the last one if the line may be written now, else
    /// `None`.
    pub(crate) fn allows(&mut self, now: Instant) -> Option<u64> {
        if self.next.is_some_and(|next| now < next) {
            self.suppressed += 1;
            return None;
        }
        self.next = Some(now + INTERVAL_MIN);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttled_log_reports_number_of_skipped_lines() {
        let now = Instant::now();
        let mut throttle = LogThrottle::default();
        assert_eq!(throttle.allows(now), Some(0));
        assert_eq!(throttle.allows(now), None);
        assert_eq!(throttle.allows(now + INTERVAL_MIN / 2), None);
        assert_eq!(throttle.allows(now + INTERVAL_MIN), Some(2));
    }
}
