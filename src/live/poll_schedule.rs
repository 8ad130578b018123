//! Plans when a manifest is polled next, and how: plainly when a change is due, or by a blocking
//! request.

use std::time::{Duration, Instant};

use super::ManifestTracker;
use super::blocking_reload::PlannedPoll;
use super::demand::IDLE_SEGMENTS;

impl ManifestTracker {
    /// Time until the next version is due.
    pub(super) fn next_version(&self, now: Instant) -> Option<Duration> {
        let state = self.state.lock();
        let changes = !state.ended && !state.version_interval.is_zero();
        let due = state.cadence.next().checked_duration_since(now)?;
        (changes && !due.is_zero()).then_some(due)
    }

    /// Time and mode of the next poll; `None` when no viewer watches or the stream has ended.
    pub(crate) fn next_poll(&self, now: Instant) -> Option<PlannedPoll> {
        let state = self.state.lock();
        let idle = self.request.route.live.idle;
        let idle_max = (state.reload_interval_max * IDLE_SEGMENTS).max(idle);
        let idle_time = self.access.idle_time(now)?;
        let until = state.poll_before?;
        let may_be_polled = state.background_headers.is_some() && !state.ended;
        let is_watched = idle_time < idle_max && may_be_polled;
        // However short a lifetime the origin gives, polls keep a distance.
        let until = until.max(state.no_poll_before + state.version_interval_or_default() / 8);
        let plainly = || {
            // An MPD that lists no segments may never change: it is revalidated before it is stale.
            let changes =
                (!state.version_interval.is_zero()).then(|| state.cadence.next().min(until));
            PlannedPoll::At(changes.unwrap_or(until).max(state.no_poll_before))
        };
        is_watched.then(|| state.blocking.next_poll(now).unwrap_or_else(plainly))
    }

    /// Number of polls that the origin has answered.
    pub(crate) fn responses(&self) -> u64 {
        self.state.lock().responses
    }

    /// Records a failed poll: no further one for `pause`.
    pub(crate) fn record_failed_poll(&self, now: Instant, pause: Duration) {
        let mut state = self.state.lock();
        state.no_poll_before = now + pause.max(state.poll_interval_min());
    }

    /// Records the start of a blocking request. Returns when the latest version was taken.
    pub(crate) fn begin_blocking(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        state.blocking.record_request(now);
        state.accepted_at
    }

    /// Records the end of a blocking request. If no version came since `taken`, plain polling
    /// replaces blocking requests for a time.
    pub(crate) fn end_blocking(&self, taken: Option<Instant>, now: Instant) {
        let mut state = self.state.lock();
        if state.accepted_at == taken {
            state.blocking.record_failure(now);
        }
    }

    /// The stored version is fresh for `span` from now; the next poll is planned before it expires.
    /// With a span of zero there is no refresher: viewers' requests fetch it.
    pub(crate) fn set_fresh_for(&self, span: Duration, now: Instant) {
        /// A poll takes time, and may need a second one.
        const SHARE: f64 = 0.9;
        let until = (!span.is_zero()).then(|| now + span.mul_f64(SHARE));
        self.state.lock().poll_before = until;
    }
}
