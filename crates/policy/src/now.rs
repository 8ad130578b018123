//! Both clocks, read together, so that a jump of the wall clock cannot change the age of an object.

use std::time::{Duration, Instant, SystemTime};

/// One reading of both clocks. Ages are measured on `mono`; dates are compared on `wall`.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic: for ages and deadlines.
    pub mono: Instant,
    /// Wall clock: only for `Date`, `Expires` and `Last-Modified`.
    pub wall: SystemTime,
}

impl Now {
    /// Reads both clocks. Callers above `policy` do this once per request.
    pub fn read() -> Now {
        Now {
            mono: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// The time `by` later, on both clocks.
    #[must_use]
    pub fn plus(self, by: Duration) -> Now {
        Now {
            mono: self.mono + by,
            wall: self.wall + by,
        }
    }
}
