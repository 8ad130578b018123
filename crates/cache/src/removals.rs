//! Counts how often something has left the store.

use std::sync::atomic::{AtomicU32, Ordering};

/// How often a store entry with this value has left the store. A count that has not changed since a
/// lookup shows, without another lookup, that the entry is still there.
#[derive(Debug, Default)]
pub(super) struct RemovalCount(AtomicU32);

impl RemovalCount {
    pub(super) fn read(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// A copy has never been stored.
impl Clone for RemovalCount {
    fn clone(&self) -> RemovalCount {
        RemovalCount::default()
    }
}
