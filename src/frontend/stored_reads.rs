//! Which stored bodies does an answer under way read, is its viewer slow, and must it end for that?
//!
//! A viewer who takes all at once is never registered as a slow reader: see [`SlowReader`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::proxy::{BodyConsumer, SharedBody, SlowReader};

/// The stored bodies that a connection (HTTP/1) or a stream (HTTP/2) reads.
#[derive(Default)]
pub(super) struct StoredBodiesRead {
    /// There are some: most answers are small and never take the lock.
    any: AtomicBool,
    was_cut: AtomicBool,
    bodies: Mutex<Vec<StoredBodyRead>>,
}

struct StoredBodyRead {
    body: Arc<SharedBody>,
    /// Once the viewer was held up.
    slow: Option<SlowReader>,
    /// Its answer has been handed out; the last bytes may still wait for the socket.
    is_over: bool,
}

impl StoredBodiesRead {
    /// The answer under way reads this from here on.
    pub(super) fn begin(&self, body: Arc<SharedBody>) {
        let mut bodies = self.bodies.lock();
        // Where an answer reads many bodies in turn, only the last bytes of the one before may still wait for
        // the socket.
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

    /// The answer under way has been handed out.
    pub(super) fn answered(&self) {
        if self.reads() {
            let mut bodies = self.bodies.lock();
            bodies.iter_mut().for_each(|read| read.is_over = true);
        }
    }

    /// All that was handed out has left.
    pub(super) fn flushed(&self) {
        if self.reads() {
            let mut bodies = self.bodies.lock();
            bodies.retain(|read| !read.is_over);
            self.any.store(!bodies.is_empty(), Ordering::Relaxed);
        }
    }

    /// Nothing is read any more.
    pub(super) fn end(&self) {
        self.answered();
        self.flushed();
    }

    /// There are stored bodies that are read.
    pub(super) fn reads(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// The viewer has been held up.
    pub(super) fn is_slow(&self) -> bool {
        self.reads() && self.bodies.lock().iter().any(|read| read.slow.is_some())
    }

    /// Must it end, as the viewer holds up what has to leave memory? If not, `waker` is called as soon as it
    /// must. `is_held_up`: the viewer takes no more for now.
    pub(super) fn must_end<V: BodyConsumer + 'static>(
        &self,
        viewer: &Arc<V>,
        is_held_up: bool,
        waker: &Waker,
    ) -> bool {
        if !self.reads() {
            return false;
        }
        let mut bodies = self.bodies.lock();
        if !is_held_up {
            let slow = bodies.iter().filter_map(|read| read.slow.as_ref());
            slow.for_each(SlowReader::keeps_up);
            return false;
        }
        let now = Instant::now().into_std();
        let mut must_end = false;
        for read in &mut *bodies {
            if let Some(slow) = &read.slow {
                must_end |= slow.is_held_up(waker, now);
            } else {
                let viewer = Arc::downgrade(viewer);
                read.slow = Some(read.body.read_slowly(viewer, waker, now));
            }
        }
        if must_end {
            self.note_cut();
        }
        must_end
    }

    /// What is under way ends for want of memory.
    pub(super) fn note_cut(&self) {
        self.was_cut.store(true, Ordering::Relaxed);
    }

    /// It had to end.
    pub(super) fn was_cut(&self) -> bool {
        self.was_cut.load(Ordering::Relaxed)
    }
}
