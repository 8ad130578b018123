//! Applies a manifest that has arrived: collects the facts, has `manifest_update.rs` decide, and
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

use super::manifest::ManifestText;
use super::manifest_update::{
    DelayFacts, Disposition, ManifestUpdate, Settlement, UpdateFacts, VersionUpdate, decide,
    decide_behind, publication_delay,
};
use super::{FillTask, FillTrigger};
use crate::live::{
    ManifestTracker, ManifestVersion, PrefetchSource, RejectReason, Variant, VersionEffects,
    WindowChange,
};

/// A version whose effects on trackers and cache have been applied; it is stored next.
struct AppliedVersion {
    task: FillTask,
    text: ManifestText,
    update: Box<VersionUpdate>,
    /// The prefetches of its new segments.
    prefetches: Vec<Follower>,
    applied_at: Instant,
}

impl FillTask {
    /// Serves a version to all followers and stores it, or settles the fill in another way.
    pub(super) async fn publish(self, text: ManifestText) {
        if let Some(version) = self.apply_or_settle(text) {
            version.store_when_prefetched().await;
        }
    }

    /// Decides about a manifest. Applies the effects of a version that will be stored; settles the
    /// fill for any other.
    fn apply_or_settle(self, text: ManifestText) -> Option<AppliedVersion> {
        let tracker = text.tracker.clone();
        let _lock = tracker.as_ref().map(|tracker| tracker.lock_publishing());
        match self.plan_update(&text, text.progress()) {
            ManifestUpdate::Settle(settlement) => {
                self.settle(text, settlement);
                None
            }
            ManifestUpdate::Store(mut update) => Some(AppliedVersion {
                prefetches: self.apply_effects(&text, &mut update),
                applied_at: Instant::now(),
                task: self,
                text,
                update,
            }),
        }
    }

    /// Settles a fill whose manifest is behind what viewers have seen.
    pub(super) fn settle_behind(self, text: ManifestText) {
        let tracker = text.tracker.clone();
        let _lock = tracker.as_ref().map(|tracker| tracker.lock_publishing());
        self.settle_overtaken(text);
    }

    /// The same; the caller holds the tracker's publishing lock.
    fn settle_overtaken(self, text: ManifestText) {
        let storage = self.decide_storage(&text.response, text.kind, text.info(), false);
        let settlement = decide_behind(self.newest_stored(&text), &storage);
        self.settle(text, settlement);
    }

    /// Collects the facts about a manifest, decides, and records a version that will be stored in
    /// its stream. The caller holds the tracker's publishing lock.
    fn plan_update(&self, text: &ManifestText, progress: Progress) -> ManifestUpdate {
        let is_behind = progress == Progress::Behind;
        let decision = decide(UpdateFacts {
            progress,
            storage: self.decide_storage(&text.response, text.kind, text.info(), false),
            is_readable: text.manifest.is_some(),
            newest_stored: is_behind.then(|| self.newest_stored(text)).flatten(),
        });
        let lifetime = match decision {
            Disposition::Store(lifetime) => lifetime,
            Disposition::Settle(settlement) => return ManifestUpdate::Settle(settlement),
        };
        let effects = self.record_version(text, progress);
        let now = Instant::now();
        let tracker = text.tracker.as_deref();
        let is_for_viewer = matches!(self.trigger, FillTrigger::Viewer(..));
        ManifestUpdate::Store(Box::new(VersionUpdate {
            lifetime,
            progress,
            effects,
            // The refresher may run on after all viewers have left.
            prefetches_segments: tracker
                .is_some_and(|tracker| is_for_viewer || tracker.is_watched(now)),
            avoids_endpoint: tracker
                .is_some_and(|tracker| self.should_have_changed(tracker, text.is_old, now)),
            delay: publication_delay(&DelayFacts {
                progress,
                may_have_waiting_viewer: self.held_back
                    || !matches!(self.trigger, FillTrigger::Refresh),
                stored_remaining: self
                    .stored_object()
                    .map(|stored_version| refreshed_left(&stored_version.head, now)),
                delay_max: tracker.map(ManifestTracker::publication_delay_max),
            }),
        }))
    }

    /// The newest stored version of the manifest, if it is the newest that viewers have seen.
    fn newest_stored(&self, text: &ManifestText) -> Option<Arc<Object>> {
        let newest = self.newest()?;
        let (Some(tracker), Some(info)) = (&text.tracker, newest.head.manifest_info.as_deref())
        else {
            return Some(newest);
        };
        let progress = tracker.progress_of(text.variant, info, Instant::now());
        (progress != Progress::Behind).then_some(newest)
    }

    /// Records a version in its stream, before any viewer sees it: a viewer with the new text must
    /// not get objects from before a restart.
    fn record_version(&self, text: &ManifestText, progress: Progress) -> VersionEffects {
        let Some(manifest) = &text.manifest else {
            return VersionEffects::default();
        };
        if let Some(tracker) = &text.tracker {
            let is_same_for_all = self.vary(&text.response.headers) == Vary::Nothing;
            tracker.remember_headers(self.fill.upstream_headers(), is_same_for_all);
        }
        let version = ManifestVersion {
            request: &self.request,
            manifest,
            variant: text.variant,
            progress,
            current_at: text.current_at,
            may_have_been_held_back: self.held_back,
        };
        let live = &self.shield.live;
        live.record_version(text.tracker.as_ref(), &version, Now::read())
    }

