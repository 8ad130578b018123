//! Distributes connections evenly over the workers. For each new connection the kernel wakes all
//! workers of a listener, and the one that runs already takes it: with a few dozen connections from
//! CDN edges, one core would serve most of them, or all.
//!
//! A worker that accepts a connection hands it over to the one with the fewest. A worker that does
//! not take its connections gets no more, and those that wait for it are taken back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Connections that may wait for one worker.
const HANDOVERS_MAX: usize = 64;
/// A worker that has not taken a connection for this long is stalled: it hangs, or has long work.
pub(super) const STALLED_AFTER: Duration = Duration::from_millis(50);

/// The number of open connections of each worker, of all listeners.
#[derive(Clone)]
pub(super) struct OpenByWorker(Arc<[AtomicUsize]>);

impl OpenByWorker {
    /// Counts for this many workers without connections.
    pub(super) fn new(workers: usize) -> OpenByWorker {
        OpenByWorker((0..workers).map(|_| AtomicUsize::new(0)).collect())
    }

    fn place(&self, worker: usize) -> WorkerPlace {
        self.0[worker].fetch_add(1, Ordering::Relaxed);
        let open = self.clone();
        WorkerPlace { open, worker }
    }
}

/// Counts a connection as one of a worker, until it is dropped.
pub(super) struct WorkerPlace {
    open: OpenByWorker,
    worker: usize,
}

impl Drop for WorkerPlace {
    fn drop(&mut self) {
        self.open.0[self.worker].fetch_sub(1, Ordering::Relaxed);
    }
}

/// One worker's share of the connections (`T`) of a listener.
pub(super) struct WorkerShare<T> {
    own: usize,
    open: OpenByWorker,
    /// The queues of all workers.
    queues: Arc<[HandoverQueue<T>]>,
}

/// Connections that wait for a worker.
struct HandoverQueue<T> {
    state: Mutex<QueueState<T>>,
    /// Notified when a connection was added, or all were taken back.
    changed: Notify,
}

struct QueueState<T> {
    is_closed: bool,
    /// Connections were taken back, and the worker has not looked since.
    has_stalled: bool,
    /// The longest waiting first.
    waiting: VecDeque<Handover<T>>,
}

struct Handover<T> {
    connection: T,
    place: WorkerPlace,
    since: Instant,
}

impl<T> QueueState<T> {
    fn is_overdue(&self, now: Instant) -> bool {
        let first = self.waiting.front();
        first.is_some_and(|first| now.duration_since(first.since) >= STALLED_AFTER)
    }

    fn is_usable(&self, now: Instant) -> bool {
        let is_stalled = self.has_stalled || self.is_overdue(now);
        !self.is_closed && !is_stalled && self.waiting.len() < HANDOVERS_MAX
    }
}

impl<T> WorkerShare<T> {
    /// The shares of all workers in one listener.
    pub(super) fn of_workers(open: &OpenByWorker) -> Vec<WorkerShare<T>> {
        let queue = |_| HandoverQueue {
            state: Mutex::new(QueueState {
                is_closed: false,
                has_stalled: false,
                waiting: VecDeque::new(),
            }),
            changed: Notify::new(),
        };
        let workers = 0..open.0.len();
        let queues: Arc<[_]> = workers.clone().map(queue).collect();
        let share = |own| WorkerShare {
            own,
            open: open.clone(),
            queues: Arc::clone(&queues),
        };
        workers.map(share).collect()
    }

    /// The worker with the fewest connections of those that take theirs, if it is another one.
    pub(super) fn less_loaded_worker(&self, now: Instant) -> Option<usize> {
        let usable = |worker: &usize| {
            *worker == self.own || self.queues[*worker].state.lock().is_usable(now)
        };
        let workers = (0..self.queues.len()).filter(usable);
        let open = |worker: usize| self.open.0[worker].load(Ordering::Relaxed);
        let least = workers.min_by_key(|worker| (open(*worker), *worker != self.own))?;
        (least != self.own).then_some(least)
    }

    /// Hands a connection over to another worker. Returns it if that one takes none.
    pub(super) fn hand_over(&self, worker: usize, connection: T, now: Instant) -> Result<(), T> {
        let queue = &self.queues[worker];
        let mut state = queue.state.lock();
        if !state.is_usable(now) {
            return Err(connection);
        }
        state.waiting.push_back(Handover {
            connection,
            place: self.open.place(worker),
            since: now,
        });
        drop(state);
        queue.changed.notify_one();
        Ok(())
    }

    /// A place for a connection that this worker keeps.
    pub(super) fn own_place(&self) -> WorkerPlace {
        self.open.place(self.own)
    }

    /// The next connection that another worker hands over.
    pub(super) async fn next(&self) -> (T, WorkerPlace) {
        let queue = &self.queues[self.own];
        loop {
            let first = {
                let mut state = queue.state.lock();
                state.has_stalled = false;
                state.waiting.pop_front()
            };
            if let Some(first) = first {
                return (first.connection, first.place);
            }
            queue.changed.notified().await;
        }
    }

