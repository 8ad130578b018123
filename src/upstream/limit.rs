//! How many may ask at once, how many a second, and who goes first? Permits, a pace, and a short
//! queue for both, in order of rank.
//!
//! Knows nothing of requests, nor whether it stands before a group or before one endpoint.

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
use queue::{SeatId, WaitingFor};
use state::{LimiterAdmission, LimiterState, QueueOutlook, WakeUps};

/// What a gate is set to.
pub(super) struct LimiterSettings {
    /// Permits out at most.
    pub(super) concurrency_max: usize,
    /// So many of them are for manifests alone.
    pub(super) kept_for_manifests: usize,
    /// Waiting for one at most.
    pub(super) queue_max: usize,
    /// Permits given out a second at most.
    pub(super) requests_per_second_max: Option<u32>,
}

/// How many permits manifests have for themselves where requests wait for a quota with permits in their hands:
/// others must not take all of them.
pub(super) fn kept_for_manifests(concurrency_max: usize) -> usize {
    concurrency_max
        .div_ceil(8)
        .min(concurrency_max.saturating_sub(1))
}

/// Why a gate turned someone away. Also a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// The queue was full of those who go first.
    QueueFull,
    /// Made room in a full queue for one who goes first.
    Displaced,
    /// Waited as long as it may.
    Deadline,
}

impl Rejection {
    /// Every reason, in declared order.
    pub const ALL: [Rejection; 3] = [
        Rejection::QueueFull,
        Rejection::Displaced,
        Rejection::Deadline,
    ];

    /// The word used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Rejection::QueueFull => "queue_full",
            Rejection::Displaced => "displaced",
            Rejection::Deadline => "deadline",
        }
    }
}

/// Who is at a gate, and how many it has turned away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LimiterCounts {
    /// Permits out.
    pub(super) in_flight: usize,
    /// Waiting, by rank.
    pub(super) queued: [usize; Priority::COUNT],
    /// Turned away, by reason.
    pub(super) rejected: [u64; Rejection::ALL.len()],
}

impl LimiterCounts {
    pub(super) fn rejected(&self, reason: Rejection) -> u64 {
        self.rejected[reason as usize]
    }

    /// Counts those as well who wait, or waited in vain, at a gate further in.
    pub(super) fn add_waits(&mut self, inner: &LimiterCounts) {
        for (sum, queued) in self.queued.iter_mut().zip(inner.queued) {
            *sum += queued;
        }
        for (sum, rejected) in self.rejected.iter_mut().zip(inner.rejected) {
            *sum += rejected;
        }
    }
}

/// The gate before an origin.
pub(super) struct ConcurrencyLimiter {
    turnstile: Arc<Mutex<LimiterState>>,
}

/// Leave to ask; goes to the next when dropped.
pub(super) struct Permit {
    turnstile: Arc<Mutex<LimiterState>>,
}

impl ConcurrencyLimiter {
    pub(super) fn new(limits: &LimiterSettings) -> ConcurrencyLimiter {
        ConcurrencyLimiter {
            turnstile: Arc::new(Mutex::new(LimiterState::new(limits))),
        }
    }

    /// Waits for a permit: behind those of its rank and before those of later ranks, but neither in
    /// a queue full of them nor longer than `patience`. Dropping the future leaves the queue.
    pub(super) async fn enter(
        &self,
        rank: Priority,
        patience: Duration,
    ) -> Result<Permit, Failure> {
        let entered = self.wait((rank, WaitingFor::Permit), patience).await;
        entered.map(|()| self.permit())
    }

    /// The same for a turn alone, where there is a pace: for what needs no permit.
    pub(super) async fn turn(&self, rank: Priority, patience: Duration) -> Result<(), Failure> {
        self.wait((rank, WaitingFor::Turn), patience).await
    }

    async fn wait(&self, wish: (Priority, WaitingFor), patience: Duration) -> Result<(), Failure> {
        let until = Instant::now() + patience;
        match self.step(|turnstile, now, calls| turnstile.enter(wish, now, calls)) {
            LimiterAdmission::Open => Ok(()),
            LimiterAdmission::Closed => Err(Failure::Busy),
            LimiterAdmission::Queued(ticket) => {
                let mut place = QueuedRequest {
                    gate: self,
                    ticket: Some(ticket),
                    until,
                };
                let mut alarm = pin!(sleep_until(until));
                poll_fn(|cx| place.poll(alarm.as_mut(), cx)).await
            }
        }
    }

    /// A permit where one is to be had at once, and nobody waits for it. Who finds none has not been
    /// turned away.
    pub(super) fn try_enter(&self) -> Option<Permit> {
        self.step(LimiterState::try_enter).then(|| self.permit())
    }

    /// One more turn for who has a permit already, where the pace allows it at once.
    pub(super) fn try_turn(&self) -> bool {
        self.step(LimiterState::try_turn)
    }

    /// A turn is to be had at once.
    pub(super) fn has_turn(&self) -> bool {
        self.turnstile.lock().has_turn(Instant::now())
    }

    /// A permit is to be had at once.
    pub(super) fn is_open(&self) -> bool {
        self.turnstile.lock().is_open(Instant::now())
    }

    /// Nobody waits, and more than half of the permits are free.
    pub(super) fn has_room(&self) -> bool {
        self.turnstile.lock().has_room()
    }

    pub(super) fn census(&self) -> LimiterCounts {
        self.turnstile.lock().census()
    }

    fn permit(&self) -> Permit {
        let turnstile = Arc::clone(&self.turnstile);
        Permit { turnstile }
    }

    fn step<T>(&self, step: impl FnOnce(&mut LimiterState, Instant, &mut WakeUps) -> T) -> T {
        stepping(&self.turnstile, step)
    }
}

/// Takes one step, and wakes whom it concerns when the lock is free again.
fn stepping<T>(
    turnstile: &Mutex<LimiterState>,
    step: impl FnOnce(&mut LimiterState, Instant, &mut WakeUps) -> T,
) -> T {
    let mut calls = WakeUps::new();
    let outcome = step(&mut turnstile.lock(), Instant::now(), &mut calls);
    calls.into_iter().for_each(std::task::Waker::wake);
    outcome
}

impl Drop for Permit {
    fn drop(&mut self) {
        stepping(&self.turnstile, LimiterState::leave);
    }
}

/// A seat in the queue; given up when dropped.
struct QueuedRequest<'a> {
    gate: &'a ConcurrencyLimiter,
    /// `None`: the wait is over.
    ticket: Option<SeatId>,
    until: Instant,
}

impl QueuedRequest<'_> {
    /// One timer serves both ends: the deadline, and the next token where this one keeps time.
    fn poll(
        &mut self,
        mut alarm: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        while let Some(ticket) = self.ticket {
            let outlook = self.gate.step(|turnstile, now, calls| {
                turnstile.look(ticket, self.until, cx.waker(), now, calls)
            });
            match outlook {
                QueueOutlook::Admitted => {
                    self.ticket = None;
                    return Poll::Ready(Ok(()));
                }
                QueueOutlook::Rejected => self.ticket = None,
                QueueOutlook::Waits(again) => {
                    if alarm.deadline() != again {
                        alarm.as_mut().reset(again);
                    }
                    ready!(alarm.as_mut().poll(cx));
                }
            }
        }
        Poll::Ready(Err(Failure::Busy))
    }
}

impl Drop for QueuedRequest<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.gate
                .step(|turnstile, now, calls| turnstile.give_up(ticket, now, calls));
        }
    }
}