    /// Invalidates what a version made invalid, and prefetches its new segments; returns a follower
    /// of each.
    fn apply_effects(&self, text: &ManifestText, update: &mut VersionUpdate) -> Vec<Follower> {
        let shield = &self.shield;
        let effects = std::mem::take(&mut update.effects);
        for named in &effects.uncacheable {
            shield.cache.purge(&named.key, named.kind);
        }
        let WindowChange { advances, dropped } = &effects.window;
        if !(advances.is_empty() && dropped.is_empty()) {
            shield.cache.update_live_windows(advances, dropped);
        }
        for epoch in &effects.epochs_to_end {
            shield.cache.end_epoch(epoch);
        }
        let Some(tracker) = &text.tracker else {
            return Vec::new();
        };
        if update.progress == Progress::Restarted {
            shield.cache.end_epoch(&self.request.playlist_epoch_key());
            let path = self.request.target.path();
            tracing::warn!(path, "stream restarted: its stored objects are dropped");
        }
        if update.avoids_endpoint {
            self.avoid_stalled_endpoint(tracker, text.response.endpoint);
        }
        if !update.prefetches_segments {
            return Vec::new();
        }
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

    /// Stores a version and gives it to all followers, unless a newer one has been stored since
    /// `applied_at`.
    fn store_version(mut self, text: ManifestText, update: VersionUpdate, applied_at: Instant) {
        let tracker = text.tracker.clone();
        let lock = tracker.as_ref().map(|tracker| tracker.lock_publishing());
        if let Some(tracker) = &tracker
            && tracker.has_newer_version(text.variant, applied_at)
        {
            return self.settle_overtaken(text);
        }
        if text
            .info()
            .is_some_and(|info| self.is_requested_version(info))
        {
            self.avoid_endpoint_that_held_back(tracker.as_deref(), text.response.endpoint_to_avoid);
        }
        let (shield, current_at) = (Arc::clone(&self.shield), text.current_at);
        let version = self.build_version(text, update.lifetime, update.progress);
        if let Some(tracker) = &tracker {
            tracker.set_fresh_for(refreshed_left(&version.object.head, current_at), current_at);
        }
        self.store_and_serve(version);
        drop(lock);
        if let Some(tracker) = &tracker {
            tracker.version_stored.notify_waiters();
            shield.start_refresher(tracker);
        }
    }

    /// Ends a fill whose manifest is not stored.
    fn settle(self, text: ManifestText, settlement: Settlement) {
        match settlement {
            Settlement::ConfirmStored(stored_version) => {
                self.confirm_stored(&text, &stored_version);
            }
            Settlement::ServeOnce => self.serve_once(text),
            Settlement::PassOn(reason) => self.hand_over_text(text, reason),
            Settlement::PassOnUnread => self.hand_over_unread(text),
            Settlement::Fail => self.handle_failure(seawall_upstream::Failure::Protocol),
        }
    }

    /// Gives the newest stored version to all followers, as if the origin had just confirmed it.
    fn confirm_stored(self, text: &ManifestText, stored_version: &Arc<Object>) {
        let headers = stored_version.head.headers.to_map();
        let (object, is_storable) =
            self.revalidated_object((stored_version, false), headers, None, &text.response);
        let object = Arc::new(object);
        if let Some(tracker) = text.tracker.as_ref().filter(|_| is_storable) {
            tracker.record_unchanged(text.variant, text.current_at);
            tracker.set_fresh_for(
                refreshed_left(&object.head, text.current_at),
                text.current_at,
            );
            self.avoid_endpoint_if_stalled(tracker, text.response.endpoint, text.is_old);
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
    fn serve_once(mut self, text: ManifestText) {
        if self.vary(&text.response.headers) != Vary::Nothing {
            self.fill.set_vary(self.vary(&text.response.headers));
        }
        let lifetime = Lifetime::none(Instant::now());
        let version = self.build_version(text, lifetime, Progress::Same);
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
    pub(super) fn record_confirmation(
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
    async fn store_when_prefetched(self) {
        if let Some(delay) = self.update.delay {
            let all_begun = async {
                for mut prefetch in self.prefetches {
                    prefetch.wait_for_head().await;
                }
            };
            // The version is served even if the prefetches have not begun in time.
            let _ = timeout(delay, all_begun).await;
        }
        self.task
            .store_version(self.text, *self.update, self.applied_at);
    }
}

/// How long it may still be served at `now` while the refresher keeps it current.
fn refreshed_left(head: &StoredHead, now: Instant) -> Duration {
    let lifetime = &head.lifetime;
    let max_age = lifetime.refreshed_max_age(head.manifest_info.as_deref());
    max_age.saturating_sub(lifetime.age(now))
}
