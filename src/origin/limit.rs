//! How many may ask an origin at once? Permits, and a short queue for them.
//!
//! Knows nothing of requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Failure;

/// The gate before an origin.
pub(super) struct Gate {
    permits: Arc<Semaphore>,
    permits_max: usize,
    waiting: AtomicUsize,
    waiting_max: usize,
}

/// Leave to ask; given back when dropped.
pub(super) struct Permit {
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    pub(super) fn new(concurrency_max: usize, queue_max: usize) -> Gate {
        let permits_max = concurrency_max.clamp(1, Semaphore::MAX_PERMITS);
        Gate {
            permits: Arc::new(Semaphore::new(permits_max)),
            permits_max,
            waiting: AtomicUsize::new(0),
            waiting_max: queue_max,
        }
    }

    /// Waits for a permit, but neither in a full queue nor longer than `patience`.
    pub(super) async fn enter(&self, patience: Duration) -> Result<Permit, Failure> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(Permit { _permit: permit });
        }
        let _place = Place::take(self)?;
        let permit = Arc::clone(&self.permits).acquire_owned();
        match tokio::time::timeout(patience, permit).await {
            Ok(Ok(permit)) => Ok(Permit { _permit: permit }),
            _ => Err(Failure::Busy),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.permits_max - self.permits.available_permits()
    }

    pub(super) fn queued(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// A place in the queue; left when dropped, so that a caller who gives up frees it.
struct Place<'a>(&'a Gate);

impl<'a> Place<'a> {
    fn take(gate: &'a Gate) -> Result<Place<'a>, Failure> {
        let place = Place(gate);
        if gate.waiting.fetch_add(1, Ordering::AcqRel) < gate.waiting_max {
            Ok(place)
        } else {
            Err(Failure::Busy)
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_permit_is_waited_for_and_handed_on() {
        let gate = Arc::new(Gate::new(1, 1));
        let first = gate.enter(LONG).await.ok().unwrap();
        assert_eq!(gate.in_flight(), 1);
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter(LONG).await.map(drop) }
        });
        while gate.queued() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(gate.enter(LONG).await.err(), Some(Failure::Busy));
        drop(first);
        assert_eq!(waiting.await.unwrap(), Ok(()));
        assert_eq!((gate.in_flight(), gate.queued()), (0, 0));
    }

    #[tokio::test]
    async fn waiting_ends_in_time() {
        let gate = Gate::new(1, 8);
        let _first = gate.enter(LONG).await.ok().unwrap();
        assert_eq!(gate.enter(SHORT).await.err(), Some(Failure::Busy));
        assert_eq!(gate.queued(), 0);
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_queue() {
        let gate = Arc::new(Gate::new(1, 1));
        let _first = gate.enter(LONG).await.ok().unwrap();
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter(LONG).await.map(drop) }
        });
        while gate.queued() == 0 {
            tokio::task::yield_now().await;
        }
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert_eq!(gate.queued(), 0);
    }
}
