//! Says whether a live manifest progresses, has stalled, or has ended. A part of
//! [`ManifestTracker`], whose file lists the parts.

use std::time::{Duration, Instant, SystemTime};

use super::ManifestTracker;
use seawall_policy::progress::STALLED_INTERVALS;

/// A manifest that was live within this time may become live again.
const REVIVAL_MAX: Duration = Duration::from_mins(2);

impl ManifestTracker {
    /// Has the manifest, by the update time that the origin states, been unchanged for longer than
    /// it may?
    pub(crate) fn is_old(&self, updated: SystemTime, now: SystemTime) -> bool {
        let state = self.state.lock();
        let since = now.duration_since(updated).unwrap_or_default();
        !state.ended && since > state.reload_interval_max * STALLED_INTERVALS
    }

    /// It should have changed by now; another endpoint may have a newer version.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        let state = self.state.lock();
        !state.ended && state.variants.is_late(now)
    }

    /// It was live in its last version, and changed recently.
    pub(crate) fn is_progressing(&self, now: Instant) -> bool {
        let state = self.state.lock();
        state.last_live.is_some() && !state.ended && !state.variants.is_stalled(now)
    }

    /// It should have changed long ago.
    pub(crate) fn is_stalled(&self, now: Instant) -> bool {
        let state = self.state.lock();
        !state.ended && state.variants.is_stalled(now)
    }

    /// It was live a short time ago: an encoder that stops and restarts says in between that the
    /// stream has ended.
    pub(crate) fn was_live_recently(&self, now: Instant) -> bool {
        let live = self.state.lock().last_live;
        live.is_some_and(|live| now.saturating_duration_since(live) < REVIVAL_MAX)
    }
}
