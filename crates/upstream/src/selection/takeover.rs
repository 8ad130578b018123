//! Decides whether a body that one endpoint has begun to send may be requested from another. Like
//! a retry, it is one more request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Maximum number of takeovers beyond the budget with unknown result: if all endpoints stall at
/// once they are overloaded, and must not receive every request again.
const UNPROVEN_MAX: usize = 8;

/// The takeovers of a group.
pub(crate) struct Takeovers {
    /// The last takeover delivered more of the body than the first endpoint.
    last_one_helped: AtomicBool,
    unproven: Arc<AtomicUsize>,
}

/// Permission to request a body from another endpoint; held until the result is known.
pub struct Takeover {
    unproven: Option<Arc<AtomicUsize>>,
}

impl Default for Takeovers {
    fn default() -> Takeovers {
        Takeovers {
            last_one_helped: AtomicBool::new(true),
            unproven: Arc::default(),
        }
    }
}

impl Takeovers {
    /// Permits a takeover. `spend` takes it from the retry budget, which alone decides if the
    /// endpoint is only slow. A silent or failed endpoint must not cause viewer errors because the
    /// budget is spent, while takeovers help.
    pub(crate) fn begin(&self, failed: bool, spend: impl FnOnce() -> bool) -> Option<Takeover> {
        if spend() {
            return Some(Takeover { unproven: None });
        }
        if !failed || !self.last_one_helped.load(Ordering::Relaxed) {
            return None;
        }
        let before = self.unproven.fetch_add(1, Ordering::Relaxed);
        let takeover = Takeover {
            unproven: Some(Arc::clone(&self.unproven)),
        };
        (before < UNPROVEN_MAX).then_some(takeover)
    }

    pub(crate) fn end(&self, helped: bool) {
        self.last_one_helped.store(helped, Ordering::Relaxed);
    }
}

impl Drop for Takeover {
    fn drop(&mut self) {
        if let Some(unproven) = &self.unproven {
            unproven.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takeover_of_slow_endpoint_needs_budget() {
        let takeovers = Takeovers::default();
        assert!(takeovers.begin(false, || true).is_some());
        assert!(takeovers.begin(false, || false).is_none());
    }

    #[test]
    fn takeover_of_failed_endpoint_exceeds_budget_while_it_helps() {
        let takeovers = Takeovers::default();
        assert!(takeovers.begin(true, || false).is_some());
        takeovers.end(false);
        assert!(takeovers.begin(true, || false).is_none());
        takeovers.end(true);
        assert!(takeovers.begin(true, || false).is_some());
    }

    #[test]
    fn unproven_takeovers_beyond_budget_are_limited() {
        let takeovers = Takeovers::default();
        let begin = || takeovers.begin(true, || false);
        let under_way: Vec<_> = (0..2 * UNPROVEN_MAX).filter_map(|_| begin()).collect();
        assert_eq!(under_way.len(), UNPROVEN_MAX);
        drop(under_way);
        assert!(begin().is_some());
    }
}
