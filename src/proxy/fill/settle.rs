//! Ends fills whose manifest is not stored: the followers get it once, or the stored version in its
//! place. Records what a confirmed version says of its stream and of the endpoint.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use seawall_cache::{Object, StoredHead, Verdict};
use seawall_policy::Lifetime;
use seawall_policy::lifetime::StorageDecision;
use seawall_policy::progress::Progress;
use seawall_policy::vary::Vary;
use seawall_upstream::{Failure, UpstreamResponse};

use super::disposition::{Settlement, decide_behind};
use super::manifest::FetchedManifest;
use super::revalidation::{Revalidation, stored_targeted};
use super::{FillTask, StoredAs};
use crate::live::{ManifestTracker, RejectReason, Variant};

/// The response that confirms the stored version: the origin still has that one, or an older one.
struct Confirmation {
    variant: Variant,
    current_at: Instant,
    endpoint: usize,
    /// As in [`FetchedManifest`].
    is_old: bool,
}

impl FillTask {
    /// Ends a fill whose manifest is not stored.
    pub(super) fn settle(self, fetched: FetchedManifest, settlement: Settlement) {
        match settlement {
            Settlement::ConfirmStored(stored_version) => {
                self.confirm_stored(&fetched, &stored_version);
            }
            Settlement::ServeOnce => self.serve_once(fetched),
            Settlement::PassOn(reason) => self.hand_over_manifest(fetched, reason),
            Settlement::PassOnUnread => self.hand_over_unread(fetched),
            Settlement::Fail => self.handle_failure(Failure::Protocol),
        }
    }

    /// Settles a fill whose manifest is behind what viewers have seen.
    pub(super) fn settle_behind(self, fetched: FetchedManifest) {
        let tracker = fetched.tracker.clone();
        let _lock = tracker.as_ref().map(|tracker| tracker.lock_publishing());
        self.settle_behind_locked(fetched);
    }

    /// The same; the caller holds the tracker's publishing lock.
    pub(super) fn settle_behind_locked(self, fetched: FetchedManifest) {
        let storage = self.storage_as_newest(&fetched);
        let settlement = decide_behind(self.newest_if_not_behind(&fetched), &storage);
        self.settle(fetched, settlement);
    }

    /// What the caching rules say of the manifest as the newest version.
    pub(super) fn storage_as_newest(&self, fetched: &FetchedManifest) -> StorageDecision {
        let (response, kind) = (&fetched.response, fetched.kind);
        self.decide_storage(response, kind, fetched.info(), StoredAs::Newest)
    }

    /// The newest stored version, unless viewers have seen a newer one that is no longer stored.
    pub(super) fn newest_if_not_behind(&self, fetched: &FetchedManifest) -> Option<Arc<Object>> {
        let newest = self.newest_stored_ok()?;
        let (Some(tracker), Some(info)) = (&fetched.tracker, newest.head.manifest_info.as_deref())
        else {
            return Some(newest);
        };
        let progress = tracker.progress_of(fetched.variant, info, Instant::now());
        (progress != Progress::Behind).then_some(newest)
    }

    /// The newest stored version of the manifest, unless an error is stored.
    pub(super) fn newest_stored_ok(&self) -> Option<Arc<Object>> {
        let upstream_headers = || self.fill.upstream_headers().clone();
        let shield = &self.shield;
        let newest = shield.newest_stored(&self.request, Instant::now(), upstream_headers);
        newest.filter(|newest| newest.head.status == StatusCode::OK)
    }

    /// Gives the newest stored version to all followers, as if the origin had just confirmed it.
    fn confirm_stored(self, fetched: &FetchedManifest, stored_version: &Arc<Object>) {
        let object = Arc::new(self.revalidated_object(Revalidation {
            stored: stored_version,
            stored_as: StoredAs::Newest,
            headers: stored_version.head.headers.to_map(),
            targeted: stored_targeted(stored_version),
            response: &fetched.response,
        }));
        let verdict = Verdict::Revalidated(Arc::clone(&object));
        if !object.head.will_be_stored {
            return self.fill.settle(verdict);
        }
        if let Some(tracker) = &fetched.tracker {
            let confirmation = Confirmation {
                variant: fetched.variant,
                current_at: fetched.current_at,
                endpoint: fetched.response.endpoint,
                is_old: fetched.is_old,
            };
            self.record_confirmation(tracker, &object.head, &confirmation);
        }
        if self.request.has_delivery_directives() {
            self.store_as_newest(&object);
            self.fill.settle(verdict);
        } else {
            self.fill.set_vary(self.vary(&object.head.headers.to_map()));
            self.fill.store_and_publish(&object, verdict);
        }
    }

    /// Stores a version under the key without delivery directives.
    pub(super) fn store_as_newest(&self, version: &Arc<Object>) {
        let (key, kind) = (self.request.base_key(), self.request.kind);
        self.shield.cache.store_under(key, kind, version);
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

    /// The origin confirmed the stored version with a 304.
    pub(super) fn record_not_modified(
        &self,
        response: &UpstreamResponse,
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
        let confirmation = Confirmation {
            variant,
            current_at: self.sent_and_current_at(response).1,
            endpoint: response.endpoint,
            is_old: false,
        };
        self.record_confirmation(&tracker, head, &confirmation);
    }

    /// Records that the stored version with this head is still the newest, and has the refresher
    /// run. An endpoint that should have had a newer one by now is avoided.
    fn record_confirmation(
        &self,
        tracker: &Arc<ManifestTracker>,
        head: &StoredHead,
        confirmation: &Confirmation,
    ) {
        let current_at = confirmation.current_at;
        tracker.record_unchanged(confirmation.variant, current_at);
        let info = head.manifest_info.as_deref();
        let remaining = head.lifetime.refreshed_remaining(info, current_at);
        tracker.set_fresh_for(remaining, current_at);
        self.avoid_endpoint_if_stalled(tracker, confirmation.endpoint, confirmation.is_old);
        self.shield.start_refresher(tracker);
    }

    /// Avoids the endpoint of a version that should have changed by now.
    pub(super) fn avoid_endpoint_if_stalled(
        &self,
        tracker: &ManifestTracker,
        endpoint: usize,
        is_old: bool,
    ) {
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
