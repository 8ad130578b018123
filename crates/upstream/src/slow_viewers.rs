//! Handles requests that wait for their viewer. A body that its viewer does not read or send costs
//! the origin nothing: after a short wait it returns its permits and takes a slot among slow
//! viewers, whose number is limited separately.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::limit::Permit;

/// A viewer that takes longer than this for a chunk is slow.
const SLOW_VIEWER_AFTER: Duration = Duration::from_millis(100);

/// The slots of a group for requests with slow viewers.
pub(super) struct SlowViewers {
    slots: Mutex<SlowViewerSlots>,
}

#[derive(Default)]
struct SlowViewerSlots {
    max: usize,
    taken: usize,
    /// Requests that wait for their viewer, the longest wait first.
    waits: BTreeMap<u64, Arc<Notify>>,
    waits_begun: u64,
    cut: u64,
}

/// The permits that one request holds.
pub(super) struct RequestPermits {
    viewers: Arc<SlowViewers>,
    held: Mutex<HeldPermits>,
}

#[derive(Default)]
struct HeldPermits {
    _group: Option<Permit>,
    endpoint: Option<Permit>,
    /// The request holds a slow-viewer slot instead of permits.
    has_slow_slot: bool,
}

/// A wait for a viewer; unregistered when dropped.
struct ViewerWait<'a> {
    viewers: &'a SlowViewers,
    number: u64,
    cut: Arc<Notify>,
}

impl SlowViewers {
    pub(super) fn new(slots_max: usize) -> SlowViewers {
        let viewers = SlowViewers {
            slots: Mutex::default(),
        };
        viewers.set_max(slots_max);
        viewers
    }

    /// Allows another number from now on. If it is lower, no request is cut for it: each one that
    /// becomes slow cuts another.
    pub(super) fn set_max(&self, slots_max: usize) {
        self.slots.lock().max = slots_max.max(1);
    }

    /// Number of requests with slow viewers now, and number of those cut so far.
    pub(super) fn counts(&self) -> (usize, u64) {
        let slots = self.slots.lock();
        (slots.taken, slots.cut)
    }

    fn wait(&self) -> ViewerWait<'_> {
        let mut slots = self.slots.lock();
        let number = slots.waits_begun;
        slots.waits_begun += 1;
        let cut = Arc::new(Notify::new());
        slots.waits.insert(number, Arc::clone(&cut));
        ViewerWait {
            viewers: self,
            number,
            cut,
        }
    }

    /// Takes a slot. If none is free, cuts the request that has waited longest for its viewer.
    fn take_slot(&self) {
        let mut slots = self.slots.lock();
        slots.taken += 1;
        if slots.taken > slots.max
            && let Some((_, slowest)) = slots.waits.pop_first()
        {
            slots.cut += 1;
            drop(slots);
            slowest.notify_one();
        }
    }
}

impl Drop for ViewerWait<'_> {
    fn drop(&mut self) {
        self.viewers.slots.lock().waits.remove(&self.number);
    }
}

impl RequestPermits {
    pub(super) fn new(viewers: &Arc<SlowViewers>, group: Permit) -> Arc<RequestPermits> {
        Arc::new(RequestPermits {
            viewers: Arc::clone(viewers),
            held: Mutex::new(HeldPermits {
                _group: Some(group),
                ..HeldPermits::default()
            }),
        })
    }

    /// Holds the permit of the endpoint that is requested now, in place of the one before it. A
    /// request with a slow-viewer slot holds no permits: the permit is released at once.
    pub(super) fn set_endpoint_permit(&self, endpoint: Option<Permit>) {
        let mut held = self.held.lock();
        let released = if held.has_slow_slot {
            endpoint
        } else {
            std::mem::replace(&mut held.endpoint, endpoint)
        };
        drop(held);
        drop(released);
    }

    /// Waits for the viewer. `None`: the request was cut to make room.
    pub(super) async fn wait_for_viewer<T>(&self, event: impl Future<Output = T>) -> Option<T> {
        let mut event = pin!(event);
        if !self.held.lock().has_slow_slot
            && let Ok(outcome) = timeout(SLOW_VIEWER_AFTER, &mut event).await
        {
            return Some(outcome);
        }
        let wait = self.viewers.wait();
        self.release_permits();
        tokio::select! {
            biased;
            outcome = event => Some(outcome),
            () = wait.cut.notified() => None,
        }
    }

    fn release_permits(&self) {
        let mut held = self.held.lock();
        if held.has_slow_slot {
            return;
        }
        let permits = std::mem::replace(
            &mut *held,
            HeldPermits {
                has_slow_slot: true,
                ..HeldPermits::default()
            },
        );
        drop(held);
        drop(permits);
        self.viewers.take_slot();
    }
}

impl Drop for RequestPermits {
    fn drop(&mut self) {
        if self.held.get_mut().has_slow_slot {
            self.viewers.slots.lock().taken -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::Priority;
    use crate::limit::{ConcurrencyLimiter, LimiterSettings};

    const SOON: Duration = Duration::from_secs(1);

    fn limiter(concurrency_max: usize) -> ConcurrencyLimiter {
        ConcurrencyLimiter::new(&LimiterSettings {
            concurrency_max,
            reserved_for_manifests: 0,
            queue_max: 8,
            requests_per_second_max: None,
        })
    }

    async fn enter(limiter: &ConcurrencyLimiter) -> Permit {
        limiter.acquire(Priority::Segment, SOON).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn slow_viewer_returns_both_permits_and_fast_one_keeps_them() {
        let (group, endpoint) = (limiter(1), limiter(1));
        let viewers = Arc::new(SlowViewers::new(8));
        let permits = RequestPermits::new(&viewers, enter(&group).await);
        permits.set_endpoint_permit(Some(enter(&endpoint).await));
        let quick = tokio::time::sleep(SLOW_VIEWER_AFTER / 2);
        assert_eq!(permits.wait_for_viewer(quick).await, Some(()));
        assert!(group.try_acquire().is_none() && endpoint.try_acquire().is_none());
        let slow = tokio::time::sleep(SLOW_VIEWER_AFTER * 2);
        assert_eq!(permits.wait_for_viewer(slow).await, Some(()));
        assert!(group.try_acquire().is_some() && endpoint.try_acquire().is_some());
        assert_eq!(viewers.counts(), (1, 0));
        drop(permits);
        assert_eq!(viewers.counts(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn above_limit_the_longest_waiting_viewer_is_cut() {
        let group = limiter(8);
        let viewers = Arc::new(SlowViewers::new(2));
        let mut stalled = Vec::new();
        for _ in 0..3 {
            let permits = RequestPermits::new(&viewers, enter(&group).await);
            let waiting = async move { permits.wait_for_viewer(pending::<()>()).await };
            stalled.push(tokio::spawn(waiting));
            tokio::time::sleep(SLOW_VIEWER_AFTER * 2).await;
        }
        assert_eq!(stalled.remove(0).await.unwrap(), None);
        assert!(stalled.iter().all(|waiting| !waiting.is_finished()));
        assert_eq!(viewers.counts(), (2, 1));
        stalled.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
