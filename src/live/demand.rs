//! Says whether viewers currently want a live manifest and its segments, and with which header
//! fields they are fetched in the background.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;

use super::PlaylistTracker;
use super::owned_request::own_values;
use seawall_policy::headers;

/// A manifest counts as unwatched after this many segment durations without a request.
pub(super) const IDLE_SEGMENTS: u32 = 3;

/// Allowance for players that request later than once per segment, and for slow networks.
const DAWDLING: Duration = Duration::from_millis(500);

impl PlaylistTracker {
    /// Remembers the header fields of a viewer's request for repetition in the background, reduced
    /// to those that `for_others` permits. Only where the response is the same for all (`alike`),
    /// not one per header value.
    pub(crate) fn remember_headers(&self, sent: &HeaderMap, alike: bool) {
        let others = headers::shareable_headers(sent, &self.entry.route).filter(|_| alike);
        self.state.lock().background_fields = others.map(|others| Arc::new(own_values(&others)));
    }

    /// The header fields for background requests; `None`: there are no such requests.
    pub(crate) fn background_headers(&self) -> Option<Arc<HeaderMap>> {
        self.state.lock().background_fields.clone()
    }

    /// A rendition counts as unwatched when no viewer has requested a segment of it for this long:
    /// two segment durations and an allowance.
    pub(crate) fn patience(&self) -> Duration {
        self.state.lock().step * 2 + DAWDLING
    }

    /// Has a viewer requested it recently? Players request a playlist once per segment, an MPD once
    /// per update period.
    pub(crate) fn is_wanted(&self, now: Instant) -> bool {
        let patience = {
            let state = self.state.lock();
            state.segment + state.step + DAWDLING
        };
        let idle_time = self.access.idle_time(now);
        idle_time.is_some_and(|idle_time| idle_time <= patience)
    }

    /// Do viewers watch it, or did they recently?
    pub(super) fn is_followed(&self, now: Instant) -> bool {
        let patience = self.state.lock().segment * IDLE_SEGMENTS;
        let idle_time = self.access.idle_time(now);
        self.access.has_refresher() || idle_time.is_some_and(|idle_time| idle_time < patience)
    }
}
