//! What happened to a request before hyper had it (HTTP/1): hyper handles it as one that arrived
//! then.

use std::sync::atomic::Ordering;

use tokio::time::{Duration, Instant};

use super::ConnectionState;

impl ConnectionState {
    /// Records that hyper handles a request that arrived at this time and has waited (HTTP/1).
    pub(in crate::frontend) fn set_waited_since(&self, arrived: std::time::Instant) {
        let arrived_ns = self.nanos(arrived.into()).max(1);
        self.waited_since_ns.store(arrived_ns, Ordering::Relaxed);
    }

    /// When the current request arrived, if it has waited before hyper had it.
    pub(in crate::frontend) fn take_waited_since(&self) -> Option<Instant> {
        let arrived_ns = self.waited_since_ns.swap(0, Ordering::Relaxed);
        (arrived_ns > 0).then(|| self.born + Duration::from_nanos(arrived_ns))
    }

    /// Records that the request that hyper handles next was taken from its rate limits before.
    pub(in crate::frontend) fn set_is_counted(&self) {
        self.is_counted.store(true, Ordering::Relaxed);
    }

    /// Whether the current request was taken from its rate limits before hyper had it.
    pub(in crate::frontend) fn take_is_counted(&self) -> bool {
        let is_counted = self.is_counted.load(Ordering::Relaxed);
        if is_counted {
            self.is_counted.store(false, Ordering::Relaxed);
        }
        is_counted
    }
}
