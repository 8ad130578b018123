//! May a line be written again? Once in a while at most, whatever happens in between.

use std::time::{Duration, Instant};

/// Between two lines at least.
const PAUSE: Duration = Duration::from_secs(10);

/// Bounds how often something is logged.
#[derive(Debug, Default)]
pub(in crate::upstream) struct LogThrottle {
    next: Option<Instant>,
    left_out: u64,
}

impl LogThrottle {
    /// Whether to write it; if so, how often it was left out since the last time.
    pub(in crate::upstream) fn allows(&mut self, now: Instant) -> Option<u64> {
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
    fn says_how_often_it_was_silent() {
        let now = Instant::now();
        let mut sparing = LogThrottle::default();
        assert_eq!(sparing.allows(now), Some(0));
        assert_eq!(sparing.allows(now), None);
        assert_eq!(sparing.allows(now + PAUSE / 2), None);
        assert_eq!(sparing.allows(now + PAUSE), Some(2));
    }
}
