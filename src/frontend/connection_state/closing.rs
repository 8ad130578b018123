//! Why a connection is to end although its viewer would keep it: its listener is closed or verifies
//! viewers by other authorities, or a new connection needs its place.

use std::sync::atomic::Ordering;

use http::StatusCode;
use tokio::time::{Duration, Instant};

use super::{ConnectionState, Phase};

/// The end of what a connection was admitted by: the authorities of its listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct Withdrawal {
    since: Instant,
    /// What is in progress ends by then.
    cut_at: Option<Instant>,
}

impl ConnectionState {
    /// Begins the graceful shutdown of a connection whose viewer was verified by other authorities
    /// than those of now: no request that arrives later is served.
    pub(in crate::frontend) fn withdraw(&self, now: Instant, drain_max: Duration) {
        // Who has begun already goes on.
        let _ = self.withdrawal.set(Withdrawal {
            since: now,
            cut_at: now.checked_add(drain_max),
        });
        self.begin_closing(now);
    }

    /// The status for a request that arrived after the connection was withdrawn. A viewer may hold
    /// an HTTP/2 connection open and send requests although it was told to go.
    pub(in crate::frontend) fn withdrawn_rejection(&self, arrived: Instant) -> Option<StatusCode> {
        let withdrawal = self.withdrawal.get()?;
        (arrived >= withdrawal.since).then_some(StatusCode::MISDIRECTED_REQUEST)
    }

    /// When the connection is cut although a request is in progress.
    pub(in crate::frontend) fn cut_at(&self) -> Option<Instant> {
        self.withdrawal.get()?.cut_at
    }

    /// Begins the graceful shutdown: the listener is closed, so no further request is accepted.
    pub(in crate::frontend) fn begin_closing(&self, now: Instant) {
        // Who has begun already goes on.
        let _ = self.closing_since.set(now);
        self.wake();
    }

    /// When the listener was closed.
    pub(in crate::frontend) fn closing_since(&self) -> Option<Instant> {
        self.closing_since.get().copied()
    }

    /// Whether the listener is closed: the next response is the last one.
    pub(in crate::frontend) fn is_closing(&self) -> bool {
        self.closing_since.get().is_some()
    }

    /// Start of the idle period, if the connection is idle and has not been asked to close.
    pub(in crate::frontend) fn idle_since(&self) -> Option<Instant> {
        let is_idle =
            self.phase() == Phase::Quiet && !self.is_blocked() && !self.is_asked_to_close();
        is_idle.then(|| self.phase_since())
    }

    /// Asks the connection to close, to make room for a new one. `false`: its timer does not run
    /// yet.
    pub(in crate::frontend) fn ask_to_close(&self) -> bool {
        let waker = self.waker.lock();
        if let Some(waker) = &*waker {
            self.asked_to_close.store(true, Ordering::Relaxed);
            waker.wake_by_ref();
        }
        waker.is_some()
    }

    pub(in crate::frontend) fn is_asked_to_close(&self) -> bool {
        self.asked_to_close.load(Ordering::Relaxed)
    }

    /// Wakes the connection's task, so that its timer checks the connection.
    pub(in crate::frontend) fn wake(&self) {
        if let Some(waker) = &*self.waker.lock() {
            waker.wake_by_ref();
        }
    }
}
