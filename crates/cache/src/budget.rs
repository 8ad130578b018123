//! Limits the bytes that all fills hold together. Bytes are charged as they arrive.
//!
//! A large fill may not take the last part of the budget: otherwise a few slow large fills would
//! leave nothing for small ones. A fill that finds no room waits for a short time.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// A fill is small while it holds no more than 1/16 of the budget.
const SMALL_SHARE: u64 = 16;
/// 1/4 of the budget is reserved for small fills, unless one fill is all that uses the budget.
const KEPT_SHARE: u64 = 4;

/// Bytes of fills in progress and of pinned bodies.
#[derive(Debug)]
pub(crate) struct FillBudget {
    used: AtomicU64,
    max: u64,
    freed: Notify,
}

impl FillBudget {
    pub(crate) fn new(max: u64) -> FillBudget {
        FillBudget {
            used: AtomicU64::new(0),
            max,
            freed: Notify::new(),
        }
    }

    /// Charges `bytes` to a fill that already holds `held`. False when they do not fit.
    pub(crate) fn take(&self, held: u64, bytes: u64) -> bool {
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                let small = held.saturating_add(bytes) <= self.max / SMALL_SHARE;
                let alone = used <= held;
                let max = if small || alone {
                    self.max
                } else {
                    self.max_for_large()
                };
                used.checked_add(bytes).filter(|sum| *sum <= max)
            });
        taken.is_ok()
    }

    /// Charges bytes that are held in any case, even above the limit.
    pub(crate) fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        if bytes > 0 {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            self.freed.notify_waiters();
        }
    }

    /// Resolves when bytes are given back after this call.
    pub(crate) fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// The limit for all fills together without the part reserved for small ones.
    pub(crate) fn max_for_large(&self) -> u64 {
        self.max - self.max / KEPT_SHARE
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_bytes_beyond_budget_and_counts_accepted_bytes() {
        let budget = FillBudget::new(10);
        assert!(budget.take(0, 6));
        assert!(!budget.take(6, 5));
        assert!(!budget.take(6, u64::MAX));
        budget.give_back(6);
        assert!(budget.take(0, 10));
        assert_eq!(budget.used(), 10);
    }

    #[test]
    fn large_fills_leave_room_for_small_ones_but_one_alone_uses_all() {
        let budget = FillBudget::new(1600);
        let mut large = [0; 4];
        for turn in 0..100 {
            let held = &mut large[turn % 4];
            if budget.take(*held, 50) {
                *held += 50;
            }
        }
        assert_eq!(budget.used(), 1200);
        for _ in 0..4 {
            assert!(budget.take(0, 100));
        }
        assert!(!budget.take(0, 1));
        budget.give_back(1600);
        let alone = (0..16).all(|piece| budget.take(piece * 100, 100));
        assert!(alone && budget.used() == 1600);
    }
}
