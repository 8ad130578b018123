//! Distributes the connections of one listener evenly over its workers. For each new connection the
//! kernel wakes all workers, and the one that runs already takes it: with a few dozen connections
//! from CDN edges, one core would serve most of them, or all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{self, error::TrySendError};

/// Connections that may wait until a worker takes them from the one that has accepted them.
const HANDOVERS_MAX: usize = 64;

/// One worker's share of the connections (`T`) of a listener.
pub(super) struct WorkerShare<T> {
    own: usize,
    workers: Arc<[Worker<T>]>,
    handovers: mpsc::Receiver<Handover<T>>,
}

struct Worker<T> {
    open: AtomicUsize,
    handovers: mpsc::Sender<Handover<T>>,
}

/// A connection that another worker has accepted for this one.
struct Handover<T> {
    connection: T,
    place: WorkerPlace<T>,
}

/// Counts a connection as one of a worker, until it is dropped.
pub(super) struct WorkerPlace<T> {
    workers: Arc<[Worker<T>]>,
    index: usize,
}

impl<T> WorkerShare<T> {
    /// The shares of this many workers.
    pub(super) fn of_workers(count: usize) -> Vec<WorkerShare<T>> {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..count).map(|_| mpsc::channel(HANDOVERS_MAX)).unzip();
        let workers: Arc<[_]> = senders
            .into_iter()
            .map(|handovers| Worker {
                open: AtomicUsize::new(0),
                handovers,
            })
            .collect();
        let share = |(own, handovers)| WorkerShare {
            own,
            workers: Arc::clone(&workers),
            handovers,
        };
        receivers.into_iter().enumerate().map(share).collect()
    }

    /// The worker with the fewest connections, if that is another one.
    pub(super) fn less_loaded_worker(&self) -> Option<usize> {
        let open = |index: &usize| self.workers[*index].open.load(Ordering::Relaxed);
        let all = 0..self.workers.len();
        let least = all.min_by_key(|index| (open(index), *index != self.own))?;
        (least != self.own).then_some(least)
    }

    /// Gives a connection to another worker. Returns it if that one does not take its connections.
    pub(super) fn hand_over(&self, worker: usize, connection: T) -> Result<(), T> {
        let place = WorkerPlace::take(&self.workers, worker);
        let handover = Handover { connection, place };
        let sent = self.workers[worker].handovers.try_send(handover);
        sent.map_err(|not_sent| match not_sent {
            TrySendError::Full(handover) | TrySendError::Closed(handover) => handover.connection,
        })
    }

    /// A place for a connection that this worker keeps.
    pub(super) fn own_place(&self) -> WorkerPlace<T> {
        WorkerPlace::take(&self.workers, self.own)
    }

    /// The next connection from another worker. After [`Self::close`], `None` when none is left.
    pub(super) async fn next(&mut self) -> Option<(T, WorkerPlace<T>)> {
        let handover = self.handovers.recv().await?;
        Some((handover.connection, handover.place))
    }

    /// Takes no more connections from other workers, but those that wait already.
    pub(super) fn close(&mut self) {
        self.handovers.close();
    }
}

impl<T> WorkerPlace<T> {
    fn take(workers: &Arc<[Worker<T>]>, index: usize) -> WorkerPlace<T> {
        workers[index].open.fetch_add(1, Ordering::Relaxed);
        WorkerPlace {
            workers: Arc::clone(workers),
            index,
        }
    }
}

impl<T> Drop for WorkerPlace<T> {
    fn drop(&mut self) {
        self.workers[self.index]
            .open
            .fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(share: &WorkerShare<u32>) -> Vec<usize> {
        let open = |worker: &Worker<u32>| worker.open.load(Ordering::Relaxed);
        share.workers.iter().map(open).collect()
    }

    #[tokio::test]
    async fn gives_each_connection_to_worker_with_fewest() {
        let [first, mut second, mut third] = shares();
        let mut places = Vec::new();
        for connection in 0..9 {
            places.extend(assign(&first, connection).err());
        }
        for share in [&mut second, &mut third] {
            for _ in 0..3 {
                places.push(share.next().await.unwrap().1);
            }
        }
        assert_eq!(open(&first), [3, 3, 3]);
        places.clear();
        assert_eq!(open(&first), [0, 0, 0]);
    }

    #[test]
    fn keeps_connection_if_other_worker_takes_none() {
        let [first, _second, _third] = shares();
        let handed_over = (0..1000).filter(|one| first.hand_over(1, *one).is_ok());
        assert_eq!(handed_over.count(), HANDOVERS_MAX);
        let [first, mut second, mut third] = shares();
        second.close();
        third.close();
        let kept: Vec<_> = (0..9).filter_map(|one| assign(&first, one).err()).collect();
        assert_eq!(kept.len(), 9);
    }

    #[tokio::test]
    async fn closed_share_still_yields_what_waits() {
        let [first, mut second, _third] = shares();
        first.hand_over(1, 2).unwrap();
        second.close();
        assert_eq!(
            second.next().await.map(|(connection, _)| connection),
            Some(2)
        );
        assert!(second.next().await.is_none());
    }

    /// Gives a connection to the worker with the fewest; the error is a place of this worker.
    fn assign(share: &WorkerShare<u32>, connection: u32) -> Result<(), WorkerPlace<u32>> {
        let worker = share
            .less_loaded_worker()
            .ok_or_else(|| share.own_place())?;
        share
            .hand_over(worker, connection)
            .map_err(|_| share.own_place())
    }

    fn shares() -> [WorkerShare<u32>; 3] {
        WorkerShare::of_workers(3).try_into().ok().unwrap()
    }
}
