//! Limits concurrent requests and requests per second: permits, a token bucket, and one bounded
//! queue for both, ordered by priority. Used for a group as well as for one endpoint.

mod bucket;
#[cfg(test)]
mod orders;
mod queue;
mod state;
#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Failure, Priority};
use queue::{EntryId, WaitingFor};
use state::{LimiterAdmission, LimiterState, QueuePoll, WakeUps};

/// Settings of a limiter.
#[derive(Clone, Copy)]
pub(super) struct LimiterSettings {
    /// Maximum number of permits in use.
    pub(super) concurrency_max: usize,
    /// Permits reserved for manifests.
    pub(super) reserved_for_manifests: usize,
    /// Maximum queue length.
    pub(super) queue_max: usize,
    /// Maximum permits granted per second.
    pub(super) requests_per_second_max: Option<u32>,
}

/// Number of permits reserved for manifests where requests hold a permit while they wait for a
/// quota: other requests must not take all of them.
pub(super) fn reserved_for_manifests(concurrency_max: usize) -> usize {
    concurrency_max
        .div_ceil(8)
        .min(concurrency_max.saturating_sub(1))
}

/// Why a limiter rejected a request. Also a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// The queue was full of requests of the same or a higher priority.
    QueueFull,
    /// Removed from a full queue for a request of a higher priority.
    Displaced,
    /// The deadline passed in the queue.
    Deadline,
}

impl Rejection {
    /// Every reason, in declared order.
    pub const ALL: [Rejection; 3] = [
        Rejection::QueueFull,
        Rejection::Displaced,
        Rejection::Deadline,
    ];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Rejection::QueueFull => "queue_full",
            Rejection::Displaced => "displaced",
            Rejection::Deadline => "deadline",
        }
    }
}

/// Counts of a limiter: in progress, waiting, rejected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LimiterCounts {
    /// Permits in use.
    pub(super) in_flight: usize,
    /// Waiting requests, by priority.
    pub(super) queued: [usize; Priority::COUNT],
    /// Rejected requests, by reason.
    pub(super) rejected: [u64; Rejection::ALL.len()],
}

impl LimiterCounts {
    pub(super) fn rejected(&self, reason: Rejection) -> u64 {
        self.rejected[reason as usize]
    }

    /// Adds the waiting and rejected requests of an inner limiter.
    pub(super) fn add_waits(&mut self, inner: &LimiterCounts) {
        for (sum, queued) in self.queued.iter_mut().zip(inner.queued) {
            *sum += queued;
        }
        for (sum, rejected) in self.rejected.iter_mut().zip(inner.rejected) {
            *sum += rejected;
        }
    }
}

/// Limits the requests to a group or to an endpoint.
pub(super) struct ConcurrencyLimiter {
    state: Arc<Mutex<LimiterState>>,
}

/// Permits one request; goes to the next in the queue when dropped.
pub(super) struct Permit {
    state: Arc<Mutex<LimiterState>>,
}

impl ConcurrencyLimiter {
    pub(super) fn new(limits: &LimiterSettings) -> ConcurrencyLimiter {
        ConcurrencyLimiter {
            state: Arc::new(Mutex::new(LimiterState::new(limits))),
        }
    }

    /// Uses other limits from now on, for requests in progress and waiting ones too.
    pub(super) fn set_limits(&self, limits: &LimiterSettings) {
        self.step(|state, now, wake_ups| state.set_limits(limits, now, wake_ups));
    }

    /// Maximum number of permits in use.
    pub(super) fn concurrency_max(&self) -> usize {
        self.state.lock().concurrency_max()
    }

    /// Waits for a permit, `timeout` at most: after requests of the same priority and before lower
    /// ones. Fails at once when the queue is full of requests of the same or a higher priority.
    /// Dropping the future leaves the queue.
    pub(super) async fn acquire(
        &self,
        priority: Priority,
        timeout: Duration,
    ) -> Result<Permit, Failure> {
        let admitted = self.wait((priority, WaitingFor::Permit), timeout).await;
        admitted.map(|()| self.permit())
    }

