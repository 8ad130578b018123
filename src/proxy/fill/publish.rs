//! Applies a manifest that has arrived: collects the facts, has `disposition.rs` decide, and
//! changes trackers, cache and followers accordingly. Versions of one manifest arrive by several
//! paths; they are applied one after another, never an older one after a newer one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use seawall_cache::{Follower, Object, StoredHead, Verdict};
use seawall_policy::progress::Progress;
use seawall_policy::vary::Vary;
use seawall_policy::{Lifetime, Now};
use tokio::time::timeout;

use super::disposition::{
    DelayFacts, Disposition, Settlement, UpdateFacts, decide, decide_behind, publication_delay,
};
use super::manifest::FetchedManifest;
use super::{FillTask, FillTrigger};
use crate::live::{
    ManifestTracker, ManifestVersion, PrefetchSource, RejectReason, Variant, VersionEffects,
    WindowChange,
};

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
        let lifetime = match self.decide(&fetched, progress) {
            Disposition::Store(lifetime) => lifetime,
            Disposition::Settle(settlement) => {
                self.settle(fetched, settlement);
                return None;
            }
        };
        let effects = self.record_version(&fetched, progress);
        let delay = self.publication_delay(&fetched, progress);
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
    fn decide(&self, fetched: &FetchedManifest, progress: Progress) -> Disposition {
        let is_behind = progress == Progress::Behind;
        decide(UpdateFacts {
            progress,
            storage: self.decide_storage(&fetched.response, fetched.kind, fetched.info(), false),
            is_readable: fetched.manifest.is_some(),
            newest_stored: is_behind.then(|| self.newest_stored(fetched)).flatten(),
        })
    }

    /// How long the publication of a version may wait for its new segments.
    fn publication_delay(&self, fetched: &FetchedManifest, progress: Progress) -> Option<Duration> {
        let now = Instant::now();
        let tracker = fetched.tracker.as_deref();
        let stored_version = self.stored_object();
        publication_delay(&DelayFacts {
            progress,
            may_have_waiting_viewer: self.held_back
                || !matches!(self.trigger, FillTrigger::Refresh),
            stored_remaining: stored_version.map(|stored| refreshed_left(&stored.head, now)),
            delay_max: tracker.map(ManifestTracker::publication_delay_max),
        })
    }

    /// Settles a fill whose manifest is behind what viewers have seen.
    pub(super) fn settle_behind(self, fetched: FetchedManifest) {
        let tracker = fetched.tracker.clone();
        let _lock = tracker.as_ref().map(|tracker| tracker.lock_publishing());
        self.settle_behind_locked(fetched);
    }

    /// The same; the caller holds the tracker's publishing lock.
    fn settle_behind_locked(self, fetched: FetchedManifest) {
        let storage = self.decide_storage(&fetched.response, fetched.kind, fetched.info(), false);
        let settlement = decide_behind(self.newest_stored(&fetched), &storage);
        self.settle(fetched, settlement);
    }

    /// The newest stored version of the manifest, if it is the newest that viewers have seen.
    fn newest_stored(&self, fetched: &FetchedManifest) -> Option<Arc<Object>> {
        let newest = self.newest()?;
        let (Some(tracker), Some(info)) = (&fetched.tracker, newest.head.manifest_info.as_deref())
        else {
            return Some(newest);
        };
        let progress = tracker.progress_of(fetched.variant, info, Instant::now());
        (progress != Progress::Behind).then_some(newest)
    }

    /// Records a version in `live`. This comes before any viewer gets the version: if it shows a
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
            may_have_been_held_back: self.held_back,
        };
        let live = &self.shield.live;
        live.record_version(fetched.tracker.as_ref(), &version, Now::read())
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

    /// Ends a fill whose manifest is not stored.
    fn settle(self, fetched: FetchedManifest, settlement: Settlement) {
        match settlement {
            Settlement::ConfirmStored(stored_version) => {
                self.confirm_stored(&fetched, &stored_version);
            }
            Settlement::ServeOnce => self.serve_once(fetched),
            Settlement::PassOn(reason) => self.hand_over_manifest(fetched, reason),
            Settlement::PassOnUnread => self.hand_over_unread(fetched),
            Settlement::Fail => self.handle_failure(seawall_upstream::Failure::Protocol),
        }
    }

    /// Gives the newest stored version to all followers, as if the origin had just confirmed it.
    fn confirm_stored(self, fetched: &FetchedManifest, stored_version: &Arc<Object>) {
        let headers = stored_version.head.headers.to_map();
        let (object, is_storable) =
            self.revalidated_object((stored_version, false), headers, None, &fetched.response);
        let object = Arc::new(object);
        if let Some(tracker) = fetched.tracker.as_ref().filter(|_| is_storable) {
            tracker.record_unchanged(fetched.variant, fetched.current_at);
            tracker.set_fresh_for(
                refreshed_left(&object.head, fetched.current_at),
                fetched.current_at,
            );
            self.avoid_endpoint_if_stalled(tracker, fetched.response.endpoint, fetched.is_old);
            self.shield.start_refresher(tracker);
        }
        let verdict = Verdict::Revalidated(Arc::clone(&object));
        if self.request.has_delivery_directives() {
            if is_storable {
                let (key, kind) = (self.request.base_key(), self.request.kind);
                self.shield.cache.store_under(key, kind, &object);
            }
            self.fill.settle(verdict);
        } else if is_storable {
            self.fill.set_vary(self.vary(&object.head.headers.to_map()));
            self.fill.store_and_publish(&object, verdict);
        } else {
            self.fill.settle(verdict);
        }
    }

    /// Gives a version to the current followers, without storing it.
    fn serve_once(mut self, fetched: FetchedManifest) {
        if self.vary(&fetched.response.headers) != Vary::Nothing {
            self.fill.set_vary(self.vary(&fetched.response.headers));
        }
        let lifetime = Lifetime::none(Instant::now());
        let version = self.build_version(fetched, lifetime, Progress::Same);
        self.fill.settle(Verdict::Object(Arc::new(version.object)));
    }

    /// The newest stored version of the manifest.
    pub(super) fn newest(&self) -> Option<Arc<Object>> {
        let (key, kind) = (self.request.base_key(), self.request.kind);
        let upstream_headers = || self.fill.upstream_headers().clone();
        let cache = &self.shield.cache;
        let newest = cache
            .lookup(key, kind, Instant::now(), upstream_headers)
            .object;
        newest.filter(|newest| newest.head.status == StatusCode::OK)
    }

    /// The origin confirmed the stored version with a 304.
    pub(super) fn record_not_modified(
        &self,
        response: &seawall_upstream::UpstreamResponse,
        head: &StoredHead,
        variant: Variant,
    ) {
        // That a version requested by number is confirmed does not prove that it is the newest.
        if self.request.has_delivery_directives() {
            return;
        }
        let Some(tracker) = self.tracker() else {
            return;
        };
        let (_, current_at) = self.sent_and_current_at(response);
        tracker.record_unchanged(variant, current_at);
        tracker.set_fresh_for(refreshed_left(head, current_at), current_at);
        self.avoid_endpoint_if_stalled(&tracker, response.endpoint, false);
        self.shield.start_refresher(&tracker);
    }

    fn avoid_endpoint_if_stalled(&self, tracker: &ManifestTracker, endpoint: usize, is_old: bool) {
        if self.should_have_changed(tracker, is_old, Instant::now()) {
            self.avoid_stalled_endpoint(tracker, endpoint);
        }
    }

    /// The manifest should have changed by now: another endpoint may have a newer version. Players
    /// buffer about three segments; where there is another endpoint, it is requested before these
    /// run out.
    fn should_have_changed(&self, tracker: &ManifestTracker, is_old: bool, now: Instant) -> bool {
        let is_late = self.origin().has_several_endpoints() && tracker.is_late(now);
        is_old || is_late || tracker.is_stalled(now)
    }

    fn avoid_stalled_endpoint(&self, tracker: &ManifestTracker, endpoint: usize) {
        self.shield.live.count_rejection(RejectReason::Stalled);
        tracker.avoid(endpoint, Instant::now());
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
        let is_overtaken = |tracker: &Arc<ManifestTracker>| {
            tracker.has_newer_version(self.fetched.variant, self.applied_at)
        };
        if tracker.as_ref().is_some_and(is_overtaken) {
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
        let is_requested_version = |info| task.is_requested_version(info);
        if fetched.info().is_some_and(is_requested_version) {
            let endpoint = fetched.response.endpoint_to_avoid;
            task.avoid_endpoint_that_held_back(tracker.as_deref(), endpoint);
        }
        let current_at = fetched.current_at;
        let version = task.build_version(fetched, self.lifetime, self.progress);
        if let Some(tracker) = &tracker {
            tracker.set_fresh_for(refreshed_left(&version.object.head, current_at), current_at);
        }
        task.store_and_serve(version);
    }
}

/// How long it may still be served at `now` while the refresher keeps it current.
fn refreshed_left(head: &StoredHead, now: Instant) -> Duration {
    let lifetime = &head.lifetime;
    let max_age = lifetime.refreshed_max_age(head.manifest_info.as_deref());
    max_age.saturating_sub(lifetime.age(now))
}
