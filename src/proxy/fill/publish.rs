//! Applies a manifest that has arrived: collects the facts, has `disposition.rs` decide, and
//! changes trackers, cache and followers accordingly. `version.rs` builds what is stored;
//! `settle.rs` ends the fills whose manifest is not. Versions of one manifest arrive by several
//! paths; they are applied one after another, never an older one after a newer one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use seawall_cache::Follower;
use seawall_policy::progress::Progress;
use seawall_policy::vary::Vary;
use seawall_policy::{Lifetime, Now};
use tokio::time::timeout;

use super::disposition::{DelayFacts, Disposition, UpdateFacts, decide, publication_delay};
use super::manifest::FetchedManifest;
use super::{FillTask, FillTrigger};
use crate::live::{ManifestTracker, ManifestVersion, PrefetchSource, VersionEffects, WindowChange};

/// A version that has been recorded and whose effects have been applied; it is stored next.
struct AppliedVersion {
    task: FillTask,
    fetched: FetchedManifest,
    lifetime: Lifetime,
    progress: Progress,
    /// The prefetches of its new segments.
    prefetches: Vec<Follower>,
    /// It is stored once its prefetches have begun, after this time at the latest.
    delay: Option<Duration>,
    applied_at: Instant,
}

impl FillTask {
    /// Serves a version to all followers and stores it, or settles the fill in another way.
    pub(super) async fn publish(self, fetched: FetchedManifest) {
        if let Some(version) = self.apply_or_settle(fetched) {
            version.store_when_prefetched().await;
        }
    }

    /// Decides about a manifest. Records a version that will be stored and applies its effects;
    /// settles the fill for any other.
    fn apply_or_settle(self, fetched: FetchedManifest) -> Option<AppliedVersion> {
        let tracker = fetched.tracker.clone();
        let _lock = tracker.as_ref().map(|tracker| tracker.lock_publishing());
        let progress = fetched.progress();
        let lifetime = match self.disposition_of(&fetched, progress) {
            Disposition::Store(lifetime) => lifetime,
            Disposition::Settle(settlement) => {
                self.settle(fetched, settlement);
                return None;
            }
        };
        let effects = self.record_version(&fetched, progress);
        let delay = self.publication_delay_of(&fetched, progress);
        let prefetches = self.apply_effects(&fetched, progress, effects);
        Some(AppliedVersion {
            task: self,
            fetched,
            lifetime,
            progress,
            prefetches,
            delay,
            applied_at: Instant::now(),
        })
    }

    /// Collects the facts about a manifest, and decides. The caller holds the tracker's publishing
    /// lock.
    fn disposition_of(&self, fetched: &FetchedManifest, progress: Progress) -> Disposition {
        let newest_stored = match progress {
            Progress::Behind => self.newest_if_not_behind(fetched),
            _ => None,
        };
        decide(UpdateFacts {
            progress,
            storage: self.storage_as_newest(fetched),
            is_readable: fetched.manifest.is_some(),
            newest_stored,
        })
    }

    /// How long the publication of a version may wait for its new segments.
    fn publication_delay_of(
        &self,
        fetched: &FetchedManifest,
        progress: Progress,
    ) -> Option<Duration> {
        let now = Instant::now();
        let tracker = fetched.tracker.as_deref();
        let stored_version = self.stored_object();
        publication_delay(&DelayFacts {
            progress,
            may_have_waiting_viewer: self.may_be_blocking
                || !matches!(self.trigger, FillTrigger::Refresh),
            stored_remaining: stored_version.map(|stored| {
                let info = stored.head.manifest_info.as_deref();
                stored.head.lifetime.refreshed_remaining(info, now)
            }),
            delay_max: tracker.map(ManifestTracker::publication_delay_max),
        })
    }

    /// Records a version in `live`. This comes before any viewer gets the version: if it reports a
    /// restart, a viewer who has it must not get objects from before.
    fn record_version(&self, fetched: &FetchedManifest, progress: Progress) -> VersionEffects {
        let Some(manifest) = &fetched.manifest else {
            return VersionEffects::default();
        };
        if let Some(tracker) = &fetched.tracker {
            let is_same_for_all = self.vary(&fetched.response.headers) == Vary::Nothing;
            tracker.remember_headers(self.fill.upstream_headers(), is_same_for_all);
        }
        let version = ManifestVersion {
            request: &self.request,
            manifest,
            variant: fetched.variant,
            progress,
            current_at: fetched.current_at,
            may_be_from_blocking_request: self.may_be_blocking,
        };
        let live = &self.shield.live;
        live.record_version(
            &self.shield.rules,
            fetched.tracker.as_ref(),
            &version,
            Now::read(),
        )
    }

