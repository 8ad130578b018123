//! Tracks the stored bodies that a response is reading, and ends a slow viewer whose body must
//! leave memory.
//!
//! A viewer is registered as a slow reader when its socket or window is full for the first time:
//! see [`SlowReader`]. Most viewers never are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::proxy::{BodyConsumer, SharedBody, SlowReader};

/// The stored bodies that a connection (HTTP/1) or a stream (HTTP/2) is reading.
#[derive(Default)]
pub(super) struct StoredBodiesRead {
    /// Whether `bodies` has any: a response without one never takes the lock.
    any: AtomicBool,
    was_cut: AtomicBool,
    bodies: Mutex<Vec<StoredBodyRead>>,
}

struct StoredBodyRead {
    body: Arc<SharedBody>,
    /// Set when the socket or window was full for the first time.
    slow: Option<SlowReader>,
    /// The whole response was passed on; its last bytes may still wait for the socket.
    is_over: bool,
}

impl StoredBodiesRead {
    /// Records that the current response reads this body.
    pub(super) fn add(&self, body: Arc<SharedBody>) {
        let mut bodies = self.bodies.lock();
        // If a response reads many bodies one after another, only the previous one may still have
        // bytes that wait for the socket.
        let first = bodies.partition_point(|read| read.is_over);
        let last = bodies.len().saturating_sub(1);
        if first < last {
            bodies.drain(first..last);
        }
        bodies.push(StoredBodyRead {
            body,
            slow: None,
            is_over: false,
        });
        self.any.store(true, Ordering::Relaxed);
    }

    /// Records that the whole response was passed on.
    pub(super) fn end_response(&self) {
        if self.has_any() {
            let mut bodies = self.bodies.lock();
            bodies.iter_mut().for_each(|read| read.is_over = true);
        }
    }

    /// Records that the socket has accepted all bytes passed on.
    pub(super) fn record_flush(&self) {
        if self.has_any() {
            let mut bodies = self.bodies.lock();
            bodies.retain(|read| !read.is_over);
            self.any.store(!bodies.is_empty(), Ordering::Relaxed);
        }
    }

    /// Records that no stored body is read any more.
    pub(super) fn clear(&self) {
        self.end_response();
        self.record_flush();
    }

    /// Whether stored bodies are being read.
    pub(super) fn has_any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Whether the viewer has been slow.
    pub(super) fn is_slow(&self) -> bool {
        self.has_any() && self.bodies.lock().iter().any(|read| read.slow.is_some())
    }

    /// Whether the response must end because its slow viewer holds memory that must be freed. If
    /// not, `waker` is called as soon as it must. `is_blocked`: the viewer accepts no bytes now.
    pub(super) fn must_free_memory<V: BodyConsumer + 'static>(
        &self,
        viewer: &Arc<V>,
        is_blocked: bool,
        waker: &Waker,
    ) -> bool {
        if !self.has_any() {
            return false;
        }
        let mut bodies = self.bodies.lock();
        if !is_blocked {
            let slow = bodies.iter().filter_map(|read| read.slow.as_ref());
            slow.for_each(SlowReader::record_caught_up);
            return false;
        }
        let now = Instant::now().into_std();
        let mut must_end = false;
        for read in &mut *bodies {
            if let Some(slow) = &read.slow {
                must_end |= slow.record_blocked(waker, now);
            } else {
                let viewer = Arc::downgrade(viewer);
                read.slow = Some(read.body.register_slow_reader(viewer, waker, now));
            }
        }
        if must_end {
            self.record_cut();
        }
        must_end
    }

    /// Records that the current response is cut to free memory.
    pub(super) fn record_cut(&self) {
        self.was_cut.store(true, Ordering::Relaxed);
    }

    /// Whether a response was cut to free memory.
    pub(super) fn was_cut(&self) -> bool {
        self.was_cut.load(Ordering::Relaxed)
    }
}
