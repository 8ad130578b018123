//! A token bucket, stored as the time at which it will be full again: each token taken moves that
//! time further away.
//!
//! The clock is a parameter; this module never waits.

use std::time::Duration;

use tokio::time::Instant;

const SECOND_NS: u64 = 1_000_000_000;
/// The burst is the tokens of this fraction of a second.
const BURSTS_PER_SECOND: u32 = 10;

/// A request rate, even except for a short burst.
pub(super) struct TokenBucket {
    /// Time between two tokens.
    interval: Duration,
    /// At most this long before full, the bucket still holds a token.
    slack: Duration,
    /// `None`: no token was taken yet.
    full_at: Option<Instant>,
}

impl TokenBucket {
    /// A full bucket.
    pub(super) fn new(per_second: u32) -> TokenBucket {
        let per_second = per_second.max(1);
        // Rounded up: never more than the allowed rate.
        let interval = Duration::from_nanos(SECOND_NS.div_ceil(per_second.into()));
        let burst = (per_second / BURSTS_PER_SECOND).max(1);
        TokenBucket {
            interval,
            slack: interval * (burst - 1),
            full_at: None,
        }
    }

    /// Grants another rate from now on. The level stays, relative to the burst: an empty bucket is
    /// still empty.
    pub(super) fn set_rate(&mut self, per_second: u32, now: Instant) {
        let full_at = self.full_at;
        *self = TokenBucket::new(per_second);
        let empty = now + self.slack + self.interval;
        self.full_at = full_at.map(|full_at| full_at.min(empty));
    }

    /// Time until a token is available.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.full_at.map_or(Duration::ZERO, |full_at| {
            full_at.saturating_duration_since(now + self.slack)
        })
    }

    /// Takes a token, if one is available.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let is_available = self.wait(now).is_zero();
        if is_available {
            let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
            self.full_at = Some(full_at + self.interval);
        }
        is_available
    }

    /// Returns an unused token.
    pub(super) fn put_back(&mut self) {
        self.full_at = self
            .full_at
            .and_then(|full_at| full_at.checked_sub(self.interval));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Takes tokens until none is left.
    fn drain(bucket: &mut TokenBucket, now: Instant) -> usize {
        (0..10_000).take_while(|_| bucket.take(now)).count()
    }

    #[test]
    fn burst_is_a_tenth_of_a_second_then_tokens_come_evenly() {
        let (mut bucket, start) = (TokenBucket::new(100), Instant::now());
        assert_eq!(drain(&mut bucket, start), 10);
        assert_eq!(bucket.wait(start), 10 * MS);
        assert_eq!(drain(&mut bucket, start + 9 * MS), 0);
        assert_eq!(drain(&mut bucket, start + 10 * MS), 1);
        assert_eq!(drain(&mut bucket, start + 45 * MS), 3);
        assert_eq!(bucket.wait(start + 45 * MS), 5 * MS);
        assert_eq!(drain(&mut bucket, start + 3600 * 1000 * MS), 10);
    }

    #[test]
    fn level_stays_when_the_rate_changes() {
        for (from, to, granted_in_a_second) in [(10, 1000, 1000), (1000, 10, 10), (1, 1000, 1000)] {
            let (mut bucket, start) = (TokenBucket::new(from), Instant::now());
            drain(&mut bucket, start);
            bucket.set_rate(to, start);
            assert_eq!(drain(&mut bucket, start), 0, "{from} to {to}");
            let mut taken = 0;
            for ms in 1..=1000 {
                taken += drain(&mut bucket, start + ms * MS);
            }
            assert!(taken <= granted_in_a_second + 1, "{from} to {to}: {taken}");
            assert!(taken + 1 >= granted_in_a_second, "{from} to {to}: {taken}");
        }
        let (mut bucket, start) = (TokenBucket::new(100), Instant::now());
        bucket.set_rate(200, start);
        assert_eq!(drain(&mut bucket, start), 20, "a full bucket stays full");
    }

    #[test]
    fn low_rate_still_has_a_burst_of_one() {
        let (mut bucket, start) = (TokenBucket::new(3), Instant::now());
        let mut taken = 0;
        for ms in 0..3000 {
            taken += drain(&mut bucket, start + ms * MS);
        }
        assert_eq!(taken, 9);
    }

    #[test]
    fn returned_token_is_reusable_and_never_exceeds_the_burst() {
        let (mut bucket, start) = (TokenBucket::new(20), Instant::now());
        assert_eq!(drain(&mut bucket, start), 2);
        bucket.put_back();
        assert_eq!(drain(&mut bucket, start), 1);
        bucket.put_back();
        assert_eq!(drain(&mut bucket, start + 10_000 * MS), 2);
    }
}
