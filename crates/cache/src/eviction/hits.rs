//! Counts how often a stored object was served, at almost no cost per hit.

use std::sync::atomic::{AtomicU8, Ordering};

/// An approximate counter in one byte (Morris). It is exact up to `EXACT_MAX`. Above that, each
/// step stands for more hits and is taken less often, so that the counter of a popular object is
/// rarely written and its cache line stays shared between cores.
#[derive(Debug, Default)]
pub struct HitCounter(AtomicU8);

const EXACT_MAX: u8 = 8;
/// After this many steps, a step stands for twice as many hits.
const STEPS_PER_DOUBLING: u8 = 4;
/// Counts above this are not distinguished.
const DOUBLINGS_MAX: u8 = 30;

impl HitCounter {
    /// Counts one hit: a relaxed load, and a store while the count is small.
    pub fn add(&self) {
        let steps = self.0.load(Ordering::Relaxed);
        let doublings = steps.saturating_sub(EXACT_MAX) / STEPS_PER_DOUBLING;
        let is_counted = match doublings {
            0 => true,
            1..DOUBLINGS_MAX => fastrand::u32(..) >> (32 - u32::from(doublings)) == 0,
            _ => false,
        };
        if is_counted {
            // Two hits at the same moment may count as one.
            self.0.store(steps + 1, Ordering::Relaxed);
        }
    }

    /// Hits since the last [`HitCounter::take`].
    pub(super) fn count(&self) -> f32 {
        hits(self.0.load(Ordering::Relaxed))
    }

    /// As [`HitCounter::count`], and resets the counter.
    pub(super) fn take(&self) -> f32 {
        hits(self.0.swap(0, Ordering::Relaxed))
    }
}

impl AsRef<HitCounter> for HitCounter {
    fn as_ref(&self) -> &HitCounter {
        self
    }
}

/// A copy continues from the same count.
impl Clone for HitCounter {
    fn clone(&self) -> HitCounter {
        HitCounter(AtomicU8::new(self.0.load(Ordering::Relaxed)))
    }
}

/// The average number of hits for a number of steps.
fn hits(steps: u8) -> f32 {
    let above = steps.saturating_sub(EXACT_MAX);
    let exact = steps - above;
    let (doublings, rest) = (above / STEPS_PER_DOUBLING, above % STEPS_PER_DOUBLING);
    let step = 2_f32.powi(i32::from(doublings));
    f32::from(exact) + f32::from(STEPS_PER_DOUBLING) * (step - 1.0) + f32::from(rest) * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "whole numbers")]
    fn counts_few_hits_exactly_and_resets_when_taken() {
        let counter = HitCounter::default();
        (0..EXACT_MAX).for_each(|_| counter.add());
        assert_eq!(counter.count(), f32::from(EXACT_MAX));
        assert_eq!(counter.take(), f32::from(EXACT_MAX));
        assert_eq!(counter.count(), 0.0);
    }

    #[test]
    fn estimates_many_hits_within_a_factor_of_two() {
        fastrand::seed(7);
        for hits in [100_u32, 10_000, 300_000] {
            let counter = HitCounter::default();
            (0..hits).for_each(|_| counter.add());
            let ratio = f64::from(counter.count()) / f64::from(hits);
            assert!((0.5..2.0).contains(&ratio), "{ratio} of {hits}");
        }
    }
}
