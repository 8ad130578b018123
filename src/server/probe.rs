//! Checks that every worker thread is alive: each must answer a probe in time.
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

/// Probes that may wait for a worker. They pile up only while it does not answer.
const PENDING_PROBES_MAX: usize = 64;

type ProbeReply = oneshot::Sender<()>;

/// Sends probes to the workers.
pub(super) struct Prober {
    workers: Vec<mpsc::Sender<ProbeReply>>,
}

/// Answers the probes of one worker.
pub(super) struct Probe {
    requests: mpsc::Receiver<ProbeReply>,
}

/// A prober of `count` workers, and the probe that each worker runs.
pub(super) fn probes_for_workers(count: usize) -> (Prober, Vec<Probe>) {
    let pairs = (0..count).map(|_| mpsc::channel(PENDING_PROBES_MAX));
    let (workers, probes) = pairs
        .map(|(sender, requests)| (sender, Probe { requests }))
        .unzip();
    (Prober { workers }, probes)
}

impl Prober {
    /// Probes all workers at the same time.
    pub(super) async fn probe_all(&self) -> WorkerHealth {
        let mut replies = JoinSet::new();
        for worker in &self.workers {
            let (reply, answer) = oneshot::channel();
            // With a full queue the worker counts as silent: the probe is dropped, which also drops
            // its reply channel.
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

impl Probe {
    /// Answers on the current thread's runtime until the prober is dropped.
    pub(super) async fn run(mut self) {
        while let Some(reply) = self.requests.recv().await {
            // The prober may have given up.
            let _ = reply.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn counts_workers_that_do_not_answer() {
        let (prober, mut probes) = probes_for_workers(3);
        let hung = probes.pop();
        for probe in probes {
            tokio::spawn(probe.run());
        }
        assert_eq!(prober.probe_all().await, WorkerHealth { all: 3, silent: 1 });
        for _ in 0..2 * PENDING_PROBES_MAX {
            assert_eq!(prober.probe_all().await.silent, 1);
        }
        tokio::spawn(hung.unwrap().run());
        tokio::task::yield_now().await;
        assert_eq!(prober.probe_all().await.silent, 0);
    }
}
