//! Counters that every thread may increment at the same time without slowing another down.
//!
//! Each thread writes to memory of its own, and a scrape adds up all of it. A counter that the
//! workers shared would move its cache line from core to core with every hit.

use std::sync::atomic::{AtomicU64, Ordering};

use thread_local::ThreadLocal;

/// As many counters as fit into a cache line. Aligned, so that two threads never share a line.
#[derive(Default)]
#[repr(align(64))]
struct CacheLine([AtomicU64; COUNTERS_PER_LINE]);

const COUNTERS_PER_LINE: usize = 8;

/// A fixed number of counters, known by their indexes.
pub(super) struct ThreadCounters {
    count: usize,
    /// What each thread has counted. It stays when a thread ends, and a later thread goes on with
    /// it.
    threads: ThreadLocal<Box<[CacheLine]>>,
}

impl ThreadCounters {
    pub(super) fn new(count: usize) -> ThreadCounters {
        ThreadCounters {
            count,
            threads: ThreadLocal::new(),
        }
    }

    /// The counters of the current thread.
    pub(super) fn of_this_thread(&self) -> OwnCounters<'_> {
        let lines = self.count.div_ceil(COUNTERS_PER_LINE);
        let empty = || (0..lines).map(|_| CacheLine::default()).collect();
        OwnCounters(self.threads.get_or(empty))
    }

    /// The values of all counters, over all threads.
    pub(super) fn sums(&self) -> Vec<u64> {
        let mut sums = vec![0; self.count];
        for lines in &self.threads {
            let counters = lines.iter().flat_map(|line| &line.0);
            for (sum, counter) in sums.iter_mut().zip(counters) {
                *sum += counter.load(Ordering::Relaxed);
            }
        }
        sums
    }
}

/// The counters of one thread; only this thread writes them.
pub(super) struct OwnCounters<'c>(&'c [CacheLine]);

impl OwnCounters<'_> {
    /// A plain load and store: no other thread writes this counter.
    pub(super) fn add(&self, index: usize, count: u64) {
        let counter = &self.0[index / COUNTERS_PER_LINE].0[index % COUNTERS_PER_LINE];
        let before = counter.load(Ordering::Relaxed);
        counter.store(before.wrapping_add(count), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_what_all_threads_counted() {
        let counters = ThreadCounters::new(9);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let own = counters.of_this_thread();
                    for _ in 0..1000 {
                        own.add(0, 1);
                        own.add(8, 2);
                    }
                });
            }
        });
        assert_eq!(counters.sums(), [4000, 0, 0, 0, 0, 0, 0, 0, 8000]);
    }

    #[test]
    fn counts_of_ended_threads_stay() {
        let counters = ThreadCounters::new(1);
        for _ in 0..3 {
            std::thread::scope(|scope| {
                scope.spawn(|| counters.of_this_thread().add(0, 1));
            });
        }
        assert_eq!(counters.sums(), [3]);
    }
}