    /// Applies what a version changes outside `live`. Returns a follower of each prefetch.
    fn apply_effects(
        &self,
        fetched: &FetchedManifest,
        progress: Progress,
        effects: VersionEffects,
    ) -> Vec<Follower> {
        self.invalidate(&effects);
        let Some(tracker) = &fetched.tracker else {
            return Vec::new();
        };
        if progress == Progress::Restarted {
            self.drop_requested_versions();
        }
        self.avoid_endpoint_if_stalled(tracker, fetched.response.endpoint, fetched.is_old);
        self.prefetch_new(tracker, effects)
    }

    /// Drops or devalues the stored objects that a version made invalid.
    fn invalidate(&self, effects: &VersionEffects) {
        let cache = &self.shield.cache;
        for named in &effects.uncacheable {
            cache.purge(&named.key, named.kind);
        }
        let WindowChange { advances, dropped } = &effects.window;
        if !(advances.is_empty() && dropped.is_empty()) {
            cache.update_live_windows(advances, dropped);
        }
        if !effects.epochs_to_end.is_empty() {
            // The process before may have objects from before the restart.
            self.shield.handover.end_asking("a stream has restarted");
        }
        for epoch in &effects.epochs_to_end {
            cache.end_epoch(epoch);
        }
    }

    /// Drops the versions that were requested by number before a restart.
    fn drop_requested_versions(&self) {
        let playlist = self.request.playlist_epoch_key();
        self.shield.cache.end_epoch(&playlist);
        let path = self.request.target.path();
        tracing::warn!(path, "stream restarted: its stored objects are dropped");
    }

    /// Prefetches what a version lists and announces, if viewers watch. Returns a follower of each
    /// segment.
    fn prefetch_new(&self, tracker: &ManifestTracker, effects: VersionEffects) -> Vec<Follower> {
        let is_for_viewer = matches!(self.trigger, FillTrigger::Viewer(..));
        // The refresher may run on after all viewers have left.
        if !(is_for_viewer || tracker.is_watched(Instant::now())) {
            return Vec::new();
        }
        let shield = &self.shield;
        let client_headers = tracker.background_headers();
        let headers = client_headers.as_deref().cloned().unwrap_or_default();
        let wanted =
            shield.segments_wanted(effects.to_prefetch, &headers, tracker.prefetch_window());
        tracker.count_new_segments(wanted.len());
        let Some(client_headers) = client_headers else {
            return Vec::new();
        };
        shield.prefetch_announced_parts(effects.announced, &client_headers);
        shield.prefetch(&wanted, PrefetchSource::Playlist, &client_headers)
    }
}

impl AppliedVersion {
    /// Stores and serves the version once its prefetches have begun, or after its delay.
    async fn store_when_prefetched(mut self) {
        if let Some(delay) = self.delay {
            let prefetches = std::mem::take(&mut self.prefetches);
            let all_begun = async {
                for mut prefetch in prefetches {
                    prefetch.wait_for_head().await;
                }
            };
            // The version is served even if the prefetches have not begun in time.
            let _ = timeout(delay, all_begun).await;
        }
        self.store_unless_overtaken();
    }

    /// Stores the version and gives it to all followers, unless a newer one has been stored since
    /// this one was applied.
    fn store_unless_overtaken(self) {
        let tracker = self.fetched.tracker.clone();
        let lock = tracker.as_ref().map(|tracker| tracker.lock_publishing());
        if let Some(tracker) = &tracker
            && tracker.has_newer_version(self.fetched.variant, self.applied_at)
        {
            return self.task.settle_behind_locked(self.fetched);
        }
        let shield = Arc::clone(&self.task.shield);
        self.store();
        drop(lock);
        if let Some(tracker) = &tracker {
            tracker.version_stored.notify_waiters();
            shield.start_refresher(tracker);
        }
    }

    /// Stores the version; the caller holds the tracker's publishing lock.
    fn store(self) {
        let AppliedVersion {
            mut task, fetched, ..
        } = self;
        let tracker = fetched.tracker.clone();
        if let Some(info) = fetched.info()
            && task.is_requested_version(info)
        {
            let endpoint = fetched.response.endpoint_to_avoid;
            task.avoid_blocking_endpoint(tracker.as_deref(), endpoint);
        }
        let current_at = fetched.current_at;
        let version = task.build_version(fetched, self.lifetime, self.progress);
        if let Some(tracker) = &tracker {
            let head = &version.object.head;
            let info = head.manifest_info.as_deref();
            let remaining = head.lifetime.refreshed_remaining(info, current_at);
            tracker.set_fresh_for(remaining, current_at);
        }
        task.store_and_serve(version);
    }
}
