//! Plans when a manifest is polled next, and how: plainly when a change is due, or by a blocking
//! request. A part of [`ManifestTracker`], whose file lists the parts.

use std::time::{Duration, Instant};

use super::ManifestTracker;
use super::blocking_reload::PlannedPoll;
use super::demand::IDLE_INTERVALS;
use super::tracker_state::TrackerState;

impl ManifestTracker {
    /// Time until the next version is due.
    pub(super) fn next_version_in(&self, now: Instant) -> Option<Duration> {
        let state = self.state.lock();
        let changes = !state.ended && !state.version_interval.is_zero();
        let due = state.cadence.next().checked_duration_since(now)?;
        (changes && !due.is_zero()).then_some(due)
    }

    /// Time and mode of the next poll; `None` when no viewer has requested it for
    /// [`IDLE_INTERVALS`] and for the route's `idle`, or when the stream has ended.
    pub(crate) fn next_poll(&self, now: Instant) -> Option<PlannedPoll> {
        let state = self.state.lock();
        let idle = self.route().live.idle;
        let idle_max = (state.reload_interval_max * IDLE_INTERVALS).max(idle);
        let was_requested = self.access.idle_time(now)? < idle_max;
        let may_be_polled = state.background_headers.is_some() && !state.ended;
        if !(was_requested && may_be_polled) {
            return None;
        }
        let plain = state.next_plain_poll()?;
        Some(state.blocking.next_poll(now).unwrap_or(plain))
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

    /// Records the start of a blocking request. Returns when the latest version was accepted.
    pub(crate) fn begin_blocking(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        state.blocking.record_request(now);
        state.accepted_at
    }

    /// Records the end of a blocking request. `accepted_at`: what
    /// [`ManifestTracker::begin_blocking`] returned. If no version has been accepted since, plain
    /// polls replace blocking requests for a time.
    pub(crate) fn end_blocking(&self, accepted_at: Option<Instant>, now: Instant) {
        let mut state = self.state.lock();
        if state.accepted_at == accepted_at {
            state.blocking.record_failure(now);
        }
    }

    /// Records that the stored version is fresh for `span` from `now` on: the next poll comes
    /// before it expires. With a span of zero nothing is polled: viewers' requests fetch the
    /// manifest.
    pub(crate) fn set_fresh_for(&self, span: Duration, now: Instant) {
        /// A poll takes time, and may need a second one.
        const SHARE: f64 = 0.9;
        let until = (!span.is_zero()).then(|| now + span.mul_f64(SHARE));
        self.state.lock().poll_before = until;
    }
}

impl TrackerState {
    /// The next plain poll: when the next version is due, or before the stored one expires if that
    /// is earlier. Even where the origin gives a very short lifetime, an eighth of the interval
    /// between versions passes between two polls of which the second only renews the lifetime.
    fn next_plain_poll(&self) -> Option<PlannedPoll> {
        let distance = self.version_interval_or_default() / 8;
        let latest = self.poll_before?.max(self.no_poll_before + distance);
        // An MPD that lists no segments may never change: it is revalidated before it is stale.
        let at = if self.version_interval.is_zero() {
            latest
        } else {
            self.cadence.next().min(latest)
        };
        Some(PlannedPoll::Plain(at.max(self.no_poll_before)))
    }
}
