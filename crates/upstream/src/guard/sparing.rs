//! Limits how often a log line is repeated.

use std::time::{Duration, Instant};

/// Minimum time between two lines.
const PAUSE: Duration = Duration::from_secs(10);

/// Rate limit of one log line.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle {
    next: Option<Instant>,
    left_out: u64,
}

impl LogThrottle {
    /// Returns the number of lines dropped since the last one if the line may be written now, else
    /// `None`.
    pub(crate) fn allows(&mut self, now: Instant) -> Option<u64> {
        if self.next.is_some_and(|next| now < next) {
            self.left_out += 1;
            return None;
        }
        self.next = Some(now + PAUSE);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttled_log_reports_number_of_skipped_lines() {
        let now = Instant::now();
        let mut sparing = LogThrottle::default();
        assert_eq!(sparing.allows(now), Some(0));
        assert_eq!(sparing.allows(now), None);
        assert_eq!(sparing.allows(now + PAUSE / 2), None);
        assert_eq!(sparing.allows(now + PAUSE), Some(2));
    }
}
