//! Computes the wait before a retry: exponential backoff with full jitter, so that requests that
//! failed together are not retried together. It does not decide whether there is a retry.

use std::time::Duration;

use super::portion;

/// The waits before retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Maximum wait before the first retry.
    pub base: Duration,
    /// The maximum is multiplied by this for each further retry.
    pub factor: u32,
    /// Upper bound of the maximum.
    pub max: Duration,
    /// If the origin's `Retry-After` is longer than this, the request is not retried.
    pub retry_after_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            base: Duration::from_millis(50),
            factor: 2,
            max: Duration::from_secs(1),
            retry_after_max: Duration::from_secs(2),
        }
    }
}

impl Settings {
    /// The wait before a retry; the first retry is number 0, and `random` is from 0 to 1. The
    /// origin's `Retry-After` is added. `None` if it is longer than `retry_after_max`.
    pub(crate) fn wait(
        &self,
        retry: u32,
        random: f64,
        retry_after: Option<Duration>,
    ) -> Option<Duration> {
        let asked_for = retry_after.unwrap_or_default();
        if asked_for > self.retry_after_max {
            return None;
        }
        let longer = self.factor.saturating_pow(retry);
        let ceiling = self.base.saturating_mul(longer).min(self.max);
        Some(asked_for.saturating_add(portion(ceiling, random)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn backoff_ceiling_doubles_up_to_max() {
        let settings = Settings::default();
        let ceiling = |retry| settings.wait(retry, 1.0, None).unwrap().as_millis();
        let ceilings = [0, 1, 2, 4, 5, 1_000].map(ceiling);
        assert_eq!(ceilings, [50, 100, 200, 800, 1_000, 1_000]);
    }

    #[test]
    fn no_retry_when_retry_after_exceeds_max() {
        let settings = Settings::default();
        let wait = |seconds| settings.wait(0, 0.5, Some(Duration::from_secs(seconds)));
        assert_eq!(wait(2), Some(Duration::from_millis(2_025)));
        assert_eq!(wait(3), None);
    }

    proptest! {
        #[test]
        fn wait_is_at_least_retry_after_and_adds_at_most_max(
            retry: u32,
            random in 0.0_f64..=1.0,
            retry_after in proptest::option::of(0_u64..5_000),
        ) {
            let settings = Settings::default();
            let asked_for = retry_after.map(Duration::from_millis);
            match settings.wait(retry, random, asked_for) {
                Some(wait) => {
                    let least = asked_for.unwrap_or_default();
                    prop_assert!(least <= wait && wait <= least + settings.max);
                }
                None => prop_assert!(asked_for > Some(settings.retry_after_max)),
            }
        }
    }
}
