//! Knows whether viewers watch a live manifest, and with which header fields it and its segments
//! are fetched in the background. A part of [`ManifestTracker`], whose file lists the parts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;

use super::ManifestTracker;
use super::owned_request::own_values;
use seawall_policy::headers;

/// A manifest is idle after this many reload intervals without a request.
pub(super) const IDLE_INTERVALS: u32 = 3;

/// Allowance for players that request later than once per segment, and for slow networks.
const REQUEST_SLACK: Duration = Duration::from_millis(500);

impl ManifestTracker {
    /// Remembers the header fields of a viewer's request for repetition in the background, reduced
    /// to those that may be sent for other viewers. Only where the response is the same for all
    /// (`is_same_for_all`), not one per header value.
    pub(crate) fn remember_headers(&self, sent: &HeaderMap, is_same_for_all: bool) {
        let others = headers::shareable_headers(sent, &self.route());
        let others = others.filter(|_| is_same_for_all);
        self.state.lock().background_headers = others.map(|others| Arc::new(own_values(&others)));
    }

    /// The header fields for background requests; `None`: there are no such requests.
    pub(crate) fn background_headers(&self) -> Option<Arc<HeaderMap>> {
        self.state.lock().background_headers.clone()
    }

    /// New segments of a representation are prefetched while a viewer requested one of it within
    /// this time: two segment durations and an allowance.
    pub(crate) fn prefetch_window(&self) -> Duration {
        self.state.lock().segment_duration * 2 + REQUEST_SLACK
    }

    /// Does a viewer watch it now? Players request a playlist once per segment, an MPD once per
    /// `minimumUpdatePeriod`. The limit is normally shorter than that of `is_in_use` and
    /// that of the refresher (`next_poll`): when viewers leave, prefetches end first.
    pub(crate) fn is_watched(&self, now: Instant) -> bool {
        let idle_max = {
            let state = self.state.lock();
            state.reload_interval_max + state.segment_duration + REQUEST_SLACK
        };
        let idle_time = self.access.idle_time(now);
        idle_time.is_some_and(|idle_time| idle_time <= idle_max)
    }

    /// Did a viewer request it within [`IDLE_INTERVALS`], or is it still refreshed?
    pub(super) fn is_in_use(&self, now: Instant) -> bool {
        let idle_max = self.state.lock().reload_interval_max * IDLE_INTERVALS;
        let idle_time = self.access.idle_time(now);
        self.access.has_refresher() || idle_time.is_some_and(|idle_time| idle_time < idle_max)
    }
}
