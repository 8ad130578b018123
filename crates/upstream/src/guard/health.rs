//! Health state of one endpoint from active health checks. It counts results and schedules the next
//! check; it does not make the checks.

use std::time::{Duration, Instant};

use super::portion;

/// A check is early or late by up to a tenth of the interval, so that shields or endpoints that
/// started together drift apart.
const JITTER: u32 = 10;

/// The check interval and the thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Approximate time between two checks.
    pub every: Duration,
    /// Consecutive successes that make an unhealthy endpoint healthy.
    pub successes: u32,
    /// Consecutive failures that make a healthy endpoint unhealthy.
    pub failures: u32,
}

impl Settings {
    /// The time of the first check, which is soon after the start. `random` is from 0 to 1.
    pub(crate) fn first_check(&self, now: Instant, random: f64) -> Instant {
        now + portion(self.every / JITTER, random)
    }

    /// The time of the next check after one that starts now. `random` is from 0 to 1.
    pub(crate) fn next_check(&self, now: Instant, random: f64) -> Instant {
        let early = self.every / JITTER;
        now + early * (JITTER - 1) + portion(early * 2, random)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            every: Duration::from_secs(30),
            successes: 2,
            failures: 3,
        }
    }
}

/// Health check results of one endpoint. It starts healthy.
#[derive(Debug)]
pub(crate) struct HealthState {
    settings: Settings,
    healthy: bool,
    /// Consecutive results that contradict the current state.
    contrary: u32,
    passed_total: u64,
    failed_total: u64,
}

impl HealthState {
    pub(crate) fn new(settings: Settings) -> HealthState {
        HealthState {
            settings,
            healthy: true,
            contrary: 0,
            passed_total: 0,
            failed_total: 0,
        }
    }

    /// Uses another schedule from now on. The state stays.
    pub(crate) fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// The checks ask for something else from now on: what the former ones found does not hold.
    pub(crate) fn reset(&mut self) {
        self.healthy = true;
        self.contrary = 0;
    }

    pub(crate) fn healthy(&self) -> bool {
        self.healthy
    }

    /// Number of successful checks.
    pub(crate) fn passed_total(&self) -> u64 {
        self.passed_total
    }

    /// Number of failed checks.
    pub(crate) fn failed_total(&self) -> u64 {
        self.failed_total
    }

    /// Records the result of a check. Returns whether the state changed.
    pub(crate) fn record(&mut self, ok: bool) -> bool {
        let total = if ok {
            &mut self.passed_total
        } else {
            &mut self.failed_total
        };
        *total += 1;
        if ok == self.healthy {
            self.contrary = 0;
            return false;
        }
        self.contrary += 1;
        let needed = if ok {
            self.settings.successes
        } else {
            self.settings.failures
        };
        let turned = self.contrary >= needed;
        if turned {
            self.healthy = ok;
            self.contrary = 0;
        }
        turned
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(health: &mut HealthState, checks: &[bool]) -> Vec<bool> {
        checks.iter().map(|&ok| health.record(ok)).collect()
    }

    #[test]
    fn turns_unhealthy_after_3_failures_and_healthy_after_2_passes() {
        let mut health = HealthState::new(Settings::default());
        assert!(health.healthy());
        let down = turns(&mut health, &[false, false, true, false, false, false]);
        assert_eq!(down, [false, false, false, false, false, true]);
        assert!(!health.healthy());
        let up = turns(&mut health, &[true, false, true, true]);
        assert_eq!(up, [false, false, false, true]);
        assert!(health.healthy());
        assert_eq!((health.passed_total(), health.failed_total()), (4, 6));
    }

    #[test]
    fn zero_failures_or_successes_setting_means_one() {
        let settings = Settings {
            failures: 0,
            successes: 0,
            ..Settings::default()
        };
        let mut health = HealthState::new(settings);
        assert_eq!(turns(&mut health, &[false, true]), [true, true]);
    }

    proptest! {
        #[test]
        fn health_changes_only_after_enough_results_in_a_row(
            checks in proptest::collection::vec(any::<bool>(), 0..60),
        ) {
            let mut health = HealthState::new(Settings::default());
            for (at, &ok) in checks.iter().enumerate() {
                let turned = health.record(ok);
                let needed = if ok { 2 } else { 3 };
                let row = checks[..=at].iter().rev().take_while(|&&other| other == ok);
                let row = row.count();
                prop_assert!(!turned || row >= needed);
                prop_assert!(row < needed || health.healthy() == ok);
            }
        }

        #[test]
        fn checks_are_scheduled_near_the_interval(random in 0.0_f64..=1.0) {
            let now = Instant::now();
            let settings = Settings::default();
            let next = (settings.next_check(now, random) - now).as_secs_f64();
            prop_assert!((27.0..=33.0).contains(&next));
            let first = (settings.first_check(now, random) - now).as_secs_f64();
            prop_assert!((0.0..=3.0).contains(&first));
        }
    }
}
