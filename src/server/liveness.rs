//! Checks that every worker thread is alive: each must answer a request in time.
//!
//! A thread that hangs (in a system call or an endless loop) cannot be detected from outside: the
//! kernel still accepts its connections, and the other threads work on.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::admin::WorkerHealth;

/// A worker that does not answer in this time counts as dead. Less than `seawall health` waits, and
/// far more than the longest work that a worker does without yielding.
const REPLY_TIMEOUT: Duration = Duration::from_millis(1500);

/// Checks that may wait for a worker. They pile up only while it does not answer.
const PENDING_CHECKS_MAX: usize = 64;

type LivenessReply = oneshot::Sender<()>;

/// Checks the workers.
pub(super) struct LivenessMonitor {
    workers: Vec<mpsc::Sender<LivenessReply>>,
}

/// Answers the checks of one worker.
pub(super) struct LivenessResponder {
    requests: mpsc::Receiver<LivenessReply>,
}

/// A monitor of `count` workers, and the responder that each worker runs.
pub(super) fn monitor_workers(count: usize) -> (LivenessMonitor, Vec<LivenessResponder>) {
    let pairs = (0..count).map(|_| mpsc::channel(PENDING_CHECKS_MAX));
    let (workers, responders) = pairs
        .map(|(sender, requests)| (sender, LivenessResponder { requests }))
        .unzip();
    (LivenessMonitor { workers }, responders)
}

impl LivenessMonitor {
    /// Checks all workers at the same time.
    pub(super) async fn check_all(&self) -> WorkerHealth {
        let mut replies = JoinSet::new();
        for worker in &self.workers {
            let (reply, answer) = oneshot::channel();
            // With a full queue the worker counts as silent: the request is dropped, which also
            // drops its reply channel.
            let _ = worker.try_send(reply);
            replies
                .spawn(async move { matches!(timeout(REPLY_TIMEOUT, answer).await, Ok(Ok(()))) });
        }
        let answered = replies
            .join_all()
            .await
            .into_iter()
            .filter(|it| *it)
            .count();
        WorkerHealth {
            all: self.workers.len(),
            silent: self.workers.len() - answered,
        }
    }
}

impl LivenessResponder {
    /// Answers on the current thread's runtime until the monitor is dropped.
    pub(super) async fn run(mut self) {
        while let Some(reply) = self.requests.recv().await {
            // The monitor may have given up.
            let _ = reply.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn counts_workers_that_do_not_answer() {
        let (monitor, mut responders) = monitor_workers(3);
        let hung = responders.pop();
        for responder in responders {
            tokio::spawn(responder.run());
        }
        assert_eq!(
            monitor.check_all().await,
            WorkerHealth { all: 3, silent: 1 }
        );
        for _ in 0..2 * PENDING_CHECKS_MAX {
            assert_eq!(monitor.check_all().await.silent, 1);
        }
        tokio::spawn(hung.unwrap().run());
        tokio::task::yield_now().await;
        assert_eq!(monitor.check_all().await.silent, 0);
    }
}
