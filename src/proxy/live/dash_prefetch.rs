//! Prefetches segments that only the clock announces: no new version of the MPD lists them. One
//! task per MPD fetches the next segment when it becomes available, and ends when no viewer
//! watches.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::time::sleep;

use super::{PlaylistTracker, PrefetchSource};
use crate::proxy::Shield;
use seawall_policy::Key;
use seawall_policy::access::CacheRequest;

/// The task ends if the next segment is farther away than this.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// The task ends after this many checks without a wanted segment, which is two segment durations.
const IN_VAIN_MAX: u32 = 6;

/// Dropped when the task ends, for any reason.
struct DashPrefetchGuard {
    shield: Arc<Shield>,
    watch: Arc<PlaylistTracker>,
    /// The newest segments that have been counted.
    counted: Vec<Key>,
    in_vain: u32,
}

impl Drop for DashPrefetchGuard {
    fn drop(&mut self) {
        self.watch.is_prefetching.store(false, Ordering::Relaxed);
    }
}

impl Shield {
    /// Starts the prefetch task of an MPD when a viewer requests one of its segments.
    pub(in crate::proxy) fn start_dash_prefetch(self: &Arc<Self>, watch: &Arc<PlaylistTracker>) {
        let wanted = watch.entry.route.live.prefetch && wait(watch).is_some();
        if !wanted || watch.is_prefetching.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut foresight = DashPrefetchGuard {
            shield: Arc::clone(self),
            watch: Arc::clone(watch),
            counted: Vec::new(),
            in_vain: 0,
        };
        tokio::spawn(async move {
            while foresight.in_vain < IN_VAIN_MAX
                && let Some(wait) = wait(&foresight.watch)
            {
                sleep(wait).await;
                foresight.prefetch_new();
            }
        });
    }
}

fn wait(watch: &PlaylistTracker) -> Option<Duration> {
    let now = SystemTime::now();
    let wait = watch.lanes().next_look(now)?.duration_since(now).ok()?;
    (wait <= WAIT_MAX).then_some(wait)
}

impl DashPrefetchGuard {
    /// Fetches the new segments that viewers want.
    fn prefetch_new(&mut self) {
        let DashPrefetchGuard { shield, watch, .. } = self;
        let lanes = watch.lanes();
        let newest = lanes.newest(&shield.rules, &watch.entry, SystemTime::now());
        let with = watch.background_headers();
        let said = with.as_deref().cloned().unwrap_or_default();
        let wanted = shield.wanted(newest, &said, watch.patience());
        let keys: Vec<Key> = wanted.iter().map(|entry| entry.key.clone()).collect();
        let is_new = |entry: &&CacheRequest| !self.counted.contains(&entry.key);
        let new: Vec<CacheRequest> = wanted.iter().filter(is_new).cloned().collect();
        watch.stream.raise_floor(new.len() as u64);
        let now = SystemTime::now();
        let of = (&shield.rules, &watch.entry);
        let slides = new.iter().filter_map(|entry| lanes.slide(of, entry, now));
        for (rendition, gone) in slides {
            let gone: Vec<u64> = gone.iter().map(Key::fingerprint).collect();
            shield
                .cache
                .update_live_windows(&[watch.by_clock(rendition)], &gone);
        }
        self.counted = keys;
        self.in_vain = if wanted.is_empty() {
            self.in_vain + 1
        } else {
            0
        };
        if let Some(with) = with {
            shield.prefetch(&wanted, PrefetchSource::Template, &with);
        }
    }
}