    /// The same for a rate token only, for requests that need no permit here.
    pub(super) async fn wait_for_token(
        &self,
        priority: Priority,
        timeout: Duration,
    ) -> Result<(), Failure> {
        self.wait((priority, WaitingFor::Token), timeout).await
    }

    async fn wait(
        &self,
        waiting_for: (Priority, WaitingFor),
        timeout: Duration,
    ) -> Result<(), Failure> {
        let until = Instant::now() + timeout;
        match self.step(|state, now, wake_ups| state.acquire(waiting_for, now, wake_ups)) {
            LimiterAdmission::Admitted => Ok(()),
            LimiterAdmission::Rejected => Err(Failure::Busy),
            LimiterAdmission::Queued(entry) => {
                let mut request = QueuedRequest {
                    limiter: self,
                    entry: Some(entry),
                    until,
                };
                let mut timer = pin!(sleep_until(until));
                poll_fn(|cx| request.poll(timer.as_mut(), cx)).await
            }
        }
    }

    /// A permit, if one is free at once and no request waits for it. A refusal is not counted as
    /// rejected.
    pub(super) fn try_acquire(&self) -> Option<Permit> {
        self.step(LimiterState::try_acquire).then(|| self.permit())
    }

    /// A further rate token for a request that has a permit, if one is available at once.
    pub(super) fn try_token(&self) -> bool {
        self.step(LimiterState::try_token)
    }

    /// A rate token is available now.
    pub(super) fn has_token(&self) -> bool {
        self.state.lock().has_token(Instant::now())
    }

    /// A permit is available now.
    pub(super) fn has_free_permit(&self) -> bool {
        self.state.lock().has_free_permit(Instant::now())
    }

    /// The queue is empty and more than half of the permits are free.
    pub(super) fn has_spare_permits(&self) -> bool {
        self.state.lock().has_spare_permits()
    }

    pub(super) fn counts(&self) -> LimiterCounts {
        self.state.lock().counts()
    }

    fn permit(&self) -> Permit {
        let state = Arc::clone(&self.state);
        Permit { state }
    }

    fn step<T>(&self, step: impl FnOnce(&mut LimiterState, Instant, &mut WakeUps) -> T) -> T {
        run_step(&self.state, step)
    }
}

/// Runs one step under the lock, then wakes the affected waiters without it.
fn run_step<T>(
    state: &Mutex<LimiterState>,
    step: impl FnOnce(&mut LimiterState, Instant, &mut WakeUps) -> T,
) -> T {
    let mut wake_ups = WakeUps::new();
    let outcome = step(&mut state.lock(), Instant::now(), &mut wake_ups);
    wake_ups.into_iter().for_each(std::task::Waker::wake);
    outcome
}

impl Drop for Permit {
    fn drop(&mut self) {
        run_step(&self.state, LimiterState::release);
    }
}

/// An entry in the queue; removed when dropped.
struct QueuedRequest<'a> {
    limiter: &'a ConcurrencyLimiter,
    /// `None`: the wait is over.
    entry: Option<EntryId>,
    until: Instant,
}

impl QueuedRequest<'_> {
    /// One timer serves both the deadline and, if this request owns the timer for tokens, the next
    /// token.
    fn poll(
        &mut self,
        mut timer: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        while let Some(entry) = self.entry {
            let polled = self.limiter.step(|state, now, wake_ups| {
                state.poll(entry, self.until, cx.waker(), now, wake_ups)
            });
            match polled {
                QueuePoll::Admitted => {
                    self.entry = None;
                    return Poll::Ready(Ok(()));
                }
                QueuePoll::Rejected => self.entry = None,
                QueuePoll::Waiting(poll_at) => {
                    if timer.deadline() != poll_at {
                        timer.as_mut().reset(poll_at);
                    }
                    ready!(timer.as_mut().poll(cx));
                }
            }
        }
        Poll::Ready(Err(Failure::Busy))
    }
}

impl Drop for QueuedRequest<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry {
            self.limiter
                .step(|state, now, wake_ups| state.give_up(entry, now, wake_ups));
        }
    }
}
