//! Retry budget: limits a group's extra requests to a share of its requests, so that a failing
//! origin does not get twice the requests of a healthy one. It does not decide when or why a
//! request is repeated.

use std::time::{Duration, Instant};

use super::window::SlidingWindow;

/// How many extra requests may be sent: retries, hedges and takeovers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Extra requests per request: 0.2 is one in five.
    pub share: f64,
    /// Extra requests per second on top of the share, so that a group with few requests can retry.
    pub per_s_min: u32,
    /// The period over which both are counted. The unused part of the minimum may be spent at once.
    pub window: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            share: 0.2,
            per_s_min: 1,
            window: Duration::from_secs(10),
        }
    }
}

/// The retry budget of one group.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    settings: Settings,
    /// Requests, and (marked) the extra ones.
    window: SlidingWindow,
}

impl RetryBudget {
    pub(crate) fn new(settings: Settings, now: Instant) -> RetryBudget {
        RetryBudget {
            settings,
            window: SlidingWindow::new(settings.window, now),
        }
    }

    /// Grants another share from now on. The requests counted so far stay counted.
    pub(crate) fn set_settings(&mut self, settings: Settings, now: Instant) {
        if settings.window != self.settings.window {
            self.window.set_span(settings.window, now);
        }
        self.settings = settings;
    }

    /// Counts a first request. Extra ones are counted by [`RetryBudget::try_spend`].
    pub(crate) fn record_request(&mut self, now: Instant) {
        let slice = self.window.slice(now);
        slice.all = slice.all.saturating_add(1);
    }

    /// Spends one extra request if the budget allows it. Call it last, when the request is sure to
    /// be sent: it cannot be given back.
    pub(crate) fn try_spend(&mut self, now: Instant) -> bool {
        let can_afford = self.can_afford(now);
        if can_afford {
            let slice = self.window.slice(now);
            slice.marked = slice.marked.saturating_add(1);
        }
        can_afford
    }

    /// The budget allows an extra request.
    pub(crate) fn can_afford(&self, now: Instant) -> bool {
        self.available(now) >= 1.0
    }

    /// Extra requests that may still be sent. Negative when the requests that earned those already
    /// sent have left the window.
    fn available(&self, now: Instant) -> f64 {
        let counts = self.window.counts(now);
        let earned = f64::from(counts.all) * self.settings.share;
        let minimum = f64::from(self.settings.per_s_min) * self.settings.window.as_secs_f64();
        earned + minimum - f64::from(counts.marked)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spend_all(budget: &mut RetryBudget, now: Instant) -> usize {
        (0..1_000).take_while(|_| budget.try_spend(now)).count()
    }

    #[test]
    fn allows_share_of_requests_plus_minimum() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(Settings::default(), now);
        (0..100).for_each(|_| budget.record_request(now));
        assert_eq!(spend_all(&mut budget, now), 20 + 10);
        let later = now + Settings::default().window;
        assert_eq!(spend_all(&mut budget, later), 10);
    }

    #[test]
    fn allows_no_retry_with_zero_share_and_minimum() {
        let now = Instant::now();
        let settings = Settings {
            share: 0.0,
            per_s_min: 0,
            ..Settings::default()
        };
        let mut budget = RetryBudget::new(settings, now);
        (0..100).for_each(|_| budget.record_request(now));
        assert!(!budget.try_spend(now));
    }

    proptest! {
        /// Compares with an exact count; the sliced window covers at least nine tenths of it.
        #[test]
        fn spent_retries_never_exceed_share_plus_minimum(
            share in 0.0_f64..1.0,
            per_s_min in 0_u32..3,
            steps in proptest::collection::vec((0_u64..400, 0_usize..6, 0_usize..6), 1..100),
        ) {
            let settings = Settings { share, per_s_min, ..Settings::default() };
            let mut now = Instant::now();
            let mut budget = RetryBudget::new(settings, now);
            let (mut requests, mut spent) = (Vec::new(), Vec::new());
            let within = |events: &[Instant], now: Instant, span: Duration| {
                let recent = events.iter().filter(|&&at| now - at < span).count();
                f64::from(u32::try_from(recent).unwrap())
            };
            let (most, least) = (settings.window, settings.window * 9 / 10);
            let minimum = f64::from(per_s_min) * settings.window.as_secs_f64();
            for (wait, asked, wanted) in steps {
                now += Duration::from_millis(wait);
                (0..asked).for_each(|_| budget.record_request(now));
                requests.extend(std::iter::repeat_n(now, asked));
                for _ in 0..wanted {
                    if budget.try_spend(now) {
                        spent.push(now);
                        let bound = share * within(&requests, now, most) + minimum;
                        prop_assert!(within(&spent, now, least) <= bound + 1e-6);
                    } else {
                        let bound = share * within(&requests, now, least) + minimum;
                        prop_assert!(within(&spent, now, most) + 1.0 > bound - 1e-6);
                    }
                }
            }
        }
    }
}