    /// Takes the connections that wait for stalled workers, for this one.
    pub(super) fn take_back(&self, now: Instant) -> Vec<T> {
        let mut taken = Vec::new();
        for queue in &*self.queues {
            let mut state = queue.state.lock();
            if state.is_overdue(now) {
                let waiting = state.waiting.drain(..);
                taken.extend(waiting.map(|handover| handover.connection));
                state.has_stalled = true;
                queue.changed.notify_one();
            }
        }
        taken
    }

    /// Whether connections wait for another worker.
    pub(super) fn has_waiting(&self) -> bool {
        let others = self.queues.iter().enumerate();
        let mut others = others.filter(|(worker, _)| *worker != self.own);
        others.any(|(_, queue)| !queue.state.lock().waiting.is_empty())
    }

    /// Takes no more connections from other workers. Returns those that wait already.
    pub(super) fn close(&self) -> Vec<(T, WorkerPlace)> {
        let mut state = self.queues[self.own].state.lock();
        state.is_closed = true;
        let waiting = state.waiting.drain(..);
        waiting
            .map(|handover| (handover.connection, handover.place))
            .collect()
    }
}

/// A worker that has ended takes no connections. Those that wait for it are taken back.
impl<T> Drop for WorkerShare<T> {
    fn drop(&mut self) {
        self.queues[self.own].state.lock().is_closed = true;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn gives_each_connection_to_worker_with_fewest() {
        let [first, second, third] = shares();
        let now = Instant::now();
        let mut places = Vec::new();
        for connection in 0..9 {
            places.extend(assign(&first, connection, now).err());
        }
        for share in [&second, &third] {
            for _ in 0..3 {
                places.push(share.next().await.1);
            }
        }
        assert_eq!(open(&first), [3, 3, 3]);
        places.clear();
        assert_eq!(open(&first), [0, 0, 0]);
    }

    #[test]
    fn full_or_closed_worker_gets_none_and_others_their_share() {
        let [first, second, third] = shares();
        let now = Instant::now();
        drop(second);
        let kept: Vec<_> = (0..10)
            .filter_map(|connection| assign(&first, connection, now).err())
            .collect();
        assert_eq!((kept.len(), open(&first)), (5, vec![5, 0, 5]));
        for connection in 0..1000 {
            let _ = first.hand_over(2, connection, now);
        }
        assert_eq!(open(&first)[2], HANDOVERS_MAX);
        assert_eq!(first.less_loaded_worker(now), None);
        drop(third);
    }

    #[tokio::test]
    async fn connections_of_stalled_worker_are_taken_back() {
        let [first, second, third] = shares();
        let now = Instant::now();
        first.hand_over(1, 7, now).unwrap();
        assert!(third.take_back(now).is_empty() && third.has_waiting());
        let later = now + STALLED_AFTER;
        assert_eq!(first.less_loaded_worker(later), None);
        assert_eq!(first.hand_over(1, 8, later), Err(8));
        assert_eq!(third.take_back(later), [7]);
        assert_eq!(open(&first), [0, 0, 0]);
        assert!(!third.has_waiting());
        assert_eq!(
            first.hand_over(1, 8, later),
            Err(8),
            "it has not looked since"
        );
        let looked = timeout(Duration::ZERO, second.next()).await;
        assert!(looked.is_err(), "nothing waits any more");
        first.hand_over(1, 8, later).unwrap();
    }

    #[test]
    fn connections_of_ended_worker_are_taken_back() {
        let [first, second, _third] = shares();
        let now = Instant::now();
        first.hand_over(1, 7, now).unwrap();
        drop(second);
        assert_eq!(first.take_back(now + STALLED_AFTER), [7]);
    }

    #[test]
    fn closed_share_returns_what_waits() {
        let [first, second, _third] = shares();
        let now = Instant::now();
        first.hand_over(1, 2, now).unwrap();
        let waiting = second.close();
        assert_eq!(
            waiting.into_iter().map(|(one, _)| one).collect::<Vec<_>>(),
            [2]
        );
        assert_eq!(first.hand_over(1, 3, now), Err(3));
    }

    fn open(share: &WorkerShare<u32>) -> Vec<usize> {
        let counts = share.open.0.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Gives a connection to the worker with the fewest; the error is a place of this worker.
    fn assign(share: &WorkerShare<u32>, connection: u32, now: Instant) -> Result<(), WorkerPlace> {
        let worker = share.less_loaded_worker(now);
        let worker = worker.ok_or_else(|| share.own_place())?;
        share
            .hand_over(worker, connection, now)
            .map_err(|_| share.own_place())
    }

    fn shares() -> [WorkerShare<u32>; 3] {
        WorkerShare::of_workers(&OpenByWorker::new(3))
            .try_into()
            .ok()
            .unwrap()
    }
}
