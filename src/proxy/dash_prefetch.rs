//! Prefetches segments that only the clock announces: no new version of the MPD lists them. One
//! task per MPD fetches the next segment when it becomes available, and ends when no viewer
//! watches.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::sleep;

use super::Shield;
use crate::live::{ClockPrefetch, ManifestTracker, PrefetchSource};

impl Shield {
    /// Starts the prefetch task of an MPD when a viewer requests one of its segments.
    pub(super) fn start_dash_prefetch(self: &Arc<Self>, mpd: &Arc<ManifestTracker>) {
        let Some(mut prefetch) = ClockPrefetch::begin(mpd, SystemTime::now()) else {
            return;
        };
        let Some(active) = self.active.upgrade() else {
            return;
        };
        tokio::spawn(async move {
            while let Some(wait) = prefetch.next_wait(SystemTime::now()) {
                sleep(wait).await;
                active.current().prefetch_by_clock(&mut prefetch);
            }
        });
    }

    /// Fetches the newest segments that viewers want.
    fn prefetch_by_clock(self: &Arc<Self>, prefetch: &mut ClockPrefetch) {
        let mpd = prefetch.tracker();
        let newest = mpd.newest_by_clock(&self.rules, SystemTime::now());
        let client_headers = mpd.background_headers();
        let fields = client_headers.as_deref().cloned().unwrap_or_default();
        let wanted = self.segments_wanted(newest, &fields, mpd.prefetch_window());
        for change in prefetch.record_wanted(&self.rules, &wanted, SystemTime::now()) {
            self.cache
                .update_live_windows(&change.advances, &change.dropped);
        }
        if let Some(client_headers) = client_headers {
            self.prefetch(&wanted, PrefetchSource::Template, &client_headers);
        }
    }
}
